//! Who holds what, as kombu's two keys tell it, and what is handed out again of others.

use super::super::broker::text;
use super::*;
use crate::harness::child::Child;
use qworker::broker::Settle;
use serde_json::{Value, json};

/// Tags by their scores.
fn index(server: &Server) -> Vec<(String, f64)> {
    server.run(&["ZRANGE", "test:unacked_index", "0", "-1", "WITHSCORES"])
}

/// What a Python worker holds since the beginning of time.
fn holds(server: &Server, tag: &str, value: &str) {
    server.run::<u32>(&["HSET", "test:unacked", tag, value]);
    server.run::<u32>(&["ZADD", "test:unacked_index", "1", tag]);
}

fn envelope(id: &str) -> String {
    format!(
        "{{\"body\": \"\", \"headers\": {{\"id\": \"{id}\"}}, \
         \"properties\": {{\"priority\": 3, \"delivery_info\": {{\"routing_key\": \"celery\"}}}}}}"
    )
}

/// Ids of envelopes.
fn envelopes(taken: &[Delivery]) -> Vec<Value> {
    let read = |one: &Delivery| serde_json::from_str::<Value>(text(one)).unwrap();
    taken.iter().map(|one| read(one)["headers"]["id"].take()).collect()
}

#[test]
fn leases_are_renewed_while_held_and_made_for_nothing_else() {
    block_on(async {
        let server = Server::start();
        let site = Redis::at(&server.url());
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        worker.producer().publish((0..3).map(|n| posting(&n.to_string())).collect()).await.unwrap();
        let taken = take_until(&mut consumer, MANY, 3).await;
        let first = index(&server);
        assert_eq!(first.len(), 3);
        let now: Vec<f64> = server.run(&["TIME"]);
        assert!(first.iter().all(|(_, score)| *score > now[0] + 5.0), "{first:?}");
        // The second is done with; the third was handed out again by somebody else.
        ack(&worker, &taken[1..2]).await;
        let mut tags: Vec<&String> = first.iter().map(|(tag, _)| tag).collect();
        tags.sort();
        server.run::<u32>(&["HDEL", "test:unacked", tags[2]]);
        server.run::<u32>(&["ZREM", "test:unacked_index", tags[2]]);
        let renewed = || {
            let index = index(&server);
            (index[0].1 > first[0].1).then_some(index)
        };
        let index = meanwhile(&mut consumer, "a renewed lease", renewed).await;
        assert_eq!(index.len(), 1, "{index:?}");
        assert_eq!(&index[0].0, tags[0]);
    });
}

#[test]
fn what_python_workers_left_is_handed_out_again_whatever_it_is() {
    block_on(async {
        let server = Server::start();
        let odd = [
            "",
            "no JSON",
            "[]",
            "[1, 2, 3]",
            r#"["a text", "", "celery"]"#,
            r#"[[1], "", "celery"]"#,
            r#"[{"headers": [], "properties": "none"}, "", "celery"]"#,
            r#"[{"headers": {}, "properties": {"delivery_info": 5}}, "", "celery"]"#,
        ];
        for (n, value) in odd.iter().enumerate() {
            holds(&server, &format!("odd{n}"), value);
        }
        // Many that nobody can read hide none that can be.
        for n in 0..150 {
            holds(&server, &format!("bad{n}"), "[");
        }
        server.run::<u32>(&["ZADD", "test:unacked_index", "1", "nothing"]);
        for n in 0..150 {
            let value = format!("[{}, \"\", \"celery\"]", envelope(&n.to_string()));
            holds(&server, &format!("tag{n}"), &value);
        }
        let site = Redis::at(&server.url());
        let (mut consumer, _worker) = site.worker("one@test", &[QUEUE]).await;
        let mut good = 0;
        let begin = Instant::now();
        while good < 150 {
            assert!(begin.elapsed() < SOON, "{good} of 150");
            let taken = take_until(&mut consumer, MANY, 1).await;
            good += taken.iter().filter(|one| text(one).contains("\"id\"")).count();
        }
        // Who looks after it is still alive.
        let sign = || {
            let all: Vec<(String, f64)> =
                server.run(&["ZRANGE", "test:qworker.workers", "0", "0", "WITHSCORES"]);
            all[0].1
        };
        let before = sign();
        meanwhile(&mut consumer, "a sign of life", || (sign() > before).then_some(())).await;
    });
}

#[test]
fn a_count_outlives_the_hands_of_a_python_worker() {
    block_on(async {
        let site = Redis::create();
        let marked = envelope("a").replacen('{', "{\"qworker\": [2, 1], ", 1);
        holds(site.server(), "tag", &format!("[{marked}, \"\", \"celery\"]"));
        let (mut consumer, _worker) = site.worker("one@test", &[QUEUE]).await;
        let taken = take_until(&mut consumer, MANY, 1).await;
        assert_eq!((taken[0].deliveries, taken[0].suspect), (2, true), "{taken:?}");
        let message: Value = serde_json::from_str(text(&taken[0])).unwrap();
        assert_eq!(message["headers"]["redelivered"], json!(true));
        assert_eq!(message["properties"]["delivery_info"]["redelivered"], json!(true));
        assert_eq!(envelopes(&taken), ["a"]);
    });
}

/// A worker that has lost a message says so to Python, once.
#[test]
fn marks_are_json_that_python_reads() {
    block_on(async {
        let server = Server::start();
        let forms = [
            envelope("spaced"),
            envelope("compact").replace(": ", ":").replace(", ", ","),
            // As Python restores one.
            envelope("twice")
                .replace("\"twice\"", "\"twice\", \"redelivered\": true")
                .replace("\"celery\"", "\"celery\", \"redelivered\": true"),
            r#"{"headers": {}, "properties": {"delivery_info": {}}, "body": ""}"#.into(),
        ];
        for form in &forms {
            server.run::<u32>(&["LPUSH", "test:celery", form]);
        }
        let site = Redis::at(&server.url());
        let child = Child::start("hold", &[&site.address(), "4"]);
        assert_eq!(child.hear(), "held");
        child.kill();
        let (mut consumer, worker) = site.worker("one@test", &["other"]).await;
        let there = || (server.run::<usize>(&["LLEN", "test:celery"]) == 4).then_some(());
        meanwhile(&mut consumer, "their return", there).await;
        let elements: Vec<String> = server.run(&["LRANGE", "test:celery", "0", "-1"]);
        for (element, form) in elements.iter().rev().zip(&forms) {
            let message: Value = serde_json::from_str(element).unwrap();
            assert_eq!(message["qworker"], json!([1, 1]));
            if !form.contains("\"headers\": {}") {
                assert_eq!(message["headers"]["redelivered"], json!(true), "{element}");
                let info = &message["properties"]["delivery_info"]["redelivered"];
                assert_eq!(info, &json!(true), "{element}");
            }
            // A name twice is not what every reader takes.
            let names = element.matches("\"redelivered\"").count();
            assert!(names <= 2, "{element}");
        }
        drop((consumer, worker));
        let (mut consumer, worker) = site.worker("two@test", &[QUEUE]).await;
        let taken = take_until(&mut consumer, MANY, 4).await;
        assert!(taken.iter().all(|one| one.deliveries == 1 && one.suspect));
        for one in &taken {
            settle(&worker, one, Settle::Release).await;
        }
        let again: Vec<String> = server.run(&["LRANGE", "test:celery", "0", "-1"]);
        assert_eq!(again.len(), 4);
    });
}

#[test]
fn two_busy_workers_leave_a_suspect_in_peace() {
    block_on(async {
        let site = Redis::create();
        site.server().run::<u32>(&[
            "LPUSH",
            "test:celery",
            "{\"qworker\": [1, 1], \"body\": \"\"}",
        ]);
        let (mut one, _) = site.worker("one@test", &[QUEUE]).await;
        let (mut two, _) = site.worker("two@test", &[QUEUE]).await;
        let busy = Want { slots: 0, ahead: 4 };
        let mut looks = 0;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(1) {
            let left = Duration::from_secs(1).saturating_sub(begin.elapsed());
            let woken = tokio::time::timeout(left, async {
                tokio::select! { () = one.wait() => {}, () = two.wait() => {} }
            });
            if woken.await.is_ok() {
                assert!(one.take(busy).await.unwrap().is_empty());
                assert!(two.take(busy).await.unwrap().is_empty());
                looks += 1;
            }
        }
        assert!(looks <= 10, "{looks} looks at a message that neither may take");
        assert_eq!(take_until(&mut one, MANY, 1).await.len(), 1);
    });
}
