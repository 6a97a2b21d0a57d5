//! Modules made by real toolchains; `tests/wasm/build` puts them into
//! `target/wasm-fixtures`. Run with `cargo test --release built -- --ignored`.

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/wasm-fixtures").join(name)
}

/// The probe as a module and as a component: both must behave the same.
const PROBES: [&str; 2] = ["probe.wasm", "probe.component.wasm"];

#[test]
#[ignore = "needs tests/wasm/build"]
fn built_programs_see_their_world() {
    let house = house();
    let data = house.folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("in"), "content").unwrap();
    let dir = Dir { host: data.clone(), guest: "/data".into(), writable: true };
    for probe in PROBES {
        let run = |args: &[&str]| {
            let attempt = with(attempt(&fixture(probe), None, args), |task| {
                task.env = vec![("A".into(), "b".into())];
                task.dirs = vec![dir.clone()];
            });
            house.run(&attempt)
        };
        assert_eq!(stdout(&run(&["\"args\"", "[1]"])), "a.task\nargs\n[1]\n");
        assert!(stdout(&run(&["\"env\""])).starts_with("A=b\nQWORKER_TASK_ID=an-id\n"));
        assert_eq!(stdout(&run(&["\"cat\"", "\"/data/in\""])), "content");
        assert_eq!(run(&["\"cat\"", "\"/data/../../etc/passwd\""]).ending, Ending::Exited(1));
        assert_eq!(run(&["\"cat\"", "\"/etc/passwd\""]).ending, Ending::Exited(1));
        let outcome = run(&["\"write\"", "\"/data/out\"", "\"text\""]);
        assert_eq!(outcome.ending, Ending::Exited(0), "{outcome:?}");
        assert_eq!(fs::read(data.join("out")).unwrap(), b"text");
        assert!(stdout(&run(&["\"ls\"", "\"/data\""])).contains("in\n"));
        let outcome = run(&["\"flood\""]);
        assert!(outcome.stdout.bytes.ends_with(b"x\nend\n"), "{:?}", outcome.ending);
        assert_eq!(outcome.stdout.dropped, 5 + 100 * 1024 * 1024 - 1024 * 1024);
        assert_eq!(wrong(&run(&["\"abort\""]).ending).0, "Trap");
        assert_eq!(wrong(&run(&["\"deep\""]).ending).0, "Trap");
        assert!(stdout(&run(&["\"time\""])).trim().parse::<u64>().unwrap() > 1_700_000_000);
        let eaten: u64 = stdout(&run(&["\"eat\""])).trim().parse().unwrap();
        assert!((48 << 20..64 << 20).contains(&eaten), "{eaten}");
    }
    // Preview 2 knows but success and failure; its adapter traps on other codes.
    assert_eq!(house.run(&attempt(&fixture(PROBES[0]), None, &["3"])).ending, Ending::Exited(3));
}

#[test]
#[ignore = "needs tests/wasm/build"]
fn built_programs_are_stopped() {
    let house = house();
    for (probe, what) in PROBES.into_iter().flat_map(|probe| [(probe, "spin"), (probe, "sleep")]) {
        let mut attempt = attempt(&fixture(probe), None, &[&format!("{what:?}")]);
        house.prepare(&attempt.task);
        attempt.time_limit = Some(Duration::from_millis(200));
        let outcome = house.run(&attempt);
        assert_eq!(outcome.limit, Some(Limit::Hard), "{probe} {what}");
        assert!(outcome.runtime < Duration::from_millis(300), "{:?}", outcome.runtime);
    }
}

#[test]
#[ignore = "needs tests/wasm/build"]
fn built_functions_are_called() {
    let house = house();
    let call = |name, args: &[&str]| {
        let outcome = house.run(&attempt(&fixture("numbers.wasm"), Some(name), args));
        assert_eq!(outcome.ending, Ending::Returned);
        stdout(&outcome)
    };
    assert_eq!(call("fib", &["90"]), "2880067194370816120");
    assert_eq!(call("mean", &["1", "2"]), "1.5");
    assert_eq!(call("sorted", &["1000"]), "999");
}

#[test]
fn shipped_examples_work() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("tasks.d");
    let house = house();
    let outcome = house.run(&attempt(&shipped.join("hello_c.wasm"), None, &["\"World\""]));
    assert_eq!(stdout(&outcome), "Hello, World, from C in task an-id\n");
    let outcome = house.run(&attempt(&shipped.join("multiply.wat"), Some("multiply"), &["6", "7"]));
    assert_eq!(stdout(&outcome), "42");
}

#[test]
fn many_at_once() {
    let house = house();
    let hello = Path::new(env!("CARGO_MANIFEST_DIR")).join("tasks.d/hello_c.wasm");
    let attempt = attempt(&hello, None, &["\"you\""]);
    assert_eq!(house.prepare(&attempt.task), Prepared::Ready);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let outcome = house.runtime.run(&attempt, Arc::default());
                    assert_eq!(outcome.ending, Ending::Exited(0));
                }
            });
        }
    });
}
