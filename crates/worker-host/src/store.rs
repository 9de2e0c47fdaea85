//! The data here: objects by key. Written only by `books`, read by requests and by Python.

use std::collections::HashMap;
use std::sync::Arc;

use oxidask_key::Key;
use parking_lot::Mutex;

use crate::interpreter::Object;

/// Shared and cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<HashMap<Key, Object>>>);

impl Store {
    /// The object of that name.
    pub fn get(&self, key: &Key) -> Option<Object> {
        self.0.lock().get(key).cloned()
    }

    /// All names, in no order that means anything.
    pub fn keys(&self) -> Vec<Key> {
        self.0.lock().keys().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts an object in; returns the one it takes the place of.
    pub(crate) fn insert(&self, key: Key, object: Object) -> Option<Object> {
        self.0.lock().insert(key, object)
    }

    /// Takes an object out.
    pub(crate) fn remove(&self, key: &Key) -> Option<Object> {
        self.0.lock().remove(key)
    }
}
