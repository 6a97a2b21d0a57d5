//! `scripts/install` puts everything in place, and takes exactly that out again.

use super::{script, tree};
use crate::harness::Output;
use std::fs;
use std::path::Path;

#[track_caller]
fn install(root: &Path, args: &[&str]) -> Output {
    let output = Output::of(script("install").args(args).env("DESTDIR", root));
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    output
}

#[test]
fn what_is_installed_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    // There before, and there after.
    fs::create_dir_all(root.join("usr/local/bin")).unwrap();
    fs::write(root.join("usr/local/bin/other"), "").unwrap();
    let before = tree(root);
    install(root, &[]);
    let installed = tree(root);
    for path in [
        "/etc/default/qworker",
        "/etc/logrotate.d/qworker",
        "/etc/qworker/qworker.yaml",
        "/etc/qworker/tasks.d",
        "/usr/local/bin/qworker",
        "/usr/local/lib/systemd/system/qworker-beat.service",
        "/usr/local/lib/systemd/system/qworker-multi.service",
        "/usr/local/lib/systemd/system/qworker.target",
        "/usr/local/lib/systemd/system/qworker@.service",
        "/usr/local/lib/sysusers.d/qworker.conf",
        "/usr/local/lib/tmpfiles.d/qworker.conf",
        "/usr/local/share/bash-completion/completions/qworker",
        "/usr/local/share/doc/qworker/BENCHMARKS.md",
        "/usr/local/share/doc/qworker/README.md",
        "/usr/local/share/doc/qworker/examples/example.crontab",
        "/usr/local/share/doc/qworker/examples/qworker.yaml",
        "/usr/local/share/doc/qworker/examples/schedule.yaml",
        "/usr/local/share/doc/qworker/examples/tasks.d/media/images.yaml",
        "/usr/local/share/fish/vendor_completions.d/qworker.fish",
        "/usr/local/share/man/man1/qworker-beat.1",
        "/usr/local/share/man/man1/qworker-worker.1",
        "/usr/local/share/man/man5/qworker-schedule.5",
        "/usr/local/share/man/man5/qworker.yaml.5",
        "/usr/local/share/man/man7/qworker.7",
        "/usr/local/share/zsh/site-functions/_qworker",
    ] {
        assert!(installed.iter().any(|one| one == path), "{path}: {installed:#?}");
    }
    // A schedule is an example, and no one's.
    let in_force = |path: &&String| path.ends_with(".crontab") || path.ends_with("schedule.yaml");
    let schedules: Vec<&String> =
        installed.iter().filter(|path| !path.contains("/examples/")).filter(in_force).collect();
    assert_eq!(schedules, [""; 0]);
    let unit =
        fs::read_to_string(root.join("usr/local/lib/systemd/system/qworker@.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/local/bin/qworker worker "), "{unit}");
    let version =
        Output::of(std::process::Command::new(root.join("usr/local/bin/qworker")).arg("--version"));
    assert_eq!(version.stdout, format!("qworker {}\n", env!("CARGO_PKG_VERSION")));
    // Once more changes nothing.
    install(root, &[]);
    assert_eq!(tree(root), installed);
    let removed = install(root, &["--uninstall"]);
    assert_eq!((tree(root), removed.stdout.as_str()), (before, ""));
    // There is nothing to remove now.
    let again = Output::of(script("install").arg("--uninstall").env("DESTDIR", root));
    assert_eq!(again.code, 1, "{again:?}");
}

#[test]
fn what_somebody_wrote_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    install(root, &[]);
    let (options, task) =
        (root.join("etc/default/qworker"), root.join("etc/qworker/tasks.d/a.yaml"));
    fs::write(&options, "QWORKERD_OPTS=-c3\n").unwrap();
    fs::write(&task, "a: {shell: ':'}\n").unwrap();
    let again = install(root, &[]);
    assert!(again.stdout.contains("Kept: ") && again.stdout.contains("etc/default/qworker"));
    assert_eq!(fs::read_to_string(&options).unwrap(), "QWORKERD_OPTS=-c3\n");
    install(root, &["--uninstall"]);
    let left =
        ["/etc", "/etc/default", "/etc/default/qworker", "/etc/qworker", "/etc/qworker/tasks.d"];
    let left: Vec<&str> = left.into_iter().chain(["/etc/qworker/tasks.d/a.yaml"]).collect();
    assert_eq!(tree(root), left);
}

#[test]
fn another_place_is_as_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = script("install");
    let output = Output::of(command.env("DESTDIR", dir.path()).env("PREFIX", "/opt/q"));
    assert_eq!(output.code, 0, "{output:?}");
    assert!(dir.path().join("opt/q/bin/qworker").exists());
    let unit =
        fs::read_to_string(dir.path().join("opt/q/lib/systemd/system/qworker-multi.service"));
    assert!(unit.unwrap().contains("ExecStop=/opt/q/bin/qworker multi stopwait "));
    let mut command = script("install");
    command.arg("--uninstall").env("DESTDIR", dir.path()).env("PREFIX", "/opt/q");
    assert_eq!(Output::of(&mut command).code, 0);
    assert_eq!(tree(dir.path()), [""; 0]);
    // What makes no sense is told how it is meant.
    let wrong = Output::of(script("install").arg("--nonsense"));
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("scripts/install --uninstall"), "{wrong:?}");
}
