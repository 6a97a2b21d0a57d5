//! Waiting for a result on a terminal: after a moment a line says what is waited for, and an
//! interrupt prints how to continue.

use super::app::App;
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::broker::Whereabouts;
use crate::client::Client;
use crate::client::wait::{self, TaskStatus};
use crate::log::escape;
use crate::os::signal::Interrupts;
use crate::wire::result::Meta;
use std::cell::Cell;
use std::time::Duration;

/// Silence is no answer for longer than this.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Where somebody is at work, nothing has to be explained before this.
const WORK_MAX: Duration = Duration::from_secs(10);

/// How a wait ended.
pub(super) enum WaitEnd {
    /// With what is known of the task.
    Answer(TaskStatus),
    /// With this exit code; what there is to say has been said.
    Left(Exit),
}

/// Waits until the task `id` is ready, or `limit` has passed; or until it is found to be unknown,
/// unless it may be that.
pub(super) async fn for_result(
    app: &App,
    client: &Client,
    id: &str,
    (limit, may_be_unknown): (Option<Duration>, bool),
    out: ToUser,
) -> Result<WaitEnd, Error> {
    let cannot =
        |error: std::io::Error| Error::failure(format!("cannot listen to signals: {error}"));
    let interrupts = Interrupts::listen().map_err(cannot)?;
    let mut ready = std::pin::pin!(async {
        if !may_be_unknown {
            return wait::until_ready(client, id).await;
        }
        let tell = || {
            out.say(&format!(
                "Task {} is not known here: waiting for a result of it. It may run on a Python \
                 worker; or it was never sent, or its result was ignored, or has expired.",
                escape::name(id)
            ));
        };
        wait::until_known(client, id, tell).await
    });
    let told = Cell::new(false);
    let mut explained = std::pin::pin!(async {
        tokio::time::sleep(SILENCE_MAX).await;
        let nodes = client.broker.admin().nodes().await;
        if nodes.is_ok_and(|nodes| !nodes.is_empty()) {
            tokio::time::sleep(WORK_MAX - SILENCE_MAX).await;
        }
        if !out.quiet
            && let Some(text) = explain(app, client, id).await
        {
            told.set(true);
            out.say(&text);
        }
        std::future::pending::<()>().await;
    });
    let late = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        answer = &mut ready => Ok(WaitEnd::Answer(answer?)),
        signal = interrupts.next() => {
            let known = tokio::time::timeout(SILENCE_MAX, wait::look(client, id)).await;
            let known = match known {
                Ok(Ok(TaskStatus::Unknown)) => "is not known here, and nobody waits for it any more",
                Ok(Ok(TaskStatus::Result(meta))) if meta.is_ready() => "is ready",
                Ok(Ok(TaskStatus::Result(_) | TaskStatus::Pending(_))) => "goes on without you",
                // The broker does not say.
                Ok(Err(_)) | Err(_) => "may go on without you",
            };
            out.say(&format!("Task {id} {known}; wait again with `qworker result {id} --wait`."));
            Ok(WaitEnd::Left(Exit::Code(u8::try_from(128 + signal).unwrap_or(u8::MAX))))
        }
        () = late => {
            if !out.quiet && !told.get() && let Some(text) = explain(app, client, id).await {
                out.say(&text);
            }
            out.say(&format!(
                "Task {id} is not ready after the given time; ask with `qworker result {id}`."
            ));
            Ok(WaitEnd::Left(Exit::NotYet))
        }
        () = &mut explained => unreachable_end(),
    }
}

/// Explains where a task is once nothing was heard of it for a while, if it is still there.
pub(super) async fn explain_later(
    app: &App,
    client: &Client,
    id: &str,
    after: Duration,
    out: ToUser,
) {
    tokio::time::sleep(after).await;
    let nodes = client.broker.admin().nodes().await;
    if nodes.is_ok_and(|nodes| !nodes.is_empty()) {
        tokio::time::sleep(WORK_MAX.saturating_sub(after)).await;
    }
    let is_ready = |meta: Meta| meta.is_ready();
    if client.store.get(id).await.is_ok_and(|found| !found.is_some_and(is_ready))
        && let Some(text) = explain(app, client, id).await
    {
        out.say(&text);
    }
}

/// What is explained never ends the waiting.
fn unreachable_end() -> Result<WaitEnd, Error> {
    Err(Error::failure("what is explained has an end"))
}

/// Where the task is, and who could run it; nothing if the broker does not say.
async fn explain(app: &App, client: &Client, id: &str) -> Option<String> {
    if let Ok(TaskStatus::Result(meta)) = wait::look(client, id).await {
        return Some(format!("Task {id} is {}; waiting for it to finish.", state(&meta)));
    }
    let place = client.broker.admin().find(id.to_string()).await.ok()?;
    let nodes = client.broker.admin().nodes().await.ok()?;
    let alive: Vec<String> = nodes.iter().map(|node| node.hostname.clone()).collect();
    Some(match place {
        Whereabouts::Waiting { queue, eta: Some(eta) } => {
            let at = super::result::instant(&eta);
            format!("Task {id} waits in queue {queue} until {at}.")
        }
        Whereabouts::Waiting { queue, eta: None } => {
            let who = match &alive[..] {
                [] => format!("no worker is alive on {}", app.broker()),
                alive => {
                    format!("alive: {}; each may be busy, or serve other queues", alive.join(", "))
                }
            };
            format!("Task {id} waits in queue {queue}; {who}.")
        }
        Whereabouts::Held { queue } => {
            format!("Task {id} was taken from queue {queue}; alive: {}.", alive.join(", "))
        }
        Whereabouts::Dead(_) | Whereabouts::Absent | Whereabouts::Untold => return None,
    })
}

fn state(meta: &Meta) -> String {
    match meta.status.as_str() {
        "RETRY" => "waiting for its next try (RETRY)".into(),
        other => other.to_string(),
    }
}
