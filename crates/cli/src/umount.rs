//! `lodefs umount`: unmounts, and waits until the server has closed the volume.
//!
//! umount(8) returns when the mount has left the tree of names; the server may still be writing what makes the
//! volume clean. Here the end of that is waited for, so that the volume can be copied or mounted again at once.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use lodefs_fuse::mountinfo::{Mount, mount_at};
use lodefs_fuse::{MountError, unmount};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::arguments::UmountArguments;
use crate::holder;
use crate::report::{self, Report};
use crate::text::shown;

/// How often the volume's lock is looked at while the server is waited for.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long a mount that is in use may still become free: programs that only look at it, like df(1), are quick.
const PATIENCE: Duration = Duration::from_millis(500);

/// Processes that a message names; more would be no help.
const HOLDERS_NAMED: usize = 5;

/// Unmounts.
pub(crate) fn run(arguments: &UmountArguments) -> anyhow::Result<()> {
    let target = resolve(&arguments.directory)?;
    let mount = lodefs_mount_at(&target)?;
    // A dead server does not answer, and needs no waiting for.
    let report = report::of_mount(&mount.target).ok();
    unmount_patiently(&mount.target, arguments.lazy).map_err(|error| name_holders(&mount.target, error))?;
    match report {
        Some(report) if !arguments.lazy => wait_until_closed(&report),
        _ => Ok(()),
    }
}

fn unmount_patiently(target: &Path, lazy: bool) -> Result<(), MountError> {
    let start = Instant::now();
    loop {
        match unmount(target, lazy) {
            Err(MountError::Busy(_)) if start.elapsed() < PATIENCE => std::thread::sleep(INTERVAL),
            done => return done,
        }
    }
}

/// The mount at `target`, which must be one of lodefs.
pub(crate) fn lodefs_mount_at(target: &Path) -> anyhow::Result<Mount> {
    match mount_at(target)? {
        None => Err(MountError::NotMounted(target.into()).into()),
        Some(mount) if mount.is_lodefs() => Ok(mount),
        Some(mount) => {
            bail!("{}: a mount of type {}, not of lodefs; use umount(8)", shown(target), mount.kind)
        }
    }
}

/// The absolute path of a mount point, whose server may be dead or may not let this user in.
pub(crate) fn resolve(directory: &Path) -> anyhow::Result<PathBuf> {
    let fault = |error: io::Error| anyhow!("{}: {error}; check the path", shown(directory));
    match directory.canonicalize() {
        Ok(resolved) => Ok(resolved),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(fault(error)),
        Err(error) => {
            let name = directory.file_name().ok_or_else(|| fault(error))?;
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(parent.unwrap_or(Path::new(".")).canonicalize().map_err(fault)?.join(name))
        }
    }
}

fn name_holders(target: &Path, error: MountError) -> anyhow::Error {
    let mut holders = holder::of_mount(target);
    if !matches!(error, MountError::Busy(_)) || holders.is_empty() {
        return error.into();
    }
    if holders.len() > HOLDERS_NAMED {
        let more = holders.split_off(HOLDERS_NAMED).len();
        holders.push(format!("{more} more"));
    }
    anyhow!("{}: in use by {}; end them, or unmount with --lazy", shown(target), holders.join(", "))
}

/// Returns when the server's process is gone or the volume is no longer locked, whichever is seen first: the process
/// may be in another pid namespace, and the volume may be taken by somebody else.
fn wait_until_closed(report: &Report) -> anyhow::Result<()> {
    let pid = report.mount.as_ref().and_then(|mount| Pid::from_raw(mount.pid.cast_signed()));
    let Some(server) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return Ok(()) };
    let volume = std::fs::File::open(&report.volume).ok();
    let interval = Timespec::try_from(INTERVAL)?;
    loop {
        let mut exit = [PollFd::new(&server, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut exit, Some(&interval)))? > 0 {
            return Ok(());
        }
        if volume.as_ref().is_some_and(|file| flock(file, FlockOperation::NonBlockingLockShared).is_ok()) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_resolved_as_far_as_it_can_be() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().canonicalize().unwrap();
        assert_eq!(resolve(&base.join("./.")).unwrap(), base);
        assert!(resolve(&base.join("none")).is_err());
    }

    #[test]
    fn other_file_systems_are_left_alone() {
        let error = lodefs_mount_at(Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("not of lodefs"), "{error}");
    }
}
