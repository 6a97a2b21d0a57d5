//! The worker's decisions without a worker: thousands of lives, each from a seed.

mod core;
mod world;
