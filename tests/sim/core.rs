//! The worker's decisions under invented histories; [`super::world`] checks each step.

use super::broker::{Letter, Place};
use super::world::{ITEMS_MAX, RETRIES_MAX, World};
use fastrand::Rng;
use qworker::os::signal::WorkerSignal;
use qworker::runner::{Ending, TimeLimit};
use qworker::wire::TaskState;
use std::cell::Cell;
use std::time::Duration;

/// How many histories of each kind are run.
const SEEDS: u64 = 400;

/// Steps after which a history must be over.
const STEPS_MAX: usize = 50_000;

/// Runs a history; prints what happened if it fails.
fn history(seed: u64, live: impl Fn(&mut World)) {
    let mut world = World::new(seed, 1 + seed as usize % 7);
    let lived = std::panic::AssertUnwindSafe(|| live(&mut world));
    if let Err(panic) = std::panic::catch_unwind(lived) {
        let from = world.story.len().saturating_sub(40);
        println!("{}\n…\n{}", world.story[0], world.story[from..].join("\n"));
        std::panic::resume_unwind(panic);
    }
}

fn every_fate(rng: &mut Rng) -> (Ending, Option<TimeLimit>) {
    match rng.u8(0..10) {
        0..5 => (Ending::Exited(0), None),
        5 => (Ending::Exited(1), None),
        6 => (Ending::Exited(75), None),
        7 => (Ending::Signaled(9), None),
        8 => (Ending::Signaled(9), Some(TimeLimit::Hard)),
        _ => (Ending::Exited(143), Some(TimeLimit::Soft)),
    }
}

/// Sends a mixture of all tasks.
fn send_all_sorts(world: &mut World) {
    for _ in 0..world.rng.usize(1..40) {
        let eta = (world.rng.u8(0..5) == 0).then(|| world.rng.f64() * 2.0);
        let expires = (world.rng.u8(0..6) == 0).then(|| world.rng.f64() * 0.5 - 0.1);
        match world.rng.u8(0..22) {
            20 => world.send("map.late", eta, expires),
            21 => world.send("map.early", eta, expires),
            0 => world.send_nonsense(),
            1 => world.send("unheard.of", eta, None),
            2 => world.send("picky", eta, expires),
            3..8 => world.send("early", eta, expires),
            8..10 => world.send("rated", eta, None),
            _ => world.send("late", eta, expires),
        }
    }
}

fn slow_down(world: &mut World) {
    for n in 0..3 {
        world.slowness[n] = [0.0005, 0.01, 0.3][world.rng.usize(0..3)];
    }
}

fn step_often(world: &mut World, steps: usize) {
    for _ in 0..steps {
        world.step();
    }
}

fn run_until_quiet(world: &mut World) {
    for _ in 0..STEPS_MAX {
        if !world.step() {
            return;
        }
    }
    panic!("not quiet after {STEPS_MAX} steps, {:.1} s", world.now);
}

#[test]
fn everything_that_is_sent_comes_to_an_end() {
    for seed in 0..SEEDS {
        history(seed, |world| {
            world.fate = every_fate;
            slow_down(world);
            send_all_sorts(world);
            world.begin();
            for _ in 0..3 {
                step_often(world, 50);
                send_all_sorts(world);
            }
            run_until_quiet(world);
            let bound = world.plan.policy.max_deliveries;
            for letter in &world.broker.letters {
                if letter.id.starts_with("unheard.of") {
                    // Not failed, not counted, still there for a worker that knows it.
                    assert!(matches!(letter.place, Place::Queue(_)), "{letter:?}");
                    assert_eq!((letter.deliveries, letter.starts), (0, 0), "{letter:?}");
                    assert!(!world.results.contains_key(&letter.id), "{letter:?}");
                    continue;
                }
                let is_over = matches!(letter.place, Place::Gone | Place::Dead(_));
                assert!(is_over, "lost: {letter:?}");
                assert!(letter.deliveries < bound, "{letter:?}");
                let items = if letter.id.starts_with("map.") { ITEMS_MAX } else { 1 };
                assert!(letter.starts <= items * (1 + RETRIES_MAX) * bound as usize, "{letter:?}");
                let is_final = world.results.get(&letter.id).is_some_and(|state| state.is_ready());
                assert!(is_final || letter.id.starts_with("nonsense"), "no result: {letter:?}");
                let expected = match letter.id.split('-').next().unwrap() {
                    "nonsense" => Some(Place::Dead("malformed")),
                    "picky" | "early" => Some(Place::Gone),
                    _ => None,
                };
                assert!(expected.is_none_or(|place| place == letter.place), "{letter:?}");
            }
        });
    }
}

#[test]
fn a_task_that_kills_its_process_each_time_becomes_a_dead_letter() {
    for seed in 0..50 {
        history(seed, |world| {
            world.fate = |_| (Ending::Signaled(11), None);
            world.send("late", None, None);
            world.send("early", None, None);
            world.begin();
            run_until_quiet(world);
            let (late, early) = (&world.broker.letters[0], &world.broker.letters[1]);
            assert_eq!((late.place, late.starts), (Place::Dead("lost"), 5));
            assert_eq!((early.place, early.starts), (Place::Gone, 1), "at most once");
            assert_eq!(world.results[&late.id], TaskState::Failure);
        });
    }
}

#[test]
fn a_task_is_retried_max_retries_times() {
    for seed in 0..50 {
        history(seed, |world| {
            world.fate = |_| (Ending::Exited(75), None);
            world.send("late", None, None);
            world.begin();
            run_until_quiet(world);
            let letter = &world.broker.letters[0];
            assert_eq!((letter.place, letter.starts), (Place::Gone, 1 + RETRIES_MAX));
            assert_eq!(world.results[&letter.id], TaskState::Failure);
        });
    }
}

#[test]
fn a_rate_limit_lets_all_tasks_pass_one_by_one() {
    for seed in 0..50 {
        history(seed, |world| {
            (0..40).for_each(|_| world.send("rated", None, None));
            world.begin();
            run_until_quiet(world);
            assert!(world.broker.letters.iter().all(|letter| letter.place == Place::Gone));
            // 20 a second: 39 intervals, and little more.
            assert!((1.9..3.0).contains(&world.now), "{} s", world.now);
        });
    }
}

#[test]
fn a_shutdown_ends_whatever_happens() {
    let signals = [WorkerSignal::Warm, WorkerSignal::Interrupt, WorkerSignal::Cold];
    for seed in 0..SEEDS {
        history(seed, |world| {
            world.fate = |rng| match rng.u8(0..6) {
                // A map waits with its next item then.
                0 => (Ending::Unavailable("program: Text file busy".into()), None),
                _ => every_fate(rng),
            };
            slow_down(world);
            send_all_sorts(world);
            send_all_sorts(world);
            world.begin();
            let steps = world.rng.usize(0..120);
            step_often(world, steps);
            let first = signals[world.rng.usize(0..3)];
            world.signal(first);
            let mut again = world.rng.usize(0..200);
            for _ in 0..STEPS_MAX {
                if world.exit.is_some() || !world.step() {
                    break;
                }
                if again == 0 {
                    let next = signals[world.rng.usize(0..3)];
                    world.signal(next);
                }
                again = again.wrapping_sub(1);
            }
            let code = if first == WorkerSignal::Interrupt { 1 } else { 0 };
            assert_eq!(world.exit, Some(code), "{first:?}");
            for letter in &world.broker.letters {
                assert!(letter.place != Place::Held, "nothing is held: {letter:?}");
            }
        });
    }
}

#[test]
fn a_worker_that_dies_again_and_again_loses_no_message() {
    for seed in 0..SEEDS {
        history(seed, |world| {
            world.slowness[0] = 0.05;
            for _ in 0..30 {
                world.send("late", None, None);
            }
            world.begin();
            for _ in 0..world.rng.usize(1..12) {
                let steps = world.rng.usize(0..40);
                step_often(world, steps);
                world.crash();
            }
            run_until_quiet(world);
            for letter in &world.broker.letters {
                match letter.place {
                    Place::Gone => assert!(letter.starts >= 1, "{letter:?}"),
                    // Only a task that ran at this many deaths may be blamed for them.
                    Place::Dead("lost") => assert!(letter.starts >= 4, "{letter:?}"),
                    _ => panic!("{letter:?}"),
                }
            }
        });
    }
}

#[test]
fn what_another_worker_may_have_is_given_up_and_runs_here_again() {
    for seed in 0..SEEDS {
        history(seed, |world| {
            slow_down(world);
            for _ in 0..30 {
                let task = world.rng.choice(["late", "early", "map.late", "map.early"]);
                world.send(task.unwrap(), None, None);
            }
            world.begin();
            for _ in 0..world.rng.usize(1..4) {
                let steps = world.rng.usize(0..60);
                step_often(world, steps);
                world.cut_off();
            }
            run_until_quiet(world);
            for letter in &world.broker.letters {
                assert_eq!(letter.place, Place::Gone, "{letter:?}");
                assert!(letter.deliveries <= 3, "{letter:?}");
                assert_eq!(world.results[&letter.id], TaskState::Success, "{letter:?}");
            }
        });
    }
}

#[test]
fn tiny_tasks_that_wait_for_threads_are_given_back_when_one_is_long() {
    let recalled = Cell::new(0);
    for seed in 0..SEEDS {
        history(seed, |world| {
            for _ in 0..world.rng.usize(1..300) {
                let task = if world.rng.u8(0..30) == 0 { "late" } else { "tiny" };
                world.send(task, None, None);
            }
            world.begin();
            match world.rng.u8(0..4) {
                0 => {
                    step_often(world, 100);
                    world.cut_off();
                }
                1 => {
                    step_often(world, 100);
                    world.crash();
                }
                _ => {}
            }
            run_until_quiet(world);
            for letter in &world.broker.letters {
                assert_eq!(letter.place, Place::Gone, "{letter:?}");
                assert!(letter.starts >= 1, "{letter:?}");
            }
            recalled.set(recalled.get() + world.recalled);
        });
    }
    assert!(recalled.get() > 100, "hardly any was recalled: {}", recalled.get());
}

#[test]
fn slots_follow_the_work_and_no_task_is_interrupted() {
    for seed in 0..100 {
        let keepalive = Duration::from_secs(5);
        let mut world = World::scaling(seed, seed as usize % 3, 8, keepalive);
        let min = seed as usize % 3;
        world.slowness[0] = 1.0;
        world.begin();
        for _ in 0..6 {
            let calls = world.rng.usize(0..60);
            (0..calls).for_each(|_| world.send("late", None, None));
            let pause = world.rng.f64() * 15.0;
            world.pass(pause);
        }
        run_until_quiet(&mut world);
        world.pass(11.0);
        assert!(world.broker.letters.iter().all(|letter| letter.starts == 1), "interrupted");
        let (mut slots, mut last) = (min, None);
        for (at, line) in &world.said {
            let Some(count) = line.strip_suffix(" processes.") else { continue };
            let (up, count) = match count.strip_prefix("Scaling up ") {
                Some(count) => (true, count),
                None => (false, count.strip_prefix("Scaling down ").unwrap()),
            };
            let count: usize = count.parse().unwrap();
            slots = if up { slots + count } else { slots - count };
            assert!((min..=8).contains(&slots), "{:?}", world.said);
            assert!(up || last.is_none_or(|last| at - last > 4.999), "{:?}", world.said);
            last = Some(*at);
        }
        assert_eq!(slots, min, "{:?}", world.said);
        assert!(!world.said.is_empty());
    }
}

#[test]
fn a_host_that_is_short_gets_no_new_tasks() {
    for seed in 0..SEEDS {
        history(seed, |world| {
            world.fate = every_fate;
            slow_down(world);
            send_all_sorts(world);
            let shortage = Some("of a test".to_string());
            if world.rng.bool() {
                world.host(shortage.clone());
            }
            world.begin();
            for _ in 0..world.rng.usize(1..6) {
                let steps = world.rng.usize(0..40);
                step_often(world, steps);
                send_all_sorts(world);
                world.host(shortage.clone());
                // Tasks that are being acknowledged or marked still begin; then none does.
                world.pass(2.0);
                let starts: usize = world.broker.letters.iter().map(|letter| letter.starts).sum();
                world.pass(5.0);
                assert_eq!(
                    starts,
                    world.broker.letters.iter().map(|letter| letter.starts).sum::<usize>()
                );
                assert_eq!(world.running(), 0);
                world.host(None);
            }
            run_until_quiet(world);
            let strange = |letter: &Letter| letter.id.starts_with("unheard.of");
            assert!(
                world
                    .broker
                    .letters
                    .iter()
                    .all(|letter| matches!(letter.place, Place::Gone | Place::Dead(_))
                        || strange(letter))
            );
            let logged = |part| world.said.iter().filter(|(_, line)| line.contains(part)).count();
            assert_eq!(logged("takes no new tasks: of a test"), logged("takes tasks again"));
            assert!(logged("takes tasks again") > 0);
        });
    }
}

#[test]
fn what_the_host_has_no_capacity_for_is_neither_lost_nor_counted() {
    for seed in 0..100 {
        history(seed, |world| {
            world.fate = |rng| match rng.u8(0..3) {
                0 => (Ending::NoCapacity("no descriptors".into()), None),
                _ => (Ending::Exited(0), None),
            };
            slow_down(world);
            for _ in 0..40 {
                let task = world.rng.choice(["late", "early", "map.late", "map.early"]);
                world.send(task.unwrap(), None, None);
            }
            world.begin();
            run_until_quiet(world);
            for letter in &world.broker.letters {
                assert_eq!((letter.place, letter.deliveries), (Place::Gone, 0), "{letter:?}");
                assert_eq!(world.results[&letter.id], TaskState::Success, "{letter:?}");
            }
            let logged =
                |part: &str| world.said.iter().filter(|(_, line)| line.contains(part)).count();
            let (tight, over) = (logged("has no room for more"), logged("tasks again"));
            assert!(tight > 0 && tight - over <= 1, "{tight} {over}");
        });
    }
}

#[test]
fn a_task_that_is_unavailable_is_neither_lost_nor_counted() {
    for seed in 0..100 {
        history(seed, |world| {
            world.fate = |rng| match rng.u8(0..3) {
                0 => (Ending::Unavailable("program: Text file busy".into()), None),
                _ => (Ending::Exited(0), None),
            };
            for _ in 0..20 {
                let task = world.rng.choice(["late", "early", "map.late", "map.early"]);
                world.send(task.unwrap(), None, None);
            }
            world.begin();
            run_until_quiet(world);
            for letter in &world.broker.letters {
                assert_eq!((letter.place, letter.deliveries), (Place::Gone, 0), "{letter:?}");
                assert_eq!(world.results[&letter.id], TaskState::Success, "{letter:?}");
            }
        });
    }
}

#[test]
fn a_task_that_is_signalled_together_with_its_worker_is_released() {
    for seed in 0..100 {
        history(seed, |world| {
            world.fate = |rng| match rng.u8(0..3) {
                0 => (Ending::Signaled(15), None),
                1 => (Ending::Exited(143), None),
                _ => (Ending::Signaled(2), None),
            };
            world.slowness[0] = 0.5;
            for _ in 0..10 {
                world.send("late", None, None);
            }
            world.begin();
            world.pass(0.6);
            world.signal(WorkerSignal::Warm);
            run_until_quiet(world);
            for letter in &world.broker.letters {
                assert!(matches!(letter.place, Place::Queue(_)), "{letter:?}");
                assert_eq!(letter.deliveries, 0, "{letter:?}");
            }
        });
    }
}
