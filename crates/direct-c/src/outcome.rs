//! What does a function return?

use std::ffi::c_int;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// 0, or minus the errno. A panic, which has said what it is about on standard error, is an EIO: it must not go on into C.
pub(crate) fn outcome(what: impl FnOnce() -> io::Result<()>) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(what));
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => -error.raw_os_error().unwrap_or(libc::EIO),
        Err(_) => -libc::EIO,
    }
}

pub(crate) fn refusal(errno: c_int) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// The caller's open file. EBADF if there can be none of that number.
///
/// # Safety
/// If it is a descriptor at all, it stays open until the caller is answered.
pub(crate) unsafe fn file<'a>(fd: c_int) -> io::Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(refusal(libc::EBADF));
    }
    // SAFETY: by the caller's promise; it is not -1.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_happens_becomes_a_number() {
        assert_eq!(outcome(|| Ok(())), 0);
        assert_eq!(outcome(|| Err(refusal(libc::ENOSPC))), -libc::ENOSPC);
        assert_eq!(outcome(|| Err(io::ErrorKind::Other.into())), -libc::EIO);
        assert_eq!(outcome(|| panic!("a panic that is meant")), -libc::EIO);
    }

    #[test]
    fn there_are_no_negative_descriptors() {
        for fd in [-1, c_int::MIN] {
            // SAFETY: it is none.
            assert_eq!(unsafe { file(fd) }.unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
    }
}
