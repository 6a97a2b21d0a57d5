//! Modules that behave, and modules that do not.

use super::*;
use crate::runner::{CancelReason, Ending, Outcome, TimeLimit};
use crate::task::keys::plain;
use crate::task::{Dir, Param, Stdin};
use serde_json::value::RawValue;
use std::fs;
use std::hash::{Hash, Hasher};
use std::thread;

mod host;
mod limits;
mod programs;
mod shipped;

/// A runtime with a cache of its own, and a folder for modules.
struct House {
    runtime: Runtime,
    folder: tempfile::TempDir,
}

fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        cache_dir: folder.path().join("cache"),
        slots: 4,
        default_memory: 64 * 1024 * 1024,
        compile_timeout: Duration::from_secs(60),
    };
    House { runtime: Runtime::new(config), folder }
}

impl House {
    /// An attempt at a task whose module has this source.
    fn attempt(&self, wat: &str, export: Option<&str>, args: &[&str]) -> Attempt {
        let mut hasher = std::hash::DefaultHasher::new();
        wat.hash(&mut hasher);
        let name = format!("{:x}.wat", hasher.finish());
        let module = self.folder.path().join(name);
        fs::write(&module, wat).unwrap();
        attempt(&module, export, args)
    }

    fn prepare(&self, task: &Task) -> Prepared {
        match self.runtime.prepare(task) {
            Prepared::Compile { source, target } => match compile(&source, &target) {
                Ok(()) => self.runtime.prepare(task),
                Err(why) => Prepared::Refused(Exception::new("builtins", "RuntimeError", why)),
            },
            other => other,
        }
    }

    fn run(&self, attempt: &Attempt) -> Outcome {
        assert_eq!(self.prepare(&attempt.task), Prepared::Ready);
        self.runtime.run(attempt, Arc::default())
    }

    /// The text of a function's result.
    fn call(&self, wat: &str, export: &str, args: &[&str]) -> String {
        let outcome = self.run(&self.attempt(wat, Some(export), args));
        assert_eq!(outcome.ending, Ending::Returned);
        stdout(&outcome)
    }
}

fn attempt(module: &Path, export: Option<&str>, args: &[&str]) -> Attempt {
    let raw = |json: &&str| RawValue::from_string(json.to_string()).unwrap();
    Attempt {
        task: Arc::new(task(module, export)),
        id: "an-id".into(),
        root_id: "a-root".into(),
        parent_id: String::new(),
        retries: 2,
        hostname: "worker1@here".into(),
        queue: "celery".into(),
        args: args.iter().map(raw).collect(),
        kwargs: Vec::new(),
        bound: Vec::new(),
        details: vec![],
        access: None,
        worker: None,
        soft_time_limit: None,
        time_limit: Some(Duration::from_secs(20)),
        env: Arc::default(),
    }
}

fn task(module: &Path, export: Option<&str>) -> Task {
    let program = Program::Wasm { module: module.into(), export: export.map(Into::into) };
    plain("a.task", Path::new(""), 0, program)
}

/// Changes the task of an attempt.
fn with(mut attempt: Attempt, change: impl FnOnce(&mut Task)) -> Attempt {
    change(Arc::make_mut(&mut attempt.task));
    attempt
}

fn stdout(outcome: &Outcome) -> String {
    String::from_utf8(outcome.stdout.bytes.clone()).unwrap()
}

/// Class and message of the exception it ended with.
fn wrong(ending: &Ending) -> (String, String) {
    match ending {
        Ending::Trapped(exception, _) | Ending::Refused(exception) => {
            let message = exception.exc_message[0].as_str().unwrap_or_default();
            (exception.exc_type.clone(), message.into())
        }
        other => panic!("{other:?}"),
    }
}

const MULTIPLY: &str = r#"(module
  (func (export "multiply") (param i64 i64) (result i64)
    local.get 0 local.get 1 i64.mul)
  (func (export "half") (param f64) (result f64)
    local.get 0 f64.const 2 f64.div)
  (func (export "both") (param i32) (result i32 f32)
    local.get 0 local.get 0 f32.convert_i32_s)
  (func (export "nothing"))
  (func (export "nan") (result f64) f64.const nan)
  (func (export "vector") (result v128) v128.const i64x2 0 0))"#;

#[test]
fn functions_take_and_give_numbers() {
    let house = house();
    let call = |export, args: &[&str]| house.call(MULTIPLY, export, args);
    assert_eq!(call("multiply", &["6", "7"]), "42");
    assert_eq!(call("multiply", &["3037000500", "3037000499"]), "9223372033963249500");
    assert_eq!(call("half", &["5"]), "2.5");
    assert_eq!(call("both", &["-3"]), "[-3,-3.0]");
    assert_eq!(call("nothing", &[]), "null");
    assert_eq!(call("nan", &[]), "\"NaN\"");
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let house = house();
    let refuse = |export, args: &[&str]| {
        wrong(&house.run(&house.attempt(MULTIPLY, Some(export), args)).ending)
    };
    let (class, message) = refuse("multiply", &["6"]);
    assert_eq!(class, "TypeError");
    assert_eq!(message, "multiply() takes 2 arguments, got 1");
    let (class, message) = refuse("both", &["3000000000"]);
    assert_eq!(class, "OverflowError");
    assert_eq!(message, "argument 1: 3000000000 does not fit into i32");
    assert_eq!(refuse("half", &["\"1\""]).0, "TypeError");
}

#[test]
fn parameters_bring_arguments_into_order() {
    let house = house();
    let param = |name: &str| Param { name: name.into(), default: None };
    let mut attempt = house.attempt(MULTIPLY, Some("multiply"), &[]);
    let raw = |json: &str| RawValue::from_string(json.into()).unwrap();
    attempt.kwargs =
        vec![("b".into(), raw("3")), ("a".into(), raw("x".replace('x', "2").as_str()))];
    assert!(wrong(&house.run(&attempt).ending).1.contains("keyword argument `b`"));
    attempt.bound = vec![("a".into(), raw("2")), ("b".into(), raw("3"))];
    let attempt = with(attempt, |task| task.params = Some(vec![param("a"), param("b")]));
    assert_eq!(stdout(&house.run(&attempt)), "6");
}

#[test]
fn what_cannot_be_called_is_refused_beforehand() {
    let house = house();
    let refuse = |wat: &str, export| match house.prepare(&house.attempt(wat, export, &[]).task) {
        Prepared::Refused(exception) => exception.exc_message[0].as_str().unwrap().to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refuse(MULTIPLY, Some("divide")).contains("it exports both, half, multiply"));
    assert!(refuse(MULTIPLY, Some("vector")).contains("not numbers"));
    assert!(refuse(MULTIPLY, None).contains("no WASI command"));
    let imports = r#"(module (import "env" "sleep" (func)) (func (export "f")))"#;
    let message = refuse(imports, Some("f"));
    assert!(message.contains("imports `sleep` from `env`; qworker offers WASI"), "{message}");
    assert!(refuse("(module (func (export \"f\") i32.const))", Some("f")).contains("i32.const"));
    let gone = attempt(Path::new("/nowhere/x.wasm"), None, &[]);
    let Prepared::Refused(exception) = house.runtime.prepare(&gone.task) else { panic!() };
    assert_eq!(exception.exc_type, "FileNotFoundError");
}

#[test]
fn libraries_are_initialized() {
    let wat = r#"(module
      (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
      (global $n (mut i32) (i32.const 1))
      (memory (export "memory") 1)
      (func (export "_initialize") (global.set $n (i32.const 40)))
      (func (export "next") (result i32)
        (drop (call $yield)) (i32.add (global.get $n) (i32.const 2))))"#;
    let house = house();
    assert_eq!(house.call(wat, "next", &[]), "42");
    // An instance is never used twice.
    assert_eq!(house.call(wat, "next", &[]), "42");
}

#[test]
fn components_are_called_by_name() {
    let wat = r#"(component
      (core module $m
        (memory (export "memory") 1)
        (global $top (mut i32) (i32.const 1024))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
          (global.get $top)
          (global.set $top (i32.add (global.get $top) (local.get 3))))
        (func (export "add") (param i32 i64) (result i64)
          (i64.add (i64.extend_i32_u (local.get 0)) (local.get 1)))
        (func (export "echo") (param i32 i32) (result i32)
          (i32.store (i32.const 0) (local.get 0))
          (i32.store (i32.const 4) (local.get 1))
          (i32.const 0)))
      (core instance $i (instantiate $m))
      (func (export "add") (param "a" u8) (param "b" s64) (result s64)
        (canon lift (core func $i "add")))
      (func $echo (param "text" string) (result string)
        (canon lift (core func $i "echo") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
      (instance $texts (export "echo" (func $echo)))
      (export "house:test/texts" (instance $texts))
      (func (export "bytes") (param "all" (list u8))
        (canon lift (core func $i "drop") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#;
    let wat = wat.replace(
        r#"(func (export "echo")"#,
        r#"(func (export "drop") (param i32 i32))
        (func (export "echo")"#,
    );
    let house = house();
    assert_eq!(house.call(&wat, "add", &["200", "-1"]), "199");
    assert_eq!(house.call(&wat, "house:test/texts#echo", &["\"h\\u00e9\""]), "\"hé\"");
    let over = house.run(&house.attempt(&wat, Some("add"), &["256", "1"]));
    assert_eq!(wrong(&over.ending).1, "argument 1 (`a`): 256 does not fit into u8");
    let attempt = house.attempt(&wat, Some("bytes"), &[]);
    assert!(matches!(house.prepare(&attempt.task), Prepared::Refused(_)));
    let attempt = house.attempt(&wat, Some("texts"), &[]);
    let Prepared::Refused(exception) = house.prepare(&attempt.task) else { panic!() };
    let message = exception.exc_message[0].as_str().unwrap();
    assert!(message.contains("add, bytes, house:test/texts#echo"), "{message}");
}

#[test]
fn a_replaced_module_is_noticed() {
    let house = house();
    let attempt = house.attempt(MULTIPLY, Some("multiply"), &["6", "7"]);
    assert_eq!(stdout(&house.run(&attempt)), "42");
    let Program::Wasm { module, .. } = &attempt.task.program else { panic!() };
    fs::write(module, MULTIPLY.replace("i64.mul", "i64.add")).unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while house.runtime.prepare(&attempt.task) == Prepared::Ready {
        assert!(Instant::now() < until);
        thread::yield_now();
    }
    // Until it is compiled, the old one serves.
    assert_eq!(stdout(&house.runtime.run(&attempt, Arc::default())), "42");
    assert_eq!(stdout(&house.run(&attempt)), "13");
}

#[test]
fn a_damaged_cache_is_compiled_again() {
    let house = house();
    let attempt = house.attempt(MULTIPLY, Some("multiply"), &["6", "7"]);
    let Prepared::Compile { source, target } = house.runtime.prepare(&attempt.task) else {
        panic!()
    };
    compile(&source, &target).unwrap();
    let mut bytes = fs::read(&target).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&target, bytes).unwrap();
    assert!(matches!(house.runtime.prepare(&attempt.task), Prepared::Compile { .. }));
    assert_eq!(stdout(&house.run(&attempt)), "42");
}

#[test]
fn a_module_that_does_not_compile_is_remembered() {
    let house = house();
    let attempt = house.attempt("(module (func (export \"f\") drop))", Some("f"), &[]);
    let task = &attempt.task;
    let Prepared::Compile { source, target } = house.runtime.prepare(task) else { panic!() };
    let why = compile(&source, &target).unwrap_err();
    let exception = Exception::new("builtins", "ValueError", why);
    house.runtime.refuse(task, exception.clone());
    assert_eq!(house.runtime.prepare(task), Prepared::Refused(exception));
}

#[test]
fn what_changes_while_being_compiled_is_not_mistaken() {
    let house = house();
    let attempt = house.attempt(MULTIPLY, Some("multiply"), &[]);
    let Prepared::Compile { source, target } = house.runtime.prepare(&attempt.task) else {
        panic!()
    };
    fs::write(&source, "(module)").unwrap();
    assert!(compile(&source, &target).unwrap_err().contains("has changed"));
}

#[test]
fn what_does_not_fit_the_pool_runs_on_demand() {
    let tables = "(table 1 funcref)".repeat(20);
    let wat = format!("(module {tables} (func (export \"f\") (result i32) i32.const 7))");
    assert_eq!(house().call(&wat, "f", &[]), "7");
    let wat = r#"(module (table 2000000 funcref) (func (export "f") (result i32) i32.const 8))"#;
    assert_eq!(house().call(wat, "f", &[]), "8");
}
