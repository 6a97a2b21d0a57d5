//! From words to nodes: counts, names and ranges, and whose option is whose.

use super::super::exit::Error;
use super::node::{Node, expand_name, short};
use super::parse::{OptionList, ParsedWords};
use crate::bounds::NODES_MAX;
use crate::config::{names, units};
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// What the host is like that the nodes are for.
#[derive(Debug)]
pub(super) struct HostInfo {
    /// Its name.
    pub(super) name: String,
    /// The program that nodes run unless it is said.
    pub(super) program: String,
}

/// A node before its options are put together.
#[derive(Debug)]
struct Named {
    /// What it was called, or its number.
    typed: String,
    /// `name@host`.
    full: String,
    /// In Celery's words: which one of those that were named, or which number.
    index: usize,
}

/// How the nodes were named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamingForm {
    /// `3`: numbers from 1 on, so an option of a larger one is a mistake.
    Count(usize),
    /// `2-4`: some of those numbers; options may be of the others.
    Numbers,
    /// `foo bar`.
    Names(usize),
}

/// The nodes that the words name, in their order.
///
/// # Errors
/// No nodes, or too many, or one twice; an option of a node that is not there.
pub(super) fn nodes(words: &ParsedWords, host: &HostInfo) -> Result<Vec<Node>, Error> {
    let mut common = words.options.clone();
    let short_host = common.take("-n").flatten();
    let hostname = common.take("--hostname").flatten().or(short_host);
    let hostname = hostname.unwrap_or_else(|| host.name.clone());
    let append = common.take("--append").flatten();
    let prefix = common.take("--prefix").flatten().unwrap_or_default();
    let range_prefix = common.take("--range-prefix").flatten().filter(|text| !text.is_empty());
    let suffix = common.take("--suffix").flatten().filter(|text| !text.is_empty());
    let suffix = suffix.unwrap_or(hostname);
    let suffix = if ["\"\"", "''"].contains(&suffix.as_str()) { String::new() } else { suffix };
    if common.take("--cmd").is_some() {
        return Err(Error::usage("--cmd: a node is always `qworker worker --detach`")
            .hint("another program of that kind is named with --executable"));
    }
    let (form, typed) = form(&words.names)?;
    let prefix = match form {
        NamingForm::Names(_) => prefix,
        _ => range_prefix.unwrap_or_else(|| "celery".into()),
    };
    let named = named(form, typed, &prefix, &suffix, &host.name)?;
    let layers = layers(words, form, &named)?;
    let program = &host.program;
    let node = |(node, layers): (Named, Vec<&OptionList>)| {
        let mut options = common.clone();
        layers.into_iter().for_each(|layer| options.add(layer));
        Node::new(node.full, options, program, &words.behind, append.as_deref())
    };
    named.into_iter().zip(layers).map(node).collect()
}

/// One word of digits is a number of nodes; of digits, hyphens and commas some of them.
fn form(names: &[String]) -> Result<(NamingForm, Vec<String>), Error> {
    let nobody = "no node is named: give a number of nodes, or their names";
    let [only] = names else {
        return match names.is_empty() {
            true => Err(Error::usage(nobody)),
            false => Ok((NamingForm::Names(names.len()), names.to_vec())),
        };
    };
    if let Some(count) = units::whole(only).and_then(|count| usize::try_from(count).ok()) {
        return match count {
            0 => Err(Error::usage(nobody)),
            _ => Ok((NamingForm::Count(count), numbers(1..=count)?)),
        };
    }
    let parts: Option<Vec<_>> = only.split(',').map(range).collect();
    let Some(parts) = parts else { return Ok((NamingForm::Names(1), names.to_vec())) };
    let mut all = Vec::new();
    for part in parts {
        if *part.start() == 0 || part.is_empty() {
            return Err(Error::usage(format!("{only}: expected ascending node numbers, from 1")));
        }
        all.extend(numbers(part)?);
    }
    Ok((NamingForm::Numbers, all))
}

fn numbers(range: RangeInclusive<usize>) -> Result<Vec<String>, Error> {
    if range.end() - range.start() >= NODES_MAX {
        return Err(Error::usage(format!("at most {NODES_MAX} nodes")));
    }
    Ok(range.map(|number| number.to_string()).collect())
}

/// `2-4`, or `3`.
fn range(text: &str) -> Option<RangeInclusive<usize>> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok());
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    Some(number(from)??..=number(to)??)
}

fn named(
    form: NamingForm,
    typed: Vec<String>,
    prefix: &str,
    suffix: &str,
    host: &str,
) -> Result<Vec<Named>, Error> {
    let mut seen = HashSet::new();
    let mut named = Vec::new();
    for (at, typed) in typed.into_iter().enumerate() {
        let full = match typed.contains('@') {
            true => expand_name(&typed, host)?,
            false => expand_name(&format!("{prefix}{typed}@{suffix}"), host)?,
        };
        names::check(&full).map_err(Error::usage)?;
        if !seen.insert(full.clone()) {
            return Err(Error::usage(format!("{full} is named twice")));
        }
        let number = typed.parse().ok().filter(|_| !matches!(form, NamingForm::Names(_)));
        named.push(Named { typed, full, index: number.unwrap_or(at + 1) });
    }
    Ok(named)
}

/// For each node, the options that are its own, the strongest last. In Celery's order: a list
/// or range is stronger than a name or number alone; where nodes are named, a number is stronger
/// than a name.
fn layers<'a>(
    words: &'a ParsedWords,
    form: NamingForm,
    named: &[Named],
) -> Result<Vec<Vec<&'a OptionList>>, Error> {
    let mut all = Vec::new();
    for (whose, options) in &words.of_some {
        all.push((Whose::parse(whose, form, named)?, options));
    }
    let of = |node: &Named| {
        let rank =
            |(whose, options): &(Whose, &'a OptionList)| Some((whose.rank(node, form)?, *options));
        let mut own: Vec<(usize, &OptionList)> = all.iter().filter_map(rank).collect();
        own.sort_by_key(|(rank, _)| *rank);
        own.into_iter().map(|(_, options)| options).collect()
    };
    Ok(named.iter().map(of).collect())
}

/// Who an option is for: what stands behind its colon.
#[derive(Debug, Clone)]
struct Whose(Vec<NodeSelector>);

#[derive(Debug, Clone)]
enum NodeSelector {
    Name(String),
    Numbers(RangeInclusive<usize>),
}

impl Whose {
    fn parse(text: &str, form: NamingForm, named: &[Named]) -> Result<Whose, Error> {
        let no_node = |number: &str| Error::usage(format!("No node at index '{number}'"));
        let mut parts = Vec::new();
        for part in text.split(',') {
            let name = NodeSelector::Name(part.into());
            let is_name = !matches!(form, NamingForm::Count(_)) && part.contains('-');
            let is_name = is_name && named.iter().any(|node| name.names(node));
            let Some(range) = range(part).filter(|_| !is_name) else {
                parts.push(name);
                continue;
            };
            let (from, to) = (*range.start(), *range.end());
            let alone = from == to;
            if alone && from == 0 {
                return Err(Error::usage(format!("Indexes start at 1 got: '{part}'")));
            }
            if range.is_empty() {
                return Err(Error::usage(format!("{part}: expected ascending node numbers")));
            }
            // A range may be of more nodes than there are, as in Celery; a number is a mistake.
            let known = match form {
                NamingForm::Count(count) | NamingForm::Names(count) => from <= count,
                NamingForm::Numbers => true,
            };
            let in_list = matches!(form, NamingForm::Count(_)) && text.contains(',');
            if alone && !known && !in_list {
                return Err(no_node(part));
            }
            parts.push(NodeSelector::Numbers(range));
        }
        Ok(Whose(parts))
    }

    /// How strong it is for this node, if it is for it at all.
    fn rank(&self, node: &Named, form: NamingForm) -> Option<usize> {
        let single = self.0.len() == 1;
        let rank = |part: &NodeSelector| match (part, form) {
            (NodeSelector::Name(_), _) => part.names(node).then_some(usize::from(!single)),
            (NodeSelector::Numbers(range), _) if !range.contains(&node.index) => None,
            (NodeSelector::Numbers(range), form) => {
                let alone = single && range.start() == range.end();
                let by_name = if matches!(form, NamingForm::Names(_)) { 2 } else { 0 };
                Some(by_name + usize::from(!alone))
            }
        };
        self.0.iter().filter_map(rank).max()
    }
}

impl NodeSelector {
    /// Is it the name of this node: as it was typed, its name part, or all of it?
    fn names(&self, node: &Named) -> bool {
        let NodeSelector::Name(name) = self else { return false };
        *name == node.typed || *name == node.full || name == short(&node.full)
    }
}
