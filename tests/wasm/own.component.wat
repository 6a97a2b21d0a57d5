;; A component that asks its worker by the interface of etc/wit/qworker.wit: it sets states, calls a
;; task, whose id is its result, and wants to be ignored.
(component
  (type $worker (instance
    (type $refusal' (record (field "code" string) (field "message" string)))
    (export "refusal" (type $refusal (eq $refusal')))
    (type $done (result (error $refusal)))
    (type $text (result string (error $refusal)))
    (export "progress" (func (param "done" f64) (param "total" f64) (result $done)))
    (export "update-state" (func (param "state" string) (param "meta" string) (result $done)))
    (export "ignore" (func (result $done)))
    (export "call"
      (func (param "signature" string) (param "unregistered" bool) (result $text)))))
  (import "qworker:task/worker@0.1.0" (instance $worker (type $worker)))

  ;; Memory for what comes and goes; nothing is given back.
  (core module $memory
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at
        (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))

  (core func $progress
    (canon lower (func $worker "progress") (memory $mem) (realloc $realloc)))
  (core func $update
    (canon lower (func $worker "update-state") (memory $mem) (realloc $realloc)))
  (core func $ignore (canon lower (func $worker "ignore") (memory $mem) (realloc $realloc)))
  (core func $call (canon lower (func $worker "call") (memory $mem) (realloc $realloc)))

  (core module $program
    (import "host" "memory" (memory 1))
    (import "host" "progress" (func $progress (param f64 f64 i32)))
    (import "host" "update-state" (func $update (param i32 i32 i32 i32 i32)))
    (import "host" "ignore" (func $ignore (param i32)))
    (import "host" "call" (func $call (param i32 i32 i32 i32)))
    (data (i32.const 0) "UPLOADING")
    (data (i32.const 16) "[1]")
    (data (i32.const 32) "{\"task\": \"inner\"}")
    ;; The place of a text and its length, as a component gives a text.
    (func (export "run") (result i32)
      (call $progress (f64.const 3) (f64.const 10) (i32.const 128))
      (call $update
        (i32.const 0) (i32.const 9) (i32.const 16) (i32.const 3) (i32.const 128))
      (call $call (i32.const 32) (i32.const 17) (i32.const 0) (i32.const 256))
      ;; A byte says whether it was done; behind it is the id.
      (if (i32.load8_u (i32.const 256)) (then unreachable))
      (call $ignore (i32.const 128))
      (i32.const 260)))
  (core instance $program (instantiate $program (with "host" (instance
    (export "memory" (memory $mem))
    (export "progress" (func $progress))
    (export "update-state" (func $update))
    (export "ignore" (func $ignore))
    (export "call" (func $call))))))

  (func (export "run") (result string)
    (canon lift (core func $program "run") (memory $mem))))
