//! A medium with a checked superblock: the ground that everything else stands on.
//!
//! Invariant: the regions of [`Shape`] are those that mkfs gives to a volume of this size, and the volume lies within the
//! medium.

use lodefs_layout::geometry::Geometry;
use lodefs_layout::superblock::{Superblock, SuperblockError, UNFINISHED};
use lodefs_layout::{BLOCK_SIZE, checksum::Seed, features, inode_map};
use lodefs_pmem::Medium;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::{Error, Result};
use crate::lost;
use crate::types::Time;

/// Adjacent blocks.
pub(crate) use crate::alloc::Run;

/// Where things are on the volume, checked. In blocks unless the name says otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) total_blocks: u64,
    pub(crate) lanes: u64,
    pub(crate) half_blocks: u64,
    pub(crate) state_start: u64,
    pub(crate) journal_start: u64,
    pub(crate) inode_map_start: u64,
    pub(crate) inode_chunks_max: u64,
    pub(crate) bitmap_start: u64,
    pub(crate) bitmap_blocks: u64,
    pub(crate) data_start: u64,
    pub(crate) data_end: u64,
}

/// What a superblock says to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Identity.
    pub uuid: [u8; 16],
    /// Name given by the user.
    pub label: String,
    /// When it was made.
    pub created: Time,
    /// Version of the format.
    pub format_version: u32,
    /// Size in blocks of 4 KiB.
    pub total_blocks: u64,
    /// Compatible features.
    pub compat: u64,
    /// Read-only-compatible features.
    pub ro_compat: u64,
    /// Incompatible features.
    pub incompat: u64,
    /// Blocks of the journal.
    pub journal_blocks: u64,
    /// Lanes of the journal.
    pub lanes: u32,
}

pub(crate) struct Volume {
    pub(crate) medium: Medium,
    pub(crate) seed: Seed,
    pub(crate) shape: Shape,
    pub(crate) superblock: Superblock,
}

impl Volume {
    /// Finds and checks the superblock: the first copy, or else the one in the last block of the medium.
    pub(crate) fn open(medium: Medium) -> Result<Self> {
        let superblock = read_superblock(&medium)?;
        Self::with_superblock(medium, superblock)
    }

    /// Takes the word of a superblock for what is on the medium.
    pub(crate) fn with_superblock(medium: Medium, superblock: Superblock) -> Result<Self> {
        check_features(&superblock, medium.is_read_only())?;
        let expected = superblock.total_blocks.get().saturating_mul(BLOCK_SIZE);
        if expected > medium.size() {
            return Err(Error::Truncated { expected, found: medium.size() });
        }
        let shape = check_shape(&superblock)?;
        Ok(Self { medium, seed: superblock.seed(), shape, superblock })
    }

    /// Reads a stored structure of the volume's metadata.
    pub(crate) fn get<T: FromBytes + IntoBytes + Immutable>(&self, at: u64) -> Result<T> {
        let mut value = T::new_zeroed();
        self.medium.read_meta(at, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Whether all of `run` lies where inodes, directories and data may lie.
    pub(crate) fn holds(&self, run: Run) -> bool {
        run.blocks > 0
            && run.start >= self.shape.data_start
            && run.start.checked_add(run.blocks).is_some_and(|end| end <= self.shape.data_end)
    }

    /// Whether `block` lies where inodes, directories and data may lie.
    pub(crate) fn holds_block(&self, block: u64) -> bool {
        self.holds(Run { start: block, blocks: 1 })
    }

    pub(crate) fn info(&self) -> VolumeInfo {
        info_of(&self.superblock)
    }
}

/// What the superblock on `medium` says; nothing else is looked at, and nothing is changed.
pub(crate) fn probe(medium: &Medium) -> Result<VolumeInfo> {
    read_superblock(medium).map(|superblock| info_of(&superblock))
}

fn info_of(superblock: &Superblock) -> VolumeInfo {
    let label = &superblock.label;
    let size = label.iter().position(|byte| *byte == 0).unwrap_or(label.len());
    VolumeInfo {
        uuid: superblock.uuid,
        label: String::from_utf8_lossy(&label[..size]).into_owned(),
        created: Time { s: superblock.created_s.get(), ns: 0 },
        format_version: superblock.version.get(),
        total_blocks: superblock.total_blocks.get(),
        compat: superblock.compat.get(),
        ro_compat: superblock.ro_compat.get(),
        incompat: superblock.incompat.get(),
        journal_blocks: superblock.journal.blocks.get(),
        lanes: superblock.lanes.get(),
    }
}

/// Whether the first bytes say that a volume is being made here.
pub(crate) fn is_unfinished(medium: &Medium) -> Result<bool> {
    let mut start = [0; UNFINISHED.len()];
    if medium.size() < start.len() as u64 {
        return Ok(false);
    }
    medium.read(0, &mut start)?;
    Ok(start == UNFINISHED)
}

fn read_superblock(medium: &Medium) -> Result<Superblock> {
    if medium.size() < BLOCK_SIZE {
        return Err(if is_unfinished(medium)? { Error::Unfinished } else { Error::NotAVolume });
    }
    let parse_at = |at: u64| -> Result<Result<Superblock, SuperblockError>> {
        let mut bytes = [0; size_of::<Superblock>()];
        medium.read(at, &mut bytes)?;
        Ok(Superblock::parse(&bytes))
    };
    let last = (medium.size() / BLOCK_SIZE - 1) * BLOCK_SIZE;
    match parse_at(0)? {
        Ok(superblock) => Ok(superblock),
        Err(SuperblockError::NewerVersion(version)) => Err(Error::Incompatible(format!("format {version}"))),
        Err(first_fault) => match (parse_at(last)?, first_fault) {
            (Ok(superblock), _) => Ok(superblock),
            _ if is_unfinished(medium)? => Err(Error::Unfinished),
            (Err(SuperblockError::NotAVolume), SuperblockError::NotAVolume) => {
                let is_volume = lost::superblock(medium)?.is_some();
                Err(if is_volume { Error::SuperblockLost } else { Error::NotAVolume })
            }
            _ => Err(Error::Corrupt { object: "superblock".into(), fault: "both copies are damaged" }),
        },
    }
}

fn check_features(superblock: &Superblock, read_only: bool) -> Result<()> {
    let unknown = superblock.incompat.get() & !features::KNOWN_INCOMPAT;
    if unknown != 0 {
        return Err(Error::Incompatible(format!("features {unknown:#x}")));
    }
    let unknown = superblock.ro_compat.get() & !features::KNOWN_RO_COMPAT;
    if unknown != 0 && !read_only {
        return Err(Error::Incompatible(format!(
            "features {unknown:#x} to write to it; mount it with -o ro"
        )));
    }
    Ok(())
}

/// Checks that everything lies where it does on a volume of this size.
fn check_shape(superblock: &Superblock) -> Result<Shape> {
    let damaged = |fault| Error::Corrupt { object: "superblock".into(), fault };
    if u64::from(superblock.block_size.get()) != BLOCK_SIZE {
        return Err(Error::Incompatible(format!("blocks of {} bytes", superblock.block_size.get())));
    }
    let size = superblock.total_blocks.get().checked_mul(BLOCK_SIZE);
    let geometry =
        size.and_then(|size| Geometry::for_size(size).ok()).ok_or_else(|| damaged("impossible size"))?;
    if *superblock != superblock.with_geometry(&geometry) {
        return Err(damaged("the regions are not those of a volume of this size"));
    }
    let lanes = u64::from(geometry.lanes);
    let Geometry { total_blocks, state, journal, inode_map, saved_bitmap, data, .. } = geometry;
    Ok(Shape {
        total_blocks,
        lanes,
        half_blocks: journal.blocks.get() / (2 * lanes),
        state_start: state.start.get(),
        journal_start: journal.start.get(),
        inode_map_start: inode_map.start.get(),
        inode_chunks_max: inode_map::chunks_max(total_blocks),
        bitmap_start: saved_bitmap.start.get(),
        bitmap_blocks: saved_bitmap.blocks.get(),
        data_start: data.start.get(),
        data_end: data.start.get() + data.blocks.get(),
    })
}
