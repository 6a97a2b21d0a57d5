//! Which time zone rules apply: the host's, or the built-in ones if the host has none.

use crate::config::Diagnostic;
use crate::config::diagnostic::Weight;
use crate::config::zone::{BUILT_IN, Zone};
use crate::os::zoneinfo;
use crate::schedule::rules::{HostZones, Rules};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The host's zones, each read when it is asked for first, and what is wrong with them.
#[derive(Debug)]
pub(in crate::cli) struct Zones {
    folder: Option<PathBuf>,
    known: RefCell<HashMap<Zone, Option<Arc<Rules>>>>,
    faults: RefCell<Vec<Diagnostic>>,
}

impl Zones {
    /// As they are now; nothing is read yet.
    pub(in crate::cli) fn of_host() -> Zones {
        Zones {
            folder: zoneinfo::folder(std::env::var_os("TZDIR")),
            known: RefCell::default(),
            faults: RefCell::default(),
        }
    }

    /// What was wrong with those that were asked for: a warning for each.
    pub(in crate::cli) fn faults(&self) -> Vec<Diagnostic> {
        self.faults.borrow().clone()
    }

    /// Where the rules come from, and of which version they are.
    pub(in crate::cli) fn origin(&self) -> (Option<String>, Option<String>) {
        match self.folder.as_ref().filter(|folder| folder.is_dir()) {
            Some(folder) => (Some(folder.display().to_string()), zoneinfo::version(folder)),
            None => (None, Some(BUILT_IN.into())),
        }
    }

    /// The same for a person.
    pub(in crate::cli) fn text(&self) -> String {
        let (folder, version) = self.origin();
        let version = version.unwrap_or_else(|| "(of unknown version)".into());
        let built_in = format!("built in {BUILT_IN}");
        match (folder, &self.folder) {
            (Some(folder), _) => format!("{folder} {version}; what it lacks: {built_in}"),
            (None, Some(wrong)) => format!("{built_in} (no folder {})", wrong.display()),
            (None, None) => built_in,
        }
    }

    /// The same for a program.
    pub(in crate::cli) fn json(&self) -> Value {
        let (folder, version) = self.origin();
        json!({"folder": folder, "version": version, "built_in": BUILT_IN})
    }
}

/// Says of names that are no time zones of ours which of them the host knows.
pub(in crate::cli) fn name_foreign(found: &mut [Diagnostic]) {
    let mut unknown = found.iter_mut().filter(|fault| fault.zone.is_some()).peekable();
    if unknown.peek().is_none() {
        return;
    }
    let Some(folder) = zoneinfo::folder(std::env::var_os("TZDIR")) else { return };
    let file = |name: &str| {
        let read = zoneinfo::read(&folder, name).ok();
        read.filter(|bytes| bytes.starts_with(b"TZif"))
    };
    for fault in unknown {
        let Some(bytes) = fault.zone.as_deref().and_then(file) else { continue };
        fault.message += ", a time zone that this host knows and qworker does not";
        if fault.hint.is_none() {
            let same = |zone: &Zone| file(zone.name()).is_some_and(|other| other == bytes);
            fault.hint = Zone::all().find(same).map(|zone| zone.name().into());
        }
    }
}

impl HostZones for Zones {
    fn rules(&self, zone: Zone) -> Option<Arc<Rules>> {
        // Of UTC there is nothing to know.
        let folder = self.folder.as_ref().filter(|_| zone != Zone::UTC)?;
        if let Some(known) = self.known.borrow().get(&zone) {
            return known.clone();
        }
        let read = zoneinfo::read(folder, zone.name()).map_err(|error| error.to_string());
        let rules = read.and_then(|bytes| Rules::read(&bytes)).map(Arc::new);
        let rules = rules.map_err(|why| {
            let path = folder.join(zone.name()).display().to_string();
            let why = format!("{why}; the built-in rules ({BUILT_IN}) hold for this zone");
            let fault = Diagnostic::new(&path, None, why);
            self.faults.borrow_mut().push(Diagnostic { weight: Weight::Warning, ..fault });
        });
        self.known.borrow_mut().insert(zone, rules.clone().ok());
        rules.ok()
    }
}
