//! The program that `scripts/fuzz` runs: LLVM's fuzzer on one of the targets, which the variable
//! `QWORKER_FUZZ` names. A panic, too much memory and too much time are finds.

#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;
use std::alloc::System;
use std::sync::OnceLock;
use targets::Target;

/// Bytes of memory that reading one message may need: eight times the largest body.
const MEMORY_MAX: usize = 512 << 20;

#[global_allocator]
static MEMORY: cap::Cap<System> = cap::Cap::new(System, MEMORY_MAX);

static TARGET: OnceLock<&Target> = OnceLock::new();

fuzz_target!(init: begin(), |input: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(input);
    }
});

fn begin() {
    let name = std::env::var("QWORKER_FUZZ").unwrap_or_default();
    let target = targets::ALL.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| {
        let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
        panic!("QWORKER_FUZZ={name}: expected one of {}", names.join(", "))
    });
    TARGET.get_or_init(|| target);
    // The fuzzer's hook ends the process; the product goes on after a panic that it contains.
    let end = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !qworker::os::panics::is_contained() {
            end(panic);
        }
    }));
}
