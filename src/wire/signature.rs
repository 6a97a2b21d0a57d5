//! Signatures: calls that a message carries for later, and what is to follow a task.
//!
//! Source: celery `canvas.py` (`Signature.__init__`, `from_dict`). A signature is a JSON object with
//! six fields; values stay as they came.

use super::body::{self, Pairs};
use super::lenient::{self, Elements, ObjectFields};
use super::message::Malformed;
use super::value;
use serde_json::json;
use serde_json::value::RawValue;

/// A JSON value as it came.
type Raw = Box<RawValue>;

/// Options of a signature at most: more than Celery and stamps have, and few enough to be looked
/// through for each option of each call.
const OPTIONS_MAX: usize = 256;

/// What a signature calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureKind {
    /// A task, by its name.
    Task,
    /// Tasks one after the other, each with the result of the one before.
    Chain,
    /// Tasks side by side.
    Group,
    /// A group, and a task that gets its results.
    Chord,
}

/// A call that is not made yet.
#[derive(Debug, Clone)]
pub struct Signature {
    /// Name of the task; of a canvas, such as `celery.chain`, for people.
    pub task: String,
    /// Positional arguments, behind those that are added when it is called.
    pub args: Vec<Raw>,
    /// Keyword arguments; a canvas has its parts here.
    pub kwargs: Vec<(String, Raw)>,
    /// How it is called: what Python's `apply_async` takes.
    pub options: Vec<(String, Raw)>,
    /// What it calls.
    pub kind: SignatureKind,
    /// It takes no further arguments.
    pub immutable: bool,
}

impl Signature {
    /// A call of this task.
    pub fn task(name: &str, args: Vec<Raw>, kwargs: Vec<(String, Raw)>) -> Signature {
        let (task, options) = (name.to_string(), Vec::new());
        Signature { task, args, kwargs, options, kind: SignatureKind::Task, immutable: false }
    }

    /// Reads one.
    ///
    /// # Errors
    /// Says which field is wrong.
    pub fn read(raw: &RawValue) -> Result<Signature, Malformed> {
        let fields = ObjectFields::read(raw.get()).map_err(|_| {
            let found = lenient::shown(raw);
            Malformed(format!("signature: expected an object with a task, found {found}"))
        })?;
        let task = lenient::text("signature: task", fields.get("task"))?;
        let task = task
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Malformed(format!("signature: no task in {}", lenient::shown(raw))))?;
        let given = |name: &str| fields.get(name).filter(|raw| lenient::is_true(raw));
        let wrong = |name: &str, raw: &RawValue, expected: &str| {
            let found = lenient::shown(raw);
            Malformed(format!("signature of {task}: {name}: expected {expected}, found {found}"))
        };
        let pairs = |name: &str| match given(name) {
            Some(raw) => serde_json::from_str::<Pairs>(raw.get())
                .map(|Pairs(pairs)| pairs)
                .map_err(|_| wrong(name, raw, "an object")),
            None => Ok(Vec::new()),
        };
        let Elements(args) = match given("args") {
            Some(raw) => {
                serde_json::from_str(raw.get()).map_err(|_| wrong("args", raw, "an array"))?
            }
            None => Elements(Vec::new()),
        };
        let (kwargs, options) = (pairs("kwargs")?, pairs("options")?);
        if options.len() > OPTIONS_MAX {
            let found = options.len();
            return Err(Malformed(format!(
                "signature of {task}: options: found {found}, more than the limit of {OPTIONS_MAX}"
            )));
        }
        let kind = match lenient::text("subtask_type", given("subtask_type"))?.as_deref() {
            Some("chain") => SignatureKind::Chain,
            Some("group") => SignatureKind::Group,
            Some("chord") => SignatureKind::Chord,
            // Maps are tasks that a worker runs.
            _ => SignatureKind::Task,
        };
        let immutable = given("immutable").is_some();
        Ok(Signature { task, args, kwargs, options, kind, immutable })
    }

    /// Writes it.
    pub fn write(&self) -> Raw {
        let kind = match self.kind {
            SignatureKind::Task => "null",
            SignatureKind::Chain => "\"chain\"",
            SignatureKind::Group => "\"group\"",
            SignatureKind::Chord => "\"chord\"",
        };
        let text = format!(
            r#"{{"task": {}, "args": {}, "kwargs": {}, "options": {}, "subtask_type": {kind}, "immutable": {}}}"#,
            json!(self.task),
            body::array(&self.args),
            body::object(&self.kwargs),
            body::object(&self.options),
            self.immutable
        );
        RawValue::from_string(text).unwrap_or_default()
    }

    /// The option of this name, unless it is null.
    pub fn option(&self, name: &str) -> Option<&RawValue> {
        find(&self.options, name)
    }

    /// Gives an option this value.
    pub fn set(&mut self, name: &str, value: Raw) {
        set(&mut self.options, name, value);
    }

    /// The text of an option; none if it is null.
    ///
    /// # Errors
    /// It is no text.
    pub fn text(&self, name: &str) -> Result<Option<String>, Malformed> {
        lenient::text(&format!("signature of {}: {name}", self.task), self.option(name))
    }

    /// The body of a chord.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn body(&self) -> Result<Signature, Malformed> {
        let body = find(&self.kwargs, "body");
        let body = body.ok_or_else(|| {
            Malformed(format!("signature of {}: a chord without body", self.task))
        })?;
        Signature::read(body)
    }

    /// The signatures in a part of a canvas, such as `tasks`: a list of them, or a group of them.
    ///
    /// # Errors
    /// It is neither, or a signature in it cannot be read.
    pub fn parts(&self, name: &str) -> Result<Vec<Signature>, Malformed> {
        let Some(raw) = find(&self.kwargs, name) else { return Ok(Vec::new()) };
        if raw.get().starts_with('{') {
            let one = Signature::read(raw)?;
            return match one.kind {
                SignatureKind::Group => one.parts("tasks"),
                _ => Ok(vec![one]),
            };
        }
        list(raw).iter().map(|raw| Signature::read(raw)).collect()
    }
}

/// The value of this name, unless it is null.
pub fn find<'a>(pairs: &'a [(String, Raw)], name: &str) -> Option<&'a RawValue> {
    let found = pairs.iter().find(|(field, _)| field == name).map(|(_, value)| &**value);
    found.filter(|raw| raw.get() != "null")
}

/// Gives a field this value; a new one comes last.
pub fn set(pairs: &mut Vec<(String, Raw)>, name: &str, value: Raw) {
    match pairs.iter_mut().find(|(field, _)| field == name) {
        Some((_, old)) => *old = value,
        None => pairs.push((name.into(), value)),
    }
}

/// The elements of a list; of anything else, itself: Celery takes one where it takes many.
pub fn list(raw: &RawValue) -> Vec<Raw> {
    match raw.get() {
        "null" => Vec::new(),
        text => serde_json::from_str(text)
            .map_or_else(|_| vec![raw.to_owned()], |Elements(elements)| elements),
    }
}

/// What is to follow a task; see celery `app/amqp.py` (`as_task_v2`). Each is a signature, unread.
#[derive(Debug, Clone, Default)]
pub struct Embed {
    /// Called when it has succeeded, with its result.
    pub callbacks: Vec<Raw>,
    /// Called when it has failed, with its id.
    pub errbacks: Vec<Raw>,
    /// The rest of the chain that it is in, the next one last.
    pub chain: Vec<Raw>,
    /// The body of the chord of whose header it is a member.
    pub chord: Option<Raw>,
}

impl Embed {
    /// Reads the fields of these names; `None` if nothing is to follow.
    pub(super) fn read(fields: &ObjectFields<'_>) -> Option<Box<Embed>> {
        let given = |name: &str| fields.get(name).filter(|raw| lenient::is_true(raw));
        let all = |name: &str| given(name).map(list).unwrap_or_default();
        let embed = Embed {
            callbacks: all("callbacks"),
            errbacks: all("errbacks"),
            chain: all("chain"),
            chord: given("chord").map(ToOwned::to_owned),
        };
        (!embed.names().is_empty()).then(|| Box::new(embed))
    }

    /// The names of what is asked for.
    pub fn names(&self) -> Vec<&'static str> {
        let asked = [
            ("callbacks", !self.callbacks.is_empty()),
            ("errbacks", !self.errbacks.is_empty()),
            ("chain", !self.chain.is_empty()),
            ("chord", self.chord.is_some()),
        ];
        asked.into_iter().filter(|(_, is_asked)| *is_asked).map(|(name, _)| name).collect()
    }

    /// Its fields by name, as JSON.
    pub fn details(&self) -> Vec<(String, Raw)> {
        let all = |list: &[Raw]| RawValue::from_string(body::array(list)).unwrap_or_default();
        let chord = self.chord.clone().unwrap_or_else(|| RawValue::NULL.to_owned());
        vec![
            ("callbacks".into(), all(&self.callbacks)),
            ("errbacks".into(), all(&self.errbacks)),
            ("chain".into(), all(&self.chain)),
            ("chord".into(), chord),
        ]
    }

    /// The third element of a body.
    pub(super) fn write(&self) -> String {
        let all = |list: &[Raw]| match list.is_empty() {
            true => "null".to_string(),
            false => body::array(list),
        };
        format!(
            r#"{{"callbacks": {}, "errbacks": {}, "chain": {}, "chord": {}}}"#,
            all(&self.callbacks),
            all(&self.errbacks),
            all(&self.chain),
            self.chord.as_ref().map_or("null", |raw| raw.get())
        )
    }
}

/// A text as a JSON value.
pub fn raw_text(text: &str) -> Raw {
    value::raw(&json!(text))
}
