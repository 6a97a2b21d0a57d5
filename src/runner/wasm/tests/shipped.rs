//! The modules that `tasks.d` ships. What other toolchains make is shown in tests/show/modules.rs.

use super::*;

#[test]
fn shipped_examples_work() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("tasks.d");
    let house = house();
    let outcome = house.run(&attempt(&shipped.join("hello_c.wasm"), None, &["\"World\""]));
    assert_eq!(stdout(&outcome), "Hello, World, from C in task an-id\n");
    let outcome = house.run(&attempt(&shipped.join("multiply.wat"), Some("multiply"), &["6", "7"]));
    assert_eq!(stdout(&outcome), "42");
}

#[test]
fn many_at_once() {
    let house = house();
    let hello = Path::new(env!("CARGO_MANIFEST_DIR")).join("tasks.d/hello_c.wasm");
    let attempt = attempt(&hello, None, &["\"you\""]);
    assert_eq!(house.prepare(&attempt.task), Prepared::Ready);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let outcome = house.runtime.run(&attempt, Arc::default());
                    assert_eq!(outcome.ending, Ending::Exited(0));
                }
            });
        }
    });
}
