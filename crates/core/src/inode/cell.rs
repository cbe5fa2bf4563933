//! The lock around the state of an inode, and a way for reads of data past it.
//!
//! Taking and releasing a lock makes a processor finish all earlier loads first, so that the memory accesses of one
//! small read cannot overlap with those of the next. A read therefore first tries with a *glimpse*: where one extent of
//! the file is, kept beside the lock. A version tells whether it can be relied on:
//!
//! - It is odd while somebody holds the lock for writing, or replaces the glimpse (holding the lock for reading).
//! - Whoever uses a glimpse looks at the version before and after, and throws away what was read if it is odd or has
//!   changed: the bytes may be those of another file by then.
//! - Whoever held the lock for writing takes the glimpse back, unless nothing but bytes was changed.

use std::ops::{Deref, DerefMut};

use super::InodeState;
use lodefs_sync::{AtomicI64, AtomicU64, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard, fence};

/// Where a part of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glimpse {
    /// First byte within the file.
    pub(crate) start: u64,
    /// First byte after it; at most the size of the file.
    pub(crate) end: u64,
    /// Where its first byte is on the volume.
    pub(crate) at: u64,
    /// From this second on, a read has to store an access time.
    pub(crate) quiet_until_s: i64,
}

pub(crate) struct StateCell {
    lock: RwLock<InodeState>,
    version: AtomicU64,
    start: AtomicU64,
    end: AtomicU64,
    at: AtomicU64,
    quiet_until_s: AtomicI64,
}

impl StateCell {
    pub(crate) fn new(state: InodeState) -> Self {
        Self {
            lock: RwLock::new(state),
            version: AtomicU64::new(0),
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            at: AtomicU64::new(0),
            quiet_until_s: AtomicI64::new(0),
        }
    }

    #[cfg_attr(lodefs_shuttle, track_caller)]
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, InodeState> {
        self.lock.read()
    }

    #[cfg_attr(lodefs_shuttle, track_caller)]
    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, InodeState>> {
        self.lock.try_read()
    }

    #[cfg_attr(lodefs_shuttle, track_caller)]
    pub(crate) fn write(&self) -> StateWriteGuard<'_> {
        let guard = self.lock.write();
        self.version.fetch_add(1, Ordering::Relaxed);
        // Whoever sees a byte that is stored from here on sees the odd version too.
        fence(Ordering::Release);
        StateWriteGuard { cell: self, guard, keeps_glimpse: false }
    }

    /// Calls `read` with the glimpse and returns what it returns, if nothing changed meanwhile.
    pub(crate) fn with_glimpse<T>(&self, read: impl FnOnce(Glimpse) -> Option<T>) -> Option<T> {
        let version = self.version.load(Ordering::Acquire);
        if version % 2 == 1 {
            return None;
        }
        let value = read(self.glimpse())?;
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == version).then_some(value)
    }

    fn glimpse(&self) -> Glimpse {
        Glimpse {
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            at: self.at.load(Ordering::Relaxed),
            quiet_until_s: self.quiet_until_s.load(Ordering::Relaxed),
        }
    }

    /// Offers a glimpse, which is right as long as the lock that the caller holds is held. If somebody else offers one
    /// just now, that does as well.
    pub(crate) fn offer(&self, _held: &RwLockReadGuard<'_, InodeState>, glimpse: Glimpse) {
        let version = self.version.load(Ordering::Relaxed);
        let (relaxed, acquire) = (Ordering::Relaxed, Ordering::Acquire);
        if version % 2 == 1 || self.version.compare_exchange(version, version + 1, acquire, relaxed).is_err()
        {
            return;
        }
        fence(Ordering::Release);
        self.start.store(glimpse.start, relaxed);
        self.end.store(glimpse.end, relaxed);
        self.at.store(glimpse.at, relaxed);
        self.quiet_until_s.store(glimpse.quiet_until_s, relaxed);
        self.version.store(version + 2, Ordering::Release);
    }
}

/// The state, locked for writing.
pub(crate) struct StateWriteGuard<'c> {
    cell: &'c StateCell,
    guard: RwLockWriteGuard<'c, InodeState>,
    keeps_glimpse: bool,
}

impl StateWriteGuard<'_> {
    /// Nothing was changed under this lock but bytes within the file.
    pub(crate) fn keep_glimpse(&mut self) {
        self.keeps_glimpse = true;
    }
}

impl Deref for StateWriteGuard<'_> {
    type Target = InodeState;

    fn deref(&self) -> &InodeState {
        &self.guard
    }
}

impl DerefMut for StateWriteGuard<'_> {
    fn deref_mut(&mut self) -> &mut InodeState {
        &mut self.guard
    }
}

impl Drop for StateWriteGuard<'_> {
    fn drop(&mut self) {
        if !self.keeps_glimpse {
            self.cell.end.store(0, Ordering::Relaxed);
        }
        // The lock is still held: the fields are dropped after this.
        let version = self.cell.version.load(Ordering::Relaxed);
        self.cell.version.store(version + 1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use lodefs_layout::inode::InodeSlot;
    use zerocopy::FromZeros;

    use super::*;

    const GLIMPSE: Glimpse = Glimpse { start: 0, end: 4096, at: 1 << 20, quiet_until_s: i64::MAX };

    fn cell_with_glimpse() -> StateCell {
        let cell = StateCell::new(InodeState::new(InodeSlot::new_zeroed()));
        cell.offer(&cell.read(), GLIMPSE);
        assert_eq!(cell.with_glimpse(Some), Some(GLIMPSE));
        cell
    }

    #[test]
    fn a_change_takes_the_glimpse_back() {
        let cell = cell_with_glimpse();
        drop(cell.write());
        assert_eq!(cell.with_glimpse(Some).map(|glimpse| glimpse.end), Some(0));
    }

    #[test]
    fn a_change_of_bytes_keeps_it_but_ends_its_use() {
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
            cell.offer(&cell.read(), Glimpse { at: 2 << 20, ..GLIMPSE });
            Some(glimpse)
        });
        assert_eq!(used, None);
    }
}
