//! Writing to a file through a mapping.

use std::fs::File;
use std::io;
use std::ptr;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// Changes bytes within the file through a mapping, and waits until they have reached the file system.
pub(crate) fn write(file: &File, offset: usize, bytes: &[u8]) -> io::Result<()> {
    let size = offset + bytes.len();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address that the host chooses affects nothing that exists.
    let start = unsafe { mmap(ptr::null_mut(), size, protection, MapFlags::SHARED, file, 0)? };
    // SAFETY: the mapping has `size` bytes, which no reference leads to; it is not used after the end.
    unsafe {
        start.cast::<u8>().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        let synced = msync(start, size, MsyncFlags::SYNC);
        munmap(start, size)?;
        Ok(synced?)
    }
}
