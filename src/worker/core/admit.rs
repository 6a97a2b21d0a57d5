//! The checks between a message and its start.

use crate::broker::{Delivery, Settle, Sorting};
use crate::canvas::{self, builtin::BuiltIn};
use crate::log::escape;
use crate::task::set::Set;
use crate::task::{bind, rate};
use crate::wire::{Arguments, Exception, Malformed, Message, TaskState};
use crate::worker::builtins;
use crate::worker::event::{Effect, Now};
use crate::worker::follow;
use crate::worker::names::{Learned, NameList, Rounds};
use crate::worker::plan::{Plan, Unregistered};
use crate::worker::refusal;
use crate::worker::request::{Request, about};
use crate::worker::unavailable::Unavailable;
use crate::worker::verdict::Verdict;
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Level;

/// How often the definitions of tasks are read at most, however many names are unknown.
const READ_TASKS_EVERY: Duration = Duration::from_millis(500);

/// What the checks remember.
pub(super) struct Admission {
    plan: Arc<Plan>,
    tasks: Arc<Set>,
    /// When the definitions were asked for last.
    read_tasks: Option<Instant>,
    /// Names that are left to other workers.
    pub(super) unknown: NameList,
    /// Names of ours, whose early messages the broker parks itself.
    early: NameList,
    /// Messages of unknown names that the broker cannot hold back.
    pub(super) rounds: Rounds,
    buckets: HashMap<String, rate::Bucket>,
    /// Tasks that the host cannot start now.
    pub(super) unavailable: Unavailable,
}

/// A message passes, or there is a verdict on it.
type Passed = Result<(), Box<Verdict>>;

type Gate = fn(&mut Admission, &mut Request, Now, &mut Vec<Effect>) -> Passed;

/// The checks of a request in their order. Before them, the message must be readable and its task
/// known, or there is no request; see [`Admission::admit`].
const GATES: [Gate; 10] = [
    Admission::due,
    Admission::received,
    Admission::readable,
    Admission::followable,
    Admission::unexpired,
    Admission::bindable,
    Admission::deliverable,
    Admission::worth_starting,
    Admission::startable,
    Admission::within_rate,
];

impl Admission {
    pub(super) fn new(plan: Arc<Plan>) -> Admission {
        Admission {
            tasks: plan.tasks.clone(),
            plan,
            read_tasks: None,
            unknown: NameList::default(),
            early: NameList::default(),
            rounds: Rounds::default(),
            buckets: HashMap::new(),
            unavailable: Unavailable::default(),
        }
    }

    /// Makes a request of a delivery, unless a check fails; always fails unless the worker is
    /// `taking` messages.
    ///
    /// # Errors
    /// The verdict on a message that is not admitted.
    pub(super) fn admit(
        &mut self,
        mut delivery: Delivery,
        taking: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Box<Request>, Box<Verdict>> {
        let (mut message, malformed) = match delivery
            .message
            .take()
            .unwrap_or_else(|| delivery.payload.decode())
        {
            Ok(message) => (message, None),
            Err(why) => match delivery.payload.outline() {
                Some(message) => (message, Some(why)),
                None => {
                    return Err(Box::new(refusal::dead("malformed", &why, None, &self.plan, now)));
                }
            },
        };
        if !taking {
            return Err(Box::new(Verdict::only(Settle::Release)));
        }
        let policy = &self.plan.policy;
        let malformed =
            malformed.or_else(|| message.verify(&policy.accept, &policy.keys, now.wall).err());
        let (task, built_in) = match builtins::resolve(&self.tasks, &message) {
            Ok(known) => known,
            Err(name) => {
                return Err(Box::new(self.refuse_unknown(&delivery, &message, &name, now, out)));
            }
        };
        if let Some(why) = malformed {
            let message = Some((&message, Some(&*task)));
            return Err(Box::new(refusal::dead("malformed", &why, message, &self.plan, now)));
        }
        let mut request = Box::new(Request {
            tag: delivery.tag,
            queue: delivery.queue,
            deliveries: delivery.deliveries,
            suspect: delivery.suspect,
            payload: delivery.payload,
            message,
            task,
            arguments: Arguments::default(),
            bound: Vec::new(),
            received: now.mono,
            acked: false,
            began: None,
            told: None,
            built_in,
            map: None,
        });
        GATES.iter().try_for_each(|gate| gate(self, &mut request, now, out))?;
        Ok(request)
    }

    /// A name that is unknown here may be known to other workers: they may have the message at once,
    /// uncounted. If `task_unregistered` says that there are none, see [`refusal::unknown`].
    fn refuse_unknown(
        &mut self,
        delivery: &Delivery,
        message: &Message,
        name: &str,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Verdict {
        // Its file may have been added meanwhile.
        if self.read_tasks.is_none_or(|at| now.mono.duration_since(at) >= READ_TASKS_EVERY) {
            self.read_tasks = Some(now.mono);
            out.push(Effect::ReadTasks);
        }
        if self.plan.policy.unregistered == Unregistered::Dead {
            return refusal::unknown(delivery, message, name, &self.plan, now);
        }
        let learned = self.unknown.learn(name);
        if learned == Learned::New {
            out.push(self.sorting());
            out.push(Effect::Log(Level::WARN, refusal::left(name, &delivery.queue)));
        }
        let is_sorted = builtins::sorted_name(message).is_some_and(|sorted| sorted == name);
        if learned == Learned::TooMuch || !is_sorted {
            self.rounds.pass(&message.id, now.mono);
        }
        Verdict::only(Settle::Pass(name.into()))
    }

    fn sorting(&self) -> Effect {
        Effect::Sort(Sorting { left: self.unknown.list(), parked: self.early.list() })
    }

    /// The definitions of tasks.
    pub(super) fn tasks(&self) -> &Set {
        &self.tasks
    }

    /// Takes new definitions; gives the effects for the names that have become known or unknown.
    pub(super) fn redefine(&mut self, tasks: Arc<Set>) -> Vec<Effect> {
        self.tasks = tasks;
        let known = self.unknown.forget(|name| builtins::knows(&self.tasks, name));
        let gone = self.early.forget(|name| !builtins::knows(&self.tasks, name));
        if known.is_empty() && gone.is_empty() {
            return Vec::new();
        }
        let lines = known.iter().map(|name| {
            let line = format!("worker: task \"{}\" is known now, and taken", escape::name(name));
            Effect::Log(Level::INFO, line)
        });
        std::iter::once(self.sorting()).chain(lines).collect()
    }

    /// Its `eta` has come. Not checked before its name is known: workers that do not know the name
    /// do not look at what is parked.
    fn due(&mut self, request: &mut Request, now: Now, out: &mut Vec<Effect>) -> Passed {
        let message = &request.message;
        let Some(eta) = message.eta.filter(|eta| *eta > now.wall) else { return Ok(()) };
        let name = builtins::sorted_name(message).filter(|name| builtins::knows(&self.tasks, name));
        if name.is_some_and(|name| self.early.learn(&name) == Learned::New) {
            out.push(self.sorting());
        }
        park(eta)
    }

    /// Always passes. Logs the reception, unless the message was here before.
    fn received(&mut self, request: &mut Request, _: Now, out: &mut Vec<Effect>) -> Passed {
        let polls = request.built_in == Some(BuiltIn::ChordUnlock) && request.message.retries > 0;
        if !self.plan.chatty || request.deliveries > 0 || polls {
            return Ok(());
        }
        let bucket = self.buckets.get(&request.message.task);
        if bucket.is_none_or(|bucket| bucket.due(&request.message.id).is_none()) {
            let line = format!("Task {} received", request.label());
            out.push(Effect::LogAbout(Level::INFO, about(&request.message), line));
        }
        Ok(())
    }

    /// Its arguments come in a form that is taken, and can be read.
    fn readable(&mut self, request: &mut Request, now: Now, _: &mut Vec<Effect>) -> Passed {
        let message = &request.message;
        match message.accepted(&self.plan.policy.accept).and_then(|()| message.arguments()) {
            Ok(arguments) => request.arguments = arguments,
            Err(why) => return self.dead(request, "malformed", &why, now),
        }
        Ok(())
    }

    /// What it asks for after the task can be done.
    fn followable(&mut self, request: &mut Request, now: Now, _: &mut Vec<Effect>) -> Passed {
        let Some(embed) = request.arguments.embed.as_deref() else { return Ok(()) };
        let checked = canvas::check(embed, follow::context(request, &self.plan, now.wall))
            .and_then(|calls| follow::check_form(&calls, &self.plan, now.wall));
        match checked {
            Ok(()) => Ok(()),
            Err(why) => self.dead(request, "unsupported", &why, now),
        }
    }

    /// Its `expires` has not passed.
    fn unexpired(&mut self, request: &mut Request, now: Now, _: &mut Vec<Effect>) -> Passed {
        match request.message.expires.is_some_and(|expires| expires <= now.wall) {
            true => Err(Box::new(refusal::expired(request, &self.plan, now))),
            false => Ok(()),
        }
    }

    /// Its arguments fit the task's `params`.
    fn bindable(&mut self, request: &mut Request, now: Now, _: &mut Vec<Effect>) -> Passed {
        let bound = match request.built_in {
            Some(built_in) if built_in.is_map() => request.begin_map(built_in),
            Some(_) => Ok(()),
            None => {
                let (task, Arguments { args, kwargs, .. }) = (&request.task, &request.arguments);
                bind::bind(&task.name, task.params.as_deref(), args, kwargs)
                    .map(|bound| request.bound = bound)
            }
        };
        bound.map_err(|error| Box::new(refusal::misfit(request, &self.plan, &error, now)))
    }

    /// There is something to start: most built-in tasks are done here and now.
    fn worth_starting(&mut self, request: &mut Request, now: Now, out: &mut Vec<Effect>) -> Passed {
        let built_in = request.built_in;
        let done = built_in.and_then(|it| builtins::verdict(request, it, &self.plan, now, out));
        done.map_or(Ok(()), |verdict| Err(Box::new(verdict)))
    }

    /// It was not lost too many times.
    fn deliverable(&mut self, request: &mut Request, now: Now, _: &mut Vec<Effect>) -> Passed {
        if !self.plan.policy.is_used_up(request.deliveries) {
            return Ok(());
        }
        let what = format!(
            "handed out {} times, and each time the worker or its process died under it",
            request.deliveries
        );
        Err(Box::new(Verdict::lost(request, &self.plan, &what, None, now.wall)))
    }

    /// The host can start its task, as far as is known.
    fn startable(&mut self, request: &mut Request, now: Now, _: &mut Vec<Effect>) -> Passed {
        match self.unavailable.wait(&request.task.name, now.mono) {
            Some(wait) => park(now.wall + wait),
            None => Ok(()),
        }
    }

    /// Its rate limit lets it start. Until then it waits in the broker, so that others overtake it.
    fn within_rate(&mut self, request: &mut Request, now: Now, _: &mut Vec<Effect>) -> Passed {
        let rate = request.task.rate_limit.or(self.plan.policy.rate_limit);
        let Some(rate) = rate else { return Ok(()) };
        let name = &request.task.name;
        if !self.buckets.contains_key(name) {
            self.buckets.insert(name.clone(), rate::Bucket::new(rate));
        }
        let bucket = self.buckets.get_mut(name);
        match bucket.and_then(|bucket| bucket.admit(&request.message.id, now.mono).err()) {
            Some(wait) => park(now.wall + wait),
            None => Ok(()),
        }
    }

    fn dead(&self, request: &Request, reason: &'static str, why: &Malformed, now: Now) -> Passed {
        let message = Some((&request.message, Some(&*request.task)));
        let verdict = refusal::dead(reason, why, message, &self.plan, now);
        let exception = Exception::new("celery.exceptions", "InvalidTaskError", why.to_string());
        let ended = (TaskState::Failure, &exception);
        let plan = &self.plan;
        Err(Box::new(follow::failure(verdict, request, plan, ended, None, now.wall)))
    }
}

fn park(until: DateTime<Utc>) -> Passed {
    Err(Box::new(Verdict::only(Settle::Park(until))))
}
