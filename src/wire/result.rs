//! The result document.
//!
//! Source: celery `backends/base.py` (`_get_result_meta`) and 5.7's
//! `backends/database/models.py`: results are JSON, no longer pickled.

use super::body::{self, Pairs};
use super::exception::Exception;
use super::stored::{ResultFormat, Shape};
use super::value;
use crate::clock;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// States that are stored. PENDING is the absence of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Runs now (`task_track_started`).
    Started,
    /// Failed, and waits for its next try.
    Retry,
    /// Done.
    Success,
    /// Failed for good.
    Failure,
    /// Not to be run: expired or revoked.
    Revoked,
}

impl TaskState {
    /// Celery's name.
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Started => "STARTED",
            TaskState::Retry => "RETRY",
            TaskState::Success => "SUCCESS",
            TaskState::Failure => "FAILURE",
            TaskState::Revoked => "REVOKED",
        }
    }

    /// The state of that name; `None` for one that Celery programs made up.
    pub fn named(name: &str) -> Option<TaskState> {
        use TaskState::{Failure, Retry, Revoked, Started, Success};
        [Started, Retry, Success, Failure, Revoked].into_iter().find(|state| state.name() == name)
    }

    /// Will it change no more?
    pub fn is_ready(self) -> bool {
        matches!(self, TaskState::Success | TaskState::Failure | TaskState::Revoked)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One result, as a worker writes it.
#[derive(Debug, Clone)]
pub struct Record {
    /// Task id.
    pub task_id: String,
    /// Its state.
    pub state: TaskState,
    /// The name that the task itself gives to its state while it runs.
    pub named: Option<Box<str>>,
    /// JSON: the value, or the exception's three fields.
    pub result: Box<RawValue>,
    /// Text under the exception.
    pub traceback: Option<String>,
    /// When; stored for final states only.
    pub date_done: DateTime<Utc>,
    /// The group that the task is a member of.
    pub group_id: Option<String>,
    /// The task that sent it.
    pub parent_id: Option<String>,
    /// JSON array of what it has sent, if it has sent anything.
    pub children: Option<String>,
    /// Written with `result_extended`.
    pub extended: Option<Box<Extended>>,
}

/// The fields that `result_extended` adds.
#[derive(Debug, Clone)]
pub struct Extended {
    /// Task name.
    pub name: String,
    /// JSON array.
    pub args: String,
    /// JSON object.
    pub kwargs: String,
    /// Node name.
    pub worker: String,
    /// Retries that came before.
    pub retries: u32,
    /// Queue it came from.
    pub queue: String,
    /// What it used, once it has ended: a field that Celery has not.
    pub usage: Option<Usage>,
}

/// What one attempt used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// How long it ran.
    pub runtime: Duration,
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Largest memory in bytes, where it is known.
    pub memory_peak: Option<u64>,
}

impl Usage {
    /// Seconds and bytes.
    pub fn to_json(&self) -> Value {
        json!({
            "runtime": self.runtime.as_secs_f64(),
            "user": self.user.as_secs_f64(),
            "system": self.system.as_secs_f64(),
            "memory_peak": self.memory_peak,
        })
    }
}

impl Record {
    /// A task that succeeded with this JSON value.
    pub fn success(task_id: &str, result: Box<RawValue>, now: DateTime<Utc>) -> Record {
        Record {
            task_id: task_id.into(),
            state: TaskState::Success,
            named: None,
            result,
            traceback: None,
            date_done: now,
            group_id: None,
            parent_id: None,
            children: None,
            extended: None,
        }
    }

    /// The name of its state.
    pub fn status(&self) -> &str {
        self.named.as_deref().unwrap_or(self.state.name())
    }

    /// A task that ended, or waits for a retry, with this exception.
    pub fn exception(
        task_id: &str,
        state: TaskState,
        exception: &Exception,
        traceback: Option<String>,
        now: DateTime<Utc>,
    ) -> Record {
        let result = value::raw(&exception.to_json());
        Record { state, traceback, ..Record::success(task_id, result, now) }
    }
}

/// One result, as a client reads it. Values stay as they came: no digit is lost, and no depth is
/// too much.
#[derive(Debug, Clone)]
pub struct Meta {
    /// State by name; may be one that a Python program made up.
    pub status: String,
    /// JSON: the value, or the exception's three fields.
    pub result: Box<RawValue>,
    /// Text under the exception.
    pub traceback: Option<String>,
    /// JSON array of what it sent.
    pub children: Box<RawValue>,
    /// When it was done.
    pub date_done: Option<DateTime<Utc>>,
    /// What else there is, by name: the group, the parent, what `result_extended` added.
    pub extended: Vec<(String, Box<RawValue>)>,
    /// Task id.
    pub task_id: String,
}

impl Meta {
    /// Reads a document that anybody may have stored; one that cannot be read is the failure that says
    /// why.
    pub fn read(bytes: &[u8], task_id: &str, format: &ResultFormat, now: DateTime<Utc>) -> Meta {
        let text = String::from_utf8_lossy(bytes);
        // Python writes numbers that JSON has not.
        let plain = || {
            let read = serde_json::from_str(&text);
            read.or_else(|_| serde_json::from_str(&body::finite(&text))).ok()
        };
        let fields = format.reads_json().then(plain).flatten().map_or_else(
            || {
                let read = format.read(bytes, Shape::Document, now);
                read.and_then(|text| Pairs::read("the stored result", &text))
            },
            Ok,
        );
        let Pairs(mut fields) = fields.unwrap_or_else(|why| {
            let error = Exception::new("kombu.exceptions", "DecodeError", why.to_string());
            Pairs(vec![
                ("status".into(), value::raw(&json!(TaskState::Failure.name()))),
                ("result".into(), value::raw(&error.to_json())),
            ])
        });
        let mut take = |name: &str| {
            let at = fields.iter().position(|(field, _)| field == name)?;
            Some(fields.remove(at).1).filter(|raw| raw.get() != "null")
        };
        let text = |raw: Box<RawValue>| String::from_utf8_lossy(&value::text(&raw)).into_owned();
        let null = || value::raw(&Value::Null);
        let date_done = take("date_done").map(text);
        let (status, result) = (take("status"), take("result"));
        let (traceback, children) = (take("traceback"), take("children"));
        take("task_id");
        Meta {
            status: status.map(text).unwrap_or_default(),
            result: result.unwrap_or_else(null),
            traceback: traceback.map(text),
            children: children.unwrap_or_else(|| value::raw(&json!([]))),
            date_done: date_done.as_deref().and_then(clock::parse),
            task_id: task_id.into(),
            extended: fields,
        }
    }

    /// Will it change no more?
    pub fn is_ready(&self) -> bool {
        TaskState::named(&self.status).is_some_and(TaskState::is_ready)
    }

    /// The result as far as numbers and depths go here; null beyond.
    pub fn value(&self) -> Value {
        serde_json::from_str(self.result.get()).unwrap_or_default()
    }

    /// Celery's document, key order and all, on one line.
    pub fn document(&self) -> String {
        let own = |value: Value| value::raw(&value);
        let mut fields = vec![
            ("status", own(json!(self.status))),
            ("result", self.result.clone()),
            ("traceback", own(json!(self.traceback))),
            ("children", self.children.clone()),
            ("date_done", own(json!(self.date_done.map(clock::iso)))),
        ];
        fields.extend(self.extended.iter().map(|(name, value)| (name.as_str(), value.clone())));
        fields.push(("task_id", own(json!(self.task_id))));
        // A text of JSON has no line ends.
        let texts: Vec<String> = fields
            .iter()
            .map(|(name, value)| {
                format!("{}:{}", json!(name), value.get().replace(['\n', '\r'], " "))
            })
            .collect();
        format!("{{{}}}", texts.join(","))
    }
}
