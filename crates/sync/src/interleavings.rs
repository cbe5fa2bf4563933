//! Every interleaving, and every effect that the memory orders allow, of reads past the lock with what changes a file.
//!
//! Run by `cargo xtask schedules`, with `--cfg lodefs_loom`.

use loom::thread;

use crate::glimpsed::Glimpsed;
use crate::{Arc, AtomicU64, Ordering};

/// A file of two words, which are those of `blocks`, and the block behind it, which is another file's.
struct File {
    /// First byte, end, and the first of the blocks.
    cell: Glimpsed<(), 3>,
    blocks: [AtomicU64; 3],
}

const OURS: [u64; 3] = [0, 16, 0];

impl File {
    fn new() -> Arc<Self> {
        let cell = Glimpsed::new(());
        cell.offer(&cell.read(), OURS);
        Arc::new(Self { cell, blocks: [AtomicU64::new(1), AtomicU64::new(1), AtomicU64::new(9)] })
    }

    /// The two words from `at` on, as a read of data sees them: in no particular order.
    fn words(&self, at: u64) -> (u64, u64) {
        let word = |index: u64| self.blocks[(at + index) as usize].load(Ordering::Relaxed);
        (word(0), word(1))
    }

    fn store(&self, index: usize, word: u64) {
        self.blocks[index].store(word, Ordering::Relaxed);
    }
}

/// Whoever overwrites both words under the lock is not seen between.
#[test]
fn a_read_past_the_lock_sees_a_write_whole_or_not_at_all() {
    loom::model(|| {
        let file = File::new();
        let writer = Arc::clone(&file);
        let writing = thread::spawn(move || {
            let mut guard = writer.cell.write();
            writer.store(0, 2);
            writer.store(1, 2);
            guard.keep_glimpse();
        });
        if let Some((first, second)) = file.cell.with_glimpse(|[_, _, at]| Some(file.words(at))) {
            assert_eq!(first, second, "half of a write was read");
        }
        writing.join().unwrap();
        assert_eq!(file.words(0), (2, 2));
    });
}

/// Once its blocks are another file's, what is in them is not read as this file's.
#[test]
fn blocks_that_went_elsewhere_are_not_read() {
    loom::model(|| {
        let file = File::new();
        let other = Arc::clone(&file);
        let freeing = thread::spawn(move || {
            drop(other.cell.write());
            other.store(0, 9);
        });
        let read = file.cell.with_glimpse(|[_, end, at]| (end > 0).then(|| file.words(at)));
        if let Some(words) = read {
            assert_eq!(words, (1, 1), "another file's bytes were read");
        }
        freeing.join().unwrap();
    });
}

/// Two offers and a change: a glimpse that is used is one that was offered, not a mixture, and none from before the change.
#[test]
fn offers_are_not_mixed() {
    loom::model(|| {
        let file = File::new();
        let other = Arc::clone(&file);
        let moved = [100, 116, 1];
        let offering = thread::spawn(move || other.cell.offer(&other.cell.read(), moved));
        if let Some(seen) = file.cell.with_glimpse(Some) {
            assert!(seen == OURS || seen == moved, "{seen:?} was never offered");
        }
        offering.join().unwrap();
    });
}
