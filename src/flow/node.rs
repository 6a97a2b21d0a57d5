//! From a node of a workflow file to a signature.

use super::check::{Before, CallFault, Checker};
use super::options::{self, CALLBACKS, OPTIONS};
use super::params::{Filled, ParamValues};
use super::words;
use crate::canvas;
use crate::canvas::SignatureKind;
use crate::canvas::builtin::{self, BuiltIn};
use crate::config::Faults;
use crate::config::kind::{TaskName, ValueKind};
use crate::config::node::{Data, YamlKey, YamlNode};
use crate::wire::body::Pairs;
use crate::wire::draft::is_own_header;
use crate::wire::{Signature, value};
use serde_json::json;
use serde_json::value::RawValue;

type Raw = Box<RawValue>;

/// What a node may be; it has exactly one of them.
const FORMS: [&str; 7] = ["task", "chain", "group", "chord", "map", "starmap", "chunks"];

/// Words that other programs have for our keys.
const ELSEWHERE: &[(&str, &str)] = &[
    ("name", "task"),
    ("steps", "chain"),
    ("sequence", "chain"),
    ("tasks", "group"),
    ("parallel", "group"),
    ("delay", "countdown"),
    ("timeout", "time_limit"),
    ("on_success", "link"),
    ("on_failure", "link_error"),
    ("on_error", "link_error"),
    ("parameters", "params"),
    ("id", "task_id"),
];

const NODE: &str =
    "a task's name, or a mapping with task, chain, group, chord, map, starmap or chunks in it";

/// Reads nodes; what is wrong with them comes together in `faults`.
pub(super) struct Reader<'a> {
    pub(super) faults: Faults,
    bound: &'a ParamValues,
    checker: &'a Checker<'a>,
    number: &'a dyn Fn(u8) -> u8,
}

/// A node's arguments; `None` where a parameter without a value decides.
#[derive(Default)]
struct NodeArguments {
    args: Option<Vec<Raw>>,
    kwargs: Option<Vec<(String, Raw)>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        faults: Faults,
        bound: &'a ParamValues,
        checker: &'a Checker<'a>,
        number: &'a dyn Fn(u8) -> u8,
    ) -> Reader<'a> {
        Reader { faults, bound, checker, number }
    }

    fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        // The path is the faults' own.
        let faults = std::mem::replace(&mut self.faults, Faults::new(""));
        let mut faults = faults;
        let mut inner = Reader { faults: Faults::new(""), ..*self };
        let value = faults.within(key, |f| {
            std::mem::swap(f, &mut inner.faults);
            let value = read(&mut inner);
            std::mem::swap(f, &mut inner.faults);
            value
        });
        self.faults = faults;
        value
    }

    /// The signature of a node, which gets `before`; `None` if it is wrong, or a parameter without a
    /// value decides what it is.
    pub(super) fn node(&mut self, node: &YamlNode, before: Before) -> Option<Signature> {
        match &node.data {
            Data::Map(map) => self.mapping(node.line, map, before),
            Data::Scalar(..) if node.as_text().is_some() => {
                let one =
                    self.task(node, &NodeArguments { args: Some(vec![]), kwargs: Some(vec![]) })?;
                self.check(&one, node.line, before);
                Some(one)
            }
            _ => {
                self.faults.mismatch(node.line, &node.found(), NODE);
                None
            }
        }
    }

    fn mapping(
        &mut self,
        line: usize,
        map: &[(YamlKey, YamlNode)],
        before: Before,
    ) -> Option<Signature> {
        let forms: Vec<&(YamlKey, YamlNode)> =
            map.iter().filter(|(key, _)| FORMS.contains(&key.text.as_str())).collect();
        let options = self.options(map, forms.first().map_or("", |(key, _)| &key.text));
        let arguments = self.arguments(map, forms.first().map_or("", |(key, _)| &key.text));
        let (key, value) = match forms[..] {
            [form] => form,
            [] => {
                let flawed =
                    map.iter().any(|(key, _)| ELSEWHERE.iter().any(|(word, _)| *word == key.text));
                if !flawed {
                    self.faults.add(line, format!("has none of {}", FORMS.join(", ")));
                }
                return None;
            }
            _ => {
                let given: Vec<&str> = forms.iter().map(|(key, _)| key.text.as_str()).collect();
                let why = format!("has {}, expected only one of them", given.join(" and "));
                self.faults.add(line, why);
                return None;
            }
        };
        let is_immutable =
            options.iter().any(|(name, raw)| name == "immutable" && raw.get() == "true");
        let before = if is_immutable { Before::Nothing } else { before };
        let mut one = self.within(&key.text, |reader| match key.text.as_str() {
            "task" => reader.task(value, &arguments),
            "chain" => reader.chain(value, before),
            "group" => reader.nodes(value, before).map(|parts| words::group(&parts)),
            "chord" => reader.chord(value, before),
            form => reader.map(form, value),
        })?;
        if key.text == "task" && arguments.args.is_some() && arguments.kwargs.is_some() {
            let one = Signature { immutable: is_immutable, ..one.clone() };
            self.check(&one, key.line, before);
        }
        if is_immutable {
            freeze_arguments(&mut one);
        }
        let options: Vec<(String, Raw)> =
            options.into_iter().filter(|(name, _)| name != "immutable").collect();
        if let Err(why) = canvas::set_options(&mut one, &options, false) {
            self.faults.add(line, why.0);
            return None;
        }
        Some(one)
    }

    fn check(&mut self, one: &Signature, line: usize, before: Before) {
        match self.checker.call(one, before) {
            Ok(()) => {}
            Err(CallFault::Unknown(name, near)) => {
                let fault = self.faults.add(line, format!("no task {name:?} in tasks.d"));
                fault.hint = (!near.is_empty()).then(|| near.join(" or "));
            }
            Err(fault) => {
                self.faults.add(line, fault.to_string());
            }
        }
    }

    fn task(&mut self, node: &YamlNode, arguments: &NodeArguments) -> Option<Signature> {
        let Filled::Value(filled) = self.bound.scalar(node, &mut self.faults) else { return None };
        let name = TaskName::read(&filled, &mut self.faults)?;
        let (args, kwargs) = (arguments.args.clone(), arguments.kwargs.clone());
        Some(Signature::task(&name, args.unwrap_or_default(), kwargs.unwrap_or_default()))
    }

    fn nodes(&mut self, node: &YamlNode, before: Before) -> Option<Vec<Signature>> {
        let list = self.list(node)?;
        let read = list.iter().enumerate().map(|(at, item)| {
            self.within(&(at + 1).to_string(), |reader| reader.node(item, before))
        });
        // Each is read, whatever is wrong with another one.
        let read: Vec<Option<Signature>> = read.collect();
        read.into_iter().collect()
    }

    fn list<'n>(&mut self, node: &'n YamlNode) -> Option<&'n [YamlNode]> {
        match &node.data {
            Data::List(list) if !list.is_empty() => Some(list),
            Data::List(_) => {
                self.faults.mismatch(node.line, "an empty list", "at least one node");
                None
            }
            _ => {
                self.faults.mismatch(node.line, &node.found(), "a list of nodes");
                None
            }
        }
    }

    fn chain(&mut self, node: &YamlNode, before: Before) -> Option<Signature> {
        let list = self.list(node)?;
        let mut steps = Vec::new();
        for (at, item) in list.iter().enumerate() {
            let before = if at == 0 { before } else { Before::Result };
            steps.push(self.within(&(at + 1).to_string(), |reader| reader.node(item, before)));
        }
        let steps: Vec<Signature> = steps.into_iter().collect::<Option<_>>()?;
        Some(words::chain(&steps))
    }

    fn chord(&mut self, node: &YamlNode, before: Before) -> Option<Signature> {
        const EXPECTED: &str = "a mapping with header, a list of nodes, and body, a node";
        let Data::Map(map) = &node.data else {
            self.faults.mismatch(node.line, &node.found(), EXPECTED);
            return None;
        };
        let (mut header, mut body) = (None, None);
        for (key, value) in map {
            self.within(&key.text, |reader| match key.text.as_str() {
                "header" => header = Some(reader.nodes(value, before)),
                "body" => body = Some(reader.node(value, Before::Result)),
                other => reader.faults.unknown(key.line, "key", other, ["header", "body"]),
            });
        }
        for (name, is_missing) in [("header", header.is_none()), ("body", body.is_none())] {
            if is_missing {
                self.faults.add(node.line, format!("has no {name}")).expected =
                    Some(EXPECTED.into());
            }
        }
        Some(words::chord(&header??, &body??))
    }

    /// `{task: NAME, it: [ITEM, …]}`, of chunks with `n` too.
    fn map(&mut self, form: &str, node: &YamlNode) -> Option<Signature> {
        let names: &[&str] = if form == "chunks" { &["task", "it", "n"] } else { &["task", "it"] };
        let expected = format!("a mapping with {}", names.join(", "));
        let Data::Map(map) = &node.data else {
            self.faults.mismatch(node.line, &node.found(), &expected);
            return None;
        };
        let mut kwargs: Vec<(String, Raw)> = Vec::new();
        let mut sound = true;
        for (key, value) in map {
            let read = self.within(&key.text, |reader| match key.text.as_str() {
                "task" => {
                    let task = reader.task(value, &NodeArguments::default())?;
                    Some(task.write())
                }
                "it" => reader.items(value),
                "n" if form == "chunks" => reader.size(value),
                other => {
                    reader.faults.unknown(key.line, "key", other, names.iter().copied());
                    None
                }
            });
            match read {
                Some(read) => kwargs.push((key.text.clone(), read)),
                None => sound = false,
            }
        }
        let given = |name: &&&str| !map.iter().any(|(key, _)| key.text == **name);
        for name in names.iter().filter(given) {
            self.faults.add(node.line, format!("has no {name}")).expected = Some(expected.clone());
            sound = false;
        }
        if !sound {
            return None;
        }
        let one = Signature {
            immutable: true,
            ..Signature::task(&format!("celery.{form}"), Vec::new(), kwargs)
        };
        self.check(&one, node.line, Before::Nothing);
        if BuiltIn::named(&one.task) != Some(BuiltIn::Chunks) {
            return Some(one);
        }
        builtin::chunked(&one.kwargs).ok()
    }

    fn items(&mut self, node: &YamlNode) -> Option<Raw> {
        let Filled::Value(text) = self.bound.json(node, &mut self.faults) else { return None };
        let raw = RawValue::from_string(text).ok();
        match raw.filter(|raw| raw.get().starts_with('[')) {
            Some(raw) => Some(raw),
            None => {
                self.faults.mismatch(node.line, &node.found(), "a list of items");
                None
            }
        }
    }

    fn size(&mut self, node: &YamlNode) -> Option<Raw> {
        let Filled::Value(node) = self.bound.scalar(node, &mut self.faults) else { return None };
        match node.as_int().filter(|n| *n > 0) {
            Some(n) => Some(value::raw(&json!(n))),
            None => {
                self.faults.mismatch(node.line, &node.found(), "a whole number from 1");
                None
            }
        }
    }

    /// Values of parameters that are not known yet are null here.
    fn arguments(&mut self, map: &[(YamlKey, YamlNode)], form: &str) -> NodeArguments {
        let mut read = NodeArguments { args: Some(Vec::new()), kwargs: Some(Vec::new()) };
        for (key, value) in map {
            let name = key.text.as_str();
            if name != "args" && name != "kwargs" {
                continue;
            }
            self.within(name, |reader| match name {
                _ if form != "task" && !form.is_empty() => {
                    reader.faults.add(key.line, format!("belongs to a task, not to a {form}"));
                }
                "args" => read.args = reader.args(value),
                _ => read.kwargs = reader.kwargs(value),
            });
        }
        read
    }

    fn value(&mut self, node: &YamlNode) -> Option<Raw> {
        match self.bound.json(node, &mut self.faults) {
            Filled::Value(text) => RawValue::from_string(text).ok(),
            Filled::Open => Some(RawValue::NULL.to_owned()),
            Filled::Wrong => None,
        }
    }

    fn args(&mut self, node: &YamlNode) -> Option<Vec<Raw>> {
        const EXPECTED: &str = "a list of arguments";
        if let Data::List(list) = &node.data {
            let read: Vec<Option<Raw>> = list.iter().map(|item| self.value(item)).collect();
            return read.into_iter().collect();
        }
        match self.bound.json(node, &mut self.faults) {
            Filled::Value(text) => match serde_json::from_str(&text) {
                Ok(args) => Some(args),
                Err(_) => {
                    self.faults.mismatch(node.line, &node.found(), EXPECTED);
                    None
                }
            },
            Filled::Open | Filled::Wrong => None,
        }
    }

    fn kwargs(&mut self, node: &YamlNode) -> Option<Vec<(String, Raw)>> {
        const EXPECTED: &str = "a mapping of names to values";
        if let Data::Map(map) = &node.data {
            let read = |(key, value): &(YamlKey, YamlNode)| {
                self.within(&key.text, |reader| reader.value(value))
                    .map(|raw| (key.text.clone(), raw))
            };
            let read: Vec<Option<(String, Raw)>> = map.iter().map(read).collect();
            return read.into_iter().collect();
        }
        match self.bound.json(node, &mut self.faults) {
            Filled::Value(text) => match serde_json::from_str::<Pairs>(&text) {
                Ok(Pairs(pairs)) => Some(pairs),
                Err(_) => {
                    self.faults.mismatch(node.line, &node.found(), EXPECTED);
                    None
                }
            },
            Filled::Open | Filled::Wrong => None,
        }
    }

    fn options(&mut self, map: &[(YamlKey, YamlNode)], form: &str) -> Vec<(String, Raw)> {
        let mut read: Vec<(String, Raw)> = Vec::new();
        for (key, value) in map {
            let name = key.text.as_str();
            if FORMS.contains(&name) || name == "args" || name == "kwargs" {
                continue;
            }
            let raw = self.within(name, |reader| reader.option(key, value, form));
            read.extend(raw.map(|raw| (name.to_string(), raw)));
        }
        self.check_options(&read, map);
        read
    }

    fn option(&mut self, key: &YamlKey, value: &YamlNode, form: &str) -> Option<Raw> {
        let name = key.text.as_str();
        if CALLBACKS.contains(&name) {
            return self.callbacks(name, value);
        }
        if !OPTIONS.contains(&name) {
            self.refuse(key);
            return None;
        }
        if matches!(name, "interval" | "max_retries") && form != "chord" {
            self.faults.add(key.line, "belongs to a chord: how its header is polled");
            return None;
        }
        if value.is_null() {
            return None;
        }
        if name == "headers" {
            return self.headers(value);
        }
        match self.bound.scalar(value, &mut self.faults) {
            Filled::Value(node) => options::read(name, &node, self.number, &mut self.faults),
            Filled::Open | Filled::Wrong => None,
        }
    }

    fn refuse(&mut self, key: &YamlKey) {
        let name = key.text.as_str();
        if let Some(why) = options::meaningless(name) {
            self.faults.add(key.line, format!("means nothing here: {why}"));
        } else if let Some((_, ours)) = ELSEWHERE.iter().find(|(word, _)| *word == name) {
            self.faults.add(key.line, "unknown key").hint = Some((*ours).into());
        } else {
            let known = FORMS.into_iter().chain(["args", "kwargs"]).chain(OPTIONS).chain(CALLBACKS);
            self.faults.unknown(key.line, "key", name, known.chain(["params", "description"]));
        }
    }

    fn callbacks(&mut self, name: &str, value: &YamlNode) -> Option<Raw> {
        let before = if name == "link" { Before::Result } else { Before::Failure };
        let all = match &value.data {
            _ if value.is_null() => return None,
            Data::List(_) => self.nodes(value, before)?,
            _ => vec![self.node(value, before)?],
        };
        Some(words::list(&all))
    }

    fn headers(&mut self, value: &YamlNode) -> Option<Raw> {
        let Data::Map(map) = &value.data else {
            let expected = "a mapping of names to values";
            self.faults.mismatch(value.line, value.found_kind(), expected);
            return None;
        };
        for (key, _) in map.iter().filter(|(key, _)| is_own_header(&key.text)) {
            self.within(&key.text, |reader| {
                reader.faults.add(key.line, "is a header of every message, which is set here").line
            });
        }
        self.value(value)
    }

    /// The rules between options.
    fn check_options(&mut self, read: &[(String, Raw)], map: &[(YamlKey, YamlNode)]) {
        let line =
            |name: &str| map.iter().find(|(key, _)| key.text == name).map_or(0, |it| it.0.line);
        let given = |name: &str| read.iter().find(|(own, _)| own == name).map(|(_, raw)| raw.get());
        if given("countdown").is_some() && given("eta").is_some() {
            self.faults.add(line("eta"), "has countdown and eta, expected only one of them");
        }
        let number = |name: &str| given(name).and_then(|text| text.parse::<f64>().ok());
        if let (Some(soft), Some(hard)) = (number("soft_time_limit"), number("time_limit"))
            && soft >= hard
        {
            self.faults.within("soft_time_limit", |f| {
                f.add(line("soft_time_limit"), "must be shorter than time_limit").line
            });
        }
    }
}

/// What comes first in it takes no result.
fn freeze_arguments(one: &mut Signature) {
    one.immutable = true;
    let part = match one.kind {
        SignatureKind::Task => return,
        SignatureKind::Chain | SignatureKind::Group => "tasks",
        SignatureKind::Chord => "header",
    };
    let Ok(mut parts) = one.parts(part) else { return };
    let count = if one.kind == SignatureKind::Chain { 1 } else { parts.len() };
    parts.iter_mut().take(count).for_each(freeze_arguments);
    let written = if part == "header" { words::group(&parts).write() } else { words::list(&parts) };
    crate::wire::signature::set(&mut one.kwargs, part, written);
}
