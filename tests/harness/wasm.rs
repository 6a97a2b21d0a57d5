//! WASM modules that several tests run.

/// A WASI command that prints what it is given, a NUL after each item: `args` are its arguments,
/// `environ` its variables.
pub fn wasi_printer(what: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "{what}_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "{what}_get" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (func (export "_start")
    (drop (call $sizes (i32.const 0) (i32.const 20)))
    (drop (call $get (i32.const 64) (i32.const 4096)))
    (i32.store (i32.const 16) (i32.const 4096))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8)))))"#
    )
}
