//! A machine of a test's own: a copy of this system in which systemd is the first process, and
//! of which nothing stays. Takes root, and a kernel that lets it make namespaces.

use super::app::Output;
use super::process;
use super::wait::eventually;
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A booted machine; ended when it is dropped.
pub struct Machine {
    outside: Child,
    first: i32,
    folder: tempfile::TempDir,
    cgroup: PathBuf,
}

/// Can this process make one? Where it cannot, tests that need one fail, unless
/// `QWORKER_NO_MACHINE` says that this is known.
///
/// # Panics
/// It cannot, and nobody has said so.
pub fn possible() -> bool {
    let alone = ["--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--cgroup", "true"];
    let mut unshare = Command::new("unshare");
    unshare.args(alone).stderr(Stdio::null());
    let possible =
        nix::unistd::geteuid().is_root() && unshare.status().is_ok_and(|status| status.success());
    assert!(
        possible || std::env::var_os("QWORKER_NO_MACHINE").is_some(),
        "a machine of its own takes root and namespaces; QWORKER_NO_MACHINE=1 leaves it out"
    );
    possible
}

impl Machine {
    /// Starts one and waits until it is up.
    pub fn boot() -> Machine {
        let folder = tempfile::Builder::new().prefix("qworker-machine-").tempdir().unwrap();
        let cgroup = cgroups().join(folder.path().file_name().unwrap());
        fs::create_dir(&cgroup).unwrap();
        // The machine's cgroups begin where this process is.
        let enter = "echo $$ >\"$1/cgroup.procs\" && shift && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", enter, "sh"]).arg(&cgroup);
        // It ends with the test, however that ends.
        command.args([
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--kill-child",
            "--mount",
            "--pid",
            "--fork",
            "--uts",
            "--ipc",
        ]);
        command.args(["--net", "--cgroup"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/boot"));
        command.arg(folder.path());
        let log = fs::File::create(folder.path().with_extension("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let outside = command.spawn().unwrap();
        let mut machine = Machine { outside, first: 0, folder, cgroup };
        machine.first = eventually("systemd", || {
            let ended = machine.outside.try_wait().unwrap();
            assert!(ended.is_none(), "the machine ended: {}", machine.log());
            let inside = process::children(machine.outside.id() as i32);
            inside.into_iter().find(|pid| process::command(*pid).contains("systemd --system"))
        });
        eventually("the machine is up", || {
            let state = machine.run(&["systemctl", "is-system-running"]);
            (state.stdout == "running\n").then_some(())
        });
        machine
    }

    /// What its first process has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().with_extension("log")).unwrap_or_default()
    }

    /// Runs a command in it, as root, to its end.
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.first.to_string(),
            "--all",
            "--",
            "env",
            "--ignore-environment",
        ]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "NO_COLOR=1", "LC_ALL=C.UTF-8"]);
        Output::of(command.args(words).stdin(Stdio::null()))
    }

    /// As [`Machine::run`]; it must succeed. Gives its output without the newline.
    #[track_caller]
    pub fn must(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.code, 0, "{words:?}: {output:?}\n{}", self.journal());
        output.stdout.trim_end().to_string()
    }

    /// A property of a unit.
    #[track_caller]
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.must(&["systemctl", "show", "--value", "--property", property, unit])
    }

    /// What its services have said.
    pub fn journal(&self) -> String {
        self.run(&["journalctl", "--no-pager", "--output=cat"]).stdout
    }

    /// Writes a file in it.
    pub fn write(&self, path: &str, text: &str) {
        let folder = Path::new(path).parent().unwrap().to_str().unwrap();
        self.must(&["mkdir", "--parents", folder]);
        self.must(&["sh", "-c", "printf %s \"$1\" >\"$2\"", "sh", text, path]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With its first process a machine ends; unshare ends with that.
        match self.first {
            0 => drop(self.outside.kill()),
            first => process::send(first, Signal::SIGKILL),
        }
        let _ = self.outside.wait();
        let _ = fs::remove_file(self.folder.path().with_extension("log"));
        remove(&self.cgroup);
    }
}

/// Where this system has cgroups of version 2.
fn cgroups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = mounts.into_iter().find(|fields| fields.get(2) == Some(&"cgroup2"));
    PathBuf::from(found.expect("cgroups of version 2 somewhere")[1])
}

/// Removes a cgroup and those in it; the last processes may be on their way out.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    eventually("an empty cgroup", || fs::remove_dir(cgroup).ok());
}
