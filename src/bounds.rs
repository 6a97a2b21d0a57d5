//! Every limit of the program, with the reason for its number. What a user may
//! change is a setting; the defaults of those settings stand here too.

use chrono::TimeDelta;
use std::time::Duration;

/// Bytes kept of each output stream of a task unless `max_output` sets another limit:
/// a result of a megabyte is large for a result store, and ten slots stay small.
pub const OUTPUT_MAX: u64 = 1024 * 1024;

/// Bytes of each output stream that a failed task's exception and traceback have: about
/// two screens of text; the log has the rest of what was kept.
pub const TRACEBACK_MAX: usize = 8 * 1024;

/// Maximum bytes of one message's body, when it is out of its compression and when it is
/// written as JSON: far more than a task is called with, and little enough for a worker's memory.
pub const BODY_MAX: usize = 64 * 1024 * 1024;

/// Maximum number of elements of one array or object of a message that is taken apart: each takes
/// some fifty bytes of memory then, so a body of two bytes an element would take gigabytes.
pub const ELEMENTS_MAX: usize = 1 << 20;

/// How many times a message is delivered at most before it is kept in the
/// dead-letter list (`task_max_deliveries`).
pub const DELIVERIES_MAX: u32 = 5;

/// A count that a message brings is taken for no more than this: it comes from outside, and whoever
/// adds to it must not overflow.
pub const COUNT_MAX: u32 = 1_000_000;

/// The longest pause after a round of messages that this worker does not know, and that a broker
/// cannot tell from others by their names.
pub const UNKNOWN_PAUSE: Duration = Duration::from_secs(5);

/// First delay before a message whose process died is handed out again; it doubles.
pub const REDELIVERY_DELAY: Duration = Duration::from_secs(1);

/// The delay between redeliveries grows no further than this.
pub const REDELIVERY_DELAY_MAX: Duration = Duration::from_secs(60);

/// Retries of a task unless `max_retries` sets another number (Celery's default).
pub const RETRIES_MAX: u32 = 3;

/// First delay of a retry (`retry_backoff`); it doubles with each.
pub const RETRY_BACKOFF: Duration = Duration::from_secs(1);

/// Longest delay of a retry (`retry_backoff_max`), Celery's default.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(600);

/// How long a client waits for the broker (`client_timeout`): longer than a restart of its
/// connection takes, shorter than a web request may.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of queues of one worker: a take asks a server for each of them, which does nothing else
/// meanwhile; a thousand are a few milliseconds.
pub const QUEUES_MAX: usize = 1000;

/// Maximum number of messages that wait in a worker's memory for a slot: enough for the store to
/// fetch the next hundreds while tiny tasks run, few enough to leave few suspects.
pub const TAKE_MAX: usize = 512;

/// Maximum number of tasks that one worker runs at once: each may hold a process and two pipes, which
/// stays far below a usual limit of open files.
pub const SLOTS_MAX: usize = 10_000;

/// Descriptors of a worker that runs nothing: store, log, sockets, wake-ups.
pub const FILES_OF_WORKER: u64 = 32;

/// Descriptors of a worker for each task that runs: its two outputs.
pub const FILES_OF_TASK: u64 = 2;

/// Slots that nobody needed are kept so long: Celery's figure.
pub const AUTOSCALE_KEEPALIVE: Duration = Duration::from_secs(30);

/// Messages that a batch of `qworker call --from-jsonl` sends in one step at the most: enough
/// for the disk to be no matter, few enough to be accepted well within the deadline.
pub const BATCH_TASKS_MAX: usize = 500;

/// Bytes of messages that are sent in one step, but for a single larger one: what a batch
/// costs in memory is a few times this.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of one line of a batch: a file without line ends must not fill the memory.
pub const BATCH_LINE_MAX: usize = 16 * 1024 * 1024;

/// Log files that are kept after they were put aside (`worker_log_backups`).
pub const LOG_BACKUPS: u64 = 5;

/// Maximum number of nodes of one `qworker multi`: more workers than one host runs, and few enough for
/// a mistyped number to do no harm.
pub const NODES_MAX: usize = 1000;

/// Nodes that `qworker multi` starts at the same time: enough to keep some processors busy while
/// others wait for the disk, few enough not to fill the memory with beginners.
pub const STARTS_MAX: usize = 16;

/// Bytes of what a node that did not start has said: some screens.
pub const SAID_MAX: u64 = 16 * 1024;

/// A worker that does not answer `qworker multi status` in this time hangs.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// A killed worker's processes are gone sooner; what remains then is reported.
pub const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Linear memory of one WASM instance unless the task sets `memory`
/// (`wasm_memory`): language runtimes compiled to WASM need some hundred MB.
pub const WASM_MEMORY: u64 = 512 * 1024 * 1024;

/// How long compiling one WASM module may take (`wasm_compile_timeout`).
pub const WASM_COMPILE_TIMEOUT: Duration = Duration::from_secs(120);

/// One argument of a process may be so long on Linux (`MAX_ARG_STRLEN`, 32 pages),
/// its end mark included.
pub const ARG_BYTES_MAX: usize = 128 * 1024 - 1;

/// What is left of a task's process group when its first process has ended gets so
/// long to close the output pipes before it is killed.
pub const LEFTOVER_GRACE: Duration = Duration::from_millis(100);

/// The delay before a message is handed out again that was lost `before` times already:
/// none, 1 s, 2 s, 4 s… up to [`REDELIVERY_DELAY_MAX`].
pub fn redelivery_delay(before: u32) -> Duration {
    match before {
        0 => Duration::ZERO,
        n => REDELIVERY_DELAY.saturating_mul(1 << (n - 1).min(16)).min(REDELIVERY_DELAY_MAX),
    }
}

/// How long a task that a shutdown has asked to end may take, before it is killed: long enough
/// to close a file, short enough for those who wait for the shutdown.
pub const STOP_GRACE: Duration = Duration::from_secs(2);

/// An occurrence that is later than this has been missed: another beat takes over within this
/// time, so nobody was there to send it.
pub const BEAT_LATE: TimeDelta = TimeDelta::seconds(2);

/// A state that is from later than this after now is one of a clock that was wrong.
pub const BEAT_BACK: TimeDelta = TimeDelta::minutes(1);

/// An entry that is defined again within this time after its removal goes on as before: its file
/// was being written, or was moved.
pub const BEAT_GONE: TimeDelta = TimeDelta::minutes(1);

/// An occurrence that waits for a task to end looks again after this time.
pub const BEAT_LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A beat that was not the first lets the others go ahead by so much, and sees then what they have
/// left: less than the second within which it has to take over.
pub const BEAT_LAG: TimeDelta = TimeDelta::milliseconds(300);

/// A beat that was not the first leaves it to the others for so long to give back to a ledger what
/// it has lost: they look once a second.
pub const BEAT_DEFER: TimeDelta = TimeDelta::milliseconds(1200);

/// Changes of one request to a ledger: what is due meanwhile goes with the next one.
pub const BEAT_BATCH: usize = 512;

/// Requests to a ledger at once.
pub const BEAT_FLIGHTS: usize = 4;

/// What is due within this time is sent together.
pub const BEAT_GATHER: TimeDelta = TimeDelta::milliseconds(4);

/// Longest time that a beat waits before it asks a ledger again that did not answer: less than
/// the two seconds within which everything goes on.
pub const BEAT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A clock that differs by more than this from the broker's is put right.
pub const BEAT_SKEW: TimeDelta = TimeDelta::milliseconds(500);

/// An entry whose queue the broker refuses is tried again after so long: somebody has to put that
/// right, and each try is a line in the log.
pub const BEAT_REFUSED: TimeDelta = TimeDelta::seconds(30);

/// Missed occurrences of one entry that `misfire: run_all(N)` sends at the most: a queue that is
/// filled with more of one task helps nobody.
pub const BEAT_MISSED_MAX: u32 = 10_000;

/// Bytes of the name of an entry: it is a key in the store of every broker.
pub const ENTRY_NAME_MAX: usize = 500;

/// The shortest interval of an entry: more messages of one task are better sent by that task.
pub const EVERY_MIN: Duration = Duration::from_millis(1);
