//! What is decided before a worker starts, and never changes after.

use super::admission::Rule;
pub use crate::config::units::Unregistered;
use crate::task::rate::Rate;
use crate::task::set::Set;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One worker.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Node name, `worker1@host`.
    pub hostname: String,
    /// The application's folder.
    pub app: PathBuf,
    /// The broker's address, without a password.
    pub broker: String,
    /// Tasks at once, at the most.
    pub slots: usize,
    /// Fewer when there is less to do.
    pub autoscale: Option<Autoscale>,
    /// When no new task is taken.
    pub admission: Rule,
    /// Queues it takes from.
    pub queues: Vec<String>,
    /// What it can run.
    pub tasks: Arc<Set>,
    /// How long a warm shutdown waits for what runs; `None` is for as long as it takes.
    pub soft_shutdown: Option<Duration>,
    /// What the settings say for tasks that say nothing.
    pub policy: Policy,
    /// Are INFO lines wanted? Making them costs time.
    pub chatty: bool,
    /// Compiled modules.
    pub wasm_cache: PathBuf,
    /// Linear memory of an instance unless its task says else, bytes.
    pub wasm_memory: u64,
    /// How long compiling one module may take.
    pub wasm_compile_timeout: Duration,
    /// Results live so long; `None` is for ever.
    pub result_expires: Option<Duration>,
}

/// What `--autoscale` says beside the most slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autoscale {
    /// Slots at least.
    pub min: usize,
    /// `worker_autoscale_keepalive`
    pub keepalive: Duration,
}

/// Settings that complete a task's own.
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
    /// `worker_disable_prefetch`
    pub disable_prefetch: bool,
    /// `task_env`
    pub env: Arc<Vec<(String, String)>>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            acks_late: true,
            ignore_result: false,
            store_errors: false,
            track_started: false,
            result_extended: false,
            time_limit: None,
            soft_time_limit: None,
            rate_limit: None,
            max_deliveries: crate::bounds::DELIVERIES_MAX,
            unregistered: Unregistered::Wait,
            disable_prefetch: false,
            env: Arc::default(),
        }
    }
}
