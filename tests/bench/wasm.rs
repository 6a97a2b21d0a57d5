//! One instance, one call, one drop: on Wasmtime by itself, and as a worker's thread does it.

use qworker::runner::wasm::{Config, Prepared, Runtime, compile};
use qworker::runner::{Attempt, Cancel, Ending};
use qworker::task::keys::plain;
use qworker::task::{Program, Task};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::{
    Engine, InstanceAllocationStrategy, Linker, Module, PoolingAllocationConfig, Store,
};

/// Prints the median and the 99th percentile in microseconds.
pub fn print(times: &[Duration]) {
    let mut times = times.to_vec();
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("{:.2} {:.2}", at(0.5), at(0.99));
}

fn measured(calls: usize, mut call: impl FnMut()) -> Vec<Duration> {
    (0..calls / 10).for_each(|_| call());
    let time = |_| {
        let start = Instant::now();
        call();
        start.elapsed()
    };
    (0..calls).map(time).collect()
}

/// Wasmtime with a pool and epochs, nothing else.
pub fn bare(module: &Path, export: &str, calls: usize) -> Vec<Duration> {
    let mut settings = wasmtime::Config::new();
    let pool = PoolingAllocationConfig::new();
    settings.epoch_interruption(true);
    settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&settings).unwrap();
    let module = Module::from_file(&engine, module).unwrap();
    let linked = Linker::new(&engine).instantiate_pre(&module).unwrap();
    measured(calls, || {
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        let instance = linked.instantiate(&mut store).unwrap();
        let function = instance.get_typed_func::<(), ()>(&mut store, export).unwrap();
        function.call(&mut store, ()).unwrap();
    })
}

/// The runner, on a thread as the pool has them.
pub fn ours(module: &Path, export: &str, calls: usize) -> Vec<Duration> {
    let cache = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(Config {
        cache_dir: cache.path().join("cache"),
        slots: 10,
        default_memory: 512 * 1024 * 1024,
        compile_timeout: Duration::from_secs(60),
    });
    let program = Program::Wasm { module: module.into(), export: Some(export.into()) };
    let attempt = attempt(plain("noop", Path::new("bench"), 0, program));
    if let Prepared::Compile { source, target } = runtime.prepare(&attempt.task) {
        compile(&source, &target).unwrap();
    }
    let work = move || {
        measured(calls, || {
            assert_eq!(runtime.prepare(&attempt.task), Prepared::Ready);
            let outcome = runtime.run(&attempt, Cancel::default());
            assert_eq!(outcome.ending, Ending::Returned);
        })
    };
    std::thread::spawn(work).join().unwrap()
}

fn attempt(task: Task) -> Attempt {
    Attempt {
        task: Arc::new(task),
        id: "8a2f6c1e-0000-7000-8000-000000000000".into(),
        root_id: String::new(),
        parent_id: String::new(),
        retries: 0,
        hostname: "worker1@bench".into(),
        queue: "celery".into(),
        args: Vec::new(),
        kwargs: Vec::new(),
        bound: Vec::new(),
        details: vec![],
        access: None,
        worker: None,
        soft_time_limit: None,
        time_limit: None,
        env: Arc::new(Vec::new()),
    }
}
