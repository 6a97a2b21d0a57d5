//! A real Celery worker: one process that runs one task at a time.

use super::APP;
use crate::harness::python::python;
use crate::harness::{Place, TestDir, Worker};
use std::process::{Child, Command, Stdio};

/// Ends with KILL when it is dropped.
pub struct PythonWorker(Child);

const TASKS: &str = r#"
@app.task(name="py.add")
def add(a, b=1): return a + b
@app.task(name="py.kind")
def kind(x): return [type(x).__name__, repr(x)]
@app.task(name="py.fail")
def fail(): raise KeyError("k", 5)
@app.task(name="py.me", bind=True)
def me(self): return [self.request.id, self.request.root_id, self.request.retries]
@app.task(name="py.note")
def note(text): open("notes", "a").write(f"{text}\n")
@app.task(name="py.again", bind=True)
def again(self):
    return [self.request.get("redelivered"), self.request.delivery_info["redelivered"]]
@app.task(name="py.hang", acks_late=True)
def hang():
    import signal
    open("hangs", "a").write("hangs\n")
    signal.pause()
"#;

impl PythonWorker {
    /// Starts it where `app` has its messages; `settings` is Python that changes `app`. Its log
    /// is in `python.log`.
    pub fn start(app: &TestDir, settings: &str) -> PythonWorker {
        let start = r#"app.start(["worker", "-P", "solo", "-l", "INFO", "--without-gossip",
                                  "--without-mingle", "--without-heartbeat"])"#;
        app.write("interop.py", &format!("{APP}\n{settings}\n{TASKS}\n{start}\n"));
        let log = std::fs::File::create(app.file("python.log")).unwrap();
        let child = Command::new(python())
            .arg(app.file("interop.py"))
            .args(app.celery_addresses())
            .current_dir(app.path())
            .env("C_FORCE_ROOT", "1")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        PythonWorker(child)
    }

    /// Kills it with KILL.
    pub fn kill(self) {}
}

impl Drop for PythonWorker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker of these tasks, with the queue `ours`, and one of Python's with the queue `celery`; a task
/// goes to Python's if its name begins with `py.`.
pub fn beside_python(place: Place, tasks: &str) -> (TestDir, Worker, PythonWorker) {
    let app = place.app(tasks);
    app.settings("task_default_queue: ours\ntask_routes: {'py.*': celery}\n");
    let worker = app.worker(&["-c", "4"]);
    let python = PythonWorker::start(
        &app,
        r#"
app.conf.task_routes = {"py.*": {"queue": "celery"}, "*": {"queue": "ours"}}
@app.task(name="py.total")
def total(values): return sum(values)
"#,
    );
    (app, worker, python)
}
