//! Runs tasks that are processes: starts them, reads their output, stops them in time.
//!
//! A task may do what it likes: fork, start sessions, ignore signals, flood its output, leave
//! children behind that hold the pipes. None of it may delay the next task.

pub mod command;
mod groups;
mod start;
mod streams;
#[cfg(test)]
mod tests;

pub use command::{ProcessCommand, Setting, command};

use super::{Attempt, CancelReason, Ending, Exhausted, Outcome, ResourceUsage, TimeLimit};
use crate::bounds::{ARG_BYTES_MAX, LEFTOVER_GRACE};
use crate::clock;
use crate::os::reap::{ProcessExit, Reaper, StartedProcess, Termination};
use crate::os::spawn::{Orphan, Spawn, SpawnError};
use crate::os::user::{Ids, UserError};
use crate::os::{Pid, environment, file, is_shortage, tree};
use crate::task::{ResourceLimits, Stdin};
use crate::wire::Exception;
use command::E2BIG;
use groups::{Groups, TaskGroup, usage};
use start::{EPERM, Failure, c_path, os_error, rlimits};
use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::CStr;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streams::{READ_BYTES, Streams};
use tokio::sync::oneshot;
use tokio::time::sleep_until;

/// What is tried in turn if all arguments together are too long for the kernel, and standard input
/// contains them too: the longest text that is passed otherwise.
const LONGEST: [usize; 3] = [ARG_BYTES_MAX, 1024, 0];

/// Runs processes.
#[derive(Debug)]
pub struct Shell {
    reaper: Rc<Reaper>,
    app: PathBuf,
    env: Vec<Arc<CStr>>,
    null: Arc<OwnedFd>,
    scratch: RefCell<Vec<u8>>,
    groups: Groups,
}

/// When a process is stopped, counted from its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopTimes {
    /// `TERM` to its process group.
    pub soft: Option<Duration>,
    /// `KILL` to all its processes.
    pub hard: Option<Duration>,
}

impl Shell {
    /// Runs processes in the folder `app` with the present environment of this program.
    ///
    /// # Errors
    /// `/dev/null` cannot be opened.
    pub fn new(reaper: Rc<Reaper>, app: PathBuf) -> io::Result<Shell> {
        let env = environment::all_but(&[]);
        let scratch = RefCell::new(vec![0; READ_BYTES]);
        Ok(Shell {
            reaper,
            app,
            env,
            null: Arc::new(file::null()?),
            scratch,
            groups: Groups::default(),
        })
    }

    /// Runs tasks with resource limits in control groups, if the worker of this guard may have some
    /// (`task_cgroups`).
    pub fn with_groups(self, guard: Pid) -> Shell {
        Shell { groups: Groups::of_guard(guard), ..self }
    }

    /// The environment that tasks inherit, `NAME=value` each.
    pub fn env(&self) -> &[Arc<CStr>] {
        &self.env
    }

    /// Runs one attempt at a task. When `ask` comes first, the task is asked to end (`TERM` to
    /// its process group); when `cancel` does, it is killed. If the returned future is dropped,
    /// it is killed too.
    pub async fn run(
        &self,
        attempt: &Attempt,
        ask: impl Future<Output = ()>,
        cancel: impl Future<Output = CancelReason>,
    ) -> Outcome {
        let limits = StopTimes { soft: attempt.soft_time_limit, hard: attempt.time_limit };
        match self.begin_attempt(attempt).await {
            Ok(running) => self.attend(running, limits, ask, cancel).await,
            Err(ending) => Outcome::immediate(ending),
        }
    }

    /// Runs any command; [`Shell::run`] does the same for attempts.
    pub async fn run_command(
        &self,
        command: ProcessCommand,
        limits: StopTimes,
        cancel: impl Future<Output = CancelReason>,
    ) -> Outcome {
        let command = Arc::new(command);
        match self.begin(&command, None, command.resource_limits).await {
            Ok(running) => self.attend(running, limits, std::future::pending(), cancel).await,
            Err(failure) => Outcome::immediate(failure.ending(&command)),
        }
    }

    async fn begin_attempt(&self, attempt: &Attempt) -> Result<Running, Ending> {
        let task = &attempt.task;
        let ids = self.ids(task.user.as_deref(), task.group.as_deref())?;
        let tries = if task.stdin == Stdin::Json { &LONGEST[..] } else { &LONGEST[..1] };
        let now = clock::epoch(clock::now());
        let other = ids.as_ref().filter(|ids| !ids.are_ours());
        let env =
            other.map_or(Cow::Borrowed(&self.env), |ids| Cow::Owned(ids.logged_in(&self.env)));
        let mut tries = tries.iter().peekable();
        loop {
            let longest = tries.next().copied().unwrap_or(0);
            let setting = Setting { app: &self.app, env: &env, now, longest };
            let command = command(attempt, setting).map_err(Ending::Refused)?;
            let command = Arc::new(ProcessCommand { ids: ids.clone(), ..command });
            let (limited, rest) = self
                .groups
                .for_task(&command.resource_limits)
                .map_err(|failure| failure.ending(&command))?;
            match self.begin(&command, limited, rest).await {
                Err(Failure::Spawn(SpawnError { errno: E2BIG, .. })) if tries.peek().is_some() => {}
                begun => return begun.map_err(|failure| failure.ending(&command)),
            }
        }
    }

    /// The user that a task runs as; `None` if it is ours.
    fn ids(&self, user: Option<&str>, group: Option<&str>) -> Result<Option<Ids>, Ending> {
        let ids = Ids::of(user, group).map_err(|error| match error {
            UserError::Lookup(_, errno) if is_shortage(errno) => {
                Ending::NoCapacity(error.to_string())
            }
            error => Ending::Refused(Exception::new("builtins", "LookupError", error.to_string())),
        })?;
        match ids {
            Some(ids) if ids.are_ours() && !Ids::may_change() => Ok(None),
            Some(ids) if !Ids::may_change() => {
                let text = format!(
                    "only a worker run by root can run as user {} and group {}",
                    ids.uid, ids.gid
                );
                Err(Ending::Refused(os_error(EPERM, text, None)))
            }
            ids => Ok(ids),
        }
    }

    /// Starts the process, in a control group or not, with these limits of its own.
    async fn begin(
        &self,
        command: &Arc<ProcessCommand>,
        limited: Option<TaskGroup>,
        resource_limits: ResourceLimits,
    ) -> Result<Running, Failure> {
        let program = command.program()?;
        let cwd = c_path(&command.cwd)?;
        let stdin = command.stdin.as_deref().map(file::in_memory).transpose()?.map(Arc::new);
        let stdin = stdin.unwrap_or_else(|| Arc::clone(&self.null));
        let (streams, stdout, stderr) = Streams::open(command.max_output)?;
        let this = Arc::clone(command);
        let dir = limited.as_ref().map(|f| f.group().dir().try_clone_to_owned()).transpose()?;
        let start = move || {
            let spawn = Spawn {
                program: &program,
                argv: &this.argv,
                envp: &this.env,
                cwd: Some(&cwd),
                stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
                inherit: None,
                rlimits: &rlimits(&resource_limits),
                nice: this.nice,
                ids: this.ids.as_ref(),
                blocked: &[],
                new_session: false,
                orphan: Orphan::Dies,
                group: dir.as_ref().map(AsFd::as_fd),
            };
            spawn.start()
        };
        let StartedProcess { pid, at, exit } = self.reaper.spawn(start).await?;
        let (reaper, mark) = (Rc::clone(&self.reaper), command.mark());
        Ok(Running {
            guard: KillGuard { pid, reaper, mark, armed: true, limited },
            exit,
            streams,
            started: at,
        })
    }

    /// Watches a process from its start to its last output.
    async fn attend(
        &self,
        running: Running,
        limits: StopTimes,
        ask: impl Future<Output = ()>,
        cancel: impl Future<Output = CancelReason>,
    ) -> Outcome {
        let Running { mut guard, mut exit, mut streams, started, .. } = running;
        let (mut ask, mut cancel) = (pin!(ask), pin!(cancel));
        let mut limit = None;
        let (mut asked, mut cancelled) = (false, None);
        let ended = loop {
            let next = match limit {
                None => earliest(
                    limits.soft.map(|soft| (soft, TimeLimit::Soft)),
                    limits.hard.map(|hard| (hard, TimeLimit::Hard)),
                ),
                Some(TimeLimit::Soft) => limits.hard.map(|hard| (hard, TimeLimit::Hard)),
                Some(TimeLimit::Hard) => None,
            };
            tokio::select! {
                biased;
                ended = &mut exit => break ended.ok(),
                () = streams.read(&self.scratch), if !streams.are_closed() => {}
                why = &mut cancel, if cancelled.is_none() => {
                    cancelled = Some(why);
                    guard.kill();
                }
                () = &mut ask, if !asked => {
                    asked = true;
                    tree::terminate_group(guard.pid);
                }
                struck = strike(started, next) => {
                    limit = Some(struck);
                    match struck {
                        TimeLimit::Soft => tree::terminate_group(guard.pid),
                        TimeLimit::Hard => guard.kill(),
                    }
                }
            }
        };
        let runtime = started.elapsed();
        guard.armed = false;
        if !streams.are_closed() {
            // The last output of the process and, for a while, that of processes it left behind. A
            // timeout is fine.
            let _ = tokio::time::timeout(LEFTOVER_GRACE, streams.read(&self.scratch)).await;
        }
        // While a member lives, the number of the group is not reused; afterwards not so soon that
        // it could be another group of ours.
        tree::kill_group(guard.pid);
        if limit.is_some() || asked {
            guard.kill_orphans();
        }
        let (stdout, stderr) = streams.finish();
        let (usage, exhausted) = match guard.limited.take() {
            Some(limited) => limited.leave(usage(ended)),
            None => (usage(ended), None),
        };
        let ending = cancelled.map_or_else(|| ending(ended), Ending::Cancelled);
        let said = None;
        Outcome { ending, limit, said, asked, exhausted, stdout, stderr, usage, started, runtime }
    }
}

/// A process between its start and its end.
struct Running {
    guard: KillGuard,
    exit: oneshot::Receiver<ProcessExit>,
    streams: Streams,
    started: Instant,
}

/// Kills the process and all its descendants when it is dropped while armed: nobody waits for the
/// result any more.
#[derive(Debug)]
struct KillGuard {
    pid: Pid,
    reaper: Rc<Reaper>,
    mark: Option<Vec<u8>>,
    armed: bool,
    limited: Option<TaskGroup>,
}

impl KillGuard {
    fn kill(&self) {
        if let Some(limited) = &self.limited {
            limited.group().kill();
        }
        tree::kill_tree(self.pid, &|pid| self.has_orphan(pid));
    }

    /// A task that exceeded its time leaves nothing behind, not even in a session of its own: what
    /// ignored the soft limit would outlive the hard one too.
    fn kill_orphans(&self) {
        tree::kill_orphans(&|pid| self.has_orphan(pid));
    }

    fn has_orphan(&self, pid: Pid) -> bool {
        // The same task may run here a second time; its process is watched, an orphan is not.
        !self.reaper.watches(pid)
            && self.mark.as_ref().is_some_and(|mark| tree::has_mark(pid, mark))
    }
}

impl Drop for KillGuard {
    fn drop(&mut self) {
        if self.armed {
            self.kill();
        }
    }
}

/// Waits for the next limit; forever if there is none.
async fn strike(started: Instant, next: Option<(Duration, TimeLimit)>) -> TimeLimit {
    // A limit beyond the end of the clock is none.
    match next.and_then(|(after, limit)| Some((started.checked_add(after)?, limit))) {
        Some((at, limit)) => {
            sleep_until(at.into()).await;
            limit
        }
        None => std::future::pending().await,
    }
}

/// The one that comes first; the hard one if they come together.
fn earliest(
    soft: Option<(Duration, TimeLimit)>,
    hard: Option<(Duration, TimeLimit)>,
) -> Option<(Duration, TimeLimit)> {
    match (soft, hard) {
        (Some(soft), Some(hard)) => Some(if soft.0 < hard.0 { soft } else { hard }),
        (soft, hard) => soft.or(hard),
    }
}

fn ending(exit: Option<ProcessExit>) -> Ending {
    match exit.map(|exit| exit.status) {
        Some(Termination::Exited(code)) => Ending::Exited(code),
        Some(Termination::Signaled(signal)) => Ending::Signaled(signal),
        // The reaper lives as long as the shell, so its answer comes.
        None => Ending::Cancelled(CancelReason::Shutdown),
    }
}
