//! We send, a real Python worker runs it, and we read its result.

use super::{APP, addresses};
use crate::harness::python::python;
use crate::harness::{TestDir, eventually};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};

struct PythonWorker(Child);

impl PythonWorker {
    fn start(app: &TestDir) -> PythonWorker {
        app.write(
            "interop.py",
            &format!(
                "{APP}\n{}",
                r#"
@app.task(name="py.add")
def add(a, b=1): return a + b
@app.task(name="py.kind")
def kind(x): return [type(x).__name__, repr(x)]
@app.task(name="py.fail")
def fail(): raise KeyError("k", 5)
@app.task(name="py.me", bind=True)
def me(self): return [self.request.id, self.request.root_id, self.request.retries]
app.start(["worker", "-P", "solo", "-l", "WARNING", "--without-gossip", "--without-mingle"])
"#
            ),
        );
        let [broker, backend] = addresses(app);
        let child = Command::new(python())
            .args([app.file("interop.py").to_str().unwrap(), &broker, &backend])
            .current_dir(app.path())
            .env("C_FORCE_ROOT", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        PythonWorker(child)
    }
}

impl Drop for PythonWorker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_python_worker_runs_what_we_send() {
    let app = TestDir::new();
    // We make the file, with our columns; Python works on it.
    let call = |args: &[&str]| {
        let args = [&["call", "--unregistered"], args].concat();
        app.must(&args)
    };
    let sum = call(&["py.add", "--args", "[2, 3]"]);
    let large = call(&["py.add", "--args", "[12345678901234567890123]", "--kwargs", r#"{"b": 2}"#]);
    let typed = call(&["py.kind", "--args", r#"[{"__type__": "base64", "__value__": "/w=="}]"#]);
    let text = call(&["py.kind", "--args", "[\"ü\\u0000\"]"]);
    let fail = call(&["py.fail"]);
    let me = call(&["py.me", "--task-id", "our-own-id"]);
    assert_eq!(me, "our-own-id");
    let later = call(&["py.add", "--args", "[20, 22]", "--countdown", "1"]);
    let _worker = PythonWorker::start(&app);
    let result = |id: &str| -> Value {
        let output = eventually("a result", || {
            let output = app.qworker(&["result", id, "--json", "--wait", "--timeout", "20"]);
            (output.code < 2).then_some(output)
        });
        serde_json::from_str(&output.stdout).unwrap()
    };
    assert_eq!(result(&sum)["result"], json!(5));
    assert_eq!(app.must(&["result", &sum]), "5");
    let digits = result(&large).to_string();
    assert!(digits.contains("\"SUCCESS\""), "{digits}");
    assert_eq!(result(&typed)["result"], json!(["bytes", "b'\\xff'"]));
    assert_eq!(result(&text)["result"], json!(["str", "'ü\\x00'"]));
    let failed = result(&fail);
    assert_eq!(failed["status"], json!("FAILURE"));
    assert_eq!(failed["result"]["exc_type"], json!("KeyError"));
    assert!(failed["traceback"].as_str().unwrap().contains("raise KeyError"));
    assert_eq!(result(&later)["result"], json!(42));
    assert_eq!(result(&me)["result"], json!(["our-own-id", "our-own-id", 0]));
}
