//! The clients in `etc/clients`, each run by real tasks.

use crate::harness::{TestDir, eventually};
use serde_json::{Value, json};
use std::path::Path;

const QWORKER: &str = env!("CARGO_BIN_EXE_qworker");

/// What the tasks are called, in the order of their programs.
const NAMES: [&str; 7] = ["ask", "calls", "fails", "again", "replaces", "wrong", "leaves"];

/// An application with these programs, run by `command`; each begins with `head`.
fn app(command: &str, head: &str, programs: [&str; 7]) -> TestDir {
    let mut tasks =
        r#"inner: {shell: 'printf "%s" "$QWORKER_TASK_PARENT_ID"', result: text}"#.to_string();
    let app = TestDir::new();
    for (name, program) in NAMES.into_iter().zip(programs) {
        app.write(&format!("programs/{name}"), &format!("{head}\n{program}\n"));
        let path = app.file(&format!("programs/{name}"));
        let path = path.display();
        tasks.push_str(&format!(
            "\n{name}: {{exec: ['{command}', '{path}'], env: {{QWORKER: '{QWORKER}'}}}}"
        ));
    }
    app.write("tasks.d/tasks.yaml", &format!("{tasks}\n"));
    app
}

fn client(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/clients").join(name).display().to_string()
}

/// What every client does, whatever its language.
fn show(app: &TestDir) {
    let _worker = app.worker(&["-c", "2"]);
    let ended = |name: &str| {
        let output = app.qworker(&["call", name, "--wait", "--json"]);
        serde_json::from_str::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let asked = ended("ask");
    assert_eq!(asked["result"], "ask", "{asked}");
    let called = ended("calls");
    assert_eq!(called["status"], "SUCCESS", "{called}");
    let child = called["result"].as_str().unwrap();
    assert_eq!(called["children"][0][0][0], child, "{called}");
    assert_eq!(app.must(&["result", child, "--wait"]), called["task_id"].as_str().unwrap());
    let failed = ended("fails");
    let expected = json!({"exc_type": "TooSmall", "exc_message": ["only ä"], "exc_module": "shop"});
    assert_eq!(failed["result"], expected, "{failed}");
    let again = ended("again");
    assert_eq!(again["result"], 1, "{again}");
    let replaced = ended("replaces");
    assert_eq!(replaced["result"], replaced["task_id"], "{replaced}");
    let wrong = ended("wrong");
    assert_eq!(wrong["result"], "invalid", "{wrong}");
    let id = app.must(&["call", "leaves"]);
    let left = eventually("the state", || {
        let text = app.qworker(&["result", &id, "--json"]).stdout;
        let found: Value = serde_json::from_str(&text).unwrap_or_default();
        (found["status"] == "LEFT").then(|| found["result"].clone())
    });
    assert_eq!(left, json!({"n": [1, "ä"]}));
}

#[test]
fn of_python() {
    let head = format!(
        "import os, sys\nsys.path.insert(0, os.path.dirname('{0}'))\nsys.dont_write_bytecode = True\n\
         from qworker_task import Task, TaskError\ntask = Task()",
        client("qworker_task.py")
    );
    let programs = [
        "task.progress(1, 2)\nprint(task.request()['request']['headers']['task'])",
        "print(task.call('inner', countdown=0.01))",
        "class TooSmall(Exception): pass\nTooSmall.__module__ = 'shop'\ntask.fail(TooSmall('only ä'))",
        "if os.environ['QWORKER_TASK_RETRIES'] == '1': print(1)\nelse: task.retry(countdown=0)",
        "task.replace({'task': 'inner'})",
        "try: task.update_state('SUCCESS')\nexcept TaskError as error: print(error.code)",
        "task.update_state('LEFT', {'n': [1, 'ä']})\ntask.ignore()",
    ];
    show(&app("python3", &head, programs));
}

#[test]
fn of_node() {
    let head = format!(
        "const {{ Task, TaskError }} = require('{}');\nconst fail = (error) => {{ throw error; }};\n\
         const run = (work) => Task.connect().then(async (task) => {{ await work(task); task.close(); }}).catch(fail);",
        client("qworker_task.js")
    );
    let programs = [
        "run(async (task) => { await task.progress(1, 2); console.log((await task.request()).request.headers.task); });",
        "run(async (task) => console.log(await task.call('inner', [], {}, { countdown: 0.01 })));",
        "run((task) => task.fail('TooSmall', 'only ä', 'shop'));",
        "if (process.env.QWORKER_TASK_RETRIES === '1') console.log(1); else run((task) => task.retry({ countdown: 0 }));",
        "run((task) => task.replace({ task: 'inner' }));",
        "run((task) => task.updateState('SUCCESS').then(fail, (error) => console.log(error.code)));",
        "run(async (task) => { await task.updateState('LEFT', { n: [1, 'ä'] }); await task.ignore(); });",
    ];
    show(&app("node", &head, programs));
}

#[test]
fn of_the_shell() {
    let head = format!("set -eu\n. '{}'", client("qworker_task.sh"));
    let programs = [
        "task_progress 1 2\ntask_request | sed 's/.*\"headers\":{\"lang\":\"rust\",\"task\":\"\\([a-z]*\\)\".*/\\1/'",
        "task_call inner --countdown 0.01",
        "task_fail TooSmall 'only ä' shop\necho not reached\nexit 3",
        "[ \"$QWORKER_TASK_RETRIES\" = 1 ] && { echo 1; exit; }\ntask_retry --countdown 0\nexit 3",
        "task_replace '{\"task\": \"inner\"}'\nexit 3",
        "code=0\ntask_update_state SUCCESS || code=$?\n[ $code = 2 ] && echo invalid",
        "task_update_state LEFT --meta '{\"n\": [1, \"ä\"]}'\ntask_ignore\nexit 3",
    ];
    show(&app("sh", &head, programs));
}
