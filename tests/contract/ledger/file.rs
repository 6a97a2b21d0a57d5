//! Files of ledgers that are damaged, gone, or cannot be used. A damaged one is replaced with one
//! warning; what cannot be used is an error that names it, until it can be.

use super::*;
use qworker::broker::ledger::{peek, refusal};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Where a file says that it is a beat's.
pub(super) const ID: Range<usize> = 68..72;

/// A name, and what is done to a file.
type Case<'a> = (&'a str, &'a dyn Fn(&Path));

/// What is logged on this thread, from warnings on.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

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
    pub(super) fn lines(&self) -> Vec<String> {
        let text = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(text).unwrap().lines().map(str::to_string).collect()
    }

    /// The only line since this was last called.
    pub(super) fn line(&self) -> String {
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

/// A ledger in a file, and its messages in another one.
pub(super) struct Fixture {
    pub(super) folder: tempfile::TempDir,
    site: Sqlite,
    pub(super) log: Log,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        let (log, guard) = listen();
        Fixture { folder: in_memory(), site: Sqlite::create(), log, _guard: guard }
    }

    pub(super) fn file(&self) -> PathBuf {
        in_folder(&self.folder)
    }

    pub(super) fn open(&self) -> Ledger {
        Ledger::in_file(&self.file(), GROUP, &self.site.client()).unwrap()
    }

    /// Names of what was set aside, without logs.
    pub(super) fn aside(&self) -> Vec<String> {
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
    pub(super) async fn filled(&self) -> Vec<(String, String)> {
        let ledger = self.open();
        let new = |n: usize| step(&id(n), None, Some(&format!("state of {n}")), &[]);
        assert_eq!(outcomes(&ledger, (0..400).map(new).collect()).await.len(), 400);
        let all = sorted(&ledger).await;
        let c = rusqlite::Connection::open(self.file()).unwrap();
        c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        all
    }

    pub(super) fn clear(&self) {
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
        let fixture = Fixture::new();
        fixture.filled().await;
        let whole = fs::read(fixture.file()).unwrap();
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
            fixture.clear();
            make(&fixture.file());
            let ledger = fixture.open();
            assert!(ledger.all().await.unwrap().is_empty());
            let new = vec![step("a", None, Some("1"), &[&id(n)])];
            assert_eq!(outcomes(&ledger, new).await, [StepOutcome::Done]);
            ledger.tend().await.unwrap();
            let line = fixture.log.line();
            assert!(line.contains("set aside as") && line.contains(why), "{line}");
            let aside = fixture.aside();
            assert_eq!(aside.len(), n + 1, "{aside:?}");
            assert!(aside.iter().any(|name| line.contains(name)), "{line}: {aside:?}");
            let again = fixture.open().read(vec!["a".into()]).await.unwrap();
            assert_eq!(again, [Some("1".to_string())], "the new file keeps it");
            assert_eq!(fixture.messages().await, n + 1);
        }
        assert!(fixture.log.lines().is_empty());
    });
}

#[test]
fn what_is_not_recognisably_a_beats_stays_as_it_is() {
    block_on(async {
        let fixture = Fixture::new();
        fixture.filled().await;
        let whole = fs::read(fixture.file()).unwrap();
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
            fixture.clear();
            make(&fixture.file());
            let before = fixture.files();
            let why = refusal(&fixture.file()).unwrap();
            assert!(why.contains(&format!("found {what}")) || why.contains(what), "{why}");
            let error = peek(&fixture.file(), GROUP, &["a".into()]).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            // Nor does a beat use it.
            let opened = Ledger::in_file(&fixture.file(), GROUP, &fixture.site.client());
            let error = opened.err().unwrap().to_string();
            let path = fixture.file().display().to_string();
            assert!(error.contains(&path) && error.contains(what), "{error}");
            assert_eq!(fixture.files(), before, "{what}");
            assert!(fixture.log.lines().is_empty());
        }
    });
}

/// What is written over a beat's file while it is used stays.
#[test]
fn written_over_in_use_it_is_not_set_aside() {
    block_on(async {
        let fixture = Fixture::new();
        let all = fixture.filled().await;
        let (ledger, other) = (fixture.open(), fixture.open());
        assert_eq!(sorted(&ledger).await, all);
        let text = "text ".repeat(10_000);
        fs::write(fixture.file(), &text).unwrap();
        // What others change makes it read the file again.
        let _ = other.commit(vec![step("b", None, Some("1"), &[])]).await;
        let _ = ledger.all().await;
        drop((ledger, other));
        assert_eq!(fixture.aside(), [""; 0]);
    });
}

/// The disk or the permission is gone for a while; then everything continues.
#[test]
fn replaced_by_something_else_in_use_it_is_an_error_until_it_can_be_used() {
    block_on(async {
        let fixture = Fixture::new();
        fixture.filled().await;
        let ledger = fixture.open();
        fixture.clear();
        fs::write(fixture.file(), "text ".repeat(1000)).unwrap();
        let new = || vec![step("a", None, Some("1"), &["a"])];
        for _ in 0..5 {
            let error = ledger.commit(new()).await.unwrap_err().to_string();
            let path = fixture.file().display().to_string();
            assert!(error.starts_with(&path) && error.contains("found a text"), "{error}");
            ledger.tend().await.unwrap_err();
        }
        assert_eq!((fixture.messages().await, fixture.files().len()), (0, 1));
        fixture.clear();
        assert_eq!(outcomes(&ledger, new()).await, [StepOutcome::Done]);
        assert_eq!(fixture.messages().await, 1);
        assert!(fixture.log.lines().is_empty() && fixture.aside().is_empty());
    });
}

#[test]
fn a_file_of_an_earlier_version_is_used_and_gets_its_id() {
    block_on(async {
        let fixture = Fixture::new();
        let all = fixture.filled().await;
        let mut bytes = fs::read(fixture.file()).unwrap();
        bytes[ID].fill(0);
        fixture.clear();
        fs::write(fixture.file(), &bytes).unwrap();
        let (name, state) = &all[7];
        let found = peek(&fixture.file(), GROUP, std::slice::from_ref(name)).unwrap();
        assert_eq!(found, [Some(state.clone())]);
        assert_eq!(fs::read(fixture.file()).unwrap(), bytes, "who looks writes nothing");
        assert_eq!(fixture.files().len(), 1, "nor makes anything");
        assert_eq!(sorted(&fixture.open()).await, all);
        assert_eq!(&fs::read(fixture.file()).unwrap()[ID], b"qwBt");
        // An empty file may be used.
        fixture.clear();
        fs::write(fixture.file(), "").unwrap();
        assert_eq!(refusal(&fixture.file()), None);
        assert!(sorted(&fixture.open()).await.is_empty());
        assert_eq!(&fs::read(fixture.file()).unwrap()[ID], b"qwBt");
        assert!(fixture.log.lines().is_empty() && fixture.aside().is_empty());
    });
}

/// Tables with sums and owners of messages.
#[test]
fn the_tables_of_an_earlier_version_are_taken_over() {
    block_on(async {
        let fixture = Fixture::new();
        let c = rusqlite::Connection::open(fixture.file()).unwrap();
        c.execute_batch(
            "CREATE TABLE beat_entry (
                 grp TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, sum INTEGER NOT NULL,
                 PRIMARY KEY (grp, name)
             ) WITHOUT ROWID;
             CREATE TABLE beat_outbox (
                 id INTEGER NOT NULL PRIMARY KEY, grp TEXT NOT NULL, owner TEXT NOT NULL,
                 at REAL NOT NULL, token TEXT NOT NULL UNIQUE, messages TEXT NOT NULL,
                 sum INTEGER NOT NULL
             );
             PRAGMA user_version = 7173217;
             INSERT INTO beat_entry VALUES ('beat', 'a', '1', 5), ('other', 'b', '2', 6);
             INSERT INTO beat_outbox VALUES
                 (7, 'beat', 'x', 1.5, 'token', '[[\"celery\",\"id\",0,null,\"{}\"]]', 8);",
        )
        .unwrap();
        drop(c);
        let bytes = fs::read(fixture.file()).unwrap();
        let found = peek(&fixture.file(), GROUP, &["a".into()]).unwrap();
        assert_eq!(found, [Some("1".to_string())]);
        assert_eq!(fs::read(fixture.file()).unwrap(), bytes, "who looks writes nothing");
        let ledger = fixture.open();
        assert_eq!(sorted(&ledger).await, [("a".to_string(), "1".to_string())]);
        ledger.tend().await.unwrap();
        assert_eq!(fixture.messages().await, 1, "what waited is published");
        let next = vec![step("a", Some("1"), Some("2"), &["a"])];
        assert_eq!(outcomes(&ledger, next).await, [StepOutcome::Done]);
        drop(ledger);
        assert_eq!(sorted(&fixture.open()).await, [("a".to_string(), "2".to_string())]);
        assert_eq!(fixture.messages().await, 2);
        assert!(fixture.log.lines().is_empty() && fixture.aside().is_empty());
    });
}

#[test]
fn who_only_looks_sets_nothing_aside() {
    block_on(async {
        let fixture = Fixture::new();
        fixture.filled().await;
        let whole = fs::read(fixture.file()).unwrap();
        fixture.clear();
        fs::write(fixture.file(), &whole[..9000]).unwrap();
        let before = fixture.files();
        let error = peek(&fixture.file(), GROUP, &["a".into()]).unwrap_err().to_string();
        let path = fixture.file().display().to_string();
        assert!(error.starts_with(&format!("{path} is damaged (")), "{error}");
        assert_eq!(fixture.files(), before);
        // What is in the log alone is seen too.
        fixture.clear();
        let ledger = fixture.open();
        let new = vec![step("a", None, Some("1"), &[])];
        assert_eq!(outcomes(&ledger, new).await, [StepOutcome::Done]);
        assert_eq!(peek(&fixture.file(), GROUP, &["a".into()]).unwrap(), [Some("1".to_string())]);
        drop(ledger);
        let log = fixture.folder.path().join("beat.sqlite-wal");
        assert_eq!(fs::metadata(log).unwrap().len(), 0, "the log is moved to the file at the end");
        fs::remove_file(fixture.folder.path().join("beat.sqlite-wal")).unwrap();
        assert_eq!(peek(&fixture.file(), GROUP, &["a".into()]).unwrap(), [Some("1".to_string())]);
    });
}

#[test]
fn damaged_in_use_it_is_replaced_with_one_warning() {
    block_on(async {
        let fixture = Fixture::new();
        fixture.filled().await;
        let ledger = fixture.open();
        let other = fixture.open();
        let size = fs::metadata(fixture.file()).unwrap().len();
        let mut file = fs::OpenOptions::new().write(true).open(fixture.file()).unwrap();
        for page in 1..size / 4096 {
            file.seek(SeekFrom::Start(page * 4096)).unwrap();
            file.write_all(&[0xa5; 4096]).unwrap();
        }
        // A change of others makes it read the file again.
        assert_eq!(
            outcomes(&other, vec![step("b", None, Some("1"), &[])]).await,
            [StepOutcome::Done]
        );
        assert!(ledger.all().await.unwrap().is_empty());
        let new = vec![step("a", None, Some("1"), &["a"])];
        assert_eq!(outcomes(&ledger, new.clone()).await, [StepOutcome::Done]);
        // The other beat has the old file open, and sees that there is a new one.
        assert_eq!(outcomes(&other, new).await, [conflict(Some("1"))]);
        assert_eq!(fixture.messages().await, 1);
        assert!(fixture.log.line().contains("set aside as"));
        assert_eq!(fixture.aside().len(), 1);
    });
}

#[test]
fn removed_in_use_it_is_begun_anew() {
    block_on(async {
        let fixture = Fixture::new();
        fixture.filled().await;
        let ledger = fixture.open();
        assert_eq!(ledger.all().await.unwrap().len(), 400);
        fs::remove_file(fixture.file()).unwrap();
        assert_eq!(
            outcomes(&ledger, vec![step("a", None, Some("1"), &["a"])]).await,
            [StepOutcome::Done]
        );
        assert_eq!(sorted(&fixture.open()).await, [("a".to_string(), "1".to_string())]);
        assert_eq!(fixture.messages().await, 1);
        assert!(fixture.log.line().contains("was removed or replaced"));
    });
}

#[test]
fn where_there_can_be_no_file_the_error_names_it() {
    let fixture = Fixture::new();
    let blocked = fixture.folder.path().join("file");
    fs::write(&blocked, "").unwrap();
    for path in [blocked.join("beat.sqlite"), PathBuf::from("/dev/null")] {
        let opened = Ledger::in_file(&path, GROUP, &fixture.site.client());
        let error = opened.err().unwrap().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    }
    assert!(fixture.log.lines().is_empty());
}

#[test]
fn a_locked_file_is_waited_for() {
    block_on(async {
        let fixture = Fixture::new();
        let all = fixture.filled().await;
        let locker = rusqlite::Connection::open(fixture.file()).unwrap();
        locker.execute_batch("BEGIN IMMEDIATE").unwrap();
        let ledger = fixture.open();
        let new = vec![step("a", None, Some("1"), &["a"])];
        for _ in 0..2 {
            let error = ledger.commit(new.clone()).await.unwrap_err();
            assert!(error.to_string().contains("locked"), "{error}");
        }
        assert!(ledger.all().await.is_err());
        locker.execute_batch("ROLLBACK").unwrap();
        assert_eq!(sorted(&ledger).await, all);
        assert_eq!(outcomes(&ledger, new).await, [StepOutcome::Done]);
        assert!(fixture.log.lines().is_empty() && fixture.aside().is_empty());
        assert_eq!(fixture.messages().await, 1);
    });
}

#[test]
fn the_brokers_file_is_never_set_aside() {
    block_on(async {
        let fixture = Fixture::new();
        let client = fixture.site.client();
        let ledger = Ledger::in_file(Path::new(&fixture.site.address()), GROUP, &client);
        assert!(matches!(ledger, Ok(Ledger::Sqlite(_))));
    });
}
