//! Time, memory, fuel, and what modules die of.

use super::*;

const LOOP: &str = r#"(module (func (export "f") (loop br 0)))"#;

/// Sleeps for an hour by `poll_oneoff`.
const SLEEP: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 3600000000000))
    (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))))"#;

fn limited(mut attempt: Attempt, soft: Option<u64>, hard: Option<u64>) -> Attempt {
    attempt.soft_time_limit = soft.map(Duration::from_millis);
    attempt.time_limit = hard.map(Duration::from_millis);
    attempt
}

#[test]
fn time_limits_end_loops_and_sleeps() {
    let house = house();
    let looping = house.attempt(LOOP, Some("f"), &[]);
    let start = LOOP.replace("\"f\"", "\"_start\"");
    let command = house.attempt(&start, None, &[]);
    let sleeping = house.attempt(SLEEP, None, &[]);
    for attempt in [looping, command, sleeping] {
        for (soft, hard, limit) in [
            (None, Some(300), TimeLimit::Hard),
            (Some(300), Some(5000), TimeLimit::Soft),
            (Some(300), Some(300), TimeLimit::Hard),
        ] {
            let attempt = limited(attempt.clone(), soft, hard);
            let outcome = house.run(&attempt);
            assert_eq!(outcome.limit, Some(limit));
            assert!(matches!(&outcome.ending, Ending::Trapped(..)), "{:?}", outcome.ending);
            let late = outcome.runtime.checked_sub(Duration::from_millis(300)).unwrap();
            assert!(late < Duration::from_millis(100), "{late:?} late");
        }
    }
}

#[test]
fn a_loop_of_two_seconds_stops_in_time() {
    let house = house();
    let attempt = limited(house.attempt(LOOP, Some("f"), &[]), None, Some(2000));
    let outcome = house.run(&attempt);
    assert!(outcome.runtime < Duration::from_millis(2100), "{:?}", outcome.runtime);
    assert!(outcome.runtime >= Duration::from_millis(2000));
    // Much of it on a processor, however many others want one.
    let used = outcome.usage.user + outcome.usage.system;
    assert!(used > Duration::from_millis(200) && used <= outcome.runtime, "{used:?}");
}

#[test]
fn the_worker_stops_attempts() {
    let house = house();
    for attempt in [house.attempt(LOOP, Some("f"), &[]), house.attempt(SLEEP, None, &[])] {
        assert_eq!(house.prepare(&attempt.task), Prepared::Ready);
        let cancel = Cancel::default();
        let (runtime, flag) = (house.runtime.clone(), cancel.clone());
        let running = thread::spawn(move || runtime.run(&attempt, flag));
        thread::sleep(Duration::from_millis(50));
        let told = Instant::now();
        cancel.set(CancelReason::ConnectionLost).unwrap();
        let ending = running.join().unwrap().ending;
        assert_eq!(ending, Ending::Cancelled(CancelReason::ConnectionLost));
        assert!(told.elapsed() < Duration::from_millis(100), "{:?}", told.elapsed());
    }
}

#[test]
fn limits_hold_after_a_rest() {
    // The ticker has gone to sleep by then, and is woken again.
    let house = house();
    house.call(MULTIPLY, "nothing", &[]);
    thread::sleep(Duration::from_millis(400));
    let outcome = house.run(&limited(house.attempt(LOOP, Some("f"), &[]), None, Some(50)));
    assert_eq!(outcome.limit, Some(TimeLimit::Hard));
}

#[test]
fn memory_is_limited() {
    let bomb = r#"(module (memory 1)
      (func (export "f") (result i32) (local $i i32)
        (loop
          (drop (memory.grow (i32.const 65536)))
          (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (memory.size)))"#;
    let house = house();
    let attempt = house.attempt(bomb, Some("f"), &[]);
    let outcome = house.run(&attempt);
    // 64 MiB are 1024 pages; it grows from 1 by 16.
    assert_eq!(stdout(&outcome), "1009");
    assert_eq!(outcome.usage.memory_peak, 1009 * 65536);
    let small = with(attempt, |task| task.resource_limits.memory = Some(1024 * 1024));
    assert_eq!(stdout(&house.run(&small)), "1");
    let tiny = with(small, |task| task.resource_limits.memory = Some(65535));
    let (class, message) = wrong(&house.run(&tiny).ending);
    assert_eq!(class, "MemoryError");
    assert!(message.contains("65536 bytes"), "{message}");
    let two = r#"(module (memory 900) (memory 900) (func (export "f")))"#;
    assert_eq!(wrong(&house.run(&house.attempt(two, Some("f"), &[])).ending).0, "MemoryError");
}

#[test]
fn tables_are_limited() {
    let bomb = r#"(module (table $t 1 funcref)
      (func (export "f") (result i32)
        (loop (br_if 0 (i32.ne (i32.const -1)
          (table.grow $t (ref.null func) (i32.const 100000)))))
        (table.size $t)))"#;
    let size: u64 = house().call(bomb, "f", &[]).parse().unwrap();
    assert!(size < 10_000_000, "{size}");
}

#[test]
fn traps_are_told_with_a_backtrace() {
    let house = house();
    let cases = [
        ("unreachable", "wasm `unreachable` instruction executed"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "integer divide by zero"),
        ("(drop (i32.load (i32.const 65536)))", "out of bounds memory access"),
        ("(call $f)", "call stack exhausted"),
    ];
    for (code, expected) in cases {
        let wat = format!("(module $m (memory 1) (func $f (export \"f\") {code}))");
        let outcome = house.run(&house.attempt(&wat, Some("f"), &[]));
        let Ending::Trapped(exception, backtrace) = &outcome.ending else { panic!() };
        assert_eq!((&*exception.exc_module, &*exception.exc_type), ("qworker.wasm", "Trap"));
        assert_eq!(exception.exc_message[0], expected);
        assert!(backtrace.contains("m!f"), "{backtrace}");
        // A command's stack is another one.
        let outcome = house.run(&house.attempt(&wat.replace("\"f\"", "\"_start\""), None, &[]));
        assert_eq!(wrong(&outcome.ending).1, expected);
    }
}

#[test]
fn a_start_function_may_trap_and_loop_too() {
    let house = house();
    let wat = "(module (func $s unreachable) (start $s) (func (export \"f\")))";
    let outcome = house.run(&house.attempt(wat, Some("f"), &[]));
    assert_eq!(wrong(&outcome.ending).0, "Trap");
    let wat = wat.replace("unreachable", "(loop br 0)");
    let attempt = limited(house.attempt(&wat, Some("f"), &[]), None, Some(100));
    assert_eq!(house.run(&attempt).limit, Some(TimeLimit::Hard));
}

#[test]
fn fuel_runs_out() {
    let house = house();
    let attempt = with(house.attempt(LOOP, Some("f"), &[]), |task| task.fuel = Some(10_000));
    let outcome = house.run(&attempt);
    let (class, message) = wrong(&outcome.ending);
    assert_eq!(class, "OutOfFuel");
    assert_eq!(message, "used up its fuel of 10000 instructions");
    assert_eq!(outcome.limit, None);
    let enough = with(house.attempt(MULTIPLY, Some("multiply"), &["2", "3"]), |task| {
        task.fuel = Some(10_000);
    });
    assert_eq!(stdout(&house.run(&enough)), "6");
}
