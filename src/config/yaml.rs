//! YAML as a tree in which everything knows its line. Built from parser events, because
//! a diagnostic without a line is half a diagnostic, and because one wrong key (a
//! duplicate, say) must not hide the other mistakes of the file.
//!
//! YAML 1.2 with its core types; anchors, aliases and `<<` merges; no tags but `!!str`.

use super::diagnostic::{Diagnostic, Faults};
use super::node::{Data, Key, Node, Style};
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Nodes of one document at the most, aliases expanded: a thousand tasks of thirty keys
/// each fit in; nine lines of aliases to aliases, which would fill the memory, do not.
const NODES_MAX: usize = 100_000;

/// Levels of one document at the most: nothing we read has more than five, and code
/// that walks a tree may then recurse.
const DEPTH_MAX: usize = 64;

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
