//! Whether the tasks of a signature are known, and take their arguments.

use crate::canvas::SignatureKind;
use crate::canvas::builtin::{self, BuiltIn};
use crate::task::bind::bind;
use crate::task::set::Set;
use crate::wire::signature::{self, find};
use crate::wire::{Malformed, Signature};
use serde_json::value::RawValue;

/// Signatures within signatures, at most.
const DEPTH_MAX: usize = 64;

/// What a task gets before its own arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing.
    Nothing,
    /// The result of the one before it.
    Result,
    /// What an errback gets: an id, or the request, the exception and the traceback.
    Failure,
}

/// What is wrong with the call of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallFault {
    /// Nobody here defines it; the nearest names.
    Unknown(String, Vec<String>),
    /// It does not take these arguments: Python's sentence.
    Misfit(String, String),
    /// A signature that cannot be read.
    Malformed(String),
}

impl std::fmt::Display for CallFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallFault::Unknown(name, near) if near.is_empty() => {
                write!(f, "no task {name:?} in tasks.d")
            }
            CallFault::Unknown(name, near) => {
                write!(f, "no task {name:?} in tasks.d; did you mean {}?", near.join(" or "))
            }
            CallFault::Misfit(_, why) | CallFault::Malformed(why) => f.write_str(why),
        }
    }
}

impl From<Malformed> for CallFault {
    fn from(why: Malformed) -> CallFault {
        CallFault::Malformed(why.0)
    }
}

/// Checks calls by the tasks that are known.
#[derive(Debug, Clone, Copy)]
pub struct Checker<'a> {
    /// Those of `tasks.d`.
    pub tasks: &'a Set,
    /// Others may have tasks that are not among them.
    pub unregistered: bool,
}

impl Checker<'_> {
    /// The call of one task.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn call(&self, one: &Signature, before: Before) -> Result<(), CallFault> {
        let built_in = BuiltIn::named(&one.task);
        if let Some(map) = built_in.filter(|it| it.is_map() || *it == BuiltIn::Chunks) {
            return self.map(one, map);
        }
        let Some(task) = self.tasks.get(&one.task) else {
            if self.unregistered || built_in.is_some() {
                return Ok(());
            }
            let near = self.tasks.nearest(&one.task).into_iter().map(String::from).collect();
            return Err(CallFault::Unknown(one.task.clone(), near));
        };
        let counts: &[usize] = match before {
            _ if one.immutable => &[0],
            Before::Nothing => &[0],
            Before::Result => &[1],
            Before::Failure => &[3, 1],
        };
        let mut found = Ok(());
        for count in counts {
            let mut args = vec![RawValue::NULL.to_owned(); *count];
            args.extend(one.args.iter().cloned());
            found = self.bound(&task.name, &args, &one.kwargs);
            if found.is_ok() {
                break;
            }
        }
        found
    }

    /// A map, by its first item that does not fit.
    fn map(&self, one: &Signature, map: BuiltIn) -> Result<(), CallFault> {
        let Some(name) = builtin::inner(&one.args, &one.kwargs) else {
            return Err(CallFault::Malformed(format!("{}: it names no task", one.task)));
        };
        self.call(
            &Signature { immutable: true, ..Signature::task(&name, Vec::new(), Vec::new()) },
            Before::Nothing,
        )
        .or_else(|fault| match fault {
            CallFault::Misfit(..) => Ok(()),
            unknown => Err(unknown),
        })?;
        let Some(items) = find(&one.kwargs, "it").and_then(|it| builtin::items(it).ok()) else {
            return Ok(());
        };
        for item in items {
            let args = match map {
                BuiltIn::Map => vec![item],
                _ => match builtin::items(&item) {
                    Ok(args) => args,
                    Err(why) => return Err(CallFault::Misfit(name, why.repr(usize::MAX))),
                },
            };
            self.bound(&name, &args, &[])?;
        }
        Ok(())
    }

    fn bound(
        &self,
        name: &str,
        args: &[Box<RawValue>],
        kwargs: &[(String, Box<RawValue>)],
    ) -> Result<(), CallFault> {
        let params = self.tasks.get(name).and_then(|task| task.params.as_deref());
        bind(name, params, args, kwargs).map(drop).map_err(|exception| {
            let why = exception.exc_message.first().and_then(|why| why.as_str());
            CallFault::Misfit(name.into(), format!("{}: {}", exception.exc_type, why.unwrap_or("")))
        })
    }

    /// All calls of a signature: what is wrong with any.
    pub fn signature(&self, one: &Signature, before: Before) -> Vec<CallFault> {
        let mut found = Vec::new();
        if let Err(why) = self.within(one, before, 0, &mut found) {
            found.push(why.into());
        }
        found
    }

    fn within(
        &self,
        one: &Signature,
        before: Before,
        depth: usize,
        found: &mut Vec<CallFault>,
    ) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            let why = format!("signatures are nested deeper than the limit of {DEPTH_MAX}");
            return Err(Malformed(why));
        }
        let depth = depth + 1;
        match one.kind {
            SignatureKind::Task => found.extend(self.call(one, before).err()),
            SignatureKind::Chain => {
                let mut before = before;
                for part in one.parts("tasks")? {
                    self.within(&part, before, depth, found)?;
                    before = Before::Result;
                }
            }
            SignatureKind::Group => {
                for part in one.parts("tasks")? {
                    self.within(&part, before, depth, found)?;
                }
            }
            SignatureKind::Chord => {
                for part in one.parts("header")? {
                    self.within(&part, before, depth, found)?;
                }
                self.within(&one.body()?, Before::Result, depth, found)?;
            }
        }
        for (option, before) in [("link", Before::Result), ("link_error", Before::Failure)] {
            for raw in one.option(option).map(signature::list).unwrap_or_default() {
                self.within(&Signature::read(&raw)?, before, depth, found)?;
            }
        }
        Ok(())
    }
}
