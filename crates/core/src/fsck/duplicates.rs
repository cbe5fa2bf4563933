//! Is a name twice in a directory, in different leaves?
//!
//! Not if every entry is in the leaf into which its hash belongs. So this is looked for only in directories that have to
//! be built again, which must not decide by itself which of two entries stays.

use std::collections::HashSet;
use std::ops::Range;

use super::directories::read_block;
use super::entries::judge;
use super::finding::Code;
use super::survey::{EntryPlace, Survey};
use crate::error::Result;
use crate::types::Ino;

impl Survey<'_> {
    /// Reports all entries of a directory but one for each name. Of several, one that is in its place stays.
    pub(super) fn look_for_duplicates(&mut self, directory: Ino, leaves: &[(u64, Range<u64>)]) -> Result<()> {
        let mut names: HashSet<Vec<u8>> = HashSet::new();
        for is_in_place in [true, false] {
            for (block, hashes) in leaves {
                let bytes = read_block(self.volume, *block)?;
                for judged in judge(self.volume, directory, &bytes, hashes) {
                    let Some(entry) = judged.entry.as_ref().filter(|_| judged.stays()) else { continue };
                    if judged.fault.is_none() == is_in_place && !names.insert(entry.name.to_vec()) {
                        let place = EntryPlace { block: *block, tag: judged.tag };
                        self.report_entry(Code::EntryDuplicate, directory, place, entry.name);
                    }
                }
            }
        }
        Ok(())
    }
}
