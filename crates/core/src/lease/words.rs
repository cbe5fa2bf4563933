//! Words of the medium that files are counted on in while programs append to them by themselves (`ops::tail`).
//!
//! They lie in blocks that belong to no inode: after a crash these are free, so recovery uses what the words say before anybody
//! can take the blocks.

use lodefs_layout::BLOCK_SIZE;
use lodefs_pmem::Durable;
use lodefs_sync::Mutex;
use rustix::io::Errno;

use crate::alloc::{Purpose, Request, Run};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::tx::offset_of;

const WORD_SIZE: u64 = size_of::<u64>() as u64;
/// Fewer where a scheduler of tests looks at what happens when there is none left.
const WORDS_IN_BLOCK: u64 = if cfg!(lodefs_shuttle) { 4 } else { BLOCK_SIZE / WORD_SIZE };

/// Words for tails: blocks that belong to no inode.
#[derive(Default)]
pub(crate) struct Words(Mutex<State>);

#[derive(Default)]
struct State {
    blocks: Vec<Run>,
    /// Words that nobody uses.
    free: Vec<u64>,
    /// Words that an inode points to.
    used: usize,
}

impl Words {
    /// Whether a word was taken since the volume was opened.
    pub(crate) fn hold(&self, at: u64) -> bool {
        let state = self.0.lock();
        state.blocks.iter().any(|run| run.start == at / BLOCK_SIZE) && !state.free.contains(&at)
    }
}

impl Fs {
    /// A word that has a file's size, durably.
    pub(crate) fn take_word(&self, size: u64) -> Result<(u64, Durable)> {
        let at = self.unused_word()?;
        let written = self.volume.medium.write(at, &size.to_le_bytes());
        let durable = written.and_then(|flushed| self.volume.medium.sync(flushed));
        durable.map(|durable| (at, durable)).map_err(|error| self.latch(error.into()))
    }

    fn unused_word(&self) -> Result<u64> {
        let mut state = self.words.0.lock();
        if state.free.is_empty() {
            let request =
                Request { blocks: 1, goal: None, align: None, contiguous: true, purpose: Purpose::Metadata };
            let block = self.blocks.allocate(&request).ok_or(Error::Refused(Errno::NOSPC))?;
            state.blocks.push(block);
            state.free.extend((0..WORDS_IN_BLOCK).map(|index| offset_of(block.start) + index * WORD_SIZE));
        }
        state.used += 1;
        state.free.pop().ok_or(Error::Refused(Errno::NOSPC))
    }

    /// No inode points to a word any more. `is_reached`: a program may still replace it, so no other file gets it.
    pub(crate) fn give_word_back(&self, at: u64, is_reached: bool) {
        let mut state = self.words.0.lock();
        state.used -= 1;
        if !is_reached {
            state.free.push(at);
        }
    }

    /// Gives the blocks of all words back, at the end; `false` if inodes point to some.
    pub(crate) fn end_words(&self) -> bool {
        let mut state = self.words.0.lock();
        if state.used > 0 {
            return false;
        }
        for run in std::mem::take(&mut *state).blocks {
            self.give_back(run);
        }
        true
    }
}
