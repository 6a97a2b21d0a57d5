//! Opens the worker's ends of its broker and its result store.

use crate::backend::Store;
use crate::broker::{self, Inlet, Outlet};
use crate::cli::app::App;
use crate::cli::exit::Error;
use crate::client::Client;
use crate::os::guard::GuardLink;
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
) -> Result<(Inlet, Outlet, Store), Error> {
    let survey = client.survey(&plan.queues).await?;
    survey.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    may_work(app, &survey)?;
    let (inlet, outlet) = match &client.outlet {
        Outlet::Sqlite(outlet) => {
            let db = outlet.db();
            let guard = guard.clone();
            let hold = Box::new(move |lease: &Path| guard.hold(lease));
            let inlet = broker::sqlite::Inlet::open(db, &plan.hostname, &plan.queues, hold).await?;
            let outlet = Outlet::Sqlite(inlet.outlet());
            (Inlet::Sqlite(inlet), outlet)
        }
        Outlet::Redis(outlet) => {
            let who = broker::redis::Identity {
                hostname: &plan.hostname,
                queues: &plan.queues,
                visibility_timeout: app.settings.broker_transport_options.visibility_timeout,
            };
            let inlet = broker::redis::Inlet::open(outlet, who).await?;
            if let Some(Err(error)) = inlet.lease().map(|lease| guard.hold(lease)) {
                return Err(Error::failure(format!("the guard cannot hold the lease: {error}")));
            }
            let outlet = Outlet::Redis(inlet.outlet());
            (Inlet::Redis(inlet), outlet)
        }
    };
    let store = match (&client.store, &outlet) {
        (Store::Redis(store), Outlet::Redis(outlet)) => {
            Store::Redis(store.of_worker(Some(outlet.link()))?)
        }
        (Store::Redis(store), _) => Store::Redis(store.of_worker(None)?),
        (store, _) => store.clone(),
    };
    if let Store::Redis(store) = &store {
        // An unreachable result store is an error now, not at the first result.
        store.link().session().await?;
    }
    warn_of_python(&outlet).await;
    Ok((inlet, outlet, store))
}

/// Refuses to start if the broker forbids what a worker needs.
fn may_work(app: &App, survey: &broker::Survey) -> Result<(), Error> {
    if survey.refused.is_empty() {
        return Ok(());
    }
    let text = format!("{}: this user may not {}", app.broker(), survey.refused.join(", "));
    Err(Error::unavailable(text).hint("a worker needs these; allow them with ACL SETUSER"))
}

/// Warns of Python workers: they drop tasks that they do not know.
async fn warn_of_python(outlet: &Outlet) {
    let Outlet::Redis(outlet) = outlet else { return };
    let nodes = outlet.python_nodes().await.unwrap_or_default();
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
    let nodes = client.outlet.nodes().await.unwrap_or_default();
    if nodes.iter().any(|node| node.hostname == *hostname) {
        tracing::warn!(
            "worker: another worker named {hostname} is alive on {broker}: name one of them with -n"
        );
    }
}
