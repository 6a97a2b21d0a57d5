//! What is done about what an attempt tells the worker while it runs.

use super::{Core, Effect, Now};
use crate::canvas::{self, Calls, ResultTree, SignatureKind};
use crate::clock;
use crate::runner::context::{self, Deadline};
use crate::task::bind;
use crate::wire::task_protocol::{Answer, Ask, Refusal, Said};
use crate::wire::{Record, Signature, TaskState, value};
use crate::worker::event::Sending;
use crate::worker::follow;
use crate::worker::request::{AttemptKey, Request};
use crate::worker::told::{Asked, CHILDREN_MAX, Reply};
use chrono::{DateTime, Utc};
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

/// Calls on their way to the broker, and states that wait for their time.
#[derive(Default)]
pub(super) struct Telling {
    /// Those who wait for an answer of the broker, by number.
    calls: rustc_hash::FxHashMap<u64, Caller>,
    last: u64,
    /// Attempts with a state that is to be stored.
    states: BTreeSet<AttemptKey>,
}

/// Who has called something.
struct Caller {
    key: AttemptKey,
    children: Vec<ResultTree>,
    reply: Reply,
    answer: String,
}

impl Telling {
    /// Is there anything that only time changes?
    pub(super) fn waits(&self) -> bool {
        !self.states.is_empty()
    }
}

impl Core {
    /// An attempt asks for something.
    pub(super) fn asked(&mut self, key: AttemptKey, asked: Asked, now: Now, out: &mut Vec<Effect>) {
        let Asked { ask, reply } = asked;
        let Some(request) = self.requests.running_mut(key) else {
            return out.push(Effect::Answer(reply, Err(Refusal::ended())));
        };
        let answer = match ask {
            Ask::Request => Ok(document(request, &self.plan, now)),
            Ask::State { name, meta } => {
                let stores = self.plan.policy.stores(
                    TaskState::Started,
                    &request.message,
                    Some(&request.task),
                );
                if stores {
                    request.told.get_or_insert_default().state = Some((name, meta));
                    self.telling.states.insert(key);
                    self.store_state(key, now, out);
                }
                Ok(json!({ "stored": stores }).to_string())
            }
            Ask::Say(said) => say(request, said, &self.plan, now),
            Ask::Call { mut signature, unregistered, priority } => {
                if let Some(priority) = priority {
                    let number = self.plan.routing.abilities.priorities.number(Some(priority));
                    signature.set("priority", value::raw(&json!(number)));
                }
                let (signature, tasks) = (*signature, self.admission.tasks());
                match call(request, signature, unregistered, tasks, &self.plan, now) {
                    Ok(called) => return self.send(key, called, reply, now, out),
                    Err(refusal) => Err(refusal),
                }
            }
        };
        out.push(Effect::Answer(reply, answer));
    }

    /// Sends what an attempt calls; answered when the broker has it.
    fn send(
        &mut self,
        key: AttemptKey,
        (calls, node): (Calls, Option<ResultTree>),
        reply: Reply,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.telling.last += 1;
        let number = self.telling.last;
        let (id, tuple) = (node.as_ref().map(ResultTree::id), node.as_ref().map(ResultTree::write));
        let tuple = tuple.unwrap_or_else(|| "null".into());
        let answer = format!(r#"{{"id": {}, "tuple": {tuple}}}"#, json!(id));
        let postings = match follow::postings(&calls, &self.plan, now.wall) {
            Ok(postings) => postings,
            Err(why) => return out.push(Effect::Answer(reply, Err(why.into()))),
        };
        out.push(Effect::Send(number, Sending { postings, chords: calls.chords }));
        let caller = Caller { key, children: calls.children, reply, answer };
        self.telling.calls.insert(number, caller);
    }

    /// The broker has, or refuses, what an attempt called.
    pub(super) fn sent(&mut self, number: u64, done: Result<(), String>, out: &mut Vec<Effect>) {
        let Some(caller) = self.telling.calls.remove(&number) else { return };
        let answer: Answer = match done {
            Ok(()) => {
                if let Some(request) = self.requests.running_mut(caller.key) {
                    let children = &mut request.told.get_or_insert_default().children;
                    let room = CHILDREN_MAX.saturating_sub(children.len());
                    children.extend(caller.children.into_iter().take(room));
                }
                Ok(caller.answer)
            }
            Err(why) => Err(Refusal::new("unavailable", format!("the broker refuses it: {why}"))),
        };
        out.push(Effect::Answer(caller.reply, answer));
    }

    /// States of these attempts are stored, or will not be.
    pub(super) fn stored(&mut self, keys: Vec<AttemptKey>, now: Now, out: &mut Vec<Effect>) {
        for key in keys {
            if let Some(told) = self.requests.running_mut(key).and_then(|it| it.told.as_mut()) {
                told.is_storing = false;
                self.store_state(key, now, out);
            }
        }
    }

    /// Stores the states whose time has come.
    pub(super) fn store_states(&mut self, now: Now, out: &mut Vec<Effect>) {
        for key in self.telling.states.clone() {
            self.store_state(key, now, out);
        }
    }

    fn store_state(&mut self, key: AttemptKey, now: Now, out: &mut Vec<Effect>) {
        let Some(request) = self.requests.running_mut(key) else {
            self.telling.states.remove(&key);
            return;
        };
        let told = request.told.get_or_insert_default();
        if !told.may_store(now.mono) {
            return;
        }
        self.telling.states.remove(&key);
        let Some(state) = told.state.take() else { return };
        (told.stored_at, told.is_storing) = (Some(now.mono), true);
        let record = request.extend(&self.plan, state_record(&request.message.id, state, now.wall));
        let tag = (!request.acked).then_some(request.tag);
        out.push(Effect::StoreState(key, tag, Box::new(record)));
    }
}

/// The record of a state that a task has made up.
pub(crate) fn state_record(
    id: &str,
    (name, meta): (String, Box<RawValue>),
    now: DateTime<Utc>,
) -> Record {
    let record = Record::success(id, meta, now);
    Record { state: TaskState::Started, named: Some(name.into()), ..record }
}

/// The document that the task could have read on its standard input.
fn document(request: &Request, plan: &super::Plan, now: Now) -> String {
    let attempt = request.attempt(plan, now.mono);
    let attempt = crate::runner::Attempt { details: request.details(), ..attempt };
    let began = request.began.map_or(0.0, clock::epoch);
    let text = context::document(&attempt, Deadline::of(&attempt, began));
    String::from_utf8(text).unwrap_or_default().trim_end().to_string()
}

/// Notes what the end of an attempt is to mean.
fn say(request: &mut Request, said: Said, plan: &super::Plan, now: Now) -> Answer {
    if let Said::Replace(signature) = &said {
        // Refused now rather than when nobody can do anything about it.
        let calls = follow::replacement(request, plan, (**signature).clone(), now.wall)?;
        counts(&calls, plan)?;
    }
    let answer = json!({ "exit": said.method() }).to_string();
    request.told.get_or_insert_default().said = Some(said);
    Ok(answer)
}

/// What an attempt calls, as messages.
fn call(
    request: &Request,
    signature: Signature,
    unregistered: bool,
    tasks: &crate::task::set::Set,
    plan: &super::Plan,
    now: Now,
) -> Result<(Calls, Option<ResultTree>), Refusal> {
    let name = &signature.task;
    let is_task = signature.kind == SignatureKind::Task;
    match tasks.get(name).filter(|_| is_task) {
        Some(task) => {
            let (args, kwargs) = (&signature.args, &signature.kwargs);
            bind::bind(name, task.params.as_deref(), args, kwargs).map_err(|exception| {
                let why = exception.exc_message.first().and_then(|it| it.as_str());
                let why = why.unwrap_or_default();
                Refusal::invalid(format!("{}: {why}", exception.exc_type))
            })?;
        }
        None if is_task && !unregistered && !name.starts_with("celery.") => {
            let text = format!(
                "no task {name:?} in tasks.d; with \"unregistered\": true it is sent to workers \
                 that have it"
            );
            return Err(Refusal::invalid(text));
        }
        None => {}
    }
    let called = canvas::call(signature, follow::context(request, plan, now.wall))?;
    counts(&called.0, plan)?;
    Ok(called)
}

/// A chord needs a result store.
fn counts(calls: &Calls, plan: &super::Plan) -> Result<(), Refusal> {
    match calls.chords.is_empty() || plan.chords != canvas::Chords::Unsupported {
        true => Ok(()),
        false => Err(Refusal::invalid("a chord needs a result store, and there is none")),
    }
}
