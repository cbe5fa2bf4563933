//! Which file does a mapping belong to, when no descriptor of it is open?
//!
//! An open file holds a file as direct, or as buffered, as it is. A mapping that can be switched must not, so it keeps a descriptor
//! that is not open for anything (`O_PATH`): it keeps the mount, and the file, and can be opened again.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lodefs_mapping::{Inside, Own, enter};
use lodefs_mmap::Named;
use lodefs_mmap::maps::FileId;
use rustix::fs::{Mode, OFlags, fstat, fstatfs, open, readlink};
use rustix::io::Errno;

/// A file that can be opened.
#[derive(Clone)]
pub struct Origin {
    held: Arc<Held>,
    writable: bool,
}

/// What keeps a file. As long as it does, no other one has the same numbers.
struct Held {
    path: Own,
    file: FileId,
}

/// One for each file. Used inside the gate only, so that no child finds it locked.
static HELD: Mutex<Vec<Weak<Held>>> = Mutex::new(Vec::new());

impl Held {
    fn of(file: BorrowedFd<'_>) -> Result<Arc<Self>, Errno> {
        let id = file_of(file)?;
        let inside = enter();
        let mut all = held(&inside);
        all.retain(|held| held.strong_count() > 0);
        if let Some(same) = all.iter().filter_map(Weak::upgrade).find(|held| held.file == id) {
            return Ok(same);
        }
        let path = open(name_of(file), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let new = Arc::new(Self { path: path.into(), file: id });
        all.push(Arc::downgrade(&new));
        Ok(new)
    }
}

fn held(_: &Inside) -> MutexGuard<'static, Vec<Weak<Held>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Origin {
    /// That of an open file, to be opened for writing too.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn of(file: impl AsFd, writable: bool) -> Result<Self, Errno> {
        Ok(Self { held: Held::of(file.as_fd())?, writable })
    }

    /// The same file, to be opened for writing too, or not.
    #[must_use]
    pub fn with(&self, writable: bool) -> Self {
        Self { held: Arc::clone(&self.held), writable }
    }

    /// Whether a descriptor is of this file.
    pub fn is(&self, file: impl AsFd) -> bool {
        file_of(file).is_ok_and(|file| file == self.held.file)
    }

    /// Whether it is the same file.
    pub fn is_of_same_file(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.held, &other.held)
    }

    /// Which file it is.
    pub(crate) fn file(&self) -> FileId {
        self.held.file
    }

    /// Whether there is room to fill all holes of the file, as far as the kernel knows now.
    pub(crate) fn has_room_for_holes(&self) -> bool {
        let path = self.held.path.as_fd();
        let (Ok(stat), Ok(space)) = (fstat(path), fstatfs(path)) else { return false };
        let stored = stat.st_blocks.cast_unsigned().saturating_mul(512);
        let free = space.f_bavail.saturating_mul(space.f_bsize.cast_unsigned());
        stat.st_size.cast_unsigned().saturating_sub(stored) <= free
    }

    /// Opens it: the kernel checks once more whether this process may.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(&self) -> Result<Own, Errno> {
        let access = if self.writable { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(open(name_of(self.held.path.as_fd()), flags, Mode::empty())?.into())
    }
}

/// The name in the tree of names: with ` (deleted)` behind it if it has none any more.
impl Named for Origin {
    fn name(&self) -> Option<PathBuf> {
        let name = readlink(name_of(self.held.path.as_fd()), Vec::new()).ok()?;
        Some(OsString::from_vec(name.into_bytes()).into())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("file", &self.held.file).finish_non_exhaustive()
    }
}

/// Which file this is.
pub(crate) fn file_of(file: impl AsFd) -> Result<FileId, Errno> {
    let stat = fstat(file)?;
    Ok(FileId::Host { device: stat.st_dev, inode: stat.st_ino })
}

/// In the table of this thread, which need not be that of the process.
fn name_of(file: impl AsFd) -> String {
    format!("/proc/thread-self/fd/{}", file.as_fd().as_raw_fd())
}
