//! A graph in the language of Mermaid.

use super::{NodeShape, color, label};
use crate::canvas::graph::{Edge, EdgeKind};
use std::fmt::Write;

/// The whole graph.
pub(super) fn text<'a>(shapes: &[NodeShape], edges: impl Iterator<Item = &'a Edge>) -> String {
    let mut text = String::from("flowchart TD\n");
    for (at, one) in shapes.iter().enumerate() {
        let label = one.lines.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("<br/>");
        let (open, close) = if one.is_group { ("([", "])") } else { ("[", "]") };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    n{at}{open}\"{label}\"{close}");
        if let Some(color) = color(&one.state) {
            let _ = writeln!(text, "    style n{at} fill:{color}");
        }
    }
    for edge in edges {
        let arrow = match edge.kind {
            EdgeKind::Member | EdgeKind::Errback => "-.->",
            EdgeKind::Next | EdgeKind::Callback | EdgeKind::Child => "-->",
        };
        let label = match label(edge) {
            "" => String::new(),
            label => format!("|{label}|"),
        };
        let _ = writeln!(text, "    n{} {arrow}{label} n{}", edge.from, edge.to);
    }
    text
}

/// A text within quotes: what Mermaid, HTML or Markdown would take for its own has its number.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '"' | '#' | '<' | '>' | '&' | '`' | ';' | '\\' | '*' => {
                let _ = write!(escaped, "#{};", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let one = NodeShape {
            lines: vec!["a\"<b>".into(), "#1".into()],
            is_group: true,
            state: "0/1".into(),
        };
        let edge = Edge { from: 0, to: 0, kind: EdgeKind::Errback };
        assert_eq!(
            text(&[one], [edge].iter()),
            "flowchart TD\n    n0([\"a#34;#60;b#62;<br/>#35;1\"])\n    n0 -.->|link_error| n0\n"
        );
    }
}
