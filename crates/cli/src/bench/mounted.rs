//! The rows of system calls on a mount.
//!
//! Both servers, ours and the one that does nothing, run in threads of this process, on one processor. Reads are made
//! with `O_DIRECT`, so that each is one request: the page cache would answer them without asking the server.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use lodefs_core::DaxPolicy;
use lodefs_fuse::MountOptions;

use super::affinity::Pinned;
use super::arena::Arena;
use super::compare::Trial;
use super::embedded::make_volume;
use super::figure::{Compared, Figure};
use super::plan::Effort;
use super::targets::{Host, Reads};

/// A served mount. Dropped, it is unmounted.
pub(crate) struct Mounted {
    target: PathBuf,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl Mounted {
    pub(crate) fn new(
        target: PathBuf,
        serve: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let server =
            thread::Builder::new().name("server".into()).spawn(serve).context("no thread for a server")?;
        Ok(Self { target, server: Some(server) })
    }

    /// Where it is.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = lodefs_fuse::unmount(&self.target, true);
        if let Some(server) = self.server.take().filter(|_| unmounted.is_ok()) {
            // It has nothing to say that matters now.
            let _ = server.join();
        }
    }
}

/// A mounted volume and a mount of nothing.
pub(crate) struct Mounts<'a> {
    arena: &'a Arena,
    ours: Mounted,
    nothing: Mounted,
}

impl<'a> Mounts<'a> {
    pub(crate) fn new(arena: &'a Arena, effort: &Effort) -> anyhow::Result<Self> {
        // The threads of the servers too.
        let _pinned = Pinned::new()?;
        let nothing = make_target(arena.root(), "nothing")?;
        let session = lodefs_fuse::mount_null(&nothing, &MountOptions::new("nothing"))?;
        let nothing = Mounted::new(nothing, || session.serve())?;
        let volume = arena.root().join("mounted.vol");
        let fs = make_volume(&volume, effort.volume_size, DaxPolicy::Inode)?;
        let ours = make_target(arena.root(), "mounted")?;
        let session = lodefs_fuse::mount(fs, &ours, &MountOptions::new(volume))?;
        let ours = Mounted::new(ours, || session.serve())?;
        Ok(Self { arena, ours, nothing })
    }

    /// Measures one row: against its yardstick, and against what else the user wants.
    pub(crate) fn measure(&self, trial: &Trial<'_>, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
        let _pinned = Pinned::new()?;
        let name = trial.row.to_string();
        let nothing = Host::new(&self.nothing.target, &name, Reads::Direct)?;
        let yardstick = "FUSE server that does nothing".to_owned();
        figures.push(self.against(nothing, &name, yardstick, true, trial)?);
        for (label, directory) in self.arena.against() {
            let host = Host::new(directory, &format!("mount-{name}"), Reads::Cached)?;
            let own_name = format!("{name} {label}").replace('/', "|");
            figures.push(self.against(host, &own_name, format!("{label}, not durable"), false, trial)?);
        }
        Ok(())
    }

    fn against(
        &self,
        host: Host,
        own_name: &str,
        yardstick: String,
        is_judged: bool,
        trial: &Trial<'_>,
    ) -> anyhow::Result<Figure> {
        let (theirs, ours) = trial.files(host, Host::new(&self.ours.target, own_name, Reads::Direct)?)?;
        Ok(Figure::new(Compared { row: trial.row, way: trial.way, yardstick, is_judged }, theirs, ours))
    }
}

/// Makes the directory to mount on.
pub(crate) fn make_target(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let target = root.join(name);
    std::fs::create_dir(&target).with_context(|| target.display().to_string())?;
    Ok(target)
}
