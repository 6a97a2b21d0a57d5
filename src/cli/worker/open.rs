//! Opens the worker's ends of its broker and its result store.

use crate::broker::{self, Admin, Consumer, WorkerIdentity};
use crate::cli::app::App;
use crate::cli::exit::Error;
use crate::client::Client;
use crate::client::ends::Ends;
use crate::link::guard::GuardLink;
use crate::worker::plan::Plan;
use std::path::Path;
use std::rc::Rc;

/// Registers the worker with the broker. Its guard holds the lease too, until no process of its tasks
/// is left.
///
/// # Errors
/// A server cannot be reached, or does not allow what a worker needs.
pub(super) async fn open(
    app: &App,
    client: &Client,
    plan: &Plan,
    guard: &Rc<GuardLink>,
) -> Result<(Consumer, Ends), Error> {
    let checks = client.check_server(&plan.queues).await?;
    checks.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    may_work(app, &checks)?;
    let guard = guard.clone();
    let who = WorkerIdentity {
        hostname: &plan.hostname,
        queues: &plan.queues,
        visibility_timeout: app.settings.broker_transport_options.visibility_timeout,
        hold: Box::new(move |lease: &Path| guard.lock_lease(lease)),
    };
    let ends = client.consume(who).await?;
    warn_of_python(&client.broker.admin()).await;
    Ok(ends)
}

/// Refuses to start if the broker forbids what a worker needs.
fn may_work(app: &App, checks: &broker::ServerChecks) -> Result<(), Error> {
    if checks.refused.is_empty() {
        return Ok(());
    }
    let text = format!("{}: this user may not {}", app.broker(), checks.refused.join(", "));
    Err(Error::unavailable(text).hint("a worker needs these; allow them with ACL SETUSER"))
}

/// Warns of Python workers: they drop tasks that they do not know.
async fn warn_of_python(admin: &Admin) {
    let nodes = admin.python_nodes().await.unwrap_or_default();
    if let Some(first) = nodes.first() {
        let (first, others) = (crate::log::escape::name(first), nodes.len() - 1);
        tracing::warn!(
            "Python workers are on this server ({first} and {others} others): they acknowledge and drop tasks that \
             they do not know. Give the tasks of this application a queue that they do not serve: \
             task_default_queue here, or task_routes in the Python application"
        );
    }
}

/// Warns of another living worker with this name. A failing broker is reported by [`open`].
pub(super) async fn warn_of_namesake(client: &Client, plan: &Plan) {
    let Plan { hostname, broker, .. } = plan;
    let nodes = client.broker.admin().nodes().await.unwrap_or_default();
    if nodes.iter().any(|node| *node.hostname == **hostname) {
        tracing::warn!(
            "worker: another worker named {hostname} is alive on {broker}: name one of them with -n"
        );
    }
}
