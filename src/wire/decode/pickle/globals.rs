//! The names that a pickle may use. They are names of data, and nothing is called by them.
//!
//! Source: what CPython's modules give to a pickle (`__reduce__`), and celery `canvas.py`, whose
//! signatures (links, chains, groups, chords, maps, chunks) all are `signature(dict)`; a group of
//! a generator has its tasks as `list(…)` (`utils/functional.py`, `_regen`).

use super::wrong;
use crate::wire::message::Malformed;
use crate::wire::serializer::shown;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    Bytes,
    Bytearray,
    /// `_codecs.encode`: bytes, in protocols that have none.
    Encode,
    Set,
    Frozenset,
    List,
    /// `object`, the base of what `_reconstructor` makes.
    Object,
    /// `copyreg._reconstructor`: objects, in protocols that have no `NEWOBJ`.
    Reconstructor,
    Date,
    Time,
    Datetime,
    Timedelta,
    Timezone,
    Decimal,
    Uuid,
    OrderedDict,
    Signature,
}

/// Modules and names; the first of several is that of Python 3.
const GLOBALS: &[(&str, &str, Global)] = &[
    ("builtins", "bytes", Global::Bytes),
    ("__builtin__", "bytes", Global::Bytes),
    ("builtins", "bytearray", Global::Bytearray),
    ("__builtin__", "bytearray", Global::Bytearray),
    ("builtins", "set", Global::Set),
    ("__builtin__", "set", Global::Set),
    ("builtins", "frozenset", Global::Frozenset),
    ("__builtin__", "frozenset", Global::Frozenset),
    ("builtins", "list", Global::List),
    ("__builtin__", "list", Global::List),
    ("builtins", "object", Global::Object),
    ("__builtin__", "object", Global::Object),
    ("copyreg", "_reconstructor", Global::Reconstructor),
    ("copy_reg", "_reconstructor", Global::Reconstructor),
    ("_codecs", "encode", Global::Encode),
    ("datetime", "date", Global::Date),
    ("datetime", "time", Global::Time),
    ("datetime", "datetime", Global::Datetime),
    ("datetime", "timedelta", Global::Timedelta),
    ("datetime", "timezone", Global::Timezone),
    ("decimal", "Decimal", Global::Decimal),
    ("uuid", "UUID", Global::Uuid),
    ("collections", "OrderedDict", Global::OrderedDict),
    ("celery.canvas", "signature", Global::Signature),
];

impl Global {
    /// The one with this name.
    ///
    /// # Errors
    /// Says that the name is none of data.
    pub(super) fn named(module: &str, name: &str) -> Result<Global, Malformed> {
        let known = GLOBALS.iter().find(|(m, n, _)| *m == module && *n == name);
        known.map(|(_, _, global)| *global).ok_or_else(|| refused(module, name))
    }

    /// Module and name, as Python 3 has them.
    pub(super) fn name(self) -> String {
        let known = GLOBALS.iter().find(|(_, _, global)| *global == self);
        known.map_or(String::new(), |(module, name, _)| format!("{module}.{name}"))
    }
}

/// The error of a name.
pub(super) fn refused(module: &str, name: &str) -> Malformed {
    wrong(format!("{}.{} is not data", shown(module), shown(name)))
}
