//! What is mapped in this process, and how?

use std::ffi::c_int;

use lodefs_direct::census;
use lodefs_direct::maps::{Census, DurableBy, FileId, Kind};

use crate::outcome::{outcome, refusal};

/// The medium.
pub const LODEFS_RANGE_DIRECT: u32 = 1;

/// A hole of a direct file: the zeroes that are seen there.
pub const LODEFS_RANGE_HOLE: u32 = 2;

/// The page cache of the kernel.
pub const LODEFS_RANGE_BUFFERED: u32 = 3;

/// Nothing yet: the first access decides.
pub const LODEFS_RANGE_UNTOUCHED: u32 = 4;

/// It lies beyond the end of the file, or there was no room for it: an access raises SIGBUS.
pub const LODEFS_RANGE_FAILING: u32 = 5;

/// Nothing makes stores durable.
pub const LODEFS_DURABLE_BY_NOTHING: u32 = 0;

/// A fence does.
pub const LODEFS_DURABLE_BY_FENCE: u32 = 1;

/// Writing cache lines back, and a fence.
pub const LODEFS_DURABLE_BY_FLUSH: u32 = 2;

/// `msync`.
pub const LODEFS_DURABLE_BY_MSYNC: u32 = 3;

/// `bytes_base` and `bytes_huge` are not known: the kernel is older than Linux 6.7.
pub const LODEFS_PAGES_UNKNOWN: u64 = u64::MAX;

/// Addresses that are one thing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeStatus {
    /// The first address.
    pub start: u64,
    /// Behind the last one.
    pub end: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// `st_dev` of the file.
    pub device: u64,
    /// `st_ino` of the file.
    pub inode: u64,
    /// Bytes of it that the kernel has mapped in pages of the usual size.
    pub bytes_base: u64,
    /// Bytes of it that the kernel has mapped in pages of 2 MiB.
    pub bytes_huge: u64,
    /// `LODEFS_RANGE_...`: what it is.
    pub kind: u32,
    /// `LODEFS_DURABLE_BY_...`: what makes stores to it durable.
    pub durable_by: u32,
    /// 1 if it may be stored to, else 0.
    pub writable: u32,
    /// 1 if what is flushed needs no fsync, as with `MAP_SYNC`, else 0.
    pub sync: u32,
    /// 1 if system calls may touch it where nothing is mapped yet, 0 if they fail with EFAULT there.
    pub serves_system_calls: u32,
}

/// Tells what this process has mapped with `lodefs_map`, at one moment, by address: the first `max` ranges in `ranges`, and in `count` how
/// many there are, which may be more.
///
/// -EINVAL without a place for what is told.
///
/// # Safety
/// `ranges` leads to `max` ranges, or `max` is 0; `count` leads to a number, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_ranges(ranges: *mut RangeStatus, max: usize, count: *mut usize) -> c_int {
    outcome(|| {
        if count.is_null() || ranges.is_null() && max > 0 {
            return Err(refusal(libc::EINVAL));
        }
        let told = statuses(&census());
        for (at, status) in told.iter().take(max).enumerate() {
            // SAFETY: by the caller's promise there is room for so many.
            unsafe { ranges.add(at).write(*status) };
        }
        // SAFETY: it is not null, so by the caller's promise there is room for it.
        unsafe { count.write(told.len()) };
        Ok(())
    })
}

fn statuses(census: &Census) -> Vec<RangeStatus> {
    let status = |range: &lodefs_direct::maps::Range| {
        let (device, inode) = match census.files[range.file as usize].id {
            FileId::Host { device, inode } => (device, inode),
            FileId::Volume { inode, .. } => (0, inode),
        };
        RangeStatus {
            start: range.start,
            end: range.end,
            offset: range.offset,
            device,
            inode,
            bytes_base: range.pages.map_or(LODEFS_PAGES_UNKNOWN, |pages| pages.base),
            bytes_huge: range.pages.map_or(LODEFS_PAGES_UNKNOWN, |pages| pages.huge),
            kind: match range.kind {
                Kind::Direct => LODEFS_RANGE_DIRECT,
                Kind::Hole => LODEFS_RANGE_HOLE,
                Kind::Buffered => LODEFS_RANGE_BUFFERED,
                Kind::Untouched => LODEFS_RANGE_UNTOUCHED,
                Kind::Failing => LODEFS_RANGE_FAILING,
            },
            durable_by: match range.durable_by {
                DurableBy::Nothing => LODEFS_DURABLE_BY_NOTHING,
                DurableBy::Fence => LODEFS_DURABLE_BY_FENCE,
                DurableBy::Flush => LODEFS_DURABLE_BY_FLUSH,
                DurableBy::Msync => LODEFS_DURABLE_BY_MSYNC,
            },
            writable: range.writable.into(),
            sync: range.sync.into(),
            serves_system_calls: range.serves_system_calls.into(),
        }
    };
    census.ranges.iter().map(status).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::ptr;

    use super::*;
    use crate::mapping::{LODEFS_MAP_WRITABLE, MapOptions, lodefs_map, lodefs_mapping_address, lodefs_unmap};

    #[test]
    fn what_is_mapped_is_told() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let options = MapOptions { offset: 4096, size: 4096, flags: LODEFS_MAP_WRITABLE, reserved: 0 };
        let (mut mapping, mut count) = (ptr::null_mut(), 0);
        // Other tests have mappings, too.
        let mut told = [RangeStatus::default(); 64];
        let start;
        // SAFETY: all pointers lead to what they say.
        unsafe {
            assert_eq!(lodefs_map(file.as_raw_fd(), &raw const options, &raw mut mapping), 0);
            start = lodefs_mapping_address(mapping).addr() as u64;
            lodefs_mapping_address(mapping).cast::<u8>().write(1);
            assert_eq!(lodefs_ranges(told.as_mut_ptr(), told.len(), &raw mut count), 0);
            assert_eq!(lodefs_ranges(ptr::null_mut(), 0, ptr::null_mut()), -libc::EINVAL);
            assert_eq!(lodefs_ranges(ptr::null_mut(), 1, &raw mut count), -libc::EINVAL);
        }
        assert!((1..told.len()).contains(&count));
        let found = told[..count].iter().find(|range| range.start == start).unwrap();
        let metadata = File::metadata(&file).unwrap();
        assert_eq!((found.offset, found.end - found.start), (4096, 4096));
        assert_eq!((found.device, found.inode), (metadata.dev(), metadata.ino()));
        assert_eq!((found.kind, found.durable_by), (LODEFS_RANGE_BUFFERED, LODEFS_DURABLE_BY_MSYNC));
        assert!([4096, LODEFS_PAGES_UNKNOWN].contains(&found.bytes_base));
        // SAFETY: nobody uses it any more.
        assert_eq!(unsafe { lodefs_unmap(&raw mut mapping) }, 0);
    }
}
