//! Celery's protocol: messages, bodies, result documents. Knows nothing of tasks.

pub mod auth;
pub mod body;
mod compression;
mod decode;
pub mod draft;
mod encode;
pub mod exception;
mod lenient;
mod message;
mod payload;
pub mod repr;
pub mod result;
pub mod saferepr;
mod serializer;
pub mod signature;
mod stored;
pub mod task_protocol;
pub mod value;

pub use body::Arguments;
pub use compression::Compression;
pub use draft::{Draft, ExchangeRoute};
pub use encode::{BodyFormat, EncodeError};
pub use exception::Exception;
pub use message::{Malformed, Message};
pub use payload::Payload;
pub use result::{Record, TaskState};
pub use serializer::{AcceptedContent, Serializer};
pub use signature::{Embed, Signature};
pub use stored::{ResultFormat, STATE_OF, Shape};
