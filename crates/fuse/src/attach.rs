//! How the file system gets into the tree of names, and out of it.
//!
//! Root asks the kernel itself; everybody else asks the set-user-id program `fusermount3`, which does it for them
//! within limits (`nosuid`, `nodev`, own directories). Both ways end in a descriptor of `/dev/fuse` that is connected
//! to the new mount.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{getegid, geteuid};

use crate::fusermount;
use crate::options::{Allow, MountOptions};

const DEVICE: &str = "/dev/fuse";

/// The part of the type behind `fuse.`.
pub(crate) const SUBTYPE: &str = "lodefs";

/// Why something could not be mounted or unmounted. Each message names the object, the fault and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// There is no directory to mount on.
    #[error("{}: there is no such directory to mount on; create it first", .0.display())]
    TargetMissing(PathBuf),
    /// What there is, is no directory.
    #[error("{}: not a directory; a volume is mounted on a directory", .0.display())]
    TargetIsNoDirectory(PathBuf),
    /// The directory cannot be reached.
    #[error("{}: cannot be reached: {source}; choose another directory", target.display())]
    TargetUnreachable {
        /// The directory.
        target: PathBuf,
        /// What the host answered.
        source: io::Error,
    },
    /// A mount whose server is gone lies on it.
    #[error("{}: a mount whose server has died is still there; remove it with `lodefs umount`", .0.display())]
    TargetDead(PathBuf),
    /// The kernel has no FUSE, or this container does not see it.
    #[error(
        "{DEVICE}: not there; load the module with `modprobe fuse`, or let the container have the device"
    )]
    DeviceMissing,
    /// The device may not be opened.
    #[error("{DEVICE}: {0}; run as root, or let users (or the container) open the device")]
    Device(io::Error),
    /// This process may not mount.
    #[error("{}: not permitted to mount; this needs CAP_SYS_ADMIN (or, for ordinary users, fusermount3)", .0.display())]
    Permission(PathBuf),
    /// It was mounted by another user.
    #[error("{}: mounted by another user; unmount it as that user, or as root", .0.display())]
    NotYours(PathBuf),
    /// The kernel refused for another reason.
    #[error("{}: the kernel refused to mount: {source}; see its log (dmesg)", target.display())]
    Refused {
        /// The directory.
        target: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program by which ordinary users mount is missing.
    #[error("fusermount3: not found; install the package fuse3, or run as root")]
    NoFusermount,
    /// That program could not be run, or did not answer as it should.
    #[error("fusermount3: {0}; check its installation (package fuse3), or run as root")]
    FusermountBroken(io::Error),
    /// That program refused.
    #[error("{}: {message}", target.display())]
    Fusermount {
        /// The directory.
        target: PathBuf,
        /// What it said.
        message: String,
    },
    /// Kernel and server do not speak the same language.
    #[error("the kernel and the server did not come to terms: {0}; this needs Linux 5.11 or later")]
    Handshake(io::Error),
    /// The server cannot have another thread.
    #[error("cannot start a thread of the server: {0}; raise the limit of processes (ulimit -u)")]
    Thread(io::Error),
    /// The volume has no usable root directory.
    #[error(transparent)]
    Root(lodefs_core::Error),
    /// Nothing is mounted there.
    #[error("{}: nothing is mounted there; see `findmnt -t {type}`", .0.display(), type = crate::FILE_SYSTEM_TYPE)]
    NotMounted(PathBuf),
    /// Somebody uses it.
    #[error("{}: in use; leave it and close its files, or unmount it lazily", .0.display())]
    Busy(PathBuf),
    /// The kernel refused to unmount or remount for another reason.
    #[error("{}: {source}", target.display())]
    Unmount {
        /// The directory.
        target: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The absolute path of a directory, if a volume can be mounted on it.
pub fn resolve_target(target: &Path) -> Result<PathBuf, MountError> {
    let fault = |source: io::Error| match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => MountError::TargetMissing(target.into()),
        Some(Errno::NOTDIR) => MountError::TargetIsNoDirectory(target.into()),
        Some(Errno::NOTCONN) => MountError::TargetDead(target.into()),
        _ => MountError::TargetUnreachable { target: target.into(), source },
    };
    let resolved = target.canonicalize().map_err(fault)?;
    if !resolved.metadata().map_err(fault)?.is_dir() {
        return Err(MountError::TargetIsNoDirectory(target.into()));
    }
    // The kernel remembers attributes of a mount whose server is gone, but has to ask for these.
    match rustix::fs::statvfs(&resolved) {
        Err(Errno::NOTCONN) => Err(MountError::TargetDead(target.into())),
        _ => Ok(resolved),
    }
}

/// Mounts on a directory that [`resolve_target`] has found; the kernel's first message waits at the descriptor.
pub(crate) fn attach(target: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if geteuid().is_root() { attach_directly(target, options) } else { fusermount::attach(target, options) }
}

fn attach_directly(target: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device =
        OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => MountError::DeviceMissing,
            _ => MountError::Device(error),
        })?;
    let allow = if options.allow == Allow::Owner { "" } else { ",allow_other" };
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{allow},subtype={SUBTYPE}",
        device.as_raw_fd(),
        geteuid().as_raw(),
        getegid().as_raw(),
    );
    // A number, a word and a comma hold no zero byte.
    let data = CString::new(data).unwrap_or_default();
    rustix::mount::mount(&options.source, target, "fuse", options.flags, data.as_c_str()).map_err(
        |errno| match errno {
            Errno::PERM | Errno::ACCESS => MountError::Permission(target.into()),
            Errno::NODEV => MountError::DeviceMissing,
            errno => MountError::Refused { target: target.into(), source: errno.into() },
        },
    )?;
    Ok(device.into())
}

/// Changes the flags of a mount. Options that only the server understands cannot be changed.
pub fn remount(target: &Path, flags: MountFlags) -> Result<(), MountError> {
    rustix::mount::mount_remount(target, flags, "").map_err(|errno| unmount_error(target, errno))
}

/// Takes a mount out of the tree of names. With `lazy` at once, although somebody still uses it: who has it open
/// keeps it alive.
pub fn unmount(target: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(target, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) if !geteuid().is_root() => fusermount::detach(target, lazy),
        Err(errno) => Err(unmount_error(target, errno)),
    }
}

fn unmount_error(target: &Path, errno: Errno) -> MountError {
    match errno {
        Errno::INVAL | Errno::NOENT => MountError::NotMounted(target.into()),
        Errno::BUSY => MountError::Busy(target.into()),
        Errno::PERM | Errno::ACCESS => MountError::Permission(target.into()),
        errno => MountError::Unmount { target: target.into(), source: errno.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_must_be_a_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert!(matches!(resolve_target(&file), Err(MountError::TargetIsNoDirectory(_))));
        assert!(matches!(resolve_target(&file.join("x")), Err(MountError::TargetIsNoDirectory(_))));
        assert!(matches!(resolve_target(&scratch.path().join("none")), Err(MountError::TargetMissing(_))));
        assert_eq!(
            resolve_target(&scratch.path().join(".")).unwrap(),
            scratch.path().canonicalize().unwrap()
        );
    }

    #[test]
    fn unmounting_what_is_not_mounted_says_so() {
        let scratch = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            assert!(matches!(unmount(scratch.path(), false), Err(MountError::NotMounted(_))));
        }
    }
}
