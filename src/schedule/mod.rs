//! When the entries of a schedule are due, and what is sent then. Pure: files are read and
//! clocks are asked elsewhere (`cli`, `beat`); here are texts, instants and what follows from them.
//!
//! All instants are UTC. What is local, the calendar of an entry, is in [`zone`].

pub mod cron;
pub mod crontab_file;
pub mod define;
pub mod entry;
pub mod every;
mod field;
mod fields;
pub mod load;
pub mod moment;
pub mod options;
pub mod parse;
pub mod rules;
pub mod solar;
pub mod tokens;
pub mod zone;

use chrono::{DateTime, TimeDelta, Utc};
use std::fmt;
use zone::Calendar;

/// The kernel's time of its start moves when the clock is corrected; a start of the host that is
/// this close to the one before is the same one.
const REBOOT_APART: TimeDelta = TimeDelta::minutes(1);

/// What a schedule's occurrences follow.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Fields of a crontab.
    Cron(cron::Cron),
    /// An interval.
    Every(every::Every),
    /// The sun.
    Solar(solar::Solar),
    /// Each start of the host.
    Reboot,
}

impl Schedule {
    /// The first occurrence after `after`, which is the one before it or the instant since
    /// when the schedule has been in force; `None` if there are no more.
    pub fn next(&self, after: DateTime<Utc>, calendar: &Calendar) -> Option<DateTime<Utc>> {
        match self {
            Schedule::Cron(cron) => cron.next(after, calendar),
            Schedule::Every(every) => every.next(after, calendar),
            Schedule::Solar(solar) => solar.next(after),
            Schedule::Reboot => Some(calendar.boot).filter(|boot| *boot - after > REBOOT_APART),
        }
    }

    /// The last occurrence after `after` that is not later than `until`, as a chain of
    /// [`Schedule::next`] from `after` would meet it; without walking that chain.
    pub fn latest(
        &self,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
        calendar: &Calendar,
    ) -> Option<DateTime<Utc>> {
        match self {
            Schedule::Cron(cron) => cron.latest(after, until, calendar),
            Schedule::Every(every) => every.latest(after, until, calendar),
            Schedule::Solar(solar) => solar.latest(after, until),
            Schedule::Reboot => self.next(after, calendar).filter(|boot| *boot <= until),
        }
    }
}

/// As a person would write it; two schedules with the same text have the same occurrences in
/// the same calendar.
impl fmt::Display for Schedule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Cron(cron) => cron.fmt(out),
            Schedule::Every(every) => every.fmt(out),
            Schedule::Solar(solar) => solar.fmt(out),
            Schedule::Reboot => out.write_str("@reboot"),
        }
    }
}
