//! `qworker dead`: messages that could not be run, kept whole.

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::broker::DeadLetter;
use crate::clock;
use crate::link::sqlite::Access;
use chrono::DateTime;
use serde_json::{Value, json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum DeadCommand {
    /// List dead letters, oldest first
    List {
        /// Print JSON
        #[arg(short, long)]
        json: bool,
    },
    /// Show one dead letter with its message
    Show {
        /// Number in the list
        #[arg(value_parser = number)]
        number: i64,
    },
    /// Send dead letters to their queues again
    Requeue(Which),
    /// Remove dead letters
    Purge(Which),
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Numbers in the list
    #[arg(required_unless_present = "all", conflicts_with = "all", value_parser = number)]
    numbers: Vec<i64>,
    /// All messages
    #[arg(long)]
    all: bool,
}

/// People have ids of tasks at hand, and may take them for numbers.
fn number(text: &str) -> Result<i64, String> {
    let expected = "expected a number of the list, the first column of `qworker dead list`";
    super::count(text).map_err(|_| expected.into())
}

impl Which {
    fn numbers(self) -> Option<Vec<i64>> {
        (!self.all).then_some(self.numbers)
    }
}

pub(super) fn run(what: DeadCommand, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    super::block_on(async {
        let access = match &what {
            DeadCommand::List { .. } | DeadCommand::Show { .. } => Access::Look,
            DeadCommand::Requeue(_) | DeadCommand::Purge(_) => Access::Change,
        };
        let client = app.client_to(access)?;
        match what {
            DeadCommand::List { json } => {
                list(&client.broker.dead_letters().list().await?, json, out)
            }
            DeadCommand::Show { number } => {
                let all = client.broker.dead_letters().list().await?;
                let letter = all.iter().find(|letter| letter.number == number);
                let letter = letter.ok_or_else(|| none(&number.to_string()))?;
                out.data(
                    &serde_json::to_string_pretty(&document(letter, true)).unwrap_or_default(),
                );
            }
            DeadCommand::Requeue(which) => {
                let letters = client.broker.dead_letters().list().await?;
                report(which, &letters, "Requeued", out, async |numbers| {
                    // Before: else it could be the result of the new run.
                    client.store.forget(ids(&letters, &numbers)).await?;
                    client.broker.dead_letters().requeue(numbers).await
                })
                .await?;
            }
            DeadCommand::Purge(which) => {
                let letters = client.broker.dead_letters().list().await?;
                report(which, &letters, "Removed", out, async |numbers| {
                    client.broker.dead_letters().purge(numbers).await
                })
                .await?;
            }
        }
        Ok(Exit::Ok)
    })
}

/// The tasks of these letters, whose stored failure is not the last word any more.
fn ids(letters: &[DeadLetter], numbers: &Option<Vec<i64>>) -> Vec<String> {
    let meant = |letter: &&DeadLetter| {
        numbers.as_ref().is_none_or(|numbers| numbers.contains(&letter.number))
    };
    letters.iter().filter(meant).map(|letter| letter.task_id.clone()).collect()
}

fn none(numbers: &str) -> Error {
    Error::failure(format!("the dead-letter list has no number {numbers}"))
        .hint("`qworker dead list` shows the numbers")
}

async fn report(
    which: Which,
    letters: &[DeadLetter],
    done: &str,
    out: ToUser,
    act: impl AsyncFn(Option<Vec<i64>>) -> Result<u64, crate::broker::Error>,
) -> Result<(), Error> {
    let numbers = which.numbers();
    let there = |number: &i64| letters.iter().any(|letter| letter.number == *number);
    let missing: Vec<String> =
        numbers.iter().flatten().filter(|number| !there(number)).map(i64::to_string).collect();
    let count = act(numbers).await?;
    out.print(&format!("{done} {count} {}.", if count == 1 { "message" } else { "messages" }));
    if missing.is_empty() { Ok(()) } else { Err(none(&missing.join(", "))) }
}

fn list(letters: &[DeadLetter], as_json: bool, out: ToUser) {
    if as_json {
        let all: Vec<Value> = letters.iter().map(|letter| document(letter, false)).collect();
        return out.print(&Value::from(all).to_string());
    }
    let rows: Vec<Vec<String>> = letters
        .iter()
        .map(|l| {
            let died = DateTime::parse_from_rfc3339(&l.died_at);
            let died = died.map_or_else(|_| l.died_at.clone(), |at| clock::local(at.to_utc()));
            let detail = l.detail.lines().next().unwrap_or_default().chars().take(120).collect();
            vec![
                l.number.to_string(),
                died,
                l.reason.clone(),
                l.task.clone(),
                l.task_id.clone(),
                l.queue.clone(),
                detail,
            ]
        })
        .collect();
    out.table(
        &["No", "Died", "Reason", "Task", "Id", "Queue", "Detail"],
        &rows,
        "No dead letters.",
    );
}

fn document(letter: &DeadLetter, whole: bool) -> Value {
    let mut document = json!({
        "number": letter.number,
        "died_at": letter.died_at,
        "reason": letter.reason,
        "detail": letter.detail,
        "task": letter.task,
        "id": letter.task_id,
        "queue": letter.queue,
        "deliveries": letter.deliveries,
    });
    if whole {
        // As JSON if it is some: people read it.
        let message = letter.payload.to_envelope();
        document["message"] =
            serde_json::from_str(&message).unwrap_or_else(|_| Value::String(message.into_owned()));
    }
    document
}
