//! Locks that one holds alone, or many share.

use std::ops::{Deref, DerefMut};

use crate::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A lock around a value, which one holds alone, or many share who only look.
pub trait SharedLock<T> {
    /// The value, for one of many.
    type ReadGuard<'l>: Deref<Target = T>
    where
        Self: 'l;
    /// The value, for one alone.
    type WriteGuard<'l>: DerefMut<Target = T>
    where
        Self: 'l;

    /// A lock around this value that nobody holds.
    fn holding(value: T) -> Self;

    /// Waits until nobody holds it alone.
    #[cfg_attr(any(lodefs_shuttle, lodefs_loom), track_caller)]
    fn lock_shared(&self) -> Self::ReadGuard<'_>;

    /// Takes it if nobody holds it alone.
    #[cfg_attr(any(lodefs_shuttle, lodefs_loom), track_caller)]
    fn try_lock_shared(&self) -> Option<Self::ReadGuard<'_>>;

    /// Waits until nobody holds it.
    #[cfg_attr(any(lodefs_shuttle, lodefs_loom), track_caller)]
    fn lock_alone(&self) -> Self::WriteGuard<'_>;
}

/// The lock that everything else uses too.
impl<T> SharedLock<T> for RwLock<T> {
    type ReadGuard<'l>
        = RwLockReadGuard<'l, T>
    where
        Self: 'l;
    type WriteGuard<'l>
        = RwLockWriteGuard<'l, T>
    where
        Self: 'l;

    fn holding(value: T) -> Self {
        Self::new(value)
    }

    fn lock_shared(&self) -> Self::ReadGuard<'_> {
        self.read()
    }

    fn try_lock_shared(&self) -> Option<Self::ReadGuard<'_>> {
        self.try_read()
    }

    fn lock_alone(&self) -> Self::WriteGuard<'_> {
        self.write()
    }
}

/// The standard library's, which is all in its own bytes: a forked child may put a new one in its place, whoever waited for it in the
/// parent. (Those of `parking_lot` wait in a table of the process, by the lock's address.) What a panic leaves is taken as it is.
#[cfg(not(any(lodefs_shuttle, lodefs_loom)))]
impl<T> SharedLock<T> for std::sync::RwLock<T> {
    type ReadGuard<'l>
        = std::sync::RwLockReadGuard<'l, T>
    where
        Self: 'l;
    type WriteGuard<'l>
        = std::sync::RwLockWriteGuard<'l, T>
    where
        Self: 'l;

    fn holding(value: T) -> Self {
        Self::new(value)
    }

    fn lock_shared(&self) -> Self::ReadGuard<'_> {
        self.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn try_lock_shared(&self) -> Option<Self::ReadGuard<'_>> {
        match self.try_read() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    fn lock_alone(&self) -> Self::WriteGuard<'_> {
        self.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
