//! From how an attempt ended to what becomes of its message: one table, no I/O.
//!
//! | ending | acknowledged late | early |
//! | --- | --- | --- |
//! | an exit code of `ok`; a WASM function returned | SUCCESS, ack | SUCCESS |
//! | 75 or `retry_on`, retries left | RETRY, replaced by the retry | RETRY, retry published |
//! | any other code; a trap; it could not start | FAILURE, ack | FAILURE |
//! | soft limit, then any code but those above | FAILURE `SoftTimeLimitExceeded`, ack | FAILURE |
//! | hard limit | FAILURE `TimeLimitExceeded`, ack | FAILURE |
//! | death by a signal not ours | redelivered, counted; at the bound FAILURE `WorkerLostError`, dead letter | FAILURE `WorkerLostError` |
//! | the host had no room for it (descriptors, processes, memory) | given back, not counted | sent again |
//! | asked to end by a soft shutdown, or told by whoever ended the whole service, then any code but success, or a signal | given back | FAILURE `WorkerLostError` |
//! | … by the kernel, for memory | the same, and it is told which memory was used up | the same |
//! | stopped by us (cold shutdown) | given back | FAILURE `WorkerLostError`: at most once |
//!
//! Death by a signal is not the task's answer, so it is not acknowledged as one; a task
//! that kills each worker it meets ends in the dead-letter list, not in a circle.

use super::plan::Plan;
use super::request::{Request, about};
use crate::bounds;
use crate::broker::{Death, Posting, Settle};
use crate::config::units;
use crate::log::{About, escape};
use crate::runner::{Captured, Ending, Exhausted, Limit, Outcome, Usage};
use crate::task::{ResultMode, retry};
use crate::wire::exception::TIME_LIMIT_EXCEEDED;
use crate::wire::{Exception, Record, State, result, value};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;
use tracing::Level;

/// What to do with a request that has ended.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Store this.
    pub record: Option<Record>,
    /// Settle the delivery so; `None` if it was acknowledged before.
    pub settle: Option<Settle>,
    /// Send this: the retry of a task that was acknowledged before.
    pub publish: Option<Posting>,
    /// Say this.
    pub log: Option<(Level, String)>,
    /// The task that this is said about.
    pub about: Option<About>,
    /// Not even a power cut may undo it: an acknowledgement before the start.
    pub durable: bool,
}

/// EX_TEMPFAIL of sysexits.h: "try again later".
const EX_TEMPFAIL: i32 = 75;

/// Judges `outcome`. `random` in 0..1 is the draw for a retry's jitter.
pub fn verdict(
    request: &Request,
    outcome: &Outcome,
    plan: &Plan,
    now: DateTime<Utc>,
    random: f64,
) -> Verdict {
    let judge = Judge { request, outcome, plan, now };
    let task = &request.task;
    let verdict = match (&outcome.ending, outcome.limit) {
        (Ending::Cancelled, _) => judge.cancelled(),
        (Ending::NoRoom(_), _) => given_back(request),
        (Ending::Withheld(_), _) => put_by(request, now),
        (_, Some(Limit::Hard)) => judge.failed(&hard_limit(outcome, request, plan), None),
        (Ending::Returned, _) => judge.succeeded(),
        (Ending::Exited(code), _) if task.ok.contains(code) => judge.succeeded(),
        // However it ended then, it was not of its own.
        _ if outcome.asked => judge.cancelled(),
        (Ending::Exited(code), _) if *code == EX_TEMPFAIL || task.retry_on.contains(code) => {
            judge.retried(&exit_error(request, *code, outcome), random)
        }
        (_, Some(Limit::Soft)) => judge
            .failed(&Exception::with("billiard.exceptions", "SoftTimeLimitExceeded", vec![]), None),
        (Ending::Exited(code), None) => judge.failed(&exit_error(request, *code, outcome), None),
        (Ending::Trapped(exception, backtrace), None) => judge.failed(exception, Some(backtrace)),
        (Ending::Refused(exception), None) => judge.failed(exception, None),
        (Ending::Signaled(signal), None) => judge.signaled(*signal),
    };
    Verdict { record: verdict.record.map(|record| with_usage(record, outcome)), ..verdict }
}

/// What it used goes with the fields of `result_extended`.
fn with_usage(mut record: Record, outcome: &Outcome) -> Record {
    if let Some(extended) = record.extended.as_deref_mut()
        && outcome.has_run()
    {
        let Usage { memory_peak, user, system } = outcome.usage;
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
        let (text, id) = (&self.outcome.stdout, &self.request.message.id);
        let result = match &self.outcome.ending {
            // A plain WASM function's answer is made here, as JSON.
            Ending::Returned => result_of(text, ResultMode::Auto),
            _ => result_of(text, self.request.task.result),
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
        let record = (!self.request.ignores_result(&self.plan.policy))
            .then(|| self.request.extend(self.plan, Record::success(id, result, self.now)));
        Verdict { record, settle: self.ack(), log, ..Verdict::default() }
    }

    fn failed(&self, exception: &Exception, traceback: Option<&str>) -> Verdict {
        let text = traceback.filter(|t| !t.is_empty()).map(str::to_string);
        let text = text.or_else(|| last_words(self.outcome));
        let log = format!(
            "Task {} raised unexpected: {}{}{}{}",
            self.request.label(),
            show(exception),
            self.soft_limit(),
            self.usage(),
            text.as_deref().map(|t| format!("\n{t}")).unwrap_or_default()
        );
        Verdict {
            record: self.error_record(State::Failure, exception, text),
            settle: self.ack(),
            log: Some((Level::ERROR, log)),
            ..Verdict::default()
        }
    }

    fn retried(&self, exception: &Exception, random: f64) -> Verdict {
        let (request, task) = (self.request, &self.request.task);
        let retries = request.message.retries;
        if task.max_retries.is_some_and(|max| retries >= max) {
            return self.failed(exception, None);
        }
        let delay = retry::delay(task, retries, random);
        let eta = self.now + delay;
        // The message was read once, so it can be read again.
        let Ok(payload) = request.payload.retry(&request.message, eta) else {
            return self.failed(exception, None);
        };
        let text = last_words(self.outcome);
        let log = format!(
            "Task {} retry: Retry in {:.1}s ({}{}): {}{}",
            request.label(),
            delay.as_secs_f64(),
            retries + 1,
            task.max_retries.map_or_else(String::new, |max| format!(" of {max}")),
            show(exception),
            text.as_deref().map_or_else(String::new, |text| format!(": {}", last_lines(text, 1)))
        );
        let publish = request
            .acked
            .then(|| Posting { payload: payload.clone(), ..request.posting(Some(eta)) });
        Verdict {
            record: self.error_record(State::Retry, exception, text),
            settle: (!request.acked).then_some(Settle::Replace(payload, eta)),
            publish,
            log: Some((Level::INFO, log)),
            ..Verdict::default()
        }
    }

    fn signaled(&self, signal: i32) -> Verdict {
        let request = self.request;
        let name = signal_name(signal);
        let usage = self.outcome.usage;
        let exhausted = match self.outcome.exhausted {
            Some(Exhausted::Own(limit)) => {
                format!("; out of memory: it reached its limit of {}", bytes(limit))
            }
            Some(Exhausted::Around) => {
                "; out of memory: that of the host or of a group around the worker".into()
            }
            None => String::new(),
        };
        // A process that stayed below the worker's own memory has no figure.
        let peak = match usage.memory_peak {
            0 => String::new(),
            peak => format!("; peak memory {}", bytes(peak)),
        };
        let mut what =
            format!("Worker exited prematurely: signal {signal} ({name}){exhausted}{peak}");
        if let Some(fence) = self.fence(signal) {
            let exception = Exception::new("qworker.exceptions", "ResourceLimitExceeded", fence);
            return self.failed(&exception, None);
        }
        let text = last_words(self.outcome);
        if let Some(text) = &text {
            what = format!("{what}; its output ended: {}", last_lines(text, 3));
        }
        let losses = request.deliveries.saturating_add(1);
        if request.acked || losses >= self.plan.policy.max_deliveries {
            return lost(request, self.plan, &what, text, self.now);
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

    /// A processor-time limit of the task's own is its failure, not an accident: the same
    /// would happen again.
    fn fence(&self, signal: i32) -> Option<String> {
        let limit = self.request.task.fences.cpu_seconds?;
        let used = self.outcome.usage.user + self.outcome.usage.system;
        let struck = signal == libc_xcpu() || (signal == 9 && used >= Duration::from_secs(limit));
        struck.then(|| format!("cpu_seconds: {limit} used up (signal {signal})"))
    }

    fn cancelled(&self) -> Verdict {
        let label = self.request.label();
        if !self.request.acked {
            let log = format!("Task {label} stopped by shutdown; given back");
            return Verdict {
                settle: Some(Settle::Release),
                log: Some((Level::WARN, log)),
                ..Verdict::default()
            };
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
        state: State,
        exception: &Exception,
        text: Option<String>,
    ) -> Option<Record> {
        error_record(self.request, self.plan, state, exception, text, self.now)
    }

    /// The limit that Celery's exception does not tell.
    fn soft_limit(&self) -> String {
        let limit = self.request.attempt(self.plan).soft_time_limit;
        let limit = limit.filter(|_| self.outcome.limit == Some(Limit::Soft));
        limit.map_or_else(String::new, |limit| {
            format!(" after its soft_time_limit of {}", units::show_duration(limit))
        })
    }

    fn usage(&self) -> String {
        if !self.outcome.has_run() {
            return String::new();
        }
        let Usage { memory_peak, user, system } = self.outcome.usage;
        // A process that stayed below the worker's own memory has no figure.
        let peak = (memory_peak > 0).then(|| format!("peak {}, ", bytes(memory_peak)));
        format!(
            " ({}user {:.3}s, system {:.3}s)",
            peak.unwrap_or_default(),
            user.as_secs_f64(),
            system.as_secs_f64()
        )
    }
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_string())
}

fn libc_xcpu() -> i32 {
    nix::sys::signal::Signal::SIGXCPU as i32
}

/// A request that did not begin goes back as it came, and is not counted: as a new message if
/// it was acknowledged.
pub fn given_back(request: &Request) -> Verdict {
    match request.acked {
        true => Verdict { publish: Some(request.posting(None)), ..Verdict::default() },
        false => Verdict { settle: Some(Settle::Release), ..Verdict::default() },
    }
}

/// It did not start, and is handed out again from `until` on; uncounted.
pub fn put_by(request: &Request, until: DateTime<Utc>) -> Verdict {
    match request.acked {
        true => Verdict { publish: Some(request.posting(Some(until))), ..Verdict::default() },
        false => Verdict { settle: Some(Settle::Park(until)), ..Verdict::default() },
    }
}

/// The end of a request that lost too many processes or workers.
pub fn lost(
    request: &Request,
    plan: &Plan,
    what: &str,
    traceback: Option<String>,
    now: DateTime<Utc>,
) -> Verdict {
    let exception = Exception::new("billiard.exceptions", "WorkerLostError", what);
    let death = Death {
        reason: "lost",
        detail: what.to_string(),
        task_id: Some(request.message.id.clone()),
        task: Some(request.message.task.clone()),
        // What was lost too often before is not run again.
        counts: request.deliveries < plan.policy.max_deliveries,
    };
    let fate = if request.acked { "acknowledged before" } else { "kept in the dead-letter list" };
    let log = format!("Task {} lost for good: {what}; {fate}", request.label());
    Verdict {
        record: error_record(request, plan, State::Failure, &exception, traceback, now),
        settle: (!request.acked).then_some(Settle::Dead(death)),
        log: Some((Level::ERROR, log)),
        about: Some(about(&request.message)),
        ..Verdict::default()
    }
}

/// An error's record, unless results are ignored and errors with them.
pub fn error_record(
    request: &Request,
    plan: &Plan,
    state: State,
    exception: &Exception,
    traceback: Option<String>,
    now: DateTime<Utc>,
) -> Option<Record> {
    let policy = &plan.policy;
    if request.ignores_result(policy) && !(policy.store_errors && state == State::Failure) {
        return None;
    }
    let record = Record::exception(&request.message.id, state, exception, traceback, now);
    Some(request.extend(plan, record))
}

fn hard_limit(outcome: &Outcome, request: &Request, plan: &Plan) -> Exception {
    let limit = request.attempt(plan).time_limit.unwrap_or(outcome.runtime).as_secs_f64();
    let limit = if limit.fract() == 0.0 { json!(limit as u64) } else { json!(limit) };
    Exception::with("billiard.exceptions", TIME_LIMIT_EXCEEDED, vec![limit])
}

/// What `subprocess.run(check=True)` would raise. The command is known by the name of its task:
/// the first line of a script (`set -eu`) would name nothing.
fn exit_error(request: &Request, code: i32, outcome: &Outcome) -> Exception {
    let end = |stream: &Captured| tail(stream).map_or(Value::Null, Value::String);
    let (output, errors) = (end(&outcome.stdout), end(&outcome.stderr));
    let args = vec![json!(code), json!(request.task.name), output, errors];
    Exception::with("subprocess", "CalledProcessError", args)
}

/// Standard output as a JSON value.
fn result_of(output: &Captured, mode: ResultMode) -> Result<Box<RawValue>, Exception> {
    let text = || String::from_utf8_lossy(&output.bytes).into_owned();
    let whole = output.dropped == 0;
    let wrong = |why: String| Exception::new("builtins", "ValueError", why);
    match mode {
        ResultMode::None => Ok(value::raw(&Value::Null)),
        ResultMode::Bytes => Ok(value::raw(&value::bytes(&output.bytes))),
        ResultMode::Text => Ok(value::raw(&Value::String(without_newline(&text()).into()))),
        ResultMode::Json if !whole => Err(wrong(format!(
            "result: json, but {} bytes of output went over max_output",
            output.dropped
        ))),
        ResultMode::Json => json_text(&output.bytes).ok_or_else(|| {
            wrong(format!("result: json, but the output is {:?}", short(&text(), 200)))
        }),
        ResultMode::Auto => Ok(auto(output, whole)),
    }
}

fn auto(output: &Captured, whole: bool) -> Box<RawValue> {
    if output.bytes.is_empty() {
        return value::raw(&Value::Null);
    }
    if let Some(json) = whole.then(|| json_text(&output.bytes)).flatten() {
        return json;
    }
    match std::str::from_utf8(&output.bytes) {
        Ok(text) => value::raw(&Value::String(without_newline(text).into())),
        // The cut may have gone through a character; that is still text.
        Err(error) if !whole && error.valid_up_to() == 0 => {
            let text = String::from_utf8_lossy(&output.bytes);
            value::raw(&Value::String(without_newline(&text).into()))
        }
        Err(_) => value::raw(&value::bytes(&output.bytes)),
    }
}

fn json_text(bytes: &[u8]) -> Option<Box<RawValue>> {
    let json = serde_json::from_slice::<Box<RawValue>>(bytes.trim_ascii()).ok()?;
    value::is_read_by_python(&json).then_some(json)
}

fn without_newline(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t))
}

/// What a task said last: the end of standard error, or of standard output where that is empty.
fn last_words(outcome: &Outcome) -> Option<String> {
    tail(&outcome.stderr).or_else(|| tail(&outcome.stdout))
}

/// The end of a stream as text; `None` if there is none.
fn tail(stream: &Captured) -> Option<String> {
    let from = stream.bytes.len().saturating_sub(bounds::TRACEBACK_MAX);
    let text = String::from_utf8_lossy(&stream.bytes[from..]);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_string())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    short(&lines[lines.len().saturating_sub(count)..].join(" | "), 300)
}

/// `text`, cut with `...` where it is longer than `max` characters.
pub fn short(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_string(),
    }
}

/// An exception as Python's `repr` shows it.
pub fn show(exception: &Exception) -> String {
    // Two say what it is; a third is a long text that stands elsewhere.
    let shown = exception.exc_message.iter().take(2).filter(|arg| !arg.is_null());
    let args: Vec<String> = shown.map(|arg| short(&crate::wire::repr::value(arg), 200)).collect();
    if exception.exc_type == TIME_LIMIT_EXCEEDED {
        return format!("{}({}s)", exception.exc_type, args.join(", "));
    }
    format!("{}({})", exception.exc_type, args.join(", "))
}

fn bytes(count: u64) -> String {
    format!("{:.1} MiB", count as f64 / 1048576.0)
}
