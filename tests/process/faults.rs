//! The short forms of what tests/faults.py does to a worker on Redis: kills, restarts of the
//! server, a network that breaks, nonsense, a Python worker beside it; and to beats.

use crate::harness::Output;
use crate::harness::python::python;
use std::process::Command;

/// Runs one trial; it says itself what failed.
pub fn trial(name: &str) {
    let output = Output::of(
        Command::new(python())
            .args(["tests/faults.py", env!("CARGO_BIN_EXE_qworker"), "--short", name])
            .current_dir(env!("CARGO_MANIFEST_DIR")),
    );
    assert_eq!(output.code, 0, "\n{}{}", output.stdout, output.stderr);
}

#[test]
fn kills_lose_nothing_on_redis() {
    trial("crash");
}

#[test]
fn restarts_of_the_server_lose_nothing() {
    trial("restart");
}

#[test]
fn a_network_that_breaks_repeats_nothing() {
    trial("cuts");
}

#[test]
fn a_client_ends_in_time_and_says_why() {
    trial("client");
}

#[test]
fn broken_messages_are_all_accounted_for() {
    trial("mutants");
}

#[test]
fn every_key_has_an_end_or_an_owner() {
    trial("keys");
}

#[test]
fn a_python_worker_beside_ours_repeats_nothing() {
    trial("mixed");
}

#[test]
fn python_tasks_on_a_shared_queue_all_run() {
    trial("fleet");
}

#[test]
fn a_worker_is_ended_at_any_moment() {
    trial("cycles");
}

#[test]
fn kills_leave_no_process_of_a_task() {
    trial("orphans");
}

#[test]
fn restarts_in_place_lose_nothing() {
    trial("reload");
}

#[test]
fn a_helper_that_is_killed_is_replaced() {
    trial("helpers");
}

#[test]
fn a_task_has_its_streams_open_and_nothing_else() {
    trial("descriptors");
}

#[test]
fn a_log_that_is_rotated_has_every_line() {
    trial("rotation");
}

#[test]
fn process_1_buries_everybody() {
    trial("first");
}

#[test]
fn a_beat_goes_on_whatever_becomes_of_its_state() {
    trial("state");
}

#[test]
fn of_beats_that_are_stopped_and_killed_one_sends() {
    trial("beats");
}

#[test]
fn files_are_edited_under_beats() {
    trial("edits");
}

#[test]
fn what_an_outage_made_beats_miss_is_sent_by_its_rule() {
    trial("outage");
}

#[test]
fn a_server_that_forgets_learns_from_beats() {
    trial("lostredis");
}
