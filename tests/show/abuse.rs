//! Tasks without manners, beside a stream of small tasks that must not notice.

use super::{call, post, post_unchecked, value, wait};
use crate::harness::process::is_alive;
use crate::harness::{TestDir, Worker, eventually};
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ADD: &str = "add: {shell: 'echo $(( $1 + $2 ))'}\n";

/// No small task takes so long, whatever else runs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that calls `add`, one after the other, until it is told to stop.
struct Others {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Others {
    fn start(app: &Arc<TestDir>) -> Others {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (app, told, counted) = (app.clone(), stop.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let n = counted.load(Ordering::Relaxed);
                let begin = Instant::now();
                assert_eq!(value(&app, "add", &format!("[{n}, 1]")), n + 1);
                assert!(begin.elapsed() < PATIENCE, "add took {:?}", begin.elapsed());
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let others = Others { stop, count, thread };
        others.go_on();
        others
    }

    /// Waits until one more has succeeded that began after this call.
    fn go_on(&self) {
        let before = self.count.load(Ordering::Relaxed);
        eventually("two more additions", || {
            let done = self.count.load(Ordering::Relaxed) >= before + 2;
            (done || self.thread.is_finished()).then_some(())
        });
    }

    fn finish(self) {
        self.go_on();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// A worker on `add` and these tasks, and a client that keeps adding while `work` is done.
fn beside_others(tasks: &str, work: impl FnOnce(&TestDir, &Worker, &Others)) {
    let app = Arc::new(TestDir::with(&format!("{ADD}{tasks}")));
    let mut worker = app.worker(&["-c", "3"]);
    let pid = worker.pid();
    let others = Others::start(&app);
    work(&app, &worker, &others);
    others.finish();
    assert_eq!(worker.pid(), pid, "the worker is another one:\n{}", worker.log());
    assert_eq!(worker.stop(nix::sys::signal::Signal::SIGTERM), 0);
    worker.expect_no_survivors();
}

/// Memory of `pid` that is resident, in bytes.
fn resident(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Does `work` and watches the memory of `pid` meanwhile; gives the most it was.
fn while_sampling<T>(pid: i32, work: impl FnOnce() -> T) -> (T, u64) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = resident(pid);
            while !over.load(Ordering::Relaxed) {
                most = most.max(resident(pid));
                // The pace of a sampler: there is no event to await.
                std::thread::sleep(Duration::from_millis(2));
            }
            most
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        (done, sampler.join().unwrap())
    })
}

#[test]
fn a_gigabyte_of_output() {
    let tasks = "flood: {shell: 'head -c 1G /dev/zero | tr \"\\0\" \"$1\"; echo end', result: text}\n\
                 errors: {shell: 'head -c 1G /dev/zero | tr \"\\0\" \"$1\" >&2; echo end >&2; exit 1'}\n";
    beside_others(tasks, |app, worker, _| {
        let pid = worker.pid();
        let before = resident(pid);
        let mut most = before;
        for task in ["flood", "errors"] {
            let id = post(app, task, r#"["x"]"#);
            let (ended, peak) = while_sampling(pid, || wait(app, &id));
            most = most.max(peak);
            let kept = if task == "flood" {
                let kept = ended.value().as_str().unwrap().to_string();
                assert_eq!(kept.len(), 1024 * 1024 - 1);
                kept
            } else {
                assert_eq!(ended.message()[0], 1);
                ended.traceback().to_string()
            };
            assert!(kept.ends_with("xxxend"));
            assert!(kept.starts_with("xxx"));
        }
        let grown = (most - before) >> 20;
        assert!(grown < 16, "the worker grew by {grown} MiB");
    });
}

/// Ten million characters, as JSON.
fn ten_megabytes() -> String {
    json!(["ö".repeat(5_000_000)]).to_string()
}

#[test]
fn standard_input_that_nobody_reads() {
    let tasks = "deaf: {shell: 'echo done', stdin: json}\n\
                 closed: {shell: 'exec <&-; sleep 0.1; echo done', stdin: json}\n\
                 reads: {shell: 'wc -c', stdin: json}\n";
    beside_others(tasks, |app, _, others| {
        let args = ten_megabytes();
        for task in ["deaf", "closed"] {
            let id = post_unchecked(app, task, &args);
            others.go_on();
            assert_eq!(wait(app, &id).value(), "done");
        }
        let read = wait(app, &post_unchecked(app, "reads", &args)).value();
        assert!(read.as_u64().unwrap() > 10_000_000, "{read}");
    });
}

#[test]
fn ten_megabytes_without_standard_input_are_refused() {
    let tasks = "argv: {shell: 'echo ${#1}'}\nexec: {exec: [echo, '{1}']}\n\
                 many: {shell: 'echo $#'}\n";
    beside_others(tasks, |app, _, _| {
        let args = ten_megabytes();
        for task in ["argv", "exec"] {
            let ended = wait(app, &post_unchecked(app, task, &args));
            assert_eq!(ended.class(), "builtins.OSError");
            assert_eq!(ended.message()[0], 7);
            let why = ended.message()[1].as_str().unwrap();
            assert!(
                why.starts_with("Argument list too long: argument 1 has 10000000 bytes"),
                "{why}"
            );
        }
        // Each fits, all together do not.
        let args = json!(vec!["y".repeat(100_000); 100]).to_string();
        let ended = wait(app, &post_unchecked(app, "many", &args));
        assert_eq!(ended.message()[0], 7, "{ended:?}");
        // And the longest that is allowed arrives.
        let args = json!(["x".repeat(120_000)]).to_string();
        assert_eq!(wait(app, &post_unchecked(app, "argv", &args)).value(), 120_000);
    });
}

#[test]
fn standard_output_closed_early() {
    let tasks = "quiet: {shell: 'echo first; exec >&- 2>&-; sleep 0.3; echo x > after; exit $1'}\n";
    beside_others(tasks, |app, _, _| {
        assert_eq!(value(app, "quiet", "[0]"), "first");
        // It was not taken for its end.
        assert_eq!(app.read("after"), "x\n");
        let failed = call(app, "quiet", "[4]");
        assert_eq!(failed.message()[0], 4);
        // What it said before, as nothing is on standard error.
        assert_eq!(failed.traceback(), "first");
    });
}

#[test]
fn grandchildren_that_ignore_term() {
    // They hold the pipes; whoever waits for the end of the output waits for ever.
    let tasks = r#"
leaves: {shell: './stay & while ! test -s stay.pid; do sleep 0.01; done; echo gone'}
session: {shell: 'setsid ./stay & while ! test -s stay.pid; do sleep 0.01; done; echo gone'}
hard: {shell: 'trap "" TERM; ./stay & setsid ./stay & wait', soft_time_limit: 1s, time_limit: 1500ms}
soft: {shell: './stay & setsid ./stay & wait', soft_time_limit: 1s, time_limit: 1500ms}
"#;
    beside_others(tasks, |app, _, others| {
        app.program(
            "stay",
            "#!/bin/sh\ntrap '' TERM HUP\nsh -c 'trap \"\" TERM; echo $$ >> stay.pid; sleep 1000' &\n\
             echo $$ >> stay.pid\nsleep 1000\n",
        );
        let pids = || app.lines("stay.pid").into_iter().map(|line| line.parse::<i32>().unwrap());
        let begin = Instant::now();
        assert_eq!(value(app, "leaves", "[]"), "gone");
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        let gone = || eventually("the end of all", || (!pids().any(is_alive)).then_some(()));
        gone();
        for (task, limit) in [("hard", "TimeLimitExceeded"), ("soft", "SoftTimeLimitExceeded")] {
            let ended = call(app, task, "[]");
            assert_eq!(ended.class(), format!("billiard.exceptions.{limit}"));
            gone();
        }
        others.go_on();
        // A daemon with a session of its own is let go, but delays nobody; it ends with
        // the worker.
        fs::remove_file(app.file("stay.pid")).unwrap();
        let begin = Instant::now();
        assert_eq!(value(app, "session", "[]"), "gone");
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    });
}

#[test]
fn arguments_are_never_code() {
    let tasks = r#"
shell: {shell: 'printf %s "$1"', result: text}
variable: {shell: 'printf %s "$ARG_x"', params: [x], result: text}
exec: {exec: [printf, '%s', '{1}'], result: text}
part: {exec: [printf, '%s', 'a{x}b'], params: [x], result: text}
stdin: {exec: [cat], stdin: json}
"#;
    beside_others(tasks, |app, _, _| {
        let nasty = [
            "$(touch hacked)",
            "`touch hacked`",
            "; touch hacked #",
            "' ; touch hacked ; '",
            "\" ; touch hacked ; \"",
            "\"quotes\" and 'quotes' and \\ and \\\\",
            "two\nlines\r\n\tand a tab",
            "${HOME} %s %n * ? [a] ~ ! & | > hacked < /etc/passwd",
            "{1} {x} {{}} {*}",
            "-n",
            "--help",
            "\u{1b}[31m \u{7} \u{feff} ü 漢 \u{1f600}",
            " ",
        ];
        for text in nasty {
            let args = json!([text]).to_string();
            for task in ["shell", "variable", "exec"] {
                assert_eq!(value(app, task, &args), text, "{task}");
            }
            assert_eq!(value(app, "part", &args), format!("a{text}b"));
            assert_eq!(value(app, "stdin", &args)["args"][0], text);
        }
        assert!(!app.file("hacked").exists());
        let nul = r#"["a\u0000b"]"#;
        for task in ["shell", "variable", "exec", "part"] {
            let ended = call(app, task, nul);
            assert_eq!(ended.class(), "builtins.ValueError", "{task}");
            assert!(ended.text().contains("embedded null byte"), "{ended:?}");
        }
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let deep: Value = serde_json::from_str(&deep).unwrap();
        assert_eq!(value(app, "stdin", &json!([deep]).to_string())["args"][0], deep);
    });
}
