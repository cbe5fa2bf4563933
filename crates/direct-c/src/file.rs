//! How is an open file read and written without a system call?

use std::ffi::{c_int, c_void};
use std::fs;
use std::ptr;
use std::slice;

use crate::outcome::{file, outcome, refusal};

/// An open file, which is read and written without system calls where it can be, and by the kernel else. Any number of threads may use it
/// at a time, but for `lodefs_file_close`.
#[derive(Debug)]
pub struct File(lodefs_direct::File);

/// Makes one of a descriptor, which is duplicated, and may be closed afterwards. Its flags are not to be changed as long as the file is
/// used.
///
/// # Safety
/// `opened` leads to room for a pointer, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_file_open(fd: c_int, opened: *mut *mut File) -> c_int {
    outcome(|| {
        // SAFETY: by the caller's promise.
        let file = unsafe { file(fd)? };
        if opened.is_null() {
            return Err(refusal(libc::EINVAL));
        }
        let own = fs::File::from(file.try_clone_to_owned()?);
        let new = Box::new(File(lodefs_direct::File::new(own)?));
        // SAFETY: it is not null, so by the caller's promise there is room for a pointer.
        unsafe { opened.write(Box::into_raw(new)) };
        Ok(())
    })
}

/// Reads, as pread does. Returns how many bytes were read, or minus an errno.
///
/// # Safety
/// `file` is one, or null; `bytes` leads to `size` bytes that nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_file_read(
    file: *const File,
    bytes: *mut c_void,
    size: usize,
    offset: u64,
) -> isize {
    // SAFETY: by the caller's promise.
    let (file, bytes) = unsafe { (file.as_ref(), some(bytes, size)) };
    counted(|| {
        let (file, bytes) = (file.ok_or_else(|| refusal(libc::EINVAL))?, bytes?);
        // SAFETY: by the caller's promise: memory of a program in C has some value.
        let into = unsafe { slice::from_raw_parts_mut(bytes, size) };
        file.0.read_at(into, offset)
    })
}

/// Writes, as pwrite does. Returns how many bytes were written, or minus an errno. In a direct file they are durable then, as far as the
/// medium can.
///
/// # Safety
/// `file` is one, or null; `bytes` leads to `size` bytes that nobody changes meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_file_write(
    file: *const File,
    bytes: *const c_void,
    size: usize,
    offset: u64,
) -> isize {
    // SAFETY: by the caller's promise.
    let (file, bytes) = unsafe { (file.as_ref(), some(bytes.cast_mut(), size)) };
    counted(|| {
        let (file, bytes) = (file.ok_or_else(|| refusal(libc::EINVAL))?, bytes?);
        // SAFETY: by the caller's promise.
        let from = unsafe { slice::from_raw_parts(bytes, size) };
        file.0.write_at(from, offset)
    })
}

/// Has no more use for a file, and makes it NULL. Nothing if it is that already.
///
/// # Safety
/// `file` leads to a file that `lodefs_file_open` has made and nobody uses any more, or to NULL, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_file_close(file: *mut *mut File) -> c_int {
    outcome(|| {
        // SAFETY: by the caller's promise.
        let Some(file) = (unsafe { file.as_mut() }) else { return Ok(()) };
        let closed = std::mem::replace(file, ptr::null_mut());
        if !closed.is_null() {
            // SAFETY: it comes from `lodefs_file_open`, and is nobody's any more.
            drop(unsafe { Box::from_raw(closed) });
        }
        Ok(())
    })
}

/// So many bytes of the caller's; EFAULT if there can be none. (No bytes may be nowhere.)
fn some(bytes: *mut c_void, size: usize) -> std::io::Result<*mut u8> {
    match (bytes.is_null(), isize::try_from(size)) {
        (true, Ok(0)) => Ok(ptr::NonNull::dangling().as_ptr()),
        (false, Ok(_)) => Ok(bytes.cast()),
        _ => Err(refusal(libc::EFAULT)),
    }
}

/// A number of bytes, or minus an errno.
fn counted(what: impl FnOnce() -> std::io::Result<usize>) -> isize {
    let mut count = 0;
    let result = outcome(|| {
        count = what()?.cast_signed();
        Ok(())
    });
    if result == 0 { count } else { result as isize }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn any_file_is_read_and_written() {
        let ordinary = tempfile::tempfile().unwrap();
        let mut file = ptr::null_mut();
        let (mut bytes, size) = (*b"12345", 5);
        // SAFETY: the pointers lead to what they say, or are null.
        unsafe {
            assert_eq!(lodefs_file_open(-1, &raw mut file), -libc::EBADF);
            assert_eq!(lodefs_file_open(ordinary.as_raw_fd(), ptr::null_mut()), -libc::EINVAL);
            assert_eq!(lodefs_file_open(ordinary.as_raw_fd(), &raw mut file), 0);
            assert_eq!(lodefs_file_write(file, bytes.as_ptr().cast(), size, 3), 5);
            assert_eq!(lodefs_file_read(file, bytes.as_mut_ptr().cast(), size, 4), 4);
            assert_eq!(bytes, *b"23455");
            assert_eq!(lodefs_file_read(file, ptr::null_mut(), 0, 4), 0);
            assert_eq!(lodefs_file_read(file, ptr::null_mut(), 1, 4), -libc::EFAULT as isize);
            assert_eq!(lodefs_file_write(file, bytes.as_ptr().cast(), usize::MAX, 4), -libc::EFAULT as isize);
            assert_eq!(lodefs_file_write(ptr::null(), bytes.as_ptr().cast(), 5, 4), -libc::EINVAL as isize);
            assert_eq!(lodefs_file_close(&raw mut file), 0);
            assert!(file.is_null());
            assert_eq!((lodefs_file_close(&raw mut file), lodefs_file_close(ptr::null_mut())), (0, 0));
        }
    }
}
