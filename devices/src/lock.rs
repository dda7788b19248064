//! Locking that a panic elsewhere cannot turn into a second panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex` even after a thread panicked while it held it: every device's state is valid between any two statements.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
