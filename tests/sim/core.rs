//! `worker::core` against a broker, a pool and a store that are as unkind as real ones:
//! late, out of order, with a signal at any moment. What must hold is asserted in
//! [`super::world`], at every single effect.

use super::world::{End, World};
use qworker::os::signal::Meaning;

/// Runs one seed; a panic says which.
fn life(seed: u64, shutdown: bool) -> End {
    let result = std::panic::catch_unwind(|| {
        let mut world = World::new(seed);
        let until = if shutdown { world.random.usize(0..150) } else { usize::MAX };
        world.run(until)
    });
    result.unwrap_or_else(|why| {
        let text = why.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| why.downcast_ref::<&str>().copied()).unwrap_or_default();
        panic!("seed {seed}, shutdown {shutdown}: {text}")
    })
}

/// Every message comes to an end, and no slot stays empty while something waits for it.
#[test]
fn a_worker_that_nobody_stops_settles_everything() {
    let mut total = End::default();
    for seed in 0..1000 {
        let end = life(seed, false);
        assert_eq!(end.exit, None);
        assert_eq!(end.left, 0, "seed {seed}: messages are left");
        total += end;
    }
    // The simulation met what it is for.
    for (what, count) in [
        ("started", total.started),
        ("retried", total.retried),
        ("redelivered", total.redelivered),
        ("dead", total.dead),
        ("parked", total.parked),
        ("released", total.released),
        ("acknowledged early", total.early),
    ] {
        assert!(count > 100, "only {count} were {what}: {total:?}");
    }
}

/// Whatever arrives when, the worker ends, and with it nothing is lost.
#[test]
fn a_worker_that_is_stopped_gives_back_or_settles_everything() {
    let (mut total, mut exits) = (End::default(), [0; 2]);
    for seed in 10_000..11_000 {
        let end = life(seed, true);
        let first = end.signals[0];
        let expected = u8::from(first == Meaning::Interrupt);
        assert_eq!(end.exit, Some(expected), "seed {seed}: {:?}", end.signals);
        exits[usize::from(expected)] += 1;
        total += end;
    }
    assert!(exits.iter().all(|count| *count > 100), "{exits:?}");
    for (what, count) in [
        ("stopped", total.stopped),
        ("given back while they were being acknowledged", total.returned),
        ("given back by closing", total.closed),
        ("released", total.released),
        ("left for others", total.left),
    ] {
        assert!(count > 10, "only {count} were {what}: {total:?}");
    }
}

/// The same seed is the same life, or a failure could not be looked at again.
#[test]
fn a_seed_says_it_all() {
    for seed in [3, 10_003] {
        let shutdown = seed > 10_000;
        let (a, b) = (life(seed, shutdown), life(seed, shutdown));
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }
}
