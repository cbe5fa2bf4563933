//! Which addresses show files that the kernel does not map?
//!
//! A program may unmap, move and protect any pages, so what is kept here are pieces: a mapping is as many of them as the program
//! has made of it. Used inside the gate only, so that no child finds it locked, nor a signal handler.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lodefs_direct::{Inside, Mapping, Origin, enter};

use crate::outline::{self, Replaced};

/// What the program has mapped in some pages.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "the program sets each of them by another call")]
pub(crate) struct Piece {
    pub(crate) file: Origin,
    /// The descriptor by which the program has mapped it, if it is still that.
    pub(crate) descriptor: c_int,
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// Whether the program demands that no fsync is needed.
    pub(crate) sync: bool,
    /// Whether it may be made writable.
    pub(crate) may_write: bool,
    /// Whether a child has it too.
    pub(crate) is_inherited: bool,
    /// Whether the program has locked it in memory.
    pub(crate) is_locked: bool,
    pub(crate) shown: Shown,
}

/// What an access of these pages meets.
#[derive(Clone)]
pub(crate) enum Shown {
    /// Nothing: it has been forbidden. What is there is the kernel's.
    Nothing,
    /// The file.
    File { mapping: Arc<Mapping>, writable: bool },
}

type Pieces = BTreeMap<usize, (usize, Piece)>;

/// All pieces, and what was said of where they are.
struct Table {
    pieces: Pieces,
    replaced: Replaced,
}

static TABLE: Mutex<Table> = Mutex::new(Table { pieces: BTreeMap::new(), replaced: Replaced::new() });

impl Piece {
    /// The same from so many bytes on.
    fn ahead(&self, distance: usize) -> Self {
        Self { offset: self.offset + distance as u64, ..self.clone() }
    }

    /// Whether another one, behind `size` bytes of this, continues it.
    pub(crate) fn is_continued_by(&self, size: usize, other: &Self) -> bool {
        self.offset + size as u64 == other.offset
            && self.file.is_of_same_file(&other.file)
            && (self.sync, self.may_write, self.is_inherited, self.is_locked, self.is_writable())
                == (other.sync, other.may_write, other.is_inherited, other.is_locked, other.is_writable())
    }

    /// `None` if it may not be accessed.
    pub(crate) fn is_writable(&self) -> Option<bool> {
        match self.shown {
            Shown::Nothing => None,
            Shown::File { writable, .. } => Some(writable),
        }
    }
}

/// Those at these addresses, in order, as far as they lie there.
pub(crate) fn found(range: &Range<usize>) -> Vec<(Range<usize>, Piece)> {
    if range.is_empty() || !outline::has_some_of(range) {
        return Vec::new();
    }
    let inside = enter();
    let pieces = &table(&inside).pieces;
    let clip = |start: usize, end: usize, piece: &Piece| {
        let clipped = start.max(range.start)..end.min(range.end);
        let piece = piece.ahead(clipped.start - start);
        (clipped, piece)
    };
    let mut found: Vec<_> =
        overlapping(pieces, range).map(|(start, (end, piece))| clip(*start, *end, piece)).collect();
    found.reverse();
    found
}

/// The same, which are none any more.
pub(crate) fn take(range: &Range<usize>) -> Vec<(Range<usize>, Piece)> {
    let taken = found(range);
    if !taken.is_empty() {
        let inside = enter();
        let mut table = table(&inside);
        let were = cut(&mut table.pieces, range);
        table.tell();
        drop(table);
        drop(inside);
        drop(were);
    }
    taken
}

/// From now on these addresses show this, and nothing else.
pub(crate) fn put(range: &Range<usize>, piece: Piece) {
    let inside = enter();
    let mut table = table(&inside);
    let replaced = cut(&mut table.pieces, range);
    table.pieces.insert(range.start, (range.end, piece));
    table.tell();
    drop(table);
    drop(inside);
    // The last of a mapping tells the server.
    drop(replaced);
}

/// Those that overlap these addresses, from behind.
fn overlapping<'a>(
    pieces: &'a Pieces,
    range: &Range<usize>,
) -> impl Iterator<Item = (&'a usize, &'a (usize, Piece))> + use<'a> {
    let start = range.start;
    pieces.range(..range.end).rev().take_while(move |(_, (end, _))| *end > start)
}

/// Takes these addresses from all pieces. What they were is to be dropped when nothing is locked.
fn cut(pieces: &mut Pieces, range: &Range<usize>) -> Vec<Piece> {
    let starts: Vec<usize> = overlapping(pieces, range).map(|(start, _)| *start).collect();
    let mut were = Vec::new();
    for start in starts {
        let Some((end, piece)) = pieces.remove(&start) else { continue };
        if start < range.start {
            pieces.insert(start, (range.start, piece.clone()));
        }
        if range.end < end {
            pieces.insert(range.end, (end, piece.ahead(range.end - start)));
        }
        were.push(piece);
    }
    were
}

/// What lies between those that were found.
pub(crate) fn gaps(range: &Range<usize>, found: &[(Range<usize>, Piece)]) -> Vec<Range<usize>> {
    let starts = found.iter().map(|(piece, _)| piece.start).chain([range.end]);
    let ends = [range.start].into_iter().chain(found.iter().map(|(piece, _)| piece.end));
    ends.zip(starts).map(|(end, start)| end..start).filter(|gap| !gap.is_empty()).collect()
}

impl Table {
    /// Has everybody know where pieces are.
    fn tell(&mut self) {
        let list = self.pieces.iter().map(|(start, (end, _))| (*start, *end)).collect();
        outline::replace(list, &mut self.replaced);
    }
}

fn table(_: &Inside) -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}
