//! YAML as a tree in which everything knows its line. Built from parser events, because
//! a diagnostic without a line is half a diagnostic, and because one wrong key (a
//! duplicate, say) must not hide the other mistakes of the file.
//!
//! YAML 1.2 with its core types; anchors, aliases and `<<` merges; no tags but `!!str`.

use super::diagnostic::{Diagnostic, Faults};
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Nodes of one document at the most, aliases expanded: a thousand tasks of thirty keys
/// each fit in; nine lines of aliases to aliases, which would fill the memory, do not.
const NODES_MAX: usize = 100_000;

/// Levels of one document at the most: nothing we read has more than five, and code
/// that walks a tree may then recurse.
const DEPTH_MAX: usize = 64;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Line it begins at, from 1; 0 for a value that comes from no file.
    pub line: usize,
    /// The value.
    pub data: Data,
    /// A mapping of which a mistake has been reported already, so that an entry is missing.
    pub flawed: bool,
}

/// The value of a [`Node`].
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// A text, number, truth value or null, as it is written.
    Scalar(String, Style),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in its order, without duplicates.
    Map(Vec<(Key, Node)>),
}

/// How a scalar is written, which decides what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: it may be a number, a truth value or null.
    Plain,
    /// In quotes or as a block: text.
    Quoted,
    /// From the environment or the command line, where everything is text: it is
    /// whatever is asked for.
    Bare,
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its line, from 1.
    pub line: usize,
    /// Its text as written.
    pub text: String,
}

/// Parses one document. `None` comes with the syntax error that prevents a tree; a
/// duplicate key leaves the first one in the tree. An empty document is null.
pub fn parse(file: &str, text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let mut faults = Faults::new(file);
    let root = Builder::default().build(text.trim_start_matches('\u{feff}'), &mut faults);
    (root, faults.into_vec())
}

/// A container that is not closed yet.
struct Open {
    line: usize,
    anchor: usize,
    items: Vec<Node>,
    /// Of a mapping: keys and values take turns in `items`.
    is_map: bool,
}

/// The tree while it grows.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl Builder {
    fn build(mut self, text: &str, faults: &mut Faults) -> Option<Node> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = match event {
                Ok(pair) => pair,
                Err(e) => {
                    let at = e.marker();
                    faults.add(at.line(), format!("column {}: {}", at.col() + 1, e.info()));
                    return None;
                }
            };
            let line = span.start.line();
            documents += usize::from(matches!(event, Event::DocumentStart(_)));
            let refused = match documents {
                0 | 1 => self.event(event, line, faults),
                _ => Err("a second document; one file holds one".into()),
            };
            if let Err(why) = refused {
                faults.add(line, format!("column {}: {why}", span.start.col() + 1));
                return None;
            }
        }
        Some(self.root.unwrap_or_else(|| Node::scalar(1, String::new(), Style::Plain)))
    }

    fn event(
        &mut self,
        event: Event<'_>,
        line: usize,
        faults: &mut Faults,
    ) -> Result<(), Cow<'static, str>> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = check_tag(tag.as_deref())? || style != ScalarStyle::Plain;
                let style = if quoted { Style::Quoted } else { Style::Plain };
                self.add(Node::scalar(line, text.into_owned(), style), anchor, 1)
            }
            Event::SequenceStart(anchor, tag) => self.start(line, anchor, tag.as_deref(), false),
            Event::MappingStart(anchor, tag) => self.start(line, anchor, tag.as_deref(), true),
            Event::SequenceEnd | Event::MappingEnd => self.end(faults),
            Event::Alias(anchor) => {
                let (node, size) =
                    self.anchors.get(&anchor).ok_or("an alias inside of what it names")?;
                let (node, size) = (Node { line, ..node.clone() }, *size);
                self.add(node, 0, size)
            }
            _ => Ok(()),
        }
    }

    fn start(
        &mut self,
        line: usize,
        anchor: usize,
        tag: Option<&Tag>,
        is_map: bool,
    ) -> Result<(), Cow<'static, str>> {
        check_tag(tag)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} levels").into());
        }
        self.open.push(Open { line, anchor, items: Vec::new(), is_map });
        Ok(())
    }

    fn end(&mut self, faults: &mut Faults) -> Result<(), Cow<'static, str>> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let before = faults.count();
        let data = match open.is_map {
            true => Data::Map(pairs(open.items, faults)),
            false => Data::List(open.items),
        };
        let node = Node { line: open.line, data, flawed: faults.count() > before };
        // The nodes inside are counted already; an alias repeats them all.
        let size = if open.anchor > 0 { node.size() } else { 1 };
        self.nodes = self.nodes.saturating_sub(size - 1);
        self.add(node, open.anchor, size)
    }

    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Cow<'static, str>> {
        self.nodes += size;
        if self.nodes > NODES_MAX {
            return Err(format!("more than {NODES_MAX} values").into());
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}

/// Whether a tag makes a text of what it marks; any other tag than `!!str` is refused,
/// for what it asks would not be done.
fn check_tag(tag: Option<&Tag>) -> Result<bool, Cow<'static, str>> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
        Some(tag) if tag.is_yaml_core_schema() => Ok(false),
        Some(tag) => Err(format!("unknown tag {}{}", tag.handle, tag.suffix).into()),
    }
}

/// Keys and values in turn, as a mapping: `<<` merged (what stands in the mapping itself
/// wins); an entry that cannot be is reported and left out.
fn pairs(items: Vec<Node>, faults: &mut Faults) -> Vec<(Key, Node)> {
    let mut map: Vec<(Key, Node)> = Vec::with_capacity(items.len() / 2);
    let mut first_lines: HashMap<String, usize> = HashMap::new();
    let mut merged = Vec::new();
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        let line = key.line;
        match key.data {
            Data::Scalar(text, Style::Plain) if text == "<<" => {
                merge_sources(value, &mut merged, faults)
            }
            Data::Scalar(text, _) => match first_lines.get(&text) {
                Some(first) => faults.within(&text, |f| {
                    f.add(line, format!("is here twice, first on line {first}"));
                }),
                None => {
                    first_lines.insert(text.clone(), line);
                    map.push((Key { line, text }, value));
                }
            },
            _ => {
                faults.add(line, "a key that is no plain text");
            }
        }
    }
    for (key, value) in merged {
        if !first_lines.contains_key(&key.text) {
            first_lines.insert(key.text.clone(), key.line);
            map.push((key, value));
        }
    }
    map
}

/// The entries that a `<<` brings in: of one mapping, or of a list of them, earlier ones first.
fn merge_sources(value: Node, merged: &mut Vec<(Key, Node)>, faults: &mut Faults) {
    match value.data {
        Data::Map(map) => merged.extend(map),
        Data::List(list) => {
            list.into_iter().for_each(|source| merge_sources(source, merged, faults))
        }
        Data::Scalar(..) => {
            faults.mismatch(value.line, &format!("{} behind <<", value.found()), "a mapping")
        }
    }
}

impl Node {
    /// A value from outside of any file: the text may be whatever type is asked for.
    pub fn bare(text: &str) -> Node {
        Node::scalar(0, text.into(), Style::Bare)
    }

    fn scalar(line: usize, text: String, style: Style) -> Node {
        Node { line, data: Data::Scalar(text, style), flawed: false }
    }

    /// How many values this is, itself included.
    fn size(&self) -> usize {
        match &self.data {
            Data::Scalar(..) => 1,
            Data::List(list) => 1 + list.iter().map(Node::size).sum::<usize>(),
            Data::Map(map) => 1 + map.iter().map(|(_, value)| 1 + value.size()).sum::<usize>(),
        }
    }

    /// Has a mistake in it, at any depth, been reported by the parser?
    pub fn is_flawed(&self) -> bool {
        self.flawed
            || match &self.data {
                Data::Scalar(..) => false,
                Data::List(list) => list.iter().any(Node::is_flawed),
                Data::Map(map) => map.iter().any(|(_, value)| value.is_flawed()),
            }
    }

    /// Is it null, written or left empty?
    pub fn is_null(&self) -> bool {
        matches!(self.untyped(), Some("" | "~" | "null" | "Null" | "NULL"))
    }

    /// As a truth value. `yes`, `no`, `on` and `off` count, as in YAML 1.1, which Python
    /// programs read; `1` and `0` only where everything is text.
    pub fn as_bool(&self) -> Option<bool> {
        let bare = matches!(self.data, Data::Scalar(_, Style::Bare));
        match self.untyped()?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            "1" if bare => Some(true),
            "0" if bare => Some(false),
            _ => None,
        }
    }

    /// As a whole number.
    pub fn as_int(&self) -> Option<i64> {
        let text = self.untyped()?;
        match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
            (Some(hex), _) if digits(hex) => i64::from_str_radix(hex, 16).ok(),
            (_, Some(octal)) if digits(octal) => i64::from_str_radix(octal, 8).ok(),
            _ => text.parse().ok(),
        }
    }

    /// As a finite number, whole or not.
    pub fn as_number(&self) -> Option<f64> {
        if let Some(whole) = self.as_int() {
            return Some(whole as f64);
        }
        let text = self.untyped()?;
        // Rust also reads the words inf and nan, which are text here.
        let shaped = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        text.parse().ok().filter(|number: &f64| shaped && number.is_finite())
    }

    /// As a text: quoted, or nothing else.
    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(text, Style::Quoted | Style::Bare) => Some(text),
            Data::Scalar(text, Style::Plain) => (!self.is_null()
                && !matches!(
                    text.as_str(),
                    "true" | "false" | "True" | "False" | "TRUE" | "FALSE"
                )
                && self.as_number().is_none())
            .then_some(text),
            _ => None,
        }
    }

    /// As it is written, if it is a scalar and not null: `010` stays `010`.
    pub fn as_written(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(text, _) if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The text of a scalar that may be something else than text.
    fn untyped(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(text, Style::Plain | Style::Bare) => Some(text),
            _ => None,
        }
    }

    /// As JSON; numbers that JSON cannot say stay text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.data {
            Data::List(list) => Value::Array(list.iter().map(Node::to_json).collect()),
            Data::Map(map) => {
                Value::Object(map.iter().map(|(k, v)| (k.text.clone(), v.to_json())).collect())
            }
            Data::Scalar(text, _) => match (self.as_text(), self.as_int(), self.as_number()) {
                (Some(text), ..) => Value::from(text),
                (_, Some(whole), _) => Value::from(whole),
                (_, _, Some(number)) => Value::from(number),
                _ if self.is_null() => Value::Null,
                _ => self.as_bool().map_or_else(|| Value::from(text.as_str()), Value::from),
            },
        }
    }

    /// What it is, for "found …".
    pub fn found(&self) -> String {
        match &self.data {
            Data::List(_) => "a list".into(),
            Data::Map(_) => "a mapping".into(),
            _ if self.is_null() => "null".into(),
            Data::Scalar(text, style) => {
                let short: String = text.chars().take(60).collect();
                let more = if short.len() < text.len() { "…" } else { "" };
                match style {
                    Style::Plain if self.as_text().is_none() => format!("{short}{more}"),
                    _ => format!("text {short:?}{more}"),
                }
            }
        }
    }
}

fn digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A text as YAML, in quotes only where it would be read as something else.
pub fn quote(text: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || "_-./:+*%@".contains(c);
    let simple = text.chars().all(word)
        && text.starts_with(|c: char| c.is_alphanumeric() || "_./".contains(c));
    let plain = Node::scalar(0, text.into(), Style::Plain);
    match simple && !text.ends_with(':') && plain.as_text().is_some() && plain.as_bool().is_none() {
        true => text.into(),
        false => serde_json::Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree(text: &str) -> Node {
        let (root, found) = parse("t.yaml", text);
        assert!(found.is_empty(), "{text:?}: {found:?}");
        root.unwrap()
    }

    fn faults(text: &str) -> Vec<String> {
        parse("t.yaml", text).1.iter().map(Diagnostic::to_string).collect()
    }

    #[test]
    fn values() {
        let cases = [
            ("a: 1", json!({"a": 1})),
            ("a: '1'", json!({"a": "1"})),
            ("[0x1F, 0o17, -3, +4, 1.5, 1e3, .5]", json!([31, 15, -3, 4, 1.5, 1000.0, 0.5])),
            ("[true, False, yes, null, ~, '']", json!([true, false, "yes", null, null, ""])),
            ("a:", json!({"a": null})),
            ("- |\n  two\n  lines\n- >\n  one\n  line\n", json!(["two\nlines\n", "one line\n"])),
            ("size: 200x200", json!({"size": "200x200"})),
            (
                "a: [inf, nan, .inf, 0x, 99999999999999999999]",
                json!({"a": ["inf", "nan", ".inf", "0x", 1e20]}),
            ),
            ("a: !!str 5", json!({"a": "5"})),
            (
                "a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}",
                json!({"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
            ),
            ("a: &x [1]\nb: *x", json!({"a": [1], "b": [1]})),
            ("\u{feff}a: 1", json!({"a": 1})),
            ("", json!(null)),
        ];
        for (text, value) in cases {
            assert_eq!(tree(text).to_json(), value, "{text}");
        }
    }

    #[test]
    fn lines_of_keys_and_values() {
        let root = tree("# first\na: 1\n\nb:\n  c:\n    - x\n    - y\n");
        let Data::Map(map) = &root.data else { panic!() };
        assert_eq!((map[0].0.line, map[0].1.line, map[1].0.line), (2, 2, 4));
        let Data::Map(inner) = &map[1].1.data else { panic!() };
        let Data::List(list) = &inner[0].1.data else { panic!() };
        assert_eq!((inner[0].0.line, list[0].line, list[1].line), (5, 6, 7));
    }

    #[test]
    fn what_is_refused() {
        let deep = format!("{}x", "- ".repeat(100));
        let laughs: String =
            (1..40).map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1)).collect();
        let cases = [
            ("a: 1\na: 2\n", "t.yaml:2: a: is here twice, first on line 1"),
            ("b: {x: 1, x: 2}\n", "t.yaml:1: x: is here twice, first on line 1"),
            ("a: 'x", "t.yaml:1: column 4: "),
            ("a: !secret x", "t.yaml:1: column 4: unknown tag !secret"),
            ("? [a]\n: b", "t.yaml:1: a key that is no plain text"),
            ("a: &x [*x]", "t.yaml:1: column "),
            ("a: {<<: 5}", "t.yaml:1: found 5 behind <<, expected a mapping"),
            (&deep, "t.yaml:1: column 129: more than 64 levels"),
            (&format!("a0: &a0 x\n{laughs}"), "t.yaml:16: column "),
        ];
        for (text, begin) in cases {
            let found = faults(text);
            assert!(found.len() == 1 && found[0].starts_with(begin), "{text:.40}: {found:?}");
        }
    }

    #[test]
    fn quoted_text_reads_as_itself() {
        for text in [
            "", "a", "yes", "1", "1.5", "null", "~", "*x", "a: b", "- a", "#x", "a\nb", "é", "a:",
            "{", "x y",
        ] {
            let node = tree(&format!("k: {}", quote(text)));
            assert_eq!(node.to_json(), json!({"k": text}));
        }
        assert_eq!(quote("sqlite:///var/x.sqlite"), "sqlite:///var/x.sqlite");
    }

    /// Whatever bytes a file holds, reading it ends, and without a panic.
    #[test]
    fn any_text_is_read_or_refused() {
        let pieces = [
            "a", ":", " ", "\n", "- ", "[", "]", "{", "}", "&x ", "*x", "<<", "!", "!!str ", "'",
            "\"", "|", ">", "#", "%", "@", "?", ",", "---", "...", "\t", "\u{0}", "é", "\u{feff}",
            "0x", "\\", "~", "a: 1\n",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let text: String =
                (0..random.usize(..24)).map(|_| pieces[random.usize(..pieces.len())]).collect();
            if let (Some(root), _) = parse("t.yaml", &text) {
                root.to_json();
                root.found();
            }
        }
    }
}
