//! A function of a component, called by its name with numbers, texts and booleans.
//! Lists, records and the like are refused: a task's arguments are positional JSON values,
//! and a command that reads the document on standard input serves richer ones.

use super::driver;
use super::finished::Finished;
use super::function::{label, positional};
use super::module::{Composed, missing};
use super::monitor::{self, Monitor};
use super::number::{double, float, integer, mismatch, single};
use super::sandbox::{self, Sandbox};
use super::trap::TrapPhase;
use crate::runner::Attempt;
use crate::wire::{Exception, value};
use serde_json::value::RawValue;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, Type, Val};

/// Calls the function `name`, or `interface#name`, with the attempt's arguments.
///
/// # Errors
/// It was never called: no such function, types that JSON values cannot be, or arguments
/// that do not fit.
pub(super) fn call(
    composed: &Composed,
    name: &str,
    attempt: &Attempt,
    monitor: Monitor,
) -> Result<Finished, Exception> {
    let (function, index) = find(composed.linked.component(), name)?;
    let arguments = arguments(&function, name, attempt)?;
    let mut sandbox = Sandbox::quiet(attempt)?;
    let mut store = monitor::store(composed.linked.engine(), monitor, sandbox.preview2());
    monitor::set_fuel(&mut store, attempt)?;
    let mut phase = TrapPhase::Instantiating;
    let called = driver::run(&mut store, async |store| {
        let instance = composed.linked.instantiate_async(&mut *store).await?;
        phase = TrapPhase::Running;
        let found = instance.get_func(&mut *store, index);
        let callee = found.ok_or_else(|| wasmtime::Error::msg("no function"))?;
        let mut results = vec![Val::Bool(false); function.results().len()];
        callee.call_async(&mut *store, &arguments, &mut results).await?;
        Ok(results.first().map_or_else(|| "null".into(), render))
    });
    let monitor = &store.data().monitor;
    let finished = match called {
        Ok(json) => Finished::returned(monitor, json),
        Err(why) => Finished::failed(monitor, &why, phase, attempt),
    };
    Ok(finished.with_stderr(&sandbox))
}

/// The exported function `name`, or `interface#name`.
///
/// # Errors
/// `AttributeError` if there is none, `TypeError` if its types are not simple.
pub(super) fn find(
    component: &Component,
    name: &str,
) -> Result<(ComponentFunc, ComponentExportIndex), Exception> {
    let found = match name.split_once('#') {
        Some((interface, name)) => component
            .get_export(None, interface)
            .and_then(|(_, interface)| component.get_export(Some(&interface), name)),
        None => component.get_export(None, name),
    };
    let Some((ComponentItem::ComponentFunc(function), index)) = found else {
        let names = names(component);
        return Err(missing(&format!("function `{name}`"), names.iter().map(String::as_str)));
    };
    let params_are_simple = function.params().all(|(_, kind)| spell(&kind).is_some());
    if params_are_simple && function.results().all(|kind| spell(&kind).is_some()) {
        return Ok((function, index));
    }
    let text = format!("function `{name}` takes or gives more than numbers, texts and booleans");
    Err(Exception::new("builtins", "TypeError", text))
}

/// Names of what a component exports, functions of its interfaces as `interface#name`.
pub(super) fn names(component: &Component) -> Vec<String> {
    let engine = component.engine();
    let mut names = Vec::new();
    for (name, item) in component.component_type().exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => names.push(name.to_string()),
            ComponentItem::ComponentInstance(interface) => {
                let exports = interface.exports(engine);
                names.extend(exports.map(|(inner, _)| format!("{name}#{inner}")));
            }
            _ => {}
        }
    }
    names
}

fn arguments(
    function: &ComponentFunc,
    name: &str,
    attempt: &Attempt,
) -> Result<Vec<Val>, Exception> {
    let given = positional(attempt, name, function.params().len())?;
    let pairs = given.into_iter().zip(function.params()).enumerate();
    pairs
        .map(|(at, ((name, raw), (param, kind)))| {
            parse(raw, &kind, &label(at, Some(name.unwrap_or(param))))
        })
        .collect()
}

/// A simple type as WIT spells it; `None` for the others.
fn spell(kind: &Type) -> Option<&'static str> {
    Some(match kind {
        Type::Bool => "bool",
        Type::S8 => "s8",
        Type::U8 => "u8",
        Type::S16 => "s16",
        Type::U16 => "u16",
        Type::S32 => "s32",
        Type::U32 => "u32",
        Type::S64 => "s64",
        Type::U64 => "u64",
        Type::Float32 => "f32",
        Type::Float64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        _ => return None,
    })
}

fn parse(raw: &RawValue, kind: &Type, argument: &str) -> Result<Val, Exception> {
    let json = raw.get();
    let spelled = spell(kind).unwrap_or("another type");
    let wrong = || mismatch(json, argument, spelled);
    let whole = |min: i128, max: i128| integer(json, argument, spelled, min, max);
    Ok(match kind {
        Type::Bool => Val::Bool(json.parse().map_err(|_| wrong())?),
        Type::S8 => Val::S8(whole(i8::MIN.into(), i8::MAX.into())? as i8),
        Type::U8 => Val::U8(whole(0, u8::MAX.into())? as u8),
        Type::S16 => Val::S16(whole(i16::MIN.into(), i16::MAX.into())? as i16),
        Type::U16 => Val::U16(whole(0, u16::MAX.into())? as u16),
        Type::S32 => Val::S32(whole(i32::MIN.into(), i32::MAX.into())? as i32),
        Type::U32 => Val::U32(whole(0, u32::MAX.into())? as u32),
        Type::S64 => Val::S64(whole(i64::MIN.into(), i64::MAX.into())? as i64),
        Type::U64 => Val::U64(whole(0, u64::MAX.into())? as u64),
        Type::Float32 => Val::Float32(float(json, argument, spelled)? as f32),
        Type::Float64 => Val::Float64(float(json, argument, spelled)?),
        Type::Char => Val::Char(serde_json::from_str(json).map_err(|_| wrong())?),
        // What kombu gives a type is a text too.
        Type::String if json.starts_with(['"', '{']) => {
            Val::String(sandbox::text(&value::text(raw)))
        }
        _ => return Err(wrong()),
    })
}

/// A result as JSON; `find` has admitted no others.
fn render(value: &Val) -> String {
    match value {
        Val::Bool(value) => value.to_string(),
        Val::S8(value) => value.to_string(),
        Val::U8(value) => value.to_string(),
        Val::S16(value) => value.to_string(),
        Val::U16(value) => value.to_string(),
        Val::S32(value) => value.to_string(),
        Val::U32(value) => value.to_string(),
        Val::S64(value) => value.to_string(),
        Val::U64(value) => value.to_string(),
        Val::Float32(value) => single(*value),
        Val::Float64(value) => double(*value),
        Val::Char(value) => serde_json::Value::from(value.to_string()).to_string(),
        Val::String(value) => serde_json::Value::from(value.as_str()).to_string(),
        _ => "null".into(),
    }
}
