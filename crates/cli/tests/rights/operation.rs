//! What somebody does with the files of a fixture.

use std::ffi::CString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use super::person::{GROUP, OWNER, STRANGER};

/// How a file is reached for a change of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Opened by whoever changes it.
    Opening,
    /// By a descriptor that root has opened.
    Descriptor,
}

/// One call, or an open and one call. `f` is the file, `g` another one, `d` their directory, `sub` an empty directory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Open(i32),
    Create(u32),
    Write(By),
    Append(By),
    DirectWrite(By),
    Truncate(i64),
    Ftruncate(By, i64),
    Fallocate(By, i32),
    CopyRange(By),
    Chmod(u32),
    ChmodDirectory(u32),
    Chown(u32, u32),
    ChownDirectory(u32, u32),
    TouchNow,
    TouchSet,
    TouchNothing,
    SetAttribute(Attribute),
    RemoveAttribute(Attribute),
    Link,
    LinkOther,
    Rename,
    RenameOver,
    Exchange,
    RenameDirectory,
    Unlink,
    Rmdir,
    Mkdir(u32),
    Mknod(u32),
    Symlink,
    SetFlags(u32),
    SetExtended(u32),
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    User,
    Trusted,
    Security,
    Capability,
    Acl,
    AclOfMode,
    DefaultAcl,
}

/// A group or user that stays.
const SAME: u32 = u32::MAX;

const FLAG_SYNC: u32 = 0x08;
const FLAG_IMMUTABLE: u32 = 0x10;
const FLAG_APPEND: u32 = 0x20;
const FLAG_NODUMP: u32 = 0x40;
const FLAG_NOATIME: u32 = 0x80;
const XFLAG_IMMUTABLE: u32 = 0x08;
const XFLAG_NODUMP: u32 = 0x80;
const XFLAG_DAX: u32 = 0x8000;

/// All operations of the table.
pub(crate) fn all() -> Vec<Operation> {
    use Attribute::{Acl, AclOfMode, Capability, DefaultAcl, Security, Trusted, User};
    use By::{Descriptor, Opening};
    use Operation as O;
    let mut all = vec![
        O::Read,
        O::Link,
        O::LinkOther,
        O::Rename,
        O::RenameOver,
        O::Exchange,
        O::RenameDirectory,
        O::Unlink,
        O::Rmdir,
        O::Symlink,
        O::TouchNow,
        O::TouchSet,
        O::TouchNothing,
    ];
    all.extend([0, 5000, 9000].map(O::Truncate));
    for flags in [
        libc::O_RDONLY,
        libc::O_WRONLY,
        libc::O_RDWR,
        libc::O_WRONLY | libc::O_APPEND,
        libc::O_WRONLY | libc::O_TRUNC,
        libc::O_RDONLY | libc::O_TRUNC,
        libc::O_RDONLY | libc::O_NOATIME,
        libc::O_RDWR | libc::O_CREAT,
        libc::O_PATH,
    ] {
        all.push(O::Open(flags));
    }
    for by in [Opening, Descriptor] {
        all.extend([O::Write(by), O::Append(by), O::DirectWrite(by), O::CopyRange(by)]);
        all.extend([0, 4999, 5000, 9000].map(|size| O::Ftruncate(by, size)));
        all.extend([0, 1, 3, 16, 17].map(|mode| O::Fallocate(by, mode)));
    }
    all.extend([0o644, 0o2755, 0o6777, 0o2600].map(O::Create));
    all.extend([0o755, 0o2770, 0o6777, 0o1777].map(O::Mkdir));
    all.extend([libc::S_IFIFO | 0o644, libc::S_IFREG | 0o2755, libc::S_IFSOCK | 0o600].map(O::Mknod));
    all.push(O::Mknod(libc::S_IFCHR | 0o600));
    all.extend([0, 0o600, 0o644, 0o755, 0o1755, 0o2644, 0o2755, 0o4755, 0o6777].map(O::Chmod));
    all.extend([0o700, 0o1777, 0o2777].map(O::ChmodDirectory));
    for (uid, gid) in [
        (SAME, SAME),
        (OWNER, SAME),
        (SAME, GROUP),
        (OWNER, GROUP),
        (SAME, 7),
        (SAME, 1001),
        (STRANGER, SAME),
        (0, 0),
    ] {
        all.push(O::Chown(uid, gid));
    }
    all.extend([O::ChownDirectory(SAME, 7), O::ChownDirectory(SAME, SAME)]);
    for attribute in [User, Trusted, Security, Capability, Acl, AclOfMode, DefaultAcl] {
        all.extend([O::SetAttribute(attribute), O::RemoveAttribute(attribute)]);
    }
    all.extend([0, FLAG_IMMUTABLE, FLAG_APPEND, FLAG_NODUMP, FLAG_NOATIME | FLAG_SYNC].map(O::SetFlags));
    all.extend([0, XFLAG_DAX, XFLAG_NODUMP | XFLAG_DAX, XFLAG_IMMUTABLE].map(O::SetExtended));
    all
}

impl Attribute {
    fn name(self) -> &'static str {
        match self {
            Self::User => "user.x",
            Self::Trusted => "trusted.x",
            Self::Security => "security.x",
            Self::Capability => "security.capability",
            Self::Acl | Self::AclOfMode => "system.posix_acl_access",
            Self::DefaultAcl => "system.posix_acl_default",
        }
    }

    fn value(self) -> Vec<u8> {
        match self {
            Self::User | Self::Trusted | Self::Security => b"value".to_vec(),
            // Revision 2, effective: CAP_NET_RAW is permitted.
            Self::Capability => [0x0200_0001_u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat(),
            Self::Acl | Self::DefaultAcl => {
                acl(&[(1, 6, SAME), (2, 6, STRANGER), (4, 4, SAME), (16, 6, SAME), (32, 4, SAME)])
            }
            Self::AclOfMode => acl(&[(1, 7, SAME), (4, 5, SAME), (32, 5, SAME)]),
        }
    }
}

/// An ACL as system calls have it: version 2, then tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

pub(crate) fn c_path(directory: &Path, name: &str) -> CString {
    CString::new(directory.join(name).as_os_str().as_bytes()).expect("no zero byte")
}

/// The error of a call that failed.
fn outcome(result: i64) -> Result<i64, i32> {
    if result < 0 {
        Err(std::io::Error::last_os_error().raw_os_error().expect("an errno"))
    } else {
        Ok(result)
    }
}

/// Opens `f` for a change and closes it, or uses the descriptor.
fn with_file(
    directory: &Path,
    by: By,
    given: RawFd,
    flags: i32,
    change: impl FnOnce(RawFd) -> i64,
) -> Result<i64, i32> {
    if by == By::Descriptor {
        return outcome(change(given));
    }
    let path = c_path(directory, "f");
    // SAFETY: the path is a string that lives.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
    outcome(fd.into())?;
    let changed = outcome(change(fd));
    // SAFETY: the descriptor was opened above.
    unsafe { libc::close(fd) };
    changed
}

#[repr(align(4096))]
struct Page([u8; 4096]);

impl Operation {
    /// Does it in a directory. `given`: descriptors of `f` (with the flags that the operation needs) and `g`.
    pub(crate) fn perform(self, directory: &Path, given: [RawFd; 2]) -> Result<i64, i32> {
        match self {
            Self::Open(_) | Self::Create(_) | Self::Mkdir(_) | Self::Mknod(_) | Self::Symlink => {
                self.make(directory)
            }
            Self::Read
            | Self::Write(_)
            | Self::Append(_)
            | Self::DirectWrite(_)
            | Self::Ftruncate(..)
            | Self::Fallocate(..)
            | Self::CopyRange(_)
            | Self::SetFlags(_)
            | Self::SetExtended(_) => self.change_content(directory, given),
            Self::Link
            | Self::LinkOther
            | Self::Rename
            | Self::RenameOver
            | Self::Exchange
            | Self::RenameDirectory
            | Self::Unlink
            | Self::Rmdir => self.change_names(directory),
            _ => self.change_attributes(directory),
        }
    }

    fn make(self, directory: &Path) -> Result<i64, i32> {
        let (file, new) = (c_path(directory, "f"), c_path(directory, "new"));
        let open = |path: &CString, flags: i32, mode: u32| {
            // SAFETY: the path is a string that lives.
            let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, mode) };
            outcome(fd.into())?;
            // SAFETY: the descriptor was opened above.
            unsafe { libc::close(fd) };
            Ok(0)
        };
        let new_pointer = new.as_ptr();
        match self {
            Self::Open(flags) => open(&file, flags, 0o600),
            Self::Create(mode) => open(&new, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, mode),
            // SAFETY: the path is a string that lives.
            Self::Mkdir(mode) => outcome(unsafe { libc::mkdir(new_pointer, mode) }.into()),
            Self::Mknod(mode) => {
                // SAFETY: the path is a string that lives.
                let result = unsafe { libc::mknod(new_pointer, mode, libc::makedev(1, 3)) };
                outcome(result.into())
            }
            // SAFETY: the paths are strings that live.
            _ => outcome(unsafe { libc::symlink(c"f".as_ptr(), new_pointer) }.into()),
        }
    }

    fn change_content(self, directory: &Path, given: [RawFd; 2]) -> Result<i64, i32> {
        let [f, g] = given;
        let (write, read) = (libc::O_WRONLY, libc::O_RDONLY);
        match self {
            Self::Write(by) => with_file(directory, by, f, write, |fd| {
                // SAFETY: the buffer has a byte.
                unsafe { libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0) as i64 }
            }),
            Self::Append(by) => with_file(directory, by, f, write | libc::O_APPEND, |fd| {
                // SAFETY: the buffer has a byte.
                unsafe { libc::write(fd, b"x".as_ptr().cast(), 1) as i64 }
            }),
            Self::DirectWrite(by) => with_file(directory, by, f, write | libc::O_DIRECT, |fd| {
                let page = Box::new(Page([b'd'; 4096]));
                // SAFETY: the buffer has 4096 bytes.
                unsafe { libc::pwrite(fd, page.0.as_ptr().cast(), 4096, 0) as i64 }
            }),
            Self::Ftruncate(by, size) => with_file(directory, by, f, write, |fd| {
                // SAFETY: no memory is passed.
                unsafe { libc::ftruncate(fd, size).into() }
            }),
            Self::Fallocate(by, mode) => with_file(directory, by, f, write, |fd| {
                // SAFETY: no memory is passed.
                unsafe { libc::fallocate(fd, mode, 1000, 6000).into() }
            }),
            Self::CopyRange(by) => with_file(directory, by, f, write, |fd| {
                let (mut from, mut to) = (0, 0);
                // SAFETY: the offsets live.
                unsafe { libc::copy_file_range(g, &raw mut from, fd, &raw mut to, 100, 0) as i64 }
            }),
            Self::SetFlags(flags) => with_file(directory, By::Opening, f, read, |fd| {
                let flags = u64::from(flags);
                // SAFETY: the kernel reads a word, which lives.
                unsafe { libc::ioctl(fd, 0x4008_6602, &raw const flags).into() }
            }),
            Self::SetExtended(flags) => {
                with_file(directory, By::Opening, f, read, |fd| set_extended(fd, flags))
            }
            _ => with_file(directory, By::Opening, f, read, |fd| {
                let mut byte = [0; 1];
                // SAFETY: the buffer has room for a byte.
                unsafe { libc::read(fd, byte.as_mut_ptr().cast(), 1) as i64 }
            }),
        }
    }

    fn change_names(self, directory: &Path) -> Result<i64, i32> {
        let path = |name| c_path(directory, name);
        let (f, g, new) = (path("f"), path("g"), path("new"));
        let (sub, inner) = (path("sub"), path("sub/new"));
        let cwd = libc::AT_FDCWD;
        // SAFETY: the paths are strings that live.
        let result = unsafe {
            match self {
                Self::Link => libc::link(f.as_ptr(), new.as_ptr()),
                Self::LinkOther => libc::link(g.as_ptr(), inner.as_ptr()),
                Self::Rename => libc::rename(f.as_ptr(), inner.as_ptr()),
                Self::RenameOver => libc::rename(g.as_ptr(), f.as_ptr()),
                Self::Exchange => libc::renameat2(cwd, f.as_ptr(), cwd, g.as_ptr(), libc::RENAME_EXCHANGE),
                Self::RenameDirectory => libc::rename(sub.as_ptr(), new.as_ptr()),
                Self::Unlink => libc::unlink(f.as_ptr()),
                _ => libc::rmdir(sub.as_ptr()),
            }
        };
        outcome(result.into())
    }

    fn change_attributes(self, directory: &Path) -> Result<i64, i32> {
        let (file, at) = (c_path(directory, "f"), c_path(directory, "."));
        let ns = if matches!(self, Self::TouchSet) { 5 } else { libc::UTIME_OMIT };
        let times = [libc::timespec { tv_sec: 12345, tv_nsec: ns }; 2];
        // SAFETY: the paths are strings, the times an array of two, and all of them live.
        let result = unsafe {
            match self {
                Self::Truncate(size) => libc::truncate(file.as_ptr(), size),
                Self::Chmod(mode) => libc::chmod(file.as_ptr(), mode),
                Self::ChmodDirectory(mode) => libc::chmod(at.as_ptr(), mode),
                Self::Chown(uid, gid) => libc::lchown(file.as_ptr(), uid, gid),
                Self::ChownDirectory(uid, gid) => libc::chown(at.as_ptr(), uid, gid),
                Self::TouchNow => libc::utimensat(libc::AT_FDCWD, file.as_ptr(), ptr::null(), 0),
                Self::SetAttribute(attribute) => set_attribute(attribute, &file, &at),
                Self::RemoveAttribute(attribute) => {
                    let target = if attribute == Attribute::DefaultAcl { &at } else { &file };
                    let name = CString::new(attribute.name()).expect("a name");
                    libc::lremovexattr(target.as_ptr(), name.as_ptr())
                }
                _ => libc::utimensat(libc::AT_FDCWD, file.as_ptr(), times.as_ptr(), 0),
            }
        };
        outcome(result.into())
    }

    /// The flags by which root opens `f` for it.
    pub(crate) fn flags_of_descriptor(self) -> i32 {
        match self {
            Self::Append(_) => libc::O_RDWR | libc::O_APPEND,
            Self::DirectWrite(_) => libc::O_RDWR | libc::O_DIRECT,
            _ => libc::O_RDWR,
        }
    }

    /// Whether it uses a descriptor that root has opened.
    pub(crate) fn needs_descriptor(self) -> bool {
        matches!(
            self,
            Self::Write(By::Descriptor)
                | Self::Append(By::Descriptor)
                | Self::DirectWrite(By::Descriptor)
                | Self::Ftruncate(By::Descriptor, _)
                | Self::Fallocate(By::Descriptor, _)
                | Self::CopyRange(_)
        )
    }
}

fn set_attribute(attribute: Attribute, file: &CString, at: &CString) -> i32 {
    let target = if attribute == Attribute::DefaultAcl { at } else { file };
    let (name, value) = (CString::new(attribute.name()).expect("a name"), attribute.value());
    // SAFETY: the strings live, and the value has the size that is said.
    unsafe { libc::lsetxattr(target.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) }
}

/// `FS_IOC_FSSETXATTR` with these flags and nothing else.
pub(crate) fn set_extended(fd: RawFd, flags: u32) -> i64 {
    let wanted = [flags, 0, 0, 0, 0, 0, 0];
    // SAFETY: the kernel reads the 28 bytes of the structure.
    unsafe { libc::ioctl(fd, 0x401c_5820, wanted.as_ptr()).into() }
}
