//! A lock, and a way past it for whoever only copies bytes that the value says where they are.
//!
//! Taking and releasing a lock makes a processor finish all earlier loads first, so that the memory accesses of one
//! small read cannot overlap with those of the next. A reader therefore first tries with a *glimpse*: a few words about the value,
//! kept beside the lock. A version tells whether they can be relied on:
//!
//! - It is odd while somebody holds the lock for writing, or replaces the glimpse (holding the lock for reading).
//! - Whoever uses a glimpse looks at the version before and after, and throws away what was read if it is odd or has
//!   changed: the bytes may be somebody else's by then.
//! - Whoever held the lock for writing takes the glimpse back, unless he says that it is right still.

use std::array;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::shared_lock::SharedLock;
use crate::{AtomicU64, Ordering, RwLock, fence};

/// A lock for one who changes or many who look, with so many words beside it for those who do not take it.
pub struct Glimpsed<T, const WORDS: usize, L: SharedLock<T> = RwLock<T>> {
    lock: L,
    version: AtomicU64,
    /// All zero if there is no glimpse.
    words: [AtomicU64; WORDS],
    guards: PhantomData<T>,
}

impl<T, const WORDS: usize, L: SharedLock<T>> Glimpsed<T, WORDS, L> {
    /// A lock that nobody holds, without a glimpse.
    pub fn new(value: T) -> Self {
        Self {
            lock: L::holding(value),
            version: AtomicU64::new(0),
            words: array::from_fn(|_| AtomicU64::new(0)),
            guards: PhantomData,
        }
    }

    /// Waits until nobody holds it for writing.
    #[cfg_attr(any(lodefs_shuttle, lodefs_loom), track_caller)]
    pub fn read(&self) -> L::ReadGuard<'_> {
        self.lock.lock_shared()
    }

    /// Takes it if nobody holds it for writing.
    #[cfg_attr(any(lodefs_shuttle, lodefs_loom), track_caller)]
    pub fn try_read(&self) -> Option<L::ReadGuard<'_>> {
        self.lock.try_lock_shared()
    }

    /// Waits until nobody else holds it.
    #[cfg_attr(any(lodefs_shuttle, lodefs_loom), track_caller)]
    pub fn write(&self) -> GlimpsedWriteGuard<'_, T, WORDS, L> {
        let guard = self.lock.lock_alone();
        self.version.fetch_add(1, Ordering::Relaxed);
        // Whoever sees a byte that is stored from here on sees the odd version too.
        fence(Ordering::Release);
        GlimpsedWriteGuard { cell: self, guard, keeps_glimpse: false }
    }

    /// Calls `read` with the glimpse and returns what it returns, if nothing changed meanwhile. Without a glimpse all words are zero; with
    /// one that is replaced meanwhile they may be anything.
    pub fn with_glimpse<R>(&self, read: impl FnOnce([u64; WORDS]) -> Option<R>) -> Option<R> {
        let version = self.version.load(Ordering::Acquire);
        if version % 2 == 1 {
            return None;
        }
        let value = read(array::from_fn(|index| self.words[index].load(Ordering::Relaxed)))?;
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == version).then_some(value)
    }

    /// Offers a glimpse, which is right as long as the lock that the caller holds is held. If somebody else offers one
    /// just now, that does as well.
    pub fn offer(&self, _held: &L::ReadGuard<'_>, glimpse: [u64; WORDS]) {
        let version = self.version.load(Ordering::Relaxed);
        let (relaxed, acquire) = (Ordering::Relaxed, Ordering::Acquire);
        if version % 2 == 1 || self.version.compare_exchange(version, version + 1, acquire, relaxed).is_err()
        {
            return;
        }
        fence(Ordering::Release);
        self.store(glimpse);
        self.version.store(version + 2, Ordering::Release);
    }

    fn store(&self, glimpse: [u64; WORDS]) {
        for (word, value) in self.words.iter().zip(glimpse) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// The value of a [`Glimpsed`], locked for writing.
pub struct GlimpsedWriteGuard<'c, T, const WORDS: usize, L: SharedLock<T> = RwLock<T>> {
    cell: &'c Glimpsed<T, WORDS, L>,
    guard: L::WriteGuard<'c>,
    keeps_glimpse: bool,
}

impl<T, const WORDS: usize, L: SharedLock<T>> GlimpsedWriteGuard<'_, T, WORDS, L> {
    /// The glimpse is as right as it was before.
    pub fn keep_glimpse(&mut self) {
        self.keeps_glimpse = true;
    }
}

impl<T, const WORDS: usize, L: SharedLock<T>> Deref for GlimpsedWriteGuard<'_, T, WORDS, L> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, const WORDS: usize, L: SharedLock<T>> DerefMut for GlimpsedWriteGuard<'_, T, WORDS, L> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T, const WORDS: usize, L: SharedLock<T>> Drop for GlimpsedWriteGuard<'_, T, WORDS, L> {
    fn drop(&mut self) {
        if !self.keeps_glimpse {
            self.cell.store([0; WORDS]);
        }
        // The lock is still held: the fields are dropped after this.
        let version = self.cell.version.load(Ordering::Relaxed);
        self.cell.version.store(version + 1, Ordering::Release);
    }
}

#[cfg(all(test, not(any(lodefs_shuttle, lodefs_loom))))]
mod tests {
    use super::*;

    const GLIMPSE: [u64; 3] = [0, 4096, 1 << 20];

    fn cell_with_glimpse() -> Glimpsed<(), 3> {
        let cell = Glimpsed::new(());
        assert_eq!(cell.with_glimpse(Some), Some([0; 3]));
        cell.offer(&cell.read(), GLIMPSE);
        assert_eq!(cell.with_glimpse(Some), Some(GLIMPSE));
        cell
    }

    #[test]
    fn a_change_takes_the_glimpse_back() {
        let cell = cell_with_glimpse();
        drop(cell.write());
        assert_eq!(cell.with_glimpse(Some), Some([0; 3]));
    }

    #[test]
    fn a_change_that_keeps_it_ends_its_use() {
        let cell = cell_with_glimpse();
        let used = cell.with_glimpse(|glimpse| {
            cell.write().keep_glimpse();
            Some(glimpse)
        });
        assert_eq!(used, None);
        assert_eq!(cell.with_glimpse(Some), Some(GLIMPSE));
    }

    #[test]
    fn there_is_none_while_something_changes() {
        let cell = cell_with_glimpse();
        let mut guard = cell.write();
        guard.keep_glimpse();
        assert_eq!(cell.with_glimpse(Some), None);
    }

    #[test]
    fn another_offer_ends_the_use_of_the_one_before() {
        let cell = cell_with_glimpse();
        let used = cell.with_glimpse(|glimpse| {
            cell.offer(&cell.read(), [0, 4096, 2 << 20]);
            Some(glimpse)
        });
        assert_eq!(used, None);
    }
}
