//! `start`: each node is a process that ends once its worker takes tasks. Some are started at a
//! time; results are reported in the order of the nodes.

use super::super::exit::{Error, Exit};
use super::console::Console;
use super::lock::StartLocks;
use super::node::Node;
use super::wait_limit::WaitLimit;
use super::{folders, status};
use crate::bounds::{SAID_MAX, STARTS_MAX};
use crate::os::file;
use crate::os::pidfile::{Holder, holder, next};
use crate::os::process::Process;
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

/// The worker's exit code when its pidfile is somebody's.
const HELD: i32 = 73;

/// What came of a start.
enum StartResult {
    /// It takes tasks.
    Ready,
    /// It ran before.
    Already(Process),
    /// It did not come up; this is why.
    Failed(String),
    /// Its pidfile was somebody's who does not run by now.
    Held(String),
    /// It was not ready in time.
    Late,
}

/// A node on its way.
enum Launch {
    /// The command that starts it, what that says, and which worker it is to replace.
    Begun(Child, std::fs::File, Option<i32>),
    /// It runs, but on its way to its end: it is started after that.
    After(Process),
    /// There is nothing to wait for.
    Over(StartResult),
}

/// Starts the nodes.
///
/// # Errors
/// The command line or the folders are not right; the failure of a node is reported, and is in the exit code.
pub(super) fn start(
    nodes: &[Node],
    wait_limit: WaitLimit,
    console: &Console,
) -> Result<Exit, Error> {
    console.splash();
    console.note("> Starting nodes...");
    folders::make(nodes)?;
    let _turns = StartLocks::take(nodes, wait_limit, console)?;
    let mut starts = Starts::new(wait_limit.again(), "\t> ", console);
    for node in nodes {
        starts.begin(node)?;
    }
    Ok(starts.finish())
}

/// Starts under way.
pub(super) struct Starts<'a> {
    begun: VecDeque<(&'a Node, Launch)>,
    wait_limit: WaitLimit,
    /// What stands before the name of a node.
    mark: &'static str,
    console: &'a Console,
    exit: Exit,
}

impl<'a> Starts<'a> {
    pub(super) fn new(
        wait_limit: WaitLimit,
        mark: &'static str,
        console: &'a Console,
    ) -> Starts<'a> {
        Starts { begun: VecDeque::new(), wait_limit, mark, console, exit: Exit::Ok }
    }

    /// Begins with one more; if many are on their way, after one of them is done.
    ///
    /// # Errors
    /// Its command line is wrong.
    pub(super) fn begin(&mut self, node: &'a Node) -> Result<(), Error> {
        self.replace(node, None)
    }

    /// As [`Starts::begin`], but in the place of a worker that runs, which it ends.
    ///
    /// # Errors
    /// Its command line is wrong.
    pub(super) fn replace(&mut self, node: &'a Node, old: Option<i32>) -> Result<(), Error> {
        if self.begun.len() >= STARTS_MAX {
            self.end_first();
        }
        let launch = match launch(node, old)? {
            Launch::Over(StartResult::Already(process)) if status::is_leaving(node, &process) => {
                Launch::After(process)
            }
            launch => launch,
        };
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
        let console = self.console;
        console.part(&format!("{}{}: ", self.mark, node.name));
        if console.verbose {
            console.note(&format!("  {} {}", node.program, node.line()));
        }
        let started = self.outcome(node, launch);
        match started {
            StartResult::Ready => console.marked("", &console.ok()),
            StartResult::Already(process) => {
                let mark = format!("{} (already running, pid {})", console.ok(), process.pid());
                console.marked("", &mark);
            }
            StartResult::Failed(why) | StartResult::Held(why) => {
                console.marked("", &console.failed());
                console.out.say(&format!("Error: {}: {why}", node.name));
                self.exit = Exit::Failure;
            }
            StartResult::Late => {
                console.marked("", &console.failed());
                let over = self.wait_limit.over("it was not ready, and was stopped");
                console.out.say(&format!("Error: {}: {over}", node.name));
                self.exit = if self.exit == Exit::Ok { over.exit } else { self.exit };
            }
        }
    }

    /// What becomes of a node on its way.
    fn outcome(&self, node: &Node, mut on_its_way: Launch) -> StartResult {
        for last in [false, false, true] {
            let (child, said, old) = match on_its_way {
                Launch::Over(started) => return started,
                Launch::Begun(child, said, old) => (child, said, old),
                Launch::After(process) => {
                    if !process.wait(self.wait_limit.left()) {
                        return StartResult::Late;
                    }
                    on_its_way = again(node, None);
                    continue;
                }
            };
            match wait(node, old, child, said, self.wait_limit) {
                // Somebody has looked whether the file may be removed, and has it no more.
                StartResult::Held(_) if !last => on_its_way = again(node, old),
                started => return started,
            }
        }
        StartResult::Late
    }
}

/// Starts a node that does not run, or whose worker it is to replace.
fn launch(node: &Node, old: Option<i32>) -> Result<Launch, Error> {
    match holder(&node.pidfile) {
        Ok(Holder::Live(process)) if old == Some(process.pid()) => {}
        Ok(Holder::Live(process)) => return Ok(Launch::Over(StartResult::Already(process))),
        Ok(Holder::Nobody | Holder::Stale(_)) => {}
        Err(error) => {
            let what = format!("{}: {}", node.name, node.pidfile.display());
            return Err(folders::not_writable(what, &error));
        }
    }
    let words = node.words(old)?;
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
        Ok((child, said)) => Launch::Begun(child, said, old),
        Err(error) => Launch::Over(StartResult::Failed(format!("{}: {error}", node.program))),
    })
}

/// As [`launch`], of a node whose command line was right before.
fn again(node: &Node, old: Option<i32>) -> Launch {
    launch(node, old).unwrap_or_else(|error| Launch::Over(StartResult::Failed(error.to_string())))
}

/// Waits for the command that starts a node.
fn wait(
    node: &Node,
    old: Option<i32>,
    mut child: Child,
    mut said: std::fs::File,
    wait_limit: WaitLimit,
) -> StartResult {
    // Nobody has waited for it, so the number is its own.
    let process = i32::try_from(child.id()).ok().and_then(Process::open);
    let in_time = process.is_none_or(|process| process.wait(wait_limit.left()));
    if !in_time {
        for place in [node.pidfile.clone(), next(&node.pidfile)] {
            if let Ok(Holder::Live(worker)) = holder(&place)
                && old != Some(worker.pid())
            {
                // It may have ended by itself, which is as good.
                let _ = worker.signal(Signal::SIGTERM);
            }
        }
        let _ = child.kill();
    }
    let status = match child.wait() {
        Ok(status) => status,
        Err(error) => return StartResult::Failed(error.to_string()),
    };
    match (in_time, status.code()) {
        (false, _) => StartResult::Late,
        (true, Some(0)) => StartResult::Ready,
        (true, Some(HELD)) => match holder(&node.pidfile) {
            Ok(Holder::Live(other)) if old != Some(other.pid()) => StartResult::Already(other),
            _ => StartResult::Held(reason(status, &mut said)),
        },
        _ => StartResult::Failed(reason(status, &mut said)),
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
