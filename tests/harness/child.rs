//! This test binary as a process of its own, for what only a process can do: be killed.
//! The child is the test [`child`], run with a role in its environment; what it says to its
//! parent are lines that begin with `@`.

use super::wait::SOON;
use crate::contract::broker::roles;
use std::io::{BufRead, BufReader};
use std::process::{Child as Process, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

const ROLE: &str = "QWTEST_ROLE";
const SEPARATOR: char = '\u{1f}';

/// A child; killed when it is dropped.
pub struct Child {
    process: Process,
    lines: Receiver<String>,
}

impl Child {
    /// Starts this binary in `role` with `args`; `wrapper` is put before its command line.
    pub fn start_in(wrapper: &[&str], role: &str, args: &[&str]) -> Child {
        let program = std::env::current_exe().unwrap();
        let mut words: Vec<String> = wrapper.iter().map(|word| word.to_string()).collect();
        words.push(program.display().to_string());
        let test = format!("{}::child", module_path!().split_once("::").unwrap().1);
        words.extend(["--exact".into(), test, "--nocapture".into()]);
        let role = [&[role], args].concat().join(&SEPARATOR.to_string());
        let mut process = Command::new(&words[0])
            .args(&words[1..])
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // libtest prints the name of the test before, on the same line.
            let said = out.lines().map_while(Result::ok);
            for line in said.filter_map(|line| Some(line.split_once('@')?.1.to_string())) {
                let _ = sender.send(line);
            }
        });
        Child { process, lines }
    }

    /// Starts this binary in `role` with `args`.
    pub fn start(role: &str, args: &[&str]) -> Child {
        Child::start_in(&[], role, args)
    }

    /// The next line that it says; panics if it ends first.
    pub fn hear(&self) -> String {
        self.lines.recv_timeout(SOON).expect("the child ended, or says nothing")
    }

    /// Waits for its end; gives all that it said and nobody heard.
    pub fn finish(mut self) -> Vec<String> {
        let lines = self.lines.iter().collect();
        self.process.wait().unwrap();
        lines
    }

    /// Kills it with KILL; gives all that it said and nobody heard.
    pub fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.lines.iter().collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Says one line to the parent.
pub fn say(line: &str) {
    println!("@{line}");
}

/// The child's side; without a role, the proof that a wrong one is noticed.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        let child = Child::start("nonsense", &[]);
        assert_eq!(child.finish(), ["no such role: nonsense"]);
        return;
    };
    let words: Vec<&str> = role.split(SEPARATOR).collect();
    roles::play(words[0], &words[1..]);
}
