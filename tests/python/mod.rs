//! The real Celery 5.7 at the other end of the same file or server: it sends to us and reads our
//! results, we send to it and read its results; its beat and ours send the same. Without `target/venv` these tests fail.

mod auth;
mod beat;
mod bodies;
mod builtins;
mod canvas;
mod cases;
mod flows;
mod forms;
mod hostile;
mod messages;
mod own;
mod redis;
mod results;
mod sends;
mod worker;
mod works;

use crate::harness::TestDir;

/// Python that has `app` on the addresses in `sys.argv[1:3]`, and prints JSON. `got` gives a result or
/// the exception that it raises.
pub const APP: &str = r#"
import json, sys, warnings
warnings.simplefilter("ignore")
from celery import Celery
app = Celery("interop", broker=sys.argv[1], backend=sys.argv[2])
def say(value):
    print(json.dumps(value))
def got(result):
    try:
        return result.get(timeout=60)
    except Exception as error:
        return [type(error).__name__, str(error)]
"#;

/// Runs [`APP`] and `script` where `app` has its messages.
pub fn celery(app: &TestDir, script: &str) -> serde_json::Value {
    let [broker, backend] = app.celery_addresses();
    crate::harness::python::run(&format!("{APP}\n{script}"), &[&broker, &backend])
}
