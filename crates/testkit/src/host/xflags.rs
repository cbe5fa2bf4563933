//! Flags of an inode, by `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{self, opcode};

use super::{HostTarget, Referent, proc_path};
use crate::operation::{Object, Outcome, xflag};
use crate::target::Reply;

/// `struct fsxattr` of `linux/fs.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct FsXattr {
    xflags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

const _: () = assert!(size_of::<FsXattr>() == 28);

const GET: ioctl::Opcode = opcode::read::<FsXattr>(b'X', 31);
const SET: ioctl::Opcode = opcode::write::<FsXattr>(b'X', 32);

fn get(file: BorrowedFd<'_>) -> rustix::io::Result<FsXattr> {
    // SAFETY: the kernel fills in a `struct fsxattr`, which `FsXattr` is; any bytes are a valid one.
    unsafe { ioctl::ioctl(file, ioctl::Getter::<GET, FsXattr>::new()) }
}

/// Sets the flags of [`xflag::ALL`] to `xflags` and leaves the others.
pub(super) fn set(file: BorrowedFd<'_>, xflags: u32) -> rustix::io::Result<()> {
    let mut all = get(file)?;
    all.xflags = (all.xflags & !xflag::ALL) | (xflags & xflag::ALL);
    // SAFETY: the kernel reads a `struct fsxattr`, which `FsXattr` is.
    unsafe { ioctl::ioctl(file, ioctl::Setter::<SET, FsXattr>::new(all)) }
}

impl HostTarget {
    /// The file, opened as far as an ioctl needs it.
    ///
    /// Most of what is neither file nor directory cannot be opened, and kernels do not agree about flags of FIFOs:
    /// the answer for all of these is ENOTTY, as of a FUSE mount.
    fn opened(&self, object: &Object) -> Result<Flagged<'_>, Errno> {
        match self.referent(object)? {
            Referent::Open(file) => Ok(Flagged::Borrowed(file)),
            Referent::Path(path) => match FileType::from_raw_mode(fs::fstat(&path)?.st_mode) {
                FileType::RegularFile | FileType::Directory => {
                    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    Ok(Flagged::Owned(fs::open(proc_path(path.as_fd()), flags, Mode::empty())?))
                }
                _ => Err(Errno::NOTTY),
            },
        }
    }

    pub(super) fn get_xflags(&self, object: &Object) -> Reply {
        Ok(Outcome::Xflags(get(self.opened(object)?.as_fd())?.xflags & xflag::ALL))
    }

    pub(super) fn set_xflags(&self, object: &Object, xflags: u32) -> Reply {
        set(self.opened(object)?.as_fd(), xflags)?;
        Ok(Outcome::Done)
    }
}

enum Flagged<'a> {
    Borrowed(BorrowedFd<'a>),
    Owned(OwnedFd),
}

impl AsFd for Flagged<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed(file) => *file,
            Self::Owned(file) => file.as_fd(),
        }
    }
}
