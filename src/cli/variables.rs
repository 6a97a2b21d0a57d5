//! Variables of the environment: which there are, which of them has given what an error blames an
//! option for, and which ones nobody reads.

use super::command_line;
use super::output::ToUser;
use crate::config::diagnostic::Weight;
use crate::config::settings::TABLE;
use crate::config::{Diagnostic, Faults, load};
use crate::guard;
use crate::runner::context::FACTS;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use std::borrow::Cow;
use std::sync::OnceLock;

/// With which all of them begin.
const PREFIX: &str = "QWORKER_";

/// In the names of variables that Kubernetes makes for a service named qworker.
const OF_SERVICES: [&str; 2] = ["_SERVICE_", "_PORT"];

/// Options that variables have given, as an error names them, and those variables. A process has one
/// command line.
static GIVEN: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// Notes which options of a command line variables have given.
pub(super) fn remember(program: &Command, matches: &ArgMatches) {
    let given = levels(program, matches).into_iter().flat_map(|(command, matches)| {
        let of_environment = |arg: &&Arg| source(arg, matches) == Some(ValueSource::EnvVariable);
        let given: Vec<(String, String)> = command
            .get_arguments()
            .filter(of_environment)
            .filter_map(|arg| Some((format!("--{}", arg.get_long()?), variable(arg)?)))
            .collect();
        given
    });
    // It is called once.
    let _ = GIVEN.set(given.collect());
}

/// A message that begins with an option: with the variable in its place, if that has given it.
pub(super) fn named(message: &str) -> Cow<'_, str> {
    let is_word = |rest: &&str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    let given = GIVEN.get().into_iter().flatten();
    let mut found = given.filter_map(|(option, variable)| {
        Some((variable, message.strip_prefix(option.as_str()).filter(is_word)?))
    });
    match found.next() {
        Some((variable, rest)) => Cow::Owned(format!("{variable}{rest}")),
        None => Cow::Borrowed(message),
    }
}

/// An error of the parser: with variables in place of the options that they have given.
pub(super) fn blame(mut error: clap::Error) -> clap::Error {
    let mut program = command_line();
    // Only then its options can be shown.
    program.build();
    let typed = without_variables(command_line()).try_get_matches();
    let places = [ContextKind::InvalidArg, ContextKind::PriorArg];
    // Then the error is in what was typed.
    let same = |other: &clap::Error| {
        other.kind() == error.kind()
            && places.iter().all(|place| other.get(*place) == error.get(*place))
    };
    if typed.as_ref().is_err_and(same) {
        return error;
    }
    let commands = typed_commands(&program);
    for place in places {
        let Some(ContextValue::String(shown)) = error.get(place) else { continue };
        let args = commands.iter().flat_map(|command| command.get_arguments());
        let blamed = args.into_iter().find(|arg| arg.to_string() == *shown);
        let is_typed = |arg: &Arg| {
            let levels = typed.iter().flat_map(|matches| levels(&program, matches));
            levels.into_iter().any(|(command, matches)| {
                command.get_arguments().any(|one| one.get_id() == arg.get_id())
                    && source(arg, matches) == Some(ValueSource::CommandLine)
            })
        };
        let variable = blamed.filter(|arg| !is_typed(arg)).and_then(variable);
        if let Some(variable) = variable.filter(|name| is_set(name)) {
            error.insert(place, ContextValue::String(variable));
        }
    }
    error
}

/// The program, and the commands in it that the words of this process name.
pub(super) fn typed_commands(program: &Command) -> Vec<&Command> {
    let mut commands = vec![program];
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    for word in words.iter().filter_map(|word| word.to_str()) {
        let inner = commands.last().and_then(|command| command.find_subcommand(word));
        commands.extend(inner);
    }
    commands
}

/// Each command with what was found for it.
fn levels<'a>(program: &'a Command, matches: &'a ArgMatches) -> Vec<(&'a Command, &'a ArgMatches)> {
    let mut levels = vec![(program, matches)];
    while let Some((command, matches)) = levels.last()
        && let Some((name, inner)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        levels.push((command, inner));
    }
    levels
}

fn source(arg: &Arg, matches: &ArgMatches) -> Option<ValueSource> {
    // Help and the like have no value.
    let is_known = matches.try_contains_id(arg.get_id().as_str()).unwrap_or(false);
    is_known.then(|| matches.value_source(arg.get_id().as_str())).flatten()
}

fn variable(arg: &Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

fn without_variables(command: Command) -> Command {
    command.mut_args(|arg| arg.env(None::<&'static str>)).mut_subcommands(without_variables)
}

/// All variables of ours: of options, of settings, and those that we set for others.
fn known() -> Vec<String> {
    fn of_options(command: &Command, names: &mut Vec<String>) {
        names.extend(command.get_arguments().filter_map(variable));
        command.get_subcommands().for_each(|inner| of_options(inner, names));
    }
    let mut names: Vec<String> =
        TABLE.iter().flat_map(|setting| load::variables(setting.name)).collect();
    of_options(&command_line(), &mut names);
    names.extend(FACTS.iter().chain(&guard::VARIABLES).map(|name| (*name).to_string()));
    names
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Variables that look like ours, and that nobody reads: a warning for each. An empty one is one that was
/// unset.
pub(super) fn unread() -> Vec<Diagnostic> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with(PREFIX) && is_set(name)).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let known = known();
    names.retain(|name| !known.contains(name));
    names.sort();
    // All have the prefix in common, which says nothing.
    let known: Vec<&str> = known.iter().filter_map(|name| name.strip_prefix(PREFIX)).collect();
    let mut faults = Faults::new("environment");
    for name in names {
        let near = crate::config::nearest(&name[PREFIX.len()..], known.iter().copied(), 1);
        let near = near.first().map(|near| format!("{PREFIX}{near}"));
        if near.is_none() && OF_SERVICES.iter().any(|part| name.contains(part)) {
            continue;
        }
        faults.within(&name, |faults| {
            let fault = faults.add(0, "unknown variable, which means nothing here");
            fault.weight = Weight::Warning;
            fault.hint = near;
        });
    }
    faults.into_vec()
}

/// Tells the user of those.
pub(super) fn warn(out: &ToUser) {
    unread().iter().for_each(|fault| out.say(&format!("Warning: {fault}")));
}
