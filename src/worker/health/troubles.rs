//! Current failures between the worker and its stores, shared by everything that uses one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The present failures: what does not work, and why.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles(Rc<RefCell<BTreeMap<&'static str, String>>>);

impl Troubles {
    /// Notes that `what` fails, and why.
    pub(crate) fn begin(&self, what: &'static str, why: String) {
        self.0.borrow_mut().insert(what, why);
    }

    /// Notes that `what` works again.
    pub(crate) fn end(&self, what: &'static str) {
        self.0.borrow_mut().remove(what);
    }

    /// One of them, if there are any.
    pub(super) fn first(&self) -> Option<String> {
        self.0.borrow().iter().next().map(|(what, why)| format!("{what}: {why}"))
    }
}
