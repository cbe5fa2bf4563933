//! Where is measured, and how nothing is left of it.
//!
//! Root gets a tmpfs with huge pages in a mount namespace of this process's own: nobody else sees what is mounted there,
//! and the kernel takes it all back when the process ends, whatever ends it. Only empty directories could be left then.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, bail};
use lodefs_fuse::mountinfo::mounts;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::geteuid;
use rustix::thread::UnshareFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::process::Running;

const PREFIX: &str = "lodefs-bench-";

/// A place for volumes and yardsticks. Dropped, it is removed.
pub(crate) struct Arena {
    root: PathBuf,
    description: String,
    /// A directory of our own in each that is to be compared with: its name in reports, and where it is.
    against: Vec<(String, PathBuf)>,
    running: Running,
}

impl Arena {
    /// Makes one: in `directory`, or else on a tmpfs of its own. It has a part in each of `against`.
    ///
    /// To be called while there are no other threads, which would stay in the namespace of before.
    pub(crate) fn set_up(directory: Option<&Path>, against: &[PathBuf]) -> anyhow::Result<Self> {
        let mut arena = match directory {
            Some(directory) => Self {
                root: own_directory(directory)?,
                description: format!("{} (as asked for)", directory.display()),
                against: Vec::new(),
                running: Running::default(),
            },
            None if geteuid().is_root() => Self::on_tmpfs()?,
            None => bail!(
                "a tmpfs with huge pages takes root; run as root, or name a directory with --dir (best on a tmpfs that \
                 is mounted with huge=always)"
            ),
        };
        for other in against {
            arena.against.push((other.display().to_string(), own_directory(other)?));
        }
        Ok(arena)
    }

    fn on_tmpfs() -> anyhow::Result<Self> {
        // SAFETY: what is unshared is the tree of mounts, and with it the working directory and the umask; open files,
        // on whose numbers Rust relies, stay as they are.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.context("no mount namespace")?;
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        rustix::mount::mount_change("/", private).context("the mount namespace cannot be made private")?;
        let root = own_directory(&std::env::temp_dir())?;
        let (description, against, running) = (String::new(), Vec::new(), Running::default());
        let mut arena = Self { root, description, against, running };
        let mount =
            |data| rustix::mount::mount("lodefs-bench", &arena.root, "tmpfs", MountFlags::empty(), data);
        let description = match mount(c"huge=always,mode=700") {
            Ok(()) => "a private tmpfs with huge pages",
            Err(Errno::INVAL) => {
                mount(c"mode=700").context("no tmpfs")?;
                "a private tmpfs, without huge pages, which this kernel does not have"
            }
            Err(errno) => return Err(errno).context("no tmpfs"),
        };
        description.clone_into(&mut arena.description);
        Ok(arena)
    }

    /// Whether it is on tmpfs.
    pub(crate) fn is_tmpfs(&self) -> bool {
        /// From `linux/magic.h`.
        const TMPFS_MAGIC: u64 = 0x0102_1994;
        rustix::fs::statfs(&self.root).is_ok_and(|host| host.f_type.cast_unsigned() == TMPFS_MAGIC)
    }

    /// Its directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What it is, for a person.
    pub(crate) fn description(&self) -> &str {
        &self.description
    }

    /// What is to be compared with beside the yardsticks: names, and directories for it.
    pub(crate) fn against(&self) -> &[(String, PathBuf)] {
        &self.against
    }

    /// The programs that use it.
    pub(crate) fn running(&self) -> &Running {
        &self.running
    }

    /// From now on signals end the programs that use it, remove it, and end the process.
    pub(crate) fn remove_on_signals(&self) -> anyhow::Result<()> {
        let (directories, running) = (self.directories(), self.running.clone());
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be received")?;
        let watch = move || {
            if let Some(signal) = signals.forever().next() {
                let _none_starts = running.kill_all();
                remove(&directories);
                std::process::exit(128 + signal);
            }
        };
        thread::Builder::new().name("signals".into()).spawn(watch).context("no thread for signals")?;
        Ok(())
    }

    fn directories(&self) -> Vec<PathBuf> {
        self.against.iter().map(|(_, directory)| directory).chain([&self.root]).cloned().collect()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        remove(&self.directories());
    }
}

fn own_directory(parent: &Path) -> anyhow::Result<PathBuf> {
    let made =
        parent.canonicalize().and_then(|parent| tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent));
    Ok(made.with_context(|| parent.display().to_string())?.keep())
}

/// Removes directories that were made here, and what is mounted on and below them.
fn remove(directories: &[PathBuf]) {
    for directory in directories {
        let below = |target: &Path| target.starts_with(directory);
        for mount in mounts().unwrap_or_default().iter().rev().filter(|mount| below(&mount.target)) {
            // What cannot be unmounted goes with the process.
            if rustix::mount::unmount(&mount.target, UnmountFlags::DETACH).is_err() {
                let _ = lodefs_fuse::unmount(&mount.target, true);
            }
        }
        let _ = fs::remove_dir_all(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_an_arena() {
        let (scratch, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let arena = Arena::set_up(Some(scratch.path()), &[other.path().to_path_buf()]).unwrap();
        fs::write(arena.root().join("file"), b"x").unwrap();
        fs::write(arena.against()[0].1.join("file"), b"x").unwrap();
        drop(arena);
        for directory in [scratch, other] {
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }
}
