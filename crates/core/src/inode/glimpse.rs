//! What a read of data has to know to go past the lock of an inode ([`lodefs_sync::Glimpsed`]).

use lodefs_sync::{Glimpsed, GlimpsedWriteGuard};

use super::InodeState;

const WORDS: usize = 4;

/// The state of an inode, with a [`Glimpse`] beside its lock.
pub(crate) type StateCell = Glimpsed<InodeState, WORDS>;

/// The state, locked for writing.
pub(crate) type StateWriteGuard<'c> = GlimpsedWriteGuard<'c, InodeState, WORDS>;

/// Where a part of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glimpse {
    /// First byte within the file.
    pub(crate) start: u64,
    /// First byte after it; at most the size of the file. Zero if there is no glimpse.
    pub(crate) end: u64,
    /// Where its first byte is on the volume.
    pub(crate) at: u64,
    /// From this second on, a read has to store an access time.
    pub(crate) quiet_until_s: i64,
}

impl Glimpse {
    pub(crate) fn of_words([start, end, at, quiet_until_s]: [u64; WORDS]) -> Self {
        Self { start, end, at, quiet_until_s: quiet_until_s.cast_signed() }
    }

    pub(crate) fn to_words(self) -> [u64; WORDS] {
        [self.start, self.end, self.at, self.quiet_until_s.cast_unsigned()]
    }
}
