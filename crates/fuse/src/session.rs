//! How a mount is served, and how it ends.
//!
//! A mount ends when the kernel says so: after it was unmounted, and the last file in it was closed. Whoever wants
//! to end it therefore unmounts ([`Unmounter`]) and lets [`Session::serve`] return by itself. Closing the engine is
//! the caller's, after that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fuser::{Config, INodeNo, Notifier, SessionACL};
use lodefs_core::{Fs, Ino, Node};

use crate::adapter::Adapter;
use crate::attach::{self, MountError};
use crate::handles::Handles;
use crate::mountinfo;
use crate::negotiate;
use crate::options::{Allow, MountOptions};
use crate::served::Served;
use crate::stale::StalePages;
use crate::table::NodeTable;

/// A mount that is ready to be served. Programs that touch it wait until it is.
pub struct Session {
    inner: fuser::Session<Adapter>,
    unmounter: Unmounter,
}

/// Mounts `fs` on the directory `target`.
pub fn mount(fs: Arc<Fs>, target: &Path, options: &MountOptions) -> Result<Session, MountError> {
    let target = attach::resolve_target(target)?;
    let nodes = Arc::new(NodeTable::new(fs.root().map_err(MountError::Root)?));
    let notifier = Arc::new(OnceLock::new());
    let stale =
        StalePages::start(Arc::clone(&notifier), options.threads.get(), negotiate::background_slots())
            .map_err(MountError::Thread)?;
    let device = attach::attach(&target, options)?;
    // From here on there is a mount to take back.
    let handles = Arc::new(Handles::new());
    let unmounter = Unmounter {
        device: device_of(&target),
        target,
        nodes: Arc::clone(&nodes),
        handles: Arc::clone(&handles),
    };
    let served = Served::new(
        fs,
        nodes,
        handles,
        options.report.clone(),
        options.broker.clone(),
        Arc::clone(&notifier),
    );
    let adapter = Adapter::new(served, stale, options.writeback);
    let acl = match options.allow {
        Allow::OwnerAndRoot => SessionACL::RootAndOwner,
        // That only the owner may use it, the kernel sees to.
        Allow::Owner | Allow::Everybody => SessionACL::All,
    };
    match fuser::Session::from_fd(adapter, device, acl, config(options)) {
        Ok(inner) => {
            let _ = notifier.set(inner.notifier());
            if let Some(broker) = &options.broker {
                // A broker is of one mount.
                let of_content = Arc::clone(&notifier);
                broker.watch_attributes(move |ino| expire_attributes(&notifier, ino));
                broker.watch_content(move |ino| forget_content(&of_content, ino));
            }
            Ok(Session { inner, unmounter })
        }
        Err(error) => {
            let _ = unmounter.unmount(true);
            Err(MountError::Handshake(error))
        }
    }
}

/// How the library serves a mount: each thread has a descriptor of its own to wait at.
pub(crate) fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.n_threads = Some(options.threads.get());
    config.clone_fd = true;
    config
}

/// Tells the kernel that the attributes of `ino` are not what it was told before (its data are).
pub(crate) fn expire_attributes(notifier: &OnceLock<Notifier>, ino: Ino) {
    if let Some(Err(error)) = notifier.get().map(|notifier| notifier.inval_inode(INodeNo(ino.0), -1, 0)) {
        // Most likely it has no such inode any more.
        tracing::debug!(ino = ino.0, %error, "could not tell the kernel of changed attributes");
    }
}

/// Has the kernel drop all pages that it keeps of a file; waits for those that are just being read.
fn forget_content(notifier: &OnceLock<Notifier>, ino: Ino) {
    if let Some(Err(error)) = notifier.get().map(|notifier| notifier.inval_inode(INodeNo(ino.0), 0, 0)) {
        // As above.
        tracing::debug!(ino = ino.0, %error, "could not have the kernel drop what it has cached");
    }
}

fn device_of(target: &Path) -> Option<(u32, u32)> {
    mountinfo::mount_at(target).ok()?.filter(mountinfo::Mount::is_lodefs).map(|mount| mount.device)
}

impl Session {
    /// Answers requests until the mount is gone.
    pub fn serve(self) -> io::Result<()> {
        self.inner.run()
    }

    /// What ends it, from any thread.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }
}

/// Takes a mount out of the tree of names, wherever it is now.
#[derive(Clone)]
pub struct Unmounter {
    target: PathBuf,
    /// Tells it from another mount that has come to lie on the same directory.
    device: Option<(u32, u32)>,
    nodes: Arc<NodeTable<Node>>,
    handles: Arc<Handles>,
}

impl Unmounter {
    /// Where it was mounted.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Unmounts; with `lazy` although files in it are open. It is no error if that has been done already.
    pub fn unmount(&self, lazy: bool) -> Result<(), MountError> {
        let Some(device) = self.device else { return attach::unmount(&self.target, lazy) };
        let mounts = mountinfo::mounts()
            .map_err(|source| MountError::Unmount { target: self.target.clone(), source })?;
        for mount in mounts.iter().rev().filter(|mount| mount.device == device) {
            attach::unmount(&mount.target, lazy)?;
        }
        Ok(())
    }

    /// Gives up all inodes that the kernel still holds, so that the volume can be closed cleanly before the mount is
    /// gone: files that are open but have no name any more are deleted. Whoever uses the mount gets errors from now
    /// on.
    pub fn abandon(&self) {
        self.handles.clear();
        self.nodes.clear();
    }
}
