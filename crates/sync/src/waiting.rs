//! Waiting for a change, with the interface that schedulers have, too.

use parking_lot::MutexGuard;

/// A place to wait until somebody says that what a [`Mutex`](crate::Mutex) holds has changed.
#[derive(Debug, Default)]
pub struct Condvar(parking_lot::Condvar);

impl Condvar {
    /// Releases the lock, waits until it is said, and takes the lock again. It may also return for no reason.
    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(&mut guard);
        guard
    }

    /// Says so to all who wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
