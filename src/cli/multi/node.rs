//! One node: its name, its files, and the command line that starts it.

use super::super::exit::Error;
use super::parse::{OptionList, join, split};
use crate::config::names;
use crate::link::address::redact_all;
use std::path::{Path, PathBuf};

/// Where a node has its pidfile unless it is said: Celery's place, with our name.
pub(super) const PIDFILE: &str = "/var/run/qworker/%n.pid";

/// Where a node has its log unless it is said.
pub(super) const LOGFILE: &str = "/var/log/qworker/%n%I.log";

/// Options of the program: they stand before the command `worker`.
const OF_PROGRAM: &[&str] = &[
    "-A",
    "--app",
    "-b",
    "--broker",
    "--result-backend",
    "--loader",
    "--config",
    "--workdir",
    "-C",
    "--no-color",
    "-q",
    "--quiet",
];

/// Options whose value is an address, in which `%40` is a character.
const ADDRESSES: &[&str] = &["-b", "--broker", "--result-backend"];

/// Options whose value is a path that may begin with `~`.
const PATHS: &[&str] = &["--pidfile", "--logfile", "--workdir"];

/// Options whose value the worker fills in as well.
const FILES: &[&str] = &["--pidfile", "--logfile"];

/// A worker that may run.
#[derive(Debug)]
pub(super) struct Node {
    /// `name@host`.
    pub(super) name: String,
    /// The program that it runs.
    pub(super) program: String,
    /// Options of the program, `worker --detach`, options of the worker.
    argv: Vec<String>,
    /// What stands behind `--`.
    behind: Vec<String>,
    /// What is put at the end of all.
    append: Option<String>,
    /// Its options, with everything filled in.
    options: OptionList,
    /// As it will be once the worker has its own letters filled in; absolute.
    pub(super) pidfile: PathBuf,
    /// As above.
    pub(super) logfile: PathBuf,
}

impl Node {
    /// What starts `name` with these options.
    ///
    /// # Errors
    /// A letter behind a percent sign that means nothing.
    pub(super) fn new(
        name: String,
        mut options: OptionList,
        program: &str,
        behind: &[String],
        append: Option<&str>,
    ) -> Result<Node, Error> {
        // The worker fills in its letters again.
        options.set("-n", Some(name.replace('%', "%%")));
        for (option, default) in [("--pidfile", PIDFILE), ("--logfile", LOGFILE)] {
            if options.get(option).is_none() {
                options.set(option, Some(default.into()));
            }
        }
        let other = options.get("--executable").cloned().flatten();
        let program = other.map_or_else(|| program.to_string(), |typed| home(&typed));
        let (mut of_program, mut of_worker) = (Vec::new(), Vec::new());
        let mut filled = OptionList::default();
        for (option, value) in options.iter() {
            let mut value = match value {
                Some(value) if option == "-n" => Some(value.to_string()),
                // So it does in these two.
                Some(value) if FILES.contains(&option) => {
                    Some(expand_in(option, value, &name.replace('%', "%%"))?)
                }
                Some(value) => Some(expand_in(option, value, &name)?),
                None => None,
            };
            if PATHS.contains(&option) {
                value = value.map(|path| home(&path));
            }
            filled.set(option, value.clone());
            let words = words_of(option, value);
            match OF_PROGRAM.contains(&option) {
                // Each is put right behind the program, as Celery does it.
                true => of_program = [words, of_program].concat(),
                false => of_worker.extend(words),
            }
        }
        let path = |option: &str| path_of(&filled, option, &name);
        let (pidfile, logfile) = (path("--pidfile")?, path("--logfile")?);
        let command = ["worker", "--detach"].map(String::from).to_vec();
        let argv = [of_program, command, of_worker].concat();
        let append = append.map(|text| expand(text, &name)).transpose()?;
        let behind = behind.to_vec();
        Ok(Node { name, program, argv, behind, append, options: filled, pidfile, logfile })
    }

    /// The part before the `@`.
    pub(super) fn short(&self) -> &str {
        short(&self.name)
    }

    /// The value of an option.
    pub(super) fn value(&self, option: &str) -> Option<&str> {
        self.options.get(option)?.as_deref()
    }

    /// `template` with this node's names in it.
    ///
    /// # Errors
    /// As [`expand`].
    pub(super) fn expand(&self, template: &str) -> Result<String, Error> {
        expand(template, &self.name)
    }

    /// The command line without the program, as Celery prints it: with a blank where nothing
    /// stands behind `--`. For people to read: passwords of addresses are hidden.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{} {}", join(&self.argv), join(&self.behind));
        if let Some(text) = &self.append {
            line.push(' ');
            line.push_str(text);
        }
        redact_all(&line)
    }

    /// The words of the command line behind the program; `replacing` the worker of this pid.
    ///
    /// # Errors
    /// `--append` has a quote that is not closed.
    pub(super) fn words(&self, replacing: Option<i32>) -> Result<Vec<String>, Error> {
        let replacing = replacing.map(|pid| format!("--replace={pid}"));
        let append = self.append.as_deref().unwrap_or_default();
        let append = split(append).map_err(|why| Error::usage(format!("--append {why}")))?;
        let argv = self.argv.iter().cloned().chain(replacing);
        Ok(argv.chain(self.behind.iter().cloned()).chain(append).collect())
    }
}

/// The part of a node's name before the `@`.
pub(super) fn short(node: &str) -> &str {
    node.split_once('@').map_or(node, |(name, _)| name)
}

/// `--name=value`, or `-n` and `value`.
fn words_of(option: &str, value: Option<String>) -> Vec<String> {
    match value.filter(|value| !value.is_empty()) {
        None => vec![option.into()],
        Some(value) if option.starts_with("--") => vec![format!("{option}={value}")],
        Some(value) => vec![option.into(), value],
    }
}

/// Where the worker of these options will have this file.
fn path_of(options: &OptionList, option: &str, name: &str) -> Result<PathBuf, Error> {
    let value = |option| options.get(option).cloned().flatten().unwrap_or_default();
    let typed = value(option);
    if typed.is_empty() {
        return Err(Error::usage(format!("{option} wants a value")));
    }
    let path =
        names::expand(&typed, name).map_err(|why| Error::usage(format!("{option} {why}")))?;
    // The worker changes to its folder first.
    let path = Path::new(&value("--workdir")).join(path);
    std::path::absolute(&path)
        .map_err(|error| Error::usage(format!("{option} {}: {error}", path.display())))
}

/// As [`expand`], but for the encoded characters of addresses.
fn expand_in(option: &str, value: &str, node: &str) -> Result<String, Error> {
    if !ADDRESSES.contains(&option) {
        return expand(value, node).map_err(|error| Error::usage(format!("{option} {error}")));
    }
    let mut parts = value.split('%');
    let mut address = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let encoded = part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
        match encoded {
            true => address.extend(["%", part]),
            false => address.push_str(&expand(&format!("%{part}"), node)?),
        }
    }
    Ok(address)
}

/// `template` with `%n` and `%N` the name part of the node, `%d` its host, `%h` and `%p` the
/// whole name; `%i` and `%I` are left for the worker. Celery's letters for `multi`, which are not
/// the worker's.
///
/// # Errors
/// Another letter.
pub(super) fn expand(template: &str, node: &str) -> Result<String, Error> {
    let (name, host) = node.split_once('@').unwrap_or((node, ""));
    fill(template, |letter| match letter {
        'n' | 'N' => Some(name),
        'd' => Some(host),
        'h' | 'p' => Some(node),
        'i' => Some("%i"),
        'I' => Some("%I"),
        _ => None,
    })
}

/// `typed` as part of a node's name, with `%h` this host, `%n` the first part of its name and `%d`
/// the rest of it.
///
/// # Errors
/// Another letter.
pub(super) fn expand_name(typed: &str, host: &str) -> Result<String, Error> {
    let (name, domain) = host.split_once('.').unwrap_or((host, ""));
    fill(typed, |letter| match letter {
        'h' => Some(host),
        'n' => Some(name),
        'd' => Some(domain),
        'i' => Some("0"),
        'I' => Some(""),
        _ => None,
    })
}

/// Replaces letters behind percent signs; a percent sign before anything else is one.
fn fill<'a>(template: &str, meaning: impl Fn(char) -> Option<&'a str>) -> Result<String, Error> {
    let mut filled = String::new();
    let mut letters = template.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_word = |next: &char| next.is_alphanumeric() || matches!(next, '_' | '%');
        match letters.next_if(|next| letter == '%' && is_word(next)) {
            None => filled.push(letter),
            Some('%') => filled.push('%'),
            Some(next) => {
                filled.push_str(meaning(next).ok_or_else(|| {
                    Error::usage(format!("{template}: %{next} means nothing here"))
                })?)
            }
        }
    }
    Ok(filled)
}

/// `path` with `~` replaced by the user's home folder.
fn home(path: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_default();
    match path.strip_prefix('~') {
        Some(rest) if !home.is_empty() && (rest.is_empty() || rest.starts_with('/')) => {
            format!("{home}{rest}")
        }
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_celerys() {
        let all = expand("%n-%N-%h-%d-%i-%I-%p-%%-% %", "w1@box.lan").unwrap();
        assert_eq!(all, "w1-w1-w1@box.lan-box.lan-%i-%I-w1@box.lan-%-% %");
        assert!(expand("%x", "w1@box").unwrap_err().message.contains("%x"));
        assert_eq!(expand_name("a-%n@%d.%h", "box.lan").unwrap(), "a-box@lan.box.lan");
    }

    #[test]
    fn an_address_keeps_its_encoded_characters() {
        let expand = |value| expand_in("-b", value, "w1@box").unwrap();
        assert_eq!(expand("redis://:p%40ss%2F@h/%n"), "redis://:p%40ss%2F@h/w1");
        assert_eq!(expand("sqlite:///%n.db"), "sqlite:///w1.db");
    }
}
