//! What a graph says twice, or of the wrong node, once several sources have told of it.

use super::{Edge, EdgeKind, Graph};
use std::collections::{HashMap, HashSet};

impl Graph {
    /// Makes the first of a chain the member of a group, in the place of a later one; and forgets who
    /// has called a node of which it is known what it follows.
    pub fn resolve(&mut self) {
        self.resolve_members();
        self.resolve_callbacks();
        let is_child = |edge: &Edge| edge.kind == EdgeKind::Child;
        let explained: HashSet<usize> =
            self.edges().filter(|edge| !is_child(edge)).map(|edge| edge.to).collect();
        for after in &mut self.after {
            after.retain(|edge| !is_child(edge) || !explained.contains(&edge.to));
        }
        self.known = self.edges().copied().collect();
    }

    /// Callbacks of which there are several are called as a group, which says nothing more.
    fn resolve_callbacks(&mut self) {
        let calls: Vec<Edge> =
            self.edges().filter(|edge| edge.kind == EdgeKind::Child).copied().collect();
        for edge in calls.into_iter().filter(|edge| self.nodes[edge.to].is_group) {
            let callbacks: HashSet<usize> =
                self.after(edge.from, EdgeKind::Callback).into_iter().collect();
            let members = self.after(edge.to, EdgeKind::Member);
            if !members.is_empty() && members.iter().all(|member| callbacks.contains(member)) {
                self.after[edge.from].retain(|old| *old != edge);
                self.after[edge.to].retain(|old| old.kind != EdgeKind::Member);
            }
        }
    }

    fn resolve_members(&mut self) {
        let before: HashMap<usize, usize> = self
            .edges()
            .filter(|edge| matches!(edge.kind, EdgeKind::Next))
            .map(|edge| (edge.to, edge.from))
            .collect();
        let members: Vec<Edge> =
            self.edges().filter(|edge| edge.kind == EdgeKind::Member).copied().collect();
        for edge in members {
            let (mut top, mut steps) = (edge.to, 0);
            // What comes after the group may have its id, as the body of a chord has: it is no member.
            let mut is_after = false;
            while let Some(from) = before.get(&top).filter(|_| !is_after) {
                is_after = *from == edge.from;
                (top, steps) = (*from, steps + 1);
                if steps > self.nodes.len() {
                    return;
                }
            }
            if top != edge.to || is_after {
                self.after[edge.from].retain(|old| *old != edge);
                self.known.remove(&edge);
            }
            if top != edge.to && !is_after {
                let index = self.nodes[edge.to].index;
                self.nodes[top].index = self.nodes[top].index.or(index);
                self.connect(edge.from, top, EdgeKind::Member);
            }
        }
    }
}
