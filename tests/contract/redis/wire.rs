//! Messages as programs of Celery push them.

use super::super::broker::text;
use super::*;
use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use qworker::broker::{Settle, Sorting};
use qworker::clock;
use std::sync::Arc;

fn push(server: &Server, element: &str) {
    server.run::<u32>(&["LPUSH", "test:celery", element]);
}

/// An envelope with these headers.
fn headed(headers: &str) -> String {
    format!(r#"{{"body": "", "headers": {{"task": "t", {headers}}}, "properties": {{}}}}"#)
}

/// What `headed` names is ours.
fn parks_t() -> Sorting {
    Sorting { parked: Arc::from([Arc::from("t")]), ..Sorting::default() }
}

fn scheduled(server: &Server) -> usize {
    server.run(&["ZCARD", "test:qworker.scheduled.celery"])
}

#[test]
fn what_python_pushes_early_is_not_delivered_before_its_time() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, _worker) = Redis::at(&server.url()).worker("one@test", &[QUEUE]).await;
        consumer.sort(parks_t());
        let due = clock::now() + Duration::from_millis(700);
        let at = |hours: i32| due.with_timezone(&FixedOffset::east_opt(hours * 1800).unwrap());
        let iso = |hours: i32| at(hours).to_rfc3339_opts(SecondsFormat::Micros, false);
        let forms = [
            headed(&format!("\"id\": \"utc\", \"eta\": \"{}\"", iso(0))),
            headed(&format!("\"id\":\"india\",\"eta\":\"{}\"", iso(11))),
            headed(&format!("\"id\": \"west\", \"eta\": \"{}\"", iso(-7))),
            headed(&format!("\"id\": \"blank\", \"eta\": \"{}\"", iso(0).replace('T', " "))),
        ];
        for form in &forms {
            push(&server, form);
        }
        assert!(consumer.take(MANY).await.unwrap().is_empty());
        assert_eq!(scheduled(&server), forms.len());
        let taken = take_until(&mut consumer, MANY, forms.len()).await;
        assert!(clock::now() >= due, "{taken:?}");
        let mut payloads: Vec<&str> = taken.iter().map(text).collect();
        payloads.sort_unstable();
        let mut forms = forms.to_vec();
        forms.sort_unstable();
        assert_eq!(payloads, forms, "as they were");
    });
}

/// Nobody but our workers finds what is put by.
#[test]
fn what_is_early_is_put_by_only_under_a_name_that_is_known_to_be_ours() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, worker) = Redis::at(&server.url()).worker("one@test", &[QUEUE]).await;
        let early = headed(r#""id": "a", "eta": "2099-01-01T00:00:00+00:00""#);
        let others = early.replace(r#""task": "t""#, r#""task": "py.t""#);
        push(&server, &early);
        push(&server, &others);
        let taken = consumer.take(MANY).await.unwrap();
        assert_eq!((taken.len(), scheduled(&server)), (2, 0), "the worker decides");
        for one in &taken {
            settle(&worker, one, Settle::Release).await;
        }
        consumer.sort(Sorting { left: Arc::from([Arc::from("py.t")]), ..parks_t() });
        assert!(consumer.take(MANY).await.unwrap().is_empty());
        assert_eq!(scheduled(&server), 1);
        let left: Vec<String> = server.run(&["LRANGE", "test:celery", "0", "-1"]);
        assert_eq!(left, [others]);
    });
}

#[test]
fn whether_a_task_was_revoked_comes_with_its_message() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, _worker) = Redis::at(&server.url()).worker("one@test", &[QUEUE]).await;
        let stem = "test:celery-task-meta-";
        consumer.see_results(&results_at(&server.url(), stem, |_| Default::default()));
        let key = |id: &str| format!("test:celery-task-meta-{id}");
        let states = [
            ("gone", r#"{"status": "REVOKED", "result": null}"#),
            ("tight", r#"{"status":"REVOKED","result":null}"#),
            ("done", r#"{"status": "SUCCESS", "result": "REVOKED"}"#),
            ("yaml", "children: []\nresult: null\nstatus: REVOKED\ntask_id: yaml\n"),
            ("yamls", "children: []\nresult: 'status: REVOKED'\nstatus: SUCCESS\ntask_id: y\n"),
            ("pickle", "\u{80}\u{4}}\u{8c}\u{6}status\u{8c}\u{7}REVOKED\u{8c}\u{6}result"),
            // Compressed or signed, for all that a script can tell.
            ("other", "x"),
        ];
        for (id, document) in states {
            server.run::<()>(&["SET", &key(id), document]);
        }
        server.run::<u32>(&["RPUSH", &key("list"), "REVOKED"]);
        let ids = [
            "gone", "tight", "done", "yaml", "yamls", "pickle", "other", "new", "list", "a\\u0062",
        ];
        for id in ids {
            push(&server, &headed(&format!(r#""id": "{id}""#)));
        }
        let taken = consumer.take(MANY).await.unwrap();
        let revoked: Vec<Option<bool>> = taken.iter().map(|one| one.revoked).collect();
        let [yes, no] = [Some(true), Some(false)];
        assert_eq!(revoked, [yes, yes, no, yes, no, yes, None, no, None, None]);
    });
}

/// A leap day, the turn of a year: the script's calendar is its own.
#[test]
fn days_are_counted_as_everybody_counts_them() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, _worker) = Redis::at(&server.url()).worker("one@test", &[QUEUE]).await;
        consumer.sort(parks_t());
        for text in [
            "2028-02-29T23:59:59.250000+00:00",
            "2028-03-01T00:00:00+14:00",
            "2100-02-28T12:00:00-11:30",
            "2096-12-31T23:59:60.5+00:00",
            "2400-02-29T00:00:00+00:00",
        ] {
            push(&server, &headed(&format!("\"eta\": \"{text}\"")));
            assert!(consumer.take(MANY).await.unwrap().is_empty(), "{text}");
            let key = "test:qworker.scheduled.celery";
            let found: Vec<(String, f64)> = server.run(&["ZRANGE", key, "0", "-1", "WITHSCORES"]);
            let whole = text.replace("59:60.5", "59:59.5");
            let expected: DateTime<Utc> = whole.parse().unwrap();
            let leap = if whole == text { 0.0 } else { 1.0 };
            let expected = expected.timestamp_micros() as f64 / 1e6 + leap;
            assert_eq!(found[0].1, expected, "{text}");
            server.run::<u32>(&["DEL", key]);
        }
    });
}

#[test]
fn what_only_looks_like_a_time_does_not_hold_a_message_back() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, _worker) = Redis::at(&server.url()).worker("one@test", &[QUEUE]).await;
        consumer.sort(parks_t());
        let late = r#""eta": "2099-01-01T00:00:00+00:00""#;
        let mut forms = [
            r#""eta": null"#,
            r#""eta": """#,
            r#""eta": "2099-01-01""#,
            r#""eta": "2099-13-01T00:00:00+00:00""#,
            r#""eta": "2099-02-29T00:00:00+00:00""#,
            r#""eta": "2099-01-01T24:00:00+00:00""#,
            r#""eta": 4070908800"#,
            r#""argsrepr": "{\"eta\": \"2099-01-01T00:00:00+00:00\"}""#,
            r#""eta": "2001-01-01T00:00:00+00:00""#,
            &format!(r#""ctx": {{{late}}}"#),
            // The last of two counts.
            &format!(r#"{late}, "eta": null"#),
        ]
        .map(headed)
        .to_vec();
        forms.push(format!("{{{late}}}"));
        forms.push(format!("{{{late}, "));
        forms.push("2099-01-01T00:00:00+00:00".into());
        for form in &forms {
            push(&server, form);
        }
        let taken = consumer.take(MANY).await.unwrap();
        let payloads: Vec<&str> = taken.iter().map(text).collect();
        assert_eq!(payloads, forms);
    });
}
