//! What a beat says in the log.

use super::action::{Claim, Note};
use super::drive::Beat;
use super::state::task_id;
use chrono::{DateTime, SecondsFormat, Utc};

impl Beat {
    /// A line for each sending, as Celery's.
    pub(super) fn log(&mut self, claim: &Claim) {
        let Some(entry) = &claim.entry else { return };
        for due in &claim.sends {
            self.sent += 1;
            tracing::info!("Scheduler: Sending due task {} ({})", claim.name, entry.task);
            if tracing::enabled!(tracing::Level::DEBUG) {
                tracing::debug!("{} sent. id->{}", entry.task, task_id(entry, *due));
            }
        }
    }

    /// What the core has noted.
    pub(super) fn tell(&mut self) {
        for (name, note) in self.core.notes() {
            match note {
                Note::Missed { since, sent } => {
                    tracing::warn!("{name}: missed since {}; {sent} sent now", second(since))
                }
                Note::Overlap(due) => tracing::info!(
                    "{name}: {} is left out: the task of the one before is not done",
                    second(due)
                ),
                Note::Superseded => tracing::warn!(
                    "{name}: another beat has loaded another definition of it later than this one, \
                     which sends nothing of it until it reads its files again; beats of one beat_group \
                     have the same files"
                ),
                Note::Damaged(why) => tracing::warn!(
                    "{name}: what was known of it cannot be read: {why}; it begins anew"
                ),
                Note::ClockSetBack(from) => tracing::warn!(
                    "{name}: was sent at {}, which is yet to come: the clock was set back; it goes on from now",
                    second(from)
                ),
            }
        }
    }

    pub(super) fn explain(&self) {
        let next = self.core.next().map_or("nothing".into(), second);
        let lags = if self.lags { "; another beat goes ahead" } else { "" };
        let outage = if self.outage.is_some() { "; the broker does not answer" } else { "" };
        tracing::warn!(
            "beat: {} entries, {} sent, next at {next}{lags}{outage}",
            self.core.len(),
            self.sent
        );
    }
}

/// To the second, in UTC.
pub(super) fn second(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
