//! Forty kills while tasks run: nothing is lost, and only what ran at a kill runs twice.

use super::{await_empty, send_many};
use crate::harness::{TestDir, Worker, eventually, process};
use nix::sys::signal::Signal;
use std::collections::{BTreeSet, HashMap};

const SLOTS: usize = 4;
const KILLS: usize = 40;
/// So many tasks begin between two kills.
const APART: usize = 30;

#[test]
fn forty_kills_lose_nothing() {
    let app = TestDir::with(
        "note: {shell: 'echo \"begin $QWORKER_TASK_ID\" >>ran; sleep 0.01; echo \"end $QWORKER_TASK_ID\" >>ran'}\n",
    );
    // Chance may hit one task often; here it is not to be given up.
    app.settings("task_max_deliveries: 100\n");
    let start = || Worker::spawn(&app, &["-c", "4"]);
    let mut worker = start();
    let ids: BTreeSet<String> = send_many(&app, "note", KILLS * APART).into_iter().collect();
    // How many lines there were at each kill, and when its victims were gone.
    let mut kills = Vec::new();
    for kill in 0..KILLS {
        let before = app.lines("ran").len();
        let left = eventually("progress, or the end", || {
            let more = app.lines("ran").len() >= before + 2 * APART;
            let left = super::left(&app) > 0;
            (more || !left).then_some(left)
        });
        if !left {
            break;
        }
        let (guard, proper) = (worker.guard(), worker.pid());
        match kill % 3 {
            0 => process::send(guard, Signal::SIGKILL),
            1 => process::send(proper, Signal::SIGKILL),
            _ => [guard, proper].into_iter().for_each(|pid| process::send(pid, Signal::SIGKILL)),
        }
        let at = app.lines("ran").len();
        if kill % 3 == 1 {
            eventually("another worker", || (worker.pid() != proper).then_some(()));
        } else {
            // The new one is there before the old one's tasks are gone.
            let next = start();
            worker.wait();
            std::mem::replace(&mut worker, next).expect_no_survivors();
        }
        // Until now the old one's tasks may have gone on.
        kills.push((at, app.lines("ran").len()));
    }
    assert!(kills.len() > KILLS / 2, "only {} kills", kills.len());
    await_empty(&app);
    assert_eq!(worker.stop(Signal::SIGTERM), 0, "{}", worker.log());
    let lines = app.lines("ran");
    let lines: Vec<(&str, &str)> = lines.iter().map(|line| line.split_once(' ').unwrap()).collect();
    let begun = lines.iter().filter(|(what, _)| *what == "begin");
    let begun: Vec<String> = begun.map(|(_, id)| id.to_string()).collect();
    let ran: BTreeSet<String> = begun.iter().cloned().collect();
    assert_eq!(ran, ids, "lost, or nobody sent it");
    assert_eq!(app.must(&["dead", "list", "--json"]), "[]");
    // Where each id was met last: its beginning, or its end.
    let mut last = HashMap::new();
    for (place, (what, id)) in lines.iter().enumerate() {
        let Some((was, before)) = last.insert(id, (what, place)) else { continue };
        if *what == "end" {
            assert_eq!(*was, "begin", "{id} ended twice");
            continue;
        }
        // A kill between the two, at which it ran, or had just ended and was not settled.
        let explained = kills.iter().any(|(kill, gone)| {
            let settled = *was == "end" && before + 8 * SLOTS < *kill;
            !settled && before < gone + 2 * SLOTS && place >= *kill
        });
        assert!(explained, "{id}: {was} at {before}, again at {place}, kills at {kills:?}");
    }
    let repeated = begun.len() - ran.len();
    assert!(repeated <= kills.len() * SLOTS, "{repeated} repeated by {} kills", kills.len());
}
