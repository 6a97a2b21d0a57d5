//! (to be written)
pub use crate::config::units::Rate;
