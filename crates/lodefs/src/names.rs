//! Making, removing and changing names.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use lodefs_core::{Error, Kind, NewKind, RenameMode, Result};
use rustix::io::Errno;

use crate::dir::Dir;
use crate::file::File;
use crate::path::{AtEnd, Last, Walker, resolve, resolve_if_any};
use lodefs_mmap::buffers::own;

/// What a directory is made like, as [`std::fs::DirBuilder`].
///
/// ```
/// let volume = lodefs::Volume::in_memory(16 << 20)?;
/// lodefs::DirBuilder::new().recursive(true).mode(0o700).create(&volume, "secret/place")?;
/// assert_eq!(volume.metadata("secret")?.mode() & 0o777, 0o700);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DirBuilder {
    recursive: bool,
    mode: u32,
}

impl Default for DirBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl DirBuilder {
    /// One directory, with permissions `0o777` before the umask.
    pub fn new() -> Self {
        Self { recursive: false, mode: 0o777 }
    }

    /// Makes parents too, and is content with a directory that exists.
    pub fn recursive(&mut self, recursive: bool) -> &mut Self {
        self.recursive = recursive;
        self
    }

    /// Permissions, before the umask.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// Makes it.
    pub fn create(&self, dir: &Dir, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        if self.recursive { self.create_all(dir, path) } else { Ok(self.create_one(dir, path)?) }
    }

    fn create_one(self, dir: &Dir, path: &Path) -> Result<()> {
        dir.make(path, Makes::Directory, NewKind::Directory, self.mode)
    }

    /// From the longest part that exists on, so that a long path is not walked once for each of its directories.
    fn create_all(self, dir: &Dir, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
            match self.create_one(dir, part) {
                Ok(()) => break,
                Err(Error::Refused(Errno::NOENT)) => missing.push(part),
                Err(Error::Refused(Errno::EXIST)) if is_dir(dir, part)? => break,
                Err(error) => return Err(error.into()),
            }
        }
        for part in missing.into_iter().rev() {
            match self.create_one(dir, part) {
                Err(Error::Refused(Errno::EXIST)) if is_dir(dir, part)? => {}
                made => made?,
            }
        }
        Ok(())
    }
}

fn is_dir(dir: &Dir, path: &Path) -> Result<bool> {
    let found = resolve_if_any(&dir.held, path, AtEnd::Follow)?;
    Ok(found.is_some_and(|node| node.kind() == Kind::Directory))
}

/// Whether what is made may be named with a slash at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Makes {
    Directory,
    Other,
}

impl Dir {
    /// Makes a directory. `EEXIST` if something is there.
    pub fn create_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        DirBuilder::new().create(self, path)
    }

    /// Makes a directory and its parents, those that do not exist.
    pub fn create_dir_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        DirBuilder::new().recursive(true).create(self, path)
    }

    /// Makes a symbolic link that leads to `target`, which need not exist.
    pub fn symlink(&self, target: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
        let target = own(target.as_ref().as_os_str().as_bytes());
        Ok(self.make(link.as_ref(), Makes::Other, NewKind::Symlink(&target), 0o777)?)
    }

    /// Where a symbolic link leads. `EINVAL` if there is another kind of file.
    pub fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let target = self.held.fs().read_link(&resolve(&self.held, path.as_ref(), AtEnd::Stay)?)?;
        Ok(OsString::from_vec(target).into())
    }

    /// Makes a named pipe, a socket or a device node, for whoever mounts the volume.
    ///
    /// ```
    /// use lodefs::{Kind, NewKind, Volume};
    ///
    /// let volume = Volume::in_memory(16 << 20)?;
    /// volume.create_node("pipe", NewKind::Fifo, 0o644)?;
    /// assert_eq!(volume.metadata("pipe")?.file_type().kind(), Kind::Fifo);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn create_node(&self, path: impl AsRef<Path>, kind: NewKind<'_>, mode: u32) -> io::Result<()> {
        let makes = if kind == NewKind::Directory { Makes::Directory } else { Makes::Other };
        Ok(self.make(path.as_ref(), makes, kind, mode)?)
    }

    fn make(&self, path: &Path, makes: Makes, kind: NewKind<'_>, mode: u32) -> Result<()> {
        let walker = self.walk_to_new(path, makes)?;
        self.held.fs().create(walker.here(), walker.name(), &self.new_inode(kind, mode))?;
        Ok(())
    }

    /// Gives a file another name. A symbolic link at the end of `original` is not followed.
    pub fn hard_link(&self, original: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
        let node = resolve(&self.held, original.as_ref(), AtEnd::Stay)?;
        let walker = self.walk_to_new(link.as_ref(), Makes::Other)?;
        Ok(self.held.fs().link(&node, walker.here(), walker.name())?)
    }

    /// Gives an open file a name, even one without any (see [`tmpfile`](Self::tmpfile)). `EXDEV` if it is of another
    /// volume.
    pub fn link_file(&self, file: &File, path: impl AsRef<Path>) -> io::Result<()> {
        self.held.check_same_volume(&file.held)?;
        let walker = self.walk_to_new(path.as_ref(), Makes::Other)?;
        Ok(self.held.fs().link(&file.held, walker.here(), walker.name())?)
    }

    /// Walks to a name that is to be made.
    fn walk_to_new<'a>(&'a self, path: &'a Path, makes: Makes) -> Result<Walker<'a>> {
        let mut walker = Walker::new(&self.held, path)?;
        match walker.walk()? {
            Last::Name { slash: false } => Ok(walker),
            Last::Name { slash: true } if makes == Makes::Directory => Ok(walker),
            Last::Name { slash: true } => match walker.look_up() {
                Ok(_) => Err(Errno::EXIST.into()),
                Err(error) => Err(error),
            },
            Last::Root | Last::Dot | Last::DotDot => Err(Errno::EXIST.into()),
        }
    }

    /// Removes a name of a file that is not a directory. The file goes with its last name, once it is not open any
    /// more.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        Ok(self.unlink(path.as_ref())?)
    }

    fn unlink(&self, path: &Path) -> Result<()> {
        let fs = self.held.fs();
        let mut walker = Walker::new(&self.held, path)?;
        match walker.walk()? {
            Last::Name { slash: false } => fs.unlink(walker.here(), walker.name()),
            Last::Name { slash: true } => match walker.look_up()?.kind() {
                Kind::Directory => Err(Errno::ISDIR.into()),
                _ => Err(Errno::NOTDIR.into()),
            },
            Last::Root | Last::Dot | Last::DotDot => Err(Errno::ISDIR.into()),
        }
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        Ok(self.rmdir(path.as_ref())?)
    }

    fn rmdir(&self, path: &Path) -> Result<()> {
        let mut walker = Walker::new(&self.held, path)?;
        walker.walk_to_entry()?;
        self.held.fs().rmdir(walker.here(), walker.name())
    }

    /// Removes a directory and everything in it; or a symbolic link, but not what the link leads to. Entries that
    /// others add meanwhile may make the call fail with `ENOTEMPTY`.
    ///
    /// A path that [`remove_dir`](Self::remove_dir) refuses whatever the directory holds is refused before anything is
    /// removed: the root (`EBUSY`), a path that ends with `.` (`EINVAL`) or `..` (`ENOTEMPTY`), and a symbolic link with
    /// a slash behind it (`ENOTDIR`).
    pub fn remove_dir_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut walker = Walker::new(&self.held, path.as_ref())?;
        let slash = walker.walk_to_entry()?;
        let node = walker.look_up()?;
        match node.kind() {
            Kind::Directory => {
                crate::walk::remove_content(Dir {
                    held: self.held.with(node),
                    credentials: self.credentials,
                })?;
                // The path may lead elsewhere without what has been removed, the entry is still the same.
                Ok(self.held.fs().rmdir(walker.here(), walker.name())?)
            }
            Kind::Symlink if !slash => Ok(self.held.fs().unlink(walker.here(), walker.name())?),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// Moves a file or directory to another name, replacing what is there: a file by a file, an empty directory by a
    /// directory.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.rename_with(from, self, to, RenameMode::Replace)
    }

    /// Moves a file or directory to a name below another directory of the same volume (`EXDEV` if it is of another),
    /// in one of the modes of `renameat2(2)`.
    ///
    /// ```
    /// use lodefs::{RenameMode, Volume};
    ///
    /// let volume = Volume::in_memory(16 << 20)?;
    /// volume.write("old", "1")?;
    /// volume.write("new", "2")?;
    /// volume.rename_with("new", &volume, "old", RenameMode::Exchange)?;
    /// assert_eq!((volume.read("old")?, volume.read("new")?), (b"2".to_vec(), b"1".to_vec()));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn rename_with(
        &self,
        from: impl AsRef<Path>,
        to_dir: &Self,
        to: impl AsRef<Path>,
        mode: RenameMode,
    ) -> io::Result<()> {
        self.held.check_same_volume(&to_dir.held)?;
        Ok(self.rename_within(from.as_ref(), to_dir, to.as_ref(), mode)?)
    }

    fn rename_within(&self, from: &Path, to_dir: &Self, to: &Path, mode: RenameMode) -> Result<()> {
        let fs = self.held.fs();
        let (mut old, mut new) = (Walker::new(&self.held, from)?, Walker::new(&to_dir.held, to)?);
        let slashes = match (old.walk()?, new.walk()?) {
            (Last::Name { slash: old }, Last::Name { slash: new }) => Slashes { old, new },
            (Last::Name { .. }, _) if keeps_target(mode) => return Err(Errno::EXIST.into()),
            _ => return Err(Errno::BUSY.into()),
        };
        if slashes.old || slashes.new {
            slashes.check(&old, &new, mode)?;
        }
        let owner = (self.credentials.uid, self.credentials.gid);
        fs.rename(old.here(), old.name(), new.here(), new.name(), mode, owner)
    }
}

fn keeps_target(mode: RenameMode) -> bool {
    matches!(mode, RenameMode::NoReplace | RenameMode::NoReplaceWhiteout)
}

/// Which paths of a rename end with a slash.
struct Slashes {
    old: bool,
    new: bool,
}

impl Slashes {
    /// Refuses what is no directory, and will not be one, where there is a slash.
    fn check(&self, old: &Walker<'_>, new: &Walker<'_>, mode: RenameMode) -> Result<()> {
        let kind_at = |walker: &Walker<'_>| Ok::<_, Error>(walker.look_up()?.kind());
        let source = kind_at(old)?;
        if keeps_target(mode) && kind_at(new).is_ok() {
            return Err(Errno::EXIST.into());
        }
        let exchanges = mode == RenameMode::Exchange;
        let source_fits = source == Kind::Directory || !(self.old || self.new && !exchanges);
        let target_fits = !(exchanges && self.new) || kind_at(new)? == Kind::Directory;
        if source_fits && target_fits { Ok(()) } else { Err(Errno::NOTDIR.into()) }
    }
}
