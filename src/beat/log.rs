//! What a beat writes to the log.

use super::claim::Claim;
use super::event::Note;
use super::state::task_id;
use chrono::{DateTime, SecondsFormat, Utc};

/// Logs this.
pub(super) fn write(note: &Note) {
    match note {
        Note::Loaded(1) => tracing::info!("beat: loaded 1 entry"),
        Note::Loaded(count) => tracing::info!("beat: loaded {count} entries"),
        Note::Sent(claim) => write_sent(claim),
        Note::Refused(name, why, again) => {
            tracing::error!("{name}: not sent: {why}; retried at {}", second(*again));
        }
        Note::Overlap(name, due) => {
            tracing::info!("{name}: {} is skipped: the previous task is not done", second(*due))
        }
        Note::Superseded(name) => tracing::warn!(
            "{name}: another beat has loaded another definition of it later than this one, which \
             sends nothing of it until it reads its files again; beats of one beat_group have the \
             same files"
        ),
        Note::Damaged(name, why) => {
            tracing::warn!("{name}: its state cannot be read: {why}; it starts from now")
        }
        Note::ClockSetBack(name, from) => tracing::warn!(
            "{name}: was last sent at {}, which is in the future: the clock was set back; it continues from \
             now",
            second(*from)
        ),
        Note::Skew(seconds) => tracing::warn!(
            "this host's clock and the broker's differ by {seconds:+.1} s: the broker's is used"
        ),
        Note::Unreachable(error) => tracing::error!("{error}; due entries wait"),
        Note::Reachable => tracing::warn!("the broker answers again"),
        Note::Lost => {
            tracing::warn!("the broker has lost the state of the schedule: it is written again");
        }
        Note::Status { entries, sent, next, follows, outage } => {
            let next = next.map_or("nothing".into(), second);
            let follows = if *follows { "; another beat sends first" } else { "" };
            let outage = if *outage { "; the broker does not answer" } else { "" };
            tracing::warn!("beat: {entries} entries, {sent} sent, next at {next}{follows}{outage}");
        }
    }
}

/// A line for each message, as Celery's.
fn write_sent(claim: &Claim) {
    let Some(entry) = &claim.entry else { return };
    if let Some(since) = claim.missed {
        let (since, sent) = (second(since), claim.sends.len());
        tracing::warn!("{}: missed since {since}; {sent} sent now", claim.name);
    }
    for due in &claim.sends {
        tracing::info!("Scheduler: Sending due task {} ({})", claim.name, entry.task);
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!("{} sent. id->{}", entry.task, task_id(entry, *due));
        }
    }
}

/// To the second, in UTC.
fn second(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
