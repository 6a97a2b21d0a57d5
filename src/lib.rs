//! `qworker`: a worker, in Celery's protocol, for any program.
//!
//! The layers. `use crate::…` refers to a lower layer or to the same folder; `tests/tidy.rs` checks
//! this.
//!
//! | layer | modules |
//! | --- | --- |
//! | 5 commands | [`cli`]: what the user typed, composition, exit codes |
//! | 4 programs | [`worker`]: messages become results; [`beat`]: time becomes messages; [`guard`]: the worker's parent |
//! | 3 services | [`client`]: send and wait; [`pool`]: run many attempts at once |
//! | 2 adapters | [`broker`], [`backend`], [`runner`]: messages, results and programs, by I/O |
//! | 1 model | [`flow`], [`canvas`], [`wire`], [`task`], [`schedule`], [`config`]: pure; no sockets, no clock |
//! | 0 platform | [`os`], [`link`], [`log`], [`bounds`], [`clock`], [`role`]: the kernel, connections, log lines, limits, time, closed sets |

#![warn(unreachable_pub)]

pub mod backend;
pub mod beat;
pub mod bounds;
pub mod broker;
pub mod canvas;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod flow;
pub mod guard;
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
