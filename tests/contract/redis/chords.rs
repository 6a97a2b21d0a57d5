//! The counters of chords, which Python's workers use too.

use super::*;
use qworker::backend::{Counted, Store, StoreOptions};
use qworker::canvas::{ChordMember, ChordStart, Returned};
use qworker::link::sqlite::Access;
use qworker::link::url::BackendUrl;
use qworker::wire::ResultFormat;
use serde_json::value::RawValue;

fn store(server: &Server) -> Store {
    let url = BackendUrl::parse(&server.url(), Path::new("/")).unwrap();
    let expires = Some(Duration::from_secs(3600));
    let (format, patience, access) = (&ResultFormat::default(), SOON, Access::Create);
    let options = StoreOptions { prefix: "", expires, format, patience, access };
    Store::open(&url, None, options).unwrap()
}

fn part(n: i64) -> ChordMember {
    let raw = |text: String| RawValue::from_string(text).unwrap();
    ChordMember {
        group_id: "G".into(),
        group_index: Some(n),
        task_id: format!("T{n}"),
        state: "SUCCESS",
        result: raw(n.to_string()),
        body: raw("null".into()),
        root_id: "R".into(),
        priority: None,
    }
}

#[test]
fn who_counts_the_last_member_alone_has_the_claim_until_the_body_is_called() {
    block_on(async {
        let server = Server::start();
        let store = store(&server);
        let begun = ChordStart { group_id: "G".into(), size: 2, results: None };
        store.begin_chords(&[begun]).await.unwrap();
        let count = async |n, token| store.count(&[(&part(n), token)]).await.unwrap()[0];
        assert_eq!(count(1, "a").await, Counted::More);
        // A member that runs twice counts once.
        assert_eq!(count(1, "a").await, Counted::More);
        assert_eq!(count(0, "a").await, Counted::Last);
        // Its answer may have been lost.
        assert_eq!(count(0, "a").await, Counted::Last);
        assert_eq!(count(1, "b").await, Counted::Claimed);
        let values: Vec<String> = (store.chord_results("G").await.unwrap().into_iter())
            .map(|one| match one {
                Returned::Value(value) => value.get().to_string(),
                Returned::Failed(id, why) => panic!("{id}: {why:?}"),
            })
            .collect();
        assert_eq!(values, ["0", "1"]);
        // Who has not the claim does not end it.
        store.end_chord("G", "b").await.unwrap();
        assert_eq!(count(1, "b").await, Counted::Claimed);
        store.end_chord("G", "a").await.unwrap();
        assert_eq!(count(1, "b").await, Counted::More);
        let left: Vec<String> = server.run(&["KEYS", "*"]);
        assert_eq!(left, ["celery-taskset-meta-G.c"]);
    });
}

#[test]
fn members_of_several_chords_are_counted_together() {
    block_on(async {
        let server = Server::start();
        let store = store(&server);
        let begun = |group: &str| ChordStart { group_id: group.into(), size: 2, results: None };
        store.begin_chords(&[begun("G"), begun("H")]).await.unwrap();
        let [g0, g1, h0] = [("G", 0), ("G", 1), ("H", 0)]
            .map(|(group, n)| ChordMember { group_id: group.into(), ..part(n) });
        let all = [(&g0, "a"), (&h0, "b"), (&g1, "c"), (&g0, "a")];
        let counted = store.count(&all).await.unwrap();
        assert_eq!(counted, [Counted::More, Counted::More, Counted::Last, Counted::Claimed]);
        // The same again, after a lost answer.
        let again = store.count(&all[1..3]).await.unwrap();
        assert_eq!(again, [Counted::More, Counted::Last]);
        let seconds: i64 = server.run(&["TTL", "celery-taskset-meta-H.j"]);
        assert!((1..=3600).contains(&seconds), "{seconds}");
    });
}
