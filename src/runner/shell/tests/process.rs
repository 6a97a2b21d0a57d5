//! Processes that behave badly.

use super::*;
use serde_json::json;
use std::future::pending;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Runs in a loop of its own, as the worker does; nothing may take longer than ten seconds.
fn in_loop<T>(test: impl AsyncFnOnce(Rc<Shell>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let shell = Rc::new(Shell::new(Reaper::start().unwrap(), "/".into()).unwrap());
        timeout(Duration::from_secs(10), test(shell)).await.expect("a task held up the worker")
    })
}

fn run(attempt: Attempt) -> Outcome {
    in_loop(async |shell| shell.run(&attempt, pending(), pending()).await)
}

fn run_text(text: &str) -> Outcome {
    run(attempt(shell(text), &[], &[]))
}

fn limited(text: &str, soft_ms: u64, hard_ms: u64) -> Outcome {
    let mut attempt = attempt(shell(text), &[], &[]);
    attempt.soft_time_limit = Some(Duration::from_millis(soft_ms));
    attempt.time_limit = Some(Duration::from_millis(hard_ms));
    run(attempt)
}

fn out(outcome: &Outcome) -> String {
    String::from_utf8_lossy(&outcome.stdout.bytes).trim().to_string()
}

/// Asks until no process has this text in its command line, zombies aside.
fn assert_dies_out(mark: &str) {
    let end = Instant::now() + Duration::from_secs(2);
    let alive = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).contains(mark)).count()
    };
    while alive() > 0 {
        assert!(Instant::now() < end, "{mark} lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number of seconds to sleep that no other test uses.
fn unique() -> String {
    format!("9{}.{}", fastrand::u32(1000..9999), fastrand::u32(100_000..999_999))
}

#[test]
fn exit_codes_signals_and_both_streams() {
    for code in [0, 1, 75, 255] {
        let outcome = run_text(&format!("echo out; echo err >&2; exit {code}"));
        assert_eq!(outcome.ending, Ending::Exited(code));
        assert_eq!(
            (&*outcome.stdout.bytes, &*outcome.stderr.bytes),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }
    for signal in [1, 2, 3, 6, 9, 11, 13, 15, 34] {
        assert_eq!(
            run_text(&format!("kill -{signal} $$; sleep 9")).ending,
            Ending::Signaled(signal)
        );
    }
}

#[test]
fn a_process_begins_clean() {
    // Default handlers, no blocked signals, its own group, no descriptor of ours.
    let text = "cat /proc/self/status | grep -E '^Sig(Blk|Ign|Cgt)'; ls /proc/self/fd | wc -l; ps -o pgid= -p $$; echo $$";
    let outcome = run_text(text);
    let lines: Vec<_> = out(&outcome)
        .lines()
        .map(|line| line.split_whitespace().last().unwrap().to_string())
        .collect();
    let zeroes = "0000000000000000";
    // The fourth descriptor is the directory that `ls` reads.
    assert_eq!(lines[..4], [zeroes, zeroes, zeroes, "4"]);
    assert_eq!(lines[4], lines[5]);
    assert_eq!(run_text("yes | head -n 1").ending, Ending::Exited(0));
}

#[test]
fn programs_that_are_not_there() {
    let refusal = |task: Task| match run(attempt(task, &[], &[])).ending {
        Ending::Refused(exception) => (exception.exc_type, exception.exc_message),
        other => panic!("{other:?}"),
    };
    let missing = refusal(exec(&["no-such-program"]));
    let text = "No such file or directory";
    assert_eq!(
        (missing.0.as_str(), &missing.1[2]),
        ("FileNotFoundError", &json!("no-such-program"))
    );
    assert!(missing.1[1].as_str().unwrap().starts_with(text), "{missing:?}");
    assert_eq!(refusal(exec(&["/no/such"])).0, "FileNotFoundError");
    let denied = refusal(task(Program::File("/etc/passwd".into())));
    assert_eq!(
        denied,
        (
            "PermissionError".into(),
            vec![
                json!(13),
                json!("Permission denied: it is not executable; chmod +x /etc/passwd"),
                json!("/etc/passwd")
            ]
        )
    );
    let folder = refusal(Task { cwd: Some("/no/where".into()), ..shell("true") });
    assert_eq!(
        folder,
        (
            "FileNotFoundError".into(),
            vec![json!(2), json!(format!("{text}: the folder of cwd")), json!("/no/where")]
        )
    );
    assert_eq!(refusal(Task { user: Some("no-such".into()), ..shell("true") }).0, "LookupError");
}

#[test]
fn too_much_for_the_kernel() {
    let arg = format!("\"{}\"", "x".repeat(100_000));
    let args = vec![&*arg; 40];
    let Ending::Refused(exception) = run(attempt(shell("true"), &args, &[])).ending else {
        panic!("began")
    };
    assert_eq!((&*exception.exc_type, &exception.exc_message[0]), ("OSError", &json!(7)));
    let task = Task { stdin: Stdin::Json, ..shell("wc -c") };
    assert!(out(&run(attempt(task, &args, &[]))).parse::<usize>().unwrap() > 4_000_000);
}

#[test]
fn standard_input_needs_no_reader() {
    let big = format!("\"{}\"", "x".repeat(10_000_000));
    for (text, expected) in
        [("echo done", "done"), ("exec <&-; echo done", "done"), ("head -c 9", "{\"args\":[")]
    {
        let task = Task { stdin: Stdin::Json, ..shell(text) };
        let outcome = run(attempt(task, &[&big], &[]));
        assert_eq!((out(&outcome), outcome.ending), (expected.into(), Ending::Exited(0)));
    }
    assert_eq!(out(&run_text("cat; echo end")), "end");
}

#[test]
fn a_flood_is_bounded() {
    let task = Task { max_output: Some(1000), ..shell("head -c 1G /dev/zero; echo end") };
    let outcome = run(attempt(task, &[], &[]));
    assert_eq!(outcome.stdout.bytes.len(), 1000);
    assert!(outcome.stdout.bytes.ends_with(b"\0end\n"));
    assert_eq!(outcome.stdout.dropped, (1 << 30) + 4 - 1000);
}

#[test]
fn a_soft_limit_asks_and_a_hard_one_kills() {
    let outcome = limited("trap 'echo cleaned; exit 3' TERM; sleep 9 & wait", 100, 5000);
    assert_eq!((outcome.limit, &outcome.ending), (Some(TimeLimit::Soft), &Ending::Exited(3)));
    assert_eq!(out(&outcome), "cleaned");

    let mark = unique();
    let stubborn = format!(
        "trap '' TERM; echo on; setsid sh -c 'sleep {mark}; :' & (setsid sleep {mark} &) ; sleep {mark}; sleep {mark}"
    );
    let outcome = limited(&stubborn, 100, 300);
    assert_eq!((outcome.limit, &outcome.ending), (Some(TimeLimit::Hard), &Ending::Signaled(9)));
    assert_eq!(out(&outcome), "on");
    assert!(outcome.runtime < Duration::from_secs(2), "{:?}", outcome.runtime);
    assert_dies_out(&mark);
}

#[test]
fn cancelled_and_dropped_tasks_die() {
    let mark = unique();
    let text = format!("setsid sleep {mark} & sleep {mark}");
    in_loop(async |runner| {
        let attempt = attempt(shell(&text), &[], &[]);
        let soon = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            CancelReason::Shutdown
        };
        let outcome = runner.run(&attempt, pending(), soon).await;
        assert_eq!(outcome.ending, Ending::Cancelled(CancelReason::Shutdown));
        assert!(
            timeout(Duration::from_millis(100), runner.run(&attempt, pending(), pending()))
                .await
                .is_err()
        );
    });
    assert_dies_out(&mark);
}

#[test]
fn what_is_left_behind_delays_nobody() {
    let mark = unique();
    // One in our group that holds the pipes; one in its own session that holds them.
    let outcome = run_text(&format!("sleep {mark} & echo a"));
    assert_eq!((out(&outcome), &outcome.ending), ("a".into(), &Ending::Exited(0)));
    assert_dies_out(&mark);
    let started = Instant::now();
    assert_eq!(out(&run_text("setsid sleep 3 & echo b")), "b");
    assert!(started.elapsed() < Duration::from_secs(1));
    // One that holds nothing costs no time at all; the best of some, for a busy machine.
    let mark = unique();
    let text = format!("sleep {mark} >/dev/null 2>&1 & echo c");
    let best = (0..5).map(|_| {
        let started = Instant::now();
        assert_eq!(out(&run_text(&text)), "c");
        started.elapsed()
    });
    assert!(best.min().unwrap() < LEFTOVER_GRACE);
    assert_dies_out(&mark);
}

#[test]
fn output_closed_early_is_not_the_end() {
    let outcome = run_text("echo a; exec >&- 2>&-; sleep 0.2; exit 4");
    assert_eq!((out(&outcome), &outcome.ending), ("a".into(), &Ending::Exited(4)));
    assert!(outcome.runtime >= Duration::from_millis(200));
}

#[test]
fn resource_limits_and_identity() {
    let resource_limits = ResourceLimits {
        memory: Some(300 << 20),
        cpu_seconds: Some(7),
        open_files: Some(33),
        processes: Some(44),
    };
    let task = Task {
        resource_limits,
        nice: Some(5),
        ..shell("ulimit -v; ulimit -t; ulimit -n; nice; cat /proc/self/limits")
    };
    let text = out(&run(attempt(task, &[], &[])));
    assert_eq!(text.lines().take(4).collect::<Vec<_>>(), ["307200", "7", "33", "5"]);
    let line = |name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(line("Max cpu time")[3..5], ["7", "8"]);
    assert_eq!(line("Max processes")[2..4], ["44", "44"]);

    let resource_limits = ResourceLimits { cpu_seconds: Some(1), ..ResourceLimits::default() };
    let outcome = run(attempt(Task { resource_limits, ..shell("while :; do :; done") }, &[], &[]));
    assert_eq!(outcome.ending, Ending::Signaled(24));
    // The limit is counted in ticks, the usage is measured: they agree only roughly.
    assert!(outcome.usage.user + outcome.usage.system >= Duration::from_millis(500));

    let other = Task {
        user: Some("54321".into()),
        group: Some("12345".into()),
        ..shell("id -u; id -g; id -G")
    };
    let ending = run(attempt(other, &[], &[]));
    if Ids::may_change() {
        assert_eq!(out(&ending), "54321\n12345\n12345");
    } else {
        assert!(
            matches!(ending.ending, Ending::Refused(exception) if exception.exc_type == "PermissionError")
        );
    }
}

fn plain() -> ProcessCommand {
    built(&attempt(shell(":"), &[], &[]))
        .map(|command| ProcessCommand { cwd: "/".into(), ..command })
        .unwrap()
}

#[test]
fn any_command_can_be_run() {
    let command = ProcessCommand {
        argv: vec![c"env".into()],
        env: vec![c"PATH=/bin:/usr/bin".into(), c"X=1".into()],
        ..plain()
    };
    let outcome =
        in_loop(async |runner| runner.run_command(command, StopTimes::default(), pending()).await);
    assert_eq!(out(&outcome), "PATH=/bin:/usr/bin\nX=1");
}

#[test]
fn many_at_once() {
    in_loop(async |runner| {
        let mut running = tokio::task::JoinSet::new();
        for number in 0..200 {
            let runner = Rc::clone(&runner);
            let attempt = attempt(shell("echo $1"), &[&number.to_string()], &[]);
            running.spawn_local(async move {
                (number.to_string(), out(&runner.run(&attempt, pending(), pending()).await))
            });
        }
        while let Some(result) = running.join_next().await {
            let (sent, got) = result.unwrap();
            assert_eq!(sent, got);
        }
    });
}
