//! Celery's built-in tasks: what their arguments ask for. A worker does them itself.
//!
//! Source: celery 5.7 `app/builtins.py`, `canvas.py` (`_basemap`, `chunks`) and `backends/base.py`
//! (`fallback_chord_unlock`).

use super::apply::Caller;
use super::{Calls, Context, ResultTree, fits, group_of, list};
use crate::bounds::ELEMENTS_MAX;
use crate::wire::body::{self, Pairs};
use crate::wire::signature::{SignatureKind, find, raw_text};
use crate::wire::{Exception, Malformed, Signature, value};
use serde_json::value::RawValue;
use serde_json::{Value, json};

type Raw = Box<RawValue>;

/// Seconds after which a chord is looked at first, and again: Celery's `countdown`, and
/// `result_chord_retry_interval`.
const POLL_EVERY: f64 = 1.0;

/// A built-in task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltIn {
    /// Gives its arguments back, or one of them.
    Accumulate,
    /// Removes results that have expired.
    BackendCleanup,
    /// No task; see [`BuiltIn::run`].
    Chain,
    /// Calls a chord.
    Chord,
    /// Waits for the members of a chord, and calls its body.
    ChordUnlock,
    /// Calls a group of star maps.
    Chunks,
    /// Calls the members of a group.
    Group,
    /// Runs a task for each item.
    Map,
    /// The same, each item being all arguments.
    Starmap,
}

impl BuiltIn {
    /// All of them with their names.
    pub const ALL: [(&'static str, BuiltIn); 9] = [
        ("celery.accumulate", BuiltIn::Accumulate),
        ("celery.backend_cleanup", BuiltIn::BackendCleanup),
        ("celery.chain", BuiltIn::Chain),
        ("celery.chord", BuiltIn::Chord),
        ("celery.chord_unlock", BuiltIn::ChordUnlock),
        ("celery.chunks", BuiltIn::Chunks),
        ("celery.group", BuiltIn::Group),
        ("celery.map", BuiltIn::Map),
        ("celery.starmap", BuiltIn::Starmap),
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<BuiltIn> {
        // Nearly every message has another name.
        name.starts_with("celery.").then_some(())?;
        BuiltIn::ALL.iter().find(|(own, _)| *own == name).map(|(_, one)| *one)
    }

    /// Does it run another task for each item?
    pub fn is_map(self) -> bool {
        matches!(self, BuiltIn::Map | BuiltIn::Starmap)
    }

    /// The names of its parameters, and the values of those that may be left out; `None` if it takes
    /// others too.
    pub fn params(self) -> Option<&'static [(&'static str, Option<&'static str>)]> {
        match self {
            BuiltIn::Map | BuiltIn::Starmap => Some(&[("task", None), ("it", None)]),
            BuiltIn::Chunks => Some(&[("task", None), ("it", None), ("n", None)]),
            BuiltIn::BackendCleanup => Some(&[]),
            BuiltIn::Group => Some(&[
                ("tasks", None),
                ("result", None),
                ("group_id", None),
                ("partial_args", None),
                ("add_to_parent", Some("true")),
            ]),
            BuiltIn::Accumulate | BuiltIn::Chain | BuiltIn::Chord | BuiltIn::ChordUnlock => None,
        }
    }

    /// Does what it does at once: its value, and what it calls. A map and a chord's unlocking take
    /// longer, and have functions of their own.
    ///
    /// # Errors
    /// The exception that Celery's would raise.
    pub fn run(
        self,
        args: &[Raw],
        kwargs: &[(String, Raw)],
        context: Context<'_>,
    ) -> Result<(Raw, Calls), Exception> {
        let called = match self {
            BuiltIn::Accumulate => return Ok((accumulate(args, kwargs)?, Calls::default())),
            BuiltIn::Chain => {
                let why = "chain is not a real task";
                return Err(Exception::new("builtins", "NotImplementedError", why));
            }
            BuiltIn::Chord => chord(args, kwargs, context),
            BuiltIn::Chunks => chunks(kwargs, context)?,
            BuiltIn::Group => group(kwargs, context),
            BuiltIn::BackendCleanup | BuiltIn::ChordUnlock | BuiltIn::Map | BuiltIn::Starmap => {
                return Ok((RawValue::NULL.to_owned(), Calls::default()));
            }
        };
        called.map_err(|why| Exception::new("builtins", "ValueError", why.to_string()))
    }
}

/// `args[index]` if there is an index, else all of them.
fn accumulate(args: &[Raw], kwargs: &[(String, Raw)]) -> Result<Raw, Exception> {
    let Some(index) = find(kwargs, "index") else { return Ok(list(args)) };
    let Ok(index) = index.get().parse::<i64>() else {
        let why = "tuple indices must be integers or slices";
        return Err(Exception::new("builtins", "TypeError", why));
    };
    let from_end = if index < 0 { args.len() as i64 } else { 0 };
    let found = index.checked_add(from_end).and_then(|at| usize::try_from(at).ok());
    let found = found.and_then(|at| args.get(at)).cloned();
    found.ok_or_else(|| Exception::new("builtins", "IndexError", "tuple index out of range"))
}

fn group(kwargs: &[(String, Raw)], context: Context<'_>) -> Result<(Raw, Calls), Malformed> {
    let given = |name: &str| find(kwargs, name);
    let args = given("partial_args").map(elements).transpose()?.unwrap_or_default();
    let mut caller = Caller::new(context);
    let mut over = context.options();
    if let Some(group_id) = given("group_id") {
        over = over.with("group_id", group_id.to_owned());
    }
    for raw in given("tasks").map(elements).transpose()?.unwrap_or_default() {
        caller.call(Signature::read(&raw)?, &args, &over, false)?;
    }
    let result = given("result").unwrap_or(RawValue::NULL).to_owned();
    if given("add_to_parent").is_none_or(|raw| raw.get() != "false") {
        let node = serde_json::from_str(result.get()).ok();
        caller.calls.children.extend(node.as_ref().and_then(ResultTree::read));
    }
    Ok((result, caller.calls))
}

/// `(header, body, partial_args=(), interval=None, countdown=1, max_retries=None, …)`
fn chord(
    args: &[Raw],
    kwargs: &[(String, Raw)],
    context: Context<'_>,
) -> Result<(Raw, Calls), Malformed> {
    let names = ["header", "body", "partial_args", "interval", "countdown", "max_retries"];
    let given = |name: &str| {
        let at = names.iter().position(|one| *one == name)?;
        let by_place = args.get(at).map(|raw| &**raw).filter(|raw| raw.get() != "null");
        by_place.or_else(|| find(kwargs, name))
    };
    let mut parts = vec![("kwargs".to_string(), RawValue::from_string("{}".into()))];
    for name in ["header", "body"] {
        let part = given(name).ok_or_else(|| Malformed(format!("celery.chord: no {name}")))?;
        parts.push((name.into(), Ok(part.to_owned())));
    }
    let parts = parts.into_iter().map(|(name, raw)| (name, raw.unwrap_or_default())).collect();
    let mut one = Signature::task("celery.chord", Vec::new(), parts);
    one.kind = SignatureKind::Chord;
    for name in ["interval", "max_retries"] {
        if let Some(value) = given(name) {
            one.set(name, value.to_owned());
        }
    }
    let args = given("partial_args").map(elements).transpose()?.unwrap_or_default();
    call(one, &args, context)
}

fn chunks(
    kwargs: &[(String, Raw)],
    context: Context<'_>,
) -> Result<Result<(Raw, Calls), Malformed>, Exception> {
    Ok(call(chunked(kwargs)?, &[], context))
}

/// The group of star maps that chunks with these arguments are.
///
/// # Errors
/// The exception that Celery's would raise.
pub fn chunked(kwargs: &[(String, Raw)]) -> Result<Signature, Exception> {
    let given = |name: &str| find(kwargs, name).unwrap_or(RawValue::NULL);
    let size = given("n").get().parse::<usize>().ok().filter(|n| *n > 0);
    let size = size.ok_or_else(|| {
        let why = format!("chunks: n: expected a number of items, found {}", given("n").get());
        Exception::new("builtins", "ValueError", why)
    })?;
    let items = items(given("it"))?;
    fits(items.len().div_ceil(size), given("task").get().len())
        .map_err(|Malformed(why)| Exception::new("builtins", "ValueError", why))?;
    let parts: Vec<Signature> = items
        .chunks(size)
        .map(|part| {
            let task = ("task".to_string(), given("task").to_owned());
            let kwargs = vec![task, ("it".to_string(), list(part))];
            Signature { immutable: true, ..Signature::task("celery.starmap", Vec::new(), kwargs) }
        })
        .collect();
    Ok(group_of(&parts))
}

fn call(one: Signature, args: &[Raw], context: Context<'_>) -> Result<(Raw, Calls), Malformed> {
    let mut caller = Caller::new(context);
    let node = caller.call(one, args, &context.options(), true)?;
    let result = node.map_or_else(|| "null".to_string(), |node| node.write());
    Ok((RawValue::from_string(result).unwrap_or_default(), caller.calls))
}

/// The name of the task that a map calls for each item; `None` if it names none.
pub fn inner(args: &[Raw], kwargs: &[(String, Raw)]) -> Option<String> {
    let task = find(kwargs, "task").or_else(|| args.first().map(|raw| &**raw))?;
    match task.get().starts_with('{') {
        true => Signature::read(task).ok().map(|one| one.task),
        false => serde_json::from_str(task.get()).ok(),
    }
}

/// The task whose route a built-in task goes by: that of the items, or the body.
pub(super) fn route_name(task: &str, args: &[Raw], kwargs: &[(String, Raw)]) -> Option<String> {
    match BuiltIn::named(task)? {
        one if one.is_map() => inner(args, kwargs),
        BuiltIn::ChordUnlock => args.get(1).and_then(|body| Some(Signature::read(body).ok()?.task)),
        _ => None,
    }
}

/// The name under which workers that do not know the task of a map leave the map to others.
pub fn left_name(map: &str, inner: &str) -> String {
    format!("{map}({inner})")
}

/// The name of the map, and of its task, in such a name.
pub fn of_left_name(name: &str) -> Option<(&str, &str)> {
    let (map, rest) = name.split_once('(')?;
    let inner = rest.strip_suffix(')')?;
    BuiltIn::named(map).filter(|one| one.is_map()).map(|_| (map, inner))
}

/// What Python iterates over: elements, characters, or names.
///
/// # Errors
/// Nothing can be iterated over: Python's `TypeError`. There are too many: a `ValueError`.
pub fn items(raw: &RawValue) -> Result<Vec<Raw>, Exception> {
    let too_many = |why: Malformed| Exception::new("builtins", "ValueError", why.0);
    match raw.get().as_bytes().first() {
        Some(b'[') => elements(raw).map_err(too_many),
        Some(b'"') => {
            let text: String = serde_json::from_str(raw.get()).unwrap_or_default();
            if text.chars().nth(ELEMENTS_MAX).is_some() {
                let why = format!("more than the limit of {ELEMENTS_MAX} characters");
                return Err(too_many(Malformed(why)));
            }
            Ok(text.chars().map(|c| raw_text(c.encode_utf8(&mut [0; 4]))).collect())
        }
        Some(b'{') => {
            let Pairs(fields) = Pairs::read("it", raw.get()).map_err(too_many)?;
            Ok(fields.iter().map(|(name, _)| raw_text(name)).collect())
        }
        first => {
            let class = match first {
                Some(b'n') => "NoneType",
                Some(b't' | b'f') => "bool",
                _ if raw.get().contains(['.', 'e', 'E']) => "float",
                _ => "int",
            };
            let why = format!("'{class}' object is not iterable");
            Err(Exception::new("builtins", "TypeError", why))
        }
    }
}

/// The elements of an array; none of anything else.
fn elements(raw: &RawValue) -> Result<Vec<Raw>, Malformed> {
    if !raw.get().starts_with('[') {
        return Ok(Vec::new());
    }
    body::elements(raw)
}

/// The call of `celery.chord_unlock` for a chord whose header has these results.
pub(super) fn unlock(
    group_id: &str,
    body: &Signature,
    header: &[ResultTree],
    polling: Vec<(String, Raw)>,
) -> Signature {
    let nodes: Vec<String> = header.iter().map(ResultTree::write).collect();
    let nodes = RawValue::from_string(format!("[{}]", nodes.join(", "))).unwrap_or_default();
    let mut kwargs = polling;
    kwargs.push(("result".into(), nodes));
    let args = vec![raw_text(group_id), body.write()];
    let mut one = Signature::task("celery.chord_unlock", args, kwargs);
    for name in ["queue", "exchange", "routing_key", "priority"] {
        if let Some(value) = body.option(name) {
            one.set(name, value.to_owned());
        }
    }
    one.set("countdown", value::raw(&json!(POLL_EVERY)));
    one.set("ignore_result", value::raw(&json!(true)));
    one
}

/// What `celery.chord_unlock` is asked for.
#[derive(Debug, Clone)]
pub struct Unlock {
    /// The group of the header.
    pub group_id: String,
    /// The body's signature, unread.
    pub body: Raw,
    /// The results of the header, in their order.
    pub header: Vec<ResultTree>,
    /// Seconds until it looks again.
    pub interval: f64,
    /// How often it looks again at most.
    pub max_retries: Option<u64>,
}

impl Unlock {
    /// `(group_id, callback, interval=None, max_retries=None, result=None, …)`
    ///
    /// # Errors
    /// Says which of them is wrong.
    pub fn read(args: &[Raw], kwargs: &[(String, Raw)]) -> Result<Unlock, Malformed> {
        let names = ["group_id", "callback", "interval", "max_retries", "result"];
        let given = |name: &str| {
            let at = names.iter().position(|one| *one == name)?;
            let by_place = args.get(at).map(|raw| &**raw).filter(|raw| raw.get() != "null");
            by_place.or_else(|| find(kwargs, name))
        };
        let wrong = |name: &str, expected: &str| {
            let found =
                given(name).map_or("nothing".into(), |raw| raw.get().chars().take(100).collect());
            let found: String = found;
            Malformed(format!("chord_unlock: {name}: expected {expected}, found {found}"))
        };
        let group_id = given("group_id").map(|raw| value::text(raw).into_owned());
        let group_id = group_id.and_then(|bytes| String::from_utf8(bytes).ok());
        let header = given("result").and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
        let header = header.as_ref().and_then(Value::as_array);
        let header =
            header.and_then(|all| all.iter().map(ResultTree::read).collect::<Option<Vec<_>>>());
        let number = |name: &str| {
            let read = |raw: &RawValue| raw.get().parse::<f64>().ok().filter(|n| *n >= 0.0);
            given(name).map(|raw| read(raw).ok_or_else(|| wrong(name, "a number"))).transpose()
        };
        Ok(Unlock {
            group_id: group_id.ok_or_else(|| wrong("group_id", "an id"))?,
            body: given("callback").ok_or_else(|| wrong("callback", "a signature"))?.to_owned(),
            header: header.ok_or_else(|| wrong("result", "a list of results"))?,
            interval: number("interval")?.unwrap_or(POLL_EVERY),
            max_retries: number("max_retries")?.map(|count| count as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::Chords;
    use crate::clock;

    fn context() -> Context<'static> {
        let now = clock::parse("2030-01-01T00:00:00").unwrap();
        let chords = Chords::Polled;
        Context { root_id: "root", parent_id: "parent", priority: None, now, chords }
    }

    fn raws(values: &[Value]) -> Vec<Raw> {
        values.iter().map(value::raw).collect()
    }

    fn pairs(value: Value) -> Vec<(String, Raw)> {
        let fields = value.as_object().unwrap();
        fields.iter().map(|(name, value)| (name.clone(), value::raw(value))).collect()
    }

    fn run(one: BuiltIn, args: &[Value], kwargs: Value) -> Result<(String, Vec<String>), String> {
        let done = one.run(&raws(args), &pairs(kwargs), context());
        let names = |calls: Calls| calls.drafts.into_iter().map(|it| it.task).collect();
        done.map(|(value, calls)| (value.get().into(), names(calls))).map_err(|e| e.repr(1))
    }

    #[test]
    fn arguments_are_given_back() {
        let all = [json!(1), json!("b")];
        let get = |index| run(BuiltIn::Accumulate, &all, json!({"index": index})).map(|it| it.0);
        assert_eq!(get(Value::Null).unwrap(), r#"[1, "b"]"#);
        assert_eq!((get(json!(0)).unwrap(), get(json!(-1)).unwrap()), ("1".into(), "\"b\"".into()));
        for wrong in [2, -3, i64::MIN, i64::MAX] {
            assert_eq!(get(json!(wrong)).unwrap_err(), "IndexError('tuple index out of range')");
        }
        assert!(get(json!("x")).unwrap_err().starts_with("TypeError("));
        let error = run(BuiltIn::Chain, &[], json!({})).unwrap_err();
        assert_eq!(error, "NotImplementedError('chain is not a real task')");
    }

    #[test]
    fn chunks_are_a_group_of_star_maps() {
        let kwargs = json!({"task": {"task": "add"}, "it": [[1, 1], [2, 2], [3, 3]], "n": 2});
        let (result, names) = run(BuiltIn::Chunks, &[], kwargs).unwrap();
        assert_eq!(names, ["celery.starmap", "celery.starmap"]);
        let node = ResultTree::read(&serde_json::from_str(&result).unwrap());
        assert!(matches!(node, Some(ResultTree::Group { members, .. }) if members.len() == 2));
        for n in [json!(0), json!(-1), json!("x"), Value::Null] {
            let kwargs = json!({"task": "add", "it": [], "n": n});
            assert!(run(BuiltIn::Chunks, &[], kwargs).unwrap_err().starts_with("ValueError("));
        }
    }

    #[test]
    fn a_chord_called_by_message_is_a_header_and_what_waits_for_it() {
        let args = [json!([{"task": "a"}, {"task": "b"}]), json!({"task": "body"})];
        let (_, names) = run(BuiltIn::Chord, &args, json!({"countdown": 1})).unwrap();
        assert_eq!(names, ["a", "b", "celery.chord_unlock"]);
        assert!(run(BuiltIn::Chord, &args[..1], json!({})).unwrap_err().contains("no body"));
    }

    #[test]
    fn a_group_called_by_message_gives_its_result() {
        let result = json!([["G", null], [[["A", null], null]]]);
        let kwargs = json!({"tasks": [{"task": "a", "args": [2], "options": {"task_id": "A"}}],
                            "result": result, "group_id": "G", "partial_args": [1]});
        let (value, calls) = BuiltIn::Group.run(&[], &pairs(kwargs), context()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(value.get()).unwrap(), result);
        let draft = &calls.drafts[0];
        let args: Vec<&str> = draft.args.iter().map(|raw| raw.get()).collect();
        assert_eq!((&draft.id[..], draft.group.as_deref(), args), ("A", Some("G"), vec!["1", "2"]));
        assert_eq!(calls.children.len(), 1);
    }

    #[test]
    fn items_are_what_python_iterates_over() {
        let texts = |value: Value| {
            let found = items(&value::raw(&value));
            found.map(|all| all.iter().map(|raw| raw.get().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(texts(json!([1, [2]])).unwrap(), ["1", "[2]"]);
        assert_eq!(texts(json!("ab")).unwrap(), ["\"a\"", "\"b\""]);
        assert_eq!(texts(json!({"k": 1})).unwrap(), ["\"k\""]);
        for (value, class) in [
            (json!(1), "int"),
            (json!(1.5), "float"),
            (json!(true), "bool"),
            (Value::Null, "NoneType"),
        ] {
            let error = texts(value).unwrap_err().repr(1);
            assert_eq!(error, format!("TypeError(\"'{class}' object is not iterable\")"));
        }
    }

    #[test]
    fn maps_are_left_under_the_name_of_their_task() {
        let of = |kwargs: Value| inner(&[], &pairs(kwargs));
        assert_eq!(of(json!({"task": {"task": "py.add"}})).as_deref(), Some("py.add"));
        assert_eq!(of(json!({"task": "py.add"})).as_deref(), Some("py.add"));
        assert_eq!(inner(&raws(&[json!("a"), json!([])]), &[]).as_deref(), Some("a"));
        assert_eq!(of(json!({"it": []})), None);
        let left = left_name("celery.map", "a(b)");
        assert_eq!(of_left_name(&left), Some(("celery.map", "a(b)")));
        for other in ["celery.map", "celery.chunks(a)", "mine(a)"] {
            assert_eq!(of_left_name(other), None, "{other}");
        }
    }

    #[test]
    fn what_unlocks_a_chord_is_read_by_place_and_by_name() {
        let args = raws(&[json!("G"), json!({"task": "b"})]);
        let result = json!([[["A", null], null], [["I", null], [[["B", null], null]]]]);
        let kwargs = json!({"interval": 2, "result": result, "_chord_unlock_exchange_type": "x"});
        let read = Unlock::read(&args, &pairs(kwargs)).unwrap();
        assert_eq!((&read.group_id[..], read.interval, read.max_retries), ("G", 2.0, None));
        assert!(matches!(&read.header[1], ResultTree::Group { members, .. } if members.len() == 1));
        for (kwargs, why) in [
            (json!({}), "result: expected a list of results, found nothing"),
            (json!({"result": [1]}), "result: expected a list of results, found [1]"),
            (json!({"result": [], "interval": "x"}), "interval: expected a number, found \"x\""),
        ] {
            assert_eq!(
                Unlock::read(&args, &pairs(kwargs)).unwrap_err().0,
                format!("chord_unlock: {why}")
            );
        }
    }
}
