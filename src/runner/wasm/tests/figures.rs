//! How fast and how large it is. Printed with `cargo test --release figures -- --ignored
//! --nocapture`; the bounds here are far from the figures, to fail on a loss of the fast
//! path and not on a busy machine.

use super::*;

/// Resident bytes of this process.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Compiles in a process of its own, as the worker does, so that what is measured here is
/// the worker's share.
fn compile_apart(prepared: Prepared) {
    let Prepared::Compile { source, target } = prepared else { panic!("{prepared:?}") };
    let start = Instant::now();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["figures::compiler", "--ignored", "--nocapture", "--quiet"])
        .env("QWORKER_SOURCE", source)
        .env("QWORKER_TARGET", &target)
        .output()
        .unwrap();
    assert!(child.status.success());
    let memory = String::from_utf8_lossy(&child.stderr).trim().to_string();
    let size = fs::metadata(&target).unwrap().len();
    eprintln!("compile: {:?}, {memory}, {size} bytes", start.elapsed());
}

#[test]
#[ignore = "a process of the others"]
fn compiler() {
    let Ok(source) = std::env::var("QWORKER_SOURCE") else { return };
    compile(Path::new(&source), Path::new(&std::env::var("QWORKER_TARGET").unwrap())).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    eprintln!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..20_001)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "measures; run it alone"]
fn plain_functions() {
    let house = house();
    let attempt = house.attempt(MULTIPLY, Some("multiply"), &["6", "7"]);
    let before = resident();
    let prepared = house.runtime.prepare(&attempt.task);
    eprintln!("engine and pool: {} -> {} KiB", before / 1024, resident() / 1024);
    compile_apart(prepared);
    house.run(&attempt);
    eprintln!("with a module: {} KiB", resident() / 1024);
    let cancel = Arc::new(AtomicBool::new(false));
    let run = median(|| drop(house.runtime.run(&attempt, cancel.clone())));
    let prepare = median(|| drop(house.runtime.prepare(&attempt.task)));
    eprintln!("run: {run:?}, prepare: {prepare:?}");
    let wat = MULTIPLY.replacen("(module", "(module (memory 17) (data (i32.const 1024) \"x\")", 1);
    let attempt = house.attempt(&wat, Some("multiply"), &["6", "7"]);
    house.run(&attempt);
    let memory = median(|| drop(house.runtime.run(&attempt, cancel.clone())));
    eprintln!("run with a memory: {memory:?}");
    let attempt = house.attempt("(module (func (export \"_start\")))", None, &[]);
    house.run(&attempt);
    let command = median(|| drop(house.runtime.run(&attempt, cancel.clone())));
    eprintln!("run a command: {command:?}");
    assert!(run < Duration::from_micros(50));
    assert!(prepare < Duration::from_micros(10));
}

#[test]
#[ignore = "measures a module given in QWORKER_WASM"]
fn large_module() {
    let module = PathBuf::from(std::env::var("QWORKER_WASM").unwrap());
    let house = house();
    let script = "\"import sys; print(sys.version_info[0] + 1)\"";
    let attempt = attempt(&module, None, &["\"-c\"", script]);
    let attempt = with(attempt, |task| task.fences.memory = Some(1 << 30));
    let start = Instant::now();
    let prepared = house.runtime.prepare(&attempt.task);
    eprintln!("engine and hash: {:?}", start.elapsed());
    compile_apart(prepared);
    let fresh = Runtime::new(house.runtime.0.config.clone());
    let before = resident();
    let start = Instant::now();
    assert_eq!(fresh.prepare(&attempt.task), Prepared::Ready);
    eprintln!("load: {:?}, {} KiB", start.elapsed(), (resident() - before) / 1024);
    for _ in 0..3 {
        let outcome = fresh.run(&attempt, Arc::default());
        let stderr = String::from_utf8_lossy(&outcome.stderr.bytes);
        assert_eq!(outcome.ending, Ending::Exited(0), "{stderr}");
        assert_eq!(stdout(&outcome), "4\n");
        eprintln!("run: {:?}, {} bytes", outcome.runtime, outcome.usage.memory_peak);
    }
}
