//! The bytes of the medium, durable and as a crash leaves them, with a hash that is kept up to date word by word.
//!
//! Invariant: `hash` is that of the shown bytes, and these are the durable ones but between `show` and `hide`.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::pending::{Group, Piece, WORD};

/// A medium.
#[derive(Debug)]
pub(super) struct Image {
    durable: Vec<u8>,
    shown: Vec<u8>,
    hash: u64,
}

impl Image {
    pub(super) fn new(initial: Vec<u8>) -> Self {
        let words = (0..).zip(initial.chunks(WORD as usize));
        let hash = words.fold(0, |hash: u64, (word, bytes)| hash.wrapping_add(word_hash(word, bytes)));
        Self { shown: initial.clone(), durable: initial, hash }
    }

    /// The bytes after the last `show`.
    pub(super) fn shown(&self) -> &[u8] {
        &self.shown
    }

    /// Makes a piece durable.
    pub(super) fn settle(&mut self, piece: &Piece) {
        self.store(piece);
        let start = (piece.word * WORD) as usize;
        let end = (start + WORD as usize).min(self.durable.len());
        self.durable[start..end].copy_from_slice(&self.shown[start..end]);
    }

    /// Shows the durable bytes with the first pieces of each group, as many as `choice` says. Gives the hash.
    pub(super) fn show(&mut self, groups: &[Group<'_>], choice: &[usize]) -> u64 {
        let kept = groups.iter().zip(choice).flat_map(|(group, kept)| &group.pieces[..*kept]);
        let mut kept: Vec<&Piece> = kept.collect();
        kept.sort_unstable_by_key(|piece| piece.number);
        for piece in kept {
            self.store(piece);
        }
        self.hash
    }

    /// Shows the durable bytes alone again.
    pub(super) fn hide(&mut self, groups: &[Group<'_>]) {
        for piece in groups.iter().flat_map(|group| group.pieces) {
            let start = (piece.word * WORD) as usize;
            let end = (start + WORD as usize).min(self.durable.len());
            if self.shown[start..end] != self.durable[start..end] {
                self.change(piece.word, |word, durable| word.copy_from_slice(durable));
            }
        }
    }

    fn store(&mut self, piece: &Piece) {
        self.change(piece.word, |word, _| {
            for (byte, (stored, mask)) in word.iter_mut().zip(piece.bytes.iter().zip(piece.mask)) {
                *byte = (*byte & !mask) | (stored & mask);
            }
        });
    }

    /// Changes a shown word, given the durable one.
    fn change(&mut self, word: u64, change: impl FnOnce(&mut [u8], &[u8])) {
        let start = (word * WORD) as usize;
        let end = (start + WORD as usize).min(self.shown.len());
        let before = word_hash(word, &self.shown[start..end]);
        change(&mut self.shown[start..end], &self.durable[start..end]);
        let after = word_hash(word, &self.shown[start..end]);
        self.hash = self.hash.wrapping_sub(before).wrapping_add(after);
    }
}

fn word_hash(word: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, word)
}
