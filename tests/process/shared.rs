//! Two workers on one broker.

use super::{await_empty, send_many};
use crate::harness::{Place, in_every_place};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;

in_every_place! { two_workers_share_the_work_and_nothing_runs_twice }

fn two_workers_share_the_work_and_nothing_runs_twice(place: Place) {
    let app =
        place.app("note: {shell: 'echo \"$QWORKER_TASK_ID $QWORKER_TASK_HOSTNAME\" >>ran'}\n");
    let mut workers =
        [app.worker(&["-c", "3", "-n", "one@h"]), app.worker(&["-c", "3", "-n", "two@h"])];
    let status = app.must(&["status"]);
    assert!(status.contains("->  one@h: OK") && status.contains("2 nodes online."), "{status}");
    let ids: BTreeSet<String> = send_many(&app, "note", 1000).into_iter().collect();
    await_empty(&app);
    for worker in &mut workers {
        assert_eq!(worker.stop(Signal::SIGTERM), 0);
    }
    let lines = app.lines("ran");
    assert_eq!(lines.len(), 1000);
    let ran: BTreeSet<String> =
        lines.iter().map(|line| line.split(' ').next().unwrap().to_string()).collect();
    assert_eq!(ran, ids);
    for name in ["one@h", "two@h"] {
        let share = lines.iter().filter(|line| line.ends_with(name)).count();
        assert!(share > 100, "{name} did {share} of 1000");
    }
}
