//! Is there a volume without a superblock?
//!
//! Where everything lies follows from the size of the medium. All checksums of a volume are seeded by 32 bits of its identity, and the
//! checksum of a state tells which bits these are. Another structure that agrees shows that this was no chance.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::checksum::Seed;
use lodefs_layout::geometry::Geometry;
use lodefs_layout::inode_map::{ENTRY_SIZE, Entry, Found};
use lodefs_layout::state::State;
use lodefs_layout::superblock::Superblock;
use lodefs_pmem::Medium;
use zerocopy::{FromBytes, FromZeros};

use crate::error::Result;
use crate::format::{random_uuid, superblock_like};
use crate::tx::offset_of;

/// Entries at the start of the inode map that are looked at.
const ENTRIES_MAX: u64 = BLOCK_SIZE / ENTRY_SIZE;

/// A superblock for the volume on a medium that has lost both copies of it. `None` if nothing shows that there is a volume.
pub(crate) fn superblock(medium: &Medium) -> Result<Option<Superblock>> {
    let Ok(geometry) = Geometry::for_size(medium.size()) else { return Ok(None) };
    let slot = |number| state_at(medium, &geometry, number);
    for number in 0..2 {
        let Some(uuid) = State::identity(&slot(number)?, random_uuid()?) else { continue };
        let seed = Seed::of_volume(&uuid);
        let other_agrees = State::parse(&slot(1 - number)?, seed).is_some();
        if other_agrees || map_agrees(medium, &geometry, seed)? {
            let left = Superblock { uuid, ..Superblock::new_zeroed() };
            return Ok(Some(superblock_like(&left, &geometry, None)));
        }
    }
    Ok(None)
}

fn state_at(medium: &Medium, geometry: &Geometry, number: u64) -> Result<[u8; size_of::<State>()]> {
    let mut bytes = [0; size_of::<State>()];
    medium.read(offset_of(geometry.state.start.get() + number), &mut bytes)?;
    Ok(bytes)
}

/// Whether an entry of the inode map has the right checksum.
fn map_agrees(medium: &Medium, geometry: &Geometry, seed: Seed) -> Result<bool> {
    for index in 0..ENTRIES_MAX {
        let mut bytes = [0; ENTRY_SIZE as usize];
        medium.read(offset_of(geometry.inode_map.start.get()) + index * ENTRY_SIZE, &mut bytes)?;
        let entry = Entry::read_from_bytes(&bytes).expect("the size of an entry");
        match entry.interpret(index, seed) {
            Found::At(_) | Found::Gone => return Ok(true),
            Found::Absent | Found::Damaged => {}
        }
    }
    Ok(false)
}
