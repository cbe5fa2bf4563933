//! Who changes what is mapped, and when does nobody?
//!
//! A change takes several steps, between which the server is asked. So one thread at a time makes one; and a fork waits until none is
//! under way, because a child would have half of it.

use std::cell::UnsafeCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static CHANGING: RwLock<()> = RwLock::new(());

/// Nobody else changes pieces, or looks after them.
pub(crate) type Alone = RwLockWriteGuard<'static, ()>;
/// Nobody changes pieces.
pub(crate) type Beside = RwLockReadGuard<'static, ()>;

/// Waits until nobody is at it. Within the library only (`within`): a signal handler would wait for the thread that it has interrupted.
pub(crate) fn alone() -> Alone {
    CHANGING.write().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nobody changes anything.
pub(crate) fn beside() -> Beside {
    CHANGING.read().unwrap_or_else(PoisonError::into_inner)
}

/// What a thread that forks holds.
struct Held(UnsafeCell<Option<Alone>>);

// SAFETY: it is only accessed by a thread that has the lock for itself, or that is just about to give it back.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

/// Nobody changes anything until the fork is over.
pub(crate) fn before_fork() {
    let alone = alone();
    // SAFETY: this thread has the lock.
    unsafe { *HELD.0.get() = Some(alone) };
}

/// The fork is over: in the parent, and in the child, where this thread is the copy of the one that has the lock.
///
/// # Safety
/// This thread has called [`before_fork`] for this fork.
pub(crate) unsafe fn after_fork() {
    // SAFETY: by the caller's promise, this thread has the lock.
    drop(unsafe { (*HELD.0.get()).take() });
}
