//! Removes results that nobody fetched within `result_expires`.

use crate::backend::Store;
use crate::clock;
use std::time::Duration;

/// How often expired results are removed.
const EXPIRE_EVERY: Duration = Duration::from_secs(300);

/// Removes results older than `after` again and again; `None` keeps them forever.
pub(super) async fn run(store: Store, after: Option<Duration>) {
    let Some(after) = after else { return };
    let mut every = tokio::time::interval(EXPIRE_EVERY);
    loop {
        every.tick().await;
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
