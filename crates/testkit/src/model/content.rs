//! The bytes of one regular file: a map of pages, so that a file may be as large as 2^63-1 bytes.
//!
//! Invariant: pages hold nothing but zeros past the size, so growing needs no clearing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Bytes in a page of the map.
pub(crate) const PAGE: u64 = 4096;

/// Size and bytes of a file. What has no page reads as zeros. Pages are shared by copies of the model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    size: u64,
    pages: Pages,
}

type Pages = BTreeMap<u64, Arc<[u8; PAGE as usize]>>;

/// The bytes of page `page` that `start..end` covers. The range must touch the page.
fn part(page: u64, start: u64, end: u64) -> Range<usize> {
    let first = page * PAGE;
    start.saturating_sub(first) as usize..(end - first).min(PAGE) as usize
}

/// The pages that `start..end` touches.
fn touched(start: u64, end: u64) -> Range<u64> {
    if start < end { start / PAGE..(end - 1) / PAGE + 1 } else { 0..0 }
}

impl Content {
    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of a page, of which those past the size are zeros; `None` if all are.
    pub(crate) fn page(&self, number: u64) -> Option<&[u8; PAGE as usize]> {
        self.pages.get(&number).map(AsRef::as_ref)
    }

    /// The numbers of the pages that may hold something else than zeros.
    pub(crate) fn page_numbers(&self) -> impl Iterator<Item = u64> {
        self.pages.keys().copied()
    }

    /// Up to `size` bytes from `offset` on; fewer at the end of the file.
    pub(super) fn read(&self, offset: u64, size: u64) -> Vec<u8> {
        let end = offset.saturating_add(size).min(self.size);
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        for page in touched(offset, end) {
            let part = part(page, offset, end);
            match self.pages.get(&page) {
                Some(stored) => bytes.extend_from_slice(&stored[part]),
                None => bytes.resize(bytes.len() + part.len(), 0),
            }
        }
        bytes
    }

    /// Stores bytes, and grows the file to hold them.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let mut rest = bytes;
        for page in touched(offset, end) {
            let part = part(page, offset, end);
            let (now, later) = rest.split_at(part.len());
            let stored = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(stored)[part].copy_from_slice(now);
            rest = later;
        }
        self.size = self.size.max(end);
    }

    /// Cuts or extends the file.
    pub(super) fn resize(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size);
        }
        self.size = size;
    }

    /// Zeroes `start..end`, without a change of the size.
    pub(super) fn zero(&mut self, start: u64, end: u64) {
        // The range may be too large to walk page by page, so only those that exist are looked at.
        let present: Vec<u64> = self.pages.range(touched(start, end)).map(|(page, _)| *page).collect();
        for page in present {
            let part = part(page, start, end);
            if part.len() == PAGE as usize {
                self.pages.remove(&page);
            } else if let Some(stored) = self.pages.get_mut(&page) {
                Arc::make_mut(stored)[part].fill(0);
            }
        }
    }

    /// The first byte from `offset` on that a page holds (or, for a hole, that none does), if it is in the file.
    pub(super) fn next(&self, offset: u64, data: bool) -> Option<u64> {
        let first = offset / PAGE;
        let mut present = self.pages.range(first..).map(|(page, _)| *page);
        let page = if data {
            present.next()?
        } else {
            first + (first..).zip(present).take_while(|(page, present)| page == present).count() as u64
        };
        Some((page * PAGE).max(offset)).filter(|position| *position < self.size)
    }

    /// Whether `start..end` holds nothing but zeros.
    pub(super) fn is_zero(&self, start: u64, end: u64) -> bool {
        let mut present = self.pages.range(touched(start, end));
        present.all(|(page, stored)| stored[part(*page, start, end)].iter().all(|byte| *byte == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_reads_as_zeros() {
        let mut content = Content::default();
        content.write(PAGE - 2, &[1; 4]);
        assert_eq!(content.read(PAGE - 3, 100), [0, 1, 1, 1, 1]);
        content.resize(PAGE - 1);
        content.resize(PAGE + 2);
        assert_eq!(content.read(PAGE - 3, 100), [0, 1, 0, 0, 0]);
        assert!(content.is_zero(0, PAGE - 2) && !content.is_zero(0, PAGE - 1));
    }

    #[test]
    fn the_last_byte_of_the_largest_file_can_be_written_and_zeroed() {
        let mut content = Content::default();
        let last = i64::MAX as u64 - 1;
        content.write(last, &[7]);
        assert_eq!(content.size(), i64::MAX as u64);
        assert_eq!(content.read(last - 1, 10), [0, 7]);
        assert!(content.is_zero(0, last) && !content.is_zero(0, last + 1));
        content.zero(0, content.size());
        assert!(content.is_zero(0, last + 1));
    }
}
