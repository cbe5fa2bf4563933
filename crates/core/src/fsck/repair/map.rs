//! Remedies for the inode map: chunks of inodes are found again by what is in them, for each inode carries its number and
//! a checksum over it.

use std::collections::HashMap;

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::inode::{InodeSlot, SLOT_SIZE};
use lodefs_layout::inode_map::{CHUNK_INODES, ENTRY_SIZE, Entry};
use zerocopy::{FromBytes, IntoBytes};

use super::{Applied, Repair};
use crate::alloc::{Purpose, Request};
use crate::error::Result;
use crate::fsck::directories::read_block;
use crate::fsck::finding::{Code, Finding, Object, Outcome};
use crate::tx::{Tx, offset_of};

impl Repair {
    /// Finds the chunks of these entries again. Those that are not found count as given back; but the first chunk, which
    /// the root is in, is made anew. That waits until all others are in their place: the blocks of inodes that are still
    /// to be found look free.
    pub(super) fn find_chunks_again(&mut self, first: u64, count: u64) -> Result<Applied> {
        if self.found_chunks.is_none() {
            self.found_chunks = Some(self.look_for_chunks()?);
        }
        let found = self.found_chunks.as_ref().expect("just looked for");
        let here: Vec<(u64, u64)> =
            (first..first + count).filter_map(|index| Some((index, *found.get(&index)?))).collect();
        let none_anywhere = !found.keys().any(|index| self.lost_chunks.contains(index));
        for (index, block) in &here {
            self.put_entry(Entry::new(*index, *block, self.fs.volume.seed), *index)?;
        }
        if here.len() as u64 == count {
            return Ok(Applied::Done);
        }
        if !here.is_empty() {
            return Ok(Applied::Partly);
        }
        if !none_anywhere {
            return Ok(Applied::Later);
        }
        for index in first..first + count {
            match index {
                0 => self.add_first_chunk()?,
                _ => self.put_entry(Entry::gone(index, self.fs.volume.seed), index)?,
            }
        }
        Ok(Applied::Done)
    }

    fn entry_at(&self, index: u64) -> u64 {
        offset_of(self.fs.volume.shape.inode_map_start) + index * ENTRY_SIZE
    }

    fn put_entry(&self, entry: Entry, index: u64) -> Result<()> {
        let mut tx = Tx::begin(&self.fs)?;
        tx.put(self.entry_at(index), entry.as_bytes());
        tx.commit()?;
        self.fs.table.forget_chunk(index);
        Ok(())
    }

    fn add_first_chunk(&self) -> Result<()> {
        let mut tx = Tx::begin(&self.fs)?;
        let request =
            Request { blocks: 1, goal: None, align: None, contiguous: true, purpose: Purpose::Metadata };
        let run = tx.allocate(&request)?;
        tx.zero_fresh(offset_of(run.start), run.blocks * BLOCK_SIZE)?;
        tx.put(self.entry_at(0), Entry::new(0, run.start, self.fs.volume.seed).as_bytes());
        tx.commit()?;
        self.fs.table.forget_chunk(0);
        Ok(())
    }

    /// Looks through all blocks that nobody owns for inodes of chunks that the map does not know, and returns the place
    /// of each chunk where most of them are.
    fn look_for_chunks(&self) -> Result<HashMap<u64, u64>> {
        let volume = &self.fs.volume;
        let mut votes: HashMap<(u64, u64), u32> = HashMap::new();
        for block in volume.shape.data_start..volume.shape.data_end {
            if self.used.contains(block) {
                continue;
            }
            let bytes = read_block(volume, block)?;
            for (i, raw) in (0..).zip(bytes.chunks_exact(SLOT_SIZE)) {
                let slot = InodeSlot::read_from_bytes(raw).expect("chunks have the size of a slot");
                let ino = slot.ino.get();
                let (chunk, index) = (ino / CHUNK_INODES, ino % CHUNK_INODES);
                if index == i && self.is_wanted(chunk) && slot.is_valid(ino, volume.seed) {
                    *votes.entry((chunk, block)).or_default() += 1;
                }
            }
        }
        let mut best: HashMap<u64, (u32, u64)> = HashMap::new();
        for ((chunk, start), votes) in votes {
            // The lower place wins a draw, so that the result is always the same.
            let candidate = (votes, u64::MAX - start);
            let known = best.entry(chunk).or_insert(candidate);
            *known = (*known).max(candidate);
        }
        Ok(best.into_iter().map(|(chunk, (_, place))| (chunk, u64::MAX - place)).collect())
    }

    fn is_wanted(&self, chunk: u64) -> bool {
        self.lost_chunks.contains(&chunk) || self.missing_chunks.contains(&chunk)
    }

    /// Finds chunks again that names lead to and that the map knows nothing of: the entries at its end are gone, or say that
    /// they were given back. Entries between them that are not found are made to say that as well, so that the map has
    /// no gap whenever there is a crash.
    pub(super) fn restore_missing(&mut self, chunks: u64) -> Result<bool> {
        if self.missing_chunks.is_empty() {
            return Ok(false);
        }
        let mut found = self.look_for_chunks()?;
        found.retain(|index, _| self.missing_chunks.contains(index));
        let (Some(first), Some(last)) = (found.keys().copied().min(), found.keys().copied().max()) else {
            return Ok(false);
        };
        let seed = self.fs.volume.seed;
        for index in first.min(chunks)..=last {
            let entry = match found.get(&index) {
                Some(block) => Entry::new(index, *block, seed),
                None if index >= chunks => Entry::gone(index, seed),
                None => continue,
            };
            self.put_entry(entry, index)?;
        }
        let object = Object::MapEntries { first, count: last + 1 - first };
        let mut finding = Finding::new(Code::MapGap, object, "names lead to their inodes");
        finding.outcome = Outcome::Repaired;
        self.note(finding);
        Ok(true)
    }
}
