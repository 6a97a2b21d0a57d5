//! A queue that the broker does not let anybody put messages into: the others go on.

use super::*;

fn to(queue: &str, step: Step) -> Step {
    let postings = step.postings.into_iter();
    Step { postings: postings.map(|one| Posting { queue: queue.into(), ..one }).collect(), ..step }
}

#[test]
fn on_redis_a_step_is_refused_alone() {
    block_on(async {
        let home = Home::<Redis>::new(false);
        let server = home.site.server();
        server.run::<()>(&["SET", "test:bad", "x"]);
        server.run::<()>(&["SET", "test:qworker.scheduled.late", "x"]);
        let ledger = home.ledger();
        let late = Step {
            postings: vec![Posting {
                queue: "late".into(),
                ..due("l", clock::now() + Duration::from_secs(99))
            }],
            ..step("late", None, Some("1"), &[])
        };
        let mut both = to("bad", step("both", None, Some("1"), &["never"]));
        both.postings.insert(0, posting("never"));
        let steps = vec![
            step("a", None, Some("1"), &["1"]),
            to("bad", step("b", None, Some("1"), &["b1"])),
            to("bad", step("b", Some("1"), Some("2"), &["b2"])),
            late,
            both,
            step("c", None, Some("1"), &["2"]),
        ];
        let said = outcomes(&ledger, steps).await;
        let refused = |one: &StepOutcome, word: &str| {
            assert!(matches!(one, StepOutcome::Refused(why) if why.contains(word)), "{one:?}");
        };
        refused(&said[1], "test:bad is a string");
        refused(&said[3], "test:qworker.scheduled.late is a string");
        refused(&said[4], "test:bad is a string");
        let rest = [&said[0], &said[2], &said[5]];
        assert_eq!(rest, [&StepOutcome::Done, &conflict(None), &StepOutcome::Done]);
        let names: Vec<String> = sorted(&ledger).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "c"]);
        server.run::<()>(&["DEL", "test:bad"]);
        let again = vec![to("bad", step("b", None, Some("1"), &["b1"]))];
        assert_eq!(outcomes(&ledger, again).await, [StepOutcome::Done]);
        assert_eq!(server.run::<usize>(&["LLEN", "test:bad"]), 1);
        assert_eq!(home.sent(2).await, ["1", "2"]);
    });
}

#[test]
fn on_redis_what_a_user_may_not_send_is_refused_alone() {
    block_on(async {
        let home = Home::<Redis>::new(false);
        let server = home.site.server();
        let ledger = home.ledger();
        // Declares both queues.
        let first = vec![to("mine", step("x", None, Some("1"), &["x"]))];
        assert_eq!(outcomes(&ledger, first).await, [StepOutcome::Done]);
        server.run::<()>(&["ACL", "SETUSER", "default", "resetkeys", "~test:_kombu*"]);
        server.run::<()>(&["ACL", "SETUSER", "default", "~test:qworker*", "~test:mine"]);
        let steps = vec![
            to("mine", step("a", None, Some("1"), &["1"])),
            to("theirs", step("b", None, Some("1"), &["2"])),
        ];
        let said = outcomes(&ledger, steps).await;
        server.run::<()>(&["ACL", "SETUSER", "default", "allkeys"]);
        assert_eq!(said[0], StepOutcome::Done);
        let StepOutcome::Refused(why) = &said[1] else { panic!("{said:?}") };
        assert!(why.contains("test:theirs"), "{why}");
        assert_eq!(server.run::<usize>(&["LLEN", "test:mine"]), 2);
        assert_eq!(server.run::<usize>(&["EXISTS", "test:theirs"]), 0);
    });
}

#[test]
fn in_a_file_beside_redis_messages_of_one_queue_wait_alone() {
    block_on(async {
        let home = Home::<Redis>::new(true);
        let server = home.site.server();
        server.run::<()>(&["SET", "test:bad", "x"]);
        let ledger = home.ledger();
        let done = StepOutcome::Done;
        let steps = vec![
            to("bad", step("b", None, Some("1"), &["b1"])),
            step("a", None, Some("1"), &["1"]),
        ];
        // Accepted: what the broker says comes later, and then others are not accepted.
        assert_eq!(outcomes(&ledger, steps).await, [done.clone(), done.clone()]);
        let steps = vec![
            to("bad", step("b", Some("1"), Some("2"), &["b2"])),
            step("a", Some("1"), Some("2"), &["2"]),
        ];
        let said = outcomes(&ledger, steps).await;
        assert!(
            matches!(&said[0], StepOutcome::Refused(why) if why.contains("WRONGTYPE")),
            "{said:?}"
        );
        assert_eq!(said[1], done);
        server.run::<()>(&["DEL", "test:bad"]);
        // Another beat, which knows of no refusal.
        home.ledger().tend().await.unwrap();
        assert_eq!(server.run::<usize>(&["LLEN", "test:bad"]), 1);
        ledger.tend().await.unwrap();
        assert_eq!(server.run::<usize>(&["LLEN", "test:bad"]), 1);
        assert_eq!(home.sent(2).await, ["1", "2"]);
    });
}
