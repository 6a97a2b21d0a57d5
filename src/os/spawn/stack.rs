//! What a thread needs for `clone`: a stack for the child.

use super::{ChildSetup, SpawnError};
use crate::os::last_error;
use std::cell::OnceCell;
use std::ptr::null_mut;

/// The child's stack. It calls nothing deep; the kernel commits only touched pages.
const STACK_BYTES: usize = 64 * 1024;

thread_local! {
    /// Mapped at this thread's first start of a process, used again by all others.
    static STACK: OnceCell<Stack> = const { OnceCell::new() };
}

/// Calls with this thread's stack for children.
pub(super) fn with_stack<T>(
    call: impl FnOnce(&Stack) -> Result<T, SpawnError>,
) -> Result<T, SpawnError> {
    STACK.with(|stack| match stack.get() {
        Some(stack) => call(stack),
        None => {
            let made = Stack::new()?;
            call(stack.get_or_init(|| made))
        }
    })
}

/// Memory for the child's stack, with a page below it that nobody may touch.
pub(super) struct Stack(*mut libc::c_void);

impl Stack {
    fn new() -> Result<Stack, SpawnError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a fresh mapping, which no other memory can be affected by.
        let base = unsafe { libc::mmap(null_mut(), STACK_BYTES, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(SpawnError { step: ChildSetup::Prepare, errno: last_error() });
        }
        // SAFETY: the lowest page of the mapping we just made, that nobody uses.
        unsafe { libc::mprotect(base, 4096, libc::PROT_NONE) };
        Ok(Stack(base))
    }

    /// Its lowest address, and its size.
    pub(super) fn whole(&self) -> (*mut libc::c_void, usize) {
        (self.0, STACK_BYTES)
    }

    /// Where the stack begins: it grows downwards.
    pub(super) fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(STACK_BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` mapped; no child uses it, or we would stand still.
        unsafe { libc::munmap(self.0, STACK_BYTES) };
    }
}
