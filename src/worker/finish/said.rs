//! Verdicts on attempts that have told the worker what their end is to mean.
//!
//! Source: celery `app/task.py` (`retry`, `replace`), `app/trace.py` and `worker/request.py`
//! (`on_failure`, for `Reject` and `Ignore`).

use super::Judge;
use crate::broker::{Death, Posting, Settle};
use crate::task::retry;
use crate::wire::task_protocol::Said;
use crate::wire::{Exception, Record, Signature, TaskState, saferepr, value};
use crate::worker::core::state_record;
use crate::worker::follow;
use crate::worker::verdict::Verdict;
use serde_json::Value;
use std::time::Duration;
use tracing::Level;

impl Judge<'_> {
    /// The verdict on an attempt that has said this last.
    pub(super) fn said(&self, said: &Said, random: f64) -> Verdict {
        match said {
            Said::Retry { countdown, max_retries } => {
                self.retry_said(*countdown, *max_retries, random)
            }
            Said::Reject { requeue: true } => self.requeued(),
            Said::Reject { requeue: false } => self.rejected(),
            Said::Ignore => self.ignored(),
            Said::Fail(exception) => self.failed(exception, None),
            Said::Replace(signature) => self.replaced(signature),
        }
    }

    fn retry_said(
        &self,
        countdown: Option<Duration>,
        max_retries: Option<u32>,
        random: f64,
    ) -> Verdict {
        let (request, task) = (self.request, &self.request.task);
        let retries = request.message.retries;
        let max = max_retries.or(task.max_retries);
        let arguments = &request.arguments;
        if max.is_some_and(|max| retries >= max) {
            let text = format!(
                "Can't retry {}[{}] args:{} kwargs:{}",
                task.name,
                request.message.id,
                saferepr::tuple(&arguments.args),
                saferepr::kwargs(&arguments.kwargs)
            );
            let error = Exception::new("celery.exceptions", "MaxRetriesExceededError", text);
            return self.failed(&error, None);
        }
        let delay = countdown.unwrap_or_else(|| retry::delay(task, retries, random));
        // As Celery's `retry` without an exception stores it.
        let record = Record::success(&request.message.id, value::raw(&Value::Null), self.now);
        let record = Record { state: TaskState::Retry, ..record };
        let stores =
            self.plan.policy.stores(TaskState::Retry, &request.message, Some(&request.task));
        let record = stores.then(|| request.extend(self.plan, record));
        let log = format!(
            "Task {} retry: Retry in {:.1}s ({}{}): it asked for it",
            request.label(),
            delay.as_secs_f64(),
            retries + 1,
            max.map_or_else(String::new, |max| format!(" of {max}"))
        );
        self.tried_again(delay, record, log).unwrap_or_else(|| {
            let text = "the message cannot be written again";
            self.failed(&Exception::new("builtins", "RuntimeError", text), None)
        })
    }

    /// The message that retries this one takes its place, or follows it.
    pub(super) fn tried_again(
        &self,
        delay: Duration,
        record: Option<Record>,
        log: String,
    ) -> Option<Verdict> {
        let request = self.request;
        let eta = self.now + delay;
        let payload = request.payload.retry(&request.message, eta).ok()?;
        let publish = request
            .acked
            .then(|| Posting { payload: payload.clone(), ..request.posting(Some(eta)) });
        Some(Verdict {
            record,
            settle: (!request.acked).then_some(Settle::Replace(payload, eta)),
            publish: publish.into_iter().collect(),
            log: Some((Level::INFO, log)),
            ..Verdict::default()
        })
    }

    fn requeued(&self) -> Verdict {
        let log = format!("Task {} rejected; given back to its queue", self.request.label());
        let verdict = Verdict { record: self.own_state(), ..Verdict::release(self.request) };
        Verdict { log: Some((Level::WARN, log)), ..verdict }
    }

    /// A FAILURE for who waits for it. The message is kept, as a broker with an exchange for dead
    /// letters does.
    fn rejected(&self) -> Verdict {
        let request = self.request;
        let args = vec![Value::Null, Value::Bool(false)];
        let verdict = self.failed(&Exception::with("celery.exceptions", "Reject", args), None);
        let death = Death {
            reason: "rejected",
            detail: "the task rejected its message".into(),
            task_id: Some(request.message.id.clone()),
            task: Some(request.message.task.clone()),
            counts: false,
        };
        let settle = verdict.settle.is_some().then_some(Settle::Dead(death));
        let log = format!("Task {} rejected; kept in the dead-letter list", request.label());
        Verdict { settle, log: Some((Level::WARN, log)), ..verdict }
    }

    fn ignored(&self) -> Verdict {
        let log = format!("Task {} ignored", self.request.label());
        let verdict = Verdict {
            record: self.own_state(),
            settle: self.ack(),
            log: Some((Level::INFO, log)),
            ..Verdict::default()
        };
        let exception = Exception::with("celery.exceptions", "Ignore", Vec::new());
        follow::none(verdict, self.request, self.plan, &exception, self.now)
    }

    fn replaced(&self, signature: &Signature) -> Verdict {
        let request = self.request;
        let replaced = follow::replacement(request, self.plan, signature.clone(), self.now)
            .and_then(|calls| {
                let log = format!("Task {} replaced by {}", request.label(), signature.task);
                let verdict = Verdict {
                    record: self.own_state(),
                    settle: self.ack(),
                    log: Some((Level::INFO, log)),
                    ..Verdict::default()
                };
                follow::called(verdict, calls, self.plan, self.now)
            });
        replaced.unwrap_or_else(|why| {
            let why = why.to_string();
            let error = Exception::new("celery.exceptions", "InvalidTaskError", why);
            self.failed(&error, None)
        })
    }

    /// The last state of its own that is not stored yet: the task leaves it behind.
    fn own_state(&self) -> Option<Record> {
        let told = self.request.told.as_deref()?;
        let record = state_record(&self.request.message.id, told.state.clone()?, self.now);
        Some(self.request.extend(self.plan, record))
    }
}
