//! Values of Celery's settings that are none of ours. What a value asks for is done here anyway,
//! or makes no difference to any task, or cannot be had: only the last is a mistake. So settings
//! that somebody brings along, with Celery's defaults written out, are read as they are.

use super::celery::{self, SettingSupport};
use super::node::{Data, YamlNode};

/// What a value comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSupport {
    /// It is so here, always.
    Honoured,
    /// No task would notice; why.
    Harmless(String),
    /// It cannot be had; why.
    Refused(String),
}

/// What is done here anyway, beside null: Celery's defaults and what means the same. Written as
/// JSON; a text without its quotes.
#[rustfmt::skip]
const HONOURED: &[(&str, &[&str])] = &[
    ("enable_utc", &["true"]),
    ("imports", &["[]"]), ("include", &["[]"]),
    ("beat_enable_remote_control", &["false"]),
    ("beat_scheduler", &["celery.beat:PersistentScheduler", "celery.beat.PersistentScheduler"]),
    ("beat_sync_every", &["0", "1"]),
    ("broker_channel_error_retry", &["false"]), ("broker_connection_max_retries", &["100", "0"]),
    ("broker_connection_retry", &["true"]), ("broker_connection_timeout", &["4", "4.0"]),
    ("broker_use_ssl", &["false"]),
    ("database_create_tables_at_setup", &["true"]), ("database_short_lived_sessions", &["false"]),
    ("database_table_names", &["{\"task\":\"celery_taskmeta\",\"group\":\"celery_tasksetmeta\"}", "{}"]),
    ("database_table_schemas", &["{}"]),
    ("redis_backend_use_ssl", &["false"]), ("redis_retry_on_timeout", &["false", "true"]),
    ("redis_socket_keepalive", &["false", "true"]),
    ("result_persistent", &["true"]),
    ("result_exchange_type", &["direct"]),
    ("task_acks_on_failure", &["true"]), ("task_acks_on_failure_or_timeout", &["true"]),
    ("task_acks_on_timeout", &["true"]),
    ("task_allow_error_cb_on_chord_header", &["false"]), ("task_always_eager", &["false"]),
    ("task_annotations", &["{}", "[]"]),
    ("task_create_missing_queues", &["true"]), ("task_create_missing_queue_type", &["classic"]),
    ("task_create_missing_queue_exchange_type", &["direct"]),
    ("task_default_delivery_mode", &["2", "persistent"]), ("task_default_exchange", &["celery"]),
    ("task_default_exchange_type", &["direct"]), ("task_default_queue_type", &["classic"]),
    ("task_default_routing_key", &["celery"]),
    ("task_protocol", &["2"]), ("task_queues", &["[]", "{}"]),
    ("task_reject_on_worker_lost", &["true"]), ("task_retry_on_worker_lost", &["true"]),
    ("worker_autoscaler", &["celery.worker.autoscale:Autoscaler"]),
    ("worker_consumer", &["celery.worker.consumer:Consumer"]),
    ("worker_direct", &["false"]), ("worker_disable_rate_limits", &["false"]),
    ("worker_enable_soft_shutdown_on_idle", &["false"]),
    ("worker_pool", &["prefork", "processes"]),
    ("worker_cancel_long_running_tasks_on_connection_loss", &["false"]),
    ("worker_deduplicate_successful_tasks", &["false"]),
];

/// Settings that change no task, whatever they say: how Python programs are laid out, hold their
/// connections, report, log, and recycle their processes.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    "imports", "include", "loader", "django", "django_*",
    "beat_remote_control_max_tick_age", "beat_sync_every",
    "broker_channel_error_retry", "broker_connection_*", "broker_failover_strategy",
    "broker_heartbeat", "broker_heartbeat_checkrate", "broker_login_method",
    "broker_native_delayed_delivery_queue_type", "broker_pool_*",
    "control_*", "event_exchange", "event_queue_*",
    "database_create_tables_at_setup", "database_engine_*", "database_short_lived_sessions",
    "redis_max_connections", "redis_retry_on_timeout", "redis_socket_*", "redis_health_check_interval",
    "result_backend_always_retry", "result_backend_base_sleep_between_retries_ms",
    "result_backend_max_retries", "result_backend_max_sleep_between_retries_ms",
    "result_cache_max", "result_chord_*", "result_exchange", "result_exchange_type", "result_persistent",
    "task_allow_error_cb_on_chord_header", "task_create_missing_queue_type",
    "task_create_missing_queue_exchange_type", "task_default_delivery_mode", "task_default_queue_type",
    "task_eager_propagates", "task_store_eager_result", "task_publish_retry", "task_publish_retry_policy",
    "task_queue_max_priority", "task_reject_on_worker_lost", "task_remote_tracebacks",
    "task_repr_maxlevels", "task_retry_on_worker_lost", "task_send_sent_event",
    "worker_cancel_long_running_tasks_on_connection_loss", "worker_detect_quorum_queues",
    "worker_enable_*", "worker_eta_task_limit", "worker_executable", "worker_hijack_root_logger",
    "worker_log_color", "worker_log_datefmt", "worker_log_format", "worker_lost_wait",
    "worker_max_memory_per_child", "worker_max_tasks_per_child", "worker_pool_*",
    "worker_prefetch_multiplier", "worker_proc_alive_timeout", "worker_redirect_stdouts",
    "worker_redirect_stdouts_level", "worker_send_task_events", "worker_state_db",
    "worker_task_log_datefmt", "worker_task_log_format", "worker_timer", "worker_timer_precision",
    "cache_*", "memcached*", "mongodb_*", "cassandra_*", "elasticsearch_*", "arangodb_*",
    "couchbase_*", "couchdb_*", "cosmosdbsql_*", "azureblockblob_*", "dynamodb_*", "s3_*", "gcs_*",
    "riak_*", "ironcache_*",
];

/// Settings that name a form of text of which there is one here.
const OF_SERIALIZERS: &[&str] = &["event_serializer"];

/// What a value of the setting `name`, which Celery has and we have not, comes to.
pub fn verdict(name: &str, fate: SettingSupport, value: &YamlNode) -> ValueSupport {
    let why = match fate {
        SettingSupport::Meaningless(why) => format!("means nothing here: {why}"),
        _ => "is not supported by this version".into(),
    };
    let honoured = HONOURED.iter().find(|(known, _)| *known == name);
    if value.is_null() || honoured.is_some_and(|(_, all)| all.iter().any(|one| is(value, one))) {
        return ValueSupport::Honoured;
    }
    if OF_SERIALIZERS.contains(&name) {
        return match forms(value) {
            (true, false) => ValueSupport::Honoured,
            (true, true) => ValueSupport::Harmless("of these, only JSON is accepted".into()),
            _ => ValueSupport::Refused(why),
        };
    }
    if name == "worker_pool" && ["threads", "gevent", "eventlet"].iter().any(|one| is(value, one)) {
        return ValueSupport::Harmless(why);
    }
    match HARMLESS.iter().any(|known| celery::is_one(known, name)) {
        true => ValueSupport::Harmless(why),
        false => ValueSupport::Refused(why),
    }
}

/// Does a value name JSON, and does it name anything else?
fn forms(value: &YamlNode) -> (bool, bool) {
    let texts: Vec<&str> = match &value.data {
        Data::List(list) => list.iter().map(|one| one.as_text().unwrap_or_default()).collect(),
        _ => value.as_text().unwrap_or_default().split(',').map(str::trim).collect(),
    };
    let is_json = |text: &&str| matches!(*text, "json" | "application/json");
    (texts.iter().any(is_json), !texts.iter().all(is_json))
}

/// Is the value the one that is written so?
pub(super) fn is(value: &YamlNode, text: &str) -> bool {
    match text.parse::<f64>() {
        _ if text.starts_with(['[', '{']) => serde_json::from_str::<serde_json::Value>(text)
            .is_ok_and(|json| json == value.to_json()),
        _ if matches!(text, "true" | "false") => value.as_bool() == Some(text == "true"),
        Ok(number) => value.as_number() == Some(number) || value.as_written() == Some(text),
        Err(_) => value.as_text() == Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::parse;

    fn of(name: &str, value: &str) -> ValueSupport {
        let node = parse("q.yaml", value).0.unwrap();
        verdict(name, celery::fate(name).unwrap(), &node)
    }

    #[test]
    fn what_is_so_anyway_is_no_mistake() {
        for (name, value) in [
            ("event_serializer", "json"),
            ("event_serializer", "['application/json']"),
            ("enable_utc", "true"),
            ("task_protocol", "2"),
            ("task_always_eager", "false"),
            ("worker_pool", "prefork"),
            ("broker_use_ssl", "false"),
            ("task_annotations", "{}"),
            ("task_acks_on_failure_or_timeout", "true"),
            ("broker_connection_retry", "true"),
            ("task_default_delivery_mode", "persistent"),
        ] {
            assert_eq!(of(name, value), ValueSupport::Honoured, "{name}: {value}");
        }
        for (name, value) in [
            ("event_serializer", "[json, pickle]"),
            ("imports", "[shop.tasks]"),
            ("worker_prefetch_multiplier", "1"),
            ("worker_max_tasks_per_child", "100"),
            ("broker_connection_retry_on_startup", "true"),
            ("broker_pool_limit", "0"),
            ("worker_hijack_root_logger", "false"),
            ("worker_send_task_events", "true"),
            ("worker_pool", "gevent"),
            ("redis_max_connections", "20"),
            ("broker_heartbeat", "0"),
            ("task_send_sent_event", "true"),
            ("mongodb_backend_settings", "{a: b}"),
        ] {
            assert!(matches!(of(name, value), ValueSupport::Harmless(_)), "{name}: {value}");
        }
        for (name, value) in [
            ("event_serializer", "pickle"),
            ("enable_utc", "false"),
            ("task_always_eager", "true"),
            ("broker_use_ssl", "true"),
            ("task_protocol", "1"),
            ("worker_pool", "solo"),
            ("broker_password", "x"),
            ("task_annotations", "{a: {rate_limit: 1/s}}"),
            ("task_queues", "[a]"),
            ("task_acks_on_failure_or_timeout", "false"),
            ("worker_direct", "true"),
            ("redis_something", "1"),
            ("beat_enable_remote_control", "true"),
        ] {
            assert!(matches!(of(name, value), ValueSupport::Refused(_)), "{name}: {value}");
        }
    }

    #[test]
    fn every_name_is_one_of_celerys() {
        for name in HONOURED.iter().map(|(name, _)| name).chain(HARMLESS).chain(OF_SERIALIZERS) {
            let name = name.trim_end_matches('*');
            let is_known = |known: &&(&str, SettingSupport)| known.0.starts_with(name);
            assert!(
                celery::fate(name).is_some() || celery::SETTINGS.iter().any(|k| is_known(&k)),
                "{name}"
            );
            assert_ne!(celery::fate(name), Some(SettingSupport::Kept), "{name}");
        }
    }
}
