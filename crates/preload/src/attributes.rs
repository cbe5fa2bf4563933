//! Which attribute of a file does the kernel not tell?
//!
//! That it is direct: `STATX_ATTR_DAX`. The server tells it, by an extended attribute that anybody may read without opening the file.

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::io::Write as _;

use libc::statx as Statx;
use lodefs_direct::EFFECT_ATTRIBUTE;
use rustix::fs::{FileType, getxattr};

use crate::within::Within;
use crate::{mounts, next};

/// `STATX_ATTR_DAX`, which the libc crate calls so only for some targets.
const ATTR_DAX: u64 = 0x0020_0000;
const DIRECT: &[u8] = b"direct";

/// # Safety
/// As for statx(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn statx(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    into: *mut Statx,
) -> c_int {
    // SAFETY: by the caller's promise.
    let said = unsafe { next::statx(directory, path, flags, mask, into) };
    if said != 0 || !mounts::are_there() {
        return said;
    }
    // SAFETY: the kernel has just filled it.
    let told = unsafe { &mut *into };
    let is_regular = FileType::from_raw_mode(told.stx_mode.into()).is_file();
    if is_regular
        && mounts::have((told.stx_dev_major, told.stx_dev_minor))
        && let Some(_within) = Within::enter()
    {
        // SAFETY: the kernel has just read it, up to its end.
        let path = if path.is_null() { c"" } else { unsafe { CStr::from_ptr(path) } };
        let is_direct = is_direct(directory, path);
        told.stx_attributes_mask |= ATTR_DAX;
        told.stx_attributes |= if is_direct { ATTR_DAX } else { 0 };
    }
    said
}

/// Whether a file, which is regular, is direct now. What cannot be asked is not.
fn is_direct(directory: c_int, path: &CStr) -> bool {
    let mut name = Vec::new();
    if directory != libc::AT_FDCWD && !path.to_bytes().starts_with(b"/") {
        // To memory, which fails nobody.
        let _written = write!(name, "/proc/thread-self/fd/{directory}/");
    }
    name.extend_from_slice(path.to_bytes());
    if path.is_empty() {
        // The descriptor itself.
        name.pop();
    }
    let Ok(name) = CString::new(name) else { return false };
    let mut said = [0; 16];
    getxattr(name, EFFECT_ATTRIBUTE, &mut said).is_ok_and(|size| &said[..size] == DIRECT)
}
