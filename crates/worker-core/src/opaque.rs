//! User data on its way through the core, unread.
//!
//! The scheduler's core has a type of the same form, with a meaning in recordings. The cores share only
//! `oxidask-key`, and this is not about keys.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Weak};

/// Something of the shell that only passes through: a run spec, a result, what a task left behind for
/// its `task-finished` or `task-erred`. The core clones and drops it, nothing else, and keeps none of it
/// once a task has begun.
#[derive(Clone)]
pub struct Opaque(Arc<dyn Any + Send + Sync>);

impl Opaque {
    /// Wraps `value`.
    pub fn new<T: Any + Send + Sync>(value: T) -> Self {
        Self(Arc::new(value))
    }

    /// Wraps a value that is shared already.
    pub fn from_arc<T: Any + Send + Sync>(value: Arc<T>) -> Self {
        Self(value)
    }

    /// The value, if it is a `T`.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// The shared value, if it is a `T`.
    pub fn arc<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.0).downcast().ok()
    }

    /// Remembers it without keeping it.
    pub fn downgrade(&self) -> WeakOpaque {
        WeakOpaque(Arc::downgrade(&self.0))
    }
}

/// Finds an [`Opaque`] again as long as somebody holds it.
#[derive(Clone)]
pub struct WeakOpaque(Weak<dyn Any + Send + Sync>);

impl WeakOpaque {
    /// The value, if anybody still holds it.
    pub fn upgrade(&self) -> Option<Opaque> {
        self.0.upgrade().map(Opaque)
    }
}

impl fmt::Debug for WeakOpaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakOpaque")
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opaque")
    }
}
