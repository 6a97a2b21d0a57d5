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
    let app = TestDir::with("note: {shell: 'echo \"$QWORKER_TASK_ID\" >>ran; sleep 0.01'}\n");
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
            let more = app.lines("ran").len() >= before + APART;
            let left = !super::messages(&app).is_empty();
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
    let ran: BTreeSet<String> = lines.iter().cloned().collect();
    assert_eq!(ran, ids, "lost, or nobody sent it");
    assert_eq!(app.must(&["dead", "list", "--json"]), "[]");
    let mut last = HashMap::new();
    for (place, id) in lines.iter().enumerate() {
        let Some(before) = last.insert(id, place) else { continue };
        // A kill between the two, and the first run close to it: in a slot, or just done.
        let explained = kills.iter().any(|(kill, gone)| {
            (kill.saturating_sub(3 * SLOTS)..gone + SLOTS).contains(&before) && place >= *kill
        });
        assert!(explained, "{id} ran at {before} and {place}, kills at {kills:?}");
    }
    let repeated = lines.len() - ran.len();
    assert!(repeated <= kills.len() * SLOTS, "{repeated} repeated by {} kills", kills.len());
}
