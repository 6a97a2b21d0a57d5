//! How many tasks run at once: slots that come and go, and a host that is too short for any.

use super::await_lines;
use crate::harness::{Place, eventually, in_every_place};
use nix::sys::signal::Signal;

in_every_place! {
    a_square_wave_moves_the_slots_and_interrupts_nobody
    a_host_that_is_short_leaves_the_work_to_others
}

/// Both say when they begin and when they end; one waits for a file.
const TASKS: &str = "\
busy: {shell: 'echo + >>said; sleep 0.3; echo - >>said'}
held: {shell: 'echo + >>said; until [ -e go.$1 ]; do sleep 0.02; done; echo - >>said', params: [wave]}
";

fn a_square_wave_moves_the_slots_and_interrupts_nobody(place: Place) {
    let app = place.app(TASKS);
    app.settings("worker_autoscale_keepalive: 1\n");
    let mut worker = app.worker(&["--autoscale", "1,6", "-l", "INFO"]);
    worker.expect_line(" ready.");
    worker.expect_banner(" .> concurrency: {min=1, max=6}\n");
    // On a busy machine the way up or down has several steps.
    let moved = |way: &str| -> usize {
        let log = worker.log();
        let counts = log.split(way).skip(1).filter_map(|rest| rest.split(' ').next());
        counts.map(|count| count.parse::<usize>().expect("a number of processes")).sum()
    };
    for wave in 1..=3 {
        for _ in 0..12 {
            app.must(&["call", "held", "-a", &format!("[{wave}]")]);
        }
        await_lines(&app, "said", (wave - 1) * 24 + 6);
        app.write(&format!("go.{wave}"), "");
        await_lines(&app, "said", wave * 24);
        eventually("slots that go again", || {
            let (up, down) = (moved("Scaling up "), moved("Scaling down "));
            (up == down && up >= wave * 5).then_some(())
        });
    }
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let (mut running, mut most) = (0, 0);
    for line in app.lines("said") {
        running = if line == "+" { running + 1 } else { running - 1 };
        most = most.max(running);
    }
    assert_eq!((running, most), (0, 6));
    let log = worker.log();
    assert_eq!(log.matches(" succeeded in ").count(), 36, "{log}");
    assert!(!log.contains("redelivered") && !log.contains("given back"), "{log}");
}

fn a_host_that_is_short_leaves_the_work_to_others(place: Place) {
    let app = place.app(TASKS);
    // Not all the memory of a running host is ever free.
    app.settings("worker_min_free_memory: 100%\n");
    // The socket of a node is one for the whole machine.
    let node = format!("short-{}@h", std::process::id());
    let mut short = app.worker(&["-n", &node]);
    short.expect_line(&format!("{node} ready."));
    short.expect_line("worker: takes no new tasks: ");
    let id = app.must(&["call", "busy"]);
    let waits = app.qworker(&["result", &id, "--wait", "--timeout", "1.5"]);
    assert_ne!(waits.code, 0, "{waits:?}");
    assert!(app.lines("said").is_empty());
    // It is well; there is nothing to be restarted.
    let health = app.must(&["health", "--ready", "-n", &node]);
    assert!(health.contains("is ready: 0 of"), "{health}");
    app.settings("worker_min_free_memory: 1\nworker_max_load: 1000000\n");
    let mut other = app.worker(&[]);
    other.expect_line(" ready.");
    app.must(&["result", &id, "--wait"]);
    assert!(!other.log().contains("takes no new tasks"), "{}", other.log());
    assert_eq!(short.log().matches("takes no new tasks").count(), 1, "{}", short.log());
    assert_eq!((short.stop(Signal::SIGTERM), other.stop(Signal::SIGTERM)), (0, 0));
}
