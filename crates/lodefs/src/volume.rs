//! An open volume.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use lodefs_core::{Error, Fs, MemoryUse, RecoveryReport, SpaceUse, VolumeInfo};
use lodefs_pmem::{DomainReport, Medium};

use crate::dir::Dir;
use crate::pager::Maps;
use crate::shared::{Credentials, Held, Shared};
use crate::volume_options::VolumeOptions;

/// An open volume, which this program has for itself.
///
/// It stands for its root directory: everything that a [`Dir`] does, a `Volume` does, with paths that start at the
/// root. Threads share it by reference, or in an [`Arc`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let scratch = tempfile::tempdir()?;
/// # let path = scratch.path().join("data.vol");
/// use lodefs::Volume;
///
/// let volume = Volume::create(&path, 16 << 20)?;
/// volume.create_dir("inbox")?;
/// volume.write("inbox/1", "hello")?;
/// volume.close()?;
///
/// let volume = Volume::open(&path)?;
/// assert_eq!(volume.read("inbox/1")?, b"hello");
/// # Ok(())
/// # }
/// ```
///
/// # Closing
/// [`close`](Self::close) saves what makes the next open quick, and reports errors. Dropping does the same as soon as
/// the last [`File`](crate::File), [`Mapping`](crate::Mapping), [`Dir`] or listing of the volume is gone too, and can only log them. Not closing at
/// all loses nothing that was durable: the next open recovers the volume, and looks at each inode to do so.
pub struct Volume {
    root: Dir,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.info();
        f.debug_struct("Volume").field("label", &info.label).field("domain", &self.domain().domain).finish()
    }
}

impl Deref for Volume {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.root
    }
}

impl Volume {
    /// Opens the volume in a file or device for reading and writing, and recovers it if it was not closed.
    ///
    /// `NotFound`, `PermissionDenied`; `ResourceBusy` if it is mounted or open elsewhere; `InvalidData` if there is no
    /// volume, or a damaged one; `Unsupported` if it was made by a later version. The text says what to do.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        VolumeOptions::new().open(path)
    }

    /// Makes a volume in a new file of `size` bytes (1 MiB to 64 TiB), or in an existing one that is empty, and opens
    /// it. `AlreadyExists` if the file has content.
    pub fn create(path: impl AsRef<Path>, size: u64) -> io::Result<Self> {
        VolumeOptions::new().size(size).create(path)
    }

    /// Makes a volume of `size` bytes in the memory of this process, which is gone with it: for tests.
    pub fn in_memory(size: u64) -> io::Result<Self> {
        VolumeOptions::new().size(size).in_memory()
    }

    /// More ways to open or make a volume.
    pub fn options() -> VolumeOptions {
        VolumeOptions::new()
    }

    pub(crate) fn on(
        medium: Medium,
        options: &lodefs_core::OpenOptions,
        credentials: Credentials,
    ) -> Result<Self, Error> {
        let fs = Fs::open(medium, options)?;
        let node = fs.root()?;
        let held = Held { node, shared: Arc::new(Shared { fs, maps: Maps::default() }) };
        Ok(Self { root: Dir { held, credentials } })
    }

    fn fs(&self) -> &Fs {
        self.root.held.fs()
    }

    /// Closes the volume, so that the next open has nothing to do.
    ///
    /// Files of it that are still open can be read, but not changed any more (`EROFS`), and keep the medium in use. If
    /// one of them has no name left, the next open has to recover the volume in order to free its space.
    ///
    /// The same goes for mappings, but what is mapped already to be stored to stays so, and is kept: only a store to a hole raises
    /// SIGBUS. That such a mapping has changed its file does not show in the times of the file any more.
    pub fn close(self) -> io::Result<()> {
        Ok(self.fs().close()?)
    }

    /// Makes everything that returned before durable, as far as the domain can. Nearly free but on `page` volumes,
    /// where it waits for the device.
    pub fn sync(&self) -> io::Result<()> {
        Ok(self.fs().sync()?)
    }

    /// The root directory, to keep. Most uses of it are uses of the volume itself.
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// Space and inodes, in use and free. Counted in blocks of [`SpaceUse::block_size`] bytes.
    pub fn space(&self) -> SpaceUse {
        self.fs().space()
    }

    /// Identity, label, size and format.
    pub fn info(&self) -> VolumeInfo {
        self.fs().info()
    }

    /// What makes stores durable on this medium, and how that is known.
    pub fn domain(&self) -> &DomainReport {
        self.fs().domain()
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        self.fs().recovery()
    }

    /// Memory that the engine takes for this volume, estimated.
    pub fn memory_use(&self) -> MemoryUse {
        self.fs().memory_use()
    }

    /// Whether it was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.fs().is_read_only()
    }

    /// Sets who owns what is made from now on by paths that start at the volume.
    pub fn set_credentials(&mut self, credentials: Credentials) {
        self.root.credentials = credentials;
    }
}
