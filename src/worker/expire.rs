//! Removes results that nobody fetched within `result_expires`.

use crate::backend::Store;
use crate::clock;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// How often expired results are removed.
const EXPIRE_EVERY: Duration = Duration::from_secs(300);

/// Removes results older than `after` again and again, and when it is `asked`; `None` keeps them
/// forever.
pub(super) async fn run(store: Store, after: Option<Duration>, asked: Rc<Notify>) {
    let Some(after) = after else { return };
    let mut every = tokio::time::interval(EXPIRE_EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = asked.notified() => {}
        }
        let limit = clock::now() - after;
        loop {
            match store.expire(limit).await {
                Ok(0) => break,
                Ok(count) => tracing::debug!("removed {count} expired results"),
                Err(error) => {
                    tracing::warn!("cannot remove expired results: {error}");
                    break;
                }
            }
        }
    }
}
