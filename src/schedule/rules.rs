//! The rules of a zone, as the host has them or as they are built in: the contents of a file in the
//! form TZif (RFC 9636).

use super::zone::DAY;
use crate::config::zone::Zone;
use std::fmt::Debug;
use std::sync::Arc;
use tz::timezone::{LocalTimeType, TimeZone, TransitionRule};

/// Knows the rules of zones that the host has.
pub trait HostZones: Debug {
    /// Those of a zone. `None`: the built-in ones hold.
    fn rules(&self, zone: Zone) -> Option<Arc<Rules>>;
}

/// For all zones the built-in rules hold.
#[derive(Debug, Clone, Copy)]
pub struct BuiltInZones;

impl HostZones for BuiltInZones {
    fn rules(&self, _: Zone) -> Option<Arc<Rules>> {
        None
    }
}

/// When the clocks of a zone are changed, and by how much.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    zone: TimeZone,
    /// Local time less UTC after the last change of a file that says nothing of the time after it.
    last: i64,
}

impl Rules {
    /// Those that are built in.
    pub fn built_in(zone: Zone) -> Rules {
        // A test reads all of them.
        Rules::read(zone.tzif()).unwrap_or_else(|_| Rules { zone: TimeZone::utc(), last: 0 })
    }

    /// Reads the contents of a file.
    ///
    /// # Errors
    /// Says what was found in it.
    pub fn read(bytes: &[u8]) -> Result<Rules, String> {
        let zone = TimeZone::from_tz_data(bytes)
            .map_err(|error| format!("found no file of a time zone: {error}"))?;
        let parts = zone.as_ref();
        if !parts.leap_seconds().is_empty() {
            return Err("found a file that counts leap seconds (of the folder \"right\")".into());
        }
        let types = parts.local_time_types();
        let (first, second) = match parts.extra_rule() {
            None => (None, None),
            Some(TransitionRule::Fixed(one)) => (Some(one), None),
            Some(TransitionRule::Alternate(two)) => (Some(two.std()), Some(two.dst())),
        };
        let offsets = || types.iter().chain(first).chain(second).map(offset_of);
        if let Some(far) = offsets().find(|offset| offset.abs() >= DAY) {
            return Err(format!("found a local time that is {far} s from UTC"));
        }
        let last = parts.transitions().last().map_or(0, |last| last.local_time_type_index());
        let last = types.get(last).map_or(0, offset_of);
        Ok(Rules { zone, last })
    }

    /// Local time less UTC, in seconds.
    pub(super) fn offset(&self, at: i64) -> i64 {
        self.zone.find_local_time_type(at).map_or(self.last, offset_of)
    }

    /// The letters for the local time, such as CEST; an offset such as `+03` if there are none.
    pub(super) fn letters(&self, at: i64) -> String {
        let local = self.zone.find_local_time_type(at).ok();
        let last = || self.zone.as_ref().local_time_types().last();
        let letters = local.or_else(last).map(|local| local.time_zone_designation());
        letters.unwrap_or_default().into()
    }

    /// When clocks are changed, as far as the file lists it.
    pub(super) fn changes(&self) -> Vec<i64> {
        self.zone.as_ref().transitions().iter().map(|change| change.unix_leap_time()).collect()
    }
}

fn offset_of(local: &LocalTimeType) -> i64 {
    i64::from(local.ut_offset())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_all_zones_are_built_in() {
        for zone in Zone::all() {
            Rules::read(zone.tzif()).unwrap_or_else(|why| panic!("{zone}: {why}"));
        }
        let oslo = Rules::built_in(Zone::named("Europe/Oslo").unwrap());
        assert_eq!([0, 1_782_864_000].map(|at| oslo.letters(at)), ["CET", "CEST"]);
        assert_eq!(Rules::built_in(Zone::named("Etc/GMT-3").unwrap()).letters(0), "+03");
    }
}
