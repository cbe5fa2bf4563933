//! What has been stored and is not durable for certain.
//!
//! Stores are kept as pieces within one word of eight bytes, in groups of which a crash leaves any prefix, each
//! group on its own. Invariant: a piece has none of the bytes that a later, durable piece has stored.

use std::collections::BTreeMap;

use lodefs_pmem::Domain;

use super::image::Image;

/// Bytes that are stored whole or not at all, if aligned.
pub(crate) const WORD: u64 = 8;
const LINE: u64 = 64;
const SECTOR: u64 = 512;
pub(crate) const PAGE: u64 = 4096;

/// A part of a store that cannot be torn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Position in the order of all stores.
    pub(super) number: u64,
    /// Which word of the medium.
    pub(super) word: u64,
    /// Its bytes, where `mask` is set.
    pub(super) bytes: [u8; WORD as usize],
    /// `0xff` for bytes that are stored.
    pub(super) mask: [u8; WORD as usize],
    /// Whether past the caches, and by which thread.
    non_temporal: bool,
    thread: u64,
    /// Threads whose next fence makes it durable, because they flushed it.
    flushed_by: Vec<u64>,
    /// Whether whoever comes next has learnt of it.
    handed_over: bool,
}

/// What is left in its order, whatever happens to other groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The stores to a stretch of the medium, by its first byte.
    Place(u64),
    /// All stores: the order in which a process made them.
    Process,
}

/// Pieces of which a crash leaves any prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group<'a> {
    key: Key,
    /// In the order in which they were stored.
    pub(super) pieces: &'a [Piece],
}

impl Group<'_> {
    /// First byte of the first piece.
    pub(super) fn start(&self) -> u64 {
        self.pieces.first().map_or(0, |piece| piece.word * WORD)
    }

    /// Groups of one page reach the medium together as a rule.
    pub(super) fn cluster(&self, domain: Domain) -> u64 {
        match (self.key, domain) {
            (Key::Place(start), Domain::Page) => start / PAGE,
            (Key::Place(start), _) => start,
            (Key::Process, _) => 0,
        }
    }
}

/// Everything that is pending.
#[derive(Debug)]
pub(super) struct Pending {
    domain: Domain,
    groups: BTreeMap<Key, Vec<Piece>>,
    stores: u64,
}

impl Pending {
    pub(super) fn new(domain: Domain) -> Self {
        Self { domain, groups: BTreeMap::new(), stores: 0 }
    }

    /// The groups, none of them empty.
    pub(super) fn groups(&self) -> Vec<Group<'_>> {
        self.groups.iter().map(|(key, pieces)| Group { key: *key, pieces }).collect()
    }

    pub(super) fn store(&mut self, thread: u64, at: u64, bytes: &[u8], non_temporal: bool) {
        let end = at + bytes.len() as u64;
        let words = if at < end { at / WORD..(end - 1) / WORD + 1 } else { 0..0 };
        for word in words {
            let mut piece = Piece {
                number: self.stores,
                word,
                bytes: [0; WORD as usize],
                mask: [0; WORD as usize],
                non_temporal,
                thread,
                flushed_by: Vec::new(),
                handed_over: false,
            };
            self.stores += 1;
            for index in 0..WORD as usize {
                let address = word * WORD + index as u64;
                if (at..end).contains(&address) {
                    piece.bytes[index] = bytes[(address - at) as usize];
                    piece.mask[index] = 0xff;
                }
            }
            self.groups.entry(self.key(&piece)).or_default().push(piece);
        }
    }

    fn key(&self, piece: &Piece) -> Key {
        let at = piece.word * WORD;
        match self.domain {
            Domain::Page => Key::Place(at / SECTOR * SECTOR),
            Domain::MemoryController | Domain::CpuCache => Key::Place(at / LINE * LINE),
            Domain::Volatile => Key::Process,
        }
    }

    /// The lines of some bytes are on their way.
    pub(super) fn flush(&mut self, thread: u64, at: u64, size: u64) {
        if self.domain != Domain::MemoryController || size == 0 {
            return;
        }
        let lines = Key::Place(at / LINE * LINE)..Key::Place(at + size);
        for (_, pieces) in self.groups.range_mut(lines) {
            for piece in pieces.iter_mut().filter(|piece| !piece.flushed_by.contains(&thread)) {
                piece.flushed_by.push(thread);
            }
        }
    }

    /// What `thread` has stored or flushed, as the domain has it, becomes durable.
    pub(super) fn fence(&mut self, thread: u64, image: &mut Image) {
        let domain = self.domain;
        self.settle(image, |piece| match domain {
            Domain::MemoryController => {
                piece.flushed_by.contains(&thread) || (piece.non_temporal && piece.thread == thread)
            }
            Domain::CpuCache => piece.thread == thread || (piece.handed_over && !piece.non_temporal),
            Domain::Page | Domain::Volatile => false,
        });
    }

    /// Whatever comes next knows of all that came before, as by a lock.
    pub(super) fn hand_over(&mut self) {
        self.groups.values_mut().flatten().for_each(|piece| piece.handed_over = true);
    }

    /// Everything becomes durable.
    pub(super) fn sync(&mut self, image: &mut Image) {
        self.settle(image, |_| true);
    }

    fn settle(&mut self, image: &mut Image, is_durable: impl Fn(&Piece) -> bool) {
        let mut durable: Vec<Piece> = Vec::new();
        for pieces in self.groups.values_mut() {
            durable.extend(pieces.extract_if(.., |piece| is_durable(piece)));
        }
        durable.sort_unstable_by_key(|piece| piece.number);
        for piece in &durable {
            image.settle(piece);
        }
        self.forget_overwritten(&durable);
        self.groups.retain(|_, pieces| !pieces.is_empty());
    }

    /// Takes from the pending pieces what later ones have overwritten durably.
    fn forget_overwritten(&mut self, durable: &[Piece]) {
        let mut by_word: BTreeMap<u64, Vec<&Piece>> = BTreeMap::new();
        for piece in durable {
            by_word.entry(piece.word).or_default().push(piece);
        }
        for pieces in self.groups.values_mut() {
            for piece in pieces.iter_mut() {
                let over = by_word.get(&piece.word).into_iter().flatten();
                for later in over.filter(|later| later.number > piece.number) {
                    for (mask, covered) in piece.mask.iter_mut().zip(later.mask) {
                        *mask &= !covered;
                    }
                }
            }
            pieces.retain(|piece| piece.mask != [0; WORD as usize]);
        }
    }
}
