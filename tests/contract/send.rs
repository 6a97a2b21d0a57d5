//! What a client makes of a draft, whatever the broker.

use super::sites::{Site, Sqlite};
use crate::harness::block_on;
use qworker::client::send::{Sender, bound};
use qworker::clock;
use qworker::wire::{BodyFormat, Draft, ExchangeRoute};
use serde_json::Value;
use std::collections::HashSet;
use std::time::Duration;

fn route() -> ExchangeRoute {
    ExchangeRoute { exchange: "news".into(), routing_key: "eu.sport".into() }
}

#[test]
fn an_exchange_gives_each_queue_a_copy_of_the_same_task() {
    block_on(async {
        let site = Sqlite::create();
        let client = site.client();
        let draft = Draft { task: "t".into(), route: Some(route()), ..Draft::default() };
        let queues = ["a".to_string(), "b".to_string()];
        let sender = Sender::new("test", BodyFormat::default());
        let postings =
            sender.postings(client.abilities(), draft, &queues, None, clock::now()).unwrap();
        let of_queues: Vec<&str> = postings.iter().map(|one| one.queue.as_str()).collect();
        assert_eq!(of_queues, ["a", "b"]);
        assert_eq!(postings[0].task_id, postings[1].task_id);
        let mut tags = HashSet::new();
        for posting in &postings {
            let sent: Value = serde_json::from_str(&posting.payload.to_envelope()).unwrap();
            let info = &sent["properties"]["delivery_info"];
            assert_eq!(info.to_string(), r#"{"exchange":"news","routing_key":"eu.sport"}"#);
            assert_eq!(sent["headers"]["id"], posting.task_id.as_str());
            // By its tag a consumer settles a message: no two have the same.
            assert!(tags.insert(sent["properties"]["delivery_tag"].to_string()));
        }
    });
}

#[test]
fn a_route_that_leads_nowhere_is_an_error() {
    block_on(async {
        let site = Sqlite::create();
        let client = site.client();
        let error = bound(&client.producer(), &route(), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("exchange \"news\""), "{error}");
    });
}
