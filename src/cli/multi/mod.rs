//! `qworker multi`: several workers of this host. Its language is Celery's; what is behind a
//! command is sorted in `words`, made nodes in `nodes`, and done here.

mod console;
mod folders;
mod lock;
mod node;
mod nodes;
mod parse;
mod restart;
mod rolling;
mod signal;
mod start;
mod status;
mod stop;
mod wait_limit;

use super::app::GlobalOptions;
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::config::kind;
use console::Console;
use nix::sys::signal::Signal;
use node::Node;
use nodes::HostInfo;
use parse::{KnownOptions, ParsedWords};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use wait_limit::WaitLimit;

const USAGE: &str = "\
usage: qworker multi start <node1 node2 nodeN|range> [worker options]
       qworker multi stop <n1 n2 nN|range> [-SIG (default: -TERM)]
       qworker multi stopwait <n1 n2 nN|range> [-SIG (default: -TERM)]
       qworker multi restart <n1 n2 nN|range> [-SIG] [worker options]
       qworker multi kill <n1 n2 nN|range>
       qworker multi status <n1 n2 nN|range> [--json]

       qworker multi show <n1 n2 nN|range> [worker options]
       qworker multi get hostname <n1 n2 nN|range> [worker options]
       qworker multi names <n1 n2 nN|range>
       qworker multi expand template <n1 n2 nN|range>
       qworker multi help

additional options:

    * --nosplash:   Don't display program info.
    * --quiet:      Don't show as much output.
    * --verbose:    Show more output.
    * --no-color:   Don't display colors.
";

/// Options that are for `multi` itself, and whether they take a value.
const OWN: &[(&str, bool)] = &[
    ("--append", true),
    ("--cmd", true),
    ("--executable", true),
    ("--json", false),
    ("--logfile", true),
    ("--nosplash", false),
    ("--pidfile", true),
    ("--prefix", true),
    ("--range-prefix", true),
    ("--rolling", false),
    ("--suffix", true),
    ("--timeout", true),
    ("--verbose", false),
    ("-f", true),
    ("-p", true),
];

/// Options with the same meaning, of which the second is used.
const SAME: &[(&str, &str)] = &[("-p", "--pidfile"), ("-f", "--logfile")];

#[derive(Debug, clap::Args)]
#[command(after_help = include_str!("help.txt"))]
pub(super) struct Args {
    /// A command, node names, and worker options
    #[arg(value_name = "COMMAND", allow_hyphen_values = true, trailing_var_arg = true)]
    words: Vec<String>,
}

pub(super) fn run(args: Args, global: &GlobalOptions, mut out: ToUser) -> Result<Exit, Error> {
    let mut typed = args.words;
    let global = of_program(global, typed.len())?;
    let behind = typed.iter().position(|word| word == "--").unwrap_or(typed.len());
    let behind = typed.split_off(behind);
    let mut has = |names: &[&str]| {
        let before = typed.len();
        typed.retain(|word| !names.contains(&word.as_str()));
        before > typed.len()
    };
    out.quiet |= has(&["--quiet", "-q"]);
    let no_color = has(&["--no-color"]);
    out.color &= !no_color;
    let console = Console { out, nosplash: has(&["--nosplash"]), verbose: has(&["--verbose"]) };
    if has(&["--help", "-h"]) {
        console.out.write(&help());
        return Ok(Exit::Ok);
    }
    let command = match typed.first() {
        Some(command) if !command.starts_with('-') => typed.remove(0),
        _ => return Err(misused(&console, "no command is named")),
    };
    let request = Invocation { words: typed, behind, global, console };
    match command.as_str() {
        "start" => request.start(),
        "stop" => request.stop(false),
        "stopwait" | "stop_verify" => request.stop(true),
        "restart" => request.restart(),
        "kill" => request.kill(),
        "status" => request.status(),
        "names" => request.names(),
        "expand" => request.expand(),
        "show" => request.show(),
        "get" => request.get(),
        "help" => {
            console.out.write(&help());
            Ok(Exit::Ok)
        }
        _ => Err(misused(&console, &format!("Invalid command: {command}"))),
    }
}

/// The long help of this command.
fn help() -> String {
    let mut program = super::command_line();
    program.build();
    program
        .find_subcommand_mut("multi")
        .map(|multi| multi.render_long_help().to_string())
        .unwrap_or_default()
}

fn misused(console: &Console, why: &str) -> Error {
    console.out.say(USAGE);
    Error::usage(why)
}

/// What was typed, in its parts.
struct Invocation {
    /// Behind the command.
    words: Vec<String>,
    /// `--` and what stands behind it.
    behind: Vec<String>,
    /// Before `multi`.
    global: Vec<String>,
    console: Console,
}

/// Signals that end a node: it makes sense to wait for what comes of them.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL];

impl Invocation {
    fn start(self) -> Result<Exit, Error> {
        let (nodes, wait_limit) = self.of_their_own()?;
        start::start(&nodes, wait_limit, &self.console)
    }

    fn stop(mut self, wait: bool) -> Result<Exit, Error> {
        let signal = self.signal(wait)?;
        let (nodes, wait_limit) = self.of_their_own()?;
        stop::stop(&nodes, signal, wait.then_some(wait_limit), &self.console)
    }

    fn restart(mut self) -> Result<Exit, Error> {
        let signal = self.signal(true)?;
        let (nodes, wait_limit) = self.of_their_own()?;
        if self.parse()?.options.get("--rolling").is_some() {
            if signal != Signal::SIGTERM {
                return Err(Error::usage("--rolling: nodes are always stopped by TERM"));
            }
            return rolling::restart(&nodes, wait_limit, &self.console);
        }
        restart::restart(&nodes, signal, wait_limit, &self.console)
    }

    fn kill(self) -> Result<Exit, Error> {
        let (nodes, _) = self.of_their_own()?;
        Ok(stop::kill(&nodes, &self.console))
    }

    fn status(mut self) -> Result<Exit, Error> {
        let before = self.words.len();
        self.words.retain(|word| !["--json", "-j"].contains(&word.as_str()));
        let (nodes, wait_limit) = self.of_their_own()?;
        Ok(status::status(&nodes, self.words.len() < before, wait_limit, &self.console))
    }

    /// The nodes, each with a pidfile of its own, and how long to wait for them.
    fn of_their_own(&self) -> Result<(Vec<Node>, WaitLimit), Error> {
        let nodes = self.nodes()?;
        folders::distinct(&nodes)?;
        let timeout = self.parse()?.options.take("--timeout").flatten();
        let wrong = |why| Error::usage(format!("--timeout: {why}"));
        let timeout =
            timeout.map(|text| kind::from_text::<kind::Span>(&text)).transpose().map_err(wrong)?;
        Ok((nodes, WaitLimit::new(timeout)))
    }

    /// The signal among the words; TERM if there is none.
    fn signal(&mut self, to_end: bool) -> Result<Signal, Error> {
        let signal = signal::take(&mut self.words).unwrap_or(Signal::SIGTERM);
        if to_end && !ENDING.contains(&signal) {
            let name = signal::name(signal);
            return Err(Error::usage(format!("{name} does not stop a node"))
                .hint(format!("qworker multi stop … -{name} sends it")));
        }
        Ok(signal)
    }

    fn names(self) -> Result<Exit, Error> {
        self.each_line(|node| Ok(node.name.clone()))
    }

    fn show(self) -> Result<Exit, Error> {
        self.each_line(|node| Ok(format!("{} {}", node.program, node.line())))
    }

    fn expand(mut self) -> Result<Exit, Error> {
        let template = self.first("a template")?;
        self.each_line(|node| node.expand(&template))
    }

    fn get(mut self) -> Result<Exit, Error> {
        let wanted = self.first("the name of a node")?;
        let nodes = self.nodes()?;
        let mut found =
            nodes.iter().filter(|node| [&node.name, node.short()].contains(&wanted.as_str()));
        let Some(node) = found.next() else {
            return Err(Error::failure(format!("{wanted} is not one of these nodes")));
        };
        self.console.out.data(&node.line());
        Ok(Exit::Ok)
    }

    /// The word that stands before the nodes.
    fn first(&mut self, what: &str) -> Result<String, Error> {
        match self.words.is_empty() {
            true => Err(misused(&self.console, &format!("{what} is missing"))),
            false => Ok(self.words.remove(0)),
        }
    }

    fn each_line(&self, line: impl Fn(&Node) -> Result<String, Error>) -> Result<Exit, Error> {
        let lines: Result<Vec<String>, Error> = self.nodes()?.iter().map(line).collect();
        self.console.out.data(&lines?.join("\n"));
        Ok(Exit::Ok)
    }

    /// The nodes that are meant.
    fn nodes(&self) -> Result<Vec<Node>, Error> {
        let mut words = self.parse()?;
        for (other, name) in SAME {
            for options in words.of_some.iter_mut().map(|(_, options)| options) {
                options.rename(other, name);
            }
            words.options.rename(other, name);
        }
        // Each node is started in the background anyway, and how much is said here is no matter
        // of theirs.
        for option in ["-D", "--detach", "-q", "--timeout", "--rolling", "--json"] {
            words.options.take(option);
        }
        let host = HostInfo { name: crate::os::host::name(), program: program()? };
        nodes::nodes(&words, &host)
    }

    fn parse(&self) -> Result<ParsedWords, Error> {
        let words = [&self.words[..], &self.global, &self.behind].concat();
        ParsedWords::parse(&words, &KnownOptions::new(&super::command_line(), OWN))
    }
}

/// The options that stand before `multi`, for each node: they are typed as they are, but
/// the folder that we are in by now has one name only.
fn of_program(global: &GlobalOptions, behind: usize) -> Result<Vec<String>, Error> {
    let mut typed: Vec<OsString> = std::env::args_os().skip(1).collect();
    typed.truncate(typed.len().saturating_sub(behind));
    // The last of them is `multi`, or two hyphens right behind it.
    while typed.pop().is_some_and(|word| word == "--") {}
    let mut before = as_text(typed, global)?;
    before.retain(|word| !["--quiet", "--no-color"].contains(&word.as_str()));
    if global.workdir.is_some() {
        let here = crate::os::cwd::current()
            .map_err(|error| Error::failure(format!("the current folder: {error}")))?;
        // One that is no text is inherited.
        before.extend(here.to_str().map(|here| format!("--workdir={here}")));
    }
    Ok(before)
}

/// The words as texts. The folders of the application and of work may have names that are none:
/// the nodes have them from the environment, and from here.
fn as_text(typed: Vec<OsString>, global: &GlobalOptions) -> Result<Vec<String>, Error> {
    let mut before: Vec<String> = Vec::new();
    for word in typed {
        let Err(word) = word.into_string().map(|word| before.push(word)) else { continue };
        let shown = word.to_string_lossy();
        let mut option = shown.split('=').next().unwrap_or_default().to_string();
        if !shown.starts_with('-') {
            option = before.pop().unwrap_or_default();
        }
        match option.as_str() {
            "--workdir" => {}
            option if option == "--app" || option.starts_with("-A") => {
                let folder = global.app.as_deref().unwrap_or(Path::new("."));
                crate::os::environment::set("QWORKER_APP", folder.as_os_str());
            }
            _ => return Err(Error::usage(format!("{shown}: expected UTF-8"))),
        }
    }
    Ok(before)
}

/// This program, by the name it was called with: that may be a link to the version in use.
fn program() -> Result<String, Error> {
    let own = std::env::current_exe()
        .map_err(|error| Error::failure(format!("this program's own file: {error}")))?;
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = match called.components().count() {
        1 => std::env::split_paths(&path).map(|folder| folder.join(&called)).collect(),
        _ => vec![called],
    };
    let is_own = |place: &PathBuf| {
        place.is_absolute() && place.canonicalize().is_ok_and(|found| found == own)
    };
    Ok(places.into_iter().find(is_own).unwrap_or(own).display().to_string())
}
