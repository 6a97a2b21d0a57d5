//! A real worker: the binary, its guard, its tasks, and what it says.

use super::app::TestDir;
use super::process;
use super::wait::{SOON, eventually};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// `qworker worker`; everything it started is killed when it is dropped.
pub struct Worker {
    guard: i32,
    mark: String,
    said: Arc<Said>,
    banner: Arc<Said>,
    ended: Receiver<ExitStatus>,
    status: Option<ExitStatus>,
}

/// Lines of a stream as they come.
#[derive(Default)]
struct Said {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Said {
    fn listen(stream: impl Read + Send + 'static) -> Arc<Said> {
        let said = Arc::new(Said::default());
        let theirs = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                theirs.lines.lock().unwrap().0.push(line);
                theirs.more.notify_all();
            }
            theirs.lines.lock().unwrap().1 = true;
            theirs.more.notify_all();
        });
        said
    }

    fn nothing() -> Arc<Said> {
        Said::listen(std::io::empty())
    }

    /// Waits for a line with `part` in it; `Err` has all that was said.
    fn wait_for(&self, part: &str) -> Result<String, String> {
        let deadline = Instant::now() + SOON;
        let mut lines = self.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.0.iter().find(|line| line.contains(part)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                return Err(lines.0.join("\n"));
            }
            lines = self.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits until nobody can say more.
    fn wait_for_end(&self) {
        let lines = self.lines.lock().unwrap();
        drop(self.more.wait_timeout_while(lines, SOON, |lines| !lines.1).unwrap());
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap().0.join("\n")
    }
}

impl Worker {
    /// Starts it on `app` and waits until it is ready.
    pub fn start(app: &TestDir, args: &[&str]) -> Worker {
        let worker = Worker::spawn(app, args);
        worker.expect_line(" ready.");
        worker
    }

    /// Starts it and waits for nothing.
    pub fn spawn(app: &TestDir, args: &[&str]) -> Worker {
        Worker::run(app, &[&["worker"], args].concat())
    }

    /// Starts `qworker beat` instead, which has no guard, and waits until it knows its entries.
    pub fn beat(app: &TestDir, args: &[&str]) -> Worker {
        let beat = Worker::run(app, &[&["beat", "-l", "INFO"], args].concat());
        beat.expect_line("beat: loaded ");
        beat
    }

    /// Starts `qworker ARGS`, a program that runs for long, and waits for nothing.
    pub fn run(app: &TestDir, args: &[&str]) -> Worker {
        Worker::of(app.command(args))
    }

    /// `qworker ARGS` on a terminal of its own, as a shell starts it there; dropped, that is closed.
    pub fn on_terminal(app: &TestDir, args: &[&str]) -> (Worker, OwnedFd) {
        let terminal = nix::pty::openpty(None, None).unwrap();
        // Else the worker would have both ends of it.
        fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        let stream = || Stdio::from(terminal.slave.try_clone().unwrap());
        let plain = app.command(args);
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(app.path()).stdin(stream()).stdout(stream()).stderr(stream());
        (Worker::begin(command), terminal.master)
    }

    /// The same of a command that is made already.
    pub fn of(mut command: Command) -> Worker {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Worker::begin(command)
    }

    /// Of streams that are no pipes nothing is heard.
    fn begin(mut command: Command) -> Worker {
        let mark = format!("QWTEST_MARK={}", uuid::Uuid::new_v4());
        let (name, value) = mark.split_once('=').unwrap();
        let mut child = command.env(name, value).spawn().unwrap();
        let guard = child.id() as i32;
        let said = child.stderr.take().map_or_else(Said::nothing, Said::listen);
        let banner = child.stdout.take().map_or_else(Said::nothing, Said::listen);
        let (sender, ended) = channel();
        std::thread::spawn(move || {
            // The test may be over.
            let _ = sender.send(child.wait().unwrap());
        });
        Worker { guard, mark, said, banner, ended, status: None }
    }

    /// Waits until it says a line with `part` in it; gives the line.
    pub fn expect_line(&self, part: &str) -> String {
        match self.said.wait_for(part) {
            Ok(line) => line,
            Err(said) => panic!("the worker did not say {part:?}; it said:\n{said}"),
        }
    }

    /// All it has said on standard error.
    pub fn log(&self) -> String {
        self.said.text()
    }

    /// Waits until it has printed this on standard output.
    pub fn expect_banner(&self, text: &str) {
        eventually(text, || self.banner().contains(text).then_some(()));
    }

    /// All it has printed on standard output.
    pub fn banner(&self) -> String {
        self.banner.text()
    }

    /// Process number of the guard, which is what a user sees.
    pub fn guard(&self) -> i32 {
        self.guard
    }

    /// Process number of the worker proper.
    pub fn pid(&self) -> i32 {
        eventually("a worker below its guard", || {
            let children = process::children(self.guard);
            children.into_iter().find(|pid| process::command(*pid).contains(" worker"))
        })
    }

    /// Sends a signal to the guard, as a user or a service manager would.
    pub fn signal(&self, signal: Signal) {
        process::send(self.guard, signal);
    }

    /// Waits until the guard has ended, and all that was said is heard; gives its exit code, or minus
    /// the signal.
    pub fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        if self.status.is_none() {
            let status = match self.ended.recv_timeout(SOON) {
                Ok(status) => status,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the worker did not end; it said:\n{}", self.log())
                }
                Err(RecvTimeoutError::Disconnected) => panic!("nobody waits for the worker"),
            };
            self.status = Some(status);
            self.said.wait_for_end();
            self.banner.wait_for_end();
        }
        let status = self.status.unwrap();
        status.code().unwrap_or_else(|| -status.signal().unwrap_or_default())
    }

    /// Sends a signal and waits for the end.
    pub fn stop(&mut self, signal: Signal) -> i32 {
        self.signal(signal);
        self.wait()
    }

    /// Everyone alive that this worker started, guard and worker included.
    pub fn family(&self) -> Vec<i32> {
        process::marked(&self.mark)
    }

    /// Kills worker and guard as the end of a host does: neither acts on the other's death.
    pub fn kill_with_guard(&mut self) {
        // A stopped guard does not see the worker's death. Killed first, its own death would
        // continue a stopped worker.
        let pid = self.pid();
        process::send(self.guard, Signal::SIGSTOP);
        process::send(pid, Signal::SIGKILL);
        eventually("the worker's death", || (!process::is_alive(pid)).then_some(()));
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Waits until nobody of its family is left.
    pub fn expect_no_survivors(&self) {
        eventually("the death of all that the worker started", || {
            self.family().is_empty().then_some(())
        });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The guard first: it would start a new worker.
        process::send(self.guard, Signal::SIGKILL);
        loop {
            let left = self.family();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(|pid| process::send(pid, Signal::SIGKILL));
            std::thread::yield_now();
        }
    }
}
