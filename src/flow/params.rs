//! Parameters of a workflow file: their values, and texts with `{name}` in them.

use super::WorkflowFile;
use crate::config::node::{Data, Style, YamlNode};
use crate::config::{Faults, nearest};
use crate::task::template::{TemplatePart, TemplateWord, Wrong};
use crate::wire::value;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashMap;

/// The values of the parameters; `None` is one that is given later.
#[derive(Debug, Clone, Default)]
pub struct ParamValues(HashMap<String, Option<Box<RawValue>>>);

/// Values that do not fit the parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// There is no such parameter; the nearest ones.
    Unknown(String, Vec<String>),
    /// It has no default, and no value is given.
    Missing(String),
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Misfit::Unknown(name, near) if near.is_empty() => write!(f, "no parameter {name:?}"),
            Misfit::Unknown(name, near) => {
                write!(f, "no parameter {name:?}; did you mean {}?", near.join(" or "))
            }
            Misfit::Missing(name) => write!(f, "parameter {name}: no value is given"),
        }
    }
}

impl WorkflowFile {
    /// The values of its parameters: those given, by name, and defaults.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub fn bind(&self, given: &[(String, Box<RawValue>)]) -> Result<ParamValues, Vec<Misfit>> {
        let names = || self.params.iter().map(|param| param.name.as_str());
        let unknown = given.iter().filter(|(name, _)| !names().any(|known| known == name));
        let mut misfits: Vec<Misfit> = unknown
            .map(|(name, _)| {
                let near = nearest(name, names(), 2).into_iter().map(String::from).collect();
                Misfit::Unknown(name.clone(), near)
            })
            .collect();
        let mut bound = self.unbound();
        // Of two of one name the later one counts.
        for (name, value) in given {
            bound.0.insert(name.clone(), Some(value.clone()));
        }
        let missing = self.params.iter().filter(|param| bound.0[&param.name].is_none());
        misfits.extend(missing.map(|param| Misfit::Missing(param.name.clone())));
        if misfits.is_empty() { Ok(bound) } else { Err(misfits) }
    }

    /// The defaults alone.
    pub fn unbound(&self) -> ParamValues {
        let pairs = self.params.iter().map(|param| (param.name.clone(), param.default.clone()));
        ParamValues(pairs.collect())
    }
}

/// A value of a file once its texts are filled in.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filled<T> {
    /// It is this.
    Value(T),
    /// A parameter in it has no value yet.
    Open,
    /// A text in it is wrong, which was reported.
    Wrong,
}

/// What a text comes to.
enum Text<'a> {
    /// It is no text, or has no parameter in it.
    Plain,
    /// It is one parameter, whose value may be of any type.
    One(&'a RawValue),
    /// It has parameters in it.
    Written(String),
}

impl ParamValues {
    /// Fills in a value that is no list and no mapping.
    pub(super) fn scalar(&self, node: &YamlNode, faults: &mut Faults) -> Filled<YamlNode> {
        match self.text(node, faults) {
            Filled::Value(Text::Plain) => Filled::Value(node.clone()),
            Filled::Value(Text::One(value)) => {
                Filled::Value(YamlNode { line: node.line, ..YamlNode::json(value.get()) })
            }
            Filled::Value(Text::Written(text)) => {
                let data = Data::Scalar(text, Style::Quoted);
                Filled::Value(YamlNode { data, ..node.clone() })
            }
            Filled::Open => Filled::Open,
            Filled::Wrong => Filled::Wrong,
        }
    }

    /// Fills in all texts of a value: JSON.
    pub(super) fn json(&self, node: &YamlNode, faults: &mut Faults) -> Filled<String> {
        let mut parts = Vec::new();
        let (mut open, mut wrong) = (false, false);
        let mut add = |name: Option<&str>, value: Filled<String>| match value {
            Filled::Value(text) => parts.push(match name {
                Some(name) => format!("{}: {text}", Value::from(name)),
                None => text,
            }),
            Filled::Open => open = true,
            Filled::Wrong => wrong = true,
        };
        let is_map = match &node.data {
            Data::Scalar(..) => return self.scalar_json(node, faults),
            Data::List(list) => {
                list.iter().for_each(|item| add(None, self.json(item, faults)));
                false
            }
            Data::Map(map) => {
                for (key, value) in map {
                    add(Some(&key.text), self.json(value, faults));
                }
                true
            }
        };
        match (wrong, open, is_map) {
            (true, ..) => Filled::Wrong,
            (false, true, _) => Filled::Open,
            (false, false, true) => Filled::Value(format!("{{{}}}", parts.join(", "))),
            (false, false, false) => Filled::Value(format!("[{}]", parts.join(", "))),
        }
    }

    fn scalar_json(&self, node: &YamlNode, faults: &mut Faults) -> Filled<String> {
        match self.text(node, faults) {
            Filled::Value(Text::Plain) => Filled::Value(node.to_json_text()),
            Filled::Value(Text::One(value)) => Filled::Value(value.get().into()),
            Filled::Value(Text::Written(text)) => Filled::Value(Value::from(text).to_string()),
            Filled::Open => Filled::Open,
            Filled::Wrong => Filled::Wrong,
        }
    }

    fn text(&self, node: &YamlNode, faults: &mut Faults) -> Filled<Text<'_>> {
        let Some(text) = node.as_text().filter(|text| text.contains(['{', '}'])) else {
            return Filled::Value(Text::Plain);
        };
        let word = match TemplateWord::parse(text) {
            Ok(word) => word,
            Err(why) => {
                faults.add(node.line, explained(&why));
                return Filled::Wrong;
            }
        };
        let (mut written, mut open, mut wrong) = (String::new(), false, false);
        for piece in word.pieces() {
            let name = match piece {
                TemplatePart::Text(text) => {
                    written.push_str(text);
                    continue;
                }
                TemplatePart::Name(name) => name.clone(),
                TemplatePart::Position(number) => number.to_string(),
                TemplatePart::All => "*".into(),
            };
            match self.0.get(&name) {
                Some(Some(value)) if word.pieces().len() == 1 => {
                    return Filled::Value(Text::One(value));
                }
                Some(Some(value)) => {
                    written.push_str(&String::from_utf8_lossy(&value::text(value)));
                }
                Some(None) => open = true,
                None => {
                    wrong = true;
                    let near = nearest(&name, self.0.keys().map(String::as_str), 2).join(" or ");
                    let fault = faults.add(node.line, explained(&Wrong::NoName(name)));
                    fault.hint = (!near.is_empty()).then_some(near);
                }
            }
        }
        match (wrong, open) {
            (true, _) => Filled::Wrong,
            (false, true) => Filled::Open,
            (false, false) => Filled::Value(Text::Written(written)),
        }
    }
}

fn explained(wrong: &Wrong) -> String {
    match wrong {
        Wrong::NoName(text) => {
            let short: String = text.chars().take(60).collect();
            format!(
                "{{{short}}} is no parameter; write {{{{ and }}}} for the characters themselves"
            )
        }
        // Nothing stands for many words here.
        Wrong::NotAlone => explained(&Wrong::NoName("*".into())),
        Wrong::Unpaired(_) => wrong.to_string(),
    }
}
