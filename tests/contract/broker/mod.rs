//! The contract of `src/broker/mod.rs`, clause by clause, for every broker. To add one:
//! an implementation of [`Site`] in `sites.rs` and one line below.

mod crash;
mod delivery;
mod dues;
mod full;
mod lists;
mod load;
pub mod roles;

use super::sites::{self, Worker};
use chrono::{DateTime, Utc};
use qworker::broker::{Consumer, Delivery, Posting, Settle, Want};
use qworker::clock;
use qworker::wire::Payload;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// The suite, called for each broker. A clause behind which an ability stands holds for brokers that
/// have it.
macro_rules! suite {
    ($name:ident, $site:ty: $($file:ident { $($clause:ident $(: $ability:ident)?)* })*) => {
        mod $name {
            use crate::contract::sites::{self, Site};
            $($(
                #[test]
                fn $clause() {
                    crate::harness::block_on(async {
                        let site = <$site>::create();
                        let is_promised = true $(&& site.client().abilities().$ability)?;
                        if is_promised {
                            super::$file::$clause(site).await;
                        }
                    });
                }
            )*)*
        }
    };
}

macro_rules! for_every_broker {
    ($($name:ident: $site:ty),* $(,)?) => {
        $(suite! { $name, $site:
            delivery {
                published_then_taken_then_acknowledged
                higher_priorities_come_first_then_older_ones
                no_queue_starves_another
                no_more_is_taken_than_is_wanted
                a_suspect_is_taken_into_a_free_slot_only
                released_it_is_back_in_its_place_uncounted
                what_is_left_to_others_stays_for_them
                redelivered_it_is_counted: counts
                replaced_by_its_retry_in_one_step
                settled_by_its_owner_only
                a_payload_travels_whole
            }
            dues {
                not_before_its_time_and_then_at_once: native_eta
                any_number_of_scheduled_ones_hides_no_ready_one: native_eta
                parked_until_a_time_uncounted
            }
            lists {
                the_dead_are_kept_whole_and_can_be_sent_again
                the_dead_can_be_removed
                purge_takes_what_waits_and_leaves_what_is_held
                queues_are_counted
                a_task_is_found_wherever_it_is
                messages_are_seen_without_being_taken
                nodes_are_those_alive
            }
            load {
                many_writers_lose_nothing
                many_readers_share_without_doubles
                a_publish_wakes_a_waiting_worker
                a_dropped_wait_loses_no_wake_up
                an_idle_worker_does_not_poll
            }
            crash {
                a_killed_worker_gives_back_what_it_held_counted: leases
                from_the_second_loss_on_it_waits_longer: counts
                a_suspect_counts_from_its_marked_start_on: counts
                a_closed_worker_gives_back_uncounted
                what_publish_accepted_survives_a_kill
            }
        })*
    };
}

for_every_broker! { on_sqlite: sites::Sqlite, on_redis: sites::Redis }

// Those that write the files themselves.
suite! { on_a_disk, sites::Sqlite:
    full {
        a_full_disk_refuses_and_loses_nothing
        a_limit_of_file_size_refuses_and_loses_nothing
    }
}

/// All that there is, up to many.
pub const MANY: Want = Want { slots: 10_000, ahead: 0 };

/// The default queue of these tests.
pub const QUEUE: &str = "celery";

/// A message to [`QUEUE`] whose payload is its id.
pub fn posting(id: &str) -> Posting {
    Posting {
        queue: QUEUE.into(),
        task_id: id.into(),
        priority: 0,
        eta: None,
        payload: Payload::from_envelope(payload_of(id)),
    }
}

/// The payload of [`posting`]: nearly a message, since some brokers look for its id in it.
pub fn payload_of(id: &str) -> String {
    format!("payload of \"id\": \"{id}\"")
}

/// A message due then.
pub fn due(id: &str, eta: DateTime<Utc>) -> Posting {
    Posting { eta: Some(eta), ..posting(id) }
}

/// The id in a payload of [`posting`].
pub fn id(delivery: &Delivery) -> &str {
    let id = text(delivery).strip_prefix("payload of \"id\": \"");
    id.and_then(|id| id.strip_suffix('"')).unwrap_or(text(delivery))
}

/// The envelope of a delivery.
pub fn text(delivery: &Delivery) -> &str {
    match delivery.payload.to_envelope() {
        Cow::Borrowed(text) => text,
        Cow::Owned(text) => panic!("not carried as an envelope: {text}"),
    }
}

/// Ids with their counts.
pub fn counted(deliveries: &[Delivery]) -> Vec<(&str, u32)> {
    deliveries.iter().map(|one| (id(one), one.deliveries)).collect()
}

/// Ids.
pub fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(id).collect()
}

/// Takes and waits, as a worker does, until `count` messages are here.
pub async fn take_until(consumer: &mut Consumer, want: Want, count: usize) -> Vec<Delivery> {
    let begin = Instant::now();
    let mut taken = Vec::new();
    loop {
        taken.extend(consumer.take(want).await.unwrap());
        if taken.len() >= count {
            return taken;
        }
        let left = crate::harness::SOON.saturating_sub(begin.elapsed());
        assert!(!left.is_zero(), "{count} messages expected, only these came: {taken:?}");
        let _ = tokio::time::timeout(left, consumer.wait()).await;
    }
}

/// Settles one delivery.
pub async fn settle(worker: &Worker, delivery: &Delivery, settle: Settle) {
    worker.settle(vec![(delivery.tag, settle)]).await.unwrap();
}

/// Acknowledges them all.
pub async fn ack(worker: &Worker, deliveries: &[Delivery]) {
    worker.settle(deliveries.iter().map(|one| (one.tag, Settle::Ack)).collect()).await.unwrap();
}

/// So many milliseconds from now.
pub fn after_ms(ms: u64) -> DateTime<Utc> {
    clock::now() + Duration::from_millis(ms)
}
