//! `start`: each node is a process that ends once its worker takes tasks. Some are started at a
//! time; what is told is in the order of the nodes.

use super::super::exit::{Error, Exit};
use super::node::Node;
use super::patience::Patience;
use super::places;
use super::say::Say;
use super::turn::Turns;
use crate::bounds::{SAID_MAX, STARTS_MAX};
use crate::os::file;
use crate::os::pidfile::{Holder, Process, holder};
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

/// The worker's exit code when its pidfile is somebody's.
const HELD: i32 = 73;

/// What came of a start.
enum Started {
    /// It takes tasks.
    Ready,
    /// It ran before: with this pid.
    Already(i32),
    /// It did not come up; this is why.
    Failed(String),
    /// It was not ready in time.
    Late,
}

/// A node on its way.
enum Launch {
    /// The command that starts it, and what that says.
    Begun(Child, std::fs::File),
    /// There is nothing to wait for.
    Over(Started),
}

/// Starts the nodes.
///
/// # Errors
/// The command line or the folders are not right; that a node fails is told, and is the exit code.
pub(super) fn start(nodes: &[Node], patience: Patience, say: &Say) -> Result<Exit, Error> {
    say.splash();
    say.note("> Starting nodes...");
    places::make(nodes)?;
    let _turns = Turns::take(nodes, patience, say)?;
    let mut starts = Starts::new(patience.again(), "\t> ", say);
    for node in nodes {
        starts.begin(node)?;
    }
    Ok(starts.finish())
}

/// Starts under way.
pub(super) struct Starts<'a> {
    begun: VecDeque<(&'a Node, Launch)>,
    patience: Patience,
    /// What stands before the name of a node.
    mark: &'static str,
    say: &'a Say,
    exit: Exit,
}

impl<'a> Starts<'a> {
    pub(super) fn new(patience: Patience, mark: &'static str, say: &'a Say) -> Starts<'a> {
        Starts { begun: VecDeque::new(), patience, mark, say, exit: Exit::Ok }
    }

    /// Begins with one more; if many are on their way, after one of them is done.
    ///
    /// # Errors
    /// Its command line is wrong.
    pub(super) fn begin(&mut self, node: &'a Node) -> Result<(), Error> {
        if self.begun.len() >= STARTS_MAX {
            self.end_first();
        }
        let launch = launch(node)?;
        self.begun.push_back((node, launch));
        Ok(())
    }

    /// Waits for all; how it went.
    pub(super) fn finish(mut self) -> Exit {
        while !self.begun.is_empty() {
            self.end_first();
        }
        self.exit
    }

    fn end_first(&mut self) {
        let Some((node, launch)) = self.begun.pop_front() else { return };
        let say = self.say;
        say.part(&format!("{}{}: ", self.mark, node.name));
        if say.verbose {
            say.note(&format!("  {} {}", node.program, node.line()));
        }
        let started = match launch {
            Launch::Over(started) => started,
            Launch::Begun(child, said) => wait(node, child, said, self.patience),
        };
        match started {
            Started::Ready => say.note(&say.ok()),
            Started::Already(pid) => {
                say.note(&format!("{} (already running, pid {pid})", say.ok()))
            }
            Started::Failed(why) => {
                say.note(&say.failed());
                say.out.say(&format!("Error: {}: {why}", node.name));
                self.exit = Exit::Failure;
            }
            Started::Late => {
                say.note(&say.failed());
                let over = self.patience.over("it was not ready, and was stopped");
                say.out.say(&format!("Error: {}: {over}", node.name));
                self.exit = if self.exit == Exit::Ok { over.exit } else { self.exit };
            }
        }
    }
}

/// Starts a node that does not run.
fn launch(node: &Node) -> Result<Launch, Error> {
    match holder(&node.pidfile) {
        Ok(Holder::Live(process)) => return Ok(Launch::Over(Started::Already(process.pid()))),
        Ok(Holder::Nobody | Holder::Stale(_)) => {}
        Err(error) => return Err(places::not_writable(&node.pidfile, &error)),
    }
    let words = node.words()?;
    let begun = file::scratch().and_then(|said| {
        let child = Command::new(&node.program)
            .args(&words)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said.try_clone()?)
            .spawn()?;
        Ok((child, said))
    });
    Ok(match begun {
        Ok((child, said)) => Launch::Begun(child, said),
        Err(error) => Launch::Over(Started::Failed(format!("{}: {error}", node.program))),
    })
}

/// Waits for the command that starts a node.
fn wait(node: &Node, mut child: Child, mut said: std::fs::File, patience: Patience) -> Started {
    // Nobody has waited for it, so the number is its own.
    let process = i32::try_from(child.id()).ok().and_then(Process::open);
    let in_time = process.is_none_or(|process| process.wait(patience.left()));
    if !in_time {
        if let Ok(Holder::Live(worker)) = holder(&node.pidfile) {
            // It may have ended by itself, which is as good.
            let _ = worker.signal(Signal::SIGTERM);
        }
        let _ = child.kill();
    }
    let status = match child.wait() {
        Ok(status) => status,
        Err(error) => return Started::Failed(error.to_string()),
    };
    match (in_time, status.code()) {
        (false, _) => Started::Late,
        (true, Some(0)) => Started::Ready,
        (true, Some(HELD)) if let Ok(Holder::Live(other)) = holder(&node.pidfile) => {
            Started::Already(other.pid())
        }
        _ => Started::Failed(reason(status, &mut said)),
    }
}

/// Celery's sentence, and what the command said.
fn reason(status: ExitStatus, said: &mut std::fs::File) -> String {
    let mut text = Vec::new();
    // What it said is of help, if it said anything.
    let _ = said.rewind().and_then(|()| said.take(SAID_MAX).read_to_end(&mut text));
    let ended = match status.signal() {
        Some(signal) => format!("* Child was terminated by signal {signal}"),
        None => format!("* Child terminated with exit code {}", status.code().unwrap_or(1)),
    };
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end().trim_start_matches("Error: ");
    if text.is_empty() { ended } else { format!("{text}\n{ended}") }
}
