//! Celery's protocol: messages, bodies, result documents. Knows nothing of tasks.

pub mod body;
mod decode;
mod draft;
pub mod exception;
mod lenient;
mod message;
mod payload;
pub mod repr;
pub mod result;
pub mod saferepr;
pub mod signature;
pub mod task_protocol;
pub mod value;

pub use body::Arguments;
pub use decode::{AcceptedContent, Serializer};
pub use draft::{Draft, ExchangeRoute};
pub use exception::Exception;
pub use message::{Malformed, Message};
pub use payload::Payload;
pub use result::{Record, TaskState};
pub use signature::{Embed, Signature};
