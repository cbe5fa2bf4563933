//! Which files may be on a mounted volume?
//!
//! `lodefs run` says which volumes were mounted when it began, so that a program that uses none of them does not have to find out. A
//! file elsewhere costs one comparison of its name, or, if that does not begin with `/`, asking for a device number.

use std::ffi::{OsStr, c_char, c_int};
use std::fs::canonicalize;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use libc::iovec;
use lodefs_direct::run::MOUNTS_VARIABLE;
use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};

const PATH_MAX: usize = 4096;
const PAGE_SIZE: usize = 4096;

/// A mounted volume.
struct Mount {
    directory: PathBuf,
    device: (u32, u32),
}

static MOUNTS: OnceLock<Vec<Mount>> = OnceLock::new();

/// Notes what is mounted.
pub(crate) fn begin() {
    let said = std::env::var_os(MOUNTS_VARIABLE).unwrap_or_default();
    let directories = said.as_bytes().split(|byte| *byte == b'\n').filter(|name| !name.is_empty());
    let mounts = directories.filter_map(|name| Mount::at(OsStr::from_bytes(name)));
    let _is_first = MOUNTS.set(mounts.collect());
}

fn mounts() -> &'static [Mount] {
    MOUNTS.get().map_or(&[], Vec::as_slice)
}

/// Whether there is any.
pub(crate) fn are_there() -> bool {
    !mounts().is_empty()
}

impl Mount {
    fn at(directory: &OsStr) -> Option<Self> {
        let directory = canonicalize(directory).ok()?;
        let stat = statx(CWD, &directory, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
        Some(Self { directory, device: device(&stat) })
    }

    fn may_have(&self, name: &[u8]) -> bool {
        let rest = name.strip_prefix(self.directory.as_os_str().as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"/"))
    }
}

/// Whether a file of this name is, most likely, on a volume.
pub(crate) fn may_have(directory: c_int, name: *const c_char) -> bool {
    let mounts = mounts();
    let longest = mounts.iter().map(|mount| mount.directory.as_os_str().len()).max().unwrap_or(0);
    let mut beginning = [0; PATH_MAX];
    // With what is behind a directory's name.
    let name = beginning_of(name, &mut beginning[..(longest + 1).min(PATH_MAX)]);
    if name.is_empty() || name.starts_with(b"/") {
        return mounts.iter().any(|mount| mount.may_have(name));
    }
    if directory < 0 && directory != libc::AT_FDCWD {
        return false;
    }
    // SAFETY: whoever opens a file there has it open, or it is the directory in which the process is.
    let directory = unsafe { BorrowedFd::borrow_raw(directory) };
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(directory, c"", flags, StatxFlags::INO).is_ok_and(|stat| is_known(&stat))
}

/// Whether a volume is mounted as this device.
pub(crate) fn have(device: (u32, u32)) -> bool {
    mounts().iter().any(|mount| mount.device == device)
}

/// Whether this is a regular file on a volume.
pub(crate) fn has(file: BorrowedFd<'_>) -> bool {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(file, c"", flags, StatxFlags::INO | StatxFlags::TYPE);
    let is_regular = |stat: &Statx| FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
    stat.is_ok_and(|stat| is_regular(&stat) && is_known(&stat))
}

/// Whether it is a regular file: of these, no other one has the flag.
pub(crate) fn is_regular(file: c_int) -> bool {
    // SAFETY: the caller's descriptor is open as long as he asks about it.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    let stat = statx(file, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.stx_mode.into()).is_file())
}

/// Bytes at an address that a program has given, which may be any: for the kernel to say, when it is asked to open something. As
/// many as there are, up to the end of the string or of the room.
fn beginning_of(name: *const c_char, room: &mut [u8]) -> &[u8] {
    let size = room.len();
    // What cannot be read ends where a page ends.
    let first = size.min(PAGE_SIZE - name.addr() % PAGE_SIZE);
    let part =
        |at: usize, size| iovec { iov_base: name.wrapping_byte_add(at).cast_mut().cast(), iov_len: size };
    let from = [part(0, first), part(first, size - first)];
    let into = iovec { iov_base: room.as_mut_ptr().cast(), iov_len: size };
    // SAFETY: there is so much room; what is read is looked at by the kernel, which refuses what is not there.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &raw const into, 1, from.as_ptr(), 2, 0) };
    let read = &room[..usize::try_from(read).unwrap_or(0)];
    read.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn is_known(stat: &Statx) -> bool {
    have(device(stat))
}

fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}
