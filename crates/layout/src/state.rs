//! The state of the volume: which journal generation is live, and whether the volume was closed cleanly.
//!
//! Two slots, each in a block of its own. An update writes the slot that is *not* the newest, so a crash that
//! tears the write leaves the other, and the volume is as it was before the update.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checksum::{Seed, identity_like};

const MAGIC: u32 = u32::from_le_bytes(*b"Lst1");

/// [`State::flags`]: closed cleanly, so that the saved bitmap and counters may be believed.
pub const CLEAN: u32 = 1;

/// [`State::flags`]: written on a `page` volume, where the host decides when a page reaches the medium. Unless the
/// host is still in the same boot, recovery must stop at [`State::committed_seq`].
pub const GATED: u32 = 2;

/// One stored state slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct State {
    crc: U32,
    magic: U32,
    /// Counts updates; the valid slot with the higher count is the newest.
    pub update: U64,
    /// Oldest journal generation whose records are not yet at home. Recovery replays this generation and the next.
    pub generation: U64,
    /// After a power failure on a `page` volume, records with a later sequence number are not replayed.
    pub committed_seq: U64,
    /// The boot of the host during which the records were written: as long as it is the same, everything that the
    /// process wrote is still in the host's page cache.
    pub boot_id: [u8; 16],
    /// [`CLEAN`], [`GATED`].
    pub flags: U32,
    /// Unused, zero.
    pub reserved: U32,
    /// If clean: inodes in use.
    pub used_inodes: U64,
    /// If clean: where to look for a free inode first (an index of a chunk of inodes).
    pub inode_chunk_hint: U64,
    /// If clean: free blocks.
    pub free_blocks: U64,
}

const _: () = assert!(size_of::<State>() == 80);

impl State {
    /// A state with the given counters and nothing else.
    pub fn new(update: u64, generation: u64) -> Self {
        Self {
            crc: U32::ZERO,
            magic: U32::new(MAGIC),
            update: U64::new(update),
            generation: U64::new(generation),
            committed_seq: U64::ZERO,
            boot_id: [0; 16],
            flags: U32::ZERO,
            reserved: U32::ZERO,
            used_inodes: U64::ZERO,
            inode_chunk_hint: U64::ZERO,
            free_blocks: U64::ZERO,
        }
    }

    /// Whether the volume was closed cleanly.
    pub fn is_clean(&self) -> bool {
        self.flags.get() & CLEAN != 0
    }

    /// Whether the records behind [`State::committed_seq`] may be replayed only during the same boot.
    pub fn is_gated(&self) -> bool {
        self.flags.get() & GATED != 0
    }

    /// Fills in the checksum.
    #[must_use]
    pub fn sealed(mut self, seed: Seed) -> Self {
        self.crc = U32::new(self.checksum(seed));
        self
    }

    fn checksum(&self, seed: Seed) -> u32 {
        seed.crc(0, &self.as_bytes()[4..])
    }

    /// Reads a slot; `None` if it is torn, damaged or of another volume.
    pub fn parse(bytes: &[u8], seed: Seed) -> Option<Self> {
        let (found, _) = Self::read_from_prefix(bytes).ok()?;
        (found.magic.get() == MAGIC && found.crc.get() == found.checksum(seed)).then_some(found)
    }

    /// An identity of which the seed makes a slot valid, as [`identity_like`] finds it; `None` if the slot holds no state of any
    /// volume. Nothing says yet that the slot is not damaged.
    pub fn identity(bytes: &[u8], start: [u8; 16]) -> Option<[u8; 16]> {
        let (found, _) = Self::read_from_prefix(bytes).ok()?;
        let is_state = found.magic.get() == MAGIC && found.reserved.get() == 0;
        is_state.then(|| identity_like(found.crc.get(), 0, &found.as_bytes()[4..], start))
    }

    /// Which of the two slots an update with this count goes to.
    pub fn slot_of(update: u64) -> u64 {
        update % 2
    }
}
