//! Missed occurrences and removed entries.

use crate::beat::claim::Claim;
use crate::beat::state::EntryState;
use crate::bounds::BEAT_GONE;
use crate::schedule::entry::{Entry, Misfire};
use chrono::{DateTime, TimeDelta, Utc};

/// Marks the state of an entry that no file defines, or removes it once it has been marked for
/// [`BEAT_GONE`]: an entry that comes back within that time continues.
pub(super) fn gone(
    name: &str,
    state: Option<EntryState>,
    expected: String,
    now: DateTime<Utc>,
) -> Option<Claim> {
    let state = match state {
        Some(EntryState { gone: Some(gone), .. }) if now - gone < BEAT_GONE => return None,
        Some(state @ EntryState { gone: None, .. }) => {
            Some(EntryState { gone: Some(now), ..state })
        }
        _ => None,
    };
    Some(Claim::of_value(name.into(), Some(expected), state.map(|state| state.text())))
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
