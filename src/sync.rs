//! Mutex access that ignores poisoning. In this program the data behind a mutex is consistent after
//! every statement, so a panic of another thread does not make it unusable.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
