//! What `scripts/bench` needs beside the product: a fast sender, and the bare loops that
//! are the limits of SQLite, Redis and Wasmtime by themselves. Prints plain numbers.
//!
//! ```text
//! knows   URL                           whether the product has such a broker; true or false
//! send    URL COUNT TASK [QUEUE]        enqueues in batches of 1,000; prints the ids
//! enqueue URL COUNT TASK BATCH          the same in batches of BATCH; prints messages per second
//! pace    URL COUNT RATE TASK           enqueues one by one; prints ids and the times before each
//! drain   DATABASE (kept | dropped)     the bare loop over SQLite's rows; prints rows per second
//! bare    MODULE EXPORT CALLS           instance, call, drop on bare Wasmtime; prints µs
//! ours    MODULE EXPORT CALLS           the same as a worker's thread does it; prints µs
//! ledger  URL [FILE]                    what a beat's ledger costs, there or in a file; prints lines
//!
//! redis-push    URL QUEUE COUNT BYTES BATCH           bare LPUSH; prints messages per second
//! redis-drain   URL QUEUE (kept | dropped) BATCH      the bare loop; prints messages and a rate
//! redis-passage URL COUNT RATE                        LPUSH to BRPOP; prints p50 and p99 in ms
//! redis-watch   URL TOTAL WARM (LLEN | HLEN) KEY ...  waits; prints seconds and how many went
//! redis-results URL WARM ID ...                       waits; prints seconds and how many came
//! ```

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

mod bare_redis;
mod ledger;
mod store;
mod wasm;

use qworker::link::url::BrokerUrl;
use std::path::Path;
use std::time::Duration;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["knows", url] => println!("{}", BrokerUrl::parse(url, Path::new("/")).is_ok()),
        ["send", url, count, task] => store::send(url, number(count), task, "celery"),
        ["send", url, count, task, queue] => store::send(url, number(count), task, queue),
        ["enqueue", url, count, task, batch] => {
            println!("{:.0}", store::enqueue(url, number(count), task, number(batch)));
        }
        ["pace", url, count, rate, task] => store::pace(url, number(count), pause(rate), task),
        ["drain", database, results] => {
            println!("{:.0}", store::drain(Path::new(database), results == "kept"));
        }
        ["bare", module, export, calls] => {
            wasm::print(&wasm::bare(Path::new(module), export, number(calls)));
        }
        ["ours", module, export, calls] => {
            wasm::print(&wasm::ours(Path::new(module), export, number(calls)));
        }
        ["ledger", url] => ledger::print(url, None),
        ["ledger", url, file] => ledger::print(url, Some(file)),
        [what, url, ref more @ ..] if what.starts_with("redis-") => on_redis(what, url, more),
        // `cargo bench` without arguments; the measuring is done by scripts/bench.
        _ => println!("Run scripts/bench."),
    }
}

fn on_redis(what: &str, url: &str, more: &[&str]) {
    match (what, more) {
        ("redis-push", [queue, count, bytes, batch]) => {
            let (count, bytes, batch) = (number(count), number(bytes), number(batch));
            println!("{:.0}", bare_redis::push(url, queue, count, bytes, batch));
        }
        ("redis-drain", [queue, results, batch]) => {
            bare_redis::drain(url, queue, *results == "kept", number(batch));
        }
        ("redis-passage", [count, rate]) => bare_redis::passage(url, number(count), pause(rate)),
        ("redis-watch", [total, warm, lengths @ ..]) => {
            bare_redis::watch(url, number(total), number(warm), lengths);
        }
        ("redis-results", [warm, ids @ ..]) => bare_redis::results(url, number(warm), ids),
        _ => panic!("{what} has other arguments"),
    }
}

fn number(word: &str) -> usize {
    word.parse().unwrap()
}

/// Between so many in a second.
fn pause(rate: &str) -> Duration {
    Duration::from_secs_f64(1.0 / rate.parse::<f64>().unwrap())
}
