//! A graph in the language of Graphviz.

use super::{NodeShape, color, label};
use crate::canvas::graph::{Edge, EdgeKind};
use std::fmt::Write;

/// The whole graph.
pub(super) fn text<'a>(shapes: &[NodeShape], edges: impl Iterator<Item = &'a Edge>) -> String {
    let mut text = String::from(
        "digraph workflow {\n    node [shape=box, style=\"rounded,filled\", fillcolor=white];\n",
    );
    for (at, one) in shapes.iter().enumerate() {
        let label = one.lines.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("\\n");
        let shape = if one.is_group { ", shape=ellipse" } else { "" };
        let color =
            color(&one.state).map_or_else(String::new, |color| format!(", fillcolor=\"{color}\""));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    n{at} [label=\"{label}\"{shape}{color}];");
    }
    for edge in edges {
        let style = match edge.kind {
            EdgeKind::Next => "",
            EdgeKind::Member | EdgeKind::Errback => "style=dashed",
            EdgeKind::Callback | EdgeKind::Child => "style=solid",
        };
        let label = label(edge);
        let attributes = match label.is_empty() {
            true => String::new(),
            false => format!(" [label=\"{label}\", {style}]"),
        };
        let _ = writeln!(text, "    n{} -> n{}{attributes};", edge.from, edge.to);
    }
    text.push_str("}\n");
    text
}

/// A text within quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let one = NodeShape {
            lines: vec!["a\"b\\n".into(), "\\".into()],
            is_group: false,
            state: "SUCCESS".into(),
        };
        let edge = Edge { from: 0, to: 0, kind: EdgeKind::Member };
        let written = text(&[one], [edge].iter());
        assert!(
            written.contains(r##"n0 [label="a\"b\\n\n\\", fillcolor="#d5f0d5"];"##),
            "{written}"
        );
        assert!(written.contains("n0 -> n0 [label=\"member\", style=dashed];"), "{written}");
    }
}
