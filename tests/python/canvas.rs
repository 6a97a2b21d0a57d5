//! Workflows of Python's, made of Python's tasks and ours in any mixture: chains, links, groups and
//! chords. A Python worker has the queue `celery`, ours has the queue `ours`.

use super::celery;
use super::worker::{PythonWorker, beside_python};
use crate::harness::{Place, TestDir, Worker, eventually, in_every_place, process};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Duration;

const TASKS: &str = r#"
add: {shell: 'echo $(( $1 + ${2:-0} ))'}
total: {shell: 'echo "$1" | tr -d "[]" | tr , + | { read -r sum; echo $(( $sum )); }'}
count: {shell: 'printf %s "$1" | tr -cd , | wc -c'}
text: {shell: 'printf %s "$1"', result: text}
note: {shell: 'echo "$*" >> notes'}
fail: {shell: 'echo a >&2; echo b >&2; exit 3'}
whole: {params: [request, exception, traceback, {text: null}], stdin: json, shell: cat}
die: {shell: 'kill -9 $$'}
flaky: {shell: '[ "$QWORKER_TASK_RETRIES" -gt 0 ] || exit 75; echo "$1"', retry_backoff: 0.1}
who: {shell: 'echo "$QWORKER_TASK_ROOT_ID $QWORKER_TASK_PARENT_ID"', result: text}
"#;

/// Signatures by the names of their tasks; `py` are Python's, the others ours.
const SIGNATURES: &str = r#"
from celery import chain, chord, group, signature
app.conf.task_routes = {"py.*": {"queue": "celery"}, "*": {"queue": "ours"}}
def sig(name):
    return lambda *args, **options: app.signature(name, args=args, **options)
add, total, text, note, fail, flaky, who, count = map(
    sig, "add total text note fail flaky who count".split())
padd, ptotal, pfail, pnote = map(sig, ["py.add", "py.total", "py.fail", "py.note"])
"#;

fn start(place: Place) -> (TestDir, Worker, PythonWorker) {
    beside_python(place, TASKS)
}

fn run(app: &TestDir, script: &str) -> Value {
    celery(app, &format!("{SIGNATURES}\n{script}"))
}

// Results are counted on Redis; on SQLite a task polls them.
in_every_place! {
    header_and_body_are_anybodys
    a_member_that_fails_ends_the_chord
    every_chord_ends_once_though_workers_are_killed
    a_chord_ends_however_a_member_does
    a_chord_of_names_that_nobody_has_ends
    an_errback_of_ours_gets_what_its_params_have_room_for
    the_steps_of_a_chain_are_anybodys
    callbacks_follow_success_and_errbacks_failure
    a_chain_that_fails_ends_for_who_waits_for_it
    groups_and_chains_in_each_other
}

fn the_steps_of_a_chain_are_anybodys(place: Place) {
    let (app, _worker, _python) = start(place);
    let found = run(
        &app,
        r#"
ours = chain(add(1, 2), add(3), add(4)).apply_async()
mixed = chain(padd(1, 2), add(3), padd(4), flaky(), add(100, immutable=True), padd(1)).apply_async()
alone = chain(add(5, 6)).apply_async()
family = chain(add(1), who(immutable=True)).apply_async()
head = family.parent
say([got(ours), got(ours.parent), got(ours.parent.parent), got(mixed), got(alone),
     got(family) == f"{head.id} {head.id}", [str(child.id) for child in head.children] == [family.id]])
"#,
    );
    assert_eq!(found, json!([10, 6, 3, 101, 11, true, true]));
}

fn callbacks_follow_success_and_errbacks_failure(place: Place) {
    let (app, _worker, _python) = start(place);
    let found = run(
        &app,
        r#"
one = add(1, 2).apply_async(link=padd(10))
two = add(3, 4).apply_async(link=[add(1).set(task_id="two-a"), add(2).set(task_id="two-b")])
bad = fail().apply_async(link=note("never"), link_error=[note("errback").set(task_id="err-ours"), pnote().set(task_id="err-python")])
late = add(1, 1).set(expires=-5).apply_async(link=note("never"), link_error=note("never"))
R = app.AsyncResult
say([got(one), got(one.children[0]), got(R("two-a")), got(R("two-b")), got(bad)[0],
     got(R("err-ours")), got(R("err-python")), got(late), bad.id])
"#,
    );
    let id = found[8].as_str().unwrap();
    assert_eq!((&found[0], &found[1]), (&json!(3), &json!(13)));
    assert_eq!((&found[2], &found[3]), (&json!(8), &json!(9)));
    assert_eq!(found[4], json!("CalledProcessError"));
    assert_eq!(found[7][0], json!("TaskRevokedError"));
    let mut notes = app.lines("notes");
    notes.sort();
    let mut expected = vec![id.to_string(), format!("{id} errback")];
    expected.sort();
    assert_eq!(notes, expected);
}

fn a_chain_that_fails_ends_for_who_waits_for_it(place: Place) {
    let (app, _worker, _python) = start(place);
    let found = run(
        &app,
        r#"
result = chain(add(1, 2), fail(), add(1), padd(2)).apply_async(link_error=note("error"))
python = chain(add(1, 2), pfail(immutable=True), add(1)).apply_async()
say([got(result), result.parent.state, result.parent.parent.state, result.parent.parent.parent.state, got(python)[0]])
"#,
    );
    assert_eq!(found[0][0], json!("CalledProcessError"));
    let states: Vec<&Value> = (1..4).map(|n| &found[n]).collect();
    assert_eq!(states, ["FAILURE", "FAILURE", "SUCCESS"]);
    assert_eq!(found[4], json!("KeyError"));
}

fn groups_and_chains_in_each_other(place: Place) {
    let (app, _worker, _python) = start(place);
    let found = run(
        &app,
        r#"
split = chain(add(1, 2), group(add(1), padd(2), chain(add(3), padd(4)))).apply_async()
linked = add(1, 1).apply_async(link=group(add(10).set(task_id="g-a"), chain(add(20), add(30).set(task_id="g-b"))))
R = app.AsyncResult
say([got(split), got(linked), got(R("g-a")), got(R("g-b"))])
"#,
    );
    assert_eq!(found, json!([[4, 5, 10], 2, 12, 52]));
}

fn header_and_body_are_anybodys(place: Place) {
    let (app, _worker, _python) = start(place);
    let found = run(
        &app,
        r#"
ours = chord([add(1, 1), add(2, 2), add(3, 3)])(total())
mixed = chord([add(1, 1), padd(2, 2), flaky(5)])(ptotal())
upgraded = chain(add(1, 1), group(add(1), padd(2), add(3)), total(), add(100)).apply_async()
in_python = chain(padd(1, 1), group(add(1), padd(2)), total(), padd(100)).apply_async()
twice = chain(group(add(1), add(2)), group(total(), ptotal()), total()).apply_async()
nested = chord([add(1, 1), chain(add(2, 2), chord([add(1), padd(2)], total()))])(total())
empty = chain(add(1, 1), chord([], text())).apply_async()
say([got(one) for one in (ours, mixed, upgraded, in_python, twice, nested)])
"#,
    );
    assert_eq!(found, json!([12, 11, 112, 107, 6, 13]));
}

fn a_member_that_fails_ends_the_chord(place: Place) {
    let (app, _worker, _python) = start(place);
    let found = run(
        &app,
        r#"
failed = chord([add(1, 1), fail()])(total().on_error(note("errback")))
expired = chord([add(1, 1), add(2, 2).set(expires=-5)])(total())
python = chord([add(1, 1), pfail()])(total())
chained = chord([add(1, 1), chain(fail(), add(1))])(total())
rest = chain(group(add(1, 1), fail()), total(), add(1)).apply_async()
outer = chord([add(1, 1), chord([add(1), fail()], total())])(total())
several = chord([add(1, 1), pfail()])(group(total().set(task_id="s-a"), chain(total(), add(1).set(task_id="s-b"))))
# Without its parents, whose errors would come first.
held = chord([add(1, 1), add(2, 2).set(countdown=3, task_id="held")])(total())
app.AsyncResult("held").revoke()
from celery.exceptions import TaskRevokedError
app.backend.mark_as_revoked("held", "revoked")
say([got(app.AsyncResult(one.id)) for one in (failed, expired, python, chained, rest, outer, held)]
    + [got(app.AsyncResult(id)) for id in ("s-a", "s-b")])
"#,
    );
    for n in [7, 8] {
        assert_eq!(found[n][0], json!("KeyError"), "{found}");
    }
    for (n, one) in found.as_array().unwrap()[..7].iter().enumerate() {
        assert_eq!(one[0], json!("ChordError"), "{n}: {one}");
    }
    assert!(found[0][1].as_str().unwrap().contains("raised CalledProcessError("), "{found}");
}

fn every_chord_ends_once_though_workers_are_killed(place: Place) {
    let (app, worker, _python) = start(place);
    let script = r#"
sent = [chord([add(n, n), padd(n, n), chain(add(n), flaky(), add(1))])(chain(total(), add(n))) for n in range(40)]
open("SENT", "w").close()
say([got(one) for one in sent])
"#;
    let killer = std::thread::spawn({
        let (guard, sent) = (worker.guard(), app.file("sent"));
        move || {
            eventually("they are sent", || sent.exists().then_some(()));
            // At any moment of their lives, so at none that an event tells.
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(fastrand::u64(50..400)));
                process::children(guard)
                    .into_iter()
                    .for_each(|pid| process::send(pid, Signal::SIGKILL));
            }
        }
    });
    let script = script.replace("SENT", app.file("sent").to_str().unwrap());
    let found = run(&app, &script);
    killer.join().unwrap();
    // 2n + 2n + (n + 1), and n more.
    assert_eq!(found, json!((0..40).map(|n| 6 * n + 1).collect::<Vec<_>>()));
}

fn a_chord_ends_however_a_member_does(place: Place) {
    let app = place.app(TASKS);
    app.settings(
        "task_default_queue: ours\ntask_routes: {'py.*': celery}\ntask_max_deliveries: 1\n",
    );
    let _worker = app.worker(&["-c", "4"]);
    let found = run(
        &app,
        r#"
die, whole = sig("die"), sig("whole")
nowhere = app.signature("x", exchange="x", routing_key="k", app=app)
lost = chord([add(1, 1), die()])(total())
dead = chord([add(1, 1), add(1, 1).set(link=nowhere)])(total())
misfit = chord([add(1, 1), whole()])(total())
body = chord([add(1, 1)])(total().set(link=nowhere))
silent = chord([add(1, 1), fail().set(ignore_result=True)])(total())
heard = chord([add(1, 1), add(2, 2).set(ignore_result=True)])(total())
say([got(app.AsyncResult(one.id)) for one in (lost, dead, misfit, silent, heard)])
"#,
    );
    for (n, raised) in [
        (0, "WorkerLostError("),
        (1, "InvalidTaskError("),
        (2, "TypeError("),
        (3, "CalledProcessError("),
    ] {
        assert_eq!(found[n][0], json!("ChordError"), "{found}");
        assert!(found[n][1].as_str().unwrap().contains(raised), "{found}");
    }
    assert_eq!(found[4], json!(6));
}

fn a_chord_of_names_that_nobody_has_ends(place: Place) {
    let app = place.app(TASKS);
    app.settings("task_unregistered: dead\ntask_max_deliveries: 1\ntask_default_queue: ours\n");
    let _worker = app.worker(&["-c", "4"]);
    let found = run(
        &app,
        r#"
nobody = sig("nobodys")
from celery.canvas import xmap
both = [nobody(1), xmap(nobody(), [1], app=app).set(queue="ours")]
alone = nobody(1).apply_async(link_error=note().set(task_id="told"))
say([got(app.AsyncResult(chord([add(1, 1), one])(total()).id)) for one in both] + [got(app.AsyncResult("told"))])
"#,
    );
    for n in 0..2 {
        assert!(
            found[n][1].as_str().unwrap().contains("raised NotRegistered('nobodys')"),
            "{found}"
        );
    }
    assert_eq!(app.lines("notes").len(), 1);
}

fn an_errback_of_ours_gets_what_its_params_have_room_for(place: Place) {
    let (app, _worker, _python) = start(place);
    let found = run(
        &app,
        r#"
whole = sig("whole")
bad = fail().set(task_id="bad").apply_async(link_error=[whole("x").set(task_id="whole"), whole("x", "y").set(task_id="less")])
broken = chord([add(1, 1), fail()])(total().set(task_id="body").on_error(whole("x").set(task_id="whole-chord")))
R = app.AsyncResult
say([got(R("whole")), got(R("less")), got(R("whole-chord"))])
"#,
    );
    let args = |n: usize| &found[n]["args"];
    let whole = args(0);
    assert_eq!((&whole[0]["id"], &whole[0]["task"]), (&json!("bad"), &json!("fail")), "{found}");
    assert_eq!((&whole[0]["args"], &whole[0]["kwargs"]), (&json!([]), &json!({})));
    assert_eq!(whole[1]["exc_type"], "CalledProcessError");
    assert_eq!((&whole[2], &whole[3]), (&json!("a\nb"), &json!("x")));
    assert_eq!(args(1), &json!(["bad", "x", "y"]));
    let chord = args(2);
    assert_eq!((&chord[0]["id"], &chord[1]["exc_type"]), (&json!("body"), &json!("ChordError")));
}

/// Results are where nobody counts members, whatever the broker is.
mod polled {
    use super::*;

    #[test]
    fn store_and_broker_may_be_apart() {
        let app = Place::Redis.app(TASKS);
        app.settings(
            "result_backend: db+sqlite:///results.sqlite\ntask_default_queue: ours\n\
             task_routes: {'py.*': celery}\n",
        );
        let _worker = app.worker(&["-c", "4"]);
        let file = app.file("results.sqlite").display().to_string();
        let store = format!("app.conf.result_backend = \"db+sqlite:///{file}\"\n");
        let tasks = "@app.task(name=\"py.total\")\ndef total(values): return sum(values)\n";
        let routes =
            r#"app.conf.task_routes = {"py.*": {"queue": "celery"}, "*": {"queue": "ours"}}"#;
        let _python = PythonWorker::start(&app, &format!("{store}{routes}\n{tasks}"));
        let found = run(
            &app,
            &(store
                + r#"
mixed = chord([add(1, 1), padd(2, 2), flaky(5)])(ptotal())
ours = chain(add(1, 1), group(add(1), padd(2), add(3)), total(), padd(100)).apply_async()
bad = chord([add(1, 1), pfail()])(total())
say([got(mixed), got(ours), got(app.AsyncResult(bad.id))])
"#),
        );
        assert_eq!((&found[0], &found[1]), (&json!(11), &json!(112)));
        assert!(found[2][1].as_str().unwrap().contains("raised KeyError('k', 5)"), "{found}");
        let keys: Vec<String> = app.server().run(&["KEYS", "celery-task*"]);
        assert!(keys.is_empty(), "{keys:?}");
    }

    #[test]
    fn polling_ends_after_max_retries() {
        let (app, _worker, _python) = start(Place::File);
        let found = run(
            &app,
            r#"
never = chord([add(1, 1), add(1).set(countdown=3600)])
result = never(total().on_error(note("told").set(task_id="told")), interval=0.1, max_retries=2)
say([got(app.AsyncResult(result.id)), got(app.AsyncResult("told"))])
"#,
        );
        let why = found[0][1].as_str().unwrap();
        assert!(
            why.starts_with("chord_unlock could not be retried: MaxRetriesExceededError("),
            "{why}"
        );
        assert_eq!(app.lines("notes").len(), 1);
    }
}

/// What only Redis has.
mod counted {
    use super::*;

    #[test]
    fn a_large_one_is_counted_right_and_leaves_nothing() {
        let (app, _worker, _python) = start(Place::Redis);
        let found = run(&app, "say(got(chord([add(n, n) for n in range(200)])(total())))");
        assert_eq!(found, json!((0..200).map(|n| 2 * n).sum::<i64>()));
        let server = app.server();
        let keys: Vec<String> = server.run(&["KEYS", "celery-taskset-meta-*"]);
        for key in &keys {
            let left: i64 = server.run(&["TTL", key]);
            assert!(key.ends_with(".c") && left > 0, "{key} {left}");
        }
    }

    #[test]
    fn a_chord_that_the_server_refuses_holds_nobody_up() {
        let app = Place::Redis.app(TASKS);
        let server = app.server();
        let keys = ["~ours*", "~unacked*", "~_kombu*", "~qworker*", "~celery-task-meta-*"];
        let rules =
            [&["ACL", "SETUSER", "me", "on", ">pw", "allchannels", "+@all"][..], &keys].concat();
        server.run::<String>(&rules);
        app.settings("task_default_queue: ours\n");
        let url = server.url().replace("redis://", "redis://me:pw@");
        let worker = Worker::run(&app, &["-b", &url, "worker", "-Q", "ours"]);
        worker.expect_line(" ready.");
        let found = run(
            &app,
            r#"
held = chord([add(1, 1), add(2, 2)])(total())
say([got(held.parent), got(add(3, 3).apply_async()), held.state])
"#,
        );
        assert_eq!(found, json!([[2, 4], 6, "PENDING"]));
        worker.expect_line("its chord cannot be updated");
    }

    #[test]
    fn what_was_won_is_done_though_another_chord_is_claimed_by_somebody_else() {
        let (app, _worker, _python) = start(Place::Redis);
        let found = run(
            &app,
            r#"
inner = chord([fail().set(countdown=2)], total().set(task_id="inner"))
outer = chord([inner, add(1, 1)])(total().set(task_id="outer"))
claim = f"celery-taskset-meta-{outer.parent.id}.c"
app.backend.client.set(claim, "somebody's", ex=600)
R = app.AsyncResult
first = got(R("inner"))
before = R("outer").state
app.backend.client.delete(claim)
say([first[0], before, got(R("outer"))[0]])
"#,
        );
        assert_eq!(found, json!(["ChordError", "PENDING", "ChordError"]));
    }
}
