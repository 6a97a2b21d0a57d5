//! Connections that end at the worst moment.

use super::*;
use crate::contract::redis::proxy::Proxy;
use crate::harness::redis::Server;
use qworker::broker::BrokerOptions;
use qworker::link::sqlite::Access;
use qworker::link::url::BrokerUrl;

fn broker(proxy: &Proxy) -> Broker {
    let url = BrokerUrl::parse(&proxy.url(), Path::new("/")).unwrap();
    let patience = Duration::from_millis(500);
    let options = BrokerOptions { prefix: "test:", patience, access: Access::Create, beside: &[] };
    Broker::open(&url, options).unwrap()
}

fn messages(server: &Server) -> usize {
    server.run(&["LLEN", "test:celery"])
}

#[test]
fn a_step_whose_answer_is_lost_is_done_once() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let ledger = broker(&proxy).ledger(GROUP);
        let first = || vec![step("a", None, Some("1"), &["1"]), step("b", None, Some("1"), &["2"])];
        // Connected, and the script is known: what is lost is the answer.
        assert_eq!(outcomes(&ledger, first()).await, [StepOutcome::Done, StepOutcome::Done]);
        let next =
            || (0..1000).map(|n| step(&id(n), None, Some("1"), &[&id(n)])).collect::<Vec<_>>();
        proxy.cut(true);
        ledger.commit(next()).await.unwrap_err();
        proxy.cut(false);
        let again = outcomes(&ledger, next()).await;
        assert!(again.iter().all(|one| *one == StepOutcome::Done || *one == conflict(Some("1"))));
        assert!(again.contains(&conflict(Some("1"))), "the server has done some of it");
        assert_eq!(messages(&server), 1002);
    });
}

#[test]
fn a_step_that_arrives_late_changes_nothing_any_more() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let ledger = broker(&proxy).ledger(GROUP);
        assert_eq!(outcomes(&ledger, vec![step("a", None, Some("1"), &["1"])]).await.len(), 1);
        proxy.hold();
        let next = || vec![step("a", Some("1"), Some("2"), &["2"])];
        ledger.commit(next()).await.unwrap_err();
        assert_eq!(outcomes(&ledger, next()).await, [StepOutcome::Done]);
        proxy.let_go();
        crate::harness::eventually("the late one", || proxy.late().contains("2").then_some(()));
        assert_eq!(outcomes(&ledger, next()).await, [conflict(Some("2"))]);
        assert_eq!(messages(&server), 2);
    });
}

#[test]
fn in_a_file_what_is_accepted_is_sent_once_the_broker_is_back() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::in_file(&in_folder(&folder), GROUP, &broker(&proxy)).unwrap();
        assert_eq!(outcomes(&ledger, vec![step("a", None, Some("1"), &["1"])]).await.len(), 1);
        proxy.cut(true);
        let next = || vec![step("a", Some("1"), Some("2"), &["2"])];
        assert_eq!(outcomes(&ledger, next()).await, [StepOutcome::Done], "the file has it");
        let third = || vec![step("a", Some("2"), Some("3"), &["3"])];
        ledger.commit(third()).await.unwrap_err();
        ledger.tend().await.unwrap_err();
        let state = ledger.read(vec!["a".into()]).await.unwrap();
        assert_eq!(state, [Some("2".to_string())], "an error changes nothing");
        // What sends nothing needs no broker.
        assert_eq!(
            outcomes(&ledger, vec![step("b", None, Some("1"), &[])]).await,
            [StepOutcome::Done]
        );
        proxy.cut(false);
        ledger.tend().await.unwrap();
        assert_eq!(messages(&server), 2, "once, though the server had done it before");
        assert_eq!(outcomes(&ledger, third()).await, [StepOutcome::Done]);
        assert_eq!(messages(&server), 3);
        let all: Vec<String> = server.run(&["LRANGE", "test:celery", "0", "-1"]);
        let wanted = ["3", "2", "1"].map(|id| posting(id).payload.to_envelope().into_owned());
        assert_eq!(all, wanted);
    });
}

#[test]
fn a_server_that_has_forgotten_the_script_is_told_it_again() {
    block_on(async {
        let server = Server::start();
        let ledger = Redis::at(&server.url()).client().ledger(GROUP);
        for n in 0..3 {
            server.run::<String>(&["SCRIPT", "FLUSH"]);
            let new = (0..1000).map(|m| step(&id(1000 * n + m), None, Some("1"), &[]));
            assert!(
                outcomes(&ledger, new.collect()).await.iter().all(|one| *one == StepOutcome::Done)
            );
        }
        assert_eq!(server.run::<usize>(&["HLEN", "test:qworker.beat.beat"]), 3000);
    });
}

#[test]
fn a_key_that_is_no_queue_is_refused_before_anything_is_done() {
    block_on(async {
        let server = Server::start();
        let ledger = Redis::at(&server.url()).client().ledger(GROUP);
        server.run::<usize>(&["SADD", "test:strange", "x"]);
        let mut strange = step("a", None, Some("1"), &["1", "2"]);
        strange.postings[1].queue = "strange".into();
        let said = outcomes(&ledger, vec![strange]).await;
        let [StepOutcome::Refused(error)] = &said[..] else { panic!("{said:?}") };
        assert!(error.contains("WRONGTYPE") && error.contains("test:strange"), "{error}");
        assert!(ledger.all().await.unwrap().is_empty());
        assert_eq!(messages(&server), 0);
    });
}
