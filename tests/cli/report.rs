//! `qworker report`.

use crate::harness::{Output, TestDir};
use serde_json::{Value, json};

#[test]
fn every_setting_with_its_origin() {
    let app = TestDir::new();
    app.settings("task_track_started: true\nresult_expires: 1h\n");
    let run = |args: &[&str]| {
        Output::of(
            app.command(args)
                .env("QWORKER_TASK_MAX_DELIVERIES", "9")
                .env("QWORKER_BROKER_URL", "sqlite:///b.sqlite"),
        )
    };
    let output = run(&["-b", "sqlite:///a.sqlite", "report", "--json"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let settings = &report["settings"];
    let shown =
        |name: &str| format!("{} from {}", settings[name]["value"], settings[name]["origin"]);
    assert!(
        shown("task_track_started").starts_with("\"true\" from"),
        "{}",
        shown("task_track_started")
    );
    assert!(shown("task_track_started").contains("qworker.yaml:1"));
    assert!(
        shown("task_max_deliveries").contains("\"9\" from \"QWORKER_TASK_MAX_DELIVERIES"),
        "{}",
        shown("task_max_deliveries")
    );
    assert!(
        shown("broker_url").contains("a.sqlite") && shown("broker_url").contains("--broker"),
        "{}",
        shown("broker_url")
    );
    assert!(shown("task_acks_late").contains("default"), "{}", shown("task_acks_late"));
    assert_eq!(report["errors"], json!([]));

    let text = run(&["report"]).stdout;
    assert!(text.starts_with("software -> qworker:") && text.contains(" sqlite:3."), "{text}");
    assert_eq!(
        text.lines().filter(|line| line.contains("default")).count()
            + text
                .lines()
                .filter(|line| line.contains("qworker.yaml") || line.contains("QWORKER_"))
                .count(),
        settings.as_object().unwrap().len(),
        "{text}"
    );
}

#[test]
fn faults_are_told_and_give_one() {
    let app = TestDir::new();
    app.settings("task_acks_lat: true\n");
    let output = app.qworker(&["report"]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("task_acks_lat") && output.stderr.contains("task_acks_late"),
        "{output:?}"
    );
}

#[test]
fn passwords_are_hidden_everywhere() {
    let app = TestDir::new();
    app.settings("result_backend: db+sqlite://me:s3cret@h/x\n");
    for command in [&["report"][..], &["report", "--json"], &["check"], &["status"], &["call", "x"]]
    {
        let output = app.qworker(command);
        assert!(!format!("{output:?}").contains("s3cret"), "{command:?}: {output:?}");
    }
}
