//! `broker_transport_options` and `result_backend_transport_options`: what Celery's settings
//! say of the way keys are named on Redis, and of messages that Python workers hold.

use super::celery_values;
use super::diagnostic::Faults;
use super::kind::{Keep, ValueKind, Word};
use super::node::{Data, YamlNode, quote};
use super::secret::redact_key;
use crate::link::address::OF_CONNECTIONS;
use std::time::Duration;

/// kombu's default.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(3600);

/// Options of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerTransportOptions {
    /// In front of every key, as it is.
    pub global_keyprefix: String,
    /// What a Python worker has held for so long is handed out again.
    pub visibility_timeout: Duration,
}

impl Default for BrokerTransportOptions {
    fn default() -> BrokerTransportOptions {
        BrokerTransportOptions {
            global_keyprefix: String::new(),
            visibility_timeout: VISIBILITY_TIMEOUT,
        }
    }
}

/// Options of the result store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultTransportOptions {
    /// In front of every key; see [`ResultTransportOptions::result_prefix`].
    pub global_keyprefix: String,
}

impl ResultTransportOptions {
    /// What Celery makes of the prefix: it ends in one of `:`, `_`, `-` and `.`, and gets a `_`
    /// if it does not (celery 5.7 `backends/base.py`, `_add_global_keyprefix`).
    pub fn result_prefix(&self) -> String {
        let prefix = &self.global_keyprefix;
        match prefix.is_empty() || prefix.ends_with([':', '_', '-', '.']) {
            true => prefix.clone(),
            false => format!("{prefix}_"),
        }
    }
}

impl ValueKind for BrokerTransportOptions {
    type Value = BrokerTransportOptions;
    const EXPECTED: &'static str = "a mapping of global_keyprefix and visibility_timeout";
    const NESTED: bool = true;
    const SECRET: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<BrokerTransportOptions> {
        let mut options = BrokerTransportOptions::default();
        read_map::<Self>(node, faults, |name, value, faults| {
            match name {
                "global_keyprefix" => options.global_keyprefix = Word::read(value, faults)?,
                "visibility_timeout" => match Keep::read(value, faults)? {
                    Some(timeout) => options.visibility_timeout = timeout,
                    None => return Keep::mismatch(value, faults),
                },
                _ => return of_client::<Self>(name, value, faults),
            }
            Some(())
        })?;
        Some(options)
    }

    fn write(value: &BrokerTransportOptions) -> String {
        let default = BrokerTransportOptions::default();
        let mut shown = prefix(&value.global_keyprefix);
        if value.visibility_timeout != default.visibility_timeout {
            shown.push(format!("visibility_timeout: {}", value.visibility_timeout.as_secs_f64()));
        }
        format!("{{{}}}", shown.join(", "))
    }
}

impl ValueKind for ResultTransportOptions {
    type Value = ResultTransportOptions;
    const EXPECTED: &'static str = "a mapping of global_keyprefix";
    const NESTED: bool = true;
    const SECRET: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<ResultTransportOptions> {
        let mut options = ResultTransportOptions::default();
        read_map::<Self>(node, faults, |name, value, faults| {
            match name {
                "global_keyprefix" => options.global_keyprefix = Word::read(value, faults)?,
                "visibility_timeout" => {
                    let why = "means nothing here: results are not handed out again";
                    faults.note(value.line, why);
                }
                _ => return of_client::<Self>(name, value, faults),
            }
            Some(())
        })?;
        Some(options)
    }

    fn write(value: &ResultTransportOptions) -> String {
        format!("{{{}}}", prefix(&value.global_keyprefix).join(", "))
    }
}

fn prefix(prefix: &str) -> Vec<String> {
    (!prefix.is_empty())
        .then(|| format!("global_keyprefix: {}", quote(prefix)))
        .into_iter()
        .collect()
}

/// An option that changes no message is told: of how a client of redis-py or kombu holds its
/// connection and tries again. One whose value is what is done here anyway is none to speak of.
fn of_client<K: ValueKind>(name: &str, value: &YamlNode, faults: &mut Faults) -> Option<()> {
    const TRIES: [&str; 10] = [
        "confirm_publish",
        "interval_max",
        "interval_start",
        "interval_step",
        "max_retries",
        "polling_interval",
        "retry_policy",
        "unacked_mutex_expire",
        "unacked_mutex_key",
        "unacked_restore_limit",
    ];
    const ANYWAY: [(&str, &str); 8] = [
        ("ack_emulation", "true"),
        ("fanout_patterns", "true"),
        ("fanout_prefix", "true"),
        ("priority_steps", "[0,3,6,9]"),
        ("queue_order_strategy", "round_robin"),
        ("sep", "\u{6}\u{16}"),
        ("unacked_index_key", "unacked_index"),
        ("unacked_key", "unacked"),
    ];
    if value.is_null()
        || ANYWAY.iter().any(|(known, text)| *known == name && celery_values::is(value, text))
    {
        return Some(());
    }
    let why = match (TRIES.contains(&name), OF_CONNECTIONS.contains(&name)) {
        (true, _) => {
            "a worker whose broker is gone tries again until it is back, at most 2 s apart"
        }
        (_, true) => "connections are held in qworker's own way; see client_timeout",
        _ => return unknown::<K>(name, value, faults),
    };
    faults.note(value.line, format!("means nothing here: {why}"));
    Some(())
}

fn unknown<K: ValueKind>(name: &str, node: &YamlNode, faults: &mut Faults) -> Option<()> {
    faults.add(node.line, format!("unknown option {}; expected {}", redact_key(name), K::EXPECTED));
    None
}

/// Reads each entry; a null is an empty mapping.
fn read_map<K: ValueKind>(
    node: &YamlNode,
    faults: &mut Faults,
    mut read: impl FnMut(&str, &YamlNode, &mut Faults) -> Option<()>,
) -> Option<()> {
    let map = match &node.data {
        Data::Map(map) => map,
        _ if node.is_null() => return Some(()),
        _ => return K::mismatch(node, faults),
    };
    let before = faults.count();
    for (key, value) in map {
        faults.within(&redact_key(&key.text), |faults| read(&key.text, value, faults));
    }
    (faults.count() == before).then_some(())
}
