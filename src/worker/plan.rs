//! What is decided before a worker starts and never changes afterwards.

use super::pressure::PressureRule;
use crate::canvas::Chords;
use crate::client::send::Routing;
pub use crate::config::units::Unregistered;
use crate::task::Task;
use crate::task::rate::Rate;
use crate::task::set::Set;
use crate::wire::auth::Keys;
use crate::wire::{AcceptedContent, Embed, Message, TaskState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One worker.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Node name, `worker1@host`.
    pub hostname: Arc<str>,
    /// The application's folder.
    pub app: PathBuf,
    /// Process id of the worker.
    pub pid: u32,
    /// The broker's address, without a password.
    pub broker: String,
    /// How many tasks run at once, at most.
    pub slots: usize,
    /// Whether there are fewer slots when there is less to do.
    pub autoscale: Option<Autoscale>,
    /// When the host is too short of something for new tasks.
    pub pressure: PressureRule,
    /// Queues it takes from.
    pub queues: Vec<String>,
    /// The definitions of tasks.
    pub tasks: Arc<Set>,
    /// How long a warm shutdown waits for running tasks; `None`: as long as it takes.
    pub soft_shutdown: Option<Duration>,
    /// Settings for tasks that do not set their own.
    pub policy: Policy,
    /// Are INFO lines logged? Formatting them costs time.
    pub chatty: bool,
    /// The folder of compiled modules.
    pub wasm_cache: PathBuf,
    /// Linear memory of an instance in bytes, unless its task sets its own.
    pub wasm_memory: u64,
    /// How long the compilation of one module may take.
    pub wasm_compile_timeout: Duration,
    /// How long results are kept; `None`: forever.
    pub result_expires: Option<Duration>,
    /// Where the messages go that follow its tasks.
    pub routing: Routing,
    /// How the end of a chord's header is noticed.
    pub chords: Chords,
}

/// What `--autoscale` adds to the highest number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autoscale {
    /// The lowest number of slots.
    pub min: usize,
    /// `worker_autoscale_keepalive`
    pub keepalive: Duration,
}

/// Settings for what a task does not set itself.
#[derive(Debug, Clone)]
pub struct Policy {
    /// `task_acks_late`
    pub acks_late: bool,
    /// `task_ignore_result`
    pub ignore_result: bool,
    /// `task_store_errors_even_if_ignored`
    pub store_errors: bool,
    /// `task_track_started`
    pub track_started: bool,
    /// `result_extended`
    pub result_extended: bool,
    /// `task_inherit_parent_priority`
    pub inherit_priority: bool,
    /// `task_time_limit`
    pub time_limit: Option<Duration>,
    /// `task_soft_time_limit`
    pub soft_time_limit: Option<Duration>,
    /// `task_default_rate_limit`
    pub rate_limit: Option<Rate>,
    /// `task_max_deliveries`
    pub max_deliveries: u32,
    /// `task_unregistered`
    pub unregistered: Unregistered,
    /// `accept_content`
    pub accept: AcceptedContent,
    /// Whose signatures are accepted.
    pub keys: Keys,
    /// `worker_disable_prefetch`
    pub disable_prefetch: bool,
    /// `task_env`
    pub env: Arc<Vec<(String, String)>>,
}

impl Plan {
    /// Is a record of a message of `task` with this state stored? That of a member of a chord is
    /// where the chord ends by its members' results.
    pub fn stores(
        &self,
        state: TaskState,
        message: &Message,
        task: &Task,
        embed: Option<&Embed>,
    ) -> bool {
        let is_polled = self.chords == Chords::Polled && state.is_ready();
        let is_member = is_polled && embed.is_some_and(|embed| embed.chord.is_some());
        is_member || self.policy.stores(state, message, Some(task))
    }
}

impl Policy {
    /// Is a record with this state stored? `ignore_result` of the message comes first, then that of
    /// the task, if the task is known.
    pub fn stores(&self, state: TaskState, message: &Message, task: Option<&Task>) -> bool {
        let own = message.ignore_result.or(task.and_then(|task| task.ignore_result));
        let ignored = own.unwrap_or(self.ignore_result);
        !ignored || (self.store_errors && state == TaskState::Failure)
    }

    /// Has a message that was lost this many times used up its deliveries?
    pub fn is_used_up(&self, losses: u32) -> bool {
        losses >= self.max_deliveries
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            acks_late: true,
            ignore_result: false,
            store_errors: false,
            track_started: false,
            inherit_priority: false,
            result_extended: false,
            time_limit: None,
            soft_time_limit: None,
            rate_limit: None,
            max_deliveries: crate::bounds::DELIVERIES_MAX,
            unregistered: Unregistered::Wait,
            accept: AcceptedContent::default(),
            keys: Keys::default(),
            disable_prefetch: false,
            env: Arc::default(),
        }
    }
}
