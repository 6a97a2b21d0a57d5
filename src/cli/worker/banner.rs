//! What `qworker worker` shows on a terminal when it starts, as Celery does.

use crate::backend::Store;
use crate::cli::app::App;
use crate::client::Client;
use crate::worker::plan::Plan;
use std::io::IsTerminal;

/// Node name, addresses, concurrency, queues and, for INFO, the tasks.
pub(super) fn banner(app: &App, plan: &Plan, client: &Client) -> String {
    let results = match (&app.settings.result_backend, &client.store) {
        (_, Store::Disabled(_)) => "disabled://".to_string(),
        (Some(url), _) => url.to_string(),
        (None, _) => "in the broker".to_string(),
    };
    let slots = match plan.autoscale {
        Some(scale) => format!("{{min={}, max={}}}", scale.min, plan.slots),
        None => plan.slots.to_string(),
    };
    let mut text = format!(
        "\n {} v{}\n\n [config]\n .> app:         {}\n .> transport:   {}\n .> results:     {results}\n .> concurrency: {slots}\n\n [queues]\n",
        plan.hostname,
        env!("CARGO_PKG_VERSION"),
        app.folder.display(),
        app.broker(),
    );
    for queue in &plan.queues {
        text.push_str(&format!(" .> {queue:<16} exchange=(direct) key={queue}\n"));
    }
    if plan.chatty || std::io::stdout().is_terminal() {
        text.push_str("\n [tasks]\n");
        for task in plan.tasks.iter() {
            text.push_str(&format!("  . {}\n", task.name));
        }
    }
    text.push('\n');
    text
}
