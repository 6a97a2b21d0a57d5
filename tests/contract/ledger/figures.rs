//! What ledgers cost; run with `--run-ignored only --no-capture`.

use super::*;
use std::time::Instant;

const COUNT: usize = 100_000;

async fn measure(home: Home<impl Site>) {
    let ledger = home.ledger();
    let state = |n: usize| {
        format!(
            r#"{{"last":"2026-11-21T15:{:02}:00+00:00","total":{n},"id":"0199d3f4-7c1e-7000-8000-00000{n:07}","print":"abcdef0123456789"}}"#,
            n % 60
        )
    };
    let payload = "x".repeat(700);
    let timed = async |what: &str, steps: Vec<Step>, per_commit: usize| {
        let count = steps.len();
        let mut steps = steps.into_iter();
        let (begin, mut worst) = (Instant::now(), Duration::ZERO);
        loop {
            let some: Vec<Step> = steps.by_ref().take(per_commit).collect();
            if some.is_empty() {
                break;
            }
            let one = Instant::now();
            assert!(outcomes(&ledger, some).await.iter().all(|one| *one == Outcome::Done));
            worst = worst.max(one.elapsed());
        }
        let took = begin.elapsed();
        let each = took.as_secs_f64() * 1e6 / count as f64;
        println!("{what}: {took:?}, {each:.2} us a step, longest commit {worst:?}");
    };
    let new = |n: usize| step(&id(n), None, Some(&state(n)), &[]);
    timed("100,000 registrations", (0..COUNT).map(new).collect(), COUNT).await;
    let begin = Instant::now();
    assert_eq!(ledger.all().await.unwrap().len(), COUNT);
    println!("all of 100,000: {:?}", begin.elapsed());
    let claim = |from: usize, n: usize| Step {
        postings: vec![Posting { payload: payload.clone(), ..posting(&id(n)) }],
        ..step(&id(n), Some(&state(n + from)), Some(&state(n + from + 1)), &[])
    };
    for (from, size) in [(0, 20), (1, 100), (2, 1000), (3, 10_000)] {
        let steps = (0..20_000).map(|n| claim(from, n)).collect();
        timed(&format!("20,000 claims by {size}"), steps, size).await;
    }
    let late: Vec<Step> = (0..20_000).map(|n| claim(9, n)).collect();
    let begin = Instant::now();
    assert_eq!(outcomes(&ledger, late).await.len(), 20_000);
    println!("20,000 conflicts: {:?}", begin.elapsed());
}

#[test]
#[ignore = "a measurement"]
fn of_redis() {
    let home = Home::<Redis>::new(false);
    block_on(measure(home));
}

#[test]
#[ignore = "a measurement"]
fn of_redis_by_the_server() {
    block_on(async {
        let home = Home::<Redis>::new(false);
        home.site.server().run::<String>(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
        home.site.server().run::<String>(&["CONFIG", "SET", "slowlog-max-len", "20000"]);
        let (server, ledger) = (home.site.server(), home.ledger());
        let new = |n: usize| step(&id(n), None, Some(&"x".repeat(150)), &[]);
        assert_eq!(outcomes(&ledger, (0..COUNT).map(new).collect()).await.len(), COUNT);
        for (what, words) in [("HSCAN", true), ("HGETALL", false)] {
            let begin = Instant::now();
            if words {
                assert_eq!(ledger.all().await.unwrap().len(), COUNT);
            } else {
                server.run::<Vec<String>>(&["HGETALL", "test:qworker.beat.beat"]);
            }
            println!("{what}: {:?}", begin.elapsed());
        }
        let stats: String = server.run(&["INFO", "commandstats"]);
        for line in stats.lines().filter(|line| line.contains("usec")) {
            println!("{line}");
        }
        let times =
            "local l = redis.call('SLOWLOG', 'GET', 20000) local m = {} for _, e in ipairs(l) do
            local c = string.lower(e[4][1]) if not m[c] or e[3] > m[c] then m[c] = e[3] end end
            local r = {} for c, t in pairs(m) do r[#r + 1] = c .. ' ' .. t end return r";
        println!("longest, us: {:?}", server.run::<Vec<String>>(&["EVAL", times, "0"]));
    });
}

#[test]
#[ignore = "a measurement"]
fn of_sqlite() {
    block_on(measure(Home::<Sqlite>::new(false)));
}

#[test]
#[ignore = "a measurement"]
fn apart_from_redis() {
    let home = Home::<Redis>::new(true);
    block_on(async {
        measure_open(&home).await;
        measure(home).await;
    });
}

async fn measure_open(home: &Home<Redis>) {
    let ledger = home.ledger_of("other");
    let new = |n: usize| step(&id(n), None, Some(&"x".repeat(150)), &[]);
    assert_eq!(outcomes(&ledger, (0..COUNT).map(new).collect()).await.len(), COUNT);
    let begin = Instant::now();
    let _again = home.ledger();
    println!("opening a file of 100,000: {:?}", begin.elapsed());
}
