//! The locks and atomics of lodefs, all from one place.
//!
//! Normally these are the locks of `parking_lot` and the standard library's atomics. With `--cfg lodefs_shuttle` or
//! `--cfg lodefs_loom` a scheduler takes their place that decides which thread goes on at each of them, so that tests can
//! try interleavings, and try the same one again ([shuttle](https://docs.rs/shuttle): random ones of a whole engine;
//! [loom](https://docs.rs/loom): all of something small, with the memory orders of the atomics).

#![deny(unsafe_code)]

mod glimpsed;
#[cfg(all(test, lodefs_loom))]
mod interleavings;
#[cfg(any(lodefs_shuttle, lodefs_loom))]
#[allow(unsafe_code)]
mod scheduled;
mod shared_lock;
mod thread_number;
#[cfg(not(any(lodefs_shuttle, lodefs_loom)))]
mod waiting;

#[cfg(any(lodefs_shuttle, lodefs_loom))]
pub use self::scheduled::{
    AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard,
    RwLockWriteGuard, fence, point,
};
#[cfg(not(any(lodefs_shuttle, lodefs_loom)))]
pub use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use std::sync::atomic::Ordering;
#[cfg(not(any(lodefs_shuttle, lodefs_loom)))]
pub use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, fence};
// Neither scheduler has anything to decide where these are used.
pub use std::sync::{Arc, OnceLock, Weak};

pub use self::glimpsed::{Glimpsed, GlimpsedWriteGuard};
pub use self::shared_lock::SharedLock;
pub use self::thread_number::{set_thread_number, thread_number};
#[cfg(not(any(lodefs_shuttle, lodefs_loom)))]
pub use self::waiting::Condvar;

/// A moment at which another thread may come between: before memory that threads share is read or changed.
#[cfg(not(any(lodefs_shuttle, lodefs_loom)))]
#[inline(always)]
pub fn point() {}
