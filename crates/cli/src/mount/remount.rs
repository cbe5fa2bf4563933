//! `-o remount`: changes the flags of a mount.
//!
//! Flags are the kernel's business; the server is not told. What it has been given, it keeps: its own options cannot
//! be changed, and a volume that it has opened read-only cannot become writable.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lodefs_fuse::mountinfo::Mount;
use lodefs_fuse::{MountError, remount};
use rustix::mount::MountFlags;

use super::options::Options;
use crate::report::{self, MountReport};
use crate::text::shown;
use crate::umount::{lodefs_mount_at, resolve};

/// How long a mount may be in use before it really is.
const BUSY_TIME_MAX: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Changes the flags of the mount at `directory` to what it has, with what `options` asks for.
pub(crate) fn run(directory: &Path, options: &Options) -> anyhow::Result<()> {
    let mount = lodefs_mount_at(&resolve(directory)?)?;
    let name = shown(directory);
    let server = report::of_mount(&mount.target)
        .ok()
        .and_then(|report| report.mount)
        .with_context(|| format!("{name}: the server does not answer"))?;
    if let Some(option) = changed_option(options, &server) {
        bail!("{name}: {option} cannot be changed by a remount; unmount it, and mount it again");
    }
    let flags = (flags_of(&mount)? - options.cleared) | options.set;
    if flags.contains(MountFlags::RDONLY) {
        make_durable(&mount.target)?;
    } else if server.read_only {
        bail!("{name}: was mounted read-only; to change it, unmount it and mount it again");
    }
    Ok(remount_patiently(&mount.target, flags)?)
}

/// Changes the flags, and tries again for a while if the mount is in use.
///
/// The kernel tells the server of a closed file after close(2) has returned. Until that is answered, a file without
/// a name counts as being written.
fn remount_patiently(target: &Path, flags: MountFlags) -> Result<(), MountError> {
    let start = Instant::now();
    loop {
        match remount(target, flags) {
            Err(MountError::Busy(_)) if start.elapsed() < BUSY_TIME_MAX => thread::sleep(RETRY_INTERVAL),
            outcome => return outcome,
        }
    }
}

/// An option of the server that is asked for and is not what it has. (mount(8) repeats all that stand in fstab.)
fn changed_option(options: &Options, server: &MountReport) -> Option<&'static str> {
    let default = Options::default();
    let differs = |wanted: &dyn ToString, usual: &dyn ToString, is: &str| {
        let wanted = wanted.to_string();
        wanted != usual.to_string() && wanted != is
    };
    [
        ("dax", differs(&options.dax, &default.dax, &server.dax)),
        ("writeback", options.writeback && !server.writeback),
        ("attach", differs(&options.attach, &default.attach, &server.attach)),
        ("noatime or atime", changes_flag(options, MountFlags::NOATIME, server.atime == "noatime")),
        ("nodiratime or diratime", changes_flag(options, MountFlags::NODIRATIME, server.atime != "relatime")),
        ("commit", options.commit != default.commit && options.commit.as_secs() != server.commit_s),
    ]
    .into_iter()
    .find_map(|(name, changed)| changed.then_some(name))
}

/// Whether a flag that the server follows is asked for and is not what the server has. (The server moves access times, and
/// is not told of a remount.)
fn changes_flag(options: &Options, flag: MountFlags, has: bool) -> bool {
    options.set.contains(flag) && !has || options.cleared.contains(flag) && has
}

/// The flags that a mount has now.
fn flags_of(mount: &Mount) -> anyhow::Result<MountFlags> {
    // Source and user are the kernel's, and no flags.
    let mut flags = Options::parse([mount.options.as_str()], true)?.set;
    flags.set(MountFlags::RDONLY, mount.is_read_only());
    Ok(flags)
}

/// The kernel writes back what it holds when a mount becomes read-only, but tells the server nothing.
fn make_durable(target: &Path) -> anyhow::Result<()> {
    File::open(target)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("{}: cannot be made durable", shown(target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_a_change() {
        let server = MountReport {
            pid: 1,
            source: "v".into(),
            directory: "/m".into(),
            read_only: false,
            writeback: false,
            dax: "never".into(),
            attach: "owner".into(),
            commit_s: 5,
            atime: "relatime".into(),
            fault: None,
        };
        let changed = |list| changed_option(&Options::parse([list], false).unwrap(), &server);
        assert_eq!(changed("remount,ro,dax=never,commit=5"), None);
        assert_eq!(changed("remount,ro"), None);
        assert_eq!(changed("remount,dax=always"), Some("dax"));
        assert_eq!(changed("remount,writeback"), Some("writeback"));
        assert_eq!(changed("remount,commit=9"), Some("commit"));
        assert_eq!(changed("remount,noatime"), Some("noatime or atime"));
        assert_eq!(changed("remount,atime,relatime"), None);
    }

    #[test]
    fn flags_are_read_from_the_mount_table() {
        let mount = Mount {
            device: (0, 1),
            target: "/m".into(),
            options: "rw,nosuid,nodev,relatime".into(),
            kind: lodefs_fuse::FILE_SYSTEM_TYPE.into(),
            source: "v".into(),
            super_options: "ro,user_id=0".into(),
        };
        let flags = flags_of(&mount).unwrap();
        let expected = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RELATIME | MountFlags::RDONLY;
        assert_eq!(flags, expected);
    }
}
