//! Connections: to a store, where it is ([`url`]) and how it is opened, and between a worker and
//! its guard ([`guard`]). No policy.

pub mod address;
pub mod error;
pub mod guard;
#[cfg(feature = "redis")]
pub mod redis;
pub mod sqlite;
#[cfg(feature = "redis")]
mod tls;
pub mod url;

/// A connection that others may use too.
#[derive(Clone, Copy)]
pub enum Connection<'a> {
    /// To this file.
    Sqlite(&'a sqlite::Db),
    /// To this server.
    #[cfg(feature = "redis")]
    Redis(&'a redis::Link),
}
