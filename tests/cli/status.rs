//! `qworker status`.

use super::refused;
use crate::harness::TestDir;
use nix::sys::signal::Signal;
use serde_json::Value;

#[test]
fn the_living_are_listed_and_nobody_is_sixty_nine() {
    let app = TestDir::new();
    refused(&app.qworker(&["status"]), 69, &["no worker is alive"]);
    let mut one = app.worker(&["-n", "one@here"]);
    let two = app.worker(&["-n", "two@here"]);
    assert_eq!(app.must(&["status"]), "->  one@here: OK\n->  two@here: OK\n\n2 nodes online.");
    assert_eq!(app.must(&["status", "-d", "two@here"]), "->  two@here: OK\n\n1 node online.");
    let all: Value = serde_json::from_str(&app.must(&["status", "--json"])).unwrap();
    assert_eq!(all["one@here"]["ok"], "pong");
    assert_eq!(all["two@here"]["pid"], two.pid());
    one.stop(Signal::SIGTERM);
    assert_eq!(app.must(&["status"]), "->  two@here: OK\n\n1 node online.");
    refused(&app.qworker(&["status", "-d", "one@here"]), 69, &["no worker is alive"]);
    drop(two);
    assert_eq!(app.qworker(&["status"]).code, 69, "killed, it is gone at once");
}
