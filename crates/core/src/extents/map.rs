//! The extents of one file, sorted in memory.
//!
//! Each extent knows the slot that stores it. Changing the map notes which slots have to be written; the
//! operation then puts those into its transaction. If the operation fails afterwards, the map is thrown away and read
//! again, so it never has to be undone step by step.
//!
//! Invariants: extents do not overlap, none is empty, and every slot number is used by one extent or is free.

use std::collections::{BTreeMap, BTreeSet};

use lodefs_layout::extent::EXTENT_BLOCKS_MAX;
#[cfg(test)]
use lodefs_layout::inode::INLINE_EXTENTS;
use smallvec::SmallVec;

use crate::volume::Run;

/// Number of a slot: the first few are in the inode, then those of each extent block in the order of the chain.
pub(crate) type SlotNumber = u32;

/// A part of a file and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First block within the file.
    pub(crate) logical: u64,
    /// First block on the volume.
    pub(crate) physical: u64,
    /// Number of blocks.
    pub(crate) blocks: u64,
}

impl Extent {
    pub(crate) fn logical_end(&self) -> u64 {
        self.logical + self.blocks
    }

    pub(crate) fn run(&self) -> Run {
        Run { start: self.physical, blocks: self.blocks }
    }

    /// The part of it within `[from, to)`, which must overlap it.
    fn clip(&self, from: u64, to: u64) -> Self {
        let logical = self.logical.max(from);
        let end = self.logical_end().min(to);
        Self { logical, physical: self.physical + (logical - self.logical), blocks: end - logical }
    }
}

#[derive(Clone, Copy, Debug)]
struct Placed {
    physical: u64,
    blocks: u64,
    slot: SlotNumber,
}

/// A slot that has to be written: with an extent, or as free.
pub(crate) type Edit = (SlotNumber, Option<Extent>);

/// What a change leaves to be stored.
pub(crate) type Edits = SmallVec<[Edit; 4]>;

#[derive(Debug, Default)]
pub(crate) struct ExtentMap {
    tree: BTreeMap<u64, Placed>,
    /// The lowest is taken first, so that the last blocks of the chain become empty before others.
    free_slots: BTreeSet<SlotNumber>,
    /// Extent blocks, in the order in which their slots are numbered (the end of the chain first).
    pub(crate) chain: Vec<u64>,
}

impl ExtentMap {
    /// A map without extents, and with the slots of an inode.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self { free_slots: (0..INLINE_EXTENTS as u32).collect(), ..Self::default() }
    }

    /// Adds what was read from a slot; `false` if it overlaps another extent.
    #[must_use]
    pub(crate) fn load(&mut self, slot: SlotNumber, extent: Extent) -> bool {
        if self.next_overlapping(extent.logical, extent.logical_end()).is_some() {
            return false;
        }
        self.place(extent, slot);
        true
    }

    /// Adds a slot that was found free.
    pub(crate) fn load_free(&mut self, slot: SlotNumber) {
        self.free_slots.insert(slot);
    }

    pub(crate) fn len(&self) -> usize {
        self.tree.len()
    }

    pub(crate) fn free_slots(&self) -> usize {
        self.free_slots.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.tree.iter().map(|(logical, placed)| extent_of(*logical, placed))
    }

    /// Where the extent starts that has `others` extents behind it. `None` if there are not so many.
    pub(crate) fn start_from_end(&self, others: usize) -> Option<u64> {
        self.tree.keys().rev().nth(others).copied()
    }

    /// Whether all slots from `first` to before `end` are free.
    pub(crate) fn are_free(&self, first: SlotNumber, end: SlotNumber) -> bool {
        self.free_slots.range(first..end).count() == (end - first) as usize
    }

    /// Forgets the free slots from `first` on, which are given back.
    pub(crate) fn forget_free_from(&mut self, first: SlotNumber) {
        self.free_slots.split_off(&first);
    }

    /// The extent that holds block `logical`, clipped to start there; or else how many blocks of hole there are from
    /// there on (`u64::MAX`: to the end).
    pub(crate) fn find(&self, logical: u64) -> Result<Extent, u64> {
        if let Some(extent) = self.extent_at(logical) {
            return Ok(extent.clip(logical, u64::MAX));
        }
        let next = self.tree.range(logical..).next();
        Err(next.map_or(u64::MAX, |(start, _)| start - logical))
    }

    /// The whole extent that holds block `logical`.
    pub(crate) fn extent_at(&self, logical: u64) -> Option<Extent> {
        let (start, placed) = self.tree.range(..=logical).next_back()?;
        Some(extent_of(*start, placed)).filter(|extent| logical < extent.logical_end())
    }

    /// The extents before and behind `logical`, which is in a hole.
    pub(crate) fn neighbours(&self, logical: u64) -> (Option<Extent>, Option<Extent>) {
        let before = self.tree.range(..logical).next_back();
        let behind = self.tree.range(logical..).next();
        (
            before.map(|(start, placed)| extent_of(*start, placed)),
            behind.map(|(start, placed)| extent_of(*start, placed)),
        )
    }

    /// Maps a range that is a hole. Joins the extent before it if they are adjacent. `false` if no slot is free.
    #[must_use]
    pub(crate) fn insert(&mut self, extent: Extent, edits: &mut Edits) -> bool {
        debug_assert!(self.next_overlapping(extent.logical, extent.logical_end()).is_none());
        if let Some((start, before)) = self.tree.range_mut(..extent.logical).next_back() {
            let adjacent = start + before.blocks == extent.logical
                && before.physical + before.blocks == extent.physical
                && before.blocks + extent.blocks <= EXTENT_BLOCKS_MAX;
            if adjacent {
                before.blocks += extent.blocks;
                edits.push((before.slot, Some(extent_of(*start, before))));
                return true;
            }
        }
        let Some(slot) = self.free_slots.pop_first() else { return false };
        self.place(extent, slot);
        edits.push((slot, Some(extent)));
        true
    }

    /// Unmaps blocks `[from, to)` and passes on what was there. `false` if a slot was missing (an extent was cut in
    /// two); then the map must be thrown away.
    #[must_use]
    pub(crate) fn remove(
        &mut self,
        from: u64,
        to: u64,
        edits: &mut Edits,
        mut freed: impl FnMut(Run),
    ) -> bool {
        while let Some((extent, slot)) = self.next_overlapping(from, to) {
            freed(extent.clip(from, to).run());
            self.tree.remove(&extent.logical);
            let keeps_start = extent.logical < from;
            let keeps_end = extent.logical_end() > to;
            if keeps_start {
                self.replace(extent.clip(0, from), slot, edits);
            }
            if keeps_end {
                let rest = extent.clip(to, u64::MAX);
                let own_slot = if keeps_start { self.free_slots.pop_first() } else { Some(slot) };
                let Some(slot) = own_slot else { return false };
                self.replace(rest, slot, edits);
            }
            if !keeps_start && !keeps_end {
                self.free_slots.insert(slot);
                edits.push((slot, None));
            }
        }
        true
    }

    fn replace(&mut self, extent: Extent, slot: SlotNumber, edits: &mut Edits) {
        self.place(extent, slot);
        edits.push((slot, Some(extent)));
    }

    fn place(&mut self, extent: Extent, slot: SlotNumber) {
        self.tree.insert(extent.logical, Placed { physical: extent.physical, blocks: extent.blocks, slot });
    }

    /// The first extent that has blocks in `[from, to)`, and its slot.
    fn next_overlapping(&self, from: u64, to: u64) -> Option<(Extent, SlotNumber)> {
        let before = self.tree.range(..from).next_back();
        let overlapping = before.filter(|(start, placed)| *start + placed.blocks > from);
        let (start, placed) = overlapping.or_else(|| self.tree.range(from..to).next())?;
        Some((extent_of(*start, placed), placed.slot))
    }

    /// Heap bytes in use, roughly.
    pub(crate) fn memory(&self) -> usize {
        self.tree.len() * (size_of::<u64>() + size_of::<Placed>()) * 3 / 2
            + self.free_slots.len() * size_of::<SlotNumber>() * 3 / 2
            + self.chain.capacity() * size_of::<u64>()
    }
}

fn extent_of(logical: u64, placed: &Placed) -> Extent {
    Extent { logical, physical: placed.physical, blocks: placed.blocks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(logical: u64, physical: u64, blocks: u64) -> Extent {
        Extent { logical, physical, blocks }
    }

    #[test]
    fn appending_extends_the_last_extent() {
        let mut map = ExtentMap::empty();
        let mut edits = Edits::new();
        assert!(map.insert(extent(0, 100, 4), &mut edits));
        assert!(map.insert(extent(4, 104, 2), &mut edits));
        assert_eq!(map.len(), 1);
        assert_eq!(map.find(5), Ok(extent(5, 105, 1)));
        assert_eq!(map.find(6), Err(u64::MAX));
        assert_eq!(map.neighbours(6), (Some(extent(0, 100, 6)), None));
        assert_eq!(edits.last(), Some(&(0, Some(extent(0, 100, 6)))));
    }

    #[test]
    fn removing_the_middle_needs_a_second_slot() {
        let mut map = ExtentMap::empty();
        let mut edits = Edits::new();
        assert!(map.insert(extent(0, 100, 10), &mut edits));
        edits.clear();
        let mut freed = Vec::new();
        assert!(map.remove(3, 5, &mut edits, |run| freed.push(run)));
        assert_eq!(freed, [Run { start: 103, blocks: 2 }]);
        assert_eq!(map.iter().collect::<Vec<_>>(), [extent(0, 100, 3), extent(5, 105, 5)]);
        assert_eq!(edits.as_slice(), [(0, Some(extent(0, 100, 3))), (1, Some(extent(5, 105, 5)))]);
        assert_eq!(map.find(3), Err(2));
    }

    #[test]
    fn without_a_slot_nothing_is_inserted() {
        let mut map = ExtentMap::empty();
        let mut edits = Edits::new();
        for i in 0..INLINE_EXTENTS as u64 {
            assert!(map.insert(extent(i * 10, i * 100, 1), &mut edits));
        }
        assert!(!map.insert(extent(1000, 1000, 1), &mut edits));
        assert!(map.insert(extent(1, 1, 1), &mut edits), "adjacent to the first extent");
    }

    #[test]
    fn overlapping_slots_are_not_loaded() {
        let mut map = ExtentMap::default();
        assert!(map.load(0, extent(10, 100, 10)));
        assert!(!map.load(1, extent(19, 500, 1)));
        assert!(!map.load(1, extent(5, 500, 6)));
        assert!(!map.load(1, extent(12, 500, 1)));
        assert!(map.load(1, extent(20, 500, 1)));
    }
}
