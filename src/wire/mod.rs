//! Celery's protocol: messages, bodies, result documents. Knows nothing of tasks.

pub mod exception;

pub use exception::Exception;
