//! Words and variables that are no text, where text is expected. The parser only says that there is
//! one; here it is found.

use super::command_line;
use super::variables::typed_commands;
use crate::link::address::Address;
use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};
use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;

/// What is expected.
pub(super) const EXPECTED: &str = "text in UTF-8";

/// The bytes of a file as text.
///
/// # Errors
/// The line of the first byte that is none, and what it is.
pub(super) fn text(bytes: &[u8]) -> Result<&str, (usize, String)> {
    str::from_utf8(bytes).map_err(|error| {
        let (before, rest) = bytes.split_at(error.valid_up_to());
        let lines = before.split(|byte| *byte == b'\n');
        let (line, at) = lines.fold((0, 1), |(number, _), line| (number + 1, line.len() + 1));
        let byte = rest.first().copied().unwrap_or_default();
        let why = format!(
            "found the byte 0x{byte:02X} as byte {at} of the line, expected {EXPECTED}; \
             `iconv -f ISO-8859-1 -t UTF-8` converts Latin-1"
        );
        (line, why)
    })
}

/// What is said of it; `None` if that is not the error.
pub(super) fn refuse(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::InvalidUtf8 {
        return None;
    }
    let words: Vec<OsString> = std::env::args_os().collect();
    let (name, found) = in_words(&words).or_else(in_environment)?;
    Some(format!("error: {name}: found bytes {found}, expected {EXPECTED}"))
}

/// The first word that the parser refuses: with it alone as it is, the error is the same.
fn in_words(words: &[OsString]) -> Option<(String, String)> {
    let wrong = |at: &usize| words[*at].to_str().is_none();
    let mut wrong = (1..words.len()).filter(wrong);
    let at = wrong.find(|at| {
        let as_text = |(n, word): (usize, &OsString)| match n == *at {
            true => word.clone(),
            false => word.to_string_lossy().into_owned().into(),
        };
        is_refused(words.iter().enumerate().map(as_text))
            && !is_refused(words.iter().map(|word| word.to_string_lossy().into_owned().into()))
    })?;
    let (word, program) = (words[at].as_encoded_bytes(), command_line());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let equals = word.iter().position(|byte| *byte == b'=');
    let (name, value) = match (word, equals) {
        ([b'-', b'-', ..], Some(equals)) => (text(&word[..equals]), &word[equals + 1..]),
        ([b'-', letter, value @ ..], _) if *letter != b'-' => (text(&[b'-', *letter]), value),
        _ => (words[at - 1].to_string_lossy().into_owned(), word),
    };
    let option = option_of(&program, &name).filter(|arg| arg.get_action().takes_values());
    // An option that only multi knows is one too.
    let is_option = option.is_some() || name.len() > 1 && name.starts_with('-') && name != "--";
    Some((if is_option { name } else { format!("argument {at}") }, shown(option, value)))
}

fn is_refused(words: impl Iterator<Item = OsString>) -> bool {
    let parsed = command_line().try_get_matches_from(words);
    parsed.is_err_and(|error| error.kind() == ErrorKind::InvalidUtf8)
}

/// The first variable of an option of this command that is no text.
fn in_environment() -> Option<(String, String)> {
    let program = command_line();
    let commands = typed_commands(&program);
    let args = commands.iter().flat_map(|command| command.get_arguments());
    let bytes = [TypeId::of::<PathBuf>(), TypeId::of::<OsString>()];
    args.filter(|arg| !bytes.iter().any(|kind| is_of(arg, *kind))).find_map(|arg| {
        let name = arg.get_env()?;
        let value = std::env::var_os(name).filter(|value| value.to_str().is_none())?;
        Some((name.to_string_lossy().into_owned(), shown(Some(arg), value.as_encoded_bytes())))
    })
}

/// An option by what is typed, of whatever command.
fn option_of<'a>(command: &'a Command, typed: &str) -> Option<&'a Arg> {
    let is_it = |arg: &&Arg| {
        let long = typed.strip_prefix("--");
        long.is_some_and(|long| {
            arg.get_long_and_visible_aliases().is_some_and(|all| all.contains(&long))
        }) || arg.get_short().is_some_and(|short| typed == format!("-{short}"))
    };
    let inner = || command.get_subcommands().find_map(|inner| option_of(inner, typed));
    command.get_arguments().find(is_it).or_else(inner)
}

fn is_of(arg: &Arg, kind: TypeId) -> bool {
    let parser: &ValueParser = arg.get_value_parser();
    parser.type_id() == kind
}

/// The bytes as they may be shown.
fn shown(arg: Option<&Arg>, bytes: &[u8]) -> String {
    match arg.is_some_and(|arg| is_of(arg, TypeId::of::<Address>())) {
        true => "\"**\"".into(),
        false => format!("\"{}\"", bytes.escape_ascii()),
    }
}
