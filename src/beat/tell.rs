//! What a beat says in the log.

use super::action::{Claim, Note, Verdict};
use super::drive::Beat;
use super::state::task_id;
use crate::bounds::BEAT_REFUSED;
use crate::broker::ledger::Ledger;
use chrono::{DateTime, SecondsFormat, Utc};

impl Beat {
    /// What a claim that was done has sent: a line for each sending, as Celery's.
    pub(super) fn log(&mut self, claim: &Claim) {
        let Some(entry) = &claim.entry else { return };
        if let Some(since) = claim.missed {
            let (since, sent) = (second(since), claim.sends.len());
            tracing::warn!("{}: missed since {since}; {sent} sent now", claim.name);
        }
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

    /// The ledger has lost everything. Of a file it says so itself.
    pub(super) fn tell_of_loss(&self) {
        if !matches!(self.ledger, Ledger::Apart(_)) {
            tracing::warn!("the broker has lost what it knew of the schedule: it gets it again");
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

/// The broker does not take what is to be sent: that is tried again later.
pub(super) fn refused(claim: &Claim, why: &str, now: DateTime<Utc>) -> Verdict {
    let again = now + BEAT_REFUSED;
    tracing::error!("{}: not sent: {why}; tried again at {}", claim.name, second(again));
    Verdict::Failed(again)
}

/// To the second, in UTC.
pub(super) fn second(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
