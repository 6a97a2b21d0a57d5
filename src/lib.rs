//! `qworker`: a worker, in Celery's protocol, for any program.
//!
//! The map of the house. `use crate::…` goes down the stairs only, towards a lower
//! floor or inside one's own folder; `tests/tidy.rs` checks it.
//!
//! | floor | modules |
//! | --- | --- |
//! | 5 the hall | [`cli`]: what the user typed, composition, exit codes |
//! | 4 rooms | [`worker`]: messages become results; [`beat`]: time becomes messages |
//! | 3 hands | [`client`]: send and wait; [`pool`]: run many attempts at once |
//! | 2 doors | [`broker`], [`backend`], [`runner`]: the code that does I/O for its living |
//! | 1 words | [`wire`], [`task`], [`schedule`], [`config`]: pure; no sockets, no clock |
//! | 0 ground | [`os`], [`link`], [`log`], [`bounds`], [`clock`], [`role`]: the kernel, connections, log lines, limits, time, closed sets |

pub mod backend;
pub mod beat;
pub mod bounds;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod link;
pub mod log;
pub mod os;
pub mod pool;
pub mod role;
pub mod runner;
pub mod schedule;
pub mod task;
pub mod wire;
pub mod worker;
