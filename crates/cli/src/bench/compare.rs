//! One row, between any two targets.

use super::measure::{Timing, compare};
use super::plan::{Effort, Row, Way};
use super::work::{Appending, BLOCK_SIZE, Blocks, Files, Grows, Naming, Overwriting, Reading};

/// Blocks in 2 MiB.
const HUGE_PAGE_BLOCKS: usize = (2 << 20) / BLOCK_SIZE;

/// How a comparison is to be run.
#[derive(Clone, Copy)]
pub(crate) struct Trial<'a> {
    pub(crate) effort: &'a Effort,
    pub(crate) row: Row,
    pub(crate) way: Way,
    /// Called after each round.
    pub(crate) tick: &'a dyn Fn(),
}

impl Trial<'_> {
    /// Steps in a round: some tenths of a millisecond of work. That is long enough for the caches to forget the other
    /// side, and short enough for most rounds not to be interrupted on a busy machine.
    pub(crate) fn steps(&self) -> usize {
        match (self.way, self.row) {
            // The same number of huge pages that tmpfs has to clear in every round.
            (Way::Embedded | Way::Attached, Row::Append) | (_, Row::TouchHole) => HUGE_PAGE_BLOCKS,
            (Way::Embedded | Way::Attached, Row::ReadSequential | Row::ReadRandom) => 1000,
            (Way::Embedded | Way::Attached, Row::Overwrite) => 500,
            (_, Row::StoreMapped) => 20_000,
            (_, Row::TouchHuge) => 4,
            (Way::Mount, _) | (_, Row::Recall) => 20,
            (Way::Embedded | Way::Attached, _) => 100,
        }
    }

    /// Overwriting or reading.
    pub(crate) fn blocks(
        &self,
        yardstick: impl Blocks,
        subject: impl Blocks,
    ) -> anyhow::Result<(Timing, Timing)> {
        let Self { effort, row, tick, .. } = *self;
        let size = effort.file_size;
        if row == Row::Overwrite {
            let mut yardstick = Overwriting::new(yardstick, size)?;
            compare(effort, self.steps(), &mut yardstick, &mut Overwriting::new(subject, size)?, tick)
        } else {
            let mut yardstick = Reading::new(yardstick, size, row)?;
            compare(effort, self.steps(), &mut yardstick, &mut Reading::new(subject, size, row)?, tick)
        }
    }

    /// Appending.
    pub(crate) fn appends(
        &self,
        yardstick: impl Grows,
        subject: impl Grows,
    ) -> anyhow::Result<(Timing, Timing)> {
        let (mut yardstick, mut subject) = (Appending::new(yardstick), Appending::new(subject));
        compare(self.effort, self.steps(), &mut yardstick, &mut subject, self.tick)
    }

    /// Any row about files.
    pub(crate) fn files(
        &self,
        yardstick: impl Files,
        subject: impl Files,
    ) -> anyhow::Result<(Timing, Timing)> {
        let Self { effort, row, tick, .. } = *self;
        match row {
            Row::Overwrite | Row::ReadSequential | Row::ReadRandom => self.blocks(yardstick, subject),
            Row::Append => self.appends(yardstick, subject),
            _ => {
                let mut yardstick = Naming::new(yardstick, row)?;
                compare(effort, self.steps(), &mut yardstick, &mut Naming::new(subject, row)?, tick)
            }
        }
    }
}
