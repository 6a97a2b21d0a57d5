//! Rate limits: Celery's `N/s`, `N/m`, `N/h` texts, and the token bucket behind them.

/// Starts per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub f64);
