//! The settings: one table says of each its name, kind, default and meaning. The typed
//! struct, the reading of every layer, `qworker report` and the shipped `etc/qworker.yaml`
//! all come from that table, so none of them can forget one.

use super::accept::{self, SerializerList};
use super::beat::{BeatSchedule, Days, DaysRule, Dst, DstRule, Zone};
use super::diagnostic::Faults;
use super::kind::{
    AddressKind, Concurrency, Count, Deliveries, Environment, FilePath, Flag, Keep, Limit, Load,
    Maybe, Pace, Priority, Queue, Reserve, Size, Span, Unregistered, ValueKind, Word,
};
use super::node::YamlNode;
use super::routes::Routes;
use super::transport::{BrokerTransportOptions, ResultTransportOptions};
use crate::bounds;
use crate::link::address;
use chrono_tz::Tz;
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
    /// The broker: where messages are taken from and sent to. Either a file: a path behind
    /// three slashes is relative to the application's folder, behind four it is absolute; or a
    /// Redis server: redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://…, redis+socket:///PATH.
    broker_url: address::Address, AddressKind = address::Address::new("sqlite:///var/qworker.sqlite");
    /// Where results are kept: null for the broker's own store, sqlite:///… or
    /// db+sqlite:///… for another file, redis://… for a server, disabled:// for nowhere.
    result_backend: Option<address::Address>, Maybe<AddressKind> = None;
    /// How long qworker call and the other commands wait for an answer of the broker or the
    /// result store before they give up.
    client_timeout: Duration, Limit = bounds::CLIENT_TIMEOUT;
    /// The forms in which a worker takes messages: json, yaml, msgpack, pickle, or their content
    /// types. Of pickles the data is read and nothing is run. Another form is a dead letter.
    /// What qworker writes itself is JSON.
    accept_content: Vec<String>, SerializerList = vec![accept::DEFAULT.into()];
    /// For Redis: global_keyprefix stands in front of every key; what a Python worker has held
    /// for visibility_timeout (3600 s) is handed out again, as Celery's workers do it. Ours
    /// need no such time.
    broker_transport_options: BrokerTransportOptions, BrokerTransportOptions = BrokerTransportOptions::default();
    /// For Redis: global_keyprefix stands in front of every key of a result, with a _ behind
    /// it unless it ends in one of : _ - .
    result_backend_transport_options: ResultTransportOptions, ResultTransportOptions = ResultTransportOptions::default();
    /// How long a result is kept.
    /// null or 0 keeps results for ever.
    result_expires: Option<Duration>, Keep = Some(Duration::from_secs(86_400));
    /// Keep with each result the name, the arguments, the worker and the queue of its task
    /// and the count of its retries.
    result_extended: bool, Flag = false;
    /// Acknowledge a message when its task is done, so that a crash repeats the task; false
    /// acknowledges it before the start: at most once. (Celery's default is false.)
    task_acks_late: bool, Flag = true;
    /// The queue that a task is sent to unless its definition or a route names another,
    /// and that a worker without -Q serves.
    task_default_queue: String, Queue = "celery".into();
    /// The priority of tasks that have none of their own, 0 to 9; higher ones are served
    /// first. null is none, which is served as 0; on Redis as 9, since Python programs put
    /// there what has no priority.
    task_default_priority: Option<u8>, Maybe<Priority> = None;
    /// How often one worker starts tasks of one name at the most, unless the task says
    /// else: 10/s, 5/m, 100/h. null or 0 is without limit.
    task_default_rate_limit: Option<super::units::Rate>, Maybe<Pace> = None;
    /// Keep no results, unless a task or its sender asks for them.
    /// Nobody can wait for such a task.
    task_ignore_result: bool, Flag = false;
    /// Keep the failures of tasks whose results are ignored,
    /// so that they can be looked up.
    task_store_errors_even_if_ignored: bool, Flag = false;
    /// Store the state STARTED when a task begins, one more write for each task.
    /// Without it a running task is PENDING to those who ask.
    task_track_started: bool, Flag = false;
    /// End a task by force after so long, unless the task says else: 90 (seconds), 90s, 5m,
    /// 1h30m. null is without limit.
    task_time_limit: Option<Duration>, Maybe<Limit> = None;
    /// Ask a task to end after so long, by the signal TERM. Shorter than task_time_limit,
    /// so that there is time to tidy up. null is without limit.
    task_soft_time_limit: Option<Duration>, Maybe<Limit> = None;
    /// So often a message is handed out whose worker or process died before the end; then
    /// it is kept in the dead-letter list (qworker dead list).
    task_max_deliveries: u32, Deliveries = bounds::DELIVERIES_MAX;
    /// What becomes of a task whose name is not in tasks.d: wait leaves it in its queue, for other
    /// workers, Python's too, and counts nothing; dead is for queues of one application alone: such a
    /// task is tried task_max_deliveries times and then kept in the dead-letter list.
    task_unregistered: super::units::Unregistered, Unregistered = super::units::Unregistered::Wait;
    /// How many bytes are kept of the end of each output stream of a task, unless the task
    /// says else. What comes before is read and dropped.
    task_max_output: u64, Size = bounds::OUTPUT_MAX;
    /// Variables for the environment of every task, {NAME: value}. Reports show the values of
    /// a few names that hold no secrets (LANG, PATH), and switches (1, true). Tasks inherit none
    /// of the variables of settings (QWORKER_BROKER_URL); one that needs it is given it here.
    task_env: Vec<(String, String)>, Environment = Vec::new();
    /// Run each task that has fences in a control group (version 2) of its own, where the worker
    /// may make some: memory and processes then bound all its processes together. Elsewhere, and
    /// with false, each process is bounded by itself.
    task_cgroups: bool, Flag = true;
    /// Queues, and priorities, by name or pattern of a task: {"media.*": media,
    /// report: {queue: slow, priority: 3}}. An exact name first, then the first that fits.
    task_routes: Routes, Routes = Routes::default();
    /// How many tasks one worker runs at once.
    /// null or auto is the number of processors, or what the quota of the control group leaves of them.
    worker_concurrency: Option<usize>, Concurrency = None;
    /// With --autoscale: slots that nobody needed for so long are removed. More come at once
    /// when more work waits.
    worker_autoscale_keepalive: Duration, Limit = bounds::AUTOSCALE_KEEPALIVE;
    /// Take no new task while less memory than this is free, on the host or within the limit
    /// of a control group around the worker: 500M, or 10% of it. null is no such rule.
    worker_min_free_memory: Option<super::units::Least>, Maybe<Reserve> = None;
    /// Take no new task while the load of the host, the average over a minute, is above this.
    /// null is no such rule.
    worker_max_load: Option<f64>, Maybe<Load> = None;
    /// Take a message only when a slot is free for it. false takes short tasks ahead in
    /// bulk, which is faster, and gives back what did not start.
    worker_disable_prefetch: bool, Flag = false;
    /// How long a warm shutdown waits for the tasks that run. Then they get the signal TERM,
    /// after 2 s more KILL, and are given back. null or 0 waits for as long as they take.
    worker_soft_shutdown_timeout: Option<Duration>, Keep = None;
    /// Put the log file (--logfile) aside as FILE.1 before it gets larger than this: 50M.
    /// null leaves that to others, logrotate for instance.
    worker_log_max_bytes: Option<u64>, Maybe<Size> = None;
    /// Put the log file aside when it is older than this: 1d.
    /// null is never.
    worker_log_max_age: Option<Duration>, Maybe<Limit> = None;
    /// How many log files are kept that were put aside, FILE.1 to FILE.5: the oldest one
    /// makes room.
    worker_log_backups: u64, Count = bounds::LOG_BACKUPS;
    /// How much memory one WASM instance may have, unless its task says else.
    /// Language runtimes compiled to WASM need some hundred megabytes.
    wasm_memory: u64, Size = bounds::WASM_MEMORY;
    /// How long the compilation of one WASM module may take.
    /// Compiled modules are cached, so this happens once.
    wasm_compile_timeout: Duration, Limit = bounds::WASM_COMPILE_TIMEOUT;
    /// The folder of compiled WASM modules, relative to the application's folder. It can be
    /// deleted at any time. Whoever can write to it can run code as the worker.
    wasm_cache_dir: PathBuf, FilePath = PathBuf::from("var/cache/wasm");
    /// The time zone of schedules, by its IANA name: Europe/Oslo.
    /// An entry, and a file of entries, can have one of its own.
    timezone: Tz, Zone = Tz::UTC;
    /// What qworker beat sends, and when: {NAME: {task: TASK, schedule: WHEN}}; see
    /// qworker-schedule(5). Files of their own, schedule.yaml and *.crontab, hold more.
    beat_schedule: BeatSchedule, BeatSchedule = BeatSchedule::default();
    /// Keep the state of the schedule, what was sent last and what is paused, in this SQLite
    /// file, relative to the application's folder. null keeps it in the broker's store, where
    /// all beats find it.
    beat_schedule_filename: Option<PathBuf>, Maybe<FilePath> = None;
    /// So often beat looks at the files of its schedule, at what was paused or resumed, and
    /// whether the broker has lost anything; what is due is sent at its time. 0 is 1 s.
    beat_max_loop_interval: Duration, Span = Duration::ZERO;
    /// How late an occurrence of a crontab may be sent, unless the entry has a grace of its own.
    /// null is at any time.
    beat_cron_starting_deadline: Option<Duration>, Maybe<Span> = None;
    /// Where clocks are changed: once runs each fixed local time once a day, also one that
    /// does not exist or comes twice; celery computes as Celery's beat does.
    beat_dst: DstRule, Dst = DstRule::Once;
    /// When a crontab names both days of the month and days of the week: and needs both to
    /// hold, as Celery does; or needs one of them, as cron does. null is or in crontab files,
    /// and is and elsewhere: qworker beat check says which holds.
    beat_days: Option<DaysRule>, Maybe<Days> = None;
    /// Beats of one group on one broker share the work: any number may run, and each
    /// occurrence is sent once. Another group has a state of its own.
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
         # default: take the # away to change it. What is set here is overruled by variables of\n\
         # the environment (QWORKER_ and the name in upper case), and those by the command line.\n\
         # `qworker check` finds mistakes; `qworker report` shows what is in force, and why.\n",
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
