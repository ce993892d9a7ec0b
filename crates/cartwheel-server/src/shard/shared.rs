//! A part of a store that another thread uses, while the store is open.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Access to a store for another thread. Clones share it.
pub(super) struct Shared<T: ?Sized>(Arc<Mutex<Option<Box<T>>>>);

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Shared<T> {
    /// Sets the part of the store that is open now.
    pub(super) fn open(&self, part: Option<Box<T>>) {
        *self.lock() = part;
    }

    /// Waits for the use under way, and lets no other begin.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// Whether it can be used.
    pub(super) fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// The part, for one use.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Box<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
