//! Files of ledgers with every kind of damage: a beat begins with any of them.

use super::file::{Fixture, ID};
use super::*;
use std::fs;

#[test]
fn cut_off_anywhere_it_is_set_aside_or_whole() {
    block_on(async {
        let fixture = Fixture::new();
        let all = fixture.filled().await;
        let whole = fs::read(fixture.file()).unwrap();
        let mut aside = 0;
        // Shorter it says nobody whose it was.
        for length in (ID.end..whole.len()).step_by(whole.len() / 60) {
            aside += usize::from(survives(&fixture, &all, &whole[..length]).await);
        }
        assert!(aside > 50, "{aside}");
    });
}

#[test]
fn a_flipped_bit_stops_no_beat() {
    block_on(async {
        let fixture = Fixture::new();
        let all = fixture.filled().await;
        let whole = fs::read(fixture.file()).unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        let mut aside = 0;
        for n in 0..1500 {
            let mut bytes = whole.clone();
            // Every bit of the header, then anywhere.
            let at = if n < 100 { n } else { random.usize(0..bytes.len()) };
            bytes[at] ^= 1 << random.u8(0..8);
            aside += usize::from(survives(&fixture, &all, &bytes).await);
        }
        assert!(aside > 50, "{aside}");
    });
}

/// A beat begins with this file. It is set aside with one warning, and the beat has no values; or it
/// is used, and has all values. SQLite knows damage of its pages, and not of a text in them: one
/// value may be another one then. Returns whether the file was set aside.
async fn survives(fixture: &Fixture, all: &[(String, String)], bytes: &[u8]) -> bool {
    // The one before may still be open.
    fixture.clear();
    let before = fixture.aside().len();
    fs::write(fixture.file(), bytes).unwrap();
    let ledger = fixture.open();
    let found = sorted(&ledger).await;
    let (name, _) = &all[7];
    let known = found.iter().find(|(found, _)| found == name).map(|(_, state)| state.as_str());
    let said = outcomes(&ledger, vec![step(name, known, Some("next"), &["a"])]).await;
    assert_eq!(said, [StepOutcome::Done]);
    let aside = fixture.aside().len() - before;
    if aside == 0 {
        let same = found.iter().filter(|value| all.contains(value)).count();
        assert!(same + 1 >= all.len(), "{same} values: {:?}", fixture.log.lines());
        assert_eq!(fixture.log.lines(), [""; 0]);
    } else {
        assert!(found.is_empty() && aside == 1, "{aside}");
        fixture.log.line();
    }
    for name in fixture.aside() {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(fixture.folder.path().join(format!("{name}{end}")));
        }
    }
    aside == 1
}
