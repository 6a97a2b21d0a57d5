//! `qworker status`: who is alive.

use super::{TASKS, json, printed, refused};
use crate::harness::process::send;
use crate::harness::{Place, in_every_place};
use nix::sys::signal::Signal;

in_every_place! {
    nobody_is_alive
    those_who_are_alive
}

fn nobody_is_alive(place: Place) {
    let app = place.app(TASKS);
    refused(
        &app.qworker(&["status"]),
        69,
        &[&format!("Error: no worker is alive on {}", app.broker())],
    );
    let mut worker = app.worker(&["-n", "a@h"]);
    assert_eq!(app.qworker(&["status"]).code, 0);
    // Who asks for another one is told who is there, whoever else is silent.
    let mut silent = app.worker(&["-n", "silent@h"]);
    silent.family().into_iter().for_each(|pid| send(pid, Signal::SIGSTOP));
    let other = ["health", "-n", "b@h", "--timeout", "5"];
    refused(&app.qworker(&other), 69, &["b@h is not alive", "a@h"]);
    silent.stop(Signal::SIGKILL);
    silent.family().into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
    silent.expect_no_survivors();
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    assert_eq!(app.qworker(&["status", "--json"]).code, 69);
    // Nor is one that was killed, from the moment on when it is gone.
    let mut worker = app.worker(&["-n", "b@h"]);
    worker.stop(Signal::SIGKILL);
    worker.expect_no_survivors();
    assert_eq!(app.qworker(&["status"]).code, 69);
}

fn those_who_are_alive(place: Place) {
    let app = place.app(TASKS);
    let (one, two) = (app.worker(&["-n", "one@h"]), app.worker(&["-n", "two@h"]));
    let all = app.qworker(&["status"]);
    assert_eq!((all.code, all.stderr.as_str()), (0, ""));
    let mut lines: Vec<&str> = all.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["", "->  one@h: OK", "->  two@h: OK", "2 nodes online."]);
    printed(&app.qworker(&["status", "-d", "two@h"]), "->  two@h: OK\n\n1 node online.\n");
    refused(&app.qworker(&["status", "-d", "three@h"]), 69, &["no worker named three@h is alive"]);
    let all = json(&app.must(&["status", "--json"]));
    assert_eq!((&all["one@h"]["ok"], &all["one@h"]["pid"]), (&"pong".into(), &one.pid().into()));
    assert_eq!(all["two@h"]["pid"], two.pid());
}
