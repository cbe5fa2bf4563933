//! Is a buffer of the caller's a mapping of a file?
//!
//! Whoever copies to and from buffers while others wait for him must not touch a mapping: a touch may have to be answered, by another
//! thread, and that one may be among those who wait. So what is mapped is never handed to the engine, nor used under a lease of data, but
//! a copy. That goes for mappings of any volume, because two threads could wait for each other by way of two volumes.

use std::borrow::Cow;
use std::io;

use crate::registry;

#[inline]
fn is_mapped(bytes: &[u8]) -> bool {
    let start = bytes.as_ptr().addr();
    registry::has_some_of(&(start..start + bytes.len()))
}

/// Bytes that are a page of their own at most.
const PAGE_SIZE: usize = 4096;
/// So many bytes of a buffer are touched beforehand: of a huge one not all may be needed.
const TOUCHED_MAX: usize = 1 << 20;

/// Has the pages of a buffer in memory, most likely for a while: whoever copies from it next need not wait for a file system, who may
/// wait for him.
pub fn touch(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(TOUCHED_MAX)];
    for page in bytes.chunks(PAGE_SIZE) {
        std::hint::black_box(page[0]);
    }
    std::hint::black_box(bytes.last());
}

/// The same with a buffer that is to be filled.
pub fn touch_mut(into: &mut [u8]) {
    let size = into.len().min(TOUCHED_MAX);
    let into = &mut into[..size];
    for page in into.chunks_mut(PAGE_SIZE) {
        // Also what a store has to wait for.
        page[0] = std::hint::black_box(page[0]);
    }
    if let Some(last) = into.last_mut() {
        *last = std::hint::black_box(*last);
    }
}

/// The same bytes, where they can be read without a fault that has to be answered.
#[inline]
pub fn own(bytes: &[u8]) -> Cow<'_, [u8]> {
    if is_mapped(bytes) { bytes.to_vec().into() } else { bytes.into() }
}

/// Fills a buffer, of which `fill` says how much it has filled: another one, if this is mapped.
#[inline]
pub fn filled(into: &mut [u8], fill: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
    if !is_mapped(into) {
        return fill(into);
    }
    let mut own = vec![0; into.len()];
    let size = fill(&mut own)?;
    into[..size].copy_from_slice(&own[..size]);
    Ok(size)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use lodefs_proto::maps::{DurableBy, FileId};

    use super::*;
    use crate::registry::{Known, Noted, Subject};

    fn noted(addresses: Range<usize>) -> Noted {
        let subject = Subject { file: FileId::Host { device: 0, inode: 0 }, named: None };
        let known = Known {
            number: 0,
            size: addresses.len(),
            offset: 0,
            region: None,
            subject,
            writable: true,
            sync: false,
            durable_by: DurableBy::Msync,
        };
        Noted::new(addresses.start, known)
    }

    #[test]
    fn whatever_overlaps_a_mapping_is_copied() {
        let memory = [7; 100];
        let at = memory.as_ptr().addr();
        assert!(matches!(own(&memory), Cow::Borrowed(_)));
        let first = noted(at + 10..at + 20);
        let second = noted(at + 30..at + 40);
        let is_copied = |range: Range<usize>| matches!(own(&memory[range]), Cow::Owned(_));
        for range in [0..100, 0..11, 10..20, 19..20, 25..31, 39..100, 12..13] {
            assert!(is_copied(range.clone()), "{range:?}");
        }
        for range in [0..10, 20..30, 40..100, 5..5] {
            assert!(!is_copied(range.clone()), "{range:?}");
        }
        drop(first);
        assert!(!is_copied(0..30) && is_copied(0..100));
        second.take_away(&(at + 33..at + 36));
        assert!(is_copied(30..33) && !is_copied(33..36) && is_copied(36..37));
        drop(second);
        assert!(!is_copied(0..100));
    }
}
