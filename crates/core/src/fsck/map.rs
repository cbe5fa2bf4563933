//! Is the inode map right? Where each chunk of inodes lies.
//!
//! Entries are used in order, so whatever is missing before the last one is a gap.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::inode::InodeSlot;
use lodefs_layout::inode_map::{CHUNK_INODES, ENTRY_SIZE, Entry, Found};
use zerocopy::{FromZeros, IntoBytes};

use super::finding::{Code, Finding, Object};
use super::survey::{Chunk, InodeFacts, Survey};
use crate::alloc::Run;
use crate::error::Result;
use crate::tx::offset_of;

/// Entries in a block of the map.
const ENTRIES: u64 = BLOCK_SIZE / ENTRY_SIZE;

impl Survey<'_> {
    /// Reads the inode map and claims the chunks it points to.
    pub(super) fn look_at_map(&mut self) -> Result<()> {
        let max = self.volume.shape.inode_chunks_max;
        let mut gap_start = 0;
        let mut entries = Entry::new_vec_zeroed(ENTRIES as usize).expect("4 KiB of memory");
        for first in (0..max).step_by(ENTRIES as usize) {
            let count = ENTRIES.min(max - first) as usize;
            let start = offset_of(self.volume.shape.inode_map_start) + first * ENTRY_SIZE;
            self.volume.medium.read_meta(start, entries[..count].as_mut_bytes())?;
            for (index, entry) in (first..).zip(&entries[..count]) {
                let found = entry.interpret(index, self.volume.seed);
                if found == Found::Absent {
                    continue;
                }
                self.note_gap(gap_start, index);
                gap_start = index + 1;
                self.look_at_map_entry(index, found)?;
            }
        }
        if self.chunks.is_empty() {
            self.note_gap(0, 1);
        }
        Ok(())
    }

    fn note_gap(&mut self, start: u64, end: u64) {
        if start < end {
            self.chunks.resize_with(end as usize, || Chunk::Lost);
            self.report_lost(Code::MapGap, start, end - start, "");
        }
    }

    fn look_at_map_entry(&mut self, index: u64, found: Found) -> Result<()> {
        let chunk = match found {
            Found::At(start) => self.claim_chunk(index, start)?,
            Found::Gone => Chunk::Gone,
            Found::Damaged | Found::Absent => {
                self.report_lost(Code::MapEntryDamaged, index, 1, "wrong checksum");
                Chunk::Lost
            }
        };
        self.chunks.push(chunk);
        Ok(())
    }

    fn claim_chunk(&mut self, index: u64, start: u64) -> Result<Chunk> {
        let run = Run { start, blocks: 1 };
        let fault = if !self.volume.holds(run) {
            Some((Code::MapEntryRange, format!("block {start}")))
        } else if self.claims.used.contains_any(run) {
            Some((Code::MapEntryTaken, format!("block {start}")))
        } else if !self.holds_inodes(index, start)? {
            Some((Code::MapEntryWrong, format!("block {start}")))
        } else {
            None
        };
        if let Some((code, detail)) = fault {
            self.report_lost(code, index, 1, detail);
            return Ok(Chunk::Lost);
        }
        let _free = self.claims.take(run);
        let facts = vec![InodeFacts::default(); CHUNK_INODES as usize];
        Ok(Chunk::At(start, facts.into_boxed_slice()))
    }

    /// Whether what is at `start` can be chunk `index`: it holds one of its inodes, or nothing at all.
    fn holds_inodes(&self, index: u64, start: u64) -> Result<bool> {
        let mut slots = InodeSlot::new_vec_zeroed(CHUNK_INODES as usize).expect("4 KiB of memory");
        self.volume.medium.read_meta(offset_of(start), slots.as_mut_bytes())?;
        let is_blank = slots.as_bytes().iter().all(|byte| *byte == 0);
        let mut all = (index * CHUNK_INODES..).zip(&slots);
        Ok(is_blank || all.any(|(ino, slot)| slot.is_valid(ino, self.volume.seed)))
    }

    fn report_lost(&mut self, code: Code, first: u64, count: u64, detail: impl Into<String>) {
        self.complete.names = false;
        self.complete.claims = false;
        self.report(Finding::new(code, Object::MapEntries { first, count }, detail));
    }
}
