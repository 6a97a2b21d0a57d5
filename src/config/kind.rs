//! The kinds of values that settings and keys of task files may have: how each is read
//! from YAML, what is expected of it, and how it is written.

use super::diagnostic::Faults;
use super::node::{Data, YamlNode, quote};
use super::secret::{redact_key, redact_url, redact_value};
use super::units::{self, Least, Rate};
use crate::bounds::SLOTS_MAX;
use crate::link::address;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

/// One kind of value.
pub trait ValueKind {
    /// What it is read into.
    type Value;
    /// What is expected, behind the word "expected".
    const EXPECTED: &'static str;
    /// Is it a list or a mapping? Such a value is YAML in the environment too.
    const NESTED: bool = false;
    /// May it hold a secret? What is wrong with it then does not show it.
    const SECRET: bool = false;

    /// Reads a value; what is wrong with it goes to `faults`, and then there is none.
    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Self::Value>;

    /// The value as YAML text on one line, such that `read` gives the same.
    fn write(value: &Self::Value) -> String;

    /// The value as it may be shown, without its secrets.
    fn show(value: &Self::Value) -> String {
        Self::write(value)
    }

    /// Reports that the value is none of this kind.
    fn mismatch<T>(node: &YamlNode, faults: &mut Faults) -> Option<T> {
        let found = if Self::SECRET { node.found_kind().into() } else { node.found() };
        faults.mismatch(node.line, &found, Self::EXPECTED);
        None
    }
}

/// Declares a kind by how it is read (a function to `Option`) and written.
macro_rules! kind {
    ($(#[$doc:meta])* $name:ident: $value:ty, $expected:expr, $read:expr, $write:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        impl $crate::config::kind::ValueKind for $name {
            type Value = $value;
            const EXPECTED: &'static str = $expected;

            fn read(node: &$crate::config::node::YamlNode, faults: &mut $crate::config::Faults) -> Option<$value> {
                let read: fn(&$crate::config::node::YamlNode) -> Option<$value> = $read;
                read(node).or_else(|| Self::mismatch(node, faults))
            }

            fn write(value: &$value) -> String {
                let write: fn(&$value) -> String = $write;
                write(value)
            }
        }
    };
}
pub(crate) use kind;

kind!(
    /// True or false.
    Flag: bool, "true or false", YamlNode::as_bool, bool::to_string
);
kind!(
    /// Any text.
    Text: String, "text", |node| node.as_text().filter(|text| !text.contains('\0')).map(String::from), |text| quote(text)
);
kind!(
    /// A name: text without blanks and control characters, not empty.
    Word: String, "a name without blanks",
    |node| node.as_text().filter(|text| is_word(text)).map(String::from), |text| quote(text)
);
kind!(
    /// A queue's name: one that can stand in a list of them.
    Queue: String, "a queue's name without blanks, and without commas, which stand between names in -Q",
    |node| node.as_text().filter(|text| is_word(text) && !text.contains(',')).map(String::from),
    |text| quote(text)
);
kind!(
    /// The name of a task, whoever defines it: Celery's clients can use one with blanks in it.
    TaskName: String, "a task's name: not empty, without control characters and without blanks at its ends",
    |node| node.as_text().filter(|text| is_label(text)).map(String::from), |text| quote(text)
);
kind!(
    /// The id of a task, whoever sends it.
    TaskId: String, "a task's id: text, not empty, without control characters and without blanks at its ends",
    |node| node.as_text().filter(|text| is_label(text)).map(String::from), |text| quote(text)
);
kind!(
    /// A name or a number, as users and groups have.
    NameOrNumber: String, "a name or a number",
    |node| node.as_written().filter(|text| is_word(text)).map(String::from), |text| quote(text)
);
kind!(
    /// The path of a file or folder.
    FilePath: PathBuf, "a path",
    |node| node.as_text().filter(|text| !text.is_empty() && !text.contains('\0')).map(PathBuf::from),
    |path| quote(&path.to_string_lossy())
);
kind!(
    /// A time span, zero included.
    Span: Duration, units::DURATION, duration, |span| units::show_duration(*span)
);
kind!(
    /// Seconds from now; what is past is due already, as in Celery.
    Countdown: f64, units::DURATION, seconds, f64::to_string
);
kind!(
    /// A time span that is not zero.
    Limit: Duration, "a duration above 0 and up to 36500d: seconds, or words such as 90s, 5m, 1h30m, 1d",
    |node| duration(node).filter(|span| !span.is_zero()), |span| units::show_duration(*span)
);
kind!(
    /// How long something is kept; null and 0 mean forever.
    Keep: Option<Duration>, "a duration up to 36500d (seconds, or words such as 90s, 1h30m, 1d), or null for ever",
    |node| if node.is_null() { Some(None) } else { duration(node).map(|span| Some(span).filter(|s| !s.is_zero())) },
    |span| span.map_or("null".into(), units::show_duration)
);
kind!(
    /// A number of bytes, at least one.
    Size: u64, units::SIZE,
    |node| match node.as_number() {
        Some(bytes) => units::size_of(bytes),
        None => node.as_text().and_then(units::size),
    }.filter(|bytes| *bytes > 0),
    |bytes| units::show_size(*bytes)
);
kind!(
    /// How much memory must be left.
    Reserve: Least, units::LEAST,
    |node| match node.as_number() {
        Some(bytes) => units::size_of(bytes).filter(|bytes| *bytes > 0).map(Least::Bytes),
        None => node.as_text().and_then(units::least),
    },
    |least| units::show_least(*least)
);
kind!(
    /// A load average.
    Load: f64, "a number above 0",
    |node| node.as_number().filter(|load| *load > 0.0 && load.is_finite()), f64::to_string
);
kind!(
    /// What becomes of a task that a worker does not know.
    Unregistered: units::Unregistered, "wait or dead",
    |node| match node.as_text()? {
        "wait" => Some(units::Unregistered::Wait),
        "dead" => Some(units::Unregistered::Dead),
        _ => None,
    },
    |what| match what {
        units::Unregistered::Wait => "wait".into(),
        units::Unregistered::Dead => "dead".into(),
    }
);
kind!(
    /// Starts per time.
    Pace: Rate, units::RATE,
    |node| match node.as_number() {
        Some(rate) => (rate >= 0.0).then_some(Rate(rate)),
        None => node.as_text().and_then(units::rate),
    },
    |rate| units::show_rate(*rate)
);
kind!(
    /// A priority.
    Priority: u8, "a priority from 0 to 9",
    |node| node.as_int().and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= 9), u8::to_string
);
kind!(
    /// A number of at least one.
    Count: u64, "a whole number from 1",
    |node| node.as_int().and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0), u64::to_string
);
kind!(
    /// How many tasks run at once; `None` is as many as there are processors.
    Concurrency: Option<usize>, "a whole number from 1 to 10000, or auto",
    |node| match node.as_int() {
        _ if node.is_null() || node.as_text() == Some("auto") => Some(None),
        slots => usize::try_from(slots?).ok().filter(|n| (1..=SLOTS_MAX).contains(n)).map(Some),
    },
    |slots| slots.map_or("null".into(), |slots| slots.to_string())
);
kind!(
    /// How often a message is handed out.
    Deliveries: u32, "a whole number from 1",
    |node| node.as_int().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0), u32::to_string
);

/// The address of a broker or of a result store; it is never shown with its secrets.
#[derive(Debug)]
pub struct AddressKind;

impl ValueKind for AddressKind {
    type Value = address::Address;
    const EXPECTED: &'static str =
        "a URL such as sqlite:///var/qworker.sqlite or redis://host:6379/0";
    const SECRET: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<address::Address> {
        let scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let text = node.as_text().filter(|text| {
            text.split_once("://").is_some_and(|(s, _)| !s.is_empty() && s.chars().all(scheme))
                && !text.chars().any(|c| c.is_control())
        });
        if text.is_none() {
            // A URL with a slip in it still has its password.
            let found = match node.as_text() {
                Some(text) => format!("text {:?}", redact_url(text)),
                None => node.found_kind().into(),
            };
            faults.mismatch(node.line, &found, Self::EXPECTED);
        }
        text.map(address::Address::new)
    }

    fn write(value: &address::Address) -> String {
        quote(value.reveal())
    }

    fn show(value: &address::Address) -> String {
        quote(&value.to_string())
    }
}

/// Null, or a value of the kind `K`.
#[derive(Debug)]
pub struct Maybe<K>(PhantomData<K>);

impl<K: ValueKind> ValueKind for Maybe<K> {
    type Value = Option<K::Value>;
    const EXPECTED: &'static str = K::EXPECTED;
    const NESTED: bool = K::NESTED;
    const SECRET: bool = K::SECRET;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Option<K::Value>> {
        if node.is_null() { Some(None) } else { K::read(node, faults).map(Some) }
    }

    fn write(value: &Option<K::Value>) -> String {
        value.as_ref().map_or("null".into(), K::write)
    }

    fn show(value: &Option<K::Value>) -> String {
        value.as_ref().map_or("null".into(), K::show)
    }
}

/// Names and values for a program's environment.
#[derive(Debug)]
pub struct Environment;

impl ValueKind for Environment {
    type Value = Vec<(String, String)>;
    const EXPECTED: &'static str = "a mapping of names to text, such as {NAME: text}";
    const NESTED: bool = true;
    const SECRET: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Self::Value> {
        let map = match &node.data {
            Data::Map(map) => map,
            _ if node.is_null() => return Some(Vec::new()),
            _ => return Self::mismatch(node, faults),
        };
        let before = faults.count();
        let mut pairs = Vec::new();
        for (key, value) in map {
            faults.within(&redact_key(&key.text), |faults| {
                let name_fits = !key.text.is_empty() && !key.text.contains(['=', '\0']);
                match value.as_written().filter(|text| !text.contains('\0')) {
                    _ if !name_fits => {
                        faults.add(key.line, "a variable's name is not empty and has no = in it");
                    }
                    None if value.as_written().is_some() => {
                        faults.mismatch(value.line, "text with a NUL character", "text without it");
                    }
                    None => faults.mismatch(value.line, value.found_kind(), "text"),
                    Some(text) => pairs.push((key.text.clone(), text.to_string())),
                }
            });
        }
        (faults.count() == before).then_some(pairs)
    }

    fn write(value: &Self::Value) -> String {
        write_pairs(value, |_, text| text.into())
    }

    fn show(value: &Self::Value) -> String {
        write_pairs(value, redact_value)
    }
}

fn write_pairs(pairs: &[(String, String)], shown: impl Fn(&str, &str) -> String) -> String {
    let pair = |(name, value): &(String, String)| {
        format!("{}: {}", quote(name), quote(&shown(name, value)))
    };
    format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
}

/// Reads the text of an option as a value of the kind `K`.
///
/// # Errors
/// What is expected.
pub fn from_text<K: ValueKind>(text: &str) -> Result<K::Value, String> {
    let read = K::read(&YamlNode::bare(text), &mut Faults::new(""));
    read.ok_or_else(|| format!("expected {}", K::EXPECTED))
}

/// Reads a queue's name in a list of them; blanks around it do not count.
///
/// # Errors
/// What is expected.
pub fn listed(text: &str) -> Result<String, String> {
    from_text::<Queue>(text.trim())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control)
}

fn duration(node: &YamlNode) -> Option<Duration> {
    seconds(node).and_then(units::duration_of)
}

fn seconds(node: &YamlNode) -> Option<f64> {
    match node.as_number() {
        Some(seconds) => Some(seconds).filter(|seconds| units::is_bounded(*seconds)),
        None => node.as_text().and_then(units::seconds),
    }
}
