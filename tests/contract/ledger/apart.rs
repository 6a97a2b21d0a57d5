//! Files of ledgers that are damaged, gone, or cannot be had: a beat goes on, and says so once.

use super::*;
use qworker::broker::ledger::{peek, refusal};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Where a file says that it is a beat's.
const ID: Range<usize> = 68..72;

/// A name, and what is done to a file.
type Case<'a> = (&'a str, &'a dyn Fn(&Path));

/// What is logged on this thread, from warnings on.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines since this was last called.
    fn lines(&self) -> Vec<String> {
        let text = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(text).unwrap().lines().map(str::to_string).collect()
    }

    /// The only line since this was last called.
    fn line(&self) -> String {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }
}

fn listen() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let to = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || to.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

/// A folder that no disk has to sync, if there is one: some of these tests make a thousand files.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A ledger in a file, its messages in another one.
struct Desk {
    folder: tempfile::TempDir,
    site: Sqlite,
    log: Log,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Desk {
    fn new() -> Desk {
        let (log, guard) = listen();
        Desk { folder: in_memory(), site: Sqlite::create(), log, _guard: guard }
    }

    fn file(&self) -> PathBuf {
        in_folder(&self.folder)
    }

    fn open(&self) -> Ledger {
        Ledger::apart(&self.file(), GROUP, &self.site.client())
    }

    /// Names of what was set aside, without logs.
    fn aside(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names
            .filter(|name| name.contains(".damaged-"))
            .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
            .collect();
        names.sort();
        names
    }

    /// A file with some hundred values, closed.
    async fn filled(&self) -> Vec<(String, String)> {
        let ledger = self.open();
        let new = |n: usize| step(&id(n), None, Some(&format!("state of {n}")), &[]);
        assert_eq!(outcomes(&ledger, (0..400).map(new).collect()).await.len(), 400);
        let all = sorted(&ledger).await;
        let c = rusqlite::Connection::open(self.file()).unwrap();
        c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        all
    }

    fn clear(&self) {
        let _ = fs::remove_dir(self.file());
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{end}", self.file().display()));
        }
    }

    /// All that is there, and what is in it.
    fn files(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let paths = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).ok())).collect();
        all.sort();
        all
    }

    async fn messages(&self) -> usize {
        self.site
            .client()
            .admin()
            .queues()
            .await
            .unwrap()
            .iter()
            .map(|queue| queue.ready as usize)
            .sum()
    }
}

#[test]
fn one_of_a_beat_that_is_damaged_is_set_aside_with_one_warning() {
    block_on(async {
        let desk = Desk::new();
        desk.filled().await;
        let whole = fs::read(desk.file()).unwrap();
        assert_eq!(&whole[ID], b"qwBt");
        let cases: [Case; 4] = [
            ("form", &|file| fs::write(file, [&[b'x'; 68], &whole[68..]].concat()).unwrap()),
            ("too short", &|file| fs::write(file, &whole[..72]).unwrap()),
            ("", &|file| fs::write(file, [&whole[..100], &[7; 5000]].concat()).unwrap()),
            // As earlier versions made it.
            ("", &|file| {
                fs::write(file, [&whole[..68], &[0; 4], &whole[72..9000]].concat()).unwrap()
            }),
        ];
        for (n, (why, make)) in cases.iter().enumerate() {
            desk.clear();
            make(&desk.file());
            let ledger = desk.open();
            assert!(ledger.all().await.unwrap().is_empty());
            let new = vec![step("a", None, Some("1"), &[&id(n)])];
            assert_eq!(outcomes(&ledger, new).await, [Outcome::Done]);
            ledger.tend().await.unwrap();
            let line = desk.log.line();
            assert!(line.contains("set aside as") && line.contains(why), "{line}");
            let aside = desk.aside();
            assert_eq!(aside.len(), n + 1, "{aside:?}");
            assert!(aside.iter().any(|name| line.contains(name)), "{line}: {aside:?}");
            let again = desk.open().read(vec!["a".into()]).await.unwrap();
            assert_eq!(again, [Some("1".to_string())], "the new file keeps it");
            assert_eq!(desk.messages().await, n + 1);
        }
        assert!(desk.log.lines().is_empty());
    });
}

#[test]
fn what_is_not_recognisably_a_beats_stays_as_it_is() {
    block_on(async {
        let desk = Desk::new();
        desk.filled().await;
        let whole = fs::read(desk.file()).unwrap();
        let sql = |file: &Path, text: &str| {
            rusqlite::Connection::open(file).unwrap().execute_batch(text).unwrap();
        };
        let people = "CREATE TABLE people (name); INSERT INTO people VALUES ('Ann')";
        let cases: [Case; 10] = [
            ("a text", &|file| fs::write(file, "text ".repeat(1000)).unwrap()),
            ("a folder", &|file| fs::create_dir(file).unwrap()),
            ("a file of another program (8192 bytes)", &|file| {
                fs::write(file, [0; 8192]).unwrap();
            }),
            ("a damaged SQLite database", &|file| fs::write(file, &whole[..16]).unwrap()),
            ("a damaged SQLite database", &|file| {
                fs::write(file, [&b"SQLite format 3\0"[..], &[7; 5000]].concat()).unwrap();
            }),
            ("an empty file with the log", &|file| {
                fs::write(file, "").unwrap();
                fs::write(file.with_extension("sqlite-wal"), "x").unwrap();
            }),
            ("(with the table people)", &|file| sql(file, people)),
            ("(with the tables", &|file| {
                fs::write(file, [&whole[..68], &[0; 4], &whole[72..]].concat()).unwrap();
                sql(file, people);
            }),
            ("(with the table people)", &|file| {
                sql(file, &format!("PRAGMA journal_mode = WAL; {people}"));
            }),
            ("a damaged SQLite database", &|file| {
                sql(file, people);
                let bytes = fs::read(file).unwrap();
                fs::write(file, [&bytes[..100], &[7; 5000]].concat()).unwrap();
            }),
        ];
        for (what, make) in cases {
            desk.clear();
            make(&desk.file());
            let before = desk.files();
            let why = refusal(&desk.file()).unwrap();
            assert!(why.contains(&format!("found {what}")) || why.contains(what), "{why}");
            let error = peek(&desk.file(), GROUP, &["a".into()]).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            // A beat in whose file's place it comes goes on without.
            let ledger = desk.open();
            let new = vec![step("a", None, Some("1"), &[])];
            assert_eq!(outcomes(&ledger, new).await, [Outcome::Done]);
            let line = desk.log.line();
            assert!(line.contains("cannot be used") && line.contains(what), "{line}");
            drop(ledger);
            assert_eq!(desk.files(), before, "{what}");
        }
    });
}

/// A beat's file is opened anew in the middle of its use: what was written over it stays.
#[test]
fn written_over_in_use_it_is_not_set_aside() {
    block_on(async {
        let desk = Desk::new();
        let all = desk.filled().await;
        let (ledger, other) = (desk.open(), desk.open());
        assert_eq!(sorted(&ledger).await, all);
        let text = "text ".repeat(10_000);
        fs::write(desk.file(), &text).unwrap();
        // What others change makes it read the file again.
        let _ = other.commit(vec![step("b", None, Some("1"), &[])]).await;
        let _ = ledger.all().await;
        drop((ledger, other));
        assert_eq!(desk.aside(), [""; 0]);
    });
}

#[test]
fn a_file_of_an_earlier_version_is_used_and_gets_its_id() {
    block_on(async {
        let desk = Desk::new();
        let all = desk.filled().await;
        let mut bytes = fs::read(desk.file()).unwrap();
        bytes[ID].fill(0);
        desk.clear();
        fs::write(desk.file(), &bytes).unwrap();
        let (name, state) = &all[7];
        let found = peek(&desk.file(), GROUP, std::slice::from_ref(name)).unwrap();
        assert_eq!(found, [Some(state.clone())]);
        assert_eq!(fs::read(desk.file()).unwrap(), bytes, "who looks writes nothing");
        assert_eq!(desk.files().len(), 1, "nor makes anything");
        assert_eq!(sorted(&desk.open()).await, all);
        assert_eq!(&fs::read(desk.file()).unwrap()[ID], b"qwBt");
        // One that has nothing may be anybody's who wants it.
        desk.clear();
        fs::write(desk.file(), "").unwrap();
        assert_eq!(refusal(&desk.file()), None);
        assert!(sorted(&desk.open()).await.is_empty());
        assert_eq!(&fs::read(desk.file()).unwrap()[ID], b"qwBt");
        assert!(desk.log.lines().is_empty() && desk.aside().is_empty());
    });
}

#[test]
fn who_only_looks_sets_nothing_aside() {
    block_on(async {
        let desk = Desk::new();
        desk.filled().await;
        let whole = fs::read(desk.file()).unwrap();
        desk.clear();
        fs::write(desk.file(), &whole[..9000]).unwrap();
        let before = desk.files();
        let error = peek(&desk.file(), GROUP, &["a".into()]).unwrap_err().to_string();
        let path = desk.file().display().to_string();
        assert!(error.starts_with(&format!("{path} is damaged (")), "{error}");
        assert_eq!(desk.files(), before);
        // What is in the log alone is seen too.
        desk.clear();
        let ledger = desk.open();
        let new = vec![step("a", None, Some("1"), &[])];
        assert_eq!(outcomes(&ledger, new).await, [Outcome::Done]);
        assert_eq!(peek(&desk.file(), GROUP, &["a".into()]).unwrap(), [Some("1".to_string())]);
        drop(ledger);
        let log = desk.folder.path().join("beat.sqlite-wal");
        assert_eq!(fs::metadata(log).unwrap().len(), 0, "the log is moved to the file at the end");
        fs::remove_file(desk.folder.path().join("beat.sqlite-wal")).unwrap();
        assert_eq!(peek(&desk.file(), GROUP, &["a".into()]).unwrap(), [Some("1".to_string())]);
    });
}

#[test]
fn cut_off_anywhere_it_is_set_aside_or_whole() {
    block_on(async {
        let desk = Desk::new();
        let all = desk.filled().await;
        let whole = fs::read(desk.file()).unwrap();
        let mut aside = 0;
        // Shorter it says nobody whose it was.
        for length in (ID.end..whole.len()).step_by(whole.len() / 60) {
            aside += usize::from(survives(&desk, &all, &whole[..length]).await);
        }
        assert!(aside > 50, "{aside}");
    });
}

#[test]
fn a_flipped_bit_is_noticed_or_says_nothing() {
    block_on(async {
        let desk = Desk::new();
        let all = desk.filled().await;
        let whole = fs::read(desk.file()).unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        let mut aside = 0;
        for n in 0..1500 {
            let mut bytes = whole.clone();
            // Every bit of the header, then anywhere.
            let at = if n < 100 { n } else { random.usize(0..bytes.len()) };
            bytes[at] ^= 1 << random.u8(0..8);
            aside += usize::from(survives(&desk, &all, &bytes).await);
        }
        assert!(aside > 500, "{aside}");
    });
}

/// A beat begins with this file: it has all values, or none and one warning; says whether the
/// file was set aside.
async fn survives(desk: &Desk, all: &[(String, String)], bytes: &[u8]) -> bool {
    // The one before may still be open.
    desk.clear();
    let before = desk.aside().len();
    fs::write(desk.file(), bytes).unwrap();
    let ledger = desk.open();
    let found = sorted(&ledger).await;
    let (name, state) = &all[7];
    let expected = (!found.is_empty()).then_some(state.as_str());
    let said = outcomes(&ledger, vec![step(name, expected, Some("next"), &[])]).await;
    assert_eq!(said, [Outcome::Done]);
    let aside = desk.aside().len() - before;
    if aside == 0 {
        assert!(found == all, "{} values: {:?}", found.len(), desk.log.lines());
        assert_eq!(desk.log.lines(), [""; 0]);
    } else {
        assert!(found.is_empty() && aside == 1, "{aside}");
        desk.log.line();
    }
    for name in desk.aside() {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(desk.folder.path().join(format!("{name}{end}")));
        }
    }
    aside == 1
}

#[test]
fn damaged_in_use_it_is_replaced_with_one_warning() {
    block_on(async {
        let desk = Desk::new();
        desk.filled().await;
        let ledger = desk.open();
        let other = desk.open();
        let size = fs::metadata(desk.file()).unwrap().len();
        let mut file = fs::OpenOptions::new().write(true).open(desk.file()).unwrap();
        for page in 1..size / 4096 {
            file.seek(SeekFrom::Start(page * 4096)).unwrap();
            file.write_all(&[0xa5; 4096]).unwrap();
        }
        // A change of others makes it read the file again.
        assert_eq!(outcomes(&other, vec![step("b", None, Some("1"), &[])]).await, [Outcome::Done]);
        assert!(ledger.all().await.unwrap().is_empty());
        let new = vec![step("a", None, Some("1"), &["a"])];
        assert_eq!(outcomes(&ledger, new.clone()).await, [Outcome::Done]);
        // The other beat has the old file open, and sees that there is a new one.
        assert_eq!(outcomes(&other, new).await, [conflict(Some("1"))]);
        assert_eq!(desk.messages().await, 1);
        assert!(desk.log.line().contains("set aside as"));
        assert_eq!(desk.aside().len(), 1);
    });
}

#[test]
fn removed_in_use_it_is_begun_anew() {
    block_on(async {
        let desk = Desk::new();
        desk.filled().await;
        let ledger = desk.open();
        assert_eq!(ledger.all().await.unwrap().len(), 400);
        fs::remove_file(desk.file()).unwrap();
        assert_eq!(
            outcomes(&ledger, vec![step("a", None, Some("1"), &["a"])]).await,
            [Outcome::Done]
        );
        assert_eq!(sorted(&desk.open()).await, [("a".to_string(), "1".to_string())]);
        assert_eq!(desk.messages().await, 1);
        assert!(desk.log.line().contains("was removed or replaced"));
    });
}

#[test]
fn where_there_can_be_no_file_one_goes_on_in_memory_with_one_warning() {
    block_on(async {
        let desk = Desk::new();
        let blocked = desk.folder.path().join("file");
        fs::write(&blocked, "").unwrap();
        let nowhere = blocked.join("beat.sqlite");
        let open = || Ledger::apart(&nowhere, GROUP, &desk.site.client());
        let ledger = open();
        assert!(ledger.all().await.unwrap().is_empty());
        let told =
            vec![step("a", Some("7"), Some("8"), &["a"]), step("b", None, Some("1"), &["b"])];
        let done = Outcome::Done;
        assert_eq!(outcomes(&ledger, told.clone()).await, [done.clone(), done.clone()]);
        assert_eq!(
            outcomes(&ledger, told.clone()).await,
            [conflict(Some("8")), conflict(Some("1"))]
        );
        assert_eq!(
            outcomes(&ledger, vec![step("b", Some("1"), None, &[])]).await,
            std::slice::from_ref(&done)
        );
        assert_eq!(sorted(&ledger).await, [("a".to_string(), "8".to_string())]);
        ledger.tend().await.unwrap();
        assert_eq!(desk.messages().await, 2);
        let line = desk.log.line();
        assert!(line.contains("file/beat.sqlite") && line.contains("memory"), "{line}");
        // One of several, until it is gone.
        let other = open();
        for _ in 0..3 {
            let error = other.commit(told.clone()).await.unwrap_err();
            assert!(error.to_string().starts_with("another beat of this host"), "{error}");
        }
        assert_eq!(desk.messages().await, 2);
        assert!(desk.log.lines().is_empty());
        drop(ledger);
        assert_eq!(outcomes(&other, told.clone()).await, [done.clone(), done]);
        assert!(desk.log.line().contains("memory"));
        // Nor does anybody change a file while it is not what is in force.
        fs::remove_file(&blocked).unwrap();
        let error = open().commit(told).await.unwrap_err();
        assert!(error.to_string().starts_with("another beat of this host"), "{error}");
        // Neither is a device a place for it, nor is it moved.
        let null = Ledger::apart(Path::new("/dev/null"), GROUP, &desk.site.client());
        if null.all().await.is_ok() {
            assert!(desk.log.line().contains("/dev/null"));
        }
    });
}

#[test]
fn a_locked_file_is_waited_for() {
    block_on(async {
        let desk = Desk::new();
        let all = desk.filled().await;
        let locker = rusqlite::Connection::open(desk.file()).unwrap();
        locker.execute_batch("BEGIN IMMEDIATE").unwrap();
        let began = std::time::Instant::now();
        let ledger = desk.open();
        let new = vec![step("a", None, Some("1"), &["a"])];
        for _ in 0..2 {
            let error = ledger.commit(new.clone()).await.unwrap_err();
            assert!(error.to_string().contains("locked"), "{error}");
        }
        assert!(ledger.all().await.is_err());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        locker.execute_batch("ROLLBACK").unwrap();
        assert_eq!(sorted(&ledger).await, all);
        assert_eq!(outcomes(&ledger, new).await, [Outcome::Done]);
        assert!(desk.log.lines().is_empty() && desk.aside().is_empty());
        assert_eq!(desk.messages().await, 1);
    });
}

#[test]
fn a_file_of_messages_is_nobodys_to_set_aside() {
    block_on(async {
        let desk = Desk::new();
        let client = desk.site.client();
        let ledger = Ledger::apart(Path::new(&desk.site.address()), GROUP, &client);
        assert!(matches!(ledger, Ledger::Sqlite(_)));
    });
}
