//! What modules ask of their worker.

use super::*;
use crate::runner::Worker;
use crate::wire::task_protocol::{Ask, Refusal, Said};
use std::sync::Mutex;

/// A worker that notes what it is asked, and answers with a document or a refusal.
fn worker(asked: Arc<Mutex<Vec<String>>>) -> Option<Worker> {
    let on_asked: crate::runner::OnAsked = Arc::new(move |_, ask| {
        let (sender, answer) = tokio::sync::oneshot::channel();
        let (noted, said) = match ask {
            Ask::Request => ("request".into(), Ok(r#"{"args":[1]}"#.into())),
            Ask::State { name, meta } => (format!("{name} {}", meta.get()), Ok("null".into())),
            Ask::Say(Said::Retry { countdown, .. }) => {
                (format!("retry {countdown:?}"), Ok("null".into()))
            }
            Ask::Say(said) => (said.method().into(), Err(Refusal::ended())),
            Ask::Call { signature, .. } => (signature.task, Ok(r#"{"id": "an-id"}"#.into())),
        };
        asked.lock().unwrap().push(noted);
        sender.send(said).unwrap();
        answer
    });
    Some(Worker { key: 1, on_asked })
}

fn run(module: &str, export: Option<&str>) -> (Outcome, Vec<String>) {
    let (house, asked) = (house(), Arc::default());
    let mut attempt = house.attempt(module, export, &[]);
    attempt.worker = worker(Arc::clone(&asked));
    let outcome = house.run(&attempt);
    let asked = asked.lock().unwrap().clone();
    (outcome, asked)
}

#[test]
fn a_core_module_asks_by_imported_functions() {
    let module = r#"(module
      (import "qworker" "progress" (func $progress (param i32 i32) (result i32)))
      (import "qworker" "request" (func $request (param i32 i32) (result i32)))
      (import "qworker" "retry" (func $retry (param i32 i32) (result i32)))
      (import "qworker" "ignore" (func $ignore (param i32 i32) (result i32)))
      (import "qworker" "answer" (func $answer (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "{\"done\": 3, \"total\": 10}")
      (data (i32.const 100) "{\"countdown\": 2}")
      (data (i32.const 200) "{\"countdown\": -2}")
      (func (export "run") (result i32 i32 i32 i32 i32 i32)
        (call $progress (i32.const 0) (i32.const 24))
        (call $retry (i32.const 100) (i32.const 16))
        (i32.lt_s (call $retry (i32.const 200) (i32.const 17)) (i32.const 0))
        (i32.lt_s (call $ignore (i32.const 0) (i32.const 0)) (i32.const 0))
        (call $request (i32.const 0) (i32.const 0))
        (call $answer (i32.const 300) (i32.const 5))))"#;
    let (outcome, asked) = run(module, Some("run"));
    assert_eq!(outcome.ending, Ending::Returned, "{outcome:?}");
    assert_eq!(stdout(&outcome), "[4,4,1,1,12,5]");
    assert_eq!(
        asked,
        ["PROGRESS {\"current\":3,\"total\":10}", "retry Some(2s)", "ignore", "request"]
    );
}

#[test]
fn what_is_outside_of_its_memory_ends_a_module() {
    let module = r#"(module
      (import "qworker" "ignore" (func $ignore (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "run") (result i32) (call $ignore (i32.const 65530) (i32.const 100))))"#;
    let (outcome, asked) = run(module, Some("run"));
    assert!(wrong(&outcome.ending).1.contains("outside of the memory"), "{outcome:?}");
    assert!(asked.is_empty());
}

#[test]
fn a_component_asks_by_the_interface() {
    let module = include_str!("../../../../tests/wasm/own.component.wat");
    let (outcome, asked) = run(module, Some("run"));
    assert_eq!(outcome.ending, Ending::Returned, "{outcome:?}");
    assert_eq!(
        asked,
        ["PROGRESS {\"current\":3,\"total\":10}", "UPLOADING [1]", "inner", "ignore"]
    );
    assert_eq!(stdout(&outcome), "\"an-id\"");
}
