//! A Redis server of a test's own, on a free port of this host, with its data in a temporary
//! folder.

use super::wait::{SOON, eventually};
use redis::{Client, Connection};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running server; killed when it is dropped.
pub struct Server {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
    options: Vec<String>,
}

impl Server {
    /// One that keeps everything in memory.
    pub fn start() -> Server {
        Server::with(&["--save", "", "--appendonly", "no"])
    }

    /// One that loses nothing when it is killed.
    pub fn durable() -> Server {
        Server::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
    }

    /// One with these options.
    pub fn with(options: &[&str]) -> Server {
        let folder = tempfile::Builder::new().prefix("qworker-redis-").tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        loop {
            let port = free_port();
            let mut process = launch(port, folder.path().to_path_buf(), &options);
            if await_answer(&mut process, port) {
                return Server { process, port, folder, options };
            }
        }
    }

    /// Kills it with KILL, and starts it again on the same port and the same data.
    pub fn restart(&mut self) {
        self.stop();
        self.process = launch(self.port, self.folder.path().to_path_buf(), &self.options);
        assert!(await_answer(&mut self.process, self.port), "the server does not come back");
    }

    /// Kills it with KILL.
    pub fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection past all of ours.
    pub fn connect(&self) -> Connection {
        Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Runs one command.
    pub fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.connect()).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Somebody else may take it before it is used.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn launch(port: u16, folder: PathBuf, options: &[String]) -> Child {
    // It ends with the thread that started it, however that ends.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "redis-server", "--bind", "127.0.0.1", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(folder)
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server and setpriv are needed: run scripts/test, or apt-get install redis-server")
}

/// Whether it answers; not if it ended, for its port was taken.
fn await_answer(process: &mut Child, port: u16) -> bool {
    let client = Client::open(format!("redis://127.0.0.1:{port}/0")).unwrap();
    eventually("a server that answers", || {
        if process.try_wait().unwrap().is_some() {
            return Some(false);
        }
        let mut connection = client.get_connection_with_timeout(SOON).ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok().map(|_| true)
    })
}
