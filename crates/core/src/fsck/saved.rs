//! Does what a clean close saved agree with what there is?

use lodefs_layout::saved_bitmap::{BitmapBlock, WORDS};
use lodefs_layout::state::State;
use zerocopy::{FromZeros, IntoBytes};

use super::finding::{Code, Finding, Object};
use super::survey::Survey;
use crate::alloc::Run;
use crate::error::Result;
use crate::tx::offset_of;
use crate::volume::Volume;

/// Reads the bitmap that was saved with state update `update`: its words, up to the end of the volume, or the index of
/// the first block that is damaged or older.
pub(super) fn read_bitmap(volume: &Volume, update: u64) -> Result<Result<Vec<u64>, u64>> {
    let needed = volume.shape.total_blocks.div_ceil(64) as usize;
    let mut words = Vec::with_capacity(needed);
    let mut block = BitmapBlock::new_box_zeroed().expect("4 KiB of memory");
    for index in 0..volume.shape.bitmap_blocks {
        volume.medium.read(offset_of(volume.shape.bitmap_start + index), block.as_mut_bytes())?;
        if !block.is_valid(index, update, volume.seed) {
            return Ok(Err(index));
        }
        words.extend(block.words.iter().map(|word| word.get()).take(needed - words.len()));
    }
    debug_assert!(volume.shape.bitmap_blocks as usize * WORDS >= needed);
    Ok(Ok(words))
}

impl Survey<'_> {
    /// Compares the saved bitmap and counters with what was found.
    pub(super) fn look_at_saved(&mut self, state: &State) -> Result<()> {
        match read_bitmap(self.volume, state.update.get())? {
            Ok(words) => self.compare_bitmap(state, &words),
            Err(index) => {
                let detail = format!("block {}", self.volume.shape.bitmap_start + index);
                self.report(Finding::new(Code::BitmapDamaged, Object::SavedBitmap, detail));
            }
        }
        let is_map_complete = (0..self.chunks.len()).all(|index| self.chunk_run(index).is_some());
        if is_map_complete {
            self.compare_counter("inodes in use", state.used_inodes.get(), self.used_inodes());
        }
        let (hint, chunks) = (state.inode_chunk_hint.get(), self.chunks.len() as u64);
        // The chunk behind the last: none of them has a free slot.
        if hint > chunks {
            let detail = format!("{hint}, but there are {chunks} chunks of inodes");
            self.report(Finding::new(
                Code::CounterWrong,
                Object::Counter("the inode chunk to use next"),
                detail,
            ));
        }
        Ok(())
    }

    fn compare_bitmap(&mut self, state: &State, saved: &[u64]) {
        let total = self.volume.shape.total_blocks;
        let mut in_use = 0;
        let mut differing: Option<Difference> = None;
        for (index, saved) in (0_u64..).zip(saved) {
            let used = self.claims.used.words()[index as usize];
            let behind_end = (64 * (index + 1)).saturating_sub(total);
            let valid = u64::MAX >> behind_end;
            in_use += u64::from((saved & valid).count_ones());
            let mut bits = (saved ^ used) & valid;
            while bits != 0 {
                let bit = u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                let next = Difference::at(index * 64 + bit, used >> bit & 1 == 1);
                differing = match differing {
                    Some(before) if before.reaches(&next) => Some(before.extended()),
                    before => {
                        self.report_difference(before.as_ref());
                        Some(next)
                    }
                };
            }
        }
        self.report_difference(differing.as_ref());
        self.compare_counter("free blocks", state.free_blocks.get(), total - in_use);
    }

    fn report_difference(&mut self, difference: Option<&Difference>) {
        let Some(&Difference { run, in_use }) = difference else { return };
        if in_use {
            self.report(Finding::new(Code::BitmapFreeInUse, run.into(), ""));
        } else if self.complete.claims {
            self.report(Finding::new(Code::BitmapUsedFree, run.into(), ""));
        }
    }

    fn compare_counter(&mut self, name: &'static str, saved: u64, counted: u64) {
        if saved != counted {
            let detail = format!("{saved} instead of {counted}");
            self.report(Finding::new(Code::CounterWrong, Object::Counter(name), detail));
        }
    }
}

/// Blocks about which the saved bitmap is wrong in the same way.
struct Difference {
    run: Run,
    /// They are in use, and the bitmap says that they are free; or the other way round.
    in_use: bool,
}

impl Difference {
    fn at(block: u64, in_use: bool) -> Self {
        Self { run: Run { start: block, blocks: 1 }, in_use }
    }

    fn reaches(&self, next: &Self) -> bool {
        self.run.end() == next.run.start && self.in_use == next.in_use
    }

    fn extended(mut self) -> Self {
        self.run.blocks += 1;
        self
    }
}
