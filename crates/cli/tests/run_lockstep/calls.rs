//! Which calls are made, and what they come to.

use std::ffi::{CString, c_int, c_long};
use std::mem::MaybeUninit;

use crate::Numbers;
use crate::side::{NAMES, SLOTS, Side};
use crate::ways::Way;

/// Files do not become much longer.
const OFFSET_MAX: u64 = 100_000;
const SIZE_MAX: u64 = 6000;
const MODES: [c_int; 4] = [libc::O_RDWR, libc::O_RDWR | libc::O_APPEND, libc::O_RDONLY, libc::O_WRONLY];

/// A call on a descriptor, which a slot names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Read {
        slot: usize,
        size: usize,
    },
    Write {
        slot: usize,
        size: usize,
        byte: u8,
    },
    ReadAt {
        slot: usize,
        size: usize,
        offset: usize,
    },
    WriteAt {
        slot: usize,
        size: usize,
        offset: usize,
        byte: u8,
    },
    /// readv(2) of two buffers.
    ReadParts {
        slot: usize,
        size: usize,
    },
    WriteParts {
        slot: usize,
        size: usize,
        byte: u8,
    },
    /// pwritev2(2) with `RWF_APPEND`, at an offset or at the position.
    Append {
        slot: usize,
        size: usize,
        byte: u8,
        moves: bool,
    },
    Seek {
        slot: usize,
        offset: isize,
        whence: c_int,
    },
    SetSize {
        slot: usize,
        size: usize,
    },
    Size {
        slot: usize,
    },
    SetAppend {
        slot: usize,
        on: bool,
    },
    Flags {
        slot: usize,
    },
    Copy {
        from: usize,
        to: usize,
    },
    Open {
        file: usize,
        slot: usize,
        mode: c_int,
    },
    Close {
        slot: usize,
    },
    Sync {
        slot: usize,
    },
    Allocate {
        slot: usize,
        offset: usize,
        size: usize,
        keeps_size: bool,
    },
}

/// What a call has come to: its result or errno, and what it has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) result: Result<isize, i32>,
    pub(crate) read: Vec<u8>,
}

impl Call {
    /// Any.
    pub(crate) fn any(numbers: &mut Numbers) -> Self {
        let slot = numbers.below(SLOTS as u64) as usize;
        let size = 1 + numbers.pick(&[40, 500, SIZE_MAX]);
        let size = numbers.below(size) as usize;
        let offset = numbers.below(OFFSET_MAX) as usize;
        let byte = b'a' + numbers.below(26) as u8;
        let on = numbers.below(2) == 0;
        match numbers.below(40) {
            0..6 => Self::Read { slot, size },
            6..14 => Self::Write { slot, size, byte },
            14..17 => Self::ReadAt { slot, size, offset },
            17..21 => Self::WriteAt { slot, size, offset, byte },
            21 => Self::ReadParts { slot, size },
            22 => Self::WriteParts { slot, size, byte },
            23..25 => Self::Append { slot, size, byte, moves: on },
            25..29 => Self::seek(slot, offset, numbers),
            29 => Self::SetSize { slot, size: offset },
            30 => Self::Size { slot },
            31 => Self::SetAppend { slot, on },
            32 => Self::Flags { slot },
            33 => Self::Copy { from: slot, to: numbers.below(SLOTS as u64) as usize },
            34..37 => {
                let file = numbers.below(NAMES.len() as u64) as usize;
                Self::Open { file, slot, mode: numbers.pick(&MODES) }
            }
            // Descriptors are to be there for a while.
            37 if numbers.below(4) == 0 => Self::Close { slot },
            38 => Self::Allocate { slot, offset, size: size + 1, keeps_size: on },
            _ => Self::Sync { slot },
        }
    }

    fn seek(slot: usize, offset: usize, numbers: &mut Numbers) -> Self {
        let offset = offset.cast_signed();
        match numbers.below(4) {
            0 => Self::Seek { slot, offset, whence: libc::SEEK_SET },
            1 => Self::Seek { slot, offset: offset % 8000 - 4000, whence: libc::SEEK_END },
            2 => Self::Seek { slot, offset: offset % 8000 - 4000, whence: libc::SEEK_CUR },
            _ => Self::Seek { slot, offset: 0, whence: libc::SEEK_CUR },
        }
    }

    /// The slot to which bytes are written.
    pub(crate) fn written(&self) -> Option<usize> {
        match *self {
            Self::Write { slot, .. }
            | Self::WriteAt { slot, .. }
            | Self::WriteParts { slot, .. }
            | Self::Append { slot, .. } => Some(slot),
            _ => None,
        }
    }

    /// Makes the call on the descriptors of one table of a side.
    pub(crate) fn make(&self, way: Way, side: &mut Side, table: usize) -> Done {
        let mut read = Vec::new();
        let result = self.result(way, side, table, &mut read);
        if let Ok(size) = result
            && !read.is_empty()
        {
            read.truncate(size.cast_unsigned());
        }
        Done { result, read: if result.is_ok() { read } else { Vec::new() } }
    }

    fn result(&self, way: Way, side: &mut Side, table: usize, read: &mut Vec<u8>) -> Result<isize, i32> {
        let file = |slot: usize| side.slots[table][slot];
        match *self {
            Self::Read { slot, size } => way.read(file(slot), room(read, size), None),
            Self::ReadAt { slot, size, offset } => way.read(file(slot), room(read, size), Some(offset)),
            Self::Write { slot, size, byte } => way.write(file(slot), &pattern(size, byte), None),
            Self::WriteAt { slot, size, offset, byte } => {
                way.write(file(slot), &pattern(size, byte), Some(offset))
            }
            Self::ReadParts { slot, size } => way.read_parts(file(slot), room(read, size)),
            Self::WriteParts { slot, size, byte } => way.write_parts(file(slot), &pattern(size, byte), None),
            Self::Append { slot, size, byte, moves } => {
                way.write_parts(file(slot), &pattern(size, byte), Some(if moves { -1 } else { 0 }))
            }
            Self::Seek { slot, offset, whence } => way.seek(file(slot), offset, whence),
            Self::SetSize { slot, size } => {
                number(way, libc::SYS_ftruncate, [file(slot) as usize, size, 0, 0])
            }
            Self::Size { slot } => size_of(file(slot)),
            Self::SetAppend { slot, on } => {
                let flags = if on { libc::O_APPEND as usize } else { 0 };
                way.control(file(slot), libc::F_SETFL, flags)
            }
            Self::Flags { slot } => {
                let known = (libc::O_ACCMODE | libc::O_APPEND) as isize;
                way.control(file(slot), libc::F_GETFL, 0).map(|flags| flags & known)
            }
            Self::Sync { slot } => number(way, libc::SYS_fsync, [file(slot) as usize, 0, 0, 0]),
            Self::Allocate { slot, offset, size, keeps_size } => {
                number(way, libc::SYS_fallocate, [file(slot) as usize, usize::from(keeps_size), offset, size])
            }
            Self::Copy { from, to } => {
                let copied = way.copy(file(from), file(to))?;
                side.slots[table][to] = copied as c_int;
                side.unseen[table][to] = !way.is_seen() || side.unseen[table][from];
                Ok(0)
            }
            Self::Open { file, slot, mode } => {
                let before = side.slots[table][slot];
                let opened = way.open(&side.path(file), mode)?;
                side.slots[table][slot] = opened as c_int;
                side.unseen[table][slot] = !way.is_seen();
                if before >= 0 {
                    way.close(before)?;
                }
                Ok(0)
            }
            Self::Close { slot } => {
                let closed = way.close(file(slot));
                side.slots[table][slot] = -1;
                closed
            }
        }
    }
}

fn room(read: &mut Vec<u8>, size: usize) -> &mut [u8] {
    read.resize(size, 0);
    read
}

/// Bytes that differ from their neighbours.
fn pattern(size: usize, byte: u8) -> Vec<u8> {
    (0..size).map(|at| b'a' + (byte - b'a' + (at % 26) as u8) % 26).collect()
}

/// What no library replaces a function for.
fn number(way: Way, number: c_long, [first, second, third, fourth]: [usize; 4]) -> Result<isize, i32> {
    // SAFETY: the arguments are numbers.
    unsafe { way.number(number, [first, second, third, fourth, 0, 0]) }
}

fn size_of(file: c_int) -> Result<isize, i32> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: there is room.
    if unsafe { libc::fstat(file, stat.as_mut_ptr()) } != 0 {
        return Err(crate::ways::errno());
    }
    // SAFETY: the kernel has just filled it.
    Ok(unsafe { stat.assume_init() }.st_size as isize)
}

/// The name of a file, as the C library wants it.
pub(crate) type Name = CString;
