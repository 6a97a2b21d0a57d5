//! What becomes of occurrences that were missed, and of entries that are gone.

use super::action::Claim;
use super::state::State;
use crate::bounds::BEAT_GONE;
use crate::schedule::entry::{Entry, Misfire};
use chrono::{DateTime, TimeDelta, Utc};
use std::sync::Arc;

/// Marks the state of an entry that no file defines, or removes it when it has been marked for
/// long enough: an entry that comes back within that time goes on.
pub(super) fn gone(
    name: &str,
    state: Option<State>,
    expected: String,
    now: DateTime<Utc>,
) -> Option<Claim> {
    let state = match state {
        Some(State { gone: Some(gone), .. }) if now - gone < BEAT_GONE => return None,
        Some(state @ State { gone: None, .. }) => Some(State { gone: Some(now), ..state }),
        _ => None,
    };
    let name = Arc::from(name);
    let text = state.map(|state| state.text());
    Some(Claim {
        key: None,
        name,
        entry: None,
        expected: Some(expected),
        text,
        sends: vec![],
        missed: None,
    })
}

/// What is sent of the occurrences after `last`, up to `latest`, all of which were missed.
pub(super) fn remedy(
    entry: &Entry,
    last: DateTime<Utc>,
    latest: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Vec<DateTime<Utc>> {
    let (most, grace) = match entry.misfire {
        Misfire::Skip => (1, Some(entry.grace.unwrap_or_default())),
        Misfire::RunOnce => (1, entry.grace),
        Misfire::RunAll(most) => (most, entry.grace),
    };
    let grace = grace.and_then(|grace| TimeDelta::from_std(grace).ok());
    let mut sends = Vec::new();
    let mut due = Some(latest);
    while let Some(at) = due
        && sends.len() < most as usize
        && grace.is_none_or(|grace| now - at <= grace)
    {
        sends.push(at);
        due = entry.latest(last, at - TimeDelta::microseconds(1));
    }
    sends.reverse();
    sends
}
