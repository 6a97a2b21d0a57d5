//! The kinds of values that only task files have.

use super::template::is_identifier;
use super::{Dir, Param, ResultMode, Stdin};
use crate::bounds;
use crate::config::Faults;
use crate::config::kind::{Span, ValueKind, kind};
use crate::config::node::{Data, YamlNode, quote};
use crate::config::units;
use serde_json::value::RawValue;
use std::path::PathBuf;
use std::time::Duration;

kind!(
    /// What standard input is.
    Input: Stdin, "none or json",
    |node| match node.as_written() {
        Some("none") => Some(Stdin::None),
        Some("json") => Some(Stdin::Json),
        _ => None,
    },
    |stdin| format!("{stdin:?}").to_lowercase()
);
kind!(
    /// What becomes of standard output.
    Output: ResultMode, "auto, json, text, bytes or none",
    |node| match node.as_written() {
        Some("auto") => Some(ResultMode::Auto),
        Some("json") => Some(ResultMode::Json),
        Some("text") => Some(ResultMode::Text),
        Some("bytes") => Some(ResultMode::Bytes),
        Some("none") => Some(ResultMode::None),
        _ => None,
    },
    |mode| format!("{mode:?}").to_lowercase()
);
kind!(
    /// The first delay of a retry; `true` is Celery's way to ask for a second.
    Backoff: Duration, "true, or a duration up to 36500d: seconds, or words such as 90s, 5m, 1h30m",
    |node| match node.as_bool() {
        Some(yes) => yes.then_some(bounds::RETRY_BACKOFF),
        None => Span::read(node, &mut Faults::new("")),
    },
    |span| units::show_duration(*span)
);
kind!(
    /// How often something may be repeated.
    Times: u32, "a whole number from 0, or null for ever",
    |node| node.as_int().and_then(|n| u32::try_from(n).ok()), u32::to_string
);
kind!(
    /// Scheduling priority.
    Nice: i32, "a whole number from -20 to 19",
    |node| node.as_int().and_then(|n| i32::try_from(n).ok()).filter(|n| (-20..=19).contains(n)), i32::to_string
);
kind!(
    /// Whole seconds, at least one; a part of a second counts as a whole one.
    Seconds: u64, units::DURATION,
    |node| {
        let span = Span::read(node, &mut Faults::new(""))?;
        Some(span.as_secs() + u64::from(span.subsec_nanos() > 0)).filter(|seconds| *seconds > 0)
    },
    |seconds| seconds.to_string()
);
kind!(
    /// One line for people.
    Line: String, "text",
    |node| node.as_written().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")), |text| quote(text)
);

/// Exit codes, one or many.
#[derive(Debug)]
pub struct Codes;

impl ValueKind for Codes {
    type Value = Vec<i32>;
    const EXPECTED: &'static str = "an exit code from 0 to 255, or a list of them";

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Vec<i32>> {
        let Data::List(list) = &node.data else {
            return code(node).map(|code| vec![code]).or_else(|| Self::mismatch(node, faults));
        };
        let codes: Vec<Option<i32>> = list
            .iter()
            .map(|item| {
                let read = code(item);
                if read.is_none() {
                    faults.mismatch(item.line, &item.found(), "an exit code from 0 to 255");
                }
                read
            })
            .collect();
        codes.into_iter().collect()
    }

    fn write(codes: &Vec<i32>) -> String {
        format!("{codes:?}")
    }
}

fn code(node: &YamlNode) -> Option<i32> {
    node.as_int().and_then(|n| u8::try_from(n).ok()).map(i32::from)
}

/// Names of parameters and their defaults.
#[derive(Debug)]
pub struct Params;

impl ValueKind for Params {
    type Value = Vec<Param>;
    const EXPECTED: &'static str = "a list of names, or of {name: default}";
    const NESTED: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Vec<Param>> {
        let Data::List(list) = &node.data else { return Self::mismatch(node, faults) };
        let before = faults.count();
        let mut params: Vec<Param> = Vec::new();
        for item in list {
            let Some(param) = param(item, faults) else { continue };
            if params.iter().any(|earlier| earlier.name == param.name) {
                faults.add(item.line, format!("{} is here twice", param.name));
            } else if let Some(last) =
                params.last().filter(|last| last.default.is_some() && param.default.is_none())
            {
                faults.add(
                    item.line,
                    format!("{} needs a default, for {} before it has one", param.name, last.name),
                );
            }
            params.push(param);
        }
        (faults.count() == before).then_some(params)
    }

    fn write(params: &Vec<Param>) -> String {
        let item = |param: &Param| match &param.default {
            Some(value) => format!("{{{}: {}}}", param.name, value.get()),
            None => param.name.clone(),
        };
        format!("[{}]", params.iter().map(item).collect::<Vec<_>>().join(", "))
    }
}

fn param(node: &YamlNode, faults: &mut Faults) -> Option<Param> {
    let (name, default) = match &node.data {
        // `y`, `n`, `on` are fine names: what is written counts, not what it could mean.
        Data::Scalar(text, _) if !node.is_null() => (text.clone(), None),
        Data::Map(map) if map.len() == 1 => {
            let (key, value) = &map[0];
            (key.text.clone(), Some(RawValue::from_string(value.to_json().to_string()).ok()?))
        }
        _ => {
            faults.mismatch(node.line, &node.found(), "a name or {name: default}");
            return None;
        }
    };
    if !is_identifier(&name) {
        faults.mismatch(node.line, &format!("{name:?}"), "a name of letters, digits and _");
        return None;
    }
    Some(Param { name, default })
}

/// The words of `exec`.
#[derive(Debug)]
pub struct ExecWords;

impl ValueKind for ExecWords {
    type Value = Vec<String>;
    const EXPECTED: &'static str = "a list of a program and its arguments";
    const NESTED: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Vec<String>> {
        let Data::List(list) = &node.data else { return Self::mismatch(node, faults) };
        if list.first().and_then(YamlNode::as_written).is_none_or(str::is_empty) {
            faults.add(node.line, "the first word must be a program");
            return None;
        }
        let word = |item: &YamlNode| match item.as_written().filter(|text| !text.contains('\0')) {
            Some(text) => Some(text.to_string()),
            None => {
                faults.mismatch(item.line, &item.found(), "text");
                None
            }
        };
        let words: Vec<Option<String>> = list.iter().map(word).collect();
        words.into_iter().collect()
    }

    fn write(words: &Vec<String>) -> String {
        format!("[{}]", words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(", "))
    }
}

/// The folders that a WASM task sees.
#[derive(Debug)]
pub struct Folders;

impl ValueKind for Folders {
    type Value = Vec<Dir>;
    const EXPECTED: &'static str = "a list of {host, guest, mode}, or of host:guest:mode";
    const NESTED: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Vec<Dir>> {
        let Data::List(list) = &node.data else { return Self::mismatch(node, faults) };
        let before = faults.count();
        let dirs: Vec<Dir> = list.iter().filter_map(|item| folder(item, faults)).collect();
        (faults.count() == before).then_some(dirs)
    }

    fn write(dirs: &Vec<Dir>) -> String {
        let item = |dir: &Dir| {
            let mode = if dir.writable { "rw" } else { "ro" };
            format!(
                "{{host: {}, guest: {}, mode: {mode}}}",
                quote(&dir.host.to_string_lossy()),
                quote(&dir.guest)
            )
        };
        format!("[{}]", dirs.iter().map(item).collect::<Vec<_>>().join(", "))
    }
}

fn folder(node: &YamlNode, faults: &mut Faults) -> Option<Dir> {
    let (mut host, mut guest, mut mode) = ("", "", "ro");
    match &node.data {
        Data::Map(map) => {
            for (key, value) in map {
                let slot = match key.text.as_str() {
                    "host" => &mut host,
                    "guest" => &mut guest,
                    "mode" => &mut mode,
                    other => {
                        faults.within(other, |f| {
                            f.unknown(key.line, "key", other, ["host", "guest", "mode"])
                        });
                        continue;
                    }
                };
                *slot = value.as_text().unwrap_or("");
            }
        }
        _ => {
            let parts: Vec<&str> = node.as_text().unwrap_or("").split(':').collect();
            match parts[..] {
                [h, g] => (host, guest) = (h, g),
                [h, g, m] => (host, guest, mode) = (h, g, m),
                _ => return Folders::mismatch(node, faults),
            }
        }
    }
    if host.is_empty() || host.contains('\0') {
        faults.add(node.line, "names no folder of the host");
    } else if !guest.starts_with('/') {
        faults.mismatch(node.line, &format!("guest {guest:?}"), "a folder that begins with /");
    } else if !["ro", "rw"].contains(&mode) {
        faults.mismatch(node.line, &format!("mode {mode:?}"), "ro or rw");
    } else {
        return Some(Dir {
            host: PathBuf::from(host),
            guest: guest.into(),
            writable: mode == "rw",
        });
    }
    None
}
