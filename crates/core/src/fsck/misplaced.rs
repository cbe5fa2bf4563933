//! Entries that are in the wrong place: is the name in its directory twice, and what do they lead to?
//!
//! Where every entry is in the leaf into which its hash belongs, looking at one leaf after the other finds a name that is
//! there twice. Elsewhere the directory has to be built again, which must not decide by itself which of two entries stays.

use std::collections::HashSet;
use std::ops::Range;

use super::directories::read_block;
use super::entries::judge;
use super::finding::Code;
use super::survey::{EntryPlace, Survey};
use crate::error::Result;
use crate::types::Ino;

impl Survey<'_> {
    /// Looks at the entries of a directory that are not in their places. Of several with one name, that which is in its
    /// place stays, or else the first.
    pub(super) fn look_at_misplaced(&mut self, directory: Ino, leaves: &[(u64, Range<u64>)]) -> Result<()> {
        let mut names: HashSet<Vec<u8>> = HashSet::new();
        for is_in_place in [true, false] {
            for (block, hashes) in leaves {
                let bytes = read_block(self.volume, *block)?;
                for judged in judge(self.volume, directory, &bytes, hashes) {
                    let Some(entry) = judged.entry.as_ref().filter(|_| judged.stays()) else { continue };
                    if judged.fault.is_none() != is_in_place {
                        continue;
                    }
                    let place = EntryPlace { block: *block, tag: judged.tag };
                    if !names.insert(entry.name.to_vec()) {
                        self.report_entry(Code::EntryDuplicate, directory, place, entry.name);
                    } else if !is_in_place {
                        self.look_at_target_of(directory, place, entry)?;
                    }
                }
            }
        }
        Ok(())
    }
}
