//! Every setting that Celery has, and what becomes of it here. Somebody who brings
//! their configuration along gets an answer for each name.

use super::settings::TABLE;

/// What becomes of a setting of Celery's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingSupport {
    /// It is a setting of ours, with the same meaning.
    Kept,
    /// It has no meaning here: why, and what to use instead.
    Meaningless(&'static str),
    /// It will have one in a later version.
    NotYet,
}

use SettingSupport::{Kept, Meaningless, NotYet};

const TASKS_ARE_FILES: SettingSupport =
    Meaningless("tasks are the files of tasks.d, nothing is imported");
const ONE_PROCESS_EACH: SettingSupport =
    Meaningless("every task runs in a new process or WASM instance, there is no pool");
const MEMORY_PER_TASK: SettingSupport =
    Meaningless("no process runs a second task; set memory in the task's definition");
const PLUGGED_CLASS: SettingSupport =
    Meaningless("it names a Python class, and qworker has no plug-ins");
const JSON_ONLY: SettingSupport = Meaningless("it is of events, which qworker does not send");
const UTC_ALWAYS: SettingSupport = Meaningless("times are always sent in UTC");
const BROKER_PARTS: SettingSupport =
    Meaningless("write host, port, user, password and path into broker_url");
const BACKEND_PARTS: SettingSupport =
    Meaningless("write host, port, user, password and path into result_backend");
const DATABASE_INSIDE: SettingSupport = Meaningless(
    "the store opens its database itself, with Celery's tables; give its address in result_backend",
);
const OTHER_STORE: SettingSupport =
    Meaningless("there is no such result store; see result_backend");
const SENT_FOR_REAL: SettingSupport =
    Meaningless("qworker call always sends; nothing is run inside of the sender");
const PROTOCOL_TWO: SettingSupport =
    Meaningless("messages have Celery's protocol 2, which every client since 4.0 speaks");
const LOG_OF_ONE_PROGRAM: SettingSupport =
    Meaningless("log lines have Celery's form, or are JSON with --log-format");
const OUTPUT_IS_RESULT: SettingSupport =
    Meaningless("what a task prints is its result, and what it complains of its traceback");
const ADAPTIVE: SettingSupport = Meaningless(
    "how many messages are taken ahead adapts to how long they run; see worker_disable_prefetch",
);
const QUEUES_APPEAR: SettingSupport =
    Meaningless("a queue exists when it is first named; choose those to serve with -Q");
const REDELIVERED: SettingSupport =
    Meaningless("a task whose process dies is redelivered, at most task_max_deliveries times");

const CONNECTS_AGAIN: SettingSupport =
    Meaningless("a worker whose broker is gone tries again until it is back, at most 2 s apart");
const STARTS_OR_SAYS: SettingSupport =
    Meaningless("a worker that cannot reach its broker at its start says so and ends");
const CLIENT_WAITS: SettingSupport =
    Meaningless("see client_timeout; a worker tries again by itself");
const TLS_IN_ADDRESS: SettingSupport =
    Meaningless("write rediss:// and ssl_ca_certs, ssl_certfile, ssl_keyfile into the address");
const TWO_CONNECTIONS: SettingSupport =
    Meaningless("a worker has two connections, a client one or two");

/// Names that Celery 5.7 knows; one that ends in `*` stands for all that begin so.
#[rustfmt::skip]
pub const SETTINGS: &[(&str, SettingSupport)] = &[
    ("accept_content", Kept), ("enable_utc", UTC_ALWAYS),
    ("imports", TASKS_ARE_FILES), ("include", TASKS_ARE_FILES), ("timezone", Kept),

    ("beat_cron_starting_deadline", Kept), ("beat_enable_remote_control", NotYet),
    ("beat_max_loop_interval", Kept), ("beat_remote_control_max_tick_age", NotYet),
    ("beat_schedule", Kept), ("beat_schedule_filename", Kept),
    ("beat_scheduler", PLUGGED_CLASS),
    ("beat_sync_every", Meaningless("the state of a schedule is stored with each sending, in one step")),

    ("broker_channel_error_retry", NotYet), ("broker_connection_max_retries", CONNECTS_AGAIN),
    ("broker_connection_retry", CONNECTS_AGAIN), ("broker_connection_retry_on_startup", STARTS_OR_SAYS),
    ("broker_connection_timeout", CLIENT_WAITS), ("broker_failover_strategy", NotYet),
    ("broker_heartbeat", NotYet), ("broker_heartbeat_checkrate", NotYet),
    ("broker_host", BROKER_PARTS), ("broker_login_method", NotYet),
    ("broker_native_delayed_delivery_queue_type", NotYet), ("broker_password", BROKER_PARTS),
    ("broker_pool_acquire_timeout", TWO_CONNECTIONS), ("broker_pool_limit", TWO_CONNECTIONS),
    ("broker_port", BROKER_PARTS), ("broker_read_url", NotYet),
    ("broker_transport", BROKER_PARTS), ("broker_transport_options", Kept),
    ("broker_url", Kept), ("broker_use_ssl", TLS_IN_ADDRESS),
    ("broker_user", BROKER_PARTS), ("broker_vhost", BROKER_PARTS),
    ("broker_write_url", NotYet),

    ("control_exchange", NotYet), ("control_queue_durable", NotYet),
    ("control_queue_exclusive", NotYet), ("control_queue_expires", NotYet),
    ("control_queue_ttl", NotYet),

    ("database_create_tables_at_setup", DATABASE_INSIDE), ("database_engine_callback", DATABASE_INSIDE),
    ("database_engine_options", DATABASE_INSIDE), ("database_short_lived_sessions", DATABASE_INSIDE),
    ("database_table_names", DATABASE_INSIDE), ("database_table_schemas", DATABASE_INSIDE),
    ("database_url", BACKEND_PARTS),

    ("event_exchange", NotYet), ("event_queue_durable", NotYet),
    ("event_queue_exclusive", NotYet), ("event_queue_expires", NotYet),
    ("event_queue_prefix", NotYet), ("event_queue_ttl", NotYet),
    ("event_serializer", JSON_ONLY),

    ("redis_backend_use_ssl", TLS_IN_ADDRESS), ("redis_db", BACKEND_PARTS),
    ("redis_host", BACKEND_PARTS), ("redis_max_connections", TWO_CONNECTIONS),
    ("redis_password", BACKEND_PARTS), ("redis_port", BACKEND_PARTS),
    ("redis_retry_on_timeout", CONNECTS_AGAIN), ("redis_socket_connect_timeout", CLIENT_WAITS),
    ("redis_socket_keepalive", NotYet), ("redis_socket_timeout", CLIENT_WAITS),
    ("redis_username", BACKEND_PARTS), ("redis_*", NotYet),

    ("result_accept_content", Kept), ("result_backend", Kept),
    ("result_backend_always_retry", NotYet), ("result_backend_base_sleep_between_retries_ms", NotYet),
    ("result_backend_max_retries", NotYet), ("result_backend_max_sleep_between_retries_ms", NotYet),
    ("result_backend_transport_options", Kept),
    ("result_cache_max", Meaningless("no results are held in memory, so there is nothing to bound")),
    ("result_chord_expires", NotYet), ("result_chord_join_timeout", NotYet),
    ("result_chord_retry_interval", NotYet), ("result_compression", Kept),
    ("result_exchange", NotYet), ("result_exchange_type", NotYet),
    ("result_expires", Kept), ("result_extended", Kept),
    ("result_failure_expires", NotYet),
    ("result_persistent", Meaningless("results are on disk, always")),
    ("result_serializer", Kept),

    ("security_cert_store", Kept), ("security_certificate", Kept),
    ("security_digest", Kept), ("security_key", Kept),
    ("security_key_password", Kept),

    ("task_acks_late", Kept), ("task_acks_on_failure", NotYet),
    ("task_acks_on_failure_or_timeout", NotYet), ("task_acks_on_timeout", NotYet),
    ("task_allow_error_cb_on_chord_header", NotYet), ("task_always_eager", SENT_FOR_REAL),
    ("task_annotations", Meaningless("write limits and the like into the task's definition in tasks.d")),
    ("task_compression", Kept),
    ("task_create_missing_queue_exchange_type", NotYet), ("task_create_missing_queue_type", NotYet),
    ("task_create_missing_queues", QUEUES_APPEAR), ("task_default_delivery_mode", Meaningless("messages are on disk, always")),
    ("task_default_exchange", NotYet), ("task_default_exchange_type", NotYet),
    ("task_default_priority", Kept), ("task_default_queue", Kept),
    ("task_default_queue_type", NotYet), ("task_default_rate_limit", Kept),
    ("task_default_routing_key", NotYet), ("task_eager_propagates", SENT_FOR_REAL),
    ("task_ignore_result", Kept), ("task_inherit_parent_priority", Kept),
    ("task_protocol", PROTOCOL_TWO), ("task_publish_retry", NotYet),
    ("task_publish_retry_policy", NotYet), ("task_queue_max_priority", NotYet),
    ("task_queues", QUEUES_APPEAR), ("task_reject_on_worker_lost", REDELIVERED),
    ("task_remote_tracebacks", Meaningless("a failed task's standard error is its traceback, for every client")),
    ("task_repr_maxlevels", NotYet),
    ("task_retry_on_worker_lost", REDELIVERED), ("task_routes", Kept),
    ("task_send_sent_event", NotYet), ("task_serializer", Kept),
    ("task_soft_time_limit", Kept), ("task_store_eager_result", SENT_FOR_REAL),
    ("task_store_errors_even_if_ignored", Kept), ("task_time_limit", Kept),
    ("task_track_started", Kept),

    ("worker_agent", PLUGGED_CLASS), ("worker_autoscaler", PLUGGED_CLASS),
    ("worker_cancel_long_running_tasks_on_connection_loss", NotYet), ("worker_concurrency", Kept),
    ("worker_consumer", PLUGGED_CLASS), ("worker_deduplicate_successful_tasks", NotYet),
    ("worker_detect_quorum_queues", NotYet), ("worker_direct", NotYet),
    ("worker_disable_prefetch", Kept), ("worker_disable_rate_limits", NotYet),
    ("worker_enable_prefetch_count_reduction", ADAPTIVE), ("worker_enable_remote_control", NotYet),
    ("worker_enable_soft_shutdown_on_idle", Meaningless("an idle worker has nothing to wait for: what has an ETA waits in the broker")), ("worker_eta_task_limit", NotYet),
    ("worker_hijack_root_logger", LOG_OF_ONE_PROGRAM), ("worker_log_color", Meaningless("use --no-color or NO_COLOR")),
    ("worker_log_datefmt", LOG_OF_ONE_PROGRAM), ("worker_log_format", LOG_OF_ONE_PROGRAM),
    ("worker_lost_wait", ONE_PROCESS_EACH), ("worker_max_memory_per_child", MEMORY_PER_TASK),
    ("worker_max_tasks_per_child", Meaningless("every task already gets a fresh process")),
    ("worker_pool", Meaningless("each task runs in a process or WASM instance of its own, there is no pool to choose")),
    ("worker_pool_putlocks", ONE_PROCESS_EACH), ("worker_pool_restarts", ONE_PROCESS_EACH),
    ("worker_pool_start_method", ONE_PROCESS_EACH), ("worker_prefetch_multiplier", ADAPTIVE),
    ("worker_proc_alive_timeout", ONE_PROCESS_EACH), ("worker_redirect_stdouts", OUTPUT_IS_RESULT),
    ("worker_redirect_stdouts_level", OUTPUT_IS_RESULT), ("worker_send_task_events", NotYet),
    ("worker_soft_shutdown_timeout", Kept), ("worker_state_db", NotYet),
    ("worker_task_log_datefmt", LOG_OF_ONE_PROGRAM), ("worker_task_log_format", LOG_OF_ONE_PROGRAM),
    ("worker_timer", PLUGGED_CLASS), ("worker_timer_precision", Meaningless("timers wake at their time, to the millisecond")),

    // What Celery takes from elsewhere than its table of defaults, or for stores that we have not.
    ("loader", TASKS_ARE_FILES), ("django_*", TASKS_ARE_FILES), ("django", TASKS_ARE_FILES),
    ("override_backends", OTHER_STORE), ("pickle_*", Meaningless("pickles are written in protocol 4")),
    ("worker_logfile", Meaningless("use --logfile")), ("worker_pidfile", Meaningless("use --pidfile")),
    ("worker_uid", Meaningless("use --uid")), ("worker_gid", Meaningless("use --gid")),
    ("worker_umask", Meaningless("use --umask")), ("worker_executable", ONE_PROCESS_EACH),
    ("cache_*", OTHER_STORE), ("memcached*", OTHER_STORE), ("mongodb_*", OTHER_STORE),
    ("cassandra_*", OTHER_STORE), ("elasticsearch_*", OTHER_STORE), ("arangodb_*", OTHER_STORE),
    ("couchbase_*", OTHER_STORE), ("couchdb_*", OTHER_STORE), ("cosmosdbsql_*", OTHER_STORE),
    ("azureblockblob_*", OTHER_STORE), ("dynamodb_*", OTHER_STORE), ("s3_*", OTHER_STORE),
    ("gcs_*", OTHER_STORE), ("riak_*", OTHER_STORE), ("ironcache_*", OTHER_STORE),
];

/// Old names whose new ones no rule finds.
const RENAMED: &[(&str, &str)] = &[
    ("CELERY_ANNOTATIONS", "task_annotations"),
    ("CELERY_DISABLE_RATE_LIMITS", "worker_disable_rate_limits"),
    ("CELERY_EAGER_PROPAGATES_EXCEPTIONS", "task_eager_propagates"),
    ("CELERY_ENABLE_REMOTE_CONTROL", "worker_enable_remote_control"),
    ("CELERY_MAX_CACHED_RESULTS", "result_cache_max"),
    ("CELERY_MESSAGE_COMPRESSION", "task_compression"),
    ("CELERY_REDIRECT_STDOUTS", "worker_redirect_stdouts"),
    ("CELERY_REDIRECT_STDOUTS_LEVEL", "worker_redirect_stdouts_level"),
    ("CELERY_RESULT_DBURI", "database_url"),
    ("CELERY_RESULT_DB_SHORT_LIVED_SESSIONS", "database_short_lived_sessions"),
    ("CELERY_RESULT_DB_TABLENAMES", "database_table_names"),
    ("CELERY_RESULT_ENGINE_OPTIONS", "database_engine_options"),
    ("CELERY_SEND_EVENTS", "worker_send_task_events"),
    ("CELERY_TASK_RESULT_EXPIRES", "result_expires"),
    ("CELERYD_TASK_LOG_FORMAT", "worker_task_log_format"),
    ("CELERYD_TASK_SOFT_TIME_LIMIT", "task_soft_time_limit"),
    ("CELERYD_TASK_TIME_LIMIT", "task_time_limit"),
    ("CELERYD_WORKER_LOST_WAIT", "worker_lost_wait"),
];

/// What becomes of a setting of Celery's; `None` if Celery has no such setting.
pub fn fate(name: &str) -> Option<SettingSupport> {
    let exact = SETTINGS.iter().find(|(known, _)| *known == name);
    let by_prefix = || SETTINGS.iter().find(|(known, _)| is_one(known, name));
    exact.or_else(by_prefix).map(|(_, fate)| *fate)
}

/// Is the name one of those that stand in a table as `known`, which may end in `*`?
pub(super) fn is_one(known: &str, name: &str) -> bool {
    known == name || known.strip_suffix('*').is_some_and(|begin| name.starts_with(begin))
}

/// The lower-case name of an upper-case one: those of Celery before 4 (`CELERYD_CONCURRENCY`,
/// `BROKER_URL`) and those with a prefix, as Django projects write them (`CELERY_BROKER_URL`).
pub fn new_name(old: &str) -> Option<&'static str> {
    if old.is_empty() || old.chars().any(|c| c.is_ascii_lowercase()) {
        return None;
    }
    if let Some((_, new)) = RENAMED.iter().find(|(name, _)| *name == old) {
        return Some(new);
    }
    let prefixes = [
        ("", ""),
        ("CELERY_", ""),
        ("CELERY_", "task_"),
        ("CELERY_", "worker_"),
        ("CELERYD_", "worker_"),
    ];
    let more =
        [("CELERYD_", ""), ("CELERYD_", "task_"), ("CELERYBEAT_", "beat_"), ("QWORKER_", "")];
    prefixes.iter().chain(&more).find_map(|(before, after)| {
        let name = format!("{after}{}", old.strip_prefix(before)?.to_ascii_lowercase());
        let celerys = SETTINGS.iter().map(|(known, _)| *known);
        celerys.chain(TABLE.iter().map(|entry| entry.name)).find(|known| *known == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Settings that Celery has not.
    const OURS: [&str; 18] = [
        "client_timeout",
        "task_max_deliveries",
        "task_unregistered",
        "task_max_output",
        "task_cgroups",
        "task_env",
        "worker_autoscale_keepalive",
        "worker_min_free_memory",
        "worker_max_load",
        "worker_log_max_bytes",
        "worker_log_max_age",
        "worker_log_backups",
        "wasm_memory",
        "wasm_compile_timeout",
        "wasm_cache_dir",
        "beat_dst",
        "beat_days",
        "beat_group",
    ];

    #[test]
    fn every_setting_is_in_the_table_once_and_kept_means_that_we_have_it() {
        let names: HashSet<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), SETTINGS.len(), "a name is here twice");
        for (name, fate) in SETTINGS {
            assert_eq!(TABLE.iter().any(|entry| entry.name == *name), *fate == Kept, "{name}");
        }
        for entry in TABLE {
            assert_ne!(
                OURS.contains(&entry.name),
                fate(entry.name) == Some(Kept),
                "{}",
                entry.name
            );
        }
    }

    #[test]
    fn old_names_lead_to_new_ones() {
        let cases = [
            ("BROKER_URL", Some("broker_url")),
            ("CELERY_BROKER_URL", Some("broker_url")),
            ("CELERYD_CONCURRENCY", Some("worker_concurrency")),
            ("CELERYD_TASK_TIME_LIMIT", Some("task_time_limit")),
            ("CELERY_TASK_TIME_LIMIT", Some("task_time_limit")),
            ("CELERY_ACKS_LATE", Some("task_acks_late")),
            ("CELERY_DEFAULT_QUEUE", Some("task_default_queue")),
            ("CELERY_ROUTES", Some("task_routes")),
            ("CELERY_RESULT_BACKEND", Some("result_backend")),
            ("CELERY_TASK_RESULT_EXPIRES", Some("result_expires")),
            ("CELERY_IMPORTS", Some("imports")),
            ("CELERYBEAT_SCHEDULE", Some("beat_schedule")),
            ("CELERYD_MAX_TASKS_PER_CHILD", Some("worker_max_tasks_per_child")),
            ("CELERY_WORKER_DIRECT", Some("worker_direct")),
            ("QWORKER_TASK_ENV", Some("task_env")),
            ("CELERY_NONSENSE", None),
            ("broker_url", None),
            ("", None),
        ];
        for (old, new) in cases {
            assert_eq!(new_name(old), new, "{old}");
        }
        for (_, new) in RENAMED {
            assert!(fate(new).is_some(), "{new}");
        }
    }

    #[test]
    fn fates_by_prefix_and_by_name() {
        assert_eq!(fate("redis_db"), Some(BACKEND_PARTS));
        assert_eq!(fate("redis_something"), Some(NotYet));
        assert_eq!(fate("mongodb_backend_settings"), Some(OTHER_STORE));
        assert_eq!(fate("nonsense"), None);
    }
}
