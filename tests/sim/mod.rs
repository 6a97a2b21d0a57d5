//! The pure parts, run through thousands of invented histories. A failure names its seed.

mod core;
mod world;
