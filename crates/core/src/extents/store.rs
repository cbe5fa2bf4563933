//! The stored form of a file's extents: slots in the inode and in a chain of extent blocks.
//!
//! One change writes one slot. When a change touches more slots than a record has room for, it is still one record:
//! blocks at the end of the chain (where the inode points to) that became empty are given back, and if that is not
//! enough, the blocks of the chain from its end to the first with a changed slot are copied, with the changes, into fresh
//! blocks, to which the inode then points. So truncating the last extents of a file costs what these extents take, not what
//! the file has. If most slots are empty then, the whole list is written afresh instead.
//!
//! What a crash can tear: nothing. The blocks of the old chain are not changed, and the inode points to the old chain or to
//! the new one.

use std::collections::BTreeMap;

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::extent::{
    EXTENT_BLOCKS_MAX, ExtentBlockHead, ExtentSlot, InlineExtent, SLOT_SIZE, SLOTS, SLOTS_START,
};
use lodefs_layout::inode::{INLINE_EXTENTS, InodeSlot};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::map::{Edit, Edits, Extent, ExtentMap, SlotNumber};
use crate::error::{Error, Result};
use crate::tx::{Tx, offset_of};
use crate::types::Ino;
use crate::volume::{Run, Volume};

/// Bytes that one edited slot takes in a record.
const EDIT_SIZE: usize = SLOT_SIZE + lodefs_layout::journal::WRITE_HEAD_SIZE;

/// Reads the extents of inode `ino`.
pub(crate) fn load(volume: &Volume, ino: Ino, slot: &InodeSlot) -> Result<ExtentMap> {
    let mut map = ExtentMap::default();
    for (number, inline) in slot.inline_extents().iter().enumerate() {
        if *inline == InlineExtent::default() {
            map.load_free(number as SlotNumber);
        } else {
            load_extent(volume, ino, &mut map, number as SlotNumber, inline)?;
        }
    }
    map.chain = read_chain(volume, ino, slot.root.get())?;
    for (index, block) in map.chain.clone().into_iter().enumerate() {
        let mut bytes = [0; BLOCK_SIZE as usize];
        volume.medium.read_meta(offset_of(block), &mut bytes)?;
        for (i, raw) in bytes[SLOTS_START..].chunks_exact(SLOT_SIZE).enumerate() {
            let stored = ExtentSlot::read_from_bytes(raw).expect("chunks have the size of a slot");
            let number = slot_number(index, i);
            if stored.is_free() {
                map.load_free(number);
            } else if stored.is_valid(ino.0, volume.seed) {
                load_extent(volume, ino, &mut map, number, &stored.extent)?;
            } else {
                return Err(Error::corrupt_inode(ino, "an extent has a wrong checksum"));
            }
        }
    }
    if map.len() as u64 != u64::from(slot.extents.get()) {
        return Err(Error::corrupt_inode(ino, "extents are missing"));
    }
    Ok(map)
}

/// The extent blocks of the chain that starts at `first`, the last of the chain first.
pub(crate) fn read_chain(volume: &Volume, ino: Ino, first: u64) -> Result<Vec<u64>> {
    let mut chain = Vec::new();
    let mut block = first;
    // Brent's way to notice a circle: compare with a block that is left behind at every power of two.
    let mut landmark = 0;
    while block != 0 {
        if !volume.holds_block(block) {
            return Err(Error::corrupt_inode(ino, "an extent block lies outside of the volume"));
        }
        let head: ExtentBlockHead = volume.get(offset_of(block))?;
        if !head.is_valid(ino.0, block, volume.seed) {
            return Err(Error::corrupt_inode(ino, "an extent block has a wrong head"));
        }
        if block == landmark {
            return Err(Error::corrupt_inode(ino, "its extent blocks form a circle"));
        }
        chain.push(block);
        if chain.len().is_power_of_two() {
            landmark = block;
        }
        block = head.next.get();
    }
    chain.reverse();
    Ok(chain)
}

fn slot_number(chain_index: usize, slot: usize) -> SlotNumber {
    (INLINE_EXTENTS + chain_index * SLOTS + slot) as SlotNumber
}

fn load_extent(
    volume: &Volume,
    ino: Ino,
    map: &mut ExtentMap,
    number: SlotNumber,
    stored: &InlineExtent,
) -> Result<()> {
    let extent =
        check_extent(volume, stored).ok_or_else(|| Error::corrupt_inode(ino, "an extent makes no sense"))?;
    if map.load(number, extent) { Ok(()) } else { Err(Error::corrupt_inode(ino, "two extents overlap")) }
}

/// The extent, if it lies within the volume and within the largest file.
pub(crate) fn check_extent(volume: &Volume, stored: &InlineExtent) -> Option<Extent> {
    let blocks = u64::from(stored.blocks.get());
    let (logical, physical) = (stored.logical.get(), stored.physical.get());
    let in_file = logical.checked_add(blocks)? <= lodefs_layout::FILE_SIZE_MAX.div_ceil(BLOCK_SIZE);
    let sane = in_file && blocks <= EXTENT_BLOCKS_MAX && volume.holds(Run { start: physical, blocks });
    sane.then_some(Extent { logical, physical, blocks })
}

fn stored_form(extent: Option<Extent>) -> InlineExtent {
    extent.map_or_else(InlineExtent::default, |extent| InlineExtent {
        logical: U64::new(extent.logical),
        physical: U64::new(extent.physical),
        blocks: U32::new(extent.blocks as u32),
        flags: U32::ZERO,
    })
}

/// Puts the changed slots of inode `ino` into the transaction; those in the inode go to `slot`.
///
/// Adjusts `slot.extents`, `slot.root` and `slot.blocks` for the extent blocks. `reclaim` tells that the operation
/// frees space and may use the reserve.
pub(crate) fn put(
    tx: &mut Tx<'_>,
    volume: &Volume,
    ino: Ino,
    slot: &mut InodeSlot,
    map: &mut ExtentMap,
    edits: &Edits,
    reclaim: bool,
) -> Result<()> {
    if map.len() == 0 && !map.chain.is_empty() {
        return rewrite(tx, volume, ino, slot, map, reclaim);
    }
    if !has_room(tx, edits, map) {
        drop_empty_end(tx, slot, map);
    }
    if !has_room(tx, edits, map) {
        return renew_end(tx, volume, ino, slot, map, edits, reclaim);
    }
    let mut inline = slot.inline_extents();
    for (number, extent) in edits {
        let number = *number as usize;
        if number < INLINE_EXTENTS {
            inline[number] = stored_form(*extent);
        } else if chain_index(number) < map.chain.len() {
            tx.put(slot_offset(map, number), stored_slot(volume, ino, *extent).as_bytes());
        }
    }
    slot.set_inline_extents(inline);
    slot.extents = U32::new(map.len() as u32);
    Ok(())
}

/// Whether a record has room for the changed slots that are in the chain.
fn has_room(tx: &Tx<'_>, edits: &Edits, map: &ExtentMap) -> bool {
    let in_chain = |number: usize| number >= INLINE_EXTENTS && chain_index(number) < map.chain.len();
    let count = edits.iter().filter(|(number, _)| in_chain(*number as usize)).count();
    tx.has_room(count * EDIT_SIZE)
}

fn stored_slot(volume: &Volume, ino: Ino, extent: Option<Extent>) -> ExtentSlot {
    match extent {
        Some(_) => ExtentSlot::new(stored_form(extent), ino.0, volume.seed),
        None => ExtentSlot::default(),
    }
}

/// Which block of the chain has a slot.
fn chain_index(number: usize) -> usize {
    (number - INLINE_EXTENTS) / SLOTS
}

/// Where a slot is in its block.
fn place_in_block(number: usize) -> usize {
    SLOTS_START + (number - INLINE_EXTENTS) % SLOTS * SLOT_SIZE
}

fn slot_offset(map: &ExtentMap, number: usize) -> u64 {
    offset_of(map.chain[chain_index(number)]) + place_in_block(number) as u64
}

/// Gives back the blocks at the end of the chain in which no slot is used any more.
fn drop_empty_end(tx: &mut Tx<'_>, slot: &mut InodeSlot, map: &mut ExtentMap) {
    let mut dropped = 0;
    while let Some(last) = map.chain.len().checked_sub(1) {
        if !map.are_free(slot_number(last, 0), slot_number(last + 1, 0)) {
            break;
        }
        tx.free_metadata(Run { start: map.chain[last], blocks: 1 });
        map.chain.pop();
        dropped += 1;
    }
    map.forget_free_from(slot_number(map.chain.len(), 0));
    slot.root = U64::new(map.chain.last().copied().unwrap_or_default());
    slot.blocks = U64::new(slot.blocks.get().saturating_sub(dropped));
}

/// Copies the chain, from its end to the first block with a changed slot, into fresh blocks, with the changes.
fn renew_end(
    tx: &mut Tx<'_>,
    volume: &Volume,
    ino: Ino,
    slot: &mut InodeSlot,
    map: &mut ExtentMap,
    edits: &Edits,
    reclaim: bool,
) -> Result<()> {
    let mut inline = slot.inline_extents();
    let mut by_block: BTreeMap<usize, Vec<&Edit>> = BTreeMap::new();
    for edit in edits {
        let number = edit.0 as usize;
        if number < INLINE_EXTENTS {
            inline[number] = stored_form(edit.1);
        } else {
            by_block.entry(chain_index(number)).or_default().push(edit);
        }
    }
    let first = by_block.keys().next().copied().unwrap_or(map.chain.len());
    if map.len().div_ceil(SLOTS) * 2 < map.chain.len().saturating_sub(first) {
        return rewrite(tx, volume, ino, slot, map, reclaim);
    }
    for index in first..map.chain.len() {
        let (old, block) = (map.chain[index], tx.allocate_metadata_block(reclaim)?);
        let mut bytes = [0; BLOCK_SIZE as usize];
        tx.read(offset_of(old), &mut bytes)?;
        let next = index.checked_sub(1).map_or(0, |before| map.chain[before]);
        let head = ExtentBlockHead::new(ino.0, next, block, volume.seed);
        bytes[..SLOTS_START].copy_from_slice(head.as_bytes());
        for (number, extent) in by_block.get(&index).into_iter().flatten() {
            let stored = stored_slot(volume, ino, *extent);
            bytes[place_in_block(*number as usize)..][..SLOT_SIZE].copy_from_slice(stored.as_bytes());
        }
        tx.write_fresh(offset_of(block), &bytes)?;
        tx.free_metadata(Run { start: old, blocks: 1 });
        map.chain[index] = block;
    }
    slot.set_inline_extents(inline);
    slot.extents = U32::new(map.len() as u32);
    slot.root = U64::new(map.chain.last().copied().unwrap_or_default());
    Ok(())
}

/// Adds an empty extent block to the chain, so that [`ExtentMap::insert`] finds free slots.
pub(crate) fn grow(
    tx: &mut Tx<'_>,
    volume: &Volume,
    ino: Ino,
    slot: &mut InodeSlot,
    map: &mut ExtentMap,
    reclaim: bool,
) -> Result<()> {
    let block = tx.allocate_metadata_block(reclaim)?;
    let mut bytes = [0; BLOCK_SIZE as usize];
    let head = ExtentBlockHead::new(ino.0, slot.root.get(), block, volume.seed);
    bytes[..SLOTS_START].copy_from_slice(head.as_bytes());
    tx.write_fresh(offset_of(block), &bytes)?;
    slot.root = U64::new(block);
    slot.blocks = U64::new(slot.blocks.get() + 1);
    map.chain.push(block);
    for i in (0..SLOTS).rev() {
        map.load_free(slot_number(map.chain.len() - 1, i));
    }
    Ok(())
}

/// Writes the whole list into new extent blocks (or the inode, if it fits) and gives the old ones back. The map in
/// memory is replaced by one with the new slots.
pub(crate) fn rewrite(
    tx: &mut Tx<'_>,
    volume: &Volume,
    ino: Ino,
    slot: &mut InodeSlot,
    map: &mut ExtentMap,
    reclaim: bool,
) -> Result<()> {
    let extents: Vec<Extent> = map.iter().collect();
    let (in_inode, outside) = extents.split_at(extents.len().min(INLINE_EXTENTS));
    let old_blocks = map.chain.len() as u64;
    for block in map.chain.drain(..) {
        tx.free_metadata(Run { start: block, blocks: 1 });
    }
    let mut renewed = ExtentMap::default();
    let mut inline = [InlineExtent::default(); INLINE_EXTENTS];
    for (number, place) in inline.iter_mut().enumerate() {
        *place = stored_form(in_inode.get(number).copied());
        place_or_free(&mut renewed, number as SlotNumber, in_inode.get(number));
    }
    let mut next = 0;
    for part in outside.chunks(SLOTS) {
        let block = tx.allocate_metadata_block(reclaim)?;
        let bytes = extent_block(volume, ino, block, next, part);
        tx.write_fresh(offset_of(block), &bytes)?;
        renewed.chain.push(block);
        let index = renewed.chain.len() - 1;
        for i in 0..SLOTS {
            place_or_free(&mut renewed, slot_number(index, i), part.get(i));
        }
        next = block;
    }
    slot.set_inline_extents(inline);
    slot.extents = U32::new(extents.len() as u32);
    slot.root = U64::new(next);
    slot.blocks = U64::new(slot.blocks.get().saturating_sub(old_blocks) + renewed.chain.len() as u64);
    *map = renewed;
    Ok(())
}

fn place_or_free(map: &mut ExtentMap, number: SlotNumber, extent: Option<&Extent>) {
    match extent {
        Some(extent) => assert!(map.load(number, *extent), "extents of one map do not overlap"),
        None => map.load_free(number),
    }
}

fn extent_block(
    volume: &Volume,
    ino: Ino,
    block: u64,
    next: u64,
    part: &[Extent],
) -> [u8; BLOCK_SIZE as usize] {
    let mut bytes = [0; BLOCK_SIZE as usize];
    bytes[..SLOTS_START].copy_from_slice(ExtentBlockHead::new(ino.0, next, block, volume.seed).as_bytes());
    for (place, extent) in bytes[SLOTS_START..].chunks_exact_mut(SLOT_SIZE).zip(part) {
        let stored = ExtentSlot::new(stored_form(Some(*extent)), ino.0, volume.seed);
        place.copy_from_slice(stored.as_bytes());
    }
    bytes
}
