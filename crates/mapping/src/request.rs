//! What may be asked for, and what may be answered?

use std::io;
use std::ops::Range;

use rustix::param::page_size;

use crate::own::Own;

/// Offsets in files, and in media, end here.
const END_OF_OFFSETS: u64 = 1 << 63;

/// What mappings lead to.
#[derive(Debug)]
pub struct Medium {
    /// An open file.
    pub file: Own,
    /// Whether it may be stored to.
    pub is_writable: bool,
    /// Whether the host is to keep its own metadata durable before a store can be made (`MAP_SYNC`).
    pub is_synchronous: bool,
}

/// A region that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where it begins in the file: a multiple of the page size.
    pub offset: u64,
    /// Its bytes; a part of a page counts as a page.
    pub size: usize,
    /// Whether it may be stored to. (It may not if the medium may not.)
    pub writable: bool,
}

/// A touch of a page that is not mapped, or of a hole's zeroes, to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The page, in the file.
    pub offset: u64,
    /// Whether it was touched to write.
    pub write: bool,
}

/// What is to be mapped for a range of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The medium, from here on.
    Medium(u64),
    /// Zeroes. They take memory, so as few should be asked for at a time as are likely to be read soon.
    Zeroes,
}

/// An answer, for a range of the file. All numbers are multiples of the page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
    /// What it is.
    pub what: What,
}

/// What an extent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A touch asks the pager.
    Armed,
    /// The zeroes of a hole; a store asks the pager.
    Zeroes,
    /// The medium, from here on.
    Medium(u64),
    /// The file as the host shows it, with whatever cache it has.
    File,
    /// A touch raises SIGBUS, for a moment.
    Failing,
    /// Unmapped.
    Unmapped,
}

/// A part of a region that is one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
    /// What it is.
    pub shown: Shown,
}

impl Request {
    /// Its bytes in whole pages.
    pub(crate) fn size_in_pages(&self) -> io::Result<usize> {
        let page = page_size();
        let size = self.size.checked_next_multiple_of(page).filter(|&size| size > 0);
        let size = size.ok_or_else(|| invalid("a region without bytes, or too many"))?;
        let end = self.offset.checked_add(size as u64);
        if !is_whole(self.offset) || end.is_none_or(|end| end > END_OF_OFFSETS) {
            return Err(invalid("a region at no page of a file"));
        }
        Ok(size)
    }
}

impl Part {
    /// That its numbers make sense.
    pub(crate) fn check(&self) -> io::Result<()> {
        let lies_within =
            |at: u64| is_whole(at) && at.checked_add(self.size).is_some_and(|end| end <= END_OF_OFFSETS);
        let is_sound = is_whole(self.size)
            && lies_within(self.offset)
            && match self.what {
                What::Medium(at) => lies_within(at),
                What::Zeroes => true,
            };
        if is_sound { Ok(()) } else { Err(invalid("a part that is not made of pages of a file")) }
    }
}

/// The part of the file's bytes from `offset` on that a region of `region_size` bytes at `region_offset` has, in whole pages, as
/// positions in the region.
pub(crate) fn clip(region_offset: u64, region_size: usize, offset: u64, size: u64) -> Range<usize> {
    let page = page_size() as u64;
    let region_end = region_offset + region_size as u64;
    let start = (offset - offset % page).clamp(region_offset, region_end);
    let end = offset.saturating_add(size).min(region_end).next_multiple_of(page);
    let end = if size == 0 { start } else { end.max(start) };
    (start - region_offset) as usize..(end - region_offset) as usize
}

/// That `size` bytes can be at `address`.
pub(crate) fn check_address(address: usize, size: usize) -> io::Result<()> {
    let is_sound = address != 0 && is_whole(address as u64) && address.checked_add(size).is_some();
    if is_sound { Ok(()) } else { Err(invalid("a region at no page of the address space")) }
}

pub(crate) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn is_whole(number: u64) -> bool {
    number.is_multiple_of(page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;
    const LAST: u64 = END_OF_OFFSETS - PAGE;

    fn request(offset: u64, size: usize) -> io::Result<usize> {
        Request { offset, size, writable: true }.size_in_pages()
    }

    #[test]
    fn regions_end_where_files_end() {
        assert_eq!(request(LAST, 1).unwrap(), 4096);
        assert_eq!(request(0, 5000).unwrap(), 8192);
        for (offset, size) in [(LAST, 4097), (0, 0), (1, 1), (u64::MAX - 4095, 1), (0, usize::MAX)] {
            assert!(request(offset, size).is_err(), "{size} at {offset}");
        }
    }

    #[test]
    fn addresses_are_pages() {
        for address in [0, 1, usize::MAX - 4095] {
            assert!(check_address(address, 4096).is_err());
        }
        assert!(check_address(4096, 4096).is_ok());
    }

    #[test]
    fn parts_are_pages_of_files() {
        let check = |offset, size, what| Part { offset, size, what }.check().is_ok();
        assert!(check(LAST, PAGE, What::Medium(LAST)) && check(0, 0, What::Zeroes));
        assert!(!check(LAST, 2 * PAGE, What::Zeroes) && !check(0, 2 * PAGE, What::Medium(LAST)));
        assert!(
            !check(1, PAGE, What::Zeroes) && !check(0, 1, What::Zeroes) && !check(0, PAGE, What::Medium(1))
        );
        assert!(!check(u64::MAX - 4095, PAGE, What::Zeroes));
    }

    #[test]
    fn clipping_takes_whole_pages_and_does_not_wrap() {
        let (at, size) = (LAST - 3 * PAGE, 4 * 4096);
        assert_eq!(clip(at, size, 0, u64::MAX), 0..size);
        assert_eq!(clip(at, size, u64::MAX, u64::MAX), size..size);
        assert_eq!(clip(at, size, at + 4095, 2), 0..8192);
        assert_eq!(clip(at, size, at + PAGE, u64::MAX), 4096..size);
        assert_eq!(clip(at, size, at - PAGE, PAGE), 0..0);
        assert_eq!(clip(at, size, at + PAGE, 0), 4096..4096);
    }
}
