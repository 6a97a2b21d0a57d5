//! From options and settings to the worker's plan.

use super::Args;
use crate::bounds::{FILES_OF_TASK, FILES_OF_WORKER, QUEUES_MAX, SLOTS_MAX};
use crate::cli::app::App;
use crate::cli::exit::Error;
use crate::client::Client;
use crate::client::send::{Routing, Sender};
use crate::config::{Given, Settings, units};
use crate::os;
use crate::task::rate::Rate;
use crate::task::set::Set;
use crate::worker::plan::{Autoscale, Plan, Policy};
use crate::worker::pressure::PressureRule;
use std::sync::Arc;

/// The highest and the lowest number of slots (`--autoscale`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    max: usize,
    min: usize,
}

/// Reads `8,1`, `1,8` or `8`, as Celery does: the larger number is the highest.
pub(super) fn autoscale(text: &str) -> Result<Bounds, String> {
    let slots = |text: &str| usize::try_from(units::whole(text)?).ok().filter(|n| *n <= SLOTS_MAX);
    let (one, other) = text.split_once(',').unwrap_or((text, "0"));
    match (slots(one), slots(other)) {
        (Some(one), Some(other)) if one.max(other) > 0 => {
            Ok(Bounds { max: one.max(other), min: one.min(other) })
        }
        _ => Err(format!("expected MAX,MIN: two whole numbers up to {SLOTS_MAX}, such as 8,1")),
    }
}

/// Reads `name=value`; Celery has a dot after the first word of the name.
pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected SETTING=VALUE")?;
    if value.is_empty() {
        return Err("found nothing after the =, expected a value; null means none".into());
    }
    Ok((name.replacen('.', "_", 1), value.into()))
}

/// The queues to take from.
///
/// # Errors
/// There are none, or too many.
pub(super) fn queues(app: &App, args: &Args, tasks: &Set) -> Result<Vec<String>, Error> {
    let mut queues = if args.queues.is_empty() { app.queues(tasks) } else { args.queues.clone() };
    queues.retain(|queue| !args.exclude_queues.contains(queue));
    if queues.is_empty() {
        return Err(Error::usage("--exclude-queues leaves no queue to consume"));
    }
    if queues.len() > QUEUES_MAX {
        let found = queues.len();
        let text = format!("{found} queues to consume, expected at most {QUEUES_MAX}");
        return Err(
            Error::usage(text).hint("start more workers, each with some of the queues (-Q)")
        );
    }
    Ok(queues)
}

/// How many tasks run at once at most.
///
/// # Errors
/// This process may not have as many open files as that needs.
pub(super) fn slots(args: &Args, settings: &Settings) -> Result<usize, Error> {
    let chosen = args.autoscale.map(|bounds| bounds.max).or(settings.worker_concurrency);
    let slots = chosen.unwrap_or_else(os::host::processors);
    let Some(files) = os::open_files::limit() else { return Ok(slots) };
    let fit = files.saturating_sub(FILES_OF_WORKER) / FILES_OF_TASK;
    let fit = usize::try_from(fit).unwrap_or(usize::MAX);
    if slots <= fit {
        return Ok(slots);
    }
    if chosen.is_none() && fit > 0 {
        return Ok(fit);
    }
    let option = if args.autoscale.is_some() { "--autoscale" } else { "--concurrency" };
    let needed = FILES_OF_WORKER + FILES_OF_TASK * slots as u64;
    Err(Error::usage(format!(
        "{option} {slots} needs {needed} open files, and this process may have {files} (hard limit)"
    ))
    .hint(format!("at most {fit} fit; ulimit -Hn or systemd's LimitNOFILE= raise the limit")))
}

/// The settings that are given as options.
pub(super) fn given(args: &Args) -> Vec<Given> {
    let mut given = Vec::new();
    let soft_shutdown = args.soft_shutdown_timeout.clone();
    let prefetch = args.disable_prefetch.then(|| "true".to_string());
    for (option, setting, value) in [
        ("--concurrency", "worker_concurrency", args.concurrency.clone()),
        ("--time-limit", "task_time_limit", args.time_limit.clone()),
        ("--soft-time-limit", "task_soft_time_limit", args.soft_time_limit.clone()),
        ("--soft-shutdown-timeout", "worker_soft_shutdown_timeout", soft_shutdown),
        ("--disable-prefetch", "worker_disable_prefetch", prefetch),
    ] {
        given.extend(value.map(|value| Given {
            option: option.into(),
            setting: setting.into(),
            value,
        }));
    }
    given.extend(args.settings.iter().map(|(setting, value)| Given {
        option: format!("-- {setting}"),
        setting: setting.clone(),
        value: value.clone(),
    }));
    given
}

/// The plan of a worker with this name, queues and tasks.
///
/// # Errors
/// See [`slots`].
pub(super) fn plan(
    app: &App,
    args: &Args,
    hostname: String,
    queues: Vec<String>,
    tasks: Set,
    client: &Client,
) -> Result<Plan, Error> {
    let settings = &app.settings;
    let policy = Policy {
        acks_late: settings.task_acks_late,
        ignore_result: settings.task_ignore_result,
        store_errors: settings.task_store_errors_even_if_ignored,
        track_started: settings.task_track_started,
        inherit_priority: settings.task_inherit_parent_priority,
        result_extended: settings.result_extended,
        time_limit: settings.task_time_limit,
        soft_time_limit: settings.task_soft_time_limit,
        rate_limit: settings.task_default_rate_limit.map(|rate| Rate(rate.0)),
        max_deliveries: settings.task_max_deliveries,
        unregistered: settings.task_unregistered,
        accept: app.forms.accept,
        keys: app.forms.messages.keys.clone(),
        disable_prefetch: settings.worker_disable_prefetch,
        env: Arc::new(settings.task_env.clone()),
    };
    Ok(Plan {
        hostname: hostname.into(),
        app: app.folder.clone(),
        pid: std::process::id(),
        broker: app.broker(),
        slots: slots(args, settings)?,
        autoscale: args.autoscale.map(|bounds| Autoscale {
            min: bounds.min,
            keepalive: settings.worker_autoscale_keepalive,
        }),
        pressure: PressureRule {
            min_free_memory: settings.worker_min_free_memory,
            max_load: settings.worker_max_load,
        },
        queues,
        tasks: Arc::new(tasks),
        soft_shutdown: settings.worker_soft_shutdown_timeout,
        policy,
        chatty: args.log.is_chatty(),
        wasm_cache: app.folder.join(&settings.wasm_cache_dir),
        wasm_memory: settings.wasm_memory,
        wasm_compile_timeout: settings.wasm_compile_timeout,
        result_expires: settings.result_expires,
        routing: Routing {
            sender: Sender::new(&os::host::name(), app.forms.messages.clone()),
            abilities: *client.broker.abilities(),
            routes: settings.task_routes.clone(),
            default_queue: settings.task_default_queue.clone(),
            default_priority: settings.task_default_priority,
        },
        chords: client.store.chords(),
    })
}
