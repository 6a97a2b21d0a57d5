//! Messages become results. [`core`] decides, [`drive`] does.

pub mod core;
pub mod demand;
pub mod drive;
pub mod event;
pub mod finish;
pub mod follow;
pub mod plan;
pub mod request;
pub mod signals;
mod task_socket;
pub mod told;
pub mod verdict;

pub mod autoscale;
mod builtins;
mod capacity;
pub mod map;
mod names;
pub mod pressure;
mod refusal;
mod unavailable;
mod undecided;

mod chords;
mod consumer;
mod expire;
mod health;
mod orphans;
mod outage;
pub mod reload;
mod settle;
pub mod unlock;
mod unstorable;

pub use drive::run;
pub use plan::Plan;
