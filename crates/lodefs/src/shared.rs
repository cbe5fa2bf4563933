//! What everything that belongs to one open volume holds on to.

use std::io;
use std::ops::Deref;
use std::sync::Arc;

use lodefs_core::{Fs, Node, Writer};

use crate::pager::Maps;

/// Keeps the volume open. When the last of its references goes, the volume is closed, and then the medium is free.
///
/// Whoever also holds a [`Node`] lets go of that first (fields are dropped in the order of their declaration).
pub(crate) struct Shared {
    pub(crate) fs: Arc<Fs>,
    /// Its files in memory, each of which holds on to this.
    pub(crate) maps: Maps,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Not left to `Fs`, which a thread of the engine may hold for a moment longer.
        if let Err(error) = self.fs.close() {
            tracing::error!(%error, "closing the volume failed; the next open recovers it");
        }
    }
}

/// A node of an open volume.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) node: Node,
    pub(crate) shared: Arc<Shared>,
}

impl Held {
    pub(crate) fn fs(&self) -> &Fs {
        &self.shared.fs
    }

    /// Another node of the same volume.
    pub(crate) fn with(&self, node: Node) -> Self {
        Self { node, shared: Arc::clone(&self.shared) }
    }

    /// Refuses with `EXDEV` unless both belong to one open volume.
    pub(crate) fn check_same_volume(&self, other: &Self) -> io::Result<()> {
        if Arc::ptr_eq(&self.shared, &other.shared) { Ok(()) } else { Err(rustix::io::Errno::XDEV.into()) }
    }
}

impl Deref for Held {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// Who a program acts as: the owner of what it makes, and the permissions that it does not give.
///
/// They are not checked against anything: a program that has opened a volume by itself has the medium, so there is
/// nobody to keep out. What they decide is who may use the files when the volume is mounted later.
///
/// ```
/// use lodefs::{Credentials, Volume};
///
/// let volume = Volume::in_memory(16 << 20)?;
/// let as_www = volume.with_credentials(Credentials { uid: 33, gid: 33, umask: 0o027 });
/// as_www.write("index.html", "hello")?;
/// let metadata = volume.metadata("index.html")?;
/// assert_eq!((metadata.uid(), metadata.mode() & 0o777), (33, 0o640));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Owner of new files. Unless it is 0, writing to a file takes set-user-id and set-group-id bits and file
    /// capabilities from it.
    pub uid: u32,
    /// Group of new files, unless their directory has the set-group-id bit: then the directory's.
    pub gid: u32,
    /// Permission bits that new files do not get, unless their directory has a default ACL: then that decides.
    pub umask: u32,
}

impl Credentials {
    /// As whom they change a file.
    pub(crate) fn writer(&self, fs: &Fs, node: &Node) -> lodefs_core::Result<Writer> {
        if self.uid == 0 {
            return Ok(Writer::Privileged);
        }
        fs.writer(node, || false, |gid| gid == self.gid)
    }
}

impl Default for Credentials {
    /// The effective user and group of the process, and a umask of `0o022`.
    fn default() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: 0o022,
        }
    }
}
