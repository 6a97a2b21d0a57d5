//! The kinds of values that the settings of beat have.

use super::diagnostic::{Faults, nearest};
use super::kind::{ValueKind, kind};
use super::node::{Data, YamlNode, quote};
use super::zone::Zone;

/// What happens to local times that do not exist, or exist twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DstRule {
    /// Each fixed time once a day.
    #[default]
    Once,
    /// As Celery computes it.
    Celery,
}

/// What a crontab with a day of the month and a day of the week means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaysRule {
    /// Both must hold, as in Celery.
    And,
    /// One is enough, as in Vixie's cron.
    Or,
}

kind!(
    /// `beat_dst`.
    Dst: DstRule, "once or celery",
    |node| match node.as_text() {
        Some("once") => Some(DstRule::Once),
        Some("celery") => Some(DstRule::Celery),
        _ => None,
    },
    |rule| match rule { DstRule::Once => "once".into(), DstRule::Celery => "celery".into() }
);
kind!(
    /// `beat_days`.
    Days: DaysRule, "and or or",
    |node| match node.as_text() {
        Some("and") => Some(DaysRule::And),
        Some("or") => Some(DaysRule::Or),
        _ => None,
    },
    |rule| match rule { DaysRule::And => "and".into(), DaysRule::Or => "or".into() }
);

/// A time zone of the IANA database; null is UTC, as it is for Celery.
#[derive(Debug)]
pub struct ZoneName;

impl ValueKind for ZoneName {
    type Value = Zone;
    const EXPECTED: &'static str = "a time zone such as UTC or Europe/Oslo";

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Zone> {
        if node.is_null() {
            return Some(Zone::UTC);
        }
        let text = node.as_text().unwrap_or_default();
        let zone = Zone::named(text);
        if zone.is_none() {
            let near = nearest_zones(text).join(" or ");
            let fault = faults.add(node.line, format!("found {}", node.found()));
            fault.expected = Some(Self::EXPECTED.into());
            fault.hint = Some(near).filter(|near| !near.is_empty());
            fault.zone = Some(text.into());
        }
        zone
    }

    fn write(value: &Zone) -> String {
        quote(value.name())
    }
}

/// The names of up to three zones that somebody who wrote `name` may have meant.
pub fn nearest_zones(name: &str) -> Vec<&'static str> {
    let city = |name: &str| name.rsplit('/').next().unwrap_or_default().to_lowercase();
    let wanted = name.trim().replace(' ', "_");
    let names = || Zone::all().map(Zone::name);
    let mut found: Vec<&'static str> = names()
        .filter(|zone| !wanted.is_empty() && city(zone) == city(&wanted))
        .chain(nearest(&wanted, names(), 3))
        .collect();
    if found.is_empty() {
        let cities: Vec<(String, &'static str)> = names().map(|zone| (city(zone), zone)).collect();
        let near = nearest(&city(&wanted), cities.iter().map(|(city, _)| city.as_str()), 3);
        let of = |near: &str| cities.iter().find(|(city, _)| city == near).map(|(_, zone)| *zone);
        found.extend(near.into_iter().filter_map(of));
    }
    let mut once: Vec<&'static str> = Vec::new();
    for zone in found {
        if !once.contains(&zone) {
            once.push(zone);
        }
    }
    once.truncate(3);
    once
}

/// The value of `beat_schedule`: as it is written, for what it means depends on other settings.
#[derive(Debug, Clone, Default)]
pub struct BeatSchedule {
    /// Where it is written: a file, or `environment`, or `command line`.
    pub file: String,
    /// A mapping of names to entries; `None` if nobody said anything.
    pub entries: Option<YamlNode>,
}

impl ValueKind for BeatSchedule {
    type Value = BeatSchedule;
    const EXPECTED: &'static str = "a mapping of names to entries";
    const NESTED: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<BeatSchedule> {
        match &node.data {
            Data::Map(_) => {
                Some(BeatSchedule { file: faults.file().into(), entries: Some(node.clone()) })
            }
            _ if node.is_null() => Some(BeatSchedule::default()),
            _ => Self::mismatch(node, faults),
        }
    }

    fn write(value: &BeatSchedule) -> String {
        // JSON is YAML too.
        value.entries.as_ref().map_or("{}".into(), |node| node.to_json().to_string())
    }

    /// The names alone: arguments may be secret.
    fn show(value: &BeatSchedule) -> String {
        let Some(YamlNode { data: Data::Map(map), .. }) = &value.entries else {
            return "{}".into();
        };
        let names: Vec<String> =
            map.iter().map(|(name, _)| format!("{}: ...", quote(&name.text))).collect();
        format!("{{{}}}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::parse;

    #[test]
    fn zones_and_what_was_meant() {
        let read = |text: &str| {
            let mut faults = Faults::new("q.yaml");
            let zone = ZoneName::read(&parse("q.yaml", text).0.unwrap(), &mut faults);
            (zone, faults.into_vec().iter().map(|fault| fault.to_string()).collect::<String>())
        };
        for name in
            ["UTC", "Europe/Oslo", "GMT+0", "Etc/GMT-3", "EST5EDT", "America/Argentina/Ushuaia"]
        {
            assert_eq!(read(name).0.unwrap().name(), name);
        }
        assert_eq!(read("null").0, Some(Zone::UTC));
        let cases = [
            ("Europe/Olso", "Europe/Oslo"),
            ("Seoul", "Asia/Seoul"),
            ("europe/oslo", "Europe/Oslo"),
            ("America/New York", "America/New_York"),
            ("Berlim", "Europe/Berlin"),
        ];
        for (wrong, hint) in cases {
            let said = read(wrong).1;
            let begin = format!("q.yaml:1: found text {wrong:?}, expected a time zone such as");
            assert!(said.starts_with(&begin) && said.contains(hint), "{said}");
        }
        for wrong in ["5", "''", "[a]", "+02:00", "xxxxxxxxxxx"] {
            let (zone, said) = read(wrong);
            assert!(zone.is_none() && said.contains("expected a time zone"), "{wrong}: {said}");
        }
    }
}
