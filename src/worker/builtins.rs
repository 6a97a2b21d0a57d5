//! Celery's built-in tasks: every worker has them, and does them itself. Those that run another task
//! for each item are in [`super::map`]; what waits for a chord is in [`super::unlock`].

use super::event::{Effect, Now};
use super::follow;
use super::plan::Plan;
use super::refusal;
use super::request::{Request, about};
use super::unlock;
use super::verdict::Verdict;
use crate::broker::Settle;
use crate::canvas::builtin::{self, BuiltIn};
use crate::log::escape;
use crate::task::keys::plain;
use crate::task::set::Set;
use crate::task::{Param, Program, Task, bind};
use crate::wire::{Arguments, Exception, Message, Record, TaskState};
use serde_json::value::RawValue;
use std::path::Path;
use std::sync::Arc;
use tracing::Level;

/// The task of a message and, if it is a built-in one, which.
pub(super) type Known = (Arc<Task>, Option<BuiltIn>);

/// The task that a message runs: for a map, that of its items.
///
/// # Errors
/// It is not known here; the name under which it is left to others.
pub(super) fn resolve(tasks: &Set, message: &Message) -> Result<Known, String> {
    if let Some(task) = tasks.get(&message.task) {
        return Ok((task.clone(), None));
    }
    let built_in = BuiltIn::named(&message.task).ok_or_else(|| message.task.clone())?;
    if !built_in.is_map() {
        return Ok((task(&message.task), Some(built_in)));
    }
    let arguments = message.arguments().ok();
    let of_body = arguments.and_then(|it| builtin::inner(&it.args, &it.kwargs));
    match of_body.or_else(|| message.mapped.clone()) {
        Some(inner) => match tasks.get(&inner) {
            Some(task) => Ok((task.clone(), Some(built_in))),
            None => Err(builtin::left_name(&message.task, &inner)),
        },
        // It names none, and fails for that.
        None => Ok((task(&message.task), Some(built_in))),
    }
}

/// Is the task of this name, or of a map that was left under it, known?
pub(super) fn knows(tasks: &Set, name: &str) -> bool {
    match builtin::of_left_name(name) {
        Some((_, inner)) => tasks.get(inner).is_some(),
        None => tasks.get(name).is_some() || BuiltIn::named(name).is_some(),
    }
}

/// The name by which a broker sorts a message, if its headers tell it.
pub(super) fn sorted_name(message: &Message) -> Option<String> {
    message.is_named_outside().then(|| match &message.mapped {
        Some(inner) => builtin::left_name(&message.task, inner),
        None => message.task.clone(),
    })
}

/// The definition of a built-in task; its program is never started.
fn task(name: &str) -> Arc<Task> {
    Arc::new(plain(name, Path::new(""), 0, Program::Exec(Vec::new())))
}

/// The arguments of a built-in task by the names of its parameters, if it has any.
///
/// # Errors
/// They do not fit: Python's `TypeError`.
pub(super) fn bind(
    built_in: BuiltIn,
    args: &[Box<RawValue>],
    kwargs: &[(String, Box<RawValue>)],
) -> Result<Vec<(String, Box<RawValue>)>, Exception> {
    let Some(params) = built_in.params() else { return Ok(Vec::new()) };
    let raw = |text: &str| RawValue::from_string(text.into()).unwrap_or_default();
    let param = |(name, default): &(&str, Option<&str>)| Param {
        name: (*name).into(),
        default: default.map(raw),
    };
    let params: Vec<Param> = params.iter().map(param).collect();
    let name = BuiltIn::ALL.iter().find(|(_, one)| *one == built_in).map_or("", |(name, _)| name);
    bind::bind(name, Some(&params), args, kwargs)
}

/// The verdict on a request for a task that is done at once; `None` if it is none.
pub(super) fn verdict(
    request: &Request,
    built_in: BuiltIn,
    plan: &Plan,
    now: Now,
    out: &mut Vec<Effect>,
) -> Option<Verdict> {
    let Arguments { args, kwargs, .. } = &request.arguments;
    let context = follow::context(request, plan, now.wall);
    let done = match built_in {
        BuiltIn::ChordUnlock => match unlock::begin(request, now) {
            Ok(verdict) => return Some(verdict),
            Err(why) => Err(Exception::new("builtins", "TypeError", why.to_string())),
        },
        BuiltIn::Map | BuiltIn::Starmap => {
            let map = request.map.as_ref().filter(|map| map.is_over())?;
            Ok((map.result(), Default::default()))
        }
        _ => bind(built_in, args, kwargs).and_then(|bound| match bound.is_empty() {
            true => built_in.run(args, kwargs, context),
            false => built_in.run(&[], &bound, context),
        }),
    };
    if built_in == BuiltIn::BackendCleanup && done.is_ok() {
        out.push(Effect::Expire);
    }
    let (value, calls) = match done {
        Ok(done) => done,
        Err(exception) => return Some(refusal::misfit(request, plan, &exception, now)),
    };
    let log = plan.chatty.then(|| {
        let shown = escape::line(&super::finish::text::short(value.get(), 200)).into_owned();
        (Level::INFO, format!("Task {} succeeded: {shown}", request.label()))
    });
    let record = request.stores(plan, TaskState::Success).then(|| {
        request.extend(plan, Record::success(&request.message.id, value.clone(), now.wall))
    });
    let verdict =
        Verdict { record, log, about: Some(about(&request.message)), ..Verdict::only(Settle::Ack) };
    let followed = follow::calls_and_success(verdict, calls, request, plan, &value, now.wall);
    Some(followed.unwrap_or_else(|why| {
        let exception = Exception::new("celery.exceptions", "InvalidTaskError", why.to_string());
        refusal::misfit(request, plan, &exception, now)
    }))
}
