//! What the work is done on: raw memory, the engine, and anything with system calls.

use std::ffi::CStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use lodefs_core::{Fs, NewInode, NewKind, Node, OpenIntent, RenameMode, SetAttr};
use lodefs_pmem::Medium;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::work::{BLOCK_SIZE, Block, Blocks, Files, Grows};

/// Name of the file that is overwritten, read or appended to.
const FILE: &CStr = c"data";

/// Memory with nothing around it.
pub(crate) struct Raw(pub(crate) Arc<Medium>);

impl Blocks for Raw {
    /// A copy past the caches, and a fence.
    #[inline]
    fn overwrite(&mut self, offset: u64, block: &Block) -> anyhow::Result<()> {
        let flushed = self.0.write(offset, &block.0)?;
        let _ordered = self.0.fence(flushed)?;
        Ok(())
    }

    /// memcpy.
    #[inline]
    fn read(&mut self, offset: u64, into: &mut Block) -> anyhow::Result<()> {
        Ok(self.0.read(offset, &mut into.0)?)
    }
}

/// The engine in this process.
pub(crate) struct Engine {
    fs: Arc<Fs>,
    directory: Node,
    file: Node,
}

impl Engine {
    /// In a directory of its own.
    pub(crate) fn new(fs: &Arc<Fs>, name: &str) -> anyhow::Result<Self> {
        let directory = fs.create(&fs.root()?, name.as_bytes(), &new_inode(NewKind::Directory))?;
        let file = fs.create(&directory, FILE.to_bytes(), &new_inode(NewKind::File))?;
        Ok(Self { fs: Arc::clone(fs), directory, file })
    }
}

pub(crate) fn new_inode(kind: NewKind<'_>) -> NewInode<'_> {
    NewInode { kind, perm: 0o777, umask: 0o022, uid: 0, gid: 0 }
}

impl Blocks for Engine {
    #[inline]
    fn overwrite(&mut self, offset: u64, block: &Block) -> anyhow::Result<()> {
        let written = self.fs.write(&self.file, offset, &block.0, false)?;
        ensure!(written == BLOCK_SIZE, "the volume is full");
        Ok(())
    }

    #[inline]
    fn read(&mut self, offset: u64, into: &mut Block) -> anyhow::Result<()> {
        let read = self.fs.read(&self.file, offset, &mut into.0)?;
        ensure!(read == BLOCK_SIZE, "the file is too short");
        Ok(())
    }
}

impl Grows for Engine {
    #[inline]
    fn append(&mut self, block: &Block) -> anyhow::Result<()> {
        let (_, written) = self.fs.append(&self.file, &block.0, false)?;
        ensure!(written == BLOCK_SIZE, "the volume is full");
        Ok(())
    }

    fn truncate(&mut self) -> anyhow::Result<()> {
        self.fs.set_attr(&self.file, &SetAttr { size: Some(0), ..SetAttr::default() })?;
        Ok(())
    }
}

impl Files for Engine {
    fn create(&mut self, name: &CStr) -> anyhow::Result<()> {
        self.fs.create(&self.directory, name.to_bytes(), &new_inode(NewKind::File))?;
        Ok(())
    }

    fn open(&mut self, name: &CStr) -> anyhow::Result<()> {
        let node = self.fs.lookup(&self.directory, name.to_bytes())?;
        Ok(self.fs.check_open(&node, OpenIntent { write: true, ..OpenIntent::default() })?)
    }

    fn rename(&mut self, from: &CStr, to: &CStr) -> anyhow::Result<()> {
        let (from, to) = (from.to_bytes(), to.to_bytes());
        Ok(self.fs.rename(&self.directory, from, &self.directory, to, RenameMode::Replace, (0, 0))?)
    }

    fn unlink(&mut self, name: &CStr) -> anyhow::Result<()> {
        Ok(self.fs.unlink(&self.directory, name.to_bytes())?)
    }

    fn mkdir(&mut self, name: &CStr) -> anyhow::Result<()> {
        self.fs.create(&self.directory, name.to_bytes(), &new_inode(NewKind::Directory))?;
        Ok(())
    }

    fn rmdir(&mut self, name: &CStr) -> anyhow::Result<()> {
        Ok(self.fs.rmdir(&self.directory, name.to_bytes())?)
    }
}

/// Whether reads go through the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// They do, which is the fastest that a file system in the kernel can offer.
    Cached,
    /// Each is one request to the server (`O_DIRECT`), which a page cache would hide.
    Direct,
}

/// A directory that is reached with system calls. Nothing is made durable.
pub(crate) struct Host {
    directory: OwnedFd,
    file: OwnedFd,
    file_to_read: OwnedFd,
    /// Where the file ends.
    end: u64,
}

impl Host {
    /// In a new directory `name` of `parent`.
    pub(crate) fn new(parent: &Path, name: &str, reads: Reads) -> anyhow::Result<Self> {
        let path = parent.join(name);
        Self::make(&path, reads).with_context(|| path.display().to_string())
    }

    fn make(path: &Path, reads: Reads) -> anyhow::Result<Self> {
        fs::create_dir(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, FILE, flags, Mode::RUSR | Mode::WUSR)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let flags = if reads == Reads::Direct { flags | OFlags::DIRECT } else { flags };
        let file_to_read = rustix::fs::openat(&directory, FILE, flags, Mode::empty())?;
        Ok(Self { directory, file, file_to_read, end: 0 })
    }
}

impl Blocks for Host {
    #[inline]
    fn overwrite(&mut self, offset: u64, block: &Block) -> anyhow::Result<()> {
        check_whole(rustix::io::pwrite(&self.file, &block.0, offset))
    }

    #[inline]
    fn read(&mut self, offset: u64, into: &mut Block) -> anyhow::Result<()> {
        check_whole(rustix::io::pread(&self.file_to_read, &mut into.0, offset))
    }
}

fn check_whole(moved: Result<usize, Errno>) -> anyhow::Result<()> {
    ensure!(moved? == BLOCK_SIZE, "only a part was written or read");
    Ok(())
}

impl Grows for Host {
    #[inline]
    fn append(&mut self, block: &Block) -> anyhow::Result<()> {
        check_whole(rustix::io::pwrite(&self.file, &block.0, self.end))?;
        self.end += BLOCK_SIZE as u64;
        Ok(())
    }

    fn truncate(&mut self) -> anyhow::Result<()> {
        self.end = 0;
        Ok(rustix::fs::ftruncate(&self.file, 0)?)
    }
}

impl Files for Host {
    fn create(&mut self, name: &CStr) -> anyhow::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(0o777))?;
        Ok(())
    }

    fn open(&mut self, name: &CStr) -> anyhow::Result<()> {
        rustix::fs::openat(&self.directory, name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(())
    }

    fn rename(&mut self, from: &CStr, to: &CStr) -> anyhow::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    fn unlink(&mut self, name: &CStr) -> anyhow::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn mkdir(&mut self, name: &CStr) -> anyhow::Result<()> {
        Ok(rustix::fs::mkdirat(&self.directory, name, Mode::from_raw_mode(0o777))?)
    }

    fn rmdir(&mut self, name: &CStr) -> anyhow::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR)?)
    }
}
