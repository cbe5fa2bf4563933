//! Walking a tree of directories, and removing one.
//!
//! Neither recurses, and what they keep for each directory on the way down does not grow with the length of the path:
//! how deep a tree is, its maker decides, and a damaged one may even be a circle.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lodefs_core::{Error, Kind};
use rustix::io::Errno;

use crate::dir::Dir;
use crate::metadata::{FileType, Metadata};
use crate::read_dir::{DirEntry, ReadDir};

/// Everything below a directory, each directory before what is in it.
///
/// Symbolic links are listed, not followed. An error about one directory is an item like the others, and the walk goes
/// on. [`Dir::walk`] makes it.
///
/// ```
/// let volume = lodefs::Volume::in_memory(16 << 20)?;
/// volume.create_dir_all("a/b")?;
/// volume.write("a/b/f", "12")?;
/// volume.write("a/g", "345")?;
/// let mut bytes = 0;
/// for entry in volume.walk("a")? {
///     let entry = entry?;
///     if entry.file_type().is_file() {
///         bytes += entry.metadata()?.len();
///     }
/// }
/// assert_eq!(bytes, 5);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Walk {
    /// The directories on the way down.
    open: Vec<ReadDir>,
    /// The path of the last of them.
    path: PathBuf,
    /// A directory that was listed and comes next.
    below: Option<DirEntry>,
    depth_max: u64,
}

/// What a [`Walk`] comes to.
///
/// ```
/// let volume = lodefs::Volume::in_memory(16 << 20)?;
/// volume.create_dir_all("a/b")?;
/// let entries = volume.walk("a")?.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(entries[0].path(), std::path::Path::new("a/b"));
/// assert_eq!(entries[0].depth(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WalkEntry {
    entry: DirEntry,
    path: PathBuf,
    depth: usize,
}

impl WalkEntry {
    /// The path where the walk started, and the way from there.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Directories between where the walk started and this entry.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The name.
    pub fn file_name(&self) -> &OsStr {
        self.entry.file_name()
    }

    /// The kind of file, without looking at it.
    pub fn file_type(&self) -> FileType {
        self.entry.file_type()
    }

    /// The number of the inode.
    pub fn ino(&self) -> u64 {
        self.entry.ino()
    }

    /// What is known of the file, or of the symbolic link, that has this name now.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.entry.metadata()
    }
}

impl Walk {
    pub(crate) fn open(dir: &Dir, path: &Path) -> io::Result<Self> {
        let list = ReadDir::open(dir.open_dir(path)?, Path::new(""))?;
        Ok(Self { open: vec![list], path: path.to_path_buf(), below: None, depth_max: depth_max(dir) })
    }

    /// Leaves out what is in the directory that was listed last.
    pub fn skip_dir(&mut self) {
        self.below = None;
    }

    /// Goes down into a directory that was listed, if it is still there.
    fn descend(&mut self, entry: &DirEntry) -> io::Result<()> {
        if self.open.len() as u64 > self.depth_max {
            return Err(Errno::LOOP.into());
        }
        if let Some(list) = open_below(entry)? {
            self.open.push(list);
            self.path.push(entry.file_name());
        }
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = io::Result<WalkEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.below.take()
            && let Err(error) = self.descend(&entry)
        {
            return Some(Err(error));
        }
        while let Some(list) = self.open.last_mut() {
            match list.next() {
                Some(Ok(entry)) => {
                    self.below = entry.file_type().is_dir().then(|| entry.clone());
                    let path = self.path.join(entry.file_name());
                    return Some(Ok(WalkEntry { entry, path, depth: self.open.len() - 1 }));
                }
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.open.pop();
                    self.path.pop();
                }
            }
        }
        None
    }
}

/// Lists a directory that is an entry of another; `None` if that is no directory any more. Never follows a symbolic link
/// that has taken its place.
fn open_below(entry: &DirEntry) -> io::Result<Option<ReadDir>> {
    let above = entry.dir();
    let node = match above.held.fs().lookup(&above.held, entry.file_name().as_bytes()) {
        Ok(node) if node.kind() == Kind::Directory => node,
        Ok(_) | Err(Error::Refused(Errno::NOENT)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let dir = Dir { held: above.held.with(node), credentials: above.credentials() };
    ReadDir::open(dir, Path::new("")).map(Some)
}

/// No tree is deeper than there are inodes, unless it is a circle.
fn depth_max(dir: &Dir) -> u64 {
    let space = dir.held.fs().space();
    space.inodes - space.inodes_free
}

/// Removes everything in a directory.
pub(crate) fn remove_content(dir: Dir) -> io::Result<()> {
    let depth_max = depth_max(&dir);
    let mut way: Vec<(ReadDir, DirEntry)> = Vec::new();
    let mut list = ReadDir::open(dir, Path::new(""))?;
    loop {
        let Some(entry) = list.next().transpose()? else {
            // It is empty: back to where it was listed.
            let Some((above, entry)) = way.pop() else { return Ok(()) };
            ignore_missing(entry.dir().remove_dir(entry.file_name()))?;
            list = above;
            continue;
        };
        if way.len() as u64 > depth_max {
            return Err(Errno::LOOP.into());
        }
        let below = if entry.file_type().is_dir() { open_below(&entry)? } else { None };
        match below {
            Some(below) => way.push((std::mem::replace(&mut list, below), entry)),
            None => ignore_missing(entry.dir().remove_file(entry.file_name()))?,
        }
    }
}

fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
