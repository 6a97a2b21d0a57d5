//! The sun: dawn, sunrise, noon, sunset and dusk at a place, as Celery's `solar` has them.
//!
//! Where the sun is comes from the crate `solar-positioning`. Each event belongs to one local
//! day, from one mean midnight of its longitude to the next, and is sought only there: so all
//! hosts find the same instants, from wherever they start.

use super::field::FieldError;
use super::zone::DAY;
use chrono::{DateTime, Utc};
use solar_positioning::{Horizon, Location, SolarEvents};
use std::f64::consts::TAU;
use std::fmt;

/// A year: events that do not come in it do not come at all.
const SEARCH_DAYS: i64 = 366;

/// 2101-01-01: no occurrence is that late.
const END: i64 = 4_133_980_800;

/// Two events of one kind that are nearer, in seconds, are one that was found from both sides
/// of midnight.
const SAME: i64 = 60;

/// The Julian date of 1970-01-01.
const EPOCH: f64 = 2_440_587.5;

/// Terrestrial time less universal time, in seconds. It grows by a few seconds in a decade,
/// in which the sun goes a thousandth of its width.
const DELTA_T: f64 = 70.0;

/// What the sun does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SolarEvent {
    /// Its centre comes up to 18 degrees below the horizon.
    DawnAstronomical,
    /// Its centre comes up to 12 degrees below the horizon.
    DawnNautical,
    /// Its centre comes up to 6 degrees below the horizon.
    DawnCivil,
    /// Its upper limb comes up to 34 minutes below the horizon, where refraction shows it.
    Sunrise,
    /// It passes the meridian.
    SolarNoon,
    /// Its upper limb goes down to 34 minutes below the horizon.
    Sunset,
    /// Its centre goes down to 6 degrees below the horizon.
    DuskCivil,
    /// Its centre goes down to 12 degrees below the horizon.
    DuskNautical,
    /// Its centre goes down to 18 degrees below the horizon.
    DuskAstronomical,
}

/// All events by Celery's names, in the order of a day.
pub const EVENTS: [(&str, SolarEvent); 9] = [
    ("dawn_astronomical", SolarEvent::DawnAstronomical),
    ("dawn_nautical", SolarEvent::DawnNautical),
    ("dawn_civil", SolarEvent::DawnCivil),
    ("sunrise", SolarEvent::Sunrise),
    ("solar_noon", SolarEvent::SolarNoon),
    ("sunset", SolarEvent::Sunset),
    ("dusk_civil", SolarEvent::DuskCivil),
    ("dusk_nautical", SolarEvent::DuskNautical),
    ("dusk_astronomical", SolarEvent::DuskAstronomical),
];

/// An event at a place, checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solar {
    event: SolarEvent,
    latitude: f64,
    longitude: f64,
}

impl Solar {
    /// The event of this name at a place in degrees: north and east are positive.
    ///
    /// # Errors
    /// If there is no event of that name, or no such place.
    pub fn new(event: &str, latitude: f64, longitude: f64) -> Result<Solar, FieldError> {
        let known = EVENTS.iter().find(|(name, _)| *name == event);
        let names = || EVENTS.map(|(name, _)| name).join(", ");
        let (_, known) =
            *known.ok_or_else(|| FieldError::new("solar", event, format!("one of {}", names())))?;
        if !(-90.0..=90.0).contains(&latitude) {
            return Err(FieldError::new("lat", &latitude.to_string(), "-90 to 90"));
        }
        if !(-180.0..=180.0).contains(&longitude) {
            return Err(FieldError::new("lon", &longitude.to_string(), "-180 to 180"));
        }
        Ok(Solar { event: known, latitude, longitude })
    }

    /// The first occurrence after `after`, a whole second; `None` if there is none in a year.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let after = after.timestamp().max(0);
        let today = self.day(after);
        let mut days = (today - 1..=today + SEARCH_DAYS).flat_map(|day| self.events(day));
        let due = days.find(|due| *due > after)?;
        DateTime::from_timestamp(due, 0).filter(|_| due < END)
    }

    /// The last occurrence after `after` that is not later than `until`.
    pub fn latest(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let (after, until) = (after.timestamp().max(0), until.timestamp().min(END - 1));
        let today = self.day(until);
        let first = (today - SEARCH_DAYS).max(self.day(after) - 1);
        let mut days = (first..=today + 1).rev();
        let due =
            days.find_map(|day| self.events(day).into_iter().rev().find(|due| *due <= until))?;
        DateTime::from_timestamp(due, 0).filter(|_| due > after)
    }

    /// The mean solar day in which an instant is, counted from 1970.
    fn day(&self, at: i64) -> i64 {
        (at + self.midnight()).div_euclid(DAY)
    }

    /// Mean solar time less UTC, in seconds.
    fn midnight(&self) -> i64 {
        (self.longitude * 240.0) as i64
    }

    /// The events of a day, without one that the day before has found already.
    fn events(&self, day: i64) -> Vec<i64> {
        let start = day * DAY - self.midnight();
        let mut events = self.found(start);
        if events.first().is_some_and(|first| first - start < SAME) {
            let before = self.found(start - DAY).last().copied();
            events.retain(|event| before.is_none_or(|before| event - before >= SAME));
        }
        events
    }

    /// The events of the day that begins then, each at the end of the second in which it comes.
    fn found(&self, start: i64) -> Vec<i64> {
        let julian = |at: i64| EPOCH + at as f64 / DAY as f64;
        let (mut from, to) = (julian(start), julian(start + DAY));
        let mut found: Vec<i64> = Vec::new();
        // The crate refuses only what was refused at the door: places that do not exist.
        while let Ok(Some(at)) = self.find(from, to) {
            let event = ((at - EPOCH) * DAY as f64).ceil() as i64;
            if found.last().is_none_or(|last| event - last >= SAME) {
                found.push(event);
            }
            from = at;
        }
        found
    }

    fn find(&self, from: f64, to: f64) -> solar_positioning::Result<Option<f64>> {
        let sun = SolarEvents::new();
        let place = Location { latitude: self.latitude, longitude: self.longitude };
        let rise =
            |angle| sun.next_rise_from_julian(from, to, place, DELTA_T, Horizon::Custom(angle));
        let set =
            |angle| sun.next_set_from_julian(from, to, place, DELTA_T, Horizon::Custom(angle));
        match self.event {
            SolarEvent::DawnAstronomical => rise(-18.0),
            SolarEvent::DawnNautical => rise(-12.0),
            SolarEvent::DawnCivil => rise(-6.0),
            SolarEvent::Sunrise => rise(limb(from)),
            SolarEvent::SolarNoon => {
                sun.next_transit_from_julian(from, to, self.longitude, DELTA_T)
            }
            SolarEvent::Sunset => set(limb(from)),
            SolarEvent::DuskCivil => set(-6.0),
            SolarEvent::DuskNautical => set(-12.0),
            SolarEvent::DuskAstronomical => set(-18.0),
        }
    }
}

/// Where the sun's centre is, in degrees, when its upper limb is 34 minutes below the horizon:
/// its radius is 16 minutes, more in January, less in July.
fn limb(julian: f64) -> f64 {
    let perihelion = (julian - 2_451_547.5) / 365.2596 * TAU;
    let distance = 1.0 - 0.0167 * perihelion.cos();
    -34.0 / 60.0 - 0.266_564 / distance
}

impl fmt::Display for Solar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            EVENTS.iter().find(|(_, event)| *event == self.event).map_or("", |(name, _)| name);
        write!(out, "{name} at {}, {}", self.latitude, self.longitude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn oslo(event: &str) -> Solar {
        Solar::new(event, 59.9, 10.7).unwrap()
    }

    #[test]
    fn a_day_in_oslo() {
        let mut last = at("2026-03-20T00:00:00Z");
        for (name, _) in EVENTS {
            let due = oslo(name).next(last).unwrap();
            assert!(due > last && due < at("2026-03-21T00:00:00Z"), "{name} {due}");
            last = due;
        }
        // At the equinox the sun is up for half a day, and some minutes by refraction.
        let rise = oslo("sunrise").next(at("2026-03-20T00:00:00Z")).unwrap();
        assert!((at("2026-03-20T05:15:00Z")..at("2026-03-20T05:25:00Z")).contains(&rise), "{rise}");
    }

    #[test]
    fn a_chain_has_one_event_a_day() {
        for (name, _) in EVENTS.iter().skip(3).take(3) {
            let sun = oslo(name);
            let mut due = sun.next(at("2026-01-01T00:00:00Z")).unwrap();
            for _ in 0..370 {
                let next = sun.next(due).unwrap();
                let hours = (next - due).num_minutes();
                assert!((1430..1450).contains(&hours), "{name} {due} {next}");
                assert_eq!(sun.latest(due, next), Some(next));
                assert_eq!(sun.latest(due, next - chrono::TimeDelta::seconds(1)), None);
                due = next;
            }
        }
    }

    #[test]
    fn the_pole_has_one_sunrise_a_year() {
        let sun = Solar::new("sunrise", 90.0, 0.0).unwrap();
        let first = sun.next(at("2026-01-01T00:00:00Z")).unwrap();
        let second = sun.next(first).unwrap();
        assert!((360..370).contains(&(second - first).num_days()), "{first} {second}");
        assert_eq!(sun.latest(first, second - chrono::TimeDelta::days(1)), None);
    }

    #[test]
    fn errors_say_what_was_expected() {
        let error = |event, lat, lon| Solar::new(event, lat, lon).unwrap_err().to_string();
        assert!(error("noon", 0.0, 0.0).starts_with("solar: found noon, expected one of dawn_"));
        assert_eq!(error("sunset", 90.5, 0.0), "lat: found 90.5, expected -90 to 90");
        assert_eq!(error("sunset", 0.0, -181.0), "lon: found -181, expected -180 to 180");
        assert_eq!(error("sunset", f64::NAN, 0.0), "lat: found NaN, expected -90 to 90");
        assert_eq!(oslo("sunset").to_string(), "sunset at 59.9, 10.7");
    }
}
