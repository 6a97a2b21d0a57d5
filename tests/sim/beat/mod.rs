//! Beats and a ledger under invented histories. Whatever happens, each occurrence is sent at most
//! once, in order; and none is left out where the rules do not say so.

mod world;

use chrono::{DateTime, TimeDelta, Utc};
use qworker::beat::claim::{ClaimResult, DueAction};
use qworker::beat::core::entries::Entries;
use qworker::beat::event::Note;
use qworker::beat::state::{EntryState, Fingerprint};
use std::collections::{BTreeMap, BTreeSet};
use world::{World, entries, ms, start};

/// Histories of each kind.
const SEEDS: u64 = 300;

const SECONDS: &str = "entries:
  one: {task: t, schedule: 1.0}
  three: {task: t, schedule: 3.0, jitter: 0.5}
  cron: {task: t, schedule: {crontab: '*/2 * * * * *'}}
  mixed: {task: t, schedule: 2.0, overlap: skip}
  queue: {task: t, schedule: 2.0, overlap: queue, misfire: run_all(3)}
";

/// Without overlaps, nothing is left for those that do not go first.
const PLAIN: &str = "entries:
  one: {task: t, schedule: 1.0}
  three: {task: t, schedule: 3.0, jitter: 0.5}
  cron: {task: t, schedule: {crontab: '*/2 * * * * *'}}
";

/// The first beat is always there.
fn kill_one(world: &mut World) {
    let n = world.rng.usize(1..world.beats.len());
    let pause = ms(world.rng.u64(0..5000));
    match world.rng.u8(0..4) {
        0 => world.beats[n].core = None,
        1 if world.beats[n].core.is_none() => world.begin(n),
        2 => world.beats[n].stopped = world.age + pause,
        _ => {}
    }
}

/// Is the entry sent each second, without a gap?
fn assert_each_second(world: &World, name: &str, seed: u64) {
    let dues = world.dues(name);
    let steps: Vec<TimeDelta> = dues.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.iter().all(|step| *step == ms(1000)), "seed {seed}: {steps:?}");
}

#[test]
fn each_occurrence_is_sent_once_while_one_beat_lives() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, 3, SECONDS);
        world.losses = (seed % 3) as u8 * 3;
        world.run(TimeDelta::minutes(2), kill_one);
        world.check();
        assert_each_second(&world, "one", seed);
        let ones = world.dues("one").len();
        assert!(ones >= 117, "seed {seed}: {ones}");
        let crons = world.dues("cron");
        assert!(crons.len() >= 58, "seed {seed}: {}", crons.len());
        let whole =
            |at: &DateTime<Utc>| at.timestamp() % 2 == 0 && at.timestamp_subsec_micros() == 0;
        assert!(crons.iter().all(whole));
        assert!(world.dues("three").len() >= 38);
    }
}

#[test]
fn whatever_is_cut_off_nothing_is_sent_twice() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, 1 + seed as usize % 4, SECONDS);
        world.losses = 10;
        world.run(TimeDelta::minutes(3), |world| {
            let n = world.rng.usize(0..world.beats.len());
            let pause = ms(world.rng.u64(0..20_000));
            match world.rng.u8(0..12) {
                0 => world.beats[n].core = None,
                1 | 2 if world.beats[n].core.is_none() => world.begin(n),
                3 => world.beats[n].stopped = world.age + pause,
                4 if world.age > world.cut => world.cut = world.age + pause,
                _ => {}
            }
        });
        world.check();
    }
}

/// While nothing happens, one beat sends everything; when it dies, another one takes over at once.
#[test]
fn one_beat_goes_first_until_it_dies() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, 3, PLAIN);
        world.run(TimeDelta::seconds(20), |_| ());
        let mut dead = BTreeSet::new();
        while dead.len() < 2 {
            let since = world.now();
            world.run(TimeDelta::seconds(20), |_| ());
            let sent = world.sent["one"].iter().filter(|one| one.due > since);
            let senders: BTreeSet<usize> = sent.map(|one| one.by).collect();
            let leader = *senders.last().unwrap();
            assert_eq!(senders.len(), 1, "seed {seed}: {senders:?}");
            world.beats[leader].core = None;
            dead.insert(leader);
            let killed = world.now();
            world.run(TimeDelta::seconds(20), |_| ());
            let late = world.sent["one"].iter().filter(|one| one.due > killed);
            let late = late.map(|one| one.at - one.due).max().unwrap();
            assert!(late < ms(1000), "seed {seed}: {late}");
        }
        world.check();
        assert_each_second(&world, "one", seed);
    }
}

/// A server is emptied now and then: the beats restore what they know, and lose nothing.
#[test]
fn a_ledger_that_lost_everything_gets_it_again() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, 1 + seed as usize % 3, PLAIN);
        world.run(TimeDelta::seconds(5), |_| ());
        for _ in 0..5 {
            world.ledger.clear();
            let time = ms(world.rng.u64(8000..12_000));
            world.run(time, |_| ());
            let lost = |note: &Note| matches!(note, Note::Lost);
            let told = (0..world.beats.len()).filter(|n| world.notes(*n).iter().any(lost)).count();
            assert!(told > 0, "seed {seed}");
        }
        world.check();
        assert_each_second(&world, "one", seed);
        assert!(world.dues("one").len() >= 42, "seed {seed}: {}", world.dues("one").len());
    }
}

/// The hosts' clocks are wrong, and are set while beats run.
#[test]
fn beats_agree_whatever_their_hosts_clocks_show() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, 3, SECONDS);
        world.run(TimeDelta::seconds(10), |_| ());
        for _ in 0..10 {
            let n = world.rng.usize(0..3);
            let skew = world.rng.i64(-7_200_000..7_200_000);
            world.beats[n].skew = TimeDelta::milliseconds(skew);
            if world.rng.bool() {
                world.begin(n);
            }
            world.run(TimeDelta::seconds(5), |_| ());
        }
        // The broker's clock is followed to within half a second.
        world.check_within(ms(500));
        assert_each_second(&world, "one", seed);
        assert!(world.dues("one").len() >= 57, "seed {seed}: {}", world.dues("one").len());
    }
}

#[test]
fn each_rule_sends_its_count_of_what_was_missed() {
    const RULES: &str = "entries:
  skip: {task: t, schedule: 10.0, misfire: skip}
  lenient: {task: t, schedule: 10.0, misfire: skip, grace: 8}
  once: {task: t, schedule: 10.0}
  graceful: {task: t, schedule: 10.0, grace: 3}
  all: {task: t, schedule: 10.0, misfire: run_all(4)}
  recent: {task: t, schedule: 10.0, misfire: run_all(100), grace: 35}
  quick: {task: t, schedule: 1.0, misfire: run_all(1000)}
  drop: {task: t, schedule: 1.0, misfire: skip}
";
    for seed in 0..20 {
        let mut world = World::quick(seed, RULES);
        world.run(ms(30_500), |_| ());
        let before = |name: &str| world.dues(name).len();
        let counts: BTreeMap<String, usize> =
            world.sent.keys().map(|name| (name.clone(), before(name))).collect();
        // Ten periods and a half go by.
        world.beats[0].core = None;
        world.age += TimeDelta::seconds(105);
        world.begin(0);
        world.run(ms(400), |_| ());
        world.check();
        let missed = |name: &str| world.dues(name).len() - counts[name];
        let expected = [
            ("skip", 0),
            ("lenient", 1),
            ("once", 1),
            ("graceful", 0),
            ("all", 4),
            ("recent", 3),
            ("quick", 105),
            ("drop", 0),
        ];
        for (name, count) in expected {
            assert_eq!(missed(name), count, "seed {seed}: {name}: {:?}", world.dues(name));
        }
        // Phases are kept.
        world.run(TimeDelta::seconds(60), |_| ());
        world.check();
        for (name, _) in expected {
            let period = if ["quick", "drop"].contains(&name) { 1000 } else { 10_000 };
            let dues = world.dues(name);
            assert!(dues.windows(2).all(|p| (p[1] - p[0]).num_milliseconds() % period == 0));
        }
    }
}

#[test]
fn what_is_changed_goes_on_from_where_it_was() {
    let before = "entries:
  same: {task: t, schedule: 10.0}
  slower: {task: t, schedule: 10.0}
  faster: {task: t, schedule: 100.0}
  other: {task: t, schedule: 10.0, args: [1]}
  leaves: {task: t, schedule: 10.0}
";
    let after = "entries:
  same: {task: t, schedule: 10.0}
  slower: {task: t, schedule: 20.0}
  faster: {task: t, schedule: 7.0}
  other: {task: t, schedule: 10.0, args: [2]}
  comes: {task: t, schedule: 10.0}
";
    let mut world = World::quick(1, before);
    world.run(ms(34_500), |_| ());
    world.entries = entries(after);
    world.define(0);
    world.run(ms(1), |_| ());
    assert_eq!(world.beats[0].read, ["slower", "faster", "other", "comes"]);
    world.run(ms(30_399), |_| ());
    world.check();
    assert_eq!(world.seconds("same"), [10, 20, 30, 40, 50, 60]);
    assert_eq!(world.seconds("slower"), [10, 20, 30, 50]);
    assert_eq!(world.seconds("faster"), [41, 48, 55, 62]);
    assert_eq!(world.seconds("other"), [10, 20, 30, 40, 50, 60]);
    assert_eq!(world.seconds("leaves"), [10, 20, 30]);
    assert_eq!(world.seconds("comes"), [44, 54, 64]);
    assert!(EntryState::read(&world.ledger["leaves"]).unwrap().gone.is_some());
}

#[test]
fn a_clock_that_was_set_back_holds_nothing_up() {
    // A minute at most is the clocks' own matter; an hour was a mistake.
    for back in [TimeDelta::seconds(30), TimeDelta::hours(1)] {
        let mut world = World::quick(1, "entries: {one: {task: t, schedule: 10.0}}\n");
        world.run(ms(25_000), |_| ());
        let was = world.now();
        world.set -= back;
        world.begin(0);
        let begun = world.now();
        world.run(ms(1), |_| ());
        let next = world.due_next(0).unwrap();
        let set_back = |note: &Note| matches!(note, Note::ClockSetBack(..));
        let told = world.notes(0).iter().any(set_back);
        assert_eq!(told, back > TimeDelta::minutes(1));
        let expected = if told { begun + ms(10_000) } else { was + ms(5000) };
        assert_eq!(next, expected);
    }
}

/// All clocks are two hours ahead for a while, under a beat that runs.
#[test]
fn a_clock_that_is_put_right_under_a_beat_holds_nothing_up() {
    let yaml =
        "entries:\n  one: {task: t, schedule: 2.0}\n  daily: {task: t, schedule: '@daily'}\n";
    let mut world = World::quick(1, yaml);
    world.run(ms(5_000), |_| ());
    world.set += TimeDelta::hours(2);
    let ahead = world.now();
    world.run(ms(15_000), |_| ());
    assert!(world.dues("one").last().unwrap() > &ahead);
    world.set = TimeDelta::zero();
    let (right, sent) = (world.now(), world.sent["one"].len());
    world.notes(0);
    world.run(ms(10_900), |_| ());
    let notes = world.notes(0);
    let set_back = |note: &&Note| matches!(note, Note::ClockSetBack(name, _) if &**name == "one");
    assert_eq!(notes.iter().filter(set_back).count(), 1, "{notes:?}");
    let dues = &world.dues("one")[sent..];
    // Within a second it notices.
    assert!(dues[0] > right && dues[0] <= right + ms(3000), "{dues:?}");
    assert!(dues.windows(2).all(|pair| pair[1] - pair[0] == ms(2000)), "{dues:?}");
    assert!(dues.len() >= 4, "{dues:?}");
}

#[test]
fn a_ledger_that_went_back_is_brought_up_again_where_nothing_sent_is_lost() {
    for disposable in [false, true] {
        let mut known = Entries::new(disposable);
        let entries = entries("entries: {one: {task: t, schedule: 10.0}}\n");
        let loaded = known.load(Fingerprint::of_all(entries), start());
        let (id, _) = loaded.unread[0].clone();
        let first = known.register(id, None, start()).unwrap();
        known.claimed(id, ClaimResult::Done, start());
        let mut now = start() + ms(10_000);
        let claim = |known: &mut Entries, now| match known.due(now, now, 1).remove(0) {
            DueAction::Claim(claim) => claim,
            DueAction::LookUp { .. } => panic!("a look"),
        };
        let sent = claim(&mut known, now);
        known.claimed(id, ClaimResult::Done, now);
        now += ms(10_000);
        let next = claim(&mut known, now);
        assert_eq!((next.expected, sent.sends.len()), (sent.text, 1));
        // Now the ledger has what it had in the beginning.
        known.claimed(id, ClaimResult::Conflict(first.text.clone()), now);
        let again = claim(&mut known, now);
        assert_eq!(again.expected, first.text);
        assert_eq!(again.sends, next.sends);
        // What the ledger says was never sent was missed; what is known to be sent was not.
        assert_eq!(again.missed.is_some(), !disposable);
    }
}
