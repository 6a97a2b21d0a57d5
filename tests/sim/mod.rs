//! The pure parts, run through thousands of invented histories. A failure names its seed.

mod beat;
mod broker;
mod core;
mod guard;
mod send;
mod world;
