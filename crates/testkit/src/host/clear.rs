//! Emptying a directory, whatever flags forbid it.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};

use super::xflags;

/// Removes everything from `directory`.
pub(super) fn clear(directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
    // A file system without flags has none that are in the way.
    xflags::set(directory, 0).ok();
    let entries: Vec<_> = fs::Dir::read_from(directory)?.collect::<Result<_, _>>()?;
    for entry in entries {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match entry.file_type() {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                clear(fs::openat(directory, name, flags, Mode::empty())?.as_fd())?;
                fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                xflags::set(fs::openat(directory, name, flags, Mode::empty())?.as_fd(), 0).ok();
                fs::unlinkat(directory, name, AtFlags::empty())?;
            }
            _ => fs::unlinkat(directory, name, AtFlags::empty())?,
        }
    }
    Ok(())
}
