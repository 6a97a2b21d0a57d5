//! Calls signatures.

use super::freeze::Freeze;
use super::options::draft;
use super::{
    BYTES_MAX, Calls, ChordStart, Chords, Context, DEPTH_MAX, MESSAGE_BYTES, ResultTree, fits,
    group_of, list, new_id, too_large,
};
use crate::wire::signature::{self, SignatureKind, raw_text};
use crate::wire::{Draft, Malformed, Signature, body};
use serde_json::value::RawValue;
use std::collections::HashSet;

type Raw = Box<RawValue>;

/// Options of a call, which go before those of the signature.
#[derive(Debug, Clone, Default)]
pub(super) struct Over(pub Vec<(String, Raw)>);

impl Over {
    /// With this one too.
    pub(super) fn with(&self, name: &str, value: Raw) -> Over {
        let mut over = self.clone();
        signature::set(&mut over.0, name, value);
        over
    }

    /// Without these.
    fn without(mut self, names: &[&str]) -> Over {
        self.0.retain(|(name, _)| !names.contains(&name.as_str()));
        self
    }

    /// Takes one out.
    fn take(&mut self, name: &str) -> Option<Raw> {
        let at = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.remove(at).1).filter(|raw| raw.get() != "null")
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.take(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
    }
}

/// Makes calls; what they are comes together in `calls`.
pub(super) struct Caller<'a> {
    context: Context<'a>,
    pub(super) calls: Calls,
    depth: usize,
}

impl<'a> Caller<'a> {
    pub(super) fn new(context: Context<'a>) -> Caller<'a> {
        Caller { context, calls: Calls::default(), depth: 0 }
    }

    /// Calls `one` with `args` before its own arguments; gives its result. With `lists` it is listed
    /// among the children of the task that has ended.
    pub(super) fn call(
        &mut self,
        one: Signature,
        args: &[Raw],
        over: &Over,
        lists: bool,
    ) -> Result<Option<ResultTree>, Malformed> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Malformed(format!(
                "signatures are nested deeper than the limit of {DEPTH_MAX}"
            )));
        }
        let node = match one.kind {
            SignatureKind::Task => self.task(one, args, over, lists).map(Some),
            SignatureKind::Chain => self.chain(&one, args, over, lists),
            SignatureKind::Group => self.group(&one, args, over, lists).map(Some),
            SignatureKind::Chord => self.chord(&one, args, over, lists),
        };
        self.depth -= 1;
        node
    }

    fn task(
        &mut self,
        mut one: Signature,
        args: &[Raw],
        over: &Over,
        lists: bool,
    ) -> Result<ResultTree, Malformed> {
        one.options = merged(&one, over).0;
        if !one.immutable {
            one.args = args.iter().cloned().chain(one.args).collect();
        }
        let draft = draft(one, self.context)?;
        let node = ResultTree::task(&draft.id);
        self.send(draft)?;
        if lists {
            self.calls.children.push(node.clone());
        }
        Ok(node)
    }

    fn send(&mut self, draft: Draft) -> Result<(), Malformed> {
        self.calls.bytes += size(&draft);
        if self.calls.bytes > BYTES_MAX {
            return Err(too_large());
        }
        self.calls.drafts.push(draft);
        Ok(())
    }

    fn chain(
        &mut self,
        one: &Signature,
        args: &[Raw],
        over: &Over,
        lists: bool,
    ) -> Result<Option<ResultTree>, Malformed> {
        let mut options = plainly(&one.options, over);
        let link_error = options.take("link_error").map(|raw| signature::list(&raw));
        let link = options.take("link").map(|raw| signature::list(&raw));
        let last = Freeze {
            task_id: options.text("task_id"),
            group_id: options.text("group_id"),
            chord: options.take("chord"),
            root_id: options.text("root_id"),
            group_index: options.take("group_index"),
            depth: self.depth,
        };
        let args = &all_args(one, args)[..];
        let prepared = super::freeze::prepare(one.parts("tasks")?, args, last)?;
        let Some((mut steps, node)) = prepared else { return Ok(None) };
        if let Some(errbacks) = link_error {
            fits(steps.len(), errbacks.iter().map(|raw| raw.get().len()).sum())?;
            steps.iter_mut().for_each(|step| extend(step, "link_error", &errbacks));
        }
        extend(&mut steps[0], "link", &link.unwrap_or_default());
        let Some(first) = steps.pop() else { return Ok(None) };
        let is_alone = steps.is_empty();
        let rest: Vec<Raw> = steps.iter().map(Signature::write).collect();
        let before = options.take("chain").map(|raw| signature::list(&raw)).unwrap_or_default();
        let chain: Vec<Raw> = before.into_iter().chain(rest).collect();
        let options = options.with("chain", list(&chain));
        let called = self.call(first, &[], &options, lists)?;
        Ok(if is_alone { called } else { Some(node) })
    }

    fn group(
        &mut self,
        one: &Signature,
        args: &[Raw],
        over: &Over,
        lists: bool,
    ) -> Result<ResultTree, Malformed> {
        let args = all_args(one, args);
        let mut options = merged(one, over);
        let group_id = options.text("task_id").unwrap_or_else(new_id);
        let root_id = options.0.iter().find(|(name, _)| name == "root_id");
        let root_id = root_id.and_then(|(_, raw)| serde_json::from_str::<String>(raw.get()).ok());
        let chord = options.take("chord");
        let options = options.without(&["group_index"]).with("group_id", raw_text(&group_id));
        let mut members = Vec::new();
        super::freeze::flatten(one.parts("tasks")?, &mut members, 0)?;
        let (mut nodes, mut size, mut begun) = (Vec::new(), 0, None);
        let count = members.len();
        for (index, mut member) in members.into_iter().enumerate() {
            let own = Freeze {
                group_id: Some(group_id.clone()),
                root_id: root_id.clone(),
                group_index: Some(number(index)),
                depth: self.depth,
                ..Freeze::default()
            };
            nodes.extend(super::freeze::freeze(&mut member, own)?);
            size += super::freeze::descend(&member)?;
            let chord = chord.clone().or_else(|| member.option("chord").map(ToOwned::to_owned));
            let is_chord = chord.is_some();
            let options = match chord {
                Some(chord) => options.with("chord", chord),
                None => options.clone(),
            };
            if is_chord && index + 1 == count {
                // The last member may begin chords of its own.
                begun = Some(self.calls.chords.len());
                let group_id = group_id.clone();
                self.calls.chords.push(ChordStart { group_id, size, results: None });
            }
            self.call(member, &args, &options, false)?;
        }
        let node = ResultTree::Group { id: group_id, parent: None, members: nodes };
        if let Some(at) = begun
            && let ResultTree::Group { members, .. } = &node
            && members.iter().any(|member| matches!(member, ResultTree::Group { .. }))
            && let Some(begun) = self.calls.chords.get_mut(at)
        {
            begun.results = Some(node.write());
        }
        if lists {
            self.calls.children.push(node.clone());
        }
        Ok(node)
    }

    fn chord(
        &mut self,
        one: &Signature,
        args: &[Raw],
        over: &Over,
        lists: bool,
    ) -> Result<Option<ResultTree>, Malformed> {
        let args = &all_args(one, args)[..];
        let mut options = plainly(&one.options, over);
        let delay: Vec<(String, Raw)> = ["countdown", "eta"]
            .iter()
            .filter_map(|name| Some((name.to_string(), options.take(name)?)))
            .collect();
        let polling: Vec<(String, Raw)> = ["interval", "max_retries"]
            .iter()
            .filter_map(|name| Some((name.to_string(), options.take(name)?)))
            .collect();
        let task_id = options.text("task_id");
        let header = one.parts("header")?;
        // A client that waits knows the group of a header that has an id.
        let group_id = super::freeze::group_id_of(one)?.unwrap_or_else(new_id);
        let mut body = one.body()?;
        for option in ["link", "link_error"] {
            let calls = options.take(option).map(|raw| signature::list(&raw)).unwrap_or_default();
            extend(&mut body, option, &calls);
        }
        // Which chord the body counts for stays, as with a task: this chord may be in a group that
        // ends a member of another chord's header. Celery's worker loses that, and the other never ends.
        let counts = body.option("group_id").is_some();
        let is_of_body = |name: &str| name != "parent_id" && !(counts && name == "group_id");
        for (name, value) in options.0.iter().filter(|(name, _)| is_of_body(name)) {
            body.set(name, value.clone());
        }
        let root_id = body.text("root_id")?;
        let (group, depth) = (Some(group_id.clone()), self.depth);
        let own = Freeze { task_id, group_id: group, root_id, depth, ..Freeze::default() };
        let node = super::freeze::freeze(&mut body, own)?;
        let options = options.without(&["chain", "chord", "task_id"]);
        if header.is_empty() {
            self.call(body, &[list(&[])], &Over::default(), lists)?;
            return Ok(node);
        }
        let mut options = options.with("task_id", raw_text(&group_id)).with("chord", body.write());
        options.0.extend(delay);
        let header = self.call(group_of(&header), args, &options, lists)?;
        if self.context.chords == Chords::Polled
            && let Some(ResultTree::Group { members, .. }) = &header
        {
            let unlock = super::builtin::unlock(&group_id, &body, members, polling);
            self.send(draft(unlock, self.context)?)?;
        }
        Ok(node.map(|mut node| {
            header.into_iter().for_each(|header| node.set_first(header));
            node
        }))
    }
}

/// The arguments of a call, and behind them those of a canvas, which are for what it begins with.
fn all_args(one: &Signature, args: &[Raw]) -> Vec<Raw> {
    let given = if one.immutable { &[] } else { args };
    given.iter().chain(&one.args).cloned().collect()
}

/// The options of a signature with those of its call: what would change whom it counts for stays.
fn merged(one: &Signature, over: &Over) -> Over {
    let stamped = one.option("stamped_headers");
    let stamped: Vec<String> =
        stamped.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let stays = |name: &str| {
        let is_fixed = name == "group_id" || name == "stamped_headers";
        (is_fixed || stamped.iter().any(|stamp| stamp == name)) && one.option(name).is_some()
    };
    let mut options = one.options.clone();
    for (name, value) in over.0.iter().filter(|(name, value)| value.get() != "null" && !stays(name))
    {
        signature::set(&mut options, name, value.clone());
    }
    Over(options)
}

/// The same for a canvas, which gives up nothing of its own.
fn plainly(options: &[(String, Raw)], over: &Over) -> Over {
    let mut options = options.to_vec();
    for (name, value) in over.0.iter().filter(|(_, value)| value.get() != "null") {
        signature::set(&mut options, name, value.clone());
    }
    Over(options)
}

/// Adds to an option that is a list what it does not have.
pub(super) fn extend(one: &mut Signature, option: &str, more: &[Raw]) {
    if more.is_empty() {
        return;
    }
    if one.kind == SignatureKind::Chord
        && let Ok(mut body) = one.body()
    {
        // A chord's result is that of its body.
        extend(&mut body, option, more);
        signature::set(&mut one.kwargs, "body", body.write());
        return;
    }
    let mut all = one.option(option).map(signature::list).unwrap_or_default();
    add_new(&mut all, more);
    one.set(option, list(&all));
}

/// Adds what is not there yet.
pub(super) fn add_new(all: &mut Vec<Raw>, more: &[Raw]) {
    let mut known: HashSet<&str> = all.iter().map(|raw| raw.get()).collect();
    let new = more.iter().filter(|raw| known.insert(raw.get()));
    let new: Vec<Raw> = new.cloned().collect();
    all.extend(new);
}

/// About how many bytes a message has: what a signature may say in it, and what all have.
fn size(draft: &Draft) -> usize {
    let pairs = |pairs: &[(String, Raw)]| {
        pairs.iter().map(|(name, raw)| name.len() + raw.get().len() + 4).sum::<usize>()
    };
    let ids = [&draft.root_id, &draft.parent_id, &draft.group, &draft.shadow];
    body::encode(&draft.args, &draft.kwargs, &draft.embed).len()
        + draft.task.len()
        + draft.id.len()
        + draft.queue.len()
        + draft.reply_to.len()
        + ids.into_iter().flatten().map(String::len).sum::<usize>()
        + pairs(&draft.stamps)
        + pairs(&draft.properties)
        + pairs(&draft.headers)
        + MESSAGE_BYTES
}

fn number(value: usize) -> Raw {
    RawValue::from_string(value.to_string()).unwrap_or_default()
}
