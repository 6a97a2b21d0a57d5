//! Options and variables with empty values. An empty variable is one that was unset with the means of
//! a compose file: nobody said anything. An empty option is mostly the work of such a variable in a
//! script, and its user expects an effect: it is refused.

use clap::builder::{OsStr, Resettable};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// The options whose empty value has a meaning, which their help tells.
const MEANT: [&str; 2] = ["pidfile", "message"];

/// The command, with variables that are empty taken for unset ones.
pub(super) fn without_unset(command: Command) -> Command {
    let unset = |arg: Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        match value.is_some_and(|value| value.is_empty()) {
            true => arg.env(Resettable::<OsStr>::Reset),
            false => arg,
        }
    };
    command.mut_args(unset).mut_subcommands(without_unset)
}

/// Refuses the first option of `program` with an empty value.
///
/// # Errors
/// There is one.
pub(super) fn refuse(program: &mut Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    match option(program, matches) {
        Some(said) => Err(program.error(ErrorKind::ValueValidation, said)),
        None => Ok(()),
    }
}

fn option(command: &Command, matches: &ArgMatches) -> Option<String> {
    let typed = |arg: &&Arg| {
        let id = arg.get_id().as_str();
        let values = matches.try_get_raw(id).ok().flatten();
        !arg.is_positional()
            && arg.get_action().takes_values()
            && !MEANT.contains(&id)
            && values.is_some_and(|mut values| values.any(|value| value.is_empty()))
            && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    if let Some(arg) = command.get_arguments().find(typed) {
        let name = arg.get_long().map_or_else(
            || format!("-{}", arg.get_short().unwrap_or_default()),
            |long| format!("--{long}"),
        );
        let value = arg.get_value_names().and_then(|names| names.first());
        let value = value.map_or_else(|| arg.get_id().as_str().to_uppercase(), ToString::to_string);
        return Some(format!("{name}: found nothing, expected {value}"));
    }
    let (name, matches) = matches.subcommand()?;
    option(command.find_subcommand(name)?, matches)
}
