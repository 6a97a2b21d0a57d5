//! The life of a guard under invented histories: workers that exit and die, signals at any moment,
//! probes of any result. Each step checks what the guard decides against a model of the outside.

use fastrand::Rng;
use nix::sys::signal::Signal;
use qworker::guard::lifecycle::{
    DEATHS_MAX, DEATHS_WINDOW, Effect, Event, GuardState, Lifecycle, Notice, RESTART_DELAY,
};
use qworker::link::guard::GuardMessage;
use qworker::os::reap::Termination;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SEEDS: u64 = 5_000;

/// Steps of a history, at most; most guards end before.
const STEPS: usize = 200;

const SIGNALS: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The outside of a guard, and what it has seen so far.
struct World {
    rng: Rng,
    now: Instant,
    hup_ends: bool,
    guard: Lifecycle,
    /// The worker lives.
    worker: bool,
    probe: bool,
    /// Processes of a worker may live.
    descendants: bool,
    leases: bool,
    /// What the guard waits for, other than what anybody may do at any time.
    awaited: Option<Event>,
    /// Signals for the next worker.
    pending: Vec<Signal>,
    /// How the last worker ended.
    status: Option<Termination>,
    deaths: Vec<Instant>,
    /// A probe of this worker has succeeded.
    accepted: bool,
    /// A signal that ends was sent: while a worker lived, or at any time.
    told: [bool; 2],
    exit: Option<i32>,
    seen: BTreeMap<String, usize>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::with_seed(seed);
        let hup_ends = rng.u8(..4) == 0;
        World {
            rng,
            now: Instant::now(),
            hup_ends,
            guard: Lifecycle::new(hup_ends),
            worker: false,
            probe: false,
            descendants: false,
            leases: false,
            awaited: Some(Event::Begin),
            pending: vec![],
            status: None,
            deaths: vec![],
            accepted: false,
            told: [false; 2],
            exit: None,
            seen: BTreeMap::new(),
        }
    }

    fn ends(&self, signal: Signal) -> bool {
        match signal {
            Signal::SIGHUP => self.hup_ends,
            signal => SIGNALS[..3].contains(&signal),
        }
    }

    /// Something that may happen now.
    fn next(&mut self) -> Event {
        self.now += Duration::from_millis(self.rng.u64(..2_500));
        loop {
            match self.rng.u8(..12) {
                0 => return Event::Signal(SIGNALS[self.rng.usize(..SIGNALS.len())]),
                1 if self.rng.bool() => return Event::Signal(Signal::SIGHUP),
                2 if self.worker => return Event::Ended(Termination::Signaled(9)),
                3 if self.worker && (self.accepted || self.told[0] || self.rng.u8(..8) == 0) => {
                    return Event::Ended(Termination::Exited(self.rng.i32(..3)));
                }
                4 if self.worker => return Event::Message(GuardMessage::Ready),
                5 if self.worker => return Event::Message(GuardMessage::Heartbeat),
                6 if self.worker => {
                    return Event::Message(GuardMessage::LockLease("/lease".into()));
                }
                7 if self.worker => return Event::Message(GuardMessage::Status("busy".into())),
                8 if self.probe => return Event::Probed(Ok(())),
                9 if self.probe => return Event::Probed(Err("a mistake".into())),
                10.. => {
                    if let Some(event) = self.awaited.take() {
                        return event;
                    }
                }
                _ => {}
            }
        }
    }

    fn step(&mut self) {
        let event = self.next();
        let before = self.guard.state();
        match &event {
            Event::Signal(signal) => {
                self.told[1] |= self.ends(*signal);
                self.told[0] |= self.ends(*signal) && self.worker;
                if !self.worker && !self.pending.contains(signal) {
                    self.pending.push(*signal);
                }
            }
            Event::Ended(status) => {
                self.worker = false;
                self.status = Some(*status);
            }
            Event::Started => (self.worker, self.descendants, self.accepted) = (true, true, false),
            Event::Probed(result) => {
                self.probe = false;
                self.accepted |= result.is_ok();
            }
            Event::Cleaned => self.descendants = false,
            _ => {}
        }
        let mut effects = Vec::new();
        self.guard.on(event.clone(), self.now, &mut effects);
        self.check_reaction(&event, before, &effects);
        for effect in effects {
            assert_eq!(self.exit, None, "{effect:?} after the end");
            self.perform(effect, &event);
        }
        *self.seen.entry(kind(&self.guard.state())).or_default() += 1;
    }

    /// What an event leads to as a whole.
    fn check_reaction(&mut self, event: &Event, before: GuardState, effects: &[Effect]) {
        let passed_on: Vec<Signal> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Signal(signal) => Some(*signal),
                _ => None,
            })
            .collect();
        match event {
            // The worker gets each signal once, but no request to restart.
            Event::Signal(signal) if self.worker => {
                let restarts = *signal == Signal::SIGHUP && !self.hup_ends;
                let expected = if restarts { vec![] } else { vec![*signal] };
                assert_eq!(passed_on, expected, "{before:?}");
            }
            Event::Signal(_) => assert!(passed_on.is_empty(), "there is no worker"),
            Event::Started => {
                let mut expected = std::mem::take(&mut self.pending);
                self.told[0] |= expected.iter().any(|signal| self.ends(*signal));
                expected.retain(|signal| *signal != Signal::SIGHUP || self.hup_ends);
                assert_eq!(passed_on, expected);
            }
            Event::Probed(Ok(())) => assert_eq!(effects, [Effect::Signal(Signal::SIGHUP)]),
            Event::Probed(Err(_)) => {
                assert_eq!(self.guard.state(), GuardState::Running, "a refusal changes nothing");
                assert!(
                    matches!(effects, [Effect::Log(_), Effect::Notify(Notice::Ready)]),
                    "{effects:?}"
                );
            }
            _ => assert!(passed_on.is_empty(), "{event:?}"),
        }
    }

    fn perform(&mut self, effect: Effect, event: &Event) {
        *self.seen.entry(kind(&effect)).or_default() += 1;
        match effect {
            Effect::Start => {
                assert!(!self.worker && !self.descendants && !self.leases, "one at a time");
                let is_first = *event == Event::Begin;
                assert!(is_first || !self.told[1], "a start after a signal that ends");
                let fails = self.rng.u8(..40) == 0;
                self.wait_for(if fails {
                    Event::NotStarted("no memory".into())
                } else {
                    Event::Started
                });
            }
            Effect::Signal(_) => assert!(self.worker),
            Effect::StartProbe => {
                assert!(self.worker && !self.probe && !self.accepted);
                assert!(!self.seen.contains_key(&kind(&Effect::Notify(Notice::Stopping))));
                self.probe = true;
            }
            Effect::KillProbe => assert!(std::mem::take(&mut self.probe)),
            Effect::KillDescendants => {
                assert!(!self.worker && !self.probe);
                self.wait_for(Event::Cleaned);
            }
            Effect::LockLease(_) => {
                assert!(self.worker);
                self.leases = true;
            }
            Effect::ReleaseLeases => {
                assert!(!self.descendants, "an unlocked lease says that nothing is left");
                self.leases = false;
            }
            Effect::Execute => {
                assert!(self.accepted && !self.told[1] && !self.descendants && !self.leases);
                if self.rng.bool() {
                    return self.wait_for(Event::NotExecuted("no such file".into()));
                }
                // The next program begins with nothing, but for the signals that were blocked.
                self.guard = Lifecycle::new(self.hup_ends);
                (self.deaths, self.accepted) = (vec![], false);
                self.wait_for(Event::Begin);
                for signal in std::mem::take(&mut self.pending) {
                    self.guard.on(Event::Signal(signal), self.now, &mut Vec::new());
                    self.pending.push(signal);
                }
            }
            Effect::Pause(time) => {
                self.died();
                assert!(self.deaths.len() <= DEATHS_MAX);
                assert_eq!(time, RESTART_DELAY * (1 << (self.deaths.len() - 1)));
                self.wait_for(Event::PauseOver);
            }
            Effect::Notify(notice) => self.notified(&notice, event),
            Effect::PublishPidfile | Effect::ReportReady => {
                assert_eq!(*event, Event::Message(GuardMessage::Ready));
            }
            Effect::Log(text) => assert!(!text.is_empty()),
            Effect::Exit(code) => {
                assert_eq!(code, self.expected_code(event), "{event:?}");
                assert!(!self.worker && !self.descendants && !self.leases && !self.probe);
                self.exit = Some(code);
            }
        }
    }

    fn wait_for(&mut self, event: Event) {
        assert_eq!(self.awaited, None);
        self.awaited = Some(event);
    }

    fn died(&mut self) {
        self.deaths.push(self.now);
        self.deaths.retain(|death| self.now - *death < DEATHS_WINDOW);
    }

    fn notified(&self, notice: &Notice, event: &Event) {
        match notice {
            Notice::Ready => {
                let is_ready = *event == Event::Message(GuardMessage::Ready);
                assert!(is_ready || matches!(event, Event::Probed(Err(_))), "{event:?}");
            }
            Notice::Reloading => assert!(!self.probe),
            Notice::Stopping => {
                let stops = self.seen[&kind(&Effect::Notify(Notice::Stopping))];
                assert!(self.told[0] && stops == 1, "told once");
            }
            Notice::Watchdog => assert_eq!(*event, Event::Message(GuardMessage::Heartbeat)),
            Notice::Status(line) => assert_eq!(line, "busy"),
        }
    }

    /// With which code a guard exits: that of its worker, as far as there is one.
    fn expected_code(&mut self, event: &Event) -> i32 {
        match (event, self.status) {
            (Event::NotStarted(_), _) => 1,
            (Event::Cleaned, Some(Termination::Exited(code))) => code,
            (Event::Cleaned, Some(Termination::Signaled(signal))) if self.told[0] => 128 + signal,
            (Event::Cleaned, Some(Termination::Signaled(_))) => {
                if !self.accepted {
                    self.died();
                }
                let gives_up = self.deaths.len() > DEATHS_MAX;
                assert!(gives_up || self.told[1]);
                i32::from(gives_up)
            }
            (Event::Signal(_) | Event::NotExecuted(_), _) if self.told[1] => 0,
            other => panic!("no reason to exit: {other:?}"),
        }
    }
}

/// The name of a value's variant; of a notice with its own.
fn kind(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let depth = if text.starts_with("Notify") { 2 } else { 1 };
    text.splitn(depth + 1, ['(', '{', ' ']).take(depth).collect::<Vec<_>>().join("(")
}

#[test]
fn whatever_happens_one_worker_runs_and_none_is_started_after_a_signal_that_ends() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let history = std::panic::AssertUnwindSafe(|| {
            for _ in 0..STEPS {
                if world.exit.is_some() {
                    break;
                }
                world.step();
            }
            if world.exit.is_some() {
                let mut effects = Vec::new();
                for signal in SIGNALS {
                    world.guard.on(Event::Signal(signal), world.now, &mut effects);
                }
                world.guard.on(Event::PauseOver, world.now, &mut effects);
                assert!(effects.is_empty(), "nothing happens after the end");
            }
        });
        if let Err(panic) = std::panic::catch_unwind(history) {
            println!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
        for (kind, count) in world.seen {
            *seen.entry(kind).or_default() += count;
        }
    }
    // The histories lead everywhere.
    let kinds = "Starting Running Probing Restarting Stopping Cleaning Executing Pausing Ended \
                 Start Signal StartProbe KillProbe KillDescendants LockLease ReleaseLeases \
                 Execute Pause PublishPidfile ReportReady Log Exit";
    for kind in kinds.split(' ') {
        assert!(seen.get(kind).is_some_and(|count| *count > 100), "{kind}: {seen:?}");
    }
}

/// A lifecycle whose worker runs.
fn running(hup_ends: bool, now: Instant) -> Lifecycle {
    let mut guard = Lifecycle::new(hup_ends);
    let mut effects = Vec::new();
    guard.on(Event::Begin, now, &mut effects);
    guard.on(Event::Started, now, &mut effects);
    assert_eq!((guard.state(), effects), (GuardState::Running, vec![Effect::Start]));
    guard
}

fn follow(guard: &mut Lifecycle, now: Instant, events: &[Event]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for event in events {
        guard.on(event.clone(), now, &mut effects);
    }
    effects
}

#[test]
fn a_worker_that_dies_again_and_again_is_given_up() {
    let now = Instant::now();
    let mut guard = running(false, now);
    let died = [Event::Ended(Termination::Signaled(9)), Event::Cleaned];
    for n in 0..DEATHS_MAX {
        let effects = follow(&mut guard, now, &died);
        assert!(effects.contains(&Effect::Pause(RESTART_DELAY * (1 << n))), "{effects:?}");
        follow(&mut guard, now, &[Event::PauseOver, Event::Started]);
    }
    let effects = follow(&mut guard, now, &died);
    let text = "worker killed by SIGKILL, death 6 within 10 s; giving up";
    assert!(effects.contains(&Effect::Log(text.into())), "{effects:?}");
    assert_eq!(guard.state(), GuardState::Ended(1));
    // Deaths that are far from each other do not count together.
    let mut guard = running(false, now);
    for n in 0..20 {
        let effects = follow(&mut guard, now + DEATHS_WINDOW * n, &died);
        assert!(effects.contains(&Effect::Pause(RESTART_DELAY)), "{effects:?}");
        follow(&mut guard, now, &[Event::PauseOver, Event::Started]);
    }
}

#[test]
fn a_restart_is_overruled_by_a_signal_that_ends() {
    let now = Instant::now();
    let (hup, term) = (Event::Signal(Signal::SIGHUP), Event::Signal(Signal::SIGTERM));
    let (probed, ended) = (Event::Probed(Ok(())), Event::Ended(Termination::Exited(0)));
    for place in 1..=3 {
        let mut history = vec![hup.clone(), probed.clone(), ended.clone(), Event::Cleaned];
        history.insert(place, term.clone());
        let mut guard = running(false, now);
        let effects = follow(&mut guard, now, &history);
        assert_eq!(guard.state(), GuardState::Ended(0), "{history:?}: {effects:?}");
        assert!(!effects.contains(&Effect::Execute));
    }
    // A terminal that hangs up ends the worker.
    let mut guard = running(true, now);
    let effects = follow(&mut guard, now, std::slice::from_ref(&hup));
    assert_eq!(guard.state(), GuardState::Stopping);
    assert!(effects.contains(&Effect::Signal(Signal::SIGHUP)), "{effects:?}");
}
