//! Listing one directory.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::attributes;
use crate::dir::Dir;
use crate::metadata::{FileType, Metadata};

/// Entries that are read at a time, roughly. The directory is locked meanwhile.
const BATCH: usize = 256;

/// The entries of a directory, without `.` and `..`.
///
/// What is added or removed while it is read may be listed or not; everything else is listed once. [`Dir::read_dir`]
/// makes it.
///
/// ```
/// let volume = lodefs::Volume::in_memory(16 << 20)?;
/// volume.write("a", "")?;
/// volume.write("b", "")?;
/// let mut names = Vec::new();
/// for entry in volume.read_dir("/")? {
///     names.push(entry?.file_name().to_owned());
/// }
/// names.sort();
/// assert_eq!(names, ["a", "b"]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ReadDir {
    listed: Arc<Listed>,
    batch: VecDeque<lodefs_core::DirEntry>,
    /// Where the next batch starts; `None` at the end.
    next: Option<u64>,
}

/// The directory that is listed.
#[derive(Debug)]
struct Listed {
    dir: Dir,
    path: PathBuf,
}

/// One entry of a directory.
///
/// ```
/// let volume = lodefs::Volume::in_memory(16 << 20)?;
/// volume.write("f", "123")?;
/// let entry = volume.read_dir("/")?.next().unwrap()?;
/// assert!(entry.file_type().is_file());
/// assert_eq!(entry.path(), std::path::Path::new("/f"));
/// assert_eq!(entry.metadata()?.len(), 3);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DirEntry {
    listed: Arc<Listed>,
    name: OsString,
    file_type: FileType,
    ino: u64,
}

impl DirEntry {
    /// The name.
    pub fn file_name(&self) -> &OsStr {
        &self.name
    }

    /// The path that was listed, and the name.
    pub fn path(&self) -> PathBuf {
        self.listed.path.join(&self.name)
    }

    /// The kind of file, without looking at it.
    pub fn file_type(&self) -> FileType {
        self.file_type
    }

    /// The number of the inode.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// What is known of the file, or of the symbolic link, that has this name now.
    pub fn metadata(&self) -> io::Result<Metadata> {
        let dir = &self.listed.dir.held;
        attributes::metadata(&dir.fs().lookup(dir, self.name.as_bytes())?)
    }

    /// The directory that it is an entry of.
    pub fn dir(&self) -> &Dir {
        &self.listed.dir
    }
}

impl ReadDir {
    /// Lists `dir`, which `path` led to.
    pub(crate) fn open(dir: Dir, path: &Path) -> io::Result<Self> {
        let listed = Arc::new(Listed { dir, path: path.to_path_buf() });
        let mut opened = Self { listed, batch: VecDeque::new(), next: Some(0) };
        opened.fill()?;
        Ok(opened)
    }

    /// Reads the next batch.
    fn fill(&mut self) -> io::Result<()> {
        let Some(mut position) = self.next else { return Ok(()) };
        let batch = &mut self.batch;
        let mut is_end = true;
        let dir = &self.listed.dir.held;
        dir.fs().read_dir(dir, position, &mut |entry| {
            if batch.len() >= BATCH {
                is_end = false;
                return false;
            }
            position = entry.next;
            if !matches!(entry.name.as_slice(), b"." | b"..") {
                batch.push_back(entry.clone());
            }
            true
        })?;
        self.next = (!is_end).then_some(position);
        Ok(())
    }
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.batch.is_empty()
            && let Err(error) = self.fill()
        {
            self.next = None;
            return Some(Err(error));
        }
        let entry = self.batch.pop_front()?;
        Some(Ok(DirEntry {
            listed: Arc::clone(&self.listed),
            name: OsString::from_vec(entry.name),
            file_type: FileType(entry.kind),
            ino: entry.ino.0,
        }))
    }
}
