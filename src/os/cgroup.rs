//! Control groups of the kernel, version 2: where we are, and what the groups around us leave.

mod place;

pub use place::Place;
pub(crate) use place::{entry, number};
