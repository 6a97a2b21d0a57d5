//! What Celery and we have in common over Redis alone: priorities, exchanges, prefixes, the
//! life of a result, and messages whose worker died.

use super::celery;
use super::worker::PythonWorker;
use crate::harness::{Place, TestDir, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const TASKS: &str = r#"
add: {shell: 'echo $(( $1 + $2 ))'}
note: {shell: 'echo $1 >>notes'}
wait: {shell: 'echo >>waits; while [ ! -e go ]; do sleep 0.01; done; echo done'}
py.hang: {shell: 'echo $QWORKER_TASK_ID'}
py.again: {shell: 'while :; do sleep 1; done'}
"#;

fn notes(app: &TestDir, count: usize) -> Vec<String> {
    eventually("all notes", || (app.lines("notes").len() >= count).then_some(()));
    app.lines("notes")
}

/// `qworker call --unregistered ARGS`; gives the id.
fn call(app: &TestDir, args: &[&str]) -> String {
    app.must(&[&["call", "--unregistered"], args].concat())
}

#[test]
fn states_and_groups_and_the_life_of_results() {
    let app = Place::Redis.app(TASKS);
    app.settings("task_track_started: true\nresult_expires: 100\n");
    let _worker = app.worker(&["-c", "1", "-n", "w1@here"]);
    let script = r#"
import time
from celery import group
first, second = app.send_task("wait"), app.send_task("wait")
# STARTED is no final state: get() does not wait for it.
while first.state == "PENDING": time.sleep(0.01)
states = [first.state, sorted(first.info), first.info["hostname"], second.state]
open("GO", "w").close()
states += [first.get(timeout=60), second.get(timeout=60), first.state]
quiet = app.send_task("add", (1, 2), ignore_result=True)
gone = app.send_task("add", (1, 2))
gone.get(timeout=60)
gone.forget()
sums = group(app.signature("add", (n, n)) for n in range(5))().get(timeout=60)
child = app.send_task("add", (2, 2), parent_id="P", group_id="G")
child.get(timeout=60)
client = app.backend.client
key = lambda result: "celery-task-meta-" + result.id
say({"states": states, "sums": sums, "document": json.loads(client.get(key(child))),
     "kept": [client.exists(key(result)) for result in (quiet, gone, child)],
     "ttl": client.ttl(key(child)), "type": client.type(key(child)).decode(), "id": child.id})
"#;
    let got = celery(&app, &script.replace("GO", app.file("go").to_str().unwrap()));
    let states =
        json!(["STARTED", ["hostname", "pid"], "w1@here", "PENDING", "done", "done", "SUCCESS"]);
    assert_eq!(got["states"], states);
    assert_eq!(got["sums"], json!([0, 2, 4, 6, 8]));
    assert_eq!(got["kept"], json!([0, 0, 1]));
    let document = &got["document"];
    let expected = json!({"status": "SUCCESS", "result": 4, "traceback": null, "children": [],
        "date_done": document["date_done"], "group_id": "G", "parent_id": "P",
        "task_id": got["id"]});
    assert_eq!(document, &expected);
    let ttl = got["ttl"].as_u64().unwrap();
    assert!((90..=100).contains(&ttl), "{got}");
}

#[test]
fn the_lowest_number_is_served_first_as_kombu_does() {
    let app = Place::Redis.app(TASKS);
    celery(&app, "say([app.send_task('note', (p,), priority=p).id for p in (9, 5, 0, 3, 8, 1)])");
    let _worker = app.worker(&["-c", "1"]);
    // By steps of three, in each the older first.
    assert_eq!(notes(&app, 6), ["0", "1", "5", "3", "8", "9"]);
}

#[test]
fn a_python_worker_serves_our_higher_priorities_first() {
    let app = Place::Redis.app("");
    for priority in ["1", "5", "9"] {
        call(&app, &["py.note", "-a", &format!("[{priority}]"), "--priority", priority]);
    }
    let late = call(&app, &["py.add", "-a", "[1]", "--expires", "0.001"]);
    let later = call(&app, &["py.add", "-a", "[20, 22]", "--countdown", "1"]);
    let elsewhere = call(&app, &["py.add", "-a", "[1]", "--queue", "elsewhere"]);
    let _worker = PythonWorker::start(&app, "");
    assert_eq!(notes(&app, 3), ["9", "5", "1"]);
    let result = |id: &str| app.qworker(&["result", id, "--wait", "--timeout", "60"]);
    let expired = result(&late);
    assert_eq!(expired.code, 1, "{expired:?}");
    assert!(expired.stderr.contains("REVOKED: TaskRevokedError: expired"), "{expired:?}");
    assert_eq!(result(&later).stdout, "42\n");
    assert_eq!(app.server().run::<u32>(&["LLEN", "elsewhere"]), 1);
    let waits = app.qworker(&["result", &elsewhere]);
    assert_eq!((waits.code, waits.stderr.as_str()), (75, "PENDING: waits in queue elsewhere\n"));
}

#[test]
fn exchanges_are_those_that_python_declared() {
    let app = Place::Redis.app("");
    let _worker = PythonWorker::start(
        &app,
        r##"
from kombu import Exchange, Queue
topics = Exchange("topics", "topic")
app.conf.task_queues = [
    Queue("a", Exchange("news"), "eu"), Queue("b", Exchange("news"), "eu"),
    Queue("c", topics, "eu.#"), Queue("d", topics, "*.sport"),
]
"##,
    );
    let is_ready = || app.read("python.log").contains(" ready.").then_some(());
    eventually("a Python worker", is_ready);
    let mut sent = 0;
    for (exchange, key, copies) in [
        ("news", "eu", 2),
        ("topics", "eu.sport", 2),
        ("topics", "eu.weather", 1),
        ("topics", "us.sport", 1),
    ] {
        let note = format!("[\"{key}\"]");
        let id =
            call(&app, &["py.note", "-a", &note, "--exchange", exchange, "--routing-key", key]);
        assert_eq!(id.lines().count(), 1, "all copies are one task");
        sent += copies;
        let found = notes(&app, sent);
        assert_eq!(found[sent - copies..], vec![key.to_string(); copies]);
    }
    let nowhere = ["--exchange", "topics", "--routing-key", "us.x"];
    let lost = app.qworker(&[&["call", "--unregistered", "py.note"], &nowhere[..]].concat());
    assert_eq!(lost.code, 69, "{lost:?}");
    assert_eq!(app.lines("notes").len(), sent, "{:?}", app.lines("notes"));
}

#[test]
fn a_batch_for_a_python_worker() {
    let app = Place::Redis.app("");
    let lines: String = (0..1000).map(|n| format!("{{\"args\": [{n}, 1]}}\n")).collect();
    let args = ["call", "py.add", "--unregistered", "--from-jsonl", "-"];
    let output = app.qworker_with_input(&args, &lines);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let ids: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(ids.len(), 1000);
    let _worker = PythonWorker::start(&app, "");
    let result = |id: &str| app.must(&["result", id, "--wait", "--timeout", "60"]);
    assert_eq!(result(ids[999]), "1000");
    assert_eq!([result(ids[0]), result(ids[500])], ["1", "501"]);
    let stored: Vec<String> = app.server().run(&["KEYS", "celery-task-meta-*"]);
    let mut stored: Vec<&str> =
        stored.iter().map(|key| key.trim_start_matches("celery-task-meta-")).collect();
    stored.sort_unstable();
    let mut ids = ids;
    ids.sort_unstable();
    assert_eq!(stored, ids);
}

#[test]
fn keys_with_a_prefix_and_nothing_without() {
    let app = Place::Redis.app(TASKS);
    app.settings(
        "broker_transport_options: {global_keyprefix: 'app:'}\n\
         result_backend_transport_options: {global_keyprefix: res}\n",
    );
    let options = r#"
app.conf.broker_transport_options = {"global_keyprefix": "app:"}
app.conf.result_backend_transport_options = {"global_keyprefix": "res"}
"#;
    let _worker = app.worker(&["-c", "1"]);
    let script = format!("{options}\nsay(app.send_task('add', (2, 3)).get(timeout=60))");
    assert_eq!(celery(&app, &script), json!(5));
    let id = call(&app, &["py.add", "-a", "[20, 22]", "--queue", "python"]);
    let queue = format!("{options}\napp.conf.task_default_queue = 'python'");
    let _python = PythonWorker::start(&app, &queue);
    assert_eq!(app.must(&["result", &id, "--wait", "--timeout", "60"]), "42");
    let keys: Vec<String> = app.server().run(&["KEYS", "*"]);
    let odd: Vec<&String> =
        keys.iter().filter(|key| !key.starts_with("app:") && !key.starts_with("res_")).collect();
    // Its lists of replies and events are not shared.
    assert!(odd.iter().all(|key| key.contains("celeryev") || key.contains("pidbox")), "{odd:?}");
    assert!(keys.contains(&format!("res_celery-task-meta-{id}")), "{keys:?}");
}

/// Seconds by the server's clock.
fn server_time(app: &TestDir) -> f64 {
    let time: Vec<u64> = app.server().run(&["TIME"]);
    time[0] as f64 + time[1] as f64 / 1e6
}

#[test]
fn we_hand_out_again_what_a_dead_python_worker_held() {
    let app = Place::Redis.app(TASKS);
    app.settings("broker_transport_options: {visibility_timeout: 1}\n");
    // By way of an exchange: what is restored finds its queue by the binding.
    let queue = r#"
from kombu import Exchange, Queue
app.conf.task_queues = [Queue("celery", Exchange("there"), "key")]
"#;
    let python = PythonWorker::start(&app, queue);
    eventually("its queue", || {
        (app.server().run::<u32>(&["SCARD", "_kombu.binding.there"]) > 0).then_some(())
    });
    let there = ["--exchange", "there", "--routing-key", "key"];
    let id = call(&app, &[&["py.hang"], &there[..]].concat());
    eventually("its start", || (app.lines("hangs").len() == 1).then_some(()));
    let held = || app.server().run::<u32>(&["HLEN", "unacked"]);
    assert_eq!(held(), 1);
    python.kill();
    eventually("the end of its time", || {
        let newest: Vec<String> =
            app.server().run(&["ZRANGE", "unacked_index", "-1", "-1", "WITHSCORES"]);
        (server_time(&app) - newest[1].parse::<f64>().unwrap() > 1.0).then_some(())
    });
    let _worker = app.worker(&["-c", "1"]);
    assert_eq!(app.must(&["result", &id, "--wait", "--timeout", "60"]), id);
    eventually("nothing held", || (held() == 0).then_some(()));
}

#[test]
fn a_python_worker_hands_out_again_what_our_dead_worker_held() {
    let app = Place::Redis.app(TASKS);
    let id = call(&app, &["wait"]);
    let mut worker = app.worker(&["-c", "1"]);
    eventually("its start", || (!app.lines("waits").is_empty()).then_some(()));
    worker.kill_with_guard();
    worker.expect_no_survivors();
    let tags: Vec<String> = app.server().run(&["HKEYS", "unacked"]);
    // Its lease is over, as it would be some seconds later.
    app.server().run::<u32>(&["ZADD", "unacked_index", "1", &tags[0]]);
    let more = r#"
app.conf.broker_transport_options = {"visibility_timeout": 1}
@app.task(name="wait", bind=True)
def wait(self): return [self.request.get("redelivered"), self.request.delivery_info["redelivered"]]
"#;
    let _python = PythonWorker::start(&app, more);
    let again = app.must(&["result", &id, "--wait", "--timeout", "60"]);
    assert_eq!(again, "[true, true]");
}

#[test]
fn python_sees_that_we_have_lost_it_once() {
    let app = Place::Redis.app(TASKS);
    let id = call(&app, &["py.again"]);
    let mut first = app.worker(&["-c", "1"]);
    let held = || app.server().run::<u32>(&["HLEN", "unacked"]);
    eventually("a message in hands", || (held() == 1).then_some(()));
    first.signal(Signal::SIGKILL);
    first.expect_no_survivors();
    first.wait();
    // The guard is gone, and the worker has given back what it held before it ended.
    eventually("its return", || (held() == 0).then_some(()));
    let element: Vec<String> = app.server().run(&["LRANGE", "celery", "0", "-1"]);
    let message: Value = serde_json::from_str(&element[0]).unwrap();
    assert_eq!(message["qworker"], json!([1, 1]), "{message}");
    let _python = PythonWorker::start(&app, "");
    assert_eq!(app.must(&["result", &id, "--wait", "--timeout", "60"]), "[true, true]");
}
