//! Settings, and the tools to read what people write: YAML with line numbers, words for
//! durations and sizes, diagnostics. Pure: everything here takes text; the files, the
//! environment and the command line are read by `cli`.

pub mod beat;
pub mod celery;
pub mod celery_values;
pub mod diagnostic;
pub mod forms;
pub mod kind;
pub mod load;
pub mod names;
pub mod node;
pub mod routes;
mod rules;
pub mod secret;
pub mod settings;
pub mod transport;
pub mod units;
pub mod yaml;
pub mod zone;

pub use diagnostic::{Diagnostic, Faults, nearest};
pub use load::{Given, Layers};
pub use settings::{Row, SettingSource, Settings};
