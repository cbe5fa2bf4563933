//! A program that reads and writes a file by itself: what it was granted, and what if that is recalled while it copies.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex as Plain, MutexGuard as PlainGuard, PoisonError};

use lodefs_core::{DataAnswer, DataGrant, DataLease, DataRight, Lessee, Recall, What};
use lodefs_layout::BLOCK_SIZE;
use lodefs_sync::{Arc, point};
use rustix::io::Errno;

use super::content::Act;
use super::{Variant, block_of};

/// How often it asks at most: others may take it back each time.
const QUESTIONS_MAX: usize = 4;

/// How often other threads may come between before it has copied: where it should hold them up, and where it does not.
const PAUSE: usize = 10;
const LONG_PAUSE: usize = 400;

/// Where a block is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Medium(u64),
    Hole,
    BeyondEnd,
}

#[derive(Default)]
struct State {
    grant: Option<DataGrant>,
    /// It copies just now.
    is_busy: bool,
    /// What was recalled meanwhile.
    recalled: Vec<Recall>,
}

/// A program.
pub(super) struct DataProgram {
    /// The medium as it has it.
    medium: File,
    variant: Variant,
    /// Not a lock that a scheduler decides about: what is done under it happens at one moment.
    state: Plain<State>,
}

impl Lessee for DataProgram {
    fn recall(&self, recall: Recall) {
        let mut state = self.state();
        state.grant = None;
        if state.is_busy && self.variant != Variant::AnswersAtOnce {
            state.recalled.push(recall);
            return;
        }
        drop(state);
        drop(recall);
    }
}

impl DataProgram {
    pub(super) fn new(medium: File, variant: Variant) -> Arc<Self> {
        Arc::new(Self { medium, variant, state: Plain::default() })
    }

    fn state(&self) -> PlainGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the first value of a block, as it is to be explained. `None` if it cannot do that by itself.
    pub(super) fn read(&self, lease: &DataLease, block: u64) -> Option<Act> {
        self.copy(lease, block, false, |place| {
            let mut bytes = [0; 8];
            if let Place::Medium(at) = place {
                self.medium.read_exact_at(&mut bytes, at).expect("memory can be loaded from");
            }
            let value = (!matches!(place, Place::BeyondEnd)).then(|| u64::from_le_bytes(bytes));
            Some(Act::Read { block, value })
        })
    }

    /// Writes a block, as it is to be explained. `None` if it cannot do that by itself.
    pub(super) fn write(&self, lease: &DataLease, block: u64, value: u64) -> Option<Act> {
        self.copy(lease, block, true, |place| {
            let Place::Medium(at) = place else { return None };
            self.medium.write_all_at(&block_of(value), at).expect("memory can be stored to");
            Some(Act::Write { block, value })
        })
    }

    /// Appends a block, as it is to be explained. `None` if it cannot do that by itself, or the file does not end there.
    pub(super) fn append(&self, lease: &DataLease, block: u64, value: u64) -> Option<Act> {
        let (size, end) = (block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
        for _ in 0..QUESTIONS_MAX {
            point();
            if let Some((at, word)) = self.begin_append(size, end) {
                (0..PAUSE).for_each(|_| point());
                self.medium.write_all_at(&block_of(value), at).expect("memory can be stored to");
                point();
                let is_there = self.word(word) == size;
                if is_there {
                    self.medium.write_all_at(&end.to_le_bytes(), word).expect("memory can be stored to");
                }
                point();
                self.end();
                return is_there.then_some(Act::Write { block, value });
            }
            let mut is_granted = false;
            let reserved = lease.reserve(size, end, |answer| {
                if let DataAnswer::Granted(grant) = answer {
                    self.state().grant = Some(grant);
                    is_granted = true;
                }
            });
            let errno = reserved.map_err(|error| error.errno());
            assert!(matches!(errno, Ok(()) | Err(Errno::NOSPC | Errno::PERM)), "{errno:?}");
            if !is_granted {
                return None;
            }
        }
        None
    }

    /// Begins to append at `size`, if it may, and the file ends there. Gives where that is, and where the word with the file's size is.
    fn begin_append(&self, size: u64, end: u64) -> Option<(u64, u64)> {
        let mut state = self.state();
        let grant = state.grant.as_ref()?;
        let tail = grant.tail.filter(|tail| end <= tail.end)?;
        let part = grant.parts.iter().find(|part| part.offset <= size && size < part.offset + part.size)?;
        let What::Medium(start) = part.what else { return None };
        if self.word(tail.word) != size {
            return None;
        }
        let at = start + (size - part.offset);
        state.is_busy = true;
        Some((at, tail.word))
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.medium.read_exact_at(&mut bytes, at).expect("memory can be loaded from");
        u64::from_le_bytes(bytes)
    }

    /// Copies where the block is, if it is granted, or that is to be had.
    fn copy(
        &self,
        lease: &DataLease,
        block: u64,
        write: bool,
        copy: impl Fn(Place) -> Option<Act>,
    ) -> Option<Act> {
        for _ in 0..QUESTIONS_MAX {
            point();
            if let Some(place) = self.begin(block, write) {
                // Others come between, and may free the block and use it again.
                let pause = if self.variant == Variant::AnswersAtOnce { LONG_PAUSE } else { PAUSE };
                (0..pause).for_each(|_| point());
                let copied = copy(place);
                point();
                self.end();
                return copied;
            }
            let mut is_refused = false;
            let taken = lease.take(block * BLOCK_SIZE, write, |answer| match answer {
                DataAnswer::Granted(grant) => self.state().grant = Some(grant),
                DataAnswer::Buffered | DataAnswer::Switching | DataAnswer::Cached => is_refused = true,
            });
            assert!(taken.is_ok(), "{taken:?}");
            if is_refused {
                return None;
            }
        }
        None
    }

    /// Begins to copy, if it may. Gives where the block is.
    fn begin(&self, block: u64, write: bool) -> Option<Place> {
        let mut state = self.state();
        let grant = state.grant.as_ref().filter(|grant| !write || grant.right == DataRight::Write)?;
        let offset = block * BLOCK_SIZE;
        let size = grant.tail.map_or(grant.size, |tail| self.word(tail.word));
        let place = if offset + BLOCK_SIZE > size {
            Place::BeyondEnd
        } else {
            let holds = |part: &&lodefs_core::Part| part.offset <= offset && offset < part.offset + part.size;
            let part = grant.parts.iter().find(holds)?;
            match part.what {
                What::Medium(at) => Place::Medium(at + (offset - part.offset)),
                What::Zeroes => Place::Hole,
            }
        };
        state.is_busy = true;
        Some(place)
    }

    /// Has copied: what was recalled meanwhile is answered.
    fn end(&self) {
        let mut state = self.state();
        state.is_busy = false;
        let recalled = std::mem::take(&mut state.recalled);
        drop(state);
        drop(recalled);
    }
}
