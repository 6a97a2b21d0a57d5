//! Celery's protocol: messages, bodies, result documents. Knows nothing of tasks.

pub mod body;
pub mod draft;
pub mod exception;
mod instant;
mod lenient;
pub mod message;
pub mod repr;
pub mod result;
pub mod saferepr;
pub mod value;

pub use body::Arguments;
pub use exception::Exception;
pub use message::{Malformed, Message};
pub use result::{Record, State};
