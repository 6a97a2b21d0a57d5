//! What a task says to its own worker, and what it hears: frames with requests and answers. Pure.
//!
//! A frame is its length in bytes, 32 bits, the most significant first, and a JSON object of that
//! length. The manual page qworker-task-protocol(7) is the contract with other languages.

use super::message::Malformed;
use super::{Exception, Signature, value};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;

/// The version of the protocol.
pub const VERSION: u64 = 1;

/// Bytes of the length before each frame.
pub const HEAD: usize = 4;

/// Bytes of a request's frame, without its length. Answers have no limit but that of messages.
pub const FRAME_MAX: usize = 4 * 1024 * 1024;

/// The state of [`Ask::State`] that `progress` sets, as in Celery's documentation.
pub const PROGRESS: &str = "PROGRESS";

/// Characters of a state: SQL stores have columns of so many.
const STATE_MAX: usize = 50;

/// Characters of an exception's type, and of its module.
const NAME_MAX: usize = 255;

/// A countdown in seconds is no longer: a hundred years.
const COUNTDOWN_MAX: f64 = 100.0 * 365.0 * 86_400.0;

/// States that only the end of an attempt brings.
const RESERVED: [&str; 6] = ["SUCCESS", "FAILURE", "RETRY", "REVOKED", "REJECTED", "IGNORED"];

/// The requests by their names.
pub const METHODS: [&str; 10] = [
    "hello",
    "request",
    "update-state",
    "progress",
    "retry",
    "reject",
    "ignore",
    "fail",
    "replace",
    "call",
];

/// What a task asks of its worker.
#[derive(Debug, Clone)]
pub enum Ask {
    /// The complete request.
    Request,
    /// A state of its own, with what belongs to it.
    State {
        /// Its name.
        name: String,
        /// JSON.
        meta: Box<RawValue>,
    },
    /// What the end of the attempt is to mean.
    Say(Said),
    /// Another task, or several.
    Call {
        /// What is called.
        signature: Box<Signature>,
        /// It may be a task that is not defined here.
        unregistered: bool,
        /// 0 to 9, higher is served first; `None`: that of the signature, else that of the caller.
        priority: Option<u8>,
    },
}

/// What the end of an attempt is to mean, as the task itself says. The last one counts.
#[derive(Debug, Clone)]
pub enum Said {
    /// Run it again.
    Retry {
        /// After so long; `None`: after the delay of the task's definition.
        countdown: Option<Duration>,
        /// Retries that are allowed; `None`: those of the definition.
        max_retries: Option<u32>,
    },
    /// Its message is not for it.
    Reject {
        /// The message returns to its queue.
        requeue: bool,
    },
    /// Store nothing, call nothing.
    Ignore,
    /// It has failed with this.
    Fail(Exception),
    /// Another task, or a canvas, takes its place.
    Replace(Box<Signature>),
}

impl Said {
    /// The name of the request that says it.
    pub fn method(&self) -> &'static str {
        match self {
            Said::Retry { .. } => "retry",
            Said::Reject { .. } => "reject",
            Said::Ignore => "ignore",
            Said::Fail(_) => "fail",
            Said::Replace(_) => "replace",
        }
    }
}

/// The first request of a connection.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The version that the client speaks.
    pub version: u64,
    /// Proves that it is the task.
    pub token: String,
}

/// Why a request is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One word for programs.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

impl Refusal {
    /// With this code and sentence.
    pub fn new(code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }

    /// The parameters make no sense.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new("invalid", message)
    }

    /// The attempt is over.
    pub fn ended() -> Refusal {
        Refusal::new("ended", "the attempt at this task is over")
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Refusal {
        Refusal::invalid(malformed.0)
    }
}

/// The JSON of a result, or why there is none.
pub type Answer = Result<String, Refusal>;

/// A request that was read as far as its method.
#[derive(Debug, Deserialize)]
pub struct Request<'a> {
    /// The client's number of it, which its answer has too.
    pub id: u64,
    /// What is asked for.
    pub method: String,
    /// With what.
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    /// Reads a frame.
    ///
    /// # Errors
    /// It is no request: the code `malformed`.
    pub fn read(frame: &'a [u8]) -> Result<Request<'a>, Refusal> {
        let malformed = |why: String| {
            let expected = r#"expected an object like {"id": 1, "method": "ignore"}"#;
            Refusal::new("malformed", format!("frame: {why}; {expected}"))
        };
        let text = std::str::from_utf8(frame).map_err(|error| malformed(error.to_string()))?;
        serde_json::from_str(text).map_err(|error| malformed(error.to_string()))
    }

    /// Reads the first request of a connection.
    ///
    /// # Errors
    /// It is another one, or of another version.
    pub fn hello(&self) -> Result<Hello, Refusal> {
        if self.method != "hello" {
            let found = &self.method;
            return Err(Refusal::new(
                "hello",
                format!("found {found:?}, expected \"hello\" first"),
            ));
        }
        let hello: Hello = self.read_params()?;
        if hello.version != VERSION {
            let text = format!("version {}: this worker speaks version {VERSION}", hello.version);
            return Err(Refusal::new("version", text));
        }
        Ok(hello)
    }

    /// Reads what it asks for.
    ///
    /// # Errors
    /// There is no such method (`unknown`), or its parameters make no sense (`invalid`).
    pub fn ask(&self) -> Result<Ask, Refusal> {
        Ok(match self.method.as_str() {
            "request" => {
                let Nothing {} = self.read_params()?;
                Ask::Request
            }
            "update-state" => self.read_params::<State>()?.ask()?,
            "progress" => self.read_params::<Progress>()?.ask()?,
            "retry" => Ask::Say(self.read_params::<Retry>()?.said()?),
            "reject" => {
                let Reject { requeue } = self.read_params()?;
                Ask::Say(Said::Reject { requeue })
            }
            "ignore" => {
                let Nothing {} = self.read_params()?;
                Ask::Say(Said::Ignore)
            }
            "fail" => Ask::Say(self.read_params::<Fail>()?.said()?),
            "replace" => {
                let Replace { signature } = self.read_params()?;
                Ask::Say(Said::Replace(Box::new(Signature::read(&signature)?)))
            }
            "call" => {
                let Call { signature, unregistered, priority } = self.read_params()?;
                if let Some(priority) = priority.filter(|priority| *priority > 9) {
                    let text = format!("priority: expected 0 to 9, found {priority}");
                    return Err(Refusal::invalid(text));
                }
                let signature = Box::new(Signature::read(&signature)?);
                Ask::Call { signature, unregistered, priority }
            }
            other => {
                let text = format!("method {other:?}: expected one of {}", METHODS.join(", "));
                return Err(Refusal::new("unknown", text));
            }
        })
    }

    fn read_params<P: Deserialize<'a>>(&self) -> Result<P, Refusal> {
        let text = self.params.map_or("{}", RawValue::get);
        let text = if text == "null" { "{}" } else { text };
        serde_json::from_str(text)
            .map_err(|error| Refusal::invalid(format!("params of {}: {error}", self.method)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    state: String,
    #[serde(default)]
    meta: Option<Box<RawValue>>,
}

impl State {
    fn ask(self) -> Result<Ask, Refusal> {
        let State { state: name, meta } = self;
        let wrong = |expected: String| {
            Err(Refusal::invalid(format!("state: found {name:?}, expected {expected}")))
        };
        if name.is_empty() || name.chars().count() > STATE_MAX || name.chars().any(char::is_control)
        {
            return wrong(format!("1 to {STATE_MAX} characters without control characters"));
        }
        if RESERVED.contains(&name.as_str()) {
            return wrong("another one: it is what the end of a task brings".into());
        }
        let meta = meta.unwrap_or_else(|| value::raw(&Value::Null));
        if !value::is_read_by_python(&meta) {
            return Err(Refusal::invalid("meta: nested too deep, or of a type that Celery lacks"));
        }
        Ok(Ask::State { name, meta })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    done: Value,
    total: Value,
}

impl Progress {
    fn ask(self) -> Result<Ask, Refusal> {
        for (name, value) in [("done", &self.done), ("total", &self.total)] {
            if !value.is_number() {
                return Err(Refusal::invalid(format!("{name}: found {value}, expected a number")));
            }
        }
        let meta = json!({"current": self.done, "total": self.total});
        Ok(Ask::State { name: PROGRESS.into(), meta: value::raw(&meta) })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    #[serde(default)]
    countdown: Value,
    #[serde(default)]
    max_retries: Value,
}

impl Retry {
    fn said(self) -> Result<Said, Refusal> {
        let wrong = |name: &str, found: &Value, expected: &str| {
            Refusal::invalid(format!("{name}: found {found}, expected {expected}"))
        };
        let countdown = match &self.countdown {
            Value::Null => None,
            found => {
                let seconds = found.as_f64().filter(|it| (0.0..=COUNTDOWN_MAX).contains(it));
                let expected = "seconds from 0 to a hundred years";
                Some(seconds.ok_or_else(|| wrong("countdown", found, expected))?)
            }
        };
        let max_retries = match &self.max_retries {
            Value::Null => None,
            found => {
                let count = found.as_u64().and_then(|count| u32::try_from(count).ok());
                Some(count.ok_or_else(|| wrong("max_retries", found, "a count"))?)
            }
        };
        Ok(Said::Retry { countdown: countdown.map(Duration::from_secs_f64), max_retries })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reject {
    #[serde(default)]
    requeue: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fail {
    r#type: String,
    message: String,
    #[serde(default)]
    module: Option<String>,
}

impl Fail {
    fn said(self) -> Result<Said, Refusal> {
        let Fail { r#type: class, message, module } = self;
        let module = module.unwrap_or_else(|| "builtins".into());
        for (what, name, dots) in [("type", &class, false), ("module", &module, true)] {
            let is_name = |part: &str| {
                let mut letters = part.chars();
                letters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
                    && letters.all(|c| c.is_alphanumeric() || c == '_')
            };
            let parts: Vec<&str> = if dots { name.split('.').collect() } else { vec![name] };
            if name.chars().count() > NAME_MAX || !parts.into_iter().all(is_name) {
                let expected =
                    "expected a name as Python has it, such as ValueError or shop.errors";
                return Err(Refusal::invalid(format!("{what}: found {name:?}, {expected}")));
            }
        }
        Ok(Said::Fail(Exception::new(&module, &class, message)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replace {
    signature: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    signature: Box<RawValue>,
    #[serde(default)]
    unregistered: bool,
    priority: Option<u8>,
}

/// The text of a request.
pub fn request(id: u64, method: &str, params: &str) -> String {
    format!(r#"{{"id": {id}, "method": {}, "params": {params}}}"#, json!(method))
}

/// The text of an answer; `id` is that of its request, if it could be read.
pub fn answer(id: Option<u64>, answer: &Answer) -> String {
    let id = json!(id);
    match answer {
        Ok(result) => format!(r#"{{"id": {id}, "result": {result}}}"#),
        Err(Refusal { code, message }) => {
            format!(r#"{{"id": {id}, "error": {}}}"#, json!({"code": code, "message": message}))
        }
    }
}

/// The frame of a text.
pub fn frame(text: &str) -> Vec<u8> {
    // No text of ours has 4 GiB: a message has not.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// The length of a request's frame.
///
/// # Errors
/// It is longer than [`FRAME_MAX`], or empty: the code `malformed`.
pub fn length(head: [u8; HEAD]) -> Result<usize, Refusal> {
    let length = u32::from_be_bytes(head) as usize;
    if (2..=FRAME_MAX).contains(&length) {
        return Ok(length);
    }
    let text = format!("frame: found a length of {length} bytes, expected 2 to {FRAME_MAX}");
    Err(Refusal::new("malformed", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Result<Ask, Refusal> {
        Request::read(text.as_bytes())?.ask()
    }

    fn refused(text: &str) -> (&'static str, String) {
        let refusal = ask(text).unwrap_err();
        (refusal.code, refusal.message)
    }

    #[test]
    fn requests_are_read() {
        let Ok(Ask::State { name, meta }) =
            ask(r#"{"id": 1, "method": "progress", "params": {"done": 3, "total": 10}}"#)
        else {
            panic!()
        };
        assert_eq!((&*name, meta.get()), (PROGRESS, r#"{"current":3,"total":10}"#));
        let retry = ask(r#"{"id": 1, "method": "retry", "params": {"countdown": 1.5}}"#);
        let Ok(Ask::Say(Said::Retry { countdown, max_retries })) = retry else { panic!() };
        assert_eq!((countdown, max_retries), (Some(Duration::from_millis(1500)), None));
        assert!(matches!(ask(r#"{"id": 1, "method": "ignore"}"#), Ok(Ask::Say(Said::Ignore))));
        let fail = r#"{"id": 1, "method": "fail", "params": {"type": "E", "message": "m"}}"#;
        let Ok(Ask::Say(Said::Fail(exception))) = ask(fail) else { panic!() };
        assert_eq!(exception, Exception::new("builtins", "E", "m"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(refused("[").0, "malformed");
        assert_eq!(refused(r#"{"id": -1, "method": "ignore"}"#).0, "malformed");
        let (code, message) = refused(r#"{"id": 1, "method": "explode"}"#);
        assert!(code == "unknown" && message.contains("update-state"), "{message}");
        for (method, params, part) in [
            ("ignore", r#"{"x": 1}"#, "params of ignore: unknown field `x`"),
            ("update-state", r#"{"state": "SUCCESS"}"#, "found \"SUCCESS\""),
            ("update-state", r#"{"state": ""}"#, "1 to 50 characters"),
            ("progress", r#"{"done": "1", "total": 2}"#, "done: found \"1\""),
            ("retry", r#"{"countdown": -1}"#, "countdown: found -1"),
            ("retry", r#"{"max_retries": -1}"#, "max_retries"),
            ("fail", r#"{"type": "a b", "message": ""}"#, "type: found \"a b\""),
            ("fail", r#"{"type": "E", "message": "", "module": "a..b"}"#, "module: found"),
            ("replace", r#"{"signature": {}}"#, "no task"),
        ] {
            let (code, message) = refused(&request(1, method, params));
            assert!(code == "invalid" && message.contains(part), "{method} {params}: {message}");
        }
    }

    #[test]
    fn frames_have_a_length() {
        let bytes = frame(&answer(Some(7), &Ok("null".into())));
        let (head, text) = bytes.split_at(HEAD);
        assert_eq!(length(head.try_into().unwrap()), Ok(text.len()));
        assert_eq!(text, br#"{"id": 7, "result": null}"#);
        assert_eq!(length([255; HEAD]).unwrap_err().code, "malformed");
        assert_eq!(length([0; HEAD]).unwrap_err().code, "malformed");
    }
}
