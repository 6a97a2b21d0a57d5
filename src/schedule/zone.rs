//! Local time: which zone an entry is in, and what happens when clocks are changed there.
//!
//! A schedule of local times ([`Pattern`]) becomes one of instants by one of three rules.
//!
//! * **Real time** ([`LocalTimeRule::Real`]): every instant whose local time is in the pattern. An hour
//!   that is repeated in autumn has its occurrences in both passes; one that is left out in
//!   spring has none.
//! * **Fixed local times** ([`LocalTimeRule::Fixed`]): each time of the pattern is one occurrence, at the
//!   first instant at which local clocks show that time *or a later one*. So one that a spring
//!   gap leaves out is right after the gap; several in one gap, or one that falls together with
//!   a regular one, are a single occurrence. In an autumn repeat it is the first pass.
//! * **Celery's** ([`Dst::Celery`], for all patterns): from one occurrence to the next by local
//!   time, the first pass of two, and a time in a gap as much later as the gap is long. So a
//!   regular occurrence that is passed over in this way is lost, and none is in the second pass
//!   of an hour. (A beat of Celery's that is started in such a second pass sends what is still
//!   to come in it by the clock at once, and again without pause until the clock shows that
//!   time. That is not copied.)
//!
//! With the first two no occurrence comes twice and none is lost, also where clocks are changed
//! at midnight, by half an hour, by a day, or twice within weeks.
//!
//! Occurrences are found in the years 1970 to 2100.
//!
//! When clocks are changed the host says, if it has a file of the zone ([`Rules`]); else what is
//! built in.

use super::rules::Rules;
use crate::config::zone::Zone;
use chrono::{DateTime, FixedOffset, Offset, Utc};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Seconds of a day without a change of clocks.
pub(super) const DAY: i64 = 86_400;

/// 1969-01-01: where the list of pieces starts, a year before the first occurrence.
const START: i64 = -365 * DAY;

/// 2101-01-01: no occurrence is that late.
const END: i64 = 4_133_980_800;

/// Changes of one zone's clocks are a week apart or more, so in each stride there is one at most.
const STRIDE: i64 = 6 * DAY;

/// 2026-01-01: nothing was sent by this program before.
const SENDING: i64 = 1_767_225_600;

/// How an entry's schedule is read. Cheap to make: what is known of its zone is found when it
/// is needed for the first time, and shared by all entries that share the calendar.
#[derive(Debug, Clone)]
pub struct Calendar {
    /// The zone.
    pub zone: Zone,
    /// When clocks are changed.
    pub dst: Dst,
    /// When the host was started.
    pub boot: DateTime<Utc>,
    /// The host's rules of the zone; `None`: those that are built in.
    rules: Option<Arc<Rules>>,
    /// The zone's time from `START` to `END`.
    pieces: OnceLock<Box<[OffsetPeriod]>>,
    /// The sum of what the host's rules say; `None` if the built-in ones say the same.
    sum: OnceLock<Option<u64>>,
}

/// What happens to local times that do not exist, or exist twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dst {
    /// A fixed one runs once: right after the gap, or the first time. Wildcard hours follow real time.
    #[default]
    Once,
    /// As Celery computes it.
    Celery,
}

/// Which local times a schedule means.
pub(super) trait Pattern {
    /// The first day with occurrences that is not before `day`, counted from 1970-01-01.
    fn day_from(&self, day: i64) -> Option<i64>;
    /// The last day with occurrences that is not after `day`.
    fn day_until(&self, day: i64) -> Option<i64>;
    /// The first occurrence of such a day that is not before this second of the day.
    fn time_from(&self, second: i64) -> Option<i64>;
    /// The last occurrence of such a day that is not after this second of the day.
    fn time_until(&self, second: i64) -> Option<i64>;
}

/// How local times become instants; [`Dst::Celery`] has one rule for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalTimeRule {
    /// Each is one occurrence.
    Fixed,
    /// Every instant whose local time matches.
    Real,
}

/// Which of two instants with the same local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Before clocks are put back.
    First,
    /// After that.
    Second,
}

/// A time during which local clocks run evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OffsetPeriod {
    /// Its first second, UTC.
    pub from: i64,
    /// The first second that is not in it.
    pub to: i64,
    /// Local time less UTC, in seconds.
    pub offset: i64,
}

impl PartialEq for Calendar {
    fn eq(&self, other: &Calendar) -> bool {
        let of = |calendar: &Calendar| (calendar.zone, calendar.dst, calendar.boot);
        of(self) == of(other) && self.rules == other.rules
    }
}

impl Calendar {
    /// A calendar of this zone by the built-in rules, on a host that was started at `boot`.
    pub fn new(zone: Zone, dst: Dst, boot: DateTime<Utc>) -> Calendar {
        Calendar { zone, dst, boot, rules: None, pieces: OnceLock::new(), sum: OnceLock::new() }
    }

    /// The same by the rules that the host has, if it has any.
    pub fn by(self, rules: Option<Arc<Rules>>) -> Calendar {
        Calendar { rules, pieces: OnceLock::new(), sum: OnceLock::new(), ..self }
    }

    /// What clocks show.
    pub fn local(&self, at: DateTime<Utc>) -> DateTime<FixedOffset> {
        let offset = i32::try_from(self.piece(at.timestamp()).offset).ok();
        at.with_timezone(&offset.and_then(FixedOffset::east_opt).unwrap_or_else(|| Utc.fix()))
    }

    /// The letters for the local time of `at`, such as CEST; its offset if the zone has none.
    pub fn letters(&self, at: DateTime<Utc>) -> String {
        match &self.rules {
            Some(rules) => rules.letters(at.timestamp()),
            None => Rules::built_in(self.zone).letters(at.timestamp()),
        }
    }

    /// The first occurrence after `after`.
    pub(super) fn next(
        &self,
        after: DateTime<Utc>,
        rule: LocalTimeRule,
        pattern: &impl Pattern,
    ) -> Option<DateTime<Utc>> {
        // Occurrences are whole seconds: what is after an instant is after its second.
        let after = after.timestamp().max(-1);
        if after >= END {
            return None;
        }
        let due = match (self.dst, rule) {
            (Dst::Once, LocalTimeRule::Real) => self.next_real(after, pattern)?,
            (Dst::Once, LocalTimeRule::Fixed) => {
                self.reach(first(pattern, self.reached(after) + 1)?)
            }
            (Dst::Celery, _) => self.instant(first(pattern, self.reached(after) + 1)?, Pass::First),
        };
        DateTime::from_timestamp(due, 0).filter(|_| due < END)
    }

    /// The last occurrence after `after` and not after `until`.
    pub(super) fn latest(
        &self,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
        rule: LocalTimeRule,
        pattern: &impl Pattern,
    ) -> Option<DateTime<Utc>> {
        let (after, until) = (after.timestamp().max(-1), until.timestamp().min(END - 1));
        if until <= after {
            return None;
        }
        let due = match (self.dst, rule) {
            (Dst::Once, LocalTimeRule::Real) => self.latest_real(after, until, pattern)?,
            (Dst::Once, LocalTimeRule::Fixed) => self.reach(last(pattern, self.reached(until))?),
            (Dst::Celery, _) => self.latest_celery(after, until, pattern)?,
        };
        DateTime::from_timestamp(due, 0).filter(|_| due > after)
    }

    fn next_real(&self, after: i64, pattern: &impl Pattern) -> Option<i64> {
        let mut from = after + 1;
        while from < END {
            let piece = self.piece(from);
            let local = first(pattern, from + piece.offset)?;
            if local - piece.offset < piece.to {
                return Some(local - piece.offset);
            }
            from = piece.to;
        }
        None
    }

    fn latest_real(&self, after: i64, until: i64, pattern: &impl Pattern) -> Option<i64> {
        let mut until = until;
        while until > after {
            let piece = self.piece(until);
            // Earlier pieces may show later local times: nothing found here is not the end.
            if let Some(local) = last(pattern, until + piece.offset)
                && local - piece.offset >= piece.from
            {
                return Some(local - piece.offset);
            }
            until = piece.from - 1;
        }
        None
    }

    fn latest_celery(&self, after: i64, until: i64, pattern: &impl Pattern) -> Option<i64> {
        let mut until = until;
        while until > after {
            let piece = self.piece(until);
            let mut low = piece.from + piece.offset;
            let mut jumped = None;
            if piece.from > START {
                let before = self.piece(piece.from - 1);
                // A chain that comes from before a gap passes over what is regular, but earlier
                // than the first time of the gap, put off by the length of the gap.
                jumped = first(pattern, piece.from + before.offset)
                    .filter(|local| *local < low && after < piece.from)
                    .map(|local| local - before.offset);
                low = match jumped {
                    Some(due) => due + piece.offset + 1,
                    None => low.max(self.reached(piece.from - 1) + 1),
                };
            }
            if let Some(local) = last(pattern, until + piece.offset)
                && local >= low
            {
                return Some(local - piece.offset);
            }
            if let Some(due) = jumped
                && due <= until
            {
                return Some(due);
            }
            until = piece.from - 1;
        }
        None
    }

    /// The latest local time that clocks have shown up to `at`, that second included.
    fn reached(&self, at: i64) -> i64 {
        let mut piece = self.piece(at);
        let mut high = at + piece.offset;
        // No clock was ever put back by more than a day.
        while piece.from > START && piece.from > at - 2 * DAY {
            piece = self.piece(piece.from - 1);
            high = high.max(piece.to - 1 + piece.offset);
        }
        high
    }

    /// The first instant at which clocks show `local`, or later.
    fn reach(&self, local: i64) -> i64 {
        // Less than a day from UTC, so a day earlier nothing has shown it yet.
        let mut piece = self.piece(local - DAY);
        while piece.to + piece.offset <= local && piece.to < END {
            piece = self.piece(piece.to);
        }
        piece.from.max(local - piece.offset)
    }

    /// When clocks show `local`; if they never do, as if they had not been put forward.
    pub(super) fn instant(&self, local: i64, pass: Pass) -> i64 {
        let first = self.reach(local);
        let piece = self.piece(first);
        if first + piece.offset != local {
            return local - self.piece(first - 1).offset;
        }
        let again = self.piece(piece.to.min(END - 1));
        match pass {
            Pass::Second if local - again.offset >= again.from => local - again.offset,
            _ => first,
        }
    }

    /// Whether a clock ever shows `local`.
    pub(super) fn exists(&self, local: i64) -> bool {
        let first = self.reach(local);
        first + self.piece(first).offset == local
    }

    /// The piece of time around `at`, which may be any second.
    pub(super) fn piece(&self, at: i64) -> OffsetPeriod {
        let pieces = self.pieces();
        pieces[pieces.partition_point(|piece| piece.to <= at).min(pieces.len() - 1)]
    }

    fn pieces(&self) -> &[OffsetPeriod] {
        self.pieces.get_or_init(|| match &self.rules {
            Some(rules) => pieces(rules),
            None => pieces(&Rules::built_in(self.zone)),
        })
    }

    /// Tells rules apart by which occurrences are sent at different times.
    fn sum(&self) -> Option<u64> {
        *self.sum.get_or_init(|| {
            self.rules.as_ref()?;
            let said = |pieces: &[OffsetPeriod]| {
                let late = pieces.iter().filter(|piece| piece.to > SENDING);
                let said: Vec<_> =
                    late.map(|piece| (piece.from.max(SENDING), piece.offset)).collect();
                format!("{said:?}")
            };
            let here = said(self.pieces());
            let built_in = pieces(&Rules::built_in(self.zone));
            (here != said(&built_in)).then(|| super::entry::sum(&here))
        })
    }
}

/// The first local time of the pattern that is not before `from`.
fn first(pattern: &impl Pattern, from: i64) -> Option<i64> {
    let (today, second) = (from.div_euclid(DAY), from.rem_euclid(DAY));
    let mut day = pattern.day_from(today)?;
    if day == today {
        if let Some(second) = pattern.time_from(second) {
            return Some(day * DAY + second);
        }
        day = pattern.day_from(today + 1)?;
    }
    Some(day * DAY + pattern.time_from(0)?)
}

/// The last local time of the pattern that is not after `until`.
fn last(pattern: &impl Pattern, until: i64) -> Option<i64> {
    let (today, second) = (until.div_euclid(DAY), until.rem_euclid(DAY));
    let mut day = pattern.day_until(today)?;
    if day == today {
        if let Some(second) = pattern.time_until(second) {
            return Some(day * DAY + second);
        }
        day = pattern.day_until(today - 1)?;
    }
    Some(day * DAY + pattern.time_until(DAY - 1)?)
}

/// Cuts the time from `START` to `END` where a zone's clocks are changed. Of two changes that
/// the rules list none is missed, however close they are.
fn pieces(rules: &Rules) -> Box<[OffsetPeriod]> {
    let (offset_at, changes) = (|at| rules.offset(at), rules.changes());
    let mut pieces = Vec::new();
    let (mut from, mut offset) = (START, offset_at(START));
    let mut known = START;
    while known < END {
        let change = changes.get(changes.partition_point(|change| *change <= known));
        let next = change.map_or(END, |change| *change).min(known + STRIDE).min(END);
        while offset_at(next) != offset {
            let (mut same, mut other) = (known, next);
            while other - same > 1 {
                let middle = same + (other - same) / 2;
                match offset_at(middle) == offset {
                    true => same = middle,
                    false => other = middle,
                }
            }
            pieces.push(OffsetPeriod { from, to: other, offset });
            (from, known, offset) = (other, other, offset_at(other));
        }
        known = next;
    }
    pieces.push(OffsetPeriod { from, to: END, offset });
    pieces.into()
}

/// Two calendars with the same text have the same occurrences, whatever their host.
impl fmt::Display for Calendar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {:?}", self.zone, self.dst)?;
        self.sum().map_or(Ok(()), |sum| write!(out, " {sum:016x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(zone: Zone) -> Calendar {
        Calendar::new(zone, Dst::Once, DateTime::UNIX_EPOCH)
    }

    fn at(text: &str) -> i64 {
        text.parse::<DateTime<Utc>>().unwrap().timestamp()
    }

    #[test]
    fn a_zone_is_cut_where_its_clocks_are_changed() {
        let oslo = calendar(Zone::named("Europe/Oslo").unwrap());
        let summer = oslo.piece(at("2026-07-01T00:00:00Z"));
        assert_eq!(summer.from, at("2026-03-29T01:00:00Z"));
        assert_eq!(summer.to, at("2026-10-25T01:00:00Z"));
        assert_eq!(summer.offset, 7200);
        // Beyond the 32 bits that many lists of changes end with.
        assert_eq!(oslo.piece(at("2090-07-01T00:00:00Z")).offset, 7200);
        assert_eq!(calendar(Zone::UTC).pieces().len(), 1);
    }

    #[test]
    fn no_change_of_any_zone_is_missed() {
        // Six times as often as when the list was made, and at places of its own.
        for zone in Zone::all().step_by(7) {
            let (calendar, rules) = (calendar(zone), Rules::built_in(zone));
            let mut at = 0;
            while at < END {
                assert_eq!(calendar.piece(at).offset, rules.offset(at), "{zone} {at}");
                at += 86_017;
            }
        }
    }

    #[test]
    fn local_times_become_instants() {
        let new_york = calendar(Zone::named("America/New_York").unwrap());
        let gap = at("2026-03-08T02:30:00Z");
        assert!(!new_york.exists(gap));
        assert_eq!(new_york.reach(gap), at("2026-03-08T07:00:00Z"));
        assert_eq!(new_york.instant(gap, Pass::First), at("2026-03-08T07:30:00Z"));
        let twice = at("2026-11-01T01:30:00Z");
        assert!(new_york.exists(twice));
        assert_eq!(new_york.instant(twice, Pass::First), at("2026-11-01T05:30:00Z"));
        assert_eq!(new_york.instant(twice, Pass::Second), at("2026-11-01T06:30:00Z"));
        let once = at("2026-11-01T02:30:00Z");
        assert_eq!(new_york.instant(once, Pass::Second), at("2026-11-01T07:30:00Z"));
        // In the second pass the clock is behind what it has shown.
        let second = at("2026-11-01T06:10:00Z");
        assert_eq!(new_york.reached(second), at("2026-11-01T01:59:59Z"));
    }
}
