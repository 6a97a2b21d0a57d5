//! A loaded module or component: linked with what qworker offers, and ready to be
//! instantiated any number of times.

use super::component;
use super::host;
use super::monitor::StoreData;
use super::number::WasmNumber;
use super::sandbox::{Preview1, Preview2};
use super::trap;
use crate::wire::Exception;
use std::collections::HashMap;
use wasmtime::component::{Component, InstancePre as ComponentPre, Linker as ComponentLinker};
use wasmtime::{ExternType, FuncType, InstancePre, Linker, Module, ModuleExport};
use wasmtime_wasi::p2::bindings::CommandPre;

/// Bytes of a page of linear memory.
const PAGE: u64 = 64 * 1024;

/// Names of exports that a message lists at most.
const NAMES_MAX: usize = 12;

/// The function that a WASI command exports.
pub(super) const START: &str = "_start";

/// The function by which a WASI library wants to be initialized.
pub(super) const INITIALIZE: &str = "_initialize";

/// What was loaded.
pub(super) enum LoadedModule {
    /// A core module.
    Core(CoreModule),
    /// A component.
    Component(Composed),
}

/// A core module.
pub(super) struct CoreModule {
    /// Linked.
    pub linked: Linked,
    /// Bytes of its largest memory at the start.
    pub memory_minimum: u64,
    /// Its exported functions.
    functions: HashMap<String, FunctionType>,
}

/// A core module with its imports resolved.
pub(super) enum Linked {
    /// It imports nothing, and is no command: it can be called directly.
    Alone(InstancePre<StoreData<()>>),
    /// It sees WASI, and its worker.
    Hosted(InstancePre<StoreData<Preview1>>),
}

/// An exported function.
pub(super) struct FunctionType {
    /// Where it is, found without its name.
    pub export: ModuleExport,
    /// Its parameters; `None` if any parameter or result is not a number.
    pub params: Option<Box<[WasmNumber]>>,
    /// How many results it has.
    pub results: usize,
}

/// A component with its imports resolved.
pub(super) struct Composed {
    /// Linked.
    pub linked: ComponentPre<StoreData<Preview2>>,
    /// The same as a command, if it is one.
    pub command: Option<CommandPre<StoreData<Preview2>>>,
}

impl LoadedModule {
    /// Links a core module.
    ///
    /// # Errors
    /// `ImportError`: it needs what qworker does not offer.
    pub(super) fn core(module: Module) -> Result<LoadedModule, Exception> {
        let functions = functions(&module);
        let needs_wasi = module.imports().len() > 0 || functions.contains_key(START);
        let linked = if needs_wasi {
            Linked::Hosted(link_preview1(&module).map_err(|why| trap::unlinked(&why))?)
        } else {
            let linker = Linker::new(module.engine());
            Linked::Alone(linker.instantiate_pre(&module).map_err(|why| trap::unlinked(&why))?)
        };
        let pages = module.resources_required().max_initial_memory_size.unwrap_or_default();
        let memory_minimum = pages.saturating_mul(PAGE);
        Ok(LoadedModule::Core(CoreModule { linked, memory_minimum, functions }))
    }

    /// Links a component.
    ///
    /// # Errors
    /// As [`LoadedModule::core`].
    pub(super) fn component(component: &Component) -> Result<LoadedModule, Exception> {
        let linked = link_preview2(component).map_err(|why| trap::unlinked(&why))?;
        let command = CommandPre::new(linked.clone()).ok();
        Ok(LoadedModule::Component(Composed { linked, command }))
    }

    /// Can a task with this `export` be run with it?
    ///
    /// # Errors
    /// `AttributeError` naming what it does export, `TypeError` for a function that does
    /// not take numbers.
    pub(super) fn admits(&self, export: Option<&str>) -> Result<(), Exception> {
        match (self, export) {
            (LoadedModule::Core(core), Some(name)) => core.function(name).map(drop),
            (LoadedModule::Core(core), None) => core.command().map(drop),
            (LoadedModule::Component(composed), Some(name)) => {
                component::find(composed.linked.component(), name).map(drop)
            }
            (LoadedModule::Component(composed), None) => composed.command().map(drop),
        }
    }
}

impl CoreModule {
    /// An exported function that takes and returns numbers.
    ///
    /// # Errors
    /// `AttributeError`, `TypeError`.
    pub(super) fn function(&self, name: &str) -> Result<&FunctionType, Exception> {
        let found = self.functions.get(name).ok_or_else(|| {
            missing(&format!("function `{name}`"), self.functions.keys().map(String::as_str))
        })?;
        if found.params.is_some() {
            return Ok(found);
        }
        let text = format!("function `{name}` takes or gives vectors or references, not numbers");
        Err(Exception::new("builtins", "TypeError", text))
    }

    /// The entry of a WASI command.
    ///
    /// # Errors
    /// `AttributeError`: it is none; the message explains how to call a function of it.
    pub(super) fn command(&self) -> Result<&FunctionType, Exception> {
        self.functions.get(START).ok_or_else(|| {
            let what = "`_start`, it is no WASI command; name a function with `export:`";
            missing(what, self.functions.keys().map(String::as_str))
        })
    }

    /// The function to call first, if it is a WASI library.
    pub(super) fn initialize(&self) -> Option<&FunctionType> {
        self.functions.get(INITIALIZE)
    }
}

impl Composed {
    /// The component as a command.
    ///
    /// # Errors
    /// `AttributeError`: it does not export `wasi:cli/run`.
    pub(super) fn command(&self) -> Result<&CommandPre<StoreData<Preview2>>, Exception> {
        self.command.as_ref().ok_or_else(|| {
            let what = "`wasi:cli/run` 0.2, it is no WASI command; name a function with `export:`";
            let names = component::names(self.linked.component());
            missing(what, names.iter().map(String::as_str))
        })
    }
}

fn link_preview1(module: &Module) -> wasmtime::Result<InstancePre<StoreData<Preview1>>> {
    let mut linker = Linker::<StoreData<Preview1>>::new(module.engine());
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state| &mut state.wasi)?;
    host::add_to_core(&mut linker)?;
    linker.instantiate_pre(module)
}

fn link_preview2(component: &Component) -> wasmtime::Result<ComponentPre<StoreData<Preview2>>> {
    let mut linker = ComponentLinker::<StoreData<Preview2>>::new(component.engine());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    host::add_to_component(&mut linker)?;
    linker.instantiate_pre(component)
}

fn functions(module: &Module) -> HashMap<String, FunctionType> {
    let mut functions = HashMap::new();
    for export in module.exports() {
        if let (ExternType::Func(kind), Some(index)) =
            (export.ty(), module.get_export_index(export.name()))
        {
            let (params, results) = (numbers(&kind), kind.results().len());
            let signature = FunctionType { export: index, params, results };
            functions.insert(export.name().to_string(), signature);
        }
    }
    functions
}

fn numbers(kind: &FuncType) -> Option<Box<[WasmNumber]>> {
    let results_are_numbers = kind.results().all(|result| WasmNumber::of(&result).is_some());
    let params: Option<Box<[WasmNumber]>> =
        kind.params().map(|param| WasmNumber::of(&param)).collect();
    params.filter(|_| results_are_numbers)
}

/// An `AttributeError` that lists what is exported instead.
pub(super) fn missing<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Exception {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let more = if names.len() > NAMES_MAX { ", …" } else { "" };
    names.truncate(NAMES_MAX);
    let offers = match names.as_slice() {
        [] => "no functions".into(),
        names => format!("{}{more}", names.join(", ")),
    };
    let text = format!("the module does not export {what}; it exports {offers}");
    Exception::new("builtins", "AttributeError", text)
}
