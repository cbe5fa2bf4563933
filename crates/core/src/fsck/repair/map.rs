//! Remedies for the inode map: chunks of inodes are found again by what is in them (`unowned`).
//!
//! Entries that are zero at the end of the map look as if they had never been used. Names may lead to the inodes behind
//! them; but where names may be hidden by damage, all chunks with inodes in use are found again. That comes before
//! anything else, because as long as the map does not know an inode, all that it owns looks free.

use std::collections::BTreeMap;

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::inode_map::{ENTRY_SIZE, Entry, Found};
use zerocopy::IntoBytes;

use super::unowned::holds_used;
use super::{Applied, Repair};
use crate::alloc::{Purpose, Request};
use crate::error::Result;
use crate::fsck::finding::{Code, Finding, Object, Outcome};
use crate::inode::table;
use crate::tx::{Tx, offset_of};

impl Repair {
    /// Finds the chunks of these entries again. Those that are not found count as given back; but the first chunk, which
    /// the root is in, is made anew. That waits until all others are in their place: the blocks of inodes that are still
    /// to be found look free.
    pub(super) fn find_chunks_again(&mut self, first: u64, count: u64) -> Result<Applied> {
        if self.found_chunks.is_none() {
            self.found_chunks = Some(self.look_for(self.lost_chunks.clone())?);
        }
        let found = self.found_chunks.as_ref().expect("just looked for");
        let here: Vec<(u64, u64)> =
            (first..first + count).filter_map(|index| Some((index, *found.get(&index)?))).collect();
        let none_anywhere = found.is_empty();
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
            self.given_up.insert(index);
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

    /// Looks for chunks of inodes. Returns the place of each that is found.
    fn look_for(&mut self, chunks: impl IntoIterator<Item = u64>) -> Result<BTreeMap<u64, u64>> {
        let volume = &self.fs.volume;
        self.unowned.look(volume, &self.used)?;
        let mut found = BTreeMap::new();
        for chunk in chunks {
            if let Some(block) = self.unowned.place_of(volume, &self.used, chunk)? {
                found.insert(chunk, block);
            }
        }
        Ok(found)
    }

    /// The chunks with inodes in use that the map had no entry for when the repair began, and has none for now.
    fn look_for_forgotten(&mut self) -> Result<BTreeMap<u64, u64>> {
        let (volume, used) = (&self.fs.volume, &self.used);
        self.unowned.look(volume, used)?;
        let mut found = BTreeMap::new();
        for chunk in self.unowned.chunks() {
            let was_unknown = chunk >= self.map_end || self.given_up.contains(&chunk);
            if !was_unknown || !matches!(table::find_chunk(volume, chunk)?, Found::Absent | Found::Gone) {
                continue;
            }
            if let Some(block) = self.unowned.place_of(volume, used, chunk)?
                && holds_used(volume, block)?
            {
                found.insert(chunk, block);
            }
        }
        Ok(found)
    }

    /// Finds chunks again that the map knows nothing of, because the entries at its end are gone or say that they were
    /// given back: those to which names lead, and where names may be hidden, those with inodes in use. Entries between
    /// them that are not found are made to say that they were given back, so that the map has no gap whenever there is a
    /// crash.
    pub(super) fn restore_missing(&mut self, chunks: u64) -> Result<bool> {
        let mut found = BTreeMap::new();
        if !self.missing_chunks.is_empty() {
            found = self.look_for(self.missing_chunks.clone())?;
        }
        if self.hides_names {
            found.extend(self.look_for_forgotten()?);
        }
        let (Some((&first, _)), Some((&last, _))) = (found.first_key_value(), found.last_key_value()) else {
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
        let mut finding = Finding::new(Code::MapGap, object, "their inodes were found");
        finding.outcome = Outcome::Repaired;
        self.note(finding);
        Ok(true)
    }
}
