//! What `scripts/bench` needs beside the product: a fast sender, and the bare loops that
//! are the limits of SQLite and Wasmtime by themselves. Prints plain numbers.
//!
//! ```text
//! send  DATABASE COUNT TASK [QUEUE]     enqueues in batches of 1,000; prints the ids
//! pace  DATABASE COUNT RATE TASK        enqueues one by one; prints ids and the times before each
//! drain DATABASE (kept | dropped)       the bare loop over the rows; prints rows per second
//! bare  MODULE EXPORT CALLS             instance, call, drop on bare Wasmtime; prints µs
//! ours  MODULE EXPORT CALLS             the same as a worker's thread does it; prints µs
//! ```

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

mod store;
mod wasm;

use std::path::Path;
use std::time::Duration;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["send", database, count, task] => {
            store::send(Path::new(database), count.parse().unwrap(), task, "celery");
        }
        ["send", database, count, task, queue] => {
            store::send(Path::new(database), count.parse().unwrap(), task, queue);
        }
        ["pace", database, count, rate, task] => {
            let pause = Duration::from_secs_f64(1.0 / rate.parse::<f64>().unwrap());
            store::pace(Path::new(database), count.parse().unwrap(), pause, task);
        }
        ["drain", database, results] => {
            println!("{:.0}", store::drain(Path::new(database), results == "kept"));
        }
        ["bare", module, export, calls] => {
            wasm::print(&wasm::bare(Path::new(module), export, calls.parse().unwrap()));
        }
        ["ours", module, export, calls] => {
            wasm::print(&wasm::ours(Path::new(module), export, calls.parse().unwrap()));
        }
        // `cargo bench` without arguments; the measuring is done by scripts/bench.
        _ => println!("Run scripts/bench."),
    }
}
