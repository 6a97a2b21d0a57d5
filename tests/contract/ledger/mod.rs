//! The contract of `src/broker/ledger/`, for every kind of ledger: in the broker's store, and in
//! a file of its own beside any broker.

mod cuts;
mod damage;
mod file;
mod refused;

use super::broker::{MANY, due, ids, posting, take_until};
use super::sites::{Redis, Site, Sqlite, at};
use crate::harness::block_on;
use crate::harness::child::{Child, say};
use chrono::TimeDelta;
use qworker::broker::ledger::{Ledger, Step, StepOutcome};
use qworker::broker::{Broker, Posting};
use qworker::clock;
use std::path::{Path, PathBuf};
use std::time::Duration;

const GROUP: &str = "beat";

/// Where a ledger is, one for each kind.
struct Home<S> {
    site: S,
    folder: tempfile::TempDir,
    in_file: bool,
}

impl<S: Site> Home<S> {
    fn new(in_file: bool) -> Home<S> {
        Home { site: S::create(), folder: tempfile::tempdir().unwrap(), in_file }
    }

    /// Empty if the ledger is in the broker's store.
    fn file(&self) -> String {
        let file = self.folder.path().join("beat.sqlite").display().to_string();
        if self.in_file { file } else { String::new() }
    }

    /// As if in another process.
    fn ledger(&self) -> Ledger {
        self.ledger_of(GROUP)
    }

    fn ledger_of(&self, group: &str) -> Ledger {
        open(&self.site.client(), &self.file(), group)
    }

    /// The ids of all messages, in their order.
    async fn sent(&self, count: usize) -> Vec<String> {
        let (mut consumer, _worker) = self.site.worker("one@test", &["celery"]).await;
        let mut taken = take_until(&mut consumer, MANY, count).await;
        taken.extend(consumer.take(MANY).await.unwrap());
        ids(&taken).into_iter().map(str::to_string).collect()
    }
}

fn open(client: &Broker, file: &str, group: &str) -> Ledger {
    match file {
        "" => client.ledger(group),
        file => Ledger::in_file(Path::new(file), group, client).unwrap(),
    }
}

/// A step that sends messages of these ids.
fn step(name: &str, expected: Option<&str>, state: Option<&str>, ids: &[&str]) -> Step {
    Step {
        name: name.into(),
        expected: expected.map(str::to_string),
        state: state.map(str::to_string),
        postings: ids.iter().map(|id| posting(id)).collect(),
    }
}

fn conflict(actual: Option<&str>) -> StepOutcome {
    StepOutcome::Conflict(actual.map(str::to_string))
}

async fn outcomes(ledger: &Ledger, steps: Vec<Step>) -> Vec<StepOutcome> {
    ledger.commit(steps).await.unwrap().outcomes
}

async fn sorted(ledger: &Ledger) -> Vec<(String, String)> {
    let mut all = ledger.all().await.unwrap();
    all.sort();
    all
}

macro_rules! suite {
    ($($name:ident: $site:ty, $in_file:literal;)*: $($clause:ident)*) => {
        suite!(@ [$($name: $site, $in_file;)*] [$($clause)*]);
    };
    (@ [$($name:ident: $site:ty, $in_file:literal;)*] $clauses:tt) => {
        $(suite!(@@ $name, $site, $in_file, $clauses);)*
    };
    (@@ $name:ident, $site:ty, $in_file:literal, [$($clause:ident)*]) => {
        mod $name {
            use super::{Home, Redis, Sqlite};
            type It = Home<$site>;
            const _: Option<(Redis, Sqlite)> = None;
            $(
                #[test]
                fn $clause() {
                    crate::harness::block_on(super::$clause(It::new($in_file)));
                }
            )*
        }
    };
}

suite! {
    on_sqlite: Sqlite, false;
    on_redis: Redis, false;
    beside_sqlite: Sqlite, true;
    beside_redis: Redis, true;
    :
    a_value_is_changed_by_who_knows_it
    of_racers_one_sends
    messages_are_those_that_publish_sends
    steps_of_one_name_are_done_in_turn
    what_comes_too_late_is_not_done
    groups_do_not_see_each_other
    names_and_values_may_be_any_text
    ten_thousand_steps_at_once
    a_killed_beat_loses_nothing_and_sends_nothing_twice
}

async fn what_comes_too_late_is_not_done(home: Home<impl Site>) {
    let ledger = home.ledger();
    let steps = || vec![step("a", None, Some("1"), &["a1"]), step("b", None, Some("1"), &[])];
    let past = clock::now() - TimeDelta::seconds(1);
    let said = ledger.commit_by(steps(), Some(past)).await.unwrap();
    assert_eq!(said.outcomes, [StepOutcome::Late, StepOutcome::Late]);
    assert!((said.clock - clock::now()).abs() < TimeDelta::seconds(5));
    assert_eq!(sorted(&ledger).await, []);
    let future = clock::now() + TimeDelta::seconds(60);
    let said = ledger.commit_by(steps(), Some(future)).await.unwrap();
    assert_eq!(said.outcomes, [StepOutcome::Done, StepOutcome::Done]);
    assert_eq!(home.sent(1).await, ["a1"]);
}

async fn a_value_is_changed_by_who_knows_it(home: Home<impl Site>) {
    let ledger = home.ledger();
    let other = home.ledger();
    assert!(ledger.all().await.unwrap().is_empty());
    assert!(ledger.commit(vec![]).await.unwrap().outcomes.is_empty());
    let said = ledger.commit(vec![
        step("a", None, Some("1"), &["a1", "a2", "a3"]),
        step("b", Some("0"), Some("1"), &["never"]),
        step("c", None, Some("1"), &[]),
        step("d", None, None, &["d"]),
    ]);
    let said = said.await.unwrap();
    assert_eq!(
        said.outcomes,
        [StepOutcome::Done, conflict(None), StepOutcome::Done, StepOutcome::Done]
    );
    let off = (said.clock - clock::now()).abs().to_std().unwrap();
    assert!(off < Duration::from_secs(5), "{off:?}");
    let steps = vec![
        step("a", None, Some("2"), &["never"]),
        step("a", Some("2"), Some("3"), &["never"]),
        step("a", Some("1"), Some("2"), &["a4"]),
        step("c", Some("1"), None, &[]),
        step("b", None, None, &[]),
    ];
    let done = StepOutcome::Done;
    let all = [conflict(Some("1")), conflict(Some("1")), done.clone(), done.clone(), done];
    assert_eq!(outcomes(&other, steps).await, all);
    // The same again, as if the answer had been lost.
    let again = vec![step("a", Some("1"), Some("2"), &["a4"])];
    assert_eq!(outcomes(&other, again).await, [conflict(Some("2"))]);
    let names = ["a", "b", "c"].map(str::to_string).to_vec();
    assert_eq!(ledger.read(names).await.unwrap(), [Some("2".to_string()), None, None]);
    assert_eq!(sorted(&ledger).await, [("a".to_string(), "2".to_string())]);
    ledger.tend().await.unwrap();
    assert_eq!(home.sent(5).await, ["a1", "a2", "a3", "d", "a4"]);
}

async fn of_racers_one_sends(home: Home<impl Site>) {
    const STEPS: usize = 1000;
    let (address, file) = (home.site.address(), home.file());
    let race = |seed: u64| {
        let (address, file) = (address.clone(), file.clone());
        std::thread::spawn(move || {
            block_on(async {
                let ledger = open(&client_of(&address), &file, GROUP);
                let mut random = fastrand::Rng::with_seed(seed);
                let (mut done, mut at) = (0, 0);
                while at < STEPS {
                    let to = (at + random.usize(1..40)).min(STEPS);
                    let claim = |n: usize| step(&format!("{n}"), None, Some("x"), &[&id(n)]);
                    let said = outcomes(&ledger, (at..to).map(claim).collect()).await;
                    assert!(
                        said.iter()
                            .all(|one| *one == StepOutcome::Done || *one == conflict(Some("x")))
                    );
                    done += said.iter().filter(|one| **one == StepOutcome::Done).count();
                    at = to;
                }
                done
            })
        })
    };
    let racers = [race(1), race(2), race(3)];
    let done: Vec<usize> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
    assert_eq!(done.iter().sum::<usize>(), STEPS, "{done:?}");
    let mut sent = home.sent(STEPS).await;
    sent.sort();
    assert_eq!(sent, (0..STEPS).map(id).collect::<Vec<_>>());
}

fn id(n: usize) -> String {
    format!("{n:06}")
}

fn client_of(address: &str) -> Broker {
    at!(address, site => site.client())
}

async fn messages_are_those_that_publish_sends<S: Site>(home: Home<S>) {
    let other = S::create();
    let client = other.client();
    let ledger = home.ledger();
    let eta = clock::now() + Duration::from_secs(3600);
    let make = |n: usize| {
        let [queue, priority] = [["celery", "reports", "a b"][n % 3], ["0", "5", "9"][n / 3 % 3]];
        let priority = client.abilities().priorities.number(priority.parse().ok());
        let one = if n.is_multiple_of(4) { due(&id(n), eta) } else { posting(&id(n)) };
        Posting { queue: queue.into(), priority, ..one }
    };
    let postings: Vec<Posting> = (0..60).map(make).collect();
    client.producer().publish(postings.clone()).await.unwrap();
    let steps = postings
        .chunks(3)
        .enumerate()
        .map(|(n, some)| Step { postings: some.to_vec(), ..step(&id(n), None, Some("1"), &[]) });
    let said = outcomes(&ledger, steps.collect()).await;
    assert!(said.iter().all(|one| *one == StepOutcome::Done));
    assert_eq!(stored(&home.site.address()), stored(&other.address()));
}

/// What a broker has of messages and queues, but for what tells equal messages apart; in the order
/// in which they are taken from a queue.
fn stored(address: &str) -> Vec<String> {
    if address.starts_with("redis://") {
        return stored_on_redis(address);
    }
    assert!(address.starts_with('/'), "how is the store at {address} read?");
    let c = rusqlite::Connection::open(address).unwrap();
    let sql =
        "SELECT printf('%s %s %s %s %s %s', q.name, m.visible, coalesce(m.eta, '-'), m.priority,
               m.task_id, m.payload) FROM kombu_message m JOIN kombu_queue q ON q.id = m.queue_id
               ORDER BY q.name, m.priority, m.eta IS NULL, m.id";
    let mut all = c.prepare(sql).unwrap();
    all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn stored_on_redis(address: &str) -> Vec<String> {
    let client = redis::Client::open(address).unwrap();
    let mut c = client.get_connection().unwrap();
    let mut ask = |words: &[&str]| -> Vec<String> {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut c).unwrap()
    };
    let mut keys = ask(&["KEYS", "*"]);
    keys.retain(|key| !key.contains("qworker.beat.") && !key.contains("qworker.once."));
    keys.sort();
    let mut all = Vec::new();
    for key in keys {
        let mut values = if key.contains("binding") {
            ask(&["SMEMBERS", &key])
        } else if key.contains("qworker.scheduled.") {
            let plain = |member: String| {
                let parts: Vec<&str> = member.splitn(3, ':').collect();
                if parts.len() == 3 { format!("{} {}", parts[0], parts[2]) } else { member }
            };
            ask(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]).into_iter().map(plain).collect()
        } else {
            let values = ask(&["LRANGE", &key, "0", "-1"]);
            all.push(format!("{key}: {values:?}"));
            continue;
        };
        values.sort();
        all.push(format!("{key}: {values:?}"));
    }
    assert!(all.len() > 6, "{all:?}");
    all
}

async fn steps_of_one_name_are_done_in_turn(home: Home<impl Site>) {
    let ledger = home.ledger();
    let said = outcomes(
        &ledger,
        vec![
            step("a", None, Some("1"), &["1"]),
            step("a", Some("1"), Some("2"), &["2"]),
            step("a", Some("1"), Some("9"), &["never"]),
            step("a", Some("2"), None, &["3"]),
            step("a", None, Some("4"), &["4"]),
        ],
    );
    let done = StepOutcome::Done;
    let all = [done.clone(), done.clone(), conflict(Some("2")), done.clone(), done];
    assert_eq!(said.await, all);
    assert_eq!(sorted(&ledger).await, [("a".to_string(), "4".to_string())]);
    assert_eq!(home.sent(4).await, ["1", "2", "3", "4"]);
}

async fn groups_do_not_see_each_other(home: Home<impl Site>) {
    let (one, two) = (home.ledger_of("one"), home.ledger_of("two"));
    let steps = |state| vec![step("a", None, Some(state), &[])];
    assert_eq!(outcomes(&one, steps("1")).await, [StepOutcome::Done]);
    assert_eq!(outcomes(&two, steps("2")).await, [StepOutcome::Done]);
    assert_eq!(sorted(&one).await, [("a".to_string(), "1".to_string())]);
    assert_eq!(sorted(&two).await, [("a".to_string(), "2".to_string())]);
    assert_eq!(outcomes(&one, vec![step("a", Some("1"), None, &[])]).await, [StepOutcome::Done]);
    assert_eq!(two.read(vec!["a".into()]).await.unwrap(), [Some("2".to_string())]);
    assert!(one.all().await.unwrap().is_empty());
}

async fn names_and_values_may_be_any_text(home: Home<impl Site>) {
    let ledger = home.ledger();
    let long = "long ".repeat(40_000);
    let texts = [
        "",
        " ",
        "\0",
        "a\0b",
        "a\nb\r\n",
        "æøå 한국어 🕰",
        "'\"\\%{}",
        "\u{ffff}",
        "nil",
        "0",
        &long,
    ];
    let mut steps = Vec::new();
    for (name, state) in texts.iter().zip(texts.iter().rev()) {
        steps.push(step(name, None, Some(state), &[]));
        steps.push(step(name, Some(state), Some(name), &[]));
        steps.push(step(name, Some(state), Some("never"), &[]));
    }
    let said = outcomes(&ledger, steps).await;
    for (at, one) in said.iter().enumerate() {
        let name = texts[at / 3];
        let same = name == texts[texts.len() - 1 - at / 3];
        match at % 3 {
            2 if !same => assert_eq!(*one, conflict(Some(name))),
            _ => assert_eq!(*one, StepOutcome::Done, "{:?}", &name[..name.len().min(9)]),
        }
    }
    let names = texts.map(str::to_string).to_vec();
    let read = ledger.read(names.clone()).await.unwrap();
    let middle = texts[texts.len() / 2];
    for (name, value) in names.iter().zip(read) {
        assert_eq!(value.unwrap(), if name == middle { "never" } else { name });
    }
}

async fn ten_thousand_steps_at_once(home: Home<impl Site>) {
    const STEPS: usize = 10_000;
    let ledger = home.ledger();
    let new = |n: usize| step(&id(n), None, Some("1"), &[]);
    let said = outcomes(&ledger, (0..STEPS).map(new).collect()).await;
    assert!(said.len() == STEPS && said.iter().all(|one| *one == StepOutcome::Done));
    // Every third is not what is expected.
    let known = |n: usize| if n.is_multiple_of(3) { "0" } else { "1" };
    let next = |n: usize| step(&id(n), Some(known(n)), Some("2"), &[&id(n)]);
    let said = outcomes(&ledger, (0..STEPS).map(next).collect()).await;
    for (n, one) in said.iter().enumerate() {
        let late = n.is_multiple_of(3);
        assert_eq!(*one, if late { conflict(Some("1")) } else { StepOutcome::Done });
    }
    let sent = home.sent(STEPS * 2 / 3).await;
    let wanted: Vec<String> = (0..STEPS).filter(|n| !n.is_multiple_of(3)).map(id).collect();
    assert_eq!(sent, wanted);
    let all = sorted(&ledger).await;
    assert_eq!(all.len(), STEPS);
    for (n, (name, state)) in all.into_iter().enumerate() {
        assert_eq!((name, &*state), (id(n), if n.is_multiple_of(3) { "1" } else { "2" }));
    }
}

/// A beat in a process of its own: counts on and on, and sends each number when it is reached.
pub async fn beat(address: &str, file: &str) {
    let ledger = open(&client_of(address), file, GROUP);
    let mut known = ledger.read(vec!["count".into()]).await.unwrap().remove(0);
    loop {
        let count: usize = known.as_ref().map_or(0, |text| text.parse().unwrap());
        let next = (count + 1).to_string();
        let sent = id(count);
        let steps = vec![step("count", known.as_deref(), Some(&next), &[&sent])];
        match outcomes(&ledger, steps).await.remove(0) {
            StepOutcome::Done => say(&sent),
            other => panic!("{other:?}, {known:?} was known"),
        }
        known = Some(next);
    }
}

async fn a_killed_beat_loses_nothing_and_sends_nothing_twice(home: Home<impl Site>) {
    let rounds = if home.in_file { 200 } else { 50 };
    let mut random = fastrand::Rng::with_seed(7);
    let mut said = Vec::new();
    for _ in 0..rounds {
        let child = Child::start("beat", &[&home.site.address(), &home.file()]);
        for _ in 0..random.usize(1..4) {
            said.push(child.hear());
        }
        // Anywhere between two messages.
        std::thread::sleep(Duration::from_micros(random.u64(0..3000)));
        said.extend(child.kill());
    }
    let ledger = home.ledger();
    ledger.tend().await.unwrap();
    let count = ledger.read(vec!["count".into()]).await.unwrap().remove(0).unwrap();
    let count: usize = count.parse().unwrap();
    assert!(said.len() <= count && count <= said.len() + rounds, "{} of {count}", said.len());
    assert_eq!(home.sent(count).await, (0..count).map(id).collect::<Vec<_>>());
}

/// A file in a folder.
fn in_folder(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("beat.sqlite")
}
