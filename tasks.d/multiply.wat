;; The smallest WASM task: numbers in, a number out. WASM text is compiled like a binary.
(module
  (func (export "multiply") (param $a i64) (param $b i64) (result i64)
    (i64.mul (local.get $a) (local.get $b))))
