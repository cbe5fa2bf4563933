//! Is a file direct, and why?

use std::ffi::c_int;

use lodefs_direct::dax::{self, Effect, How, Reason};

use crate::outcome::{file, outcome, refusal};

/// It takes effect when the last holder has gone.
pub const LODEFS_DAX_PENDING: c_int = 0;

/// -EBUSY, and no change, if it cannot take effect at once.
pub const LODEFS_DAX_NOW: c_int = 1;

/// Mappings by attached programs are taken back; -EBUSY, and no change, if that is not enough.
pub const LODEFS_DAX_REVOKE: c_int = 2;

/// A directory has no bytes of its own.
pub const LODEFS_EFFECT_NONE: u32 = 0;

/// The file is reached without a cache in between.
pub const LODEFS_EFFECT_DIRECT: u32 = 1;

/// It is reached perhaps through a cache.
pub const LODEFS_EFFECT_BUFFERED: u32 = 2;

/// The flag decided about that.
pub const LODEFS_REASON_FLAG: u32 = 0;

/// The mount option `dax` did.
pub const LODEFS_REASON_OPTION: u32 = 1;

/// The medium did.
pub const LODEFS_REASON_MEDIUM: u32 = 2;

/// Those who hold the file did: until they go, the effect stays what it was.
pub const LODEFS_REASON_HOLDERS: u32 = 3;

/// Whether a file is direct.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaxStatus {
    /// 1 if the flag is set, else 0.
    pub flag: u32,
    /// `LODEFS_EFFECT_...`: how the file is reached now.
    pub effect: u32,
    /// `LODEFS_REASON_...`: what decided about that.
    pub reason: u32,
    /// How many hold the file.
    pub holders: u32,
}

/// Asks about an open file or directory of a mount. The file that is asked by is not among the holders.
///
/// -ENOTTY if it is not on a mounted lodefs volume, -EINVAL if it is neither a regular file nor a directory.
///
/// # Safety
/// `status` leads to one, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lodefs_dax_status(fd: c_int, status: *mut DaxStatus) -> c_int {
    outcome(|| {
        if status.is_null() {
            return Err(refusal(libc::EINVAL));
        }
        // SAFETY: the caller's descriptor, which stays open.
        let answer = dax::status(unsafe { file(fd)? })?;
        // SAFETY: it is not null, so by the caller's promise there is room for it.
        unsafe { status.write(status_of(&answer)) };
        Ok(())
    })
}

/// Sets (`on` is not 0) or clears the DAX flag of an open file or directory of a mount. `how` says what to do if it cannot take effect
/// at once: `LODEFS_DAX_PENDING`, `LODEFS_DAX_NOW`, `LODEFS_DAX_REVOKE`. Once it has taken effect, the descriptor reaches no data of the volume
/// any more (ESTALE): close it, and open the file again.
///
/// -EBUSY; -EPERM if the caller is neither the owner nor root, or the file is immutable; -EROFS; -EINVAL for another `how`; -ENOTTY
/// and -EINVAL as for `lodefs_dax_status`.
#[unsafe(no_mangle)]
pub extern "C" fn lodefs_dax_set(fd: c_int, on: c_int, how: c_int) -> c_int {
    outcome(|| {
        let how = match how {
            LODEFS_DAX_PENDING => How::Pending,
            LODEFS_DAX_NOW => How::Now,
            LODEFS_DAX_REVOKE => How::Revoke,
            _ => return Err(refusal(libc::EINVAL)),
        };
        // SAFETY: the caller's descriptor, which stays open.
        dax::set(unsafe { file(fd)? }, on != 0, how)?;
        Ok(())
    })
}

fn status_of(answer: &dax::Answer) -> DaxStatus {
    DaxStatus {
        flag: answer.flag.into(),
        effect: match answer.effect {
            Effect::None => LODEFS_EFFECT_NONE,
            Effect::Direct => LODEFS_EFFECT_DIRECT,
            Effect::Buffered => LODEFS_EFFECT_BUFFERED,
        },
        reason: match answer.reason {
            Reason::Flag => LODEFS_REASON_FLAG,
            Reason::Option => LODEFS_REASON_OPTION,
            Reason::Medium => LODEFS_REASON_MEDIUM,
            Reason::Holders => LODEFS_REASON_HOLDERS,
        },
        holders: answer.holders_count,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::ptr;

    use super::*;

    #[test]
    fn where_there_is_no_lodefs_that_is_said() {
        let other = tempfile::tempfile().unwrap();
        let fd = other.as_raw_fd();
        let mut status = DaxStatus::default();
        // SAFETY: the pointers lead to what they say, or are null.
        unsafe {
            assert_eq!(lodefs_dax_status(fd, &raw mut status), -libc::ENOTTY);
            assert_eq!(lodefs_dax_status(-1, &raw mut status), -libc::EBADF);
            assert_eq!(lodefs_dax_status(fd, ptr::null_mut()), -libc::EINVAL);
        }
        assert_eq!(lodefs_dax_set(fd, 1, LODEFS_DAX_NOW), -libc::ENOTTY);
        assert_eq!(lodefs_dax_set(fd, 1, 3), -libc::EINVAL);
        assert_eq!(lodefs_dax_set(-7, 0, LODEFS_DAX_PENDING), -libc::EBADF);
    }

    #[test]
    fn every_answer_has_a_number() {
        let answer = dax::Answer {
            flag: true,
            effect: Effect::Direct,
            reason: Reason::Holders,
            holders_count: 5,
            holders: Vec::new(),
        };
        let expected = DaxStatus { flag: 1, effect: 1, reason: 3, holders: 5 };
        assert_eq!(status_of(&answer), expected);
    }
}
