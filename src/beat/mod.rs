//! The room where time becomes messages. [`core`] decides, [`drive`] does, [`state`] is what is
//! remembered; [`mail`] writes what is sent.

pub mod action;
pub mod core;
pub mod drive;
pub mod mail;
pub mod state;

mod flight;
mod heap;
mod missed;
mod regain;
mod register;
mod shelf;
mod skew;
mod tell;

pub use drive::{Doors, Order, Plan, run};

use crate::schedule::entry::Entry;
use crate::task::Task;
use std::sync::Arc;

/// The definitions of an application, which may change at any time.
pub trait Definitions: Send {
    /// May they have changed since they were last read? Asked every second, so it must not cost
    /// much.
    fn changed(&mut self) -> bool;

    /// Reads them. What is wrong has been told by then. `None`: they cannot be seen at present,
    /// which says nothing about them.
    fn read(&mut self) -> Option<Book>;
}

/// What is to be sent, and where to.
pub struct Book {
    /// The entries, with names of their own.
    pub entries: Vec<Arc<Entry>>,
    /// Where a task of an entry is sent to.
    pub address: Box<dyn Fn(&Entry) -> Address + Send>,
}

/// Where a task is sent to.
#[derive(Debug, Clone, Default)]
pub struct Address {
    /// The queue.
    pub queue: String,
    /// The priority, 0 to 9.
    pub priority: Option<u8>,
    /// Its definition, if it is one of ours.
    pub task: Option<Arc<Task>>,
}
