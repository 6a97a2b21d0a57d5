//! An application in a temporary folder, and the real command line on it.

use super::redis::Server;
use super::wait::eventually;
use super::worker::Worker;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder with `tasks.d/`; removed when it is dropped.
pub struct TestDir {
    dir: tempfile::TempDir,
    server: Option<Server>,
}

/// Where an application has its messages and results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In its folder.
    File,
    /// On a server of its own.
    Redis,
}

impl Place {
    /// An application with these tasks there.
    pub fn app(self, tasks: &str) -> TestDir {
        match self {
            Place::File => TestDir::with(tasks),
            Place::Redis => TestDir::on(Server::start(), tasks),
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

impl TestDir {
    /// An application without tasks.
    pub fn new() -> TestDir {
        let dir = tempfile::Builder::new().prefix("qworker-test-").tempdir().unwrap();
        fs::create_dir(dir.path().join("tasks.d")).unwrap();
        TestDir { dir, server: None }
    }

    /// An application with these tasks, in `tasks.d/tasks.yaml`.
    pub fn with(tasks: &str) -> TestDir {
        let app = TestDir::new();
        app.write("tasks.d/tasks.yaml", tasks);
        app
    }

    /// An application with these tasks on this server.
    pub fn on(server: Server, tasks: &str) -> TestDir {
        TestDir { server: Some(server), ..TestDir::with(tasks) }
    }

    /// The server that it is on; panics if it is on none.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("an application on a server")
    }

    /// The server that it is on, if it is on one.
    pub fn on_server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// The address of its broker, as messages for people name it.
    pub fn broker(&self) -> String {
        let server = self.server.as_ref();
        server.map_or_else(|| "sqlite:///var/qworker.sqlite".into(), Server::url)
    }

    /// As Celery has the addresses of its broker and its results.
    pub fn celery_addresses(&self) -> [String; 2] {
        if let Some(server) = &self.server {
            return [server.url(), server.url()];
        }
        let file = self.database().display().to_string();
        [format!("sqla+sqlite:///{file}"), format!("db+sqlite:///{file}")]
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The text of a file in it, empty if there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// The lines of a file in it.
    pub fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_string).collect()
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, text: &str) -> &TestDir {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Makes a named pipe, which a task reads to wait for [`TestDir::write_fifo`].
    pub fn fifo(&self, name: &str) -> &TestDir {
        nix::unistd::mkfifo(&self.file(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        self
    }

    /// Ends the wait of the task that reads this named pipe, once it does.
    pub fn write_fifo(&self, name: &str) {
        // A pipe that nobody reads cannot be opened so.
        let mut options = fs::File::options();
        options.write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
        eventually("a reader", || options.open(self.file(name)).ok());
    }

    /// Writes `qworker.yaml`.
    pub fn settings(&self, text: &str) -> &TestDir {
        self.write("qworker.yaml", text)
    }

    /// Writes an executable file.
    pub fn program(&self, name: &str, text: &str) -> &TestDir {
        self.write(name, text);
        fs::set_permissions(self.file(name), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// The embedded broker's file.
    pub fn database(&self) -> PathBuf {
        self.file("var/qworker.sqlite")
    }

    /// `qworker ARGS` in this folder, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qworker"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QWORKER_") {
                command.env_remove(name);
            }
        }
        if let Some(server) = &self.server {
            command.env("QWORKER_BROKER_URL", server.url());
        }
        command.args(args).current_dir(self.path()).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Runs `qworker ARGS` in this folder to its end.
    pub fn qworker(&self, args: &[&str]) -> Output {
        Output::of(&mut self.command(args))
    }

    /// As [`TestDir::qworker`], with text on standard input.
    pub fn qworker_with_input(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Output::from(child.wait_with_output().unwrap())
    }

    /// Runs `qworker ARGS`, expects that it succeeds, gives its output without the newline.
    pub fn must(&self, args: &[&str]) -> String {
        let output = self.qworker(args);
        assert_eq!(output.code, 0, "qworker {args:?}: {output:?}");
        output.stdout.trim_end_matches('\n').to_string()
    }

    /// Starts `qworker beat -l INFO ARGS` and waits until it knows its entries.
    pub fn beat(&self, args: &[&str]) -> Worker {
        Worker::beat(self, args)
    }

    /// Starts `qworker worker ARGS` and waits until it is ready.
    pub fn worker(&self, args: &[&str]) -> Worker {
        Worker::start(self, args)
    }
}

impl Output {
    /// Runs `command` to its end.
    pub fn of(command: &mut Command) -> Output {
        Output::from(command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Output {
        use std::os::unix::process::ExitStatusExt;
        let signal = output.status.signal().unwrap_or_default();
        Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-signal),
        }
    }
}
