//! The bytes of the medium, durable and as a crash leaves them, with hashes that are kept up to date word by word.
//!
//! Hashes are sums, so that a hash of some words follows from that of others and the words that changed. Pages are
//! versioned, so that whoever has a copy of an image knows which pages of it are of another one.
//!
//! Invariant: the hashes are those of the shown bytes, and these are the durable ones but between `show` and `hide`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::pending::{Group, PAGE, Piece, WORD};

/// A medium as it was at some time, to start from.
#[derive(Clone, Debug)]
pub struct Snapshot {
    bytes: Arc<Vec<u8>>,
    /// Of the words before the tail.
    head_hash: u64,
    /// Of those from there on.
    tail_hash: u64,
    /// First word of the tail.
    tail_start: u64,
}

impl Snapshot {
    /// These bytes, of which those from `tail_start` on, a multiple of eight, are hashed by themselves as well.
    pub fn new(bytes: Vec<u8>, tail_start: u64) -> Self {
        let tail_start = tail_start / WORD;
        let (mut head_hash, mut tail_hash) = (0u64, 0u64);
        for (word, bytes) in (0..).zip(bytes.chunks(WORD as usize)) {
            let sum = if word < tail_start { &mut head_hash } else { &mut tail_hash };
            *sum = sum.wrapping_add(word_hash(word, bytes));
        }
        Self { bytes: Arc::new(bytes), head_hash, tail_hash, tail_start }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A medium.
#[derive(Debug)]
pub(super) struct Image {
    shown: Vec<u8>,
    head_hash: u64,
    tail_hash: u64,
    tail_start: u64,
    /// What the shown words that are not durable were before, the last one first to be restored.
    undo: Vec<(u64, [u8; WORD as usize])>,
    /// When each page was last changed, by a count of changes that no other image has.
    versions: Vec<u64>,
    changes: u64,
}

impl Image {
    pub(super) fn new(start: &Snapshot) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Snapshot { bytes, head_hash, tail_hash, tail_start } = start;
        // No two images have a version in common, unless there are a million million changes to one of them.
        let changes = NEXT.fetch_add(1, Ordering::Relaxed) << 40;
        Self {
            shown: bytes.as_ref().clone(),
            head_hash: *head_hash,
            tail_hash: *tail_hash,
            tail_start: *tail_start,
            undo: Vec::new(),
            versions: vec![changes; bytes.len().div_ceil(PAGE as usize)],
            changes,
        }
    }

    /// The bytes after the last `show`.
    pub(super) fn shown(&self) -> &[u8] {
        &self.shown
    }

    /// The versions of the pages after the last `show`.
    pub(super) fn versions(&self) -> &[u64] {
        &self.versions
    }

    /// The hash of the shown bytes.
    pub(super) fn hash(&self) -> u64 {
        self.head_hash.wrapping_add(self.tail_hash)
    }

    /// The hash of the shown bytes from where the tail starts.
    pub(super) fn tail_hash(&self) -> u64 {
        self.tail_hash
    }

    /// What is shown, to start from.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            bytes: Arc::new(self.shown.clone()),
            head_hash: self.head_hash,
            tail_hash: self.tail_hash,
            tail_start: self.tail_start,
        }
    }

    /// Makes a piece durable.
    pub(super) fn settle(&mut self, piece: &Piece) {
        debug_assert!(self.undo.is_empty(), "the durable bytes are shown");
        self.store(piece);
        self.undo.clear();
    }

    /// Shows the durable bytes with the first pieces of each group, as many as `choice` says.
    pub(super) fn show(&mut self, groups: &[Group<'_>], choice: &[usize]) {
        let kept = groups.iter().zip(choice).flat_map(|(group, kept)| &group.pieces[..*kept]);
        let mut kept: Vec<&Piece> = kept.collect();
        kept.sort_unstable_by_key(|piece| piece.number);
        for piece in kept {
            self.store(piece);
        }
    }

    /// Shows the durable bytes alone again.
    pub(super) fn hide(&mut self) {
        while let Some((word, before)) = self.undo.pop() {
            self.change(word, |shown| shown.copy_from_slice(&before[..shown.len()]));
        }
    }

    fn store(&mut self, piece: &Piece) {
        let mut before = [0; WORD as usize];
        self.change(piece.word, |word| {
            before[..word.len()].copy_from_slice(word);
            for (byte, (stored, mask)) in word.iter_mut().zip(piece.bytes.iter().zip(piece.mask)) {
                *byte = (*byte & !mask) | (stored & mask);
            }
        });
        self.undo.push((piece.word, before));
    }

    fn change(&mut self, word: u64, change: impl FnOnce(&mut [u8])) {
        let start = (word * WORD) as usize;
        let end = (start + WORD as usize).min(self.shown.len());
        let before = word_hash(word, &self.shown[start..end]);
        change(&mut self.shown[start..end]);
        let after = word_hash(word, &self.shown[start..end]);
        if before == after {
            return;
        }
        let sum = if word < self.tail_start { &mut self.head_hash } else { &mut self.tail_hash };
        *sum = sum.wrapping_sub(before).wrapping_add(after);
        self.changes += 1;
        self.versions[start / PAGE as usize] = self.changes;
    }
}

/// What a word adds to the hash of the bytes that it is among.
pub(crate) fn word_hash(word: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, word)
}
