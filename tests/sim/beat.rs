//! Beats and a ledger under invented histories: killed, stopped, cut off, with answers that are
//! lost. Whatever happens, each occurrence is sent once at the most, in order; and none is
//! left out where the rules do not say so.

use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use qworker::beat::core::{Action, Claim, Core, Note, Verdict};
use qworker::beat::state::{Definition, State};
use qworker::config::Settings;
use qworker::schedule::entry::Entry;
use qworker::schedule::load::{self, Defaults};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Histories of each kind.
const SEEDS: u64 = 300;

/// What was sent: the occurrence, and when.
type Sendings = BTreeMap<String, Vec<(DateTime<Utc>, DateTime<Utc>)>>;

/// An answer on its way: when it arrives, and what it says of each claim.
type Answer = (DateTime<Utc>, Vec<(Claim, Verdict)>);

struct Beat {
    /// `None`: dead.
    core: Option<Core>,
    /// Does nothing before.
    stopped: DateTime<Utc>,
    answers: Vec<Answer>,
}

struct World {
    rng: Rng,
    now: DateTime<Utc>,
    entries: Vec<Arc<Entry>>,
    ledger: BTreeMap<String, String>,
    sent: Sendings,
    beats: Vec<Beat>,
    /// Of a hundred requests so many are lost before the ledger, and as many answers behind it.
    losses: u8,
    /// The ledger is gone until then.
    cut: DateTime<Utc>,
}

fn start() -> DateTime<Utc> {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

fn entries(yaml: &str) -> Vec<Arc<Entry>> {
    let (entries, faults) =
        load::yaml("schedule.yaml", yaml, &Defaults::new(&Settings::default(), start()));
    assert!(faults.is_empty(), "{faults:?}");
    entries.into_iter().map(Arc::new).collect()
}

fn ms(count: u64) -> TimeDelta {
    TimeDelta::milliseconds(count as i64)
}

impl World {
    fn new(seed: u64, beats: usize, yaml: &str) -> World {
        let mut world = World {
            rng: Rng::with_seed(seed),
            now: start(),
            entries: entries(yaml),
            ledger: BTreeMap::new(),
            sent: BTreeMap::new(),
            beats: Vec::new(),
            losses: 0,
            cut: start(),
        };
        for n in 0..beats {
            world.beats.push(Beat { core: None, stopped: start(), answers: Vec::new() });
            world.begin(n);
        }
        world
    }

    /// A beat starts: reads what is known, and registers the rest.
    fn begin(&mut self, n: usize) {
        let mut core = Core::default();
        let loaded = core.load(Definition::of_all(self.entries.clone()), self.now);
        let mut claims = loaded.claims;
        for (key, name) in loaded.unknown {
            let text = self.ledger.get(&*name).cloned();
            claims.extend(core.register(key, text.as_deref(), self.now));
        }
        for claim in claims {
            let verdict = self.commit(&claim);
            if let Some(key) = claim.key {
                core.claimed(key, verdict, self.now);
            }
        }
        self.beats[n] = Beat { core: Some(core), stopped: self.now, answers: Vec::new() };
    }

    /// What a ledger does.
    fn commit(&mut self, claim: &Claim) -> Verdict {
        let name = claim.name.to_string();
        let actual = self.ledger.get(&name);
        if actual != claim.expected.as_ref() {
            return Verdict::Conflict(actual.cloned());
        }
        match &claim.text {
            Some(text) => self.ledger.insert(name.clone(), text.clone()),
            None => self.ledger.remove(&name),
        };
        let sent = self.sent.entry(name).or_default();
        sent.extend(claim.sends.iter().map(|due| (*due, self.now)));
        Verdict::Done
    }

    /// The claims of one request, whose answer comes later, if it comes.
    fn request(&mut self, n: usize, claims: Vec<Claim>) {
        let lost = self.now < self.cut || self.rng.u8(0..100) < self.losses;
        let unheard = self.rng.u8(0..100) < self.losses;
        let after = self.now + ms(self.rng.u64(0..80));
        let again = self.now + ms(self.rng.u64(100..800));
        let answers = claims.into_iter().map(|claim| {
            let verdict = if lost { None } else { Some(self.commit(&claim)) };
            let verdict = verdict.filter(|_| !unheard).unwrap_or(Verdict::Failed(again));
            (claim, verdict)
        });
        let answers = answers.collect();
        self.beats[n].answers.push((after, answers));
    }

    /// Lets this beat do what it would do now.
    fn turn(&mut self, n: usize) {
        let now = self.now;
        let Some(mut core) = self.beats[n].core.take() else { return };
        let (landed, flying): (Vec<Answer>, Vec<Answer>) =
            self.beats[n].answers.drain(..).partition(|(at, _)| *at <= now);
        self.beats[n].answers = flying;
        for (claim, verdict) in landed.into_iter().flat_map(|(_, answers)| answers) {
            if let Some(key) = claim.key {
                core.claimed(key, verdict, now);
            }
        }
        let mut claims = Vec::new();
        for action in core.due(now, now, 16) {
            match action {
                Action::Claim(claim) => claims.push(claim),
                Action::Look { key, .. } => {
                    let done = self.rng.u8(0..3) > 0;
                    claims.extend(core.looked(key, done, now));
                }
            }
        }
        if !claims.is_empty() {
            self.request(n, claims);
        }
        self.beats[n].core = Some(core);
    }

    /// When this beat does something next.
    fn next(&self, n: usize) -> Option<DateTime<Utc>> {
        let Beat { core, stopped, answers } = &self.beats[n];
        let due = core.as_ref()?.next();
        let heard = answers.iter().map(|(at, _)| *at).min();
        due.into_iter().chain(heard).min().map(|at| at.max(*stopped).max(self.now))
    }

    /// Goes on until `end`, `harm` doing something to the world every now and then.
    fn run(&mut self, end: DateTime<Utc>, harm: impl Fn(&mut World)) {
        let mut harmed = self.now;
        loop {
            let next = (0..self.beats.len()).filter_map(|n| Some((self.next(n)?, n))).min();
            let at = next.map_or(end, |(at, _)| at).min(harmed + ms(500));
            if at >= end {
                self.now = end;
                return;
            }
            self.now = at;
            if at == harmed + ms(500) {
                harmed = at;
                harm(self);
            } else if let Some((_, n)) = next {
                self.turn(n);
            }
        }
    }

    /// Each occurrence once, in order, and none before its time.
    fn check(&self) {
        for (name, sent) in &self.sent {
            assert!(sent.is_sorted_by(|a, b| a.0 < b.0), "{name}: {sent:?}");
            assert!(sent.iter().all(|(due, at)| at >= due), "{name}: {sent:?}");
            let state = State::read(&self.ledger[name]).unwrap();
            assert_eq!(state.total, sent.len() as u64, "{name}");
        }
    }

    fn dues(&self, name: &str) -> Vec<DateTime<Utc>> {
        self.sent.get(name).into_iter().flatten().map(|(due, _)| *due).collect()
    }
}

const SECONDS: &str = "entries:
  one: {task: t, schedule: 1.0}
  three: {task: t, schedule: 3.0, jitter: 0.5}
  cron: {task: t, schedule: {crontab: '*/2 * * * * *'}}
  mixed: {task: t, schedule: 2.0, overlap: skip}
  queue: {task: t, schedule: 2.0, overlap: queue, misfire: run_all(3)}
";

/// Somebody is always there.
fn kill_one(world: &mut World) {
    let n = world.rng.usize(1..world.beats.len());
    let pause = ms(world.rng.u64(0..5000));
    match world.rng.u8(0..4) {
        0 => world.beats[n].core = None,
        1 if world.beats[n].core.is_none() => world.begin(n),
        2 => world.beats[n].stopped = world.now + pause,
        _ => {}
    }
}

#[test]
fn each_occurrence_is_sent_once_while_one_beat_lives() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, 3, SECONDS);
        world.losses = (seed % 3) as u8 * 5;
        world.run(start() + TimeDelta::minutes(2), kill_one);
        world.check();
        let ones = world.dues("one");
        let steps: Vec<TimeDelta> = ones.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| *step == ms(1000)), "seed {seed}: {steps:?}");
        assert!(ones.len() >= 117, "seed {seed}: {}", ones.len());
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
        world.run(start() + TimeDelta::minutes(3), |world| {
            let n = world.rng.usize(0..world.beats.len());
            let pause = ms(world.rng.u64(0..20_000));
            match world.rng.u8(0..12) {
                0 => world.beats[n].core = None,
                1 | 2 if world.beats[n].core.is_none() => world.begin(n),
                3 => world.beats[n].stopped = world.now + pause,
                4 if world.now > world.cut => world.cut = world.now + pause,
                _ => {}
            }
        });
        world.check();
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
        let mut world = World::new(seed, 1, RULES);
        world.run(start() + ms(30_500), |_| ());
        let before = |name: &str| world.dues(name).len();
        let counts: BTreeMap<String, usize> =
            world.sent.keys().map(|name| (name.clone(), before(name))).collect();
        // Ten periods and a half go by.
        world.beats[0].core = None;
        world.now += TimeDelta::seconds(105);
        world.begin(0);
        let now = world.now;
        world.run(now + ms(400), |_| ());
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
        world.run(now + TimeDelta::seconds(60), |_| ());
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
    let mut world = World::new(1, 1, before);
    world.run(start() + ms(34_500), |_| ());
    let changed = world.now;
    world.entries = entries(after);
    let mut core = world.beats[0].core.take().unwrap();
    let loaded = core.load(Definition::of_all(world.entries.clone()), changed);
    let unknown: Vec<String> = loaded.unknown.iter().map(|(_, name)| name.to_string()).collect();
    assert_eq!(unknown, ["slower", "faster", "other", "comes"]);
    let mut claims = loaded.claims;
    for (key, name) in loaded.unknown {
        let text = world.ledger.get(&*name).cloned();
        claims.extend(core.register(key, text.as_deref(), changed));
    }
    for claim in claims {
        let verdict = world.commit(&claim);
        if let Some(key) = claim.key {
            core.claimed(key, verdict, changed);
        }
    }
    world.beats[0].core = Some(core);
    world.run(start() + ms(64_900), |_| ());
    world.check();
    let times = |name: &str| -> Vec<i64> {
        let dues = world.dues(name);
        dues.iter().map(|due| (*due - start()).num_seconds()).collect()
    };
    assert_eq!(times("same"), [10, 20, 30, 40, 50, 60]);
    assert_eq!(times("slower"), [10, 20, 30, 50]);
    assert_eq!(times("faster"), [41, 48, 55, 62]);
    assert_eq!(times("other"), [10, 20, 30, 40, 50, 60]);
    assert_eq!(times("leaves"), [10, 20, 30]);
    assert_eq!(times("comes"), [44, 54, 64]);
    assert!(State::read(&world.ledger["leaves"]).unwrap().gone.is_some());
}

#[test]
fn a_clock_that_was_set_back_holds_nothing_up() {
    let mut world = World::new(1, 1, "entries: {one: {task: t, schedule: 10.0}}\n");
    world.run(start() + ms(25_000), |_| ());
    world.beats[0].core = None;
    // A minute at the most is the clocks' own matter; an hour was a mistake.
    for back in [TimeDelta::seconds(30), TimeDelta::hours(1)] {
        let was = world.now;
        world.now -= back;
        world.begin(0);
        let notes = world.beats[0].core.as_mut().unwrap().notes();
        assert_eq!(!notes.is_empty(), back > TimeDelta::minutes(1), "{notes:?}");
        assert!(notes.iter().all(|(_, note)| matches!(note, Note::ClockSetBack(_))), "{notes:?}");
        let next = world.beats[0].core.as_ref().unwrap().next().unwrap();
        let expected = if notes.is_empty() { was + ms(5000) } else { world.now + ms(10_000) };
        assert_eq!(next, expected);
        world.now = was;
    }
}

/// The clock is two hours ahead for a while, under a beat that runs.
#[test]
fn a_clock_that_is_put_right_under_a_beat_holds_nothing_up() {
    let yaml =
        "entries:\n  one: {task: t, schedule: 2.0}\n  daily: {task: t, schedule: '@daily'}\n";
    let mut world = World::new(1, 1, yaml);
    world.run(start() + ms(5_000), |_| ());
    world.now += TimeDelta::hours(2);
    let ahead = world.now;
    world.run(ahead + ms(5_000), |_| ());
    assert!(world.dues("one").last().unwrap() > &ahead);
    world.now = start() + ms(20_000);
    let sent = world.sent["one"].len();
    let core = world.beats[0].core.as_mut().unwrap();
    core.set_back(world.now);
    let notes = core.notes();
    assert!(matches!(&notes[..], [(name, Note::ClockSetBack(_))] if &**name == "one"), "{notes:?}");
    assert_eq!(core.next(), Some(world.now + ms(2_000)));
    world.run(start() + ms(30_900), |_| ());
    let dues: Vec<i64> =
        world.sent["one"][sent..].iter().map(|(due, _)| (*due - start()).num_seconds()).collect();
    assert_eq!(dues, [22, 24, 26, 28, 30]);
}

#[test]
fn a_ledger_that_went_back_is_brought_up_again_where_nothing_sent_is_lost() {
    for leads in [false, true] {
        let mut core = Core::new(leads);
        let entries = entries("entries: {one: {task: t, schedule: 10.0}}\n");
        let loaded = core.load(Definition::of_all(entries), start());
        let (key, _) = loaded.unknown[0].clone();
        let first = core.register(key, None, start()).unwrap();
        core.claimed(key, Verdict::Done, start());
        let mut now = start() + ms(10_000);
        let Action::Claim(sent) = core.due(now, now, 1).remove(0) else { panic!("a look") };
        core.claimed(key, Verdict::Done, now);
        now += ms(10_000);
        let Action::Claim(next) = core.due(now, now, 1).remove(0) else { panic!("a look") };
        assert_eq!((next.expected, sent.sends.len()), (sent.text, 1));
        // Now the ledger has what it had in the beginning.
        core.claimed(key, Verdict::Conflict(first.text.clone()), now);
        let Action::Claim(again) = core.due(now, now, 1).remove(0) else { panic!("a look") };
        assert_eq!(again.expected, first.text);
        assert_eq!(again.sends, next.sends);
        // What the ledger says was never sent was missed; what is known to be sent was not.
        assert_eq!(again.missed.is_some(), !leads);
    }
}
