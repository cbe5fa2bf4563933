//! Remedies for directory entries.

use lodefs_layout::directory::TAGS_START;
use zerocopy::little_endian::U64;

use super::{Applied, Repair};
use crate::dir::Entry;
use crate::dir::leaf;
use crate::error::{Error, Result};
use crate::fsck::directories::read_block;
use crate::fsck::entries::entries;
use crate::fsck::finding::{Code, Place};
use crate::tx::{Tx, offset_of};
use crate::types::{Ino, Kind};

impl Repair {
    /// Applies the remedy for a finding about an entry of a directory.
    pub(super) fn apply_to_entry(
        &mut self,
        directory: Ino,
        block: u64,
        tag: usize,
        code: Code,
        place: &Place,
    ) -> Result<Applied> {
        match (code, place) {
            (Code::EntryTag | Code::EntryHash | Code::EntryMisplaced, _) => {
                return self.rebuild(directory, false);
            }
            (Code::EntryType, Place::Target(ino)) => self.set_type(directory, block, tag, *ino)?,
            _ => self.drop_entry(directory, block, tag)?,
        }
        Ok(Applied::Done)
    }

    /// Clears a tag, so that its entry does not exist any more.
    fn drop_entry(&self, directory: Ino, block: u64, tag: usize) -> Result<()> {
        if self.rebuilt.contains(&directory) {
            return Ok(());
        }
        let mut tx = Tx::begin(&self.fs)?;
        tx.put(offset_of(block) + (TAGS_START + tag * 4) as u64, &0_u32.to_le_bytes());
        self.edit_inode_in(&mut tx, directory, |slot| {
            slot.size = U64::new(slot.size.get().saturating_sub(1));
        })?;
        tx.commit()
    }

    /// Makes an entry say what its inode is.
    fn set_type(&self, directory: Ino, block: u64, tag: usize, target: Ino) -> Result<()> {
        let volume = &self.fs.volume;
        let gone = || Error::corrupt_block(block, "the entry is gone");
        let kind = Kind::from_mode(self.inode(target)?.mode.get()).ok_or_else(gone)?;
        let bytes = read_block(volume, block)?;
        let mut all = entries(volume, directory, &bytes);
        let raw = all.find_map(|(index, entry)| entry.ok().filter(|_| index == tag)).ok_or_else(gone)?;
        let hash = raw.head.hash.get();
        let entry = Entry { block, tag_index: tag, position: raw.position, hash, ino: target, kind };
        let mut tx = Tx::begin(&self.fs)?;
        leaf::redirect(&mut tx, volume, directory, &entry, raw.name, target, kind);
        tx.commit()
    }
}
