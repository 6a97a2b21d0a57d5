//! (to be written)

pub mod module;
