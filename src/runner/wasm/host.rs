//! What a module may ask of its worker: the requests of [`crate::wire::task_protocol`] as functions.
//!
//! A core module imports them from `qworker`. Each takes the place and the length of its parameters,
//! JSON, in the memory that the module exports as `memory`. It gives the length of the answer, which
//! `answer(place, length)` copies: of a result as it is, of an error negative. A component imports the
//! interface of `etc/wit/qworker.wit`.

use super::monitor::StoreData;
use super::sandbox::{Preview1, Preview2};
use crate::wire::task_protocol::{Answer, FRAME_MAX, Refusal, Request};
use crate::wire::value;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wasmtime::component::{ComponentType, Lift, Linker as ComponentLinker, LinkerInstance, Lower};
use wasmtime::{Caller, Extern, Linker, StoreContextMut};

/// The module of a core module's imports.
const MODULE: &str = "qworker";

/// The interface of a component's imports.
const INTERFACE: &str = "qworker:task/worker@0.1.0";

/// The requests by the names of a core module's imports.
const FUNCTIONS: [(&str, &str); 9] = [
    ("request", "request"),
    ("update_state", "update-state"),
    ("progress", "progress"),
    ("retry", "retry"),
    ("reject", "reject"),
    ("ignore", "ignore"),
    ("fail", "fail"),
    ("replace", "replace"),
    ("call", "call"),
];

/// Adds the functions for a core module.
pub(super) fn add_to_core(linker: &mut Linker<StoreData<Preview1>>) -> wasmtime::Result<()> {
    for (name, method) in FUNCTIONS {
        linker.func_wrap_async(MODULE, name, move |mut caller, (place, length): (i32, i32)| {
            Box::new(async move {
                let params = read(&mut caller, place, length)?;
                let answer = ask(caller.data().monitor.worker.clone(), method, &params).await;
                let (text, sign) = match answer {
                    Ok(text) => (text, 1),
                    Err(Refusal { code, message }) => {
                        (json!({"code": code, "message": message}).to_string(), -1)
                    }
                };
                let length = i32::try_from(text.len()).unwrap_or(i32::MAX);
                caller.data_mut().monitor.answer = text.into_bytes();
                Ok::<i32, wasmtime::Error>(sign * length)
            })
        })?;
    }
    linker.func_wrap(MODULE, "answer", copy_answer)?;
    Ok(())
}

/// Copies the last answer, as much as there is room for; gives how many bytes that was.
fn copy_answer(
    mut caller: Caller<'_, StoreData<Preview1>>,
    place: i32,
    length: i32,
) -> wasmtime::Result<i32> {
    let answer = std::mem::take(&mut caller.data_mut().monitor.answer);
    let count = answer.len().min(length as u32 as usize);
    let memory = memory(&mut caller)?;
    memory.write(&mut caller, place as u32 as usize, &answer[..count])?;
    caller.data_mut().monitor.answer = answer;
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

fn memory(caller: &mut Caller<'_, StoreData<Preview1>>) -> wasmtime::Result<wasmtime::Memory> {
    let found = caller.get_export("memory").and_then(Extern::into_memory);
    found.ok_or_else(|| wasmtime::Error::msg("the module does not export its memory as `memory`"))
}

fn read(
    caller: &mut Caller<'_, StoreData<Preview1>>,
    place: i32,
    length: i32,
) -> wasmtime::Result<String> {
    let (place, length) = (place as u32 as usize, length as u32 as usize);
    let memory = memory(caller)?;
    let data = memory.data(&caller);
    let bytes = place.checked_add(length).and_then(|end| data.get(place..end));
    let bytes = bytes.filter(|bytes| bytes.len() <= FRAME_MAX).ok_or_else(|| {
        wasmtime::Error::msg(format!(
            "parameters at {place} with {length} bytes: outside of the memory, or more than {FRAME_MAX}"
        ))
    })?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Asks the worker; a wait for it ends with the attempt's limits.
async fn ask(worker: Option<crate::runner::Worker>, method: &str, params: &str) -> Answer {
    let params = if params.trim().is_empty() { "{}" } else { params };
    let params: &RawValue = serde_json::from_str(params)
        .map_err(|error| Refusal::invalid(format!("params of {method}: {error}")))?;
    let request = Request { id: 0, method: method.into(), params: Some(params) };
    let ask = request.ask()?;
    let worker = worker.ok_or_else(Refusal::ended)?;
    worker.ask(ask).await.unwrap_or_else(|_| Err(Refusal::ended()))
}

/// The record `refusal` of the interface.
#[derive(Debug, Clone, ComponentType, Lift, Lower)]
#[component(record)]
struct Refused {
    code: String,
    message: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused { code: refusal.code.into(), message: refusal.message }
    }
}

type Context<'a> = StoreContextMut<'a, StoreData<Preview2>>;

type Done<T> = wasmtime::Result<(Result<T, Refused>,)>;

/// Asks; gives the answer.
async fn text(
    context: Context<'_>,
    method: &'static str,
    params: Result<String, Refusal>,
) -> Done<String> {
    let worker = context.data().monitor.worker.clone();
    let answer = match params {
        Ok(params) => ask(worker, method, &params).await,
        Err(refusal) => Err(refusal),
    };
    Ok((answer.map_err(Refused::from),))
}

/// Asks for what has no answer but that it is done.
async fn done(
    context: Context<'_>,
    method: &'static str,
    params: Result<String, Refusal>,
) -> Done<()> {
    let (answer,) = text(context, method, params).await?;
    Ok((answer.map(drop),))
}

/// Adds the interface for a component.
pub(super) fn add_to_component(
    linker: &mut ComponentLinker<StoreData<Preview2>>,
) -> wasmtime::Result<()> {
    let mut worker = linker.instance(INTERFACE)?;
    worker.func_wrap_async("request", |context: Context<'_>, (): ()| {
        Box::new(text(context, "request", Ok("{}".into())))
    })?;
    worker.func_wrap_async(
        "update-state",
        |context: Context<'_>, (state, meta): (String, String)| {
            let params = json("meta", &meta)
                .map(|meta| format!(r#"{{"state": {}, "meta": {}}}"#, json!(state), meta.get()));
            Box::new(done(context, "update-state", params))
        },
    )?;
    worker.func_wrap_async("progress", |context: Context<'_>, (ready, total): (f64, f64)| {
        let params = json!({"done": number(ready), "total": number(total)}).to_string();
        Box::new(done(context, "progress", Ok(params)))
    })?;
    worker.func_wrap_async(
        "call",
        |context: Context<'_>, (signature, unregistered): (String, bool)| {
            let params = json("signature", &signature).map(|signature| {
                let signature = signature.get();
                format!(r#"{{"signature": {signature}, "unregistered": {unregistered}}}"#)
            });
            Box::new(async move {
                let (answer,) = text(context, "call", params).await?;
                let id = |text: String| {
                    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
                    answer["id"].as_str().unwrap_or_default().to_string()
                };
                Ok((answer.map(id),))
            })
        },
    )?;
    add_ends(&mut worker)
}

/// Adds what says the meaning of the attempt's end.
fn add_ends(worker: &mut LinkerInstance<'_, StoreData<Preview2>>) -> wasmtime::Result<()> {
    worker.func_wrap_async(
        "retry",
        |context: Context<'_>, (countdown, max_retries): (Option<f64>, Option<u32>)| {
            let params = json!({"countdown": countdown, "max_retries": max_retries}).to_string();
            Box::new(done(context, "retry", Ok(params)))
        },
    )?;
    worker.func_wrap_async("reject", |context: Context<'_>, (requeue,): (bool,)| {
        Box::new(done(context, "reject", Ok(json!({ "requeue": requeue }).to_string())))
    })?;
    worker.func_wrap_async("ignore", |context: Context<'_>, (): ()| {
        Box::new(done(context, "ignore", Ok("{}".into())))
    })?;
    worker.func_wrap_async(
        "fail",
        |context: Context<'_>, (class, message, module): (String, String, Option<String>)| {
            let params = json!({"type": class, "message": message, "module": module}).to_string();
            Box::new(done(context, "fail", Ok(params)))
        },
    )?;
    worker.func_wrap_async("replace", |context: Context<'_>, (signature,): (String,)| {
        let params = json("signature", &signature)
            .map(|signature| format!(r#"{{"signature": {}}}"#, signature.get()));
        Box::new(done(context, "replace", params))
    })
}

/// A text that is to be JSON.
fn json(what: &str, text: &str) -> Result<Box<RawValue>, Refusal> {
    serde_json::from_str(text).map_err(|error| Refusal::invalid(format!("{what}: {error}")))
}

/// Whole numbers are written as such.
fn number(number: f64) -> Box<RawValue> {
    let whole = number as i64;
    value::raw(&if whole as f64 == number { json!(whole) } else { json!(number) })
}
