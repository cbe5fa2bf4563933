//! The work of the rows, written once for everything that can do it: so yardstick and subject do the same.

use std::ffi::{CStr, CString};

use super::measure::Work;
use super::plan::Row;

/// Bytes that are written or read in one step.
pub(crate) const BLOCK_SIZE: usize = 4096;

/// As much memory as one step writes or reads, aligned as direct I/O wants it.
#[repr(align(4096))]
pub(crate) struct Block(pub(crate) [u8; BLOCK_SIZE]);

impl Block {
    pub(crate) fn filled(byte: u8) -> Box<Self> {
        Box::new(Self([byte; BLOCK_SIZE]))
    }
}

/// Bytes that can be overwritten and read.
pub(crate) trait Blocks {
    fn overwrite(&mut self, offset: u64, block: &Block) -> anyhow::Result<()>;
    fn read(&mut self, offset: u64, into: &mut Block) -> anyhow::Result<()>;
}

/// A file that grows.
pub(crate) trait Grows {
    fn append(&mut self, block: &Block) -> anyhow::Result<()>;
    /// Makes it empty.
    fn truncate(&mut self) -> anyhow::Result<()>;
}

/// Files, and a directory.
pub(crate) trait Files: Blocks + Grows {
    /// Makes a file and closes it.
    fn create(&mut self, name: &CStr) -> anyhow::Result<()>;
    /// Opens a file and closes it.
    fn open(&mut self, name: &CStr) -> anyhow::Result<()>;
    fn rename(&mut self, from: &CStr, to: &CStr) -> anyhow::Result<()>;
    fn unlink(&mut self, name: &CStr) -> anyhow::Result<()>;
    fn mkdir(&mut self, name: &CStr) -> anyhow::Result<()>;
    fn rmdir(&mut self, name: &CStr) -> anyhow::Result<()>;
}

/// Visits the blocks of a file, each once before any again.
pub(crate) struct Places {
    next: u64,
    /// Blocks in the file, a power of two, less one.
    mask: u64,
    factor: u64,
}

impl Places {
    pub(crate) fn in_order(file_size: u64) -> Self {
        Self { next: 0, mask: file_size / BLOCK_SIZE as u64 - 1, factor: 1 }
    }

    /// In an order that no prefetcher guesses.
    pub(crate) fn mixed(file_size: u64) -> Self {
        // A linear congruential generator modulo a power of two has the full period if the factor is 1 modulo 4 and the
        // increment is odd.
        Self { factor: 0x5851_f42d_4c95_7f2d, ..Self::in_order(file_size) }
    }

    #[inline]
    pub(crate) fn next_offset(&mut self) -> u64 {
        let place = self.next;
        self.next = place.wrapping_mul(self.factor).wrapping_add(1) & self.mask;
        place * BLOCK_SIZE as u64
    }
}

/// Overwrites blocks.
pub(crate) struct Overwriting<T> {
    pub(crate) target: T,
    pub(crate) places: Places,
    block: Box<Block>,
}

impl<T: Blocks> Overwriting<T> {
    /// Overwrites all of the target once, so that no page of it is new when it is measured.
    pub(crate) fn new(mut target: T, file_size: u64) -> anyhow::Result<Self> {
        let block = Block::filled(0x5a);
        for offset in (0..file_size).step_by(BLOCK_SIZE) {
            target.overwrite(offset, &block)?;
        }
        Ok(Self { target, places: Places::mixed(file_size), block })
    }
}

impl<T: Blocks> Work for Overwriting<T> {
    #[inline]
    fn step(&mut self) -> anyhow::Result<()> {
        self.target.overwrite(self.places.next_offset(), &self.block)
    }
}

/// Reads blocks.
pub(crate) struct Reading<T> {
    target: T,
    places: Places,
    block: Box<Block>,
}

impl<T: Blocks> Reading<T> {
    pub(crate) fn new(target: T, file_size: u64, row: Row) -> anyhow::Result<Self> {
        let Overwriting { target, places, block } = Overwriting::new(target, file_size)?;
        let places = if row == Row::ReadSequential { Places::in_order(file_size) } else { places };
        Ok(Self { target, places, block })
    }
}

impl<T: Blocks> Work for Reading<T> {
    #[inline]
    fn step(&mut self) -> anyhow::Result<()> {
        self.target.read(self.places.next_offset(), &mut self.block)
    }
}

/// Blocks that a file grows to before it is made empty again.
const APPENDED_MAX: usize = 2048;

/// Appends to a file.
pub(crate) struct Appending<T> {
    target: T,
    block: Box<Block>,
    appended: usize,
}

impl<T> Appending<T> {
    pub(crate) fn new(target: T) -> Self {
        Self { target, block: Block::filled(0xa5), appended: 0 }
    }
}

impl<T: Grows> Work for Appending<T> {
    fn prepare(&mut self) -> anyhow::Result<()> {
        if self.appended >= APPENDED_MAX {
            self.appended = 0;
            self.target.truncate()?;
        }
        Ok(())
    }

    #[inline]
    fn step(&mut self) -> anyhow::Result<()> {
        self.appended += 1;
        self.target.append(&self.block)
    }
}

/// Names in the directory that is worked on; a multiple of the steps in a round.
const NAMES: usize = 1000;

/// One operation on names, on each in turn. What it undoes or needs is done before it starts over.
pub(crate) struct Naming<T> {
    target: T,
    row: Row,
    names: Vec<CString>,
    /// What they are called after they were renamed.
    other_names: Vec<CString>,
    /// Names that were worked on since it last started over.
    done: usize,
}

impl<T: Files> Naming<T> {
    pub(crate) fn new(mut target: T, row: Row) -> anyhow::Result<Self> {
        let names = |prefix: &str| -> Result<Vec<CString>, _> {
            (0..NAMES).map(|i| CString::new(format!("{prefix}{i:06}"))).collect()
        };
        let (names, other_names) = (names("file-")?, names("other-")?);
        if matches!(row, Row::Open | Row::Rename | Row::Unlink) {
            names.iter().try_for_each(|name| target.create(name))?;
        }
        Ok(Self { target, row, names, other_names, done: 0 })
    }
}

impl<T: Files> Work for Naming<T> {
    fn prepare(&mut self) -> anyhow::Result<()> {
        if self.done < NAMES {
            return Ok(());
        }
        self.done = 0;
        match self.row {
            Row::Unlink => self.names.iter().try_for_each(|name| self.target.create(name))?,
            Row::Create => self.names.iter().try_for_each(|name| self.target.unlink(name))?,
            Row::Mkdir => self.names.iter().try_for_each(|name| self.target.rmdir(name))?,
            Row::Rename => std::mem::swap(&mut self.names, &mut self.other_names),
            _ => {}
        }
        Ok(())
    }

    #[inline]
    fn step(&mut self) -> anyhow::Result<()> {
        let (name, other_name) = (&self.names[self.done], &self.other_names[self.done]);
        self.done += 1;
        match self.row {
            Row::Create => self.target.create(name),
            Row::Open => self.target.open(name),
            Row::Rename => self.target.rename(name, other_name),
            Row::Unlink => self.target.unlink(name),
            _ => self.target.mkdir(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_visited_once_each() {
        for mut places in [Places::in_order(64 << 12), Places::mixed(64 << 12)] {
            let mut offsets: Vec<u64> = (0..64).map(|_| places.next_offset()).collect();
            assert_eq!(places.next_offset(), offsets[0]);
            offsets.sort_unstable();
            assert!(offsets.iter().copied().eq((0..64).map(|i| i << 12)));
        }
    }
}
