//! The decoders of what others send, each with what has to hold of every input. They are reached as
//! a worker reaches them: by an envelope that has the input in its place. `scripts/fuzz` runs them on
//! inputs that it finds by coverage, `tests/fuzz/mod.rs` on a few thousand fixed ones.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use qworker::bounds::BODY_MAX;
use qworker::canvas::builtin::{BuiltIn, Unlock, inner, items};
use qworker::canvas::{self, Calls, Chords, Context, Failure, Replaced, Returned};
use qworker::clock;
use qworker::wire::result::Meta;
use qworker::wire::task_protocol::{self, Ask, HEAD, Request, Said};
use qworker::wire::{
    AcceptedContent, Arguments, BodyFormat, Embed, Exception, Message, Payload, ResultFormat,
    Signature, body, saferepr, value,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A decoder.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Reads an input; panics if something does not hold.
    pub run: fn(&[u8]),
}

/// All of them.
pub const ALL: &[Target] = &[
    Target { name: "envelope", run: envelope },
    Target { name: "body1", run: |input| body_of(input, 1) },
    Target { name: "body2", run: |input| body_of(input, 2) },
    Target { name: "pickle", run: pickle },
    Target { name: "msgpack", run: msgpack },
    Target { name: "yaml", run: |input| unread("application/x-yaml", None, input) },
    Target { name: "zlib", run: |input| unread("application/json", Some("zlib"), input) },
    Target { name: "bzip2", run: |input| unread("application/json", Some("bzip2"), input) },
    Target { name: "xz", run: |input| unread("application/json", Some("xz"), input) },
    Target { name: "brotli", run: |input| unread("application/json", Some("brotli"), input) },
    Target { name: "zstd", run: |input| unread("application/json", Some("zstd"), input) },
    Target { name: "signature", run: signature },
    Target { name: "embed", run: embed },
    Target { name: "builtin", run: builtin },
    Target { name: "result", run: result },
    Target { name: "frame", run: frame },
];

/// An envelope with a body in base64.
fn payload(content_type: &str, compression: Option<&str>, body: &[u8], headers: Value) -> Payload {
    let mut headers = headers;
    if let Some(name) = compression {
        headers["compression"] = json!(name);
    }
    let envelope = json!({
        "body": STANDARD.encode(body),
        "content-type": content_type,
        "content-encoding": "binary",
        "headers": headers,
        "properties": {"body_encoding": "base64", "delivery_tag": "t"},
    });
    Payload::from_envelope(envelope.to_string())
}

fn envelope(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let payload = Payload::from_envelope(text);
    let (task, id) = (payload.task(), payload.id());
    if let Some(outline) = payload.outline() {
        assert_eq!((Some(outline.task), Some(outline.id)), (task, id));
    }
    assert_eq!(payload.details().len(), 5);
    if let Ok(message) = payload.decode() {
        assert_eq!(payload.id(), Some(message.id.clone()));
        let _ = read(&payload, &message);
    }
}

/// A JSON text as the body of this protocol.
fn body_of(input: &[u8], protocol: u8) {
    let headers = if protocol == 1 { json!({}) } else { json!({"task": "t", "id": "i"}) };
    let payload = payload("application/json", None, input, headers);
    if let Ok(message) = payload.decode() {
        let _ = read(&payload, &message);
    }
}

/// A body in another form; under protocol 2, and 1.
fn unread(content_type: &str, compression: Option<&str>, body: &[u8]) {
    for headers in [json!({"task": "t", "id": "i"}), json!({})] {
        let is_named = headers.as_object().is_some_and(|fields| !fields.is_empty());
        let payload = payload(content_type, compression, body, headers);
        match payload.decode() {
            Ok(message) => {
                let read = read(&payload, &message);
                if let (Err(why), None) = (read, compression) {
                    is_json(&why);
                }
            }
            Err(_) => assert!(!is_named),
        }
    }
}

/// What becomes JSON here has its form, whatever it says: a fault of it would be the parser's first
/// word behind one of ours.
fn is_json(why: &str) {
    let ours = ["body: expected [args, kwargs, embed]: ", "args: expected an array: "];
    let of_pairs = ["kwargs: expected an object: ", "embed: expected an object: ", "body: "];
    let said = ours.iter().chain(&of_pairs).find_map(|ours| why.strip_prefix(ours)).unwrap_or("");
    for fault in ["expected `", "expected value", "EOF while", "trailing", "control character"] {
        assert!(!said.starts_with(fault), "a text that was made is no JSON: {why}");
    }
}

fn pickle(input: &[u8]) {
    unread("application/x-python-serialize", None, input);
    // The same value as an argument.
    let value = input.strip_suffix(b".").unwrap_or(input);
    unread("application/x-python-serialize", None, &[b"\x80\x05]", value, b"a}}\x87."].concat());
}

fn msgpack(input: &[u8]) {
    unread("application/x-msgpack", None, input);
    unread("application/x-msgpack", None, &[b"\x93\x91", input, b"\x80\x80"].concat());
}

/// Reads a body, and what is made of it: the same again.
fn read(payload: &Payload, message: &Message) -> Result<(), String> {
    let _ = message.accepted(&AcceptedContent::default());
    let arguments = message.arguments().map_err(|why| why.0)?;
    let size: usize = arguments.args.iter().map(|raw| raw.get().len()).sum();
    let named = arguments.kwargs.iter().map(|(name, raw)| name.len() + raw.get().len());
    assert!(size + named.sum::<usize>() <= BODY_MAX.max(2 * payload.size()), "{size}");
    for raw in arguments.args.iter().chain(arguments.kwargs.iter().map(|(_, raw)| raw)) {
        let _ = (value::text(raw), value::typed(raw), value::is_read_by_python(raw));
    }
    let _ = (saferepr::args(&arguments.args), saferepr::kwargs(&arguments.kwargs));
    let embed = arguments.embed.as_deref().cloned().unwrap_or_default();
    let again = body::encode(&arguments.args, &arguments.kwargs, &embed);
    let again = body::decode(&again).unwrap_or_else(|why| panic!("{why} in {again}"));
    same(&arguments, &again);
    let retry = payload.retry(message, now()).unwrap_or_else(|why| panic!("no retry: {why}"));
    let retried = retry.decode().unwrap_or_else(|why| panic!("{why} in {retry:?}"));
    assert_eq!((&retried.id, &retried.task), (&message.id, &message.task));
    assert!(retried.retries == message.retries + 1 || message.retries > 999_999_998);
    let again = retried.arguments().unwrap_or_else(|why| panic!("{why} in {retry:?}"));
    same(&arguments, &again);
    Ok(())
}

fn same(one: &Arguments, other: &Arguments) {
    assert_eq!(body::array(&one.args), body::array(&other.args));
    assert_eq!(body::object(&one.kwargs), body::object(&other.kwargs));
    let details = |it: &Arguments| {
        let fields = it.embed.as_deref().map(Embed::details).unwrap_or_default();
        body::object(&fields)
    };
    assert_eq!(details(one), details(other));
}

fn now() -> chrono::DateTime<chrono::Utc> {
    clock::parse("2030-01-01T00:00:00").expect("an instant")
}

fn context(chords: Chords) -> Context<'static> {
    Context { root_id: "root", parent_id: "parent", priority: None, now: now(), chords }
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.into()).expect("a value")
}

/// A signature by itself: read, written, called, in the place of a task.
fn signature(input: &[u8]) {
    let Ok(given) = serde_json::from_slice::<Box<RawValue>>(input) else { return };
    let Ok(one) = Signature::read(&given) else { return };
    let written = one.write();
    let again = Signature::read(&written).unwrap_or_else(|why| panic!("{why} in {written}"));
    assert_eq!(again.write().get(), written.get());
    assert_eq!((&again.task, again.kind), (&one.task, one.kind));
    for chords in [Chords::Counted, Chords::Polled] {
        if let Ok((calls, _)) =
            canvas::call(one.clone(), Context { priority: Some(3), ..context(chords) })
        {
            sent(&calls);
        }
        let embed = Embed { chain: vec![given.clone()], ..Embed::default() };
        for embed in [None, Some(&embed)] {
            let (group, group_index) = (Some("g"), Some(1));
            let replaced = Replaced { id: "i", group, group_index, nesting: 1, embed };
            if let Ok(calls) = canvas::replace(one.clone(), replaced, context(chords)) {
                sent(&calls);
            }
        }
    }
    let one = || vec![given.clone()];
    follow(&Embed { callbacks: one(), ..Embed::default() });
    follow(&Embed { errbacks: one(), ..Embed::default() });
    follow(&Embed { chain: one(), ..Embed::default() });
    complete(&given);
}

/// What is to follow a task: the third part of a body.
fn embed(input: &[u8]) {
    let Ok(given) = serde_json::from_slice::<Box<RawValue>>(input) else { return };
    let Ok(arguments) = body::decode(&format!("[[], {{}}, {}]", given.get())) else { return };
    let Some(embed) = arguments.embed else { return };
    follow(&embed);
    if let Some(body) = &embed.chord {
        complete(body);
    }
}

/// What was found callable when the message came is called when the task ends.
fn follow(embed: &Embed) {
    let null = || RawValue::NULL.to_owned();
    for chords in [Chords::Counted, Chords::Polled, Chords::Unsupported] {
        let context = context(chords);
        let is_callable = canvas::check(embed, context).is_ok();
        let calls = canvas::after_success(embed, &raw("[1]"), context);
        assert!(calls.is_ok() || !is_callable, "{calls:?} after a check");
        for takes_all in [false, true] {
            let takes_all = &|_: &Signature| takes_all;
            let failure =
                Failure { request: null(), exception: null(), traceback: null(), takes_all };
            let calls = canvas::after_failure(&embed.errbacks, &failure, context);
            assert!(calls.is_ok() || !is_callable, "{calls:?} after a check");
            if let Ok(calls) = calls {
                sent(&calls);
            }
        }
        if let Ok(calls) = calls {
            sent(&calls);
        }
    }
    let _ = canvas::skipped(&embed.chain);
}

/// The body of a chord.
fn complete(body: &RawValue) {
    let failed = Returned::Failed("m".into(), Exception::new("builtins", "ValueError", "why"));
    let context = context(Chords::Counted);
    for returned in [vec![Returned::Value(raw("1"))], vec![failed]] {
        if let Ok(canvas::Ended::Called(calls) | canvas::Ended::Failed { calls, .. }) =
            canvas::complete(body, &returned, &|_| false, context)
        {
            sent(&calls);
        }
    }
}

/// The messages are what was asked for, and their size has a limit.
fn sent(calls: &Calls) {
    let mut size = 0;
    for draft in &calls.drafts {
        let payload = draft.encode(0, now(), &BodyFormat::default()).unwrap();
        size += payload.size();
        let message = payload.decode().unwrap_or_else(|why| panic!("{why} in {payload:?}"));
        assert_eq!((&message.id, &message.task), (&draft.id, &draft.task));
        let read = message.arguments().unwrap_or_else(|why| panic!("{why} in {payload:?}"));
        assert_eq!(body::array(&read.args), body::array(&draft.args));
        assert_eq!(body::object(&read.kwargs), body::object(&draft.kwargs));
    }
    // In base64, with headers.
    assert!(size <= 3 * BODY_MAX, "{size} bytes follow");
    let children: Value = serde_json::from_str(&canvas::listed(&calls.children)).expect("a list");
    assert!(children.is_array());
}

/// The arguments of Celery's own tasks.
fn builtin(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(Arguments { args, kwargs, .. }) = body::decode(text) else { return };
    for (_, one) in BuiltIn::ALL {
        for chords in [Chords::Counted, Chords::Polled] {
            if let Ok((_, calls)) = one.run(&args, &kwargs, context(chords)) {
                sent(&calls);
            }
        }
    }
    let _ = Unlock::read(&args, &kwargs);
    let _ = inner(&args, &kwargs);
    args.iter().for_each(|raw| drop(items(raw)));
}

/// A stored result, as a client reads it.
fn result(input: &[u8]) {
    let read =
        |bytes: &[u8]| Meta::read(bytes, "i", &ResultFormat::default(), DateTime::UNIX_EPOCH);
    let meta = read(input);
    let _ = (meta.is_ready(), meta.value(), Exception::read(&meta.result).repr(3));
    let document = meta.document();
    assert!(!document.contains('\n'), "{document}");
    let again = read(document.as_bytes());
    assert_eq!(again.status, meta.status);
    assert_eq!(again.document(), document);
}

/// What a task says to its worker.
fn frame(input: &[u8]) {
    if let Some((head, rest)) = input.split_first_chunk::<HEAD>() {
        match task_protocol::length(*head) {
            Ok(length) => request(rest.get(..length).unwrap_or(rest)),
            Err(refusal) => answered(None, Err(refusal)),
        }
    }
    request(input);
}

fn request(frame: &[u8]) {
    let request = match Request::read(frame) {
        Ok(request) => request,
        Err(refusal) => return answered(None, Err(refusal)),
    };
    if let Err(refusal) = request.hello() {
        answered(Some(request.id), Err(refusal));
    }
    let again = request.params.map_or("null", RawValue::get);
    let again = task_protocol::request(request.id, &request.method, again);
    let again = Request::read(again.as_bytes()).unwrap_or_else(|why| panic!("{why:?} in {again}"));
    assert_eq!((again.id, &again.method), (request.id, &request.method));
    match request.ask() {
        Ok(Ask::State { name, meta }) => {
            assert!(!name.is_empty() && value::is_read_by_python(&meta))
        }
        Ok(Ask::Call { signature, .. } | Ask::Say(Said::Replace(signature))) => {
            if let Ok((calls, _)) = canvas::call(*signature, context(Chords::Counted)) {
                sent(&calls);
            }
        }
        Ok(Ask::Say(Said::Fail(exception))) => drop((exception.repr(3), exception.to_json())),
        Ok(Ask::Request | Ask::Say(_)) => {}
        Err(refusal) => answered(Some(request.id), Err(refusal)),
    }
}

/// An answer is JSON, whatever was refused.
fn answered(id: Option<u64>, answer: task_protocol::Answer) {
    let text = task_protocol::answer(id, &answer);
    let read: Value = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why} in {text}"));
    assert!(read["error"]["code"].is_string() && read["error"]["message"].is_string());
    assert_eq!(task_protocol::frame(&text).len(), text.len() + HEAD);
}
