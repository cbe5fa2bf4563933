//! How is a file mapped, and what is stored to it made durable?

use std::ffi::{c_int, c_void};
use std::io;
use std::ops::Range;
use std::ptr;

use crate::outcome::{file, outcome, refusal};

/// To store to it. The file must be open for reading and writing then.
pub const LODEFS_MAP_WRITABLE: u32 = 1;

/// Only if what is flushed from user space needs no fsync, as with `MAP_SYNC`.
pub const LODEFS_MAP_SYNC: u32 = 2;

/// Loads and stores reach the medium.
pub const LODEFS_DIRECT: c_int = 1;

/// They reach the page cache of the kernel, or what a mapping of the kernel's reaches otherwise.
pub const LODEFS_BUFFERED: c_int = 2;

/// How a file is to be mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MapOptions {
    /// Where the part begins in the file: a multiple of 4096.
    pub offset: u64,
    /// Bytes; more than 0. What is beyond the end of the file raises SIGBUS, until the file is longer.
    pub size: usize,
    /// `LODEFS_MAP_WRITABLE`, `LODEFS_MAP_SYNC`.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
}

/// A part of a file in memory. Any number of threads may use it at a time, but for `lodefs_unmap`.
#[derive(Debug)]
pub struct Mapping(lodefs_direct::Mapping);

/// Maps a part of an open file: directly if it is direct and this process may attach, else as the kernel does. The descriptor may be
/// closed afterwards.
///
/// -EOPNOTSUPP if it should be `LODEFS_MAP_SYNC` and cannot; -EACCES if the file was not opened for what is to be done; -EINVAL for an
/// offset, a size or flags that make no sense; -ENODEV if the file is direct and this process may not attach.
///
/// # Safety
/// `options` and `mapping` lead to what they say, or are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_map(
    fd: c_int,
    options: *const MapOptions,
    mapping: *mut *mut Mapping,
) -> c_int {
    outcome(|| {
        // SAFETY: by the caller's promise.
        let (file, options) = unsafe { (file(fd)?, options.as_ref()) };
        let options = options.ok_or_else(|| refusal(libc::EINVAL))?;
        if mapping.is_null() {
            return Err(refusal(libc::EINVAL));
        }
        let new = Box::new(Mapping(lodefs_direct::map(&file, &meant_by(options)?)?));
        // SAFETY: it is not null, so by the caller's promise there is room for a pointer.
        unsafe { mapping.write(Box::into_raw(new)) };
        Ok(())
    })
}

fn meant_by(options: &MapOptions) -> io::Result<lodefs_direct::MapOptions> {
    let MapOptions { offset, size, flags, reserved } = *options;
    if flags & !(LODEFS_MAP_WRITABLE | LODEFS_MAP_SYNC) != 0 || reserved != 0 {
        return Err(refusal(libc::EINVAL));
    }
    let (writable, sync) = (flags & LODEFS_MAP_WRITABLE != 0, flags & LODEFS_MAP_SYNC != 0);
    Ok(lodefs_direct::MapOptions { offset, size, writable, sync })
}

/// Where it begins. It is good until `lodefs_unmap`. NULL if there is no mapping.
///
/// # Safety
/// `mapping` is one, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_mapping_address(mapping: *const Mapping) -> *mut c_void {
    // SAFETY: by the caller's promise.
    unsafe { mapping.as_ref() }.map_or(ptr::null_mut(), |mapping| mapping.0.as_ptr().cast())
}

/// Its bytes, in whole pages. 0 if there is no mapping.
///
/// # Safety
/// `mapping` is one, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_mapping_size(mapping: *const Mapping) -> usize {
    // SAFETY: by the caller's promise.
    unsafe { mapping.as_ref() }.map_or(0, |mapping| mapping.0.size())
}

/// What it is: `LODEFS_DIRECT` or `LODEFS_BUFFERED`. -EINVAL if there is no mapping.
///
/// # Safety
/// `mapping` is one, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_mapping_kind(mapping: *const Mapping) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe { mapping.as_ref() }.map_or(-libc::EINVAL, |mapping| match mapping.0.kind() {
        lodefs_direct::MappingKind::Direct => LODEFS_DIRECT,
        lodefs_direct::MappingKind::Buffered => LODEFS_BUFFERED,
    })
}

/// Makes what was stored to these bytes durable, as far as the medium can: `lodefs_flush` and `lodefs_drain`. -EINVAL if they do not lie
/// within the mapping, of which `offset` counts from the beginning.
///
/// # Safety
/// `mapping` is one, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_persist(mapping: *const Mapping, offset: usize, size: usize) -> c_int {
    // SAFETY: by the caller's promise.
    outcome(|| unsafe { known(mapping) }?.persist(range(offset, size)?))
}

/// Starts the way of stored bytes to the medium. They have arrived after the next `lodefs_drain`. -EINVAL as for `lodefs_persist`.
///
/// # Safety
/// `mapping` is one, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_flush(mapping: *const Mapping, offset: usize, size: usize) -> c_int {
    // SAFETY: by the caller's promise.
    outcome(|| unsafe { known(mapping) }?.flush(range(offset, size)?))
}

/// Waits until what this thread has flushed is durable, as far as the medium can.
///
/// # Safety
/// `mapping` is one, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_drain(mapping: *const Mapping) -> c_int {
    outcome(|| {
        // SAFETY: by the caller's promise.
        unsafe { known(mapping) }?.drain();
        Ok(())
    })
}

/// Makes all that was stored durable, and lets it show in the times of the file.
///
/// # Safety
/// `mapping` is one, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_sync(mapping: *const Mapping) -> c_int {
    // SAFETY: by the caller's promise.
    outcome(|| unsafe { known(mapping) }?.sync())
}

/// Unmaps it, and makes `*mapping` NULL. What was stored stays, but is durable only as it has been made so. -EINVAL if there is no
/// mapping.
///
/// # Safety
/// `mapping` leads to a pointer or is null; the pointer is from `lodefs_map` or null. Nobody uses the mapping, or its memory, any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_unmap(mapping: *mut *mut Mapping) -> c_int {
    outcome(|| {
        // SAFETY: by the caller's promise.
        let place = unsafe { mapping.as_mut() }.ok_or_else(|| refusal(libc::EINVAL))?;
        let old = std::mem::replace(place, ptr::null_mut());
        if old.is_null() {
            return Err(refusal(libc::EINVAL));
        }
        // SAFETY: it comes from `lodefs_map`, and nobody has another copy that he will use.
        drop(unsafe { Box::from_raw(old) });
        Ok(())
    })
}

/// # Safety
/// `mapping` is one for as long as the result is used, or null.
unsafe fn known<'a>(mapping: *const Mapping) -> io::Result<&'a lodefs_direct::Mapping> {
    // SAFETY: by the caller's promise.
    let mapping = unsafe { mapping.as_ref() };
    mapping.map(|mapping| &mapping.0).ok_or_else(|| refusal(libc::EINVAL))
}

fn range(offset: usize, size: usize) -> io::Result<Range<usize>> {
    let end = offset.checked_add(size).ok_or_else(|| refusal(libc::EINVAL))?;
    Ok(offset..end)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    static OPTIONS: MapOptions =
        MapOptions { offset: 0, size: 5000, flags: LODEFS_MAP_WRITABLE, reserved: 0 };

    #[test]
    fn an_ordinary_file_is_mapped_as_the_kernel_does() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let mut mapping = ptr::null_mut();
        // SAFETY: all pointers lead to what they say; nobody else uses the memory; it is not used after `lodefs_unmap`.
        unsafe {
            assert_eq!(lodefs_map(file.as_raw_fd(), &raw const OPTIONS, &raw mut mapping), 0);
            assert_eq!((lodefs_mapping_size(mapping), lodefs_mapping_kind(mapping)), (8192, LODEFS_BUFFERED));
            lodefs_mapping_address(mapping).cast::<u8>().add(5000).write(7);
            assert_eq!(lodefs_persist(mapping, 5000, 1), 0);
            assert_eq!(
                (lodefs_flush(mapping, 0, 8192), lodefs_drain(mapping), lodefs_sync(mapping)),
                (0, 0, 0)
            );
            for (offset, size) in [(0, 8193), (8192, 1), (usize::MAX, 1), (1, usize::MAX)] {
                assert_eq!(lodefs_persist(mapping, offset, size), -libc::EINVAL);
                assert_eq!(lodefs_flush(mapping, offset, size), -libc::EINVAL);
            }
            assert_eq!(lodefs_unmap(&raw mut mapping), 0);
            assert!(mapping.is_null());
            assert_eq!(lodefs_unmap(&raw mut mapping), -libc::EINVAL);
        }
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 5000).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn nothing_is_not_a_mapping() {
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_raw_fd();
        let mut mapping = ptr::null_mut();
        // SAFETY: all pointers are null, or lead to what they say.
        unsafe {
            assert_eq!(lodefs_map(fd, ptr::null(), &raw mut mapping), -libc::EINVAL);
            assert_eq!(lodefs_map(fd, &raw const OPTIONS, ptr::null_mut()), -libc::EINVAL);
            assert_eq!(lodefs_map(-1, &raw const OPTIONS, &raw mut mapping), -libc::EBADF);
            assert!(mapping.is_null() && lodefs_mapping_address(mapping).is_null());
            assert_eq!((lodefs_mapping_size(mapping), lodefs_mapping_kind(mapping)), (0, -libc::EINVAL));
            for outcome in [
                lodefs_persist(mapping, 0, 1),
                lodefs_flush(mapping, 0, 1),
                lodefs_drain(mapping),
                lodefs_sync(mapping),
                lodefs_unmap(ptr::null_mut()),
            ] {
                assert_eq!(outcome, -libc::EINVAL);
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let mut mapping = ptr::null_mut();
        for (options, errno) in [
            (MapOptions { flags: 4, ..OPTIONS }, libc::EINVAL),
            (MapOptions { reserved: 1, ..OPTIONS }, libc::EINVAL),
            (MapOptions { size: 0, ..OPTIONS }, libc::EINVAL),
            (MapOptions { offset: 1, ..OPTIONS }, libc::EINVAL),
            (MapOptions { flags: LODEFS_MAP_SYNC, ..OPTIONS }, libc::EOPNOTSUPP),
        ] {
            // SAFETY: the pointers lead to what they say.
            let outcome = unsafe { lodefs_map(file.as_raw_fd(), &raw const options, &raw mut mapping) };
            assert_eq!((outcome, mapping.is_null()), (-errno, true), "{options:?}");
        }
    }
}
