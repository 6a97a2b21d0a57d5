//! The room where messages become results. [`core`] decides, [`drive`] does.

pub mod admission;
pub mod autoscale;
mod chores;
pub mod core;
mod doubt;
pub mod drive;
pub mod event;
mod feed;
pub mod finish;
pub mod outage;
pub mod plan;
pub mod pulse;

pub mod request;
pub mod settle;
pub mod signals;

mod names;
mod refusal;
mod room;
mod unfit;
mod withheld;

pub use drive::run;
pub use plan::Plan;
