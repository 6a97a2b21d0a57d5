//! What is promised of every broker and every result store, whatever it is made of.

pub mod backend;
pub mod broker;
mod ends;
mod files;
pub mod ledger;
pub mod redis;
mod send;
pub mod sites;
mod sqlite;
