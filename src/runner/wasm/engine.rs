//! Wasmtime's engines: one set of settings, two ways to allocate.
//!
//! Instances normally come from a pool whose address space is reserved once, which makes
//! starting one a matter of a microsecond. What does not fit the pool (a giant table, many
//! memories), or a host that grants no such address space, is served on demand by a
//! second engine. The settings that shape machine code are the same in both, so a module
//! is compiled once and loads in either. Metering changes the code and has its own pair.

use std::hash::{Hash, Hasher};
use std::sync::OnceLock;
use wasmtime::{Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

/// Stack of WASM code in bytes. The thread that calls a plain function lends it, and
/// threads of the standard library have 2 MiB; interpreters compiled to WASM recurse
/// deeply, so it gets half of that.
pub(super) const STACK_BYTES: usize = 1024 * 1024;

/// Stack of a WASI command, its host functions included.
const HOSTED_STACK_BYTES: usize = 2 * 1024 * 1024;

/// Core instances per slot: a component made from a command has four, a composed one dozens.
const INSTANCES_PER_SLOT: u32 = 64;

/// Linear memories per slot. Each reserves 4 GiB of address space, of which x86-64
/// has 128 TiB.
const MEMORIES_PER_SLOT: u32 = 4;

/// Tables per slot; a component made from a command has three.
const TABLES_PER_SLOT: u32 = 16;

/// Elements of one pooled table: ten times those of the largest language runtimes seen.
/// They are reserved, not resident: 8 MiB of address space per table.
const TABLE_ELEMENTS: usize = 1024 * 1024;

/// Bookkeeping of one instance. It grows with the number of functions; it is a limit, not
/// a reservation.
const INSTANCE_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of a memory that are wiped by writing instead of by a system call when an
/// instance ends: a small module touches no more, and `madvise` costs several microseconds.
const MEMORY_KEPT: usize = 64 * 1024;

/// The same for tables.
const TABLE_KEPT: usize = 16 * 1024;

/// More slots than that are not pooled: the pool's bookkeeping itself would be megabytes.
const SLOTS_MAX: usize = 512;

/// Is the execution of instructions counted?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metering {
    /// No; the code is faster.
    Free,
    /// Yes, by `fuel`.
    Fuel,
}

impl Metering {
    /// What a task with this `fuel` setting needs.
    pub(super) fn of(fuel: Option<u64>) -> Metering {
        if fuel.is_some() { Metering::Fuel } else { Metering::Free }
    }
}

/// An engine that allocates on demand. It also compiles, in the child process.
///
/// # Errors
/// The processor lacks what Wasmtime needs.
pub(super) fn on_demand(metering: Metering) -> wasmtime::Result<Engine> {
    Engine::new(&settings(metering))
}

/// An engine that takes instances from a pool for `slots` attempts at once.
///
/// # Errors
/// The address space cannot be reserved.
fn pooled(metering: Metering, slots: usize) -> wasmtime::Result<Engine> {
    let slots = slots.clamp(1, SLOTS_MAX) as u32;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots * INSTANCES_PER_SLOT)
        .total_component_instances(slots)
        .total_memories(slots * MEMORIES_PER_SLOT)
        .total_tables(slots * TABLES_PER_SLOT)
        .total_stacks(slots)
        .total_gc_heaps(slots)
        .max_memories_per_module(MEMORIES_PER_SLOT)
        .max_memories_per_component(MEMORIES_PER_SLOT)
        .max_tables_per_module(TABLES_PER_SLOT)
        .max_tables_per_component(TABLES_PER_SLOT)
        .max_core_instances_per_component(INSTANCES_PER_SLOT)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_component_instance_size(INSTANCE_BYTES)
        .table_elements(TABLE_ELEMENTS)
        .max_unused_warm_slots(slots)
        .linear_memory_keep_resident(MEMORY_KEPT)
        .table_keep_resident(TABLE_KEPT);
    let mut settings = settings(metering);
    settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&settings)
}

/// Everything that shapes machine code, in one place.
fn settings(metering: Metering) -> wasmtime::Config {
    let mut settings = wasmtime::Config::new();
    settings
        .epoch_interruption(true)
        .consume_fuel(metering == Metering::Fuel)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(HOSTED_STACK_BYTES)
        // Source lines would need the debug sections, which are large and rarely there.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    settings
}

/// Sixteen hexadecimal digits that differ when compiled code of one engine must not be
/// loaded into another: version, processor features, settings.
pub(super) fn fingerprint(engine: &Engine) -> String {
    // The hasher of the standard library with its fixed keys: the same in every process
    // of this binary, which is all that is asked.
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The engines of one kind of metering, made when first needed.
#[derive(Debug)]
pub(super) struct Pair {
    metering: Metering,
    slots: usize,
    pooled: OnceLock<Option<Engine>>,
    on_demand: OnceLock<wasmtime::Result<Engine>>,
}

impl Pair {
    /// Nothing yet.
    pub(super) fn new(metering: Metering, slots: usize) -> Pair {
        Pair { metering, slots, pooled: OnceLock::new(), on_demand: OnceLock::new() }
    }

    /// Does their code count fuel?
    pub(super) fn metering(&self) -> Metering {
        self.metering
    }

    /// The engine with the pool; `None` where its address space is not granted.
    pub(super) fn pooled(&self) -> Option<&Engine> {
        self.pooled.get_or_init(|| pooled(self.metering, self.slots).ok()).as_ref()
    }

    /// The engine for what the pool cannot hold.
    ///
    /// # Errors
    /// A sentence: this machine cannot run WASM at all.
    pub(super) fn on_demand(&self) -> Result<&Engine, String> {
        let made = self.on_demand.get_or_init(|| on_demand(self.metering));
        made.as_ref().map_err(|why| format!("cannot start the WASM engine: {why:#}"))
    }

    /// Moves time on in every engine that exists: running code looks at its limits.
    pub(super) fn tick(&self) {
        if let Some(Some(engine)) = self.pooled.get() {
            engine.increment_epoch();
        }
        if let Some(Ok(engine)) = self.on_demand.get() {
            engine.increment_epoch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_allocation_differs_within_a_pair() {
        for metering in [Metering::Free, Metering::Fuel] {
            let pooled = pooled(metering, 2).unwrap();
            assert_eq!(fingerprint(&pooled), fingerprint(&on_demand(metering).unwrap()));
        }
    }

    #[test]
    fn metering_changes_the_fingerprint() {
        let free = on_demand(Metering::Free).unwrap();
        assert_ne!(fingerprint(&free), fingerprint(&on_demand(Metering::Fuel).unwrap()));
    }
}
