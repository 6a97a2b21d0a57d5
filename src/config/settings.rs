//! The settings: one table says of each its name, kind, default and meaning. The typed
//! struct, the reading of every layer, `qworker report` and the shipped `etc/qworker.yaml`
//! all come from that table, so none of them can forget one.

use super::beat::{BeatSchedule, Days, DaysRule, Dst, DstRule, ZoneName};
use super::diagnostic::Faults;
use super::forms::{self, CompressionName, DigestName, Password, SerializerList, SerializerName};
use super::kind::{
    AddressKind, Concurrency, Count, Deliveries, Environment, FilePath, Flag, Keep, Limit, Load,
    Maybe, Pace, Priority, Queue, Reserve, Size, Span, Unregistered, ValueKind, Word,
};
use super::node::YamlNode;
use super::routes::Routes;
use super::transport::{BrokerTransportOptions, ResultTransportOptions};
use super::zone::Zone;
use crate::bounds;
use crate::link::address;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where the value of a setting comes from; a later one wins over an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SettingSource {
    /// Nobody said anything.
    #[default]
    Default,
    /// A settings file.
    File {
        /// Its name.
        file: String,
        /// The line of the setting in it, from 1.
        line: usize,
    },
    /// This environment variable.
    Environment(String),
    /// This option, as `--concurrency`.
    CommandLine(String),
}

impl fmt::Display for SettingSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingSource::Default => write!(out, "default"),
            SettingSource::File { file, line } => write!(out, "{file}:{line}"),
            SettingSource::Environment(name) | SettingSource::CommandLine(name) => {
                write!(out, "{name}")
            }
        }
    }
}

/// One line of `qworker report`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Name of the setting.
    pub name: &'static str,
    /// Its value in YAML, secrets replaced by stars.
    pub value: String,
    /// Where it comes from.
    pub origin: SettingSource,
}

/// One setting of the table.
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it means, in lines of text.
    pub meaning: &'static [&'static str],
    /// What its value has to be.
    pub expected: &'static str,
    /// Is it a list or a mapping?
    pub nested: bool,
    /// May its value hold a secret?
    pub secret: bool,
    /// Reads it; whether that went well.
    pub(super) read: fn(&mut Settings, &YamlNode, &mut Faults) -> bool,
    /// Puts the default back.
    pub(super) reset: fn(&mut Settings),
    /// As YAML, secrets included.
    pub(super) write: fn(&Settings) -> String,
    /// As YAML, secrets replaced.
    pub(super) show: fn(&Settings) -> String,
}

macro_rules! settings {
    ($($(#[doc = $meaning:literal])+ $name:ident: $type:ty, $kind:ty = $default:expr;)+) => {
        /// Every setting, checked, and where each comes from.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $($(#[doc = $meaning])+ pub $name: $type,)+
            pub(super) origins: BTreeMap<&'static str, SettingSource>,
        }

        impl Default for Settings {
            fn default() -> Settings {
                Settings { $($name: $default,)+ origins: BTreeMap::new() }
            }
        }

        /// The settings of this version, in the order of reports.
        pub const TABLE: &[Setting] = &[$(Setting {
            name: stringify!($name),
            meaning: &[$($meaning),+],
            expected: <$kind as ValueKind>::EXPECTED,
            nested: <$kind as ValueKind>::NESTED,
            secret: <$kind as ValueKind>::SECRET,
            read: |settings, node, faults| {
                let value = <$kind as ValueKind>::read(node, faults);
                value.map(|value| settings.$name = value).is_some()
            },
            reset: |settings| settings.$name = $default,
            write: |settings| <$kind as ValueKind>::write(&settings.$name),
            show: |settings| <$kind as ValueKind>::show(&settings.$name),
        }),+];
    };
}

settings! {
    /// The broker that messages are taken from and sent to. Either a file (with three slashes its
    /// path is relative to the application's folder, with four it is absolute), or a Redis server:
    /// redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://…, redis+socket:///PATH.
    broker_url: address::Address, AddressKind = address::Address::new("sqlite:///var/qworker.sqlite");
    /// Where results are stored: null for the broker's own store, sqlite:///… or
    /// db+sqlite:///… for another file, redis://… for a server, disabled:// for nowhere.
    result_backend: Option<address::Address>, Maybe<AddressKind> = None;
    /// How long qworker call and the other commands wait for the broker or the result store to
    /// answer before they give up.
    client_timeout: Duration, Limit = bounds::CLIENT_TIMEOUT;
    /// The serializers that a worker accepts: json, yaml, msgpack, pickle, auth, or their content
    /// types. The data in a pickle is read, its code never runs. auth are signed messages. Messages
    /// in other formats become dead letters.
    accept_content: Vec<String>, SerializerList = vec![forms::DEFAULT.into()];
    /// The serializer of the messages that are sent, unless a call sets its own: json, yaml,
    /// msgpack, pickle or auth. Arguments that it has no form for are refused before anything is sent.
    task_serializer: String, SerializerName = forms::DEFAULT.into();
    /// The compression of the messages that are sent, unless a call sets its own: gzip (zlib),
    /// bzip2 (bzip), xz (lzma), brotli or zstd. null compresses nothing.
    task_compression: Option<String>, Maybe<CompressionName> = None;
    /// The serializer of results, which Python's clients must have set too: json, yaml, msgpack,
    /// pickle or auth. A value that it has no form for is stored as its text.
    result_serializer: String, SerializerName = forms::DEFAULT.into();
    /// The compression of results on Redis, by the names of task_compression. Results in a file are
    /// not compressed, as in Celery.
    result_compression: Option<String>, Maybe<CompressionName> = None;
    /// The serializers of results that are read, as accept_content has them.
    /// null means those of accept_content.
    result_accept_content: Option<Vec<String>>, Maybe<SerializerList> = None;
    /// For auth: the private RSA key that signs messages, a PEM file, relative to the
    /// application's folder.
    security_key: Option<PathBuf>, Maybe<FilePath> = None;
    /// For auth: the password of security_key, if that is encrypted
    /// (QWORKER_SECURITY_KEY_PASSWORD keeps it out of files).
    security_key_password: Option<String>, Maybe<Password> = None;
    /// For auth: the certificate of security_key, a PEM file. Its issuer and serial number name
    /// the sender in each message.
    security_certificate: Option<PathBuf>, Maybe<FilePath> = None;
    /// For auth: the certificates of those whose messages are accepted: a folder of PEM files, or
    /// a pattern such as /etc/qworker/certs/*.pem. They are read at the start and at a reload.
    security_cert_store: Option<PathBuf>, Maybe<FilePath> = None;
    /// For auth: the digest of signatures, sha224, sha256, sha384 or sha512.
    /// All senders and readers must have the same.
    security_digest: String, DigestName = "sha256".into();
    /// For Redis: global_keyprefix is put before every key. Messages that a Python worker has
    /// held for visibility_timeout (3600 s) are redelivered, as Celery's workers do. qworker's own
    /// workers do not need this timeout.
    broker_transport_options: BrokerTransportOptions, BrokerTransportOptions = BrokerTransportOptions::default();
    /// For Redis: global_keyprefix is put before every key of a result, followed by a _
    /// unless it ends in one of : _ - .
    result_backend_transport_options: ResultTransportOptions, ResultTransportOptions = ResultTransportOptions::default();
    /// How long a result is kept.
    /// null or 0 keeps results forever.
    result_expires: Option<Duration>, Keep = Some(Duration::from_secs(86_400));
    /// Store with each result the task's name, arguments, worker, queue
    /// and number of retries.
    result_extended: bool, Flag = false;
    /// Acknowledge a message after its task has run, so that a crash repeats the task; false
    /// acknowledges it before the start: at most once. (Celery's default is false.)
    task_acks_late: bool, Flag = true;
    /// The queue of tasks whose definition and routes name none, and the queue that a worker
    /// without -Q consumes.
    task_default_queue: String, Queue = "celery".into();
    /// The priority of tasks that have none of their own, 0 to 9; higher priorities are served
    /// first. null sends no priority, which is served as 0; on Redis as 9, because Python programs
    /// put messages without a priority there.
    task_default_priority: Option<u8>, Maybe<Priority> = None;
    /// Give the tasks that a task calls, and those that follow it, the priority of its message,
    /// unless they have their own.
    task_inherit_parent_priority: bool, Flag = false;
    /// How often one worker starts tasks of one name at most, unless the task sets its own
    /// limit: 10/s, 5/m, 100/h. null or 0 means no limit.
    task_default_rate_limit: Option<super::units::Rate>, Maybe<Pace> = None;
    /// Store no results, unless a task or its sender asks for them.
    /// Nobody can wait for a task without a result.
    task_ignore_result: bool, Flag = false;
    /// Store the failures of tasks whose results are ignored,
    /// so that they can be looked up.
    task_store_errors_even_if_ignored: bool, Flag = false;
    /// Store the state STARTED when a task starts, at the cost of one more write for each task.
    /// Without it, a running task is reported as PENDING.
    task_track_started: bool, Flag = false;
    /// Kill a task after this time, unless the task sets its own limit: 90 (seconds), 90s, 5m,
    /// 1h30m. null means no limit.
    task_time_limit: Option<Duration>, Maybe<Limit> = None;
    /// Send TERM to a task after this time. It should be shorter than task_time_limit, so that
    /// the task has time to clean up. null means no limit.
    task_soft_time_limit: Option<Duration>, Maybe<Limit> = None;
    /// How many times a message is delivered before it becomes a dead letter (qworker dead
    /// list), if its worker or process keeps dying.
    task_max_deliveries: u32, Deliveries = bounds::DELIVERIES_MAX;
    /// What happens to a task whose name is not in tasks.d. wait leaves it in its queue for other
    /// workers, Python workers included, and counts nothing. dead is for queues that only one
    /// application uses: the task is tried task_max_deliveries times, then becomes a dead letter.
    task_unregistered: super::units::Unregistered, Unregistered = super::units::Unregistered::Wait;
    /// How many bytes are kept of the end of each output stream of a task, unless the task sets
    /// its own limit. Earlier output is read and dropped.
    task_max_output: u64, Size = bounds::OUTPUT_MAX;
    /// Variables for the environment of every task, {NAME: value}. Reports show the values of
    /// a few names that contain no secrets (LANG, PATH), and switches (1, true). Tasks do not inherit
    /// the variables of settings (QWORKER_BROKER_URL); list them here if a task needs them.
    task_env: Vec<(String, String)>, Environment = Vec::new();
    /// Run each task that has resource limits in its own control group (version 2), where the
    /// worker may create one: memory and processes then limit all processes of the task together.
    /// Elsewhere, and with false, each process is limited separately.
    task_cgroups: bool, Flag = true;
    /// Queues and priorities by the name of a task or a pattern: {"media.*": media,
    /// report: {queue: slow, priority: 3}}. An exact name wins, then the first pattern that matches.
    task_routes: Routes, Routes = Routes::default();
    /// How many tasks one worker runs at once.
    /// null or auto is the number of processors, or the processor quota of the control group.
    worker_concurrency: Option<usize>, Concurrency = None;
    /// With --autoscale: slots that were not needed for this long are removed. Slots are added
    /// at once when more tasks wait.
    worker_autoscale_keepalive: Duration, Limit = bounds::AUTOSCALE_KEEPALIVE;
    /// Take no new tasks while less memory than this is free, on the host or within the limit
    /// of a control group around the worker: 500M, or 10%. null disables the check.
    worker_min_free_memory: Option<super::units::Least>, Maybe<Reserve> = None;
    /// Take no new tasks while the host's load average over one minute is above this value.
    /// null disables the check.
    worker_max_load: Option<f64>, Maybe<Load> = None;
    /// Take a message only when a slot is free for it. false prefetches short tasks in bulk,
    /// which is faster, and returns those that did not start.
    worker_disable_prefetch: bool, Flag = false;
    /// How long a warm shutdown waits for running tasks. Then they are sent TERM, 2 s later
    /// KILL, and are returned to the queue. null or 0 waits until they have finished.
    worker_soft_shutdown_timeout: Option<Duration>, Keep = None;
    /// Rename the log file (--logfile) to FILE.1 before it grows larger than this: 50M.
    /// null leaves rotation to other programs, such as logrotate.
    worker_log_max_bytes: Option<u64>, Maybe<Size> = None;
    /// Rotate the log file when it is older than this: 1d.
    /// null never rotates it by age.
    worker_log_max_age: Option<Duration>, Maybe<Limit> = None;
    /// How many rotated log files are kept, FILE.1 to FILE.5.
    /// The oldest one is removed.
    worker_log_backups: u64, Count = bounds::LOG_BACKUPS;
    /// How much memory one WASM instance may use, unless its task sets its own limit.
    /// Language runtimes compiled to WASM need several hundred megabytes.
    wasm_memory: u64, Size = bounds::WASM_MEMORY;
    /// How long the compilation of one WASM module may take.
    /// Compiled modules are cached, so this happens once.
    wasm_compile_timeout: Duration, Limit = bounds::WASM_COMPILE_TIMEOUT;
    /// The folder of compiled WASM modules, relative to the application's folder. It can be
    /// deleted at any time. Anyone who can write to it can run code as the worker.
    wasm_cache_dir: PathBuf, FilePath = PathBuf::from("var/cache/wasm");
    /// The time zone of schedules, by its IANA name: Europe/Oslo.
    /// An entry or a file of entries can set its own.
    timezone: Zone, ZoneName = Zone::UTC;
    /// What qworker beat sends, and when: {NAME: {task: TASK, schedule: WHEN}}; see
    /// qworker-schedule(5). The files schedule.yaml and *.crontab can define more entries.
    beat_schedule: BeatSchedule, BeatSchedule = BeatSchedule::default();
    /// Keep the state of the schedule (what was sent last, what is paused) in this SQLite file,
    /// relative to the application's folder. null keeps it in the broker's store, where all beat
    /// processes share it.
    beat_schedule_filename: Option<PathBuf>, Maybe<FilePath> = None;
    /// How often beat checks its schedule files, what was paused or resumed, and whether the
    /// broker has lost anything. Entries are always sent when they are due. 0 means 1 s.
    beat_max_loop_interval: Duration, Span = Duration::ZERO;
    /// How late an occurrence of a crontab may be sent, unless the entry sets its own grace.
    /// null means no limit.
    beat_cron_starting_deadline: Option<Duration>, Maybe<Span> = None;
    /// What happens when clocks change: once runs each fixed local time once a day, even if it
    /// does not exist or occurs twice; celery computes times as Celery's beat does.
    beat_dst: DstRule, Dst = DstRule::Once;
    /// When a crontab restricts both days of the month and days of the week: and requires both to
    /// match, as Celery does; or requires one of them, as cron does. null is or in crontab files
    /// and and elsewhere; qworker beat check says which applies.
    beat_days: Option<DaysRule>, Maybe<Days> = None;
    /// Beat processes of one group on one broker share the work: any number may run, and each
    /// occurrence is sent once. Each group has its own state.
    beat_group: String, Word = "beat".into();
}

impl Settings {
    /// Where the value of a setting comes from; `Default` for a name that is none.
    pub fn origin(&self, name: &str) -> &SettingSource {
        self.origins.get(name).unwrap_or(&SettingSource::Default)
    }

    /// Every setting with its value and origin, in the order of the table; safe to show.
    pub fn report(&self) -> Vec<Row> {
        let row = |entry: &Setting| Row {
            name: entry.name,
            value: (entry.show)(self),
            origin: self.origin(entry.name).clone(),
        };
        TABLE.iter().map(row).collect()
    }
}

/// The entry of a setting.
pub fn entry(name: &str) -> Option<&'static Setting> {
    TABLE.iter().find(|entry| entry.name == name)
}

/// The text of `etc/qworker.yaml`: every setting with its meaning, commented out at its default.
pub fn reference() -> String {
    let defaults = Settings::default();
    let mut text = String::from(
        "# Settings of qworker. Every line that begins with # and a name is a setting at its\n\
         # default: remove the # to change it. Environment variables (QWORKER_ and the name in\n\
         # upper case) override this file, and the command line overrides both.\n\
         # `qworker check` finds mistakes; `qworker report` shows each value and its source.\n",
    );
    for entry in TABLE {
        text.push('\n');
        for line in entry.meaning {
            text.push_str(&format!("#{line}\n"));
        }
        text.push_str(&format!("#{}: {}\n", entry.name, (entry.write)(&defaults)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::Layers;

    /// The shipped file is the table, word for word. `QWORKER_UPDATE=1` rewrites it.
    #[test]
    fn the_shipped_file_is_the_table() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/qworker.yaml");
        if std::env::var_os("QWORKER_UPDATE").is_some() {
            std::fs::write(file, reference()).unwrap();
        }
        let shipped = std::fs::read_to_string(file).unwrap();
        assert!(shipped == reference(), "etc/qworker.yaml should be:\n{}", reference());
    }

    #[test]
    fn the_shipped_file_without_its_comment_marks_sets_every_default() {
        let shipped = include_str!("../../etc/qworker.yaml");
        let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let text: Vec<&str> =
            shipped.lines().map(|line| if is_setting(line) { &line[1..] } else { line }).collect();
        let text = text.join("\n");
        let (settings, faults) =
            Settings::load(Layers { files: &[("etc/qworker.yaml", &text)], ..Layers::default() });
        assert!(faults.is_empty(), "{faults:?}");
        let defaults = Settings::default();
        for entry in TABLE {
            assert_eq!((entry.write)(&settings), (entry.write)(&defaults), "{}", entry.name);
            let line = match settings.origin(entry.name) {
                SettingSource::File { line, .. } => *line,
                other => panic!("{} is missing from the file: {other}", entry.name),
            };
            assert!(text.lines().nth(line - 1).unwrap().starts_with(entry.name));
            assert!(entry.meaning.len() >= 2, "{} deserves two lines", entry.name);
        }
    }

    #[test]
    fn a_report_shows_everything_but_secrets() {
        let text = "broker_url: sqla+sqlite:////data/x.sqlite\nresult_backend: db+sqlite://me:pw@h/x\n\
                    task_env: {SMTP_PASSWORD: hush, LANG: C, HOOK: 'http://u:pw@h/'}\n";
        let (settings, faults) =
            Settings::load(Layers { files: &[("q.yaml", text)], ..Layers::default() });
        assert!(faults.is_empty(), "{faults:?}");
        let rows = settings.report();
        assert_eq!(rows.len(), TABLE.len());
        let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        assert_eq!(
            row("broker_url").origin,
            SettingSource::File { file: "q.yaml".into(), line: 1 }
        );
        assert_eq!(row("result_backend").value, "db+sqlite://me:**@h/x");
        let env = &row("task_env").value;
        assert_eq!(env, "{SMTP_PASSWORD: '********', LANG: C, HOOK: '********'}");
        assert_eq!(
            (row("result_expires").value.as_str(), &row("result_expires").origin),
            ("1d", &SettingSource::Default)
        );
    }
}
