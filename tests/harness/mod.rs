//! What the tests stand on: applications in temporary folders, real workers, the real
//! command line, Python's Celery, children of this binary. Nothing here asserts anything
//! about qworker itself.

pub mod app;
pub mod child;
pub mod machine;
pub mod process;
pub mod python;
pub mod redis;
pub mod tzif;
pub mod wait;
pub mod waiting;
pub mod wasm;
pub mod worker;

pub use app::{Output, Place, TestDir};
pub use wait::{SOON, eventually};
pub use waiting::Waiting;
pub use worker::Worker;

/// These functions of a module as tests, once for each [`Place`].
macro_rules! in_every_place {
    ($($clause:ident)*) => {
        mod in_a_file {
            $(
                #[test]
                fn $clause() {
                    super::$clause(crate::harness::Place::File);
                }
            )*
        }
        mod on_redis {
            $(
                #[test]
                fn $clause() {
                    super::$clause(crate::harness::Place::Redis);
                }
            )*
        }
    };
}
pub(crate) use in_every_place;

/// The name of this host.
pub fn host() -> String {
    qworker::os::host::name()
}

/// Runs `work` on an event loop like the worker's: one thread, with time, I/O and local tasks.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
