//! Commands as tables, and real processes that behave badly.

mod command;
mod process;

use super::*;
use crate::task::keys::plain;
use crate::task::template::TemplateWord;
use crate::task::{Param, Program, ResourceLimits, Task};
use serde_json::value::RawValue;
use std::path::Path;
use std::sync::Arc;

fn task(program: Program) -> Task {
    plain("t.name", Path::new("/etc/tasks.d/t.yaml"), 1, program)
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.into()).unwrap()
}

fn attempt(task: Task, args: &[&str], kwargs: &[(&str, &str)]) -> Attempt {
    let args: Vec<_> = args.iter().map(|json| raw(json)).collect();
    let kwargs: Vec<_> = kwargs.iter().map(|(name, json)| (name.to_string(), raw(json))).collect();
    let names = task.params.iter().flatten().map(|param| param.name.clone());
    let bound = names.zip(args.iter().cloned()).chain(kwargs.iter().cloned());
    let bound = if task.params.is_some() { bound.collect() } else { vec![] };
    Attempt {
        task: Arc::new(task),
        id: format!("id-{}", fastrand::u64(..)),
        root_id: "root".into(),
        parent_id: String::new(),
        retries: 2,
        hostname: "w@h".into(),
        queue: "media".into(),
        args,
        kwargs,
        bound,
        details: vec![],
        access: None,
        worker: None,
        soft_time_limit: None,
        time_limit: None,
        env: Arc::new(vec![]),
    }
}

fn shell(text: &str) -> Task {
    task(Program::Shell(text.into()))
}

fn exec(items: &[&str]) -> Task {
    task(Program::Exec(items.iter().map(|item| TemplateWord::parse(item).unwrap()).collect()))
}

fn with_params(task: Task, names: &[&str]) -> Task {
    let params = names.iter().map(|name| Param { name: name.to_string(), default: None }).collect();
    Task { params: Some(params), ..task }
}

fn built(attempt: &Attempt) -> Result<ProcessCommand, Exception> {
    let env = [
        c"PATH=/bin:/usr/bin".into(),
        c"A=base".into(),
        c"QWORKER_TASK_DEADLINE=1".into(),
        c"QWORKER_BROKER_URL=redis://:hush@h/0".into(),
        c"QWORKER_RESULT_BACKEND=redis://:hush@h/0".into(),
        c"QWORKER_APP=/srv/shop".into(),
    ];
    let setting =
        Setting { app: Path::new("/app"), env: &env, now: 1000.5, longest: ARG_BYTES_MAX };
    command(attempt, setting)
}
