//! YAML as a tree in which everything knows its line. Built from parser events, because
//! a diagnostic without a line is half a diagnostic, and because one wrong key (a
//! duplicate, say) must not hide the other mistakes of the file.
//!
//! YAML 1.2 with its core types; anchors, aliases and `<<` merges; no tags but `!!str`.

use super::diagnostic::{Diagnostic, Faults};
use super::node::{Data, Style, YamlKey, YamlNode};
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Maximum number of nodes of one document, aliases expanded: a thousand tasks of thirty keys
/// each fit in; nine lines of aliases to aliases, which would fill the memory, do not.
const NODES_MAX: usize = 100_000;

/// Maximum depth of one document: nothing we read has more than five, and code
/// that walks a tree may then recurse.
const DEPTH_MAX: usize = 64;

/// Parses one document. `None` comes with the syntax error that prevents a tree; a
/// duplicate key leaves the first one in the tree. An empty document is null.
pub fn parse(file: &str, text: &str) -> (Option<YamlNode>, Vec<Diagnostic>) {
    let mut faults = Faults::new(file);
    let root = Builder::default().build(text.trim_start_matches('\u{feff}'), &mut faults);
    (root, faults.into_vec())
}

/// Values that aliases may bring into one visited document, and values that its anchors may
/// hold: a hundred thousand entries share a dozen keys, and a bomb goes off in the hand.
const ALIASED_MAX: usize = 100 * NODES_MAX;
const ANCHORED_MAX: usize = 10 * NODES_MAX;

/// What [`visit`] hands out.
#[derive(Debug)]
pub enum Visit {
    /// A key of the document and its value. The value of the visited key comes too: empty if
    /// its entries were handed out before.
    Above(YamlKey, YamlNode),
    /// An entry of the visited mapping.
    Entry(YamlKey, YamlNode),
    /// The document, which is no mapping.
    Other(YamlNode),
}

/// Reads one document whose mapping `key` may have any number of entries: each is handed to
/// `each` as soon as it is read, and is not held here. The limits on one document hold for each
/// of the entries. Gives all that is wrong, `each`'s findings included; behind a syntax error
/// nothing is read.
pub fn visit(
    file: &str,
    text: &str,
    key: &str,
    each: &mut dyn FnMut(Visit, &mut Faults),
) -> Vec<Diagnostic> {
    let mut faults = Faults::new(file);
    let visitor = Visitor { key, each, seen: Default::default(), merged: Default::default() };
    let builder = Builder { visitor: Some(visitor), ..Builder::default() };
    let root = builder.build(text.trim_start_matches('\u{feff}'), &mut faults);
    match root {
        // A mapping's keys are handed out already.
        Some(YamlNode { data: Data::Map(_), .. }) | None => {}
        Some(other) => each(Visit::Other(other), &mut faults),
    }
    faults.into_vec()
}

/// Who is handed the entries, and what was handed out: of the document, and of the visited
/// mapping in it.
struct Visitor<'a> {
    key: &'a str,
    each: &'a mut dyn FnMut(Visit, &mut Faults),
    /// The line of each key.
    seen: [HashMap<String, usize>; 2],
    /// What `<<` brings in.
    merged: [Vec<(YamlKey, YamlNode)>; 2],
}

impl Visitor<'_> {
    /// Is a mapping at this depth one whose entries are handed out?
    fn visits(&self, open: &[Open]) -> bool {
        match open {
            [root] => root.is_map,
            // An anchor needs the whole of what it names.
            [root, inner] => {
                let is_key = |node: &YamlNode| matches!(&node.data, Data::Scalar(text, _) if text == self.key);
                root.is_map
                    && inner.is_map
                    && inner.anchor == 0
                    && matches!(&root.items[..], [key] if is_key(key))
                    && !self.seen[0].contains_key(self.key)
            }
            _ => false,
        }
    }

    fn take(&mut self, depth: usize, key: YamlNode, value: YamlNode, faults: &mut Faults) {
        let line = key.line;
        match key.data {
            Data::Scalar(text, Style::Plain) if text == "<<" => {
                merge_sources(value, &mut self.merged[depth], faults);
            }
            Data::Scalar(text, _) => match self.seen[depth].get(&text) {
                Some(first) => twice(&text, line, *first, faults),
                None => {
                    self.seen[depth].insert(text.clone(), line);
                    self.hand_out(depth, YamlKey { line, text }, value, faults);
                }
            },
            _ => {
                faults.add(line, "a key that is no plain text");
            }
        }
    }

    /// What other mappings bring in, where the mapping itself does not say it.
    fn end(&mut self, depth: usize, faults: &mut Faults) {
        for (key, value) in std::mem::take(&mut self.merged[depth]) {
            if !self.seen[depth].contains_key(&key.text) {
                self.seen[depth].insert(key.text.clone(), key.line);
                self.hand_out(depth, key, value, faults);
            }
        }
    }

    fn hand_out(&mut self, depth: usize, key: YamlKey, value: YamlNode, faults: &mut Faults) {
        (self.each)(
            if depth == 0 { Visit::Above(key, value) } else { Visit::Entry(key, value) },
            faults,
        );
    }
}

/// A container that is not closed yet.
struct Open {
    line: usize,
    anchor: usize,
    items: Vec<YamlNode>,
    /// Of a mapping: keys and values take turns in `items`.
    is_map: bool,
}

/// The tree while it grows.
#[derive(Default)]
struct Builder<'a> {
    open: Vec<Open>,
    root: Option<YamlNode>,
    anchors: HashMap<usize, (YamlNode, usize)>,
    /// Values of the document, or of the entry that is read.
    nodes: usize,
    aliased: usize,
    anchored: usize,
    visitor: Option<Visitor<'a>>,
}

impl Builder<'_> {
    fn build(mut self, text: &str, faults: &mut Faults) -> Option<YamlNode> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = match event {
                Ok(pair) => pair,
                Err(e) => {
                    let at = e.marker();
                    let mut fault = format!("column {}: {}", at.col() + 1, e.info());
                    if e.info().contains("anchor") {
                        fault.push_str("; a text that begins with * or & stands in quotes");
                    }
                    faults.add(at.line(), fault);
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
        Some(self.root.unwrap_or_else(|| YamlNode::scalar(1, String::new(), Style::Plain)))
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
                self.add(YamlNode::scalar(line, text.into_owned(), style), anchor, 1, faults)
            }
            Event::SequenceStart(anchor, tag) => self.start(line, anchor, tag.as_deref(), false),
            Event::MappingStart(anchor, tag) => self.start(line, anchor, tag.as_deref(), true),
            Event::SequenceEnd | Event::MappingEnd => self.end(faults),
            Event::Alias(anchor) => {
                let (node, size) =
                    self.anchors.get(&anchor).ok_or("an alias inside of what it names")?;
                let (node, size) = (YamlNode { line, ..node.clone() }, *size);
                self.aliased += size;
                if self.aliased > ALIASED_MAX {
                    return Err(format!("aliases bring in more than {ALIASED_MAX} values").into());
                }
                self.add(node, 0, size, faults)
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
        if let Some(visitor) = self.visitor.as_mut().filter(|v| v.visits(&self.open)) {
            visitor.end(self.open.len() - 1, faults);
        }
        let Some(open) = self.open.pop() else { return Ok(()) };
        let before = faults.count();
        let data = match open.is_map {
            true => Data::Map(pairs(open.items, faults)),
            false => Data::List(open.items),
        };
        let node = YamlNode { line: open.line, data, flawed: faults.count() > before };
        // The nodes inside are counted already; an alias repeats them all.
        let size = if open.anchor > 0 { node.size() } else { 1 };
        self.nodes = self.nodes.saturating_sub(size - 1);
        self.add(node, open.anchor, size, faults)
    }

    fn add(
        &mut self,
        node: YamlNode,
        anchor: usize,
        size: usize,
        faults: &mut Faults,
    ) -> Result<(), Cow<'static, str>> {
        self.nodes += size;
        if self.nodes > NODES_MAX {
            return Err(format!("more than {NODES_MAX} values").into());
        }
        if anchor > 0 {
            self.anchored += size;
            if self.visitor.is_some() && self.anchored > ANCHORED_MAX {
                return Err(format!("anchors hold more than {ANCHORED_MAX} values").into());
            }
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
        self.hand_out(faults);
        Ok(())
    }

    /// Hands out the entry that is complete now, if somebody wants it.
    fn hand_out(&mut self, faults: &mut Faults) {
        let Some(visitor) = self.visitor.as_mut() else { return };
        let complete = self.open.last().is_some_and(|open| open.items.len() == 2);
        if !complete || !visitor.visits(&self.open) {
            return;
        }
        let depth = self.open.len() - 1;
        let Some(open) = self.open.last_mut() else { return };
        if let (Some(value), Some(key)) = (open.items.pop(), open.items.pop()) {
            self.nodes = 0;
            visitor.take(depth, key, value, faults);
        }
    }
}

/// What is marked may be a secret that begins with a `!`, so it is not repeated.
const NO_TAGS: &str = "found a tag (a ! before a value), expected none; text that begins with ! \
                       stands in quotes";

/// Whether a tag makes a text of what it marks; any other tag than `!!str` is refused,
/// for what it asks would not be done.
fn check_tag(tag: Option<&Tag>) -> Result<bool, Cow<'static, str>> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
        Some(tag) if tag.is_yaml_core_schema() => Ok(false),
        Some(_) => Err(NO_TAGS.into()),
    }
}

/// Keys and values in turn, as a mapping: `<<` merged (what stands in the mapping itself
/// wins); an entry that cannot be is reported and left out.
fn pairs(items: Vec<YamlNode>, faults: &mut Faults) -> Vec<(YamlKey, YamlNode)> {
    let mut map: Vec<(YamlKey, YamlNode)> = Vec::with_capacity(items.len() / 2);
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
                Some(first) => twice(&text, line, *first, faults),
                None => {
                    first_lines.insert(text.clone(), line);
                    map.push((YamlKey { line, text }, value));
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

fn twice(key: &str, line: usize, first: usize, faults: &mut Faults) {
    faults.within(key, |f| {
        f.add(line, format!("is here twice, first on line {first}"));
    });
}

/// The entries that a `<<` brings in: of one mapping, or of a list of them, earlier ones first.
fn merge_sources(value: YamlNode, merged: &mut Vec<(YamlKey, YamlNode)>, faults: &mut Faults) {
    match value.data {
        Data::Map(map) => merged.extend(map),
        Data::List(list) => {
            list.into_iter().for_each(|source| merge_sources(source, merged, faults))
        }
        Data::Scalar(..) => {
            faults.mismatch(value.line, &format!("{} behind <<", value.found_kind()), "a mapping")
        }
    }
}

#[cfg(test)]
mod tests;
