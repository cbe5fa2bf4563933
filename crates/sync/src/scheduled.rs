//! Locks that a scheduler decides about, with the interface of those of `parking_lot`, and that tests can break.
//!
//! A test may name one call of `lock`, `read` or `write` that does not exclude anybody ([`ignored`]), to see whether it is
//! noticed. The value of a lock is therefore beside it and not within.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::{OnceLock, PoisonError, TryLockError};

#[cfg(lodefs_loom)]
use loom as scheduler;
#[cfg(lodefs_shuttle)]
use shuttle as scheduler;

pub use scheduler::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, fence};

/// A moment at which another thread may come between: before memory that threads share is read or changed.
pub fn point() {
    scheduler::thread::yield_now();
}

/// The environment variable that names a call of a lock that does not exclude anybody, as `FILE:LINE:COLUMN`.
const IGNORED_LOCK: &str = "LODEFS_IGNORED_LOCK";

/// Whether the lock that is called for at `location` is to be ignored.
fn ignored(location: &Location<'_>) -> bool {
    static IGNORED: OnceLock<Option<String>> = OnceLock::new();
    let ignored = IGNORED.get_or_init(|| std::env::var(IGNORED_LOCK).ok());
    ignored.as_ref().is_some_and(|ignored| *ignored == location.to_string())
}

/// A lock for one.
pub struct Mutex<T> {
    lock: scheduler::sync::Mutex<()>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by whoever holds the lock alone, and so sent from one to the next. Where a lock is ignored
// on purpose this is not so: schedulers run one thread at a time, on one thread of the host (shuttle), so that what breaks
// is the program under test, which is what such a test wants to see.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// The value of a [`Mutex`] while it is held.
pub struct MutexGuard<'a, T> {
    value: &'a UnsafeCell<T>,
    _held: Option<scheduler::sync::MutexGuard<'a, ()>>,
}

impl<T> Mutex<T> {
    /// A lock that nobody holds.
    pub fn new(value: T) -> Self {
        Self { lock: scheduler::sync::Mutex::new(()), value: UnsafeCell::new(value) }
    }

    /// Waits until nobody else holds it.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = if ignored(Location::caller()) {
            point();
            None
        } else {
            Some(self.lock.lock().unwrap_or_else(PoisonError::into_inner))
        };
        MutexGuard { value: &self.value, _held: held }
    }

    /// Takes it if nobody else holds it.
    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        if ignored(Location::caller()) {
            return Some(self.lock());
        }
        let held = match self.lock.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { value: &self.value, _held: Some(held) })
    }

    /// The value: nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The value, without its lock.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held (see `Mutex`), and the reference lives no longer than this guard.
        unsafe { &*self.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held (see `Mutex`), and the reference, of which this guard gives one at a time, lives no longer.
        unsafe { &mut *self.value.get() }
    }
}

/// A lock for one who writes or many who read.
pub struct RwLock<T> {
    lock: scheduler::sync::RwLock<()>,
    value: UnsafeCell<T>,
}

// SAFETY: as for `Mutex`; and those who read at the same time share the value.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

/// The value of a [`RwLock`] while it is held for reading.
pub struct RwLockReadGuard<'a, T> {
    value: &'a UnsafeCell<T>,
    _held: Option<scheduler::sync::RwLockReadGuard<'a, ()>>,
}

/// The value of a [`RwLock`] while it is held for writing.
pub struct RwLockWriteGuard<'a, T> {
    value: &'a UnsafeCell<T>,
    _held: Option<scheduler::sync::RwLockWriteGuard<'a, ()>>,
}

impl<T> RwLock<T> {
    /// A lock that nobody holds.
    pub fn new(value: T) -> Self {
        Self { lock: scheduler::sync::RwLock::new(()), value: UnsafeCell::new(value) }
    }

    /// Waits until nobody holds it for writing.
    #[track_caller]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let held = if ignored(Location::caller()) {
            point();
            None
        } else {
            Some(self.lock.read().unwrap_or_else(PoisonError::into_inner))
        };
        RwLockReadGuard { value: &self.value, _held: held }
    }

    /// Takes it for reading if nobody holds it for writing.
    #[track_caller]
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        if ignored(Location::caller()) {
            return Some(self.read());
        }
        let held = match self.lock.try_read() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(RwLockReadGuard { value: &self.value, _held: Some(held) })
    }

    /// Waits until nobody holds it.
    #[track_caller]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let held = if ignored(Location::caller()) {
            point();
            None
        } else {
            Some(self.lock.write().unwrap_or_else(PoisonError::into_inner))
        };
        RwLockWriteGuard { value: &self.value, _held: held }
    }

    /// The value: nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held for reading, and the reference lives no longer than this guard.
        unsafe { &*self.value.get() }
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held for writing, and the reference lives no longer than this guard.
        unsafe { &*self.value.get() }
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held for writing, and the reference, of which this guard gives one at a time, lives no longer.
        unsafe { &mut *self.value.get() }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").finish_non_exhaustive()
    }
}
