//! The file, those who use it, and what the server knows.

use super::{DataProtocol, Variant};

/// Cells of the file, each with a block of its own.
pub(super) const CELLS: usize = 3;
/// What another file's data look like.
pub(super) const FOREIGN: u8 = 99;

/// What a program may do by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Nothing.
    None,
    /// Read.
    Read,
    /// Read, write, and append.
    Write,
}

/// What a program is in the midst of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    /// Nothing.
    Nothing,
    /// It has seen that it may read, and whether that still stands,
    Looked(bool),
    /// and has loaded what was right at that moment, or not.
    Loaded(bool, bool),
    /// It is about to store to the first cell.
    Writing,
    /// It is about to store a value to this cell, and to replace the word with the next size.
    Appending(u8),
    /// Only the second half of it is still to be done, with this value.
    HalfAppended(u8, u8),
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// It is gone.
    pub is_dead: bool,
    /// It does nothing until it goes on.
    pub is_stopped: bool,
    /// What it believes that it may do.
    pub right: Right,
    /// What it is in the midst of.
    pub doing: Doing,
    /// Its word: a size, and whether it is marked.
    pub word: Option<(u8, bool)>,
    /// Behind the last cell that is reserved for it.
    pub room: u8,
}

/// Whose a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Nobody's.
    Free,
    /// The file's, or reserved for it.
    File,
    /// It was, and these programs (one bit each) may still reach it.
    Quarantined(u8),
    /// Another file's.
    Other,
}

/// What waits until rights are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// A program asks for a right.
    Ask(usize, Right),
    /// A read through the mount.
    Read,
    /// A write to the first cell through the mount.
    Write,
    /// An append through the mount.
    Append,
    /// The file is cut to nothing.
    Truncate,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DataState {
    /// What is on the medium.
    pub medium: [u8; CELLS],
    /// Whose the blocks are.
    pub owners: [Owner; CELLS],
    /// The size in the inode.
    pub size: u8,
    /// Who appends by himself: the file's size is in his word.
    pub tail: Option<usize>,
    /// The rights that the server has given.
    pub rights: Vec<Right>,
    /// Programs.
    pub programs: Vec<Program>,
    /// What is under way.
    pub request: Option<Request>,
    /// Who has not answered a recall yet, one bit each,
    pub awaited: u8,
    /// and who of them is not waited for any more.
    pub excused: u8,
    /// What the file has, as everybody was told.
    pub told: Vec<u8>,
    /// Something was read that was never there.
    pub was_misread: bool,
    /// What is left of writes, truncations and failures.
    pub(super) left: [u8; 3],
}

impl DataState {
    pub(super) fn new(protocol: &DataProtocol) -> Self {
        let program = Program {
            is_dead: false,
            is_stopped: false,
            right: Right::None,
            doing: Doing::Nothing,
            word: None,
            room: 0,
        };
        let mut owners = [Owner::Free; CELLS];
        owners[0] = Owner::File;
        Self {
            medium: [0; CELLS],
            owners,
            size: 1,
            tail: None,
            rights: vec![Right::None; protocol.programs],
            programs: vec![program; protocol.programs],
            request: None,
            awaited: 0,
            excused: 0,
            told: vec![0],
            was_misread: false,
            left: [protocol.writes, protocol.truncations, protocol.failures],
        }
    }

    pub(super) fn spend(&mut self, what: usize) -> Option<u8> {
        self.left[what] = self.left[what].checked_sub(1)?;
        Some(self.left[what] + 1)
    }

    /// The file's size, wherever it is counted.
    pub(super) fn current_size(&self) -> u8 {
        self.tail.and_then(|number| self.programs[number].word).map_or(self.size, |(size, _)| size)
    }

    /// What whoever reads it now through the mount gets.
    pub(super) fn content(&self) -> &[u8] {
        &self.medium[..usize::from(self.current_size())]
    }

    /// A program has nothing of the file any more.
    pub(super) fn is_rid(&mut self, number: usize) {
        let others = !(1 << number);
        self.rights[number] = Right::None;
        self.awaited &= others;
        self.excused &= others;
        for owner in &mut self.owners {
            if let Owner::Quarantined(waiting) = owner {
                *waiting &= others;
                if *waiting == 0 {
                    *owner = Owner::Free;
                }
            }
        }
    }

    /// Takes the size from the word, and the blocks that are not used back.
    pub(super) fn settle(&mut self, variant: Variant) {
        let Some(number) = self.tail.take() else { return };
        let Some((size, mark)) = &mut self.programs[number].word else { return };
        *mark = variant != Variant::NoMark;
        let size = *size;
        if self.excused & 1 << number == 0 {
            self.programs[number].word = None;
        }
        self.cut(size, variant);
    }

    pub(super) fn cut(&mut self, size: u8, variant: Variant) {
        self.size = size;
        let reached = if variant == Variant::EarlyReuse { 0 } else { self.excused };
        for owner in &mut self.owners[usize::from(size)..] {
            if *owner == Owner::File {
                *owner = if reached == 0 { Owner::Free } else { Owner::Quarantined(reached) };
            }
        }
    }

    /// Reserves the block behind the end, if it is nobody's.
    pub(super) fn reserve(&mut self, number: usize) {
        let end = usize::from(self.size);
        let is_free = self.owners.get(end) == Some(&Owner::Free);
        // A word that somebody may still replace is not used again.
        if is_free && self.tail.is_none() && self.programs[number].word.is_none() {
            self.owners[end] = Owner::File;
            self.tail = Some(number);
            self.programs[number].word = Some((self.size, false));
            self.programs[number].room = self.size + 1;
        }
    }
}
