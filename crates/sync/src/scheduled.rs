//! Locks that a scheduler decides about, with the interface of those of `parking_lot`, and that tests can break.
//!
//! A test may name one call of `lock`, `read` or `write` that does not exclude anybody ([`ignored`]), to see whether it is
//! needed: the value of a lock is beside it and not within, and knows who uses it. If two do at the same time, of whom
//! one may change it, that is a data race, whatever comes of it, and ends the test.

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

/// A value, and who uses it.
struct Shared<T> {
    value: UnsafeCell<T>,
    users: UnsafeCell<Vec<User>>,
}

/// Somebody who uses a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct User {
    /// Where it took the lock.
    location: &'static Location<'static>,
    may_change: bool,
}

// SAFETY: the value is used by whoever holds the lock beside it, as with any lock. Where a lock is ignored on purpose, and
// for the list of users: schedulers run one thread at a time and switch at locks and atomics only, none of which is touched
// while the list is; and two users of a value end the test before the second gets it.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), users: UnsafeCell::new(Vec::new()) }
    }

    /// Notes another user.
    fn enter(&self, user: User) {
        // SAFETY: see `Sync`; the reference is gone before anything else can happen.
        let users = unsafe { &mut *self.users.get() };
        let other = users.iter().find(|other| other.may_change || user.may_change);
        if let Some(other) = other.filter(|_| !std::thread::panicking()) {
            panic!("data race: {} while {} is at it", user.location, other.location);
        }
        users.push(user);
    }

    /// Forgets a user.
    fn leave(&self, user: User) {
        // SAFETY: as in `enter`.
        let users = unsafe { &mut *self.users.get() };
        if let Some(index) = users.iter().position(|other| *other == user) {
            users.swap_remove(index);
        }
    }
}

/// A value that somebody uses.
struct Using<'a, T> {
    shared: &'a Shared<T>,
    user: User,
    /// Whether nobody was excluded.
    ignored: bool,
}

impl<'a, T> Using<'a, T> {
    fn begin(shared: &'a Shared<T>, location: &'static Location<'static>, may_change: bool) -> Self {
        let user = User { location, may_change };
        shared.enter(user);
        let ignored = ignored(location);
        if ignored {
            point();
        }
        Self { shared, user, ignored }
    }
}

impl<T> Drop for Using<'_, T> {
    fn drop(&mut self) {
        if self.ignored && !std::thread::panicking() {
            point();
        }
        self.shared.leave(self.user);
    }
}

/// What a lock that may be poisoned gives: a panic in a test ends it anyway.
fn unpoisoned<G>(result: Result<G, PoisonError<G>>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}

fn tried<G>(result: Result<G, TryLockError<G>>) -> Option<G> {
    match result {
        Ok(held) => Some(held),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A lock for one.
pub struct Mutex<T> {
    lock: scheduler::sync::Mutex<()>,
    shared: Shared<T>,
}

/// The value of a [`Mutex`] while it is held. (The use ends before the lock is released.)
pub struct MutexGuard<'a, T> {
    using: Using<'a, T>,
    _held: Option<scheduler::sync::MutexGuard<'a, ()>>,
}

impl<T> Mutex<T> {
    /// A lock that nobody holds.
    pub fn new(value: T) -> Self {
        Self { lock: scheduler::sync::Mutex::new(()), shared: Shared::new(value) }
    }

    /// Waits until nobody else holds it.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let location = Location::caller();
        let held = (!ignored(location)).then(|| unpoisoned(self.lock.lock()));
        MutexGuard { using: Using::begin(&self.shared, location, true), _held: held }
    }

    /// Takes it if nobody else holds it.
    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let location = Location::caller();
        let held = if ignored(location) { None } else { Some(tried(self.lock.try_lock())?) };
        Some(MutexGuard { using: Using::begin(&self.shared, location, true), _held: held })
    }

    /// The value: nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.shared.value.get_mut()
    }

    /// The value, without its lock.
    pub fn into_inner(self) -> T {
        self.shared.value.into_inner()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this is the only user, and the reference lives no longer than it.
        unsafe { &*self.using.shared.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only user, which gives one reference at a time, and that lives no longer than it.
        unsafe { &mut *self.using.shared.value.get() }
    }
}

/// A place to wait until somebody says that what a [`Mutex`] holds has changed.
#[derive(Default)]
pub struct Condvar(scheduler::sync::Condvar);

impl Condvar {
    /// Releases the lock, waits until it is said, and takes the lock again. It may also return for no reason.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { using, _held: held } = guard;
        let (shared, location) = (using.shared, using.user.location);
        drop(using);
        let held = match held {
            Some(held) => Some(unpoisoned(self.0.wait(held))),
            None => {
                point();
                None
            }
        };
        MutexGuard { using: Using::begin(shared, location, true), _held: held }
    }

    /// Says so to all who wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A lock for one who writes or many who read.
pub struct RwLock<T> {
    lock: scheduler::sync::RwLock<()>,
    shared: Shared<T>,
}

/// The value of a [`RwLock`] while it is held for reading.
pub struct RwLockReadGuard<'a, T> {
    using: Using<'a, T>,
    _held: Option<scheduler::sync::RwLockReadGuard<'a, ()>>,
}

/// The value of a [`RwLock`] while it is held for writing.
pub struct RwLockWriteGuard<'a, T> {
    using: Using<'a, T>,
    _held: Option<scheduler::sync::RwLockWriteGuard<'a, ()>>,
}

impl<T> RwLock<T> {
    /// A lock that nobody holds.
    pub fn new(value: T) -> Self {
        Self { lock: scheduler::sync::RwLock::new(()), shared: Shared::new(value) }
    }

    /// Waits until nobody holds it for writing.
    #[track_caller]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let location = Location::caller();
        let held = (!ignored(location)).then(|| unpoisoned(self.lock.read()));
        RwLockReadGuard { using: Using::begin(&self.shared, location, false), _held: held }
    }

    /// Takes it for reading if nobody holds it for writing.
    #[track_caller]
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let location = Location::caller();
        let held = if ignored(location) { None } else { Some(tried(self.lock.try_read())?) };
        Some(RwLockReadGuard { using: Using::begin(&self.shared, location, false), _held: held })
    }

    /// Waits until nobody holds it.
    #[track_caller]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let location = Location::caller();
        let held = (!ignored(location)).then(|| unpoisoned(self.lock.write()));
        RwLockWriteGuard { using: Using::begin(&self.shared, location, true), _held: held }
    }

    /// The value: nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.shared.value.get_mut()
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody who may change it uses it, and the reference lives no longer than this use.
        unsafe { &*self.using.shared.value.get() }
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this is the only user, and the reference lives no longer than it.
        unsafe { &*self.using.shared.value.get() }
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only user, which gives one reference at a time, and that lives no longer than it.
        unsafe { &mut *self.using.shared.value.get() }
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condvar")
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
