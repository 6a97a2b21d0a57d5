//! From how an attempt ended to what happens to its message: one table, no I/O.
//!
//! | ending | acknowledged late | early |
//! | --- | --- | --- |
//! | any that is its own or a shutdown's, and the task has said what it is to mean | as said: see `said` | the same |
//! | an exit code of `ok`; a WASM function returned | SUCCESS, ack | SUCCESS |
//! | 75 or `retry_on`, retries left | RETRY, replaced by the retry | RETRY, retry published |
//! | any other code; a trap; it could not start | FAILURE, ack | FAILURE |
//! | soft limit, then any code but those above | FAILURE `SoftTimeLimitExceeded`, ack | FAILURE |
//! | hard limit | FAILURE `TimeLimitExceeded`, ack | FAILURE |
//! | `cpu_seconds` used up, then a signal | FAILURE `ResourceLimitExceeded`, ack | FAILURE |
//! | death by a signal not ours | redelivered, counted; at the limit FAILURE `WorkerLostError`, dead letter | FAILURE `WorkerLostError` |
//! | … of the kernel, for memory | the same, and the error names the memory that was used up | the same |
//! | the host had no capacity for it (descriptors, processes, memory) | released, not counted | sent again |
//! | its program or folder was unavailable | parked, not counted | sent again, due later |
//! | asked to end by a soft shutdown or by a signal to the whole service, then any code but success, or a signal | released | FAILURE `WorkerLostError` |
//! | cancelled by a shutdown | released | FAILURE `WorkerLostError`: at most once |
//! | recalled before it began | released | does not happen |
//! | cancelled because the connection was lost | nothing: another worker has it | does not happen |
//!
//! Death by a signal is not the task's own result, so the message is not acknowledged. A task that
//! kills every worker becomes a dead letter and is not redelivered forever.

pub(super) mod text;

mod output;
mod said;

use super::event::Now;
use super::follow;
use super::plan::Plan;
use super::request::{Request, about};
use super::verdict::{Verdict, error_record};
use crate::bounds;
use crate::broker::Settle;
use crate::config::units;
use crate::log::escape;
use crate::runner::{CancelReason, Captured, Ending, Exhausted, Outcome, ResourceUsage, TimeLimit};
use crate::task::{ResultMode, Task, retry};
use crate::wire::exception::TIME_LIMIT_EXCEEDED;
use crate::wire::{Exception, Record, TaskState, result};
use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use output::{last_output, result_of, tail};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;
use text::{last_lines, mebibytes, short, show};
use tracing::Level;

/// EX_TEMPFAIL of sysexits.h: "try again later".
const EX_TEMPFAIL: i32 = 75;

/// The verdict on `outcome`. A task that is unavailable is parked for `pause`.
pub fn verdict(
    request: &Request,
    outcome: &Outcome,
    plan: &Plan,
    pause: Duration,
    now: Now,
) -> Verdict {
    let random = now.random;
    let judge = Judge { request, outcome, plan, now: now.wall };
    let task = &request.task;
    let said = outcome.said.as_ref().filter(|_| outcome.is_its_own());
    let by_ending = || match (&outcome.ending, outcome.limit) {
        (Ending::Cancelled(why), _) => judge.cancelled(*why),
        (Ending::NoCapacity(_), _) => Verdict::release(request),
        (Ending::Unavailable(_), _) => Verdict::park(request, now.wall + pause),
        (_, Some(TimeLimit::Hard)) => judge.failed(&hard_limit(outcome, request, plan), None),
        (Ending::Returned, _) => judge.succeeded(),
        (Ending::Exited(code), _) if task.ok.contains(code) => judge.succeeded(),
        // Whatever it did then, it did because it was asked to end.
        _ if outcome.asked => judge.cancelled(CancelReason::Shutdown),
        (Ending::Exited(code), _) if *code == EX_TEMPFAIL || task.retry_on.contains(code) => {
            judge.retried(&exit_error(request, *code, outcome), random)
        }
        (_, Some(TimeLimit::Soft)) => judge
            .failed(&Exception::with("billiard.exceptions", "SoftTimeLimitExceeded", vec![]), None),
        (Ending::Exited(code), None) => judge.failed(&exit_error(request, *code, outcome), None),
        (Ending::Trapped(exception, backtrace), None) => judge.failed(exception, Some(backtrace)),
        (Ending::Refused(exception), None) => judge.failed(exception, None),
        (Ending::Signaled(signal), None) => judge.signaled(*signal),
    };
    let verdict = said.map_or_else(by_ending, |said| judge.said(said, random));
    let about = verdict.log.is_some().then(|| about(&request.message));
    Verdict { record: verdict.record.map(|record| with_usage(record, outcome)), about, ..verdict }
}

/// The value of a task that has succeeded; `None` if the outcome is none of success.
pub(super) fn value(task: &Task, outcome: &Outcome) -> Option<Result<Box<RawValue>, Exception>> {
    let has_succeeded = match &outcome.ending {
        Ending::Returned => true,
        Ending::Exited(code) => task.ok.contains(code),
        _ => false,
    };
    let in_time = outcome.limit != Some(TimeLimit::Hard);
    (has_succeeded && in_time).then(|| output_value(task, outcome))
}

fn output_value(task: &Task, outcome: &Outcome) -> Result<Box<RawValue>, Exception> {
    match &outcome.ending {
        // The runner has made the value of a plain WASM function JSON.
        Ending::Returned => result_of(&outcome.stdout, ResultMode::Auto),
        _ => result_of(&outcome.stdout, task.result),
    }
}

/// Adds what the attempt used to the fields of `result_extended`.
fn with_usage(mut record: Record, outcome: &Outcome) -> Record {
    if let Some(extended) = record.extended.as_deref_mut()
        && outcome.has_run()
    {
        let ResourceUsage { memory_peak, user, system } = outcome.usage;
        let memory_peak = Some(memory_peak).filter(|peak| *peak > 0);
        let usage = result::Usage { runtime: outcome.runtime, user, system, memory_peak };
        extended.usage = Some(usage);
    }
    record
}

struct Judge<'a> {
    request: &'a Request,
    outcome: &'a Outcome,
    plan: &'a Plan,
    now: DateTime<Utc>,
}

impl Judge<'_> {
    fn succeeded(&self) -> Verdict {
        let id = &self.request.message.id;
        let result = match &self.request.map {
            Some(map) => Ok(map.result()),
            None => output_value(&self.request.task, self.outcome),
        };
        let result = match result {
            Ok(result) => result,
            Err(exception) => return self.failed(&exception, None),
        };
        let log = self.plan.chatty.then(|| {
            let shown = short(result.get(), 200);
            let shown = escape::line(&shown);
            let line = format!(
                "Task {} succeeded in {:.6}s: {shown}{}",
                self.request.label(),
                self.outcome.runtime.as_secs_f64(),
                self.usage()
            );
            (Level::INFO, line)
        });
        let passed_on = self.request.arguments.embed.is_some().then(|| result.clone());
        let record = self
            .request
            .stores(self.plan, TaskState::Success)
            .then(|| self.request.extend(self.plan, Record::success(id, result, self.now)));
        let verdict = Verdict { record, settle: self.ack(), log, ..Verdict::default() };
        // Mostly nothing follows, and a result may be large.
        let Some(result) = passed_on else { return verdict };
        match follow::success(verdict, self.request, self.plan, &result, self.now) {
            Ok(verdict) => verdict,
            Err(why) => {
                let why = why.to_string();
                let error = Exception::new("celery.exceptions", "InvalidTaskError", why);
                self.failed(&error, None)
            }
        }
    }

    fn failed(&self, exception: &Exception, traceback: Option<&str>) -> Verdict {
        let text = traceback.filter(|t| !t.is_empty()).map(str::to_string);
        let text = text.or_else(|| last_output(self.outcome));
        let log = format!(
            "Task {} raised unexpected: {}{}{}{}",
            self.request.label(),
            show(exception),
            self.soft_limit(),
            self.usage(),
            text.as_deref().map(|t| format!("\n{t}")).unwrap_or_default()
        );
        let verdict = Verdict {
            record: self.error_record(TaskState::Failure, exception, text.clone()),
            settle: self.ack(),
            log: Some((Level::ERROR, log)),
            ..Verdict::default()
        };
        let ended = (TaskState::Failure, exception);
        follow::failure(verdict, self.request, self.plan, ended, text.as_deref(), self.now)
    }

    fn retried(&self, exception: &Exception, random: f64) -> Verdict {
        let (request, task) = (self.request, &self.request.task);
        let retries = request.message.retries;
        // In a map, a task is called directly: as in Celery, the error that it would be retried for is
        // the map's.
        if request.map.is_some() || task.max_retries.is_some_and(|max| retries >= max) {
            return self.failed(exception, None);
        }
        let delay = retry::delay(task, retries, random);
        let text = last_output(self.outcome);
        let log = format!(
            "Task {} retry: Retry in {:.1}s ({}{}): {}{}",
            request.label(),
            delay.as_secs_f64(),
            retries + 1,
            task.max_retries.map_or_else(String::new, |max| format!(" of {max}")),
            show(exception),
            text.as_deref().map_or_else(String::new, |text| format!(": {}", last_lines(text, 1)))
        );
        let record = self.error_record(TaskState::Retry, exception, text);
        // It was read once, so it can be read again.
        self.tried_again(delay, record, log).unwrap_or_else(|| self.failed(exception, None))
    }

    fn signaled(&self, signal: i32) -> Verdict {
        let request = self.request;
        let name = signal_name(signal);
        let usage = self.outcome.usage;
        let exhausted = match self.outcome.exhausted {
            Some(Exhausted::Own(limit)) => {
                format!("; out of memory: it reached its limit of {}", mebibytes(limit))
            }
            Some(Exhausted::Around) => {
                "; out of memory: that of the host or of a group around the worker".into()
            }
            None => String::new(),
        };
        // A process that stayed below the worker's own memory has no figure.
        let peak = match usage.memory_peak {
            0 => String::new(),
            peak => format!("; peak memory {}", mebibytes(peak)),
        };
        let mut what =
            format!("Worker exited prematurely: signal {signal} ({name}){exhausted}{peak}");
        if let Some(reached) = self.processor_time_limit(signal) {
            let exception = Exception::new("qworker.exceptions", "ResourceLimitExceeded", reached);
            return self.failed(&exception, None);
        }
        let text = last_output(self.outcome);
        if let Some(text) = &text {
            what = format!("{what}; its output ended: {}", last_lines(text, 3));
        }
        let losses = request.deliveries.saturating_add(1);
        if request.acked || self.plan.policy.is_used_up(losses) {
            return Verdict::lost(request, self.plan, &what, text, self.now);
        }
        let delay = bounds::redelivery_delay(request.deliveries);
        let log = format!(
            "Task {} lost its process: {what}; redelivered in {:.0}s ({losses} of {})",
            request.label(),
            delay.as_secs_f64(),
            self.plan.policy.max_deliveries
        );
        Verdict {
            settle: Some(Settle::Redeliver(self.now + delay)),
            log: Some((Level::WARN, log)),
            ..Verdict::default()
        }
    }

    /// A processor-time limit of its own is the task's failure, not an accident: the same would happen
    /// again.
    fn processor_time_limit(&self, signal: i32) -> Option<String> {
        let limit = self.request.task.resource_limits.cpu_seconds?;
        let used = self.outcome.usage.user + self.outcome.usage.system;
        let struck =
            signal == Signal::SIGXCPU as i32 || (signal == 9 && used >= Duration::from_secs(limit));
        struck.then(|| format!("cpu_seconds: {limit} used up (signal {signal})"))
    }

    fn cancelled(&self, why: CancelReason) -> Verdict {
        match why {
            CancelReason::Shutdown => self.shut_down(),
            CancelReason::ConnectionLost => Verdict::default(),
            CancelReason::Recalled => Verdict::release(self.request),
        }
    }

    fn shut_down(&self) -> Verdict {
        let label = self.request.label();
        if !self.request.acked {
            let log = format!("Task {label} stopped by shutdown; given back");
            let log = Some((Level::WARN, log));
            return Verdict { log, ..Verdict::only(Settle::Release) };
        }
        let exception = Exception::new(
            "billiard.exceptions",
            "WorkerLostError",
            "stopped by the shutdown of its worker; acks_late: false runs a task at most once",
        );
        self.failed(&exception, None)
    }

    fn ack(&self) -> Option<Settle> {
        (!self.request.acked).then_some(Settle::Ack)
    }

    fn error_record(
        &self,
        state: TaskState,
        exception: &Exception,
        text: Option<String>,
    ) -> Option<Record> {
        error_record(self.request, self.plan, state, exception, text, self.now)
    }

    /// The soft limit that struck: Celery's exception does not name it.
    fn soft_limit(&self) -> String {
        let limit = self.request.time_limits(&self.plan.policy).soft;
        let limit = limit.filter(|_| self.outcome.limit == Some(TimeLimit::Soft));
        limit.map_or_else(String::new, |limit| {
            format!(" after its soft_time_limit of {}", units::show_duration(limit))
        })
    }

    fn usage(&self) -> String {
        if !self.outcome.has_run() {
            return String::new();
        }
        let ResourceUsage { memory_peak, user, system } = self.outcome.usage;
        // A process that stayed below the worker's own memory has no figure.
        let peak = (memory_peak > 0).then(|| format!("peak {}, ", mebibytes(memory_peak)));
        format!(
            " ({}user {:.3}s, system {:.3}s)",
            peak.unwrap_or_default(),
            user.as_secs_f64(),
            system.as_secs_f64()
        )
    }
}

fn signal_name(number: i32) -> String {
    Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_string())
}

fn hard_limit(outcome: &Outcome, request: &Request, plan: &Plan) -> Exception {
    let limit = request.time_limits(&plan.policy).hard.unwrap_or(outcome.runtime).as_secs_f64();
    let limit = if limit.fract() == 0.0 { json!(limit as u64) } else { json!(limit) };
    Exception::with("billiard.exceptions", TIME_LIMIT_EXCEEDED, vec![limit])
}

/// What `subprocess.run(check=True)` would raise. The task's name stands for the command: the first
/// line of a script (`set -eu`) would say nothing.
fn exit_error(request: &Request, code: i32, outcome: &Outcome) -> Exception {
    let end = |stream: &Captured| tail(stream).map_or(Value::Null, Value::String);
    let (output, errors) = (end(&outcome.stdout), end(&outcome.stderr));
    let args = vec![json!(code), json!(request.task.name), output, errors];
    Exception::with("subprocess", "CalledProcessError", args)
}
