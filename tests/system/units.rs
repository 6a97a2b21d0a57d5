//! The units as systemd's own tools judge them.

use super::script;
use crate::harness::Output;
use std::fs;
use std::path::Path;
use std::process::Command;

const WORKER: &str = "qworker@worker1.service";
const BEAT: &str = "qworker-beat.service";

/// An installation with the units of systemd that ours name.
fn installed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut install = script("install");
    let output = Output::of(install.env("DESTDIR", dir.path()).env("PREFIX", "/usr"));
    assert_eq!(output.code, 0, "{output:?}");
    let units = dir.path().join("usr/lib/systemd/system");
    for entry in fs::read_dir("/usr/lib/systemd/system").unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".target") || name.ends_with(".slice") {
            fs::copy(entry.path(), units.join(name)).unwrap();
        }
    }
    fs::create_dir(dir.path().join("bin")).unwrap();
    fs::copy("/bin/kill", dir.path().join("bin/kill")).unwrap();
    dir
}

fn analyze(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(args).arg(format!("--root={}", root.display()));
    // The pages that units name are looked for.
    Output::of(command.env("MANPATH", root.join("usr/share/man")))
}

#[test]
fn units_are_verified() {
    let root = installed();
    for unit in [WORKER, "qworker-multi.service", BEAT, "qworker.target"] {
        let output = analyze(root.path(), &["verify", unit]);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert_eq!((output.code, said.as_str()), (0, ""), "{unit}");
    }
    // What is wrong would be seen.
    let unit = root.path().join("usr/lib/systemd/system/qworker.target");
    fs::write(&unit, "[Unit]\nDocumentation=man:qworker(9)\nNonsense=1\n").unwrap();
    let output = analyze(root.path(), &["verify", "qworker.target"]);
    assert!(
        output.stderr.contains("Nonsense") && output.stderr.contains("qworker(9)"),
        "{output:?}"
    );
}

#[test]
fn services_are_hardened() {
    let root = installed();
    for (unit, most) in [(WORKER, 45), ("qworker-multi.service", 45), (BEAT, 20)] {
        let threshold = format!("--threshold={most}");
        let output = analyze(root.path(), &["security", "--offline=true", &threshold, unit]);
        let last = output.stdout.lines().last().unwrap_or_default();
        println!("{last}");
        assert!(output.code == 0 && last.contains(" OK "), "{output:?}");
    }
}

/// The services of both kinds have the same resource_limits, and beat has more: a reason stands in one
/// place only.
#[test]
fn services_are_hardened_alike() {
    let lines = |name: &str| -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/systemd").join(name);
        let text = fs::read_to_string(path).unwrap();
        let from = text.lines().skip_while(|line| !line.starts_with("NoNewPrivileges="));
        let until = from.take_while(|line| !line.starts_with("# Left open") && !line.is_empty());
        until.filter(|line| !line.starts_with('#')).map(str::to_string).collect()
    };
    let (one, several) = (lines("qworker@.service"), lines("qworker-multi.service"));
    assert!(one.len() > 10);
    assert_eq!(one, several);
    let beat = lines("qworker-beat.service");
    let missing: Vec<&String> = one
        .iter()
        .filter(|line| !line.starts_with("SystemCallFilter=~") && !beat.contains(line))
        .collect();
    assert_eq!(missing, [""; 0]);
    assert!(beat.contains(&"SystemCallFilter=@system-service".to_string()));
}

#[test]
fn users_folders_and_logs_are_described_rightly() {
    let root = installed();
    let at = format!("--root={}", root.path().display());
    let run = |words: &[&str]| {
        let output = Output::of(Command::new(words[0]).args(&words[1..]));
        assert_eq!(output.code, 0, "{words:?}: {output:?}");
    };
    run(&["systemd-sysusers", &at, "qworker.conf"]);
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let user = users.lines().find(|line| line.starts_with("qworker:")).expect("a user");
    assert!(user.contains(":/var/lib/qworker:") && user.ends_with("/nologin"), "{user}");
    if nix::unistd::geteuid().is_root() {
        run(&["systemd-tmpfiles", &at, "--create", "qworker.conf"]);
        for folder in ["run", "var/lib", "var/log", "var/cache"] {
            assert!(root.path().join(folder).join("qworker").is_dir(), "{folder}");
        }
    }
}

/// A log is moved away as it is described, and nobody needs to be told.
#[test]
fn logs_are_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("w1.log");
    fs::write(&log, "a line\n").unwrap();
    let ours =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/logrotate.d/qworker"));
    let ours = ours.unwrap().replace("/var/log/qworker", &dir.path().display().to_string());
    // The user of the services is not there.
    let rules =
        ours.lines().filter(|line| !line.contains("su qworker")).collect::<Vec<_>>().join("\n");
    let file = dir.path().join("rules");
    fs::write(&file, rules + "\n").unwrap();
    let output = Output::of(
        Command::new("logrotate")
            .args(["--force", "--state"])
            .arg(dir.path().join("state"))
            .arg(&file)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    );
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    assert!(!log.exists());
    assert_eq!(fs::read_to_string(dir.path().join("w1.log.1")).unwrap(), "a line\n");
}
