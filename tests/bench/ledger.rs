//! What ledgers of beats cost, by themselves: steps in batches of several sizes.

use qworker::broker::Posting;
use qworker::broker::ledger::{Ledger, Step, StepOutcome};
use qworker::client::{Client, ClientOptions};
use qworker::link::url::BrokerUrl;
use std::path::Path;
use std::time::{Duration, Instant};

const COUNT: usize = 100_000;
const CLAIMS: usize = 20_000;

/// Bytes of a message, as one without arguments has.
const PAYLOAD: usize = 700;

/// Prints figures of the ledger in the store of this broker, or in this file beside it.
pub fn print(url: &str, file: Option<&str>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = BrokerUrl::parse(url, Path::new("/")).unwrap();
    runtime.block_on(async {
        let client = Client::connect(&url, None, &ClientOptions::default()).unwrap();
        let open = || match file {
            Some(file) => Ledger::in_file(Path::new(file), "bench", &client.broker).unwrap(),
            None => client.broker.ledger("bench"),
        };
        measure(&open()).await;
        let begin = Instant::now();
        let ledger = open();
        println!("opened again: {:?}", begin.elapsed());
        let begin = Instant::now();
        assert_eq!(ledger.all().await.unwrap().len(), COUNT);
        println!("all of {COUNT}: {:?}", begin.elapsed());
    });
}

async fn measure(ledger: &Ledger) {
    let new = (0..COUNT).map(|n| step(n, None, 0, 0)).collect();
    timed(ledger, &format!("{COUNT} registrations"), new, COUNT).await;
    for (from, size) in [20, 100, 1000, 10_000].into_iter().enumerate() {
        let claims = (0..CLAIMS).map(|n| step(n, Some(from), from + 1, 1)).collect();
        timed(ledger, &format!("{CLAIMS} claims by {size}"), claims, size).await;
    }
    let late: Vec<Step> = (0..CLAIMS).map(|n| step(n, Some(9), 10, 1)).collect();
    let begin = Instant::now();
    let said = ledger.commit(late).await.unwrap().outcomes;
    assert!(said.iter().all(|one| matches!(one, StepOutcome::Conflict(_))));
    println!("{CLAIMS} conflicts: {:?}", begin.elapsed());
}

async fn timed(ledger: &Ledger, what: &str, steps: Vec<Step>, size: usize) {
    let count = steps.len();
    let (begin, mut worst) = (Instant::now(), Duration::ZERO);
    for some in steps.chunks(size) {
        let one = Instant::now();
        let said = ledger.commit(some.to_vec()).await.unwrap().outcomes;
        assert!(said.iter().all(|one| *one == StepOutcome::Done));
        worst = worst.max(one.elapsed());
    }
    let took = begin.elapsed();
    let each = took.as_secs_f64() * 1e6 / count as f64;
    println!("{what}: {took:?}, {each:.2} us a step, longest commit {worst:?}");
}

fn step(n: usize, from: Option<usize>, to: usize, messages: usize) -> Step {
    let state = |total: usize| {
        format!(
            r#"{{"last":"2026-11-21T15:{:02}:00+00:00","total":{total},"id":"0199d3f4-7c1e-7000-8000-00000{n:07}","print":"abcdef0123456789"}}"#,
            n % 60
        )
    };
    let posting = Posting {
        queue: "celery".into(),
        task_id: format!("{n:06}"),
        priority: 0,
        eta: None,
        payload: qworker::wire::Payload::from_envelope("x".repeat(PAYLOAD)),
    };
    Step {
        name: format!("{n:06}"),
        expected: from.map(state),
        state: Some(state(to)),
        postings: vec![posting; messages],
    }
}
