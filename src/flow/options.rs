//! Options that stand in a node: those of Celery's `apply_async`, and for each other one the reason
//! why it means nothing here.

use crate::clock;
use crate::config::Faults;
use crate::config::forms::{CompressionName, SerializerName};
use crate::config::kind::{Countdown, Flag, Limit, Priority, Queue, TaskId, Text, ValueKind, kind};
use crate::config::node::YamlNode;
use crate::wire::signature::raw_text;
use crate::wire::value;
use serde_json::json;
use serde_json::value::RawValue;

type Raw = Box<RawValue>;

kind!(
    /// A point in time.
    Eta: String, "a time in ISO 8601, such as 2027-01-31T12:00:00+01:00 (UTC without an offset)",
    |node| node.as_text().and_then(clock::parse).map(clock::iso), |text| text.clone()
);

/// The options that a value is read for, in the order of the manual.
pub const OPTIONS: [&str; 16] = [
    "queue",
    "countdown",
    "eta",
    "expires",
    "priority",
    "immutable",
    "time_limit",
    "soft_time_limit",
    "ignore_result",
    "task_id",
    "shadow",
    "headers",
    "serializer",
    "compression",
    "interval",
    "max_retries",
];

/// Options whose values are nodes.
pub const CALLBACKS: [&str; 2] = ["link", "link_error"];

const BY_SERIALIZER: &str = "say serializer";
const SET_HERE: &str = "it is set when the workflow is sent";
const OF_FORM: &str = "chain, group and chord say what belongs together";
const PYTHON_OBJECT: &str = "it is an object of a Python program";
const ON_DISK: &str = "messages are on disk, always";
const OF_AMQP: &str = "it is a word of AMQP, which no broker here speaks";
const BY_QUEUE: &str =
    "a step names its queue; exchanges lead a single task (qworker call --exchange)";
const ONE_DEADLINE: &str = "a workflow is sent once, within client_timeout";

/// Options of Celery's that mean nothing here, and why.
const MEANINGLESS: &[(&str, &str)] = &[
    ("exchange", BY_QUEUE),
    ("routing_key", BY_QUEUE),
    ("exchange_type", BY_QUEUE),
    ("router", PYTHON_OBJECT),
    ("route_name", "see task_routes; the route is that of the task"),
    ("message_id", SET_HERE),
    ("correlation_id", SET_HERE),
    ("timestamp", SET_HERE),
    ("reply_to", SET_HERE),
    ("origin", SET_HERE),
    ("argsrepr", SET_HERE),
    ("kwargsrepr", SET_HERE),
    ("retries", SET_HERE),
    ("root_id", SET_HERE),
    ("parent_id", SET_HERE),
    ("group_id", OF_FORM),
    ("group_index", OF_FORM),
    ("chain", OF_FORM),
    ("chord", OF_FORM),
    ("callbacks", "say link"),
    ("errbacks", "say link_error"),
    ("add_to_parent", SET_HERE),
    ("replaced_task_nesting", SET_HERE),
    ("stamped_headers", "headers give a message more headers"),
    ("retry", ONE_DEADLINE),
    ("retry_policy", ONE_DEADLINE),
    ("confirm_timeout", ONE_DEADLINE),
    ("content_type", BY_SERIALIZER),
    ("content_encoding", BY_SERIALIZER),
    ("producer", PYTHON_OBJECT),
    ("publisher", PYTHON_OBJECT),
    ("connection", PYTHON_OBJECT),
    ("result_cls", PYTHON_OBJECT),
    ("task_type", PYTHON_OBJECT),
    ("app", PYTHON_OBJECT),
    ("declare", "a queue exists when it is first named"),
    ("delivery_mode", ON_DISK),
    ("mandatory", OF_AMQP),
    ("immediate", OF_AMQP),
    ("expiration", "say expires"),
    ("subtask_type", OF_FORM),
    ("options", "options stand in the node itself"),
];

/// Reads one option whose texts are filled in; `None` if it is wrong, which is reported. `number` is
/// a priority as the broker counts.
pub(super) fn read(
    name: &str,
    node: &YamlNode,
    number: &dyn Fn(u8) -> u8,
    faults: &mut Faults,
) -> Option<Raw> {
    let seconds = |seconds: f64| match seconds.fract() == 0.0 && seconds.abs() < 1e15 {
        true => value::raw(&json!(seconds as i64)),
        false => value::raw(&json!(seconds)),
    };
    Some(match name {
        "queue" => raw_text(&Queue::read(node, faults)?),
        "countdown" => seconds(Countdown::read(node, faults)?),
        "interval" => seconds(Limit::read(node, faults)?.as_secs_f64()),
        "eta" => raw_text(&Eta::read(node, faults)?),
        "expires" => expires(node, &seconds, faults)?,
        "priority" => value::raw(&json!(number(Priority::read(node, faults)?))),
        "immutable" | "ignore_result" => value::raw(&json!(Flag::read(node, faults)?)),
        "time_limit" | "soft_time_limit" => seconds(Limit::read(node, faults)?.as_secs_f64()),
        "task_id" => raw_text(&TaskId::read(node, faults)?),
        "shadow" => raw_text(&Text::read(node, faults)?),
        "serializer" => raw_text(&SerializerName::read(node, faults)?),
        "compression" => raw_text(&CompressionName::read(node, faults)?),
        _ => {
            let times = node.as_int().and_then(|count| u32::try_from(count).ok());
            let Some(times) = times else {
                faults.mismatch(node.line, &node.found(), "a whole number from 0");
                return None;
            };
            value::raw(&json!(times))
        }
    })
}

fn expires(node: &YamlNode, seconds: &dyn Fn(f64) -> Raw, faults: &mut Faults) -> Option<Raw> {
    if let Some(span) = Limit::read(node, &mut Faults::new("")) {
        return Some(seconds(span.as_secs_f64()));
    }
    match Eta::read(node, &mut Faults::new("")) {
        Some(at) => Some(raw_text(&at)),
        None => {
            let expected = "seconds, a span such as 10m, or a time such as 2027-01-31T12:00:00";
            faults.mismatch(node.line, &node.found(), expected);
            None
        }
    }
}

/// Why an option of Celery's means nothing here, if it is one.
pub(super) fn meaningless(name: &str) -> Option<&'static str> {
    MEANINGLESS.iter().find(|(known, _)| *known == name).map(|(_, why)| *why)
}
