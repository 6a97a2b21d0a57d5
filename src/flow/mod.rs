//! Workflow files: a readable form of Celery's signatures, with parameters. Pure: takes text.
//!
//! A node is the name of a task, or a mapping with exactly one of `task`, `chain`, `group`, `chord`,
//! `map`, `starmap` and `chunks`; options of `apply_async` stand beside it. The root has `params` and
//! `description` too.
//!
//! | file | does |
//! | --- | --- |
//! | `params` | values of parameters, and texts with `{name}` in them |
//! | `node` | from a node to a signature |
//! | `options` | every option: what is read, and why others mean nothing |
//! | `check` | whether the tasks of a signature are known, and take their arguments |
//! | `words` | a call as one word of a command line |

pub mod check;
mod node;
pub mod options;
mod params;
#[cfg(test)]
mod tests;
pub mod words;

pub use params::{Misfit, ParamValues};

use crate::config::kind::ValueKind;
use crate::config::node::{Data, YamlKey, YamlNode};
use crate::config::{Diagnostic, Faults, yaml};
use crate::task::Param;
use crate::task::values::{Line, Params};
use crate::wire::Signature;
use check::Checker;

/// A workflow file that could be parsed.
#[derive(Debug)]
pub struct WorkflowFile {
    file: String,
    root: YamlNode,
    /// Its parameters.
    pub params: Vec<Param>,
    /// One line for people.
    pub description: Option<String>,
}

impl WorkflowFile {
    /// Reads the parameters of a file; `None` if it cannot be parsed.
    pub fn parse(file: &str, text: &str) -> (Option<WorkflowFile>, Vec<Diagnostic>) {
        let (root, broken) = yaml::parse(file, text);
        let mut faults = Faults::new(file);
        faults.extend(broken);
        let Some(mut root) = root else { return (None, faults.into_vec()) };
        let (mut params, mut description) = (Vec::new(), None);
        if let Data::Map(map) = &mut root.data {
            let mut take = |name: &str| {
                let at = map.iter().position(|(key, _)| key.text == name)?;
                Some(map.remove(at))
            };
            if let Some((_, node)) = take("params").filter(|(_, node)| !node.is_null()) {
                params = faults.within("params", |f| Params::read(&node, f)).unwrap_or_default();
            }
            if let Some((_, node)) = take("description").filter(|(_, node)| !node.is_null()) {
                description = faults.within("description", |f| Line::read(&node, f));
            }
            // A name that begins with a dot is a home for anchors, as in task files.
            map.retain(|(YamlKey { text, .. }, _)| !text.starts_with('.'));
        }
        let flow = WorkflowFile { file: file.into(), root, params, description };
        (Some(flow), faults.into_vec())
    }

    /// Its signature with these values; and everything that is wrong with it, of which any mistake
    /// leaves no signature. `number` is a priority as the broker counts.
    pub fn signature(
        &self,
        bound: &ParamValues,
        checker: &Checker<'_>,
        number: &dyn Fn(u8) -> u8,
    ) -> (Option<Signature>, Vec<Diagnostic>) {
        let mut reader = node::Reader::new(Faults::new(&self.file), bound, checker, number);
        let signature = reader.node(&self.root, check::Before::Nothing);
        let faults = reader.faults;
        let sound = faults.count() == 0 && !self.root.is_flawed();
        (signature.filter(|_| sound), faults.into_vec())
    }
}
