//! YAML as PyYAML's safe loader reads it: YAML 1.1, one document. Aliases refer to what they
//! name, and the JSON that comes of them has a limit, so a document of nine lines that would
//! expand to gigabytes is refused.
//!
//! A plain `=` is a text, and a key may be empty; PyYAML refuses both.
//!
//! Source: kombu `serialization.py`, `yaml_loads`; PyYAML `resolver.py`, `constructor.py`
//! (`SafeConstructor`).

mod scalar;

use super::VALUES_MAX;
use super::json::Out;
use crate::os::panics::contained;
use crate::wire::message::Malformed;
use crate::wire::serializer::shown;
use crate::wire::value::DEPTH_MAX;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Maximum number of fields that `<<` merges into the mappings of a document: each is a copy.
const MERGED_MAX: usize = 1 << 20;

/// The JSON text of a body.
///
/// # Errors
/// Says where it is no YAML, or what it holds that no task is given.
pub(super) fn text(body: &[u8]) -> Result<String, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| wrong("a body that is not UTF-8"))?;
    let text = text.trim_start_matches('\u{feff}');
    // The crate reads what anybody sends: a panic of its is an error of the message.
    let read = contained(|| Builder::default().build(text));
    read.unwrap_or_else(|_| Err(wrong("the body cannot be read")))
}

fn wrong(what: impl AsRef<str>) -> Malformed {
    Malformed(format!("yaml: {}", what.as_ref()))
}

/// What a scalar is.
pub(super) enum Scalar {
    /// A text.
    Text(String),
    /// Its JSON: a number, a truth value or nothing. It can be a key.
    Plain(String),
    /// A value of one of kombu's types.
    Typed(&'static str, String),
    Bytes(Vec<u8>),
    /// `<<`
    Merge,
}

/// Where a node is.
type NodeIndex = usize;

enum Node {
    Scalar(Scalar),
    Sequence(Vec<NodeIndex>),
    Mapping(Vec<(NodeIndex, NodeIndex)>),
    /// A mapping of members to nothing.
    Set(Vec<(NodeIndex, NodeIndex)>),
}

/// A container that is not closed yet.
struct Open {
    anchor: usize,
    kind: ContainerKind,
    items: Vec<NodeIndex>,
}

#[derive(Clone, Copy, PartialEq)]
enum ContainerKind {
    Sequence,
    Mapping,
    Set,
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    open: Vec<Open>,
    root: Option<NodeIndex>,
    anchors: HashMap<usize, NodeIndex>,
    /// Values that were put into containers, aliases too.
    placed: usize,
    merged: usize,
}

impl Builder {
    fn build(mut self, text: &str) -> Result<String, Malformed> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let line = error.marker().line();
                wrong(format!("line {line}: {}", error.info()))
            })?;
            documents += usize::from(matches!(event, Event::DocumentStart(_)));
            if documents > 1 {
                return Err(wrong("more than one document"));
            }
            self.event(event).map_err(|why| wrong(format!("line {}: {why}", span.start.line())))?;
        }
        let mut out = Out::default();
        match self.root {
            Some(root) => self.write(&mut out, root, 0)?,
            None => out.push("null")?,
        }
        Ok(out.finish())
    }

    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain;
                let tag = tag.as_deref().and_then(name);
                let scalar = scalar::read(&text, is_plain, tag.as_deref())?;
                self.add(Node::Scalar(scalar), anchor)
            }
            Event::SequenceStart(anchor, tag) => match tag.as_deref().and_then(name).as_deref() {
                None | Some("!!seq") => self.start(anchor, ContainerKind::Sequence),
                Some(other) => Err(unknown(other)),
            },
            Event::MappingStart(anchor, tag) => match tag.as_deref().and_then(name).as_deref() {
                None | Some("!!map") => self.start(anchor, ContainerKind::Mapping),
                Some("!!set") => self.start(anchor, ContainerKind::Set),
                Some(other) => Err(unknown(other)),
            },
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(place) => self.put(*place),
                None => Err("an alias to what it is part of".into()),
            },
            _ => Ok(()),
        }
    }

    fn start(&mut self, anchor: usize, kind: ContainerKind) -> Result<(), String> {
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} levels of values"));
        }
        self.open.push(Open { anchor, kind, items: Vec::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(open) = self.open.pop() else { return Err("an end without a beginning".into()) };
        let node = match open.kind {
            ContainerKind::Sequence => Node::Sequence(open.items),
            kind => {
                let (pairs, _) = open.items.as_chunks::<2>();
                let pairs = self.fields(pairs)?;
                if kind == ContainerKind::Set { Node::Set(pairs) } else { Node::Mapping(pairs) }
            }
        };
        self.add(node, open.anchor)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        let place = self.nodes.len();
        self.nodes.push(node);
        if anchor > 0 {
            self.anchors.insert(anchor, place);
        }
        self.put(place)
    }

    fn put(&mut self, place: NodeIndex) -> Result<(), String> {
        self.placed += 1;
        if self.placed > VALUES_MAX {
            return Err(format!("more than the limit of {VALUES_MAX} values"));
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(place),
            None => self.root = Some(place),
        }
        Ok(())
    }

    /// The fields of a mapping: what `<<` brings in comes first, and what the mapping itself says
    /// wins over it (`constructor.py`, `flatten_mapping`).
    fn fields(&mut self, pairs: &[[NodeIndex; 2]]) -> Result<Vec<(NodeIndex, NodeIndex)>, String> {
        let is_merge = |key: NodeIndex| matches!(self.nodes[key], Node::Scalar(Scalar::Merge));
        let (merges, own): (Vec<[NodeIndex; 2]>, Vec<[NodeIndex; 2]>) =
            pairs.iter().copied().partition(|[key, _]| is_merge(*key));
        let own = own.into_iter().map(|[key, value]| (key, value));
        if merges.is_empty() {
            return Ok(own.collect());
        }
        let mut all = Vec::new();
        for [_, from] in merges {
            let sources: Vec<NodeIndex> = match &self.nodes[from] {
                Node::Mapping(_) => vec![from],
                // The first of several wins.
                Node::Sequence(several) => several.iter().rev().copied().collect(),
                _ => return Err("<< with what is no mapping".into()),
            };
            for source in sources {
                let Node::Mapping(fields) = &self.nodes[source] else {
                    return Err("<< with what is no mapping".into());
                };
                self.merged += fields.len();
                if self.merged > MERGED_MAX {
                    return Err(format!("<< brings in more than the limit of {MERGED_MAX} fields"));
                }
                all.extend_from_slice(fields);
            }
        }
        all.extend(own);
        // A field that comes twice keeps its place and gets the last value.
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut fields: Vec<(NodeIndex, NodeIndex)> = Vec::new();
        for (key, value) in all {
            match places.get(&*self.key(key)?) {
                Some(place) => fields[*place].1 = value,
                None => {
                    places.insert(self.key(key)?.into_owned(), fields.len());
                    fields.push((key, value));
                }
            }
        }
        Ok(fields)
    }

    /// The text of a key.
    fn key(&self, key: NodeIndex) -> Result<Cow<'_, str>, String> {
        match &self.nodes[key] {
            Node::Scalar(Scalar::Text(text)) => Ok(Cow::Borrowed(text)),
            Node::Scalar(Scalar::Plain(json)) => Ok(Cow::Borrowed(json.trim_matches('"'))),
            Node::Scalar(Scalar::Merge) => Ok(Cow::Borrowed("<<")),
            _ => Err("a key of a mapping that is no text".into()),
        }
    }

    fn write(&self, out: &mut Out, place: NodeIndex, depth: usize) -> Result<(), Malformed> {
        // Aliases nest what they name, and so may be deeper than the document is.
        if depth > DEPTH_MAX {
            return Err(wrong(format!("more than {DEPTH_MAX} levels of values")));
        }
        match &self.nodes[place] {
            Node::Scalar(Scalar::Text(text)) => out.text(text.as_bytes()),
            Node::Scalar(Scalar::Plain(json)) => out.push(json),
            Node::Scalar(Scalar::Typed(kind, text)) => out.typed(kind, text),
            Node::Scalar(Scalar::Bytes(bytes)) => out.bytes(bytes),
            Node::Scalar(Scalar::Merge) => Err(wrong("<< outside of a mapping")),
            Node::Sequence(items) => self.array(out, items.iter(), depth),
            Node::Set(members) => self.array(out, members.iter().map(|(key, _)| key), depth),
            Node::Mapping(fields) => {
                out.push("{")?;
                for (n, (key, value)) in fields.iter().enumerate() {
                    out.push(if n == 0 { "" } else { ", " })?;
                    out.text(self.key(*key).map_err(wrong)?.as_bytes())?;
                    out.push(": ")?;
                    self.write(out, *value, depth + 1)?;
                }
                out.push("}")
            }
        }
    }

    fn array<'p>(
        &self,
        out: &mut Out,
        items: impl Iterator<Item = &'p NodeIndex>,
        depth: usize,
    ) -> Result<(), Malformed> {
        out.push("[")?;
        for (n, item) in items.enumerate() {
            out.push(if n == 0 { "" } else { ", " })?;
            self.write(out, *item, depth + 1)?;
        }
        out.push("]")
    }
}

/// The name of a tag, `!!int`; none of `!`, which asks for nothing.
fn name(tag: &Tag) -> Option<String> {
    match tag.handle.as_str() {
        "tag:yaml.org,2002:" => Some(format!("!!{}", tag.suffix)),
        "" | "!" if tag.suffix.is_empty() => None,
        "" if tag.suffix == "!" => None,
        handle => {
            let whole = format!("{handle}{}", tag.suffix);
            let short = whole.strip_prefix("tag:yaml.org,2002:").map(|name| format!("!!{name}"));
            Some(short.unwrap_or(whole))
        }
    }
}

fn unknown(tag: &str) -> String {
    format!("the tag {} is not data", shown(tag))
}

#[cfg(test)]
mod tests;
