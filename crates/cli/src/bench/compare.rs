//! One row, between any two targets.

use super::measure::{Timing, compare};
use super::plan::{Effort, Row, Way};
use super::work::{Appending, Blocks, Files, Naming, Overwriting, Reading};

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
    /// Steps in a round: some milliseconds of work, less than the scheduler lets a process run at once.
    fn steps(&self) -> usize {
        let steps: usize = match (self.way, self.row) {
            (Way::Mount, _) => 200,
            (Way::Embedded, Row::ReadSequential | Row::ReadRandom) => 10_000,
            (Way::Embedded, Row::Overwrite | Row::Append) => 2000,
            (Way::Embedded, _) => 1000,
        };
        steps.div_ceil(self.effort.divisor)
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

    /// Any row about files.
    pub(crate) fn files(
        &self,
        yardstick: impl Files,
        subject: impl Files,
    ) -> anyhow::Result<(Timing, Timing)> {
        let Self { effort, row, tick, .. } = *self;
        match row {
            Row::Overwrite | Row::ReadSequential | Row::ReadRandom => self.blocks(yardstick, subject),
            Row::Append => {
                let (mut yardstick, mut subject) = (Appending::new(yardstick), Appending::new(subject));
                compare(effort, self.steps(), &mut yardstick, &mut subject, tick)
            }
            _ => {
                let count = self.steps();
                let mut yardstick = Naming::new(yardstick, row, count)?;
                compare(effort, count, &mut yardstick, &mut Naming::new(subject, row, count)?, tick)
            }
        }
    }
}
