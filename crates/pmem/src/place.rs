//! Where a new file is made, and how it gets its name.
//!
//! A file without a name (`O_TMPFILE`) goes with the process. Two hosts need a temporary name: a file system without
//! such files, and one that maps a file directly only after the file was marked, closed and opened again. A process
//! that is killed leaves a temporary name behind; the next attempt in the same directory removes it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, IFlags, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags, flock,
    ftruncate, ioctl_getflags, ioctl_setflags, linkat, openat, renameat_with, statx, unlinkat,
};
use rustix::io::Errno;

use crate::detect;

/// `FS_DAX_FL`: that a file is to be mapped directly, where its file system knows of it (ext4, XFS, mounted with `dax=inode`).
const DAX: IFlags = IFlags::from_bits_retain(0x0200_0000);
/// The owner may read and write it.
const OWNER: u32 = 0o600;
/// A pipe must not block; it is refused later.
const OPEN: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
/// Temporary names in one directory, which is how many volumes can be made there at a time.
const TEMPORARY_NAMES: u32 = 64;

/// What is to be done to give a file its name.
#[derive(Debug)]
pub(crate) enum Place {
    /// Nothing: the file was there before.
    Named,
    /// A link is made.
    Unnamed(Target),
    /// The file is renamed.
    Temporary(Target, OsString),
}

/// The name that a file is to get.
#[derive(Debug)]
pub(crate) struct Target {
    directory: OwnedFd,
    name: OsString,
}

/// Opens the empty file at `path`, or makes a new one for it.
pub(crate) fn find(path: &Path) -> Result<(File, Place), Errno> {
    match rustix::fs::open(path, OPEN, Mode::empty()) {
        Ok(file) => return Ok((file.into(), Place::Named)),
        // A symbolic link that leads to nothing is somebody's, and the name is taken.
        Err(Errno::NOENT) if fs::symlink_metadata(path).is_err() => {}
        Err(errno) => return Err(errno),
    }
    let target = Target::of(path)?;
    let unnamed = openat(&target.directory, c".", OPEN | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR);
    match unnamed.map(File::from) {
        Ok(file) if !wants_mark(&file)? => return Ok((file, Place::Unnamed(target))),
        Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOSYS | Errno::INVAL) => {}
        Err(errno) => return Err(errno),
    }
    let (file, temporary) = target.temporary_file()?;
    let marked = mark_direct(&target, &temporary, file);
    let place = Place::Temporary(target, temporary);
    marked.inspect_err(|_| place.give_up()).map(|file| (file, place))
}

impl Place {
    /// Whether others may have found the file already.
    pub(crate) fn has_name(&self) -> bool {
        matches!(self, Self::Named)
    }

    /// Gives the file its name, durably, unless there is something of that name.
    pub(crate) fn publish(&self, file: &File) -> io::Result<()> {
        let target = match self {
            Self::Named => return Ok(()),
            Self::Unnamed(target) => {
                link_unnamed(file, target)?;
                target
            }
            Self::Temporary(target, temporary) => {
                rename(target, temporary)?;
                target
            }
        };
        target.sync(file)
    }

    /// After a failure: takes the temporary name away. The failure itself is what is reported.
    pub(crate) fn give_up(&self) {
        if let Self::Temporary(target, temporary) = self {
            let _ = unlinkat(&target.directory, temporary.as_os_str(), AtFlags::empty());
        }
    }

    /// After a failure, while the file is locked: gives the room back that was set aside, in a file that stays. The
    /// failure itself is what is reported.
    pub(crate) fn empty(&self, file: &File) {
        if self.has_name() {
            let _ = ftruncate(file, 0);
        }
    }
}

impl Target {
    fn of(path: &Path) -> Result<Self, Errno> {
        // Of a path that ends like this only a directory can be made.
        let is_directory = path.as_os_str().as_bytes().ends_with(b"/");
        let name = path.file_name().filter(|_| !is_directory).ok_or(Errno::ISDIR)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let common = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(parent, OFlags::RDONLY | common, Mode::empty()) {
            // Names can be made in it all the same.
            Err(Errno::ACCESS) => rustix::fs::open(parent, OFlags::PATH | common, Mode::empty()),
            opened => opened,
        }?;
        Ok(Self { directory, name: name.to_owned() })
    }

    /// Makes a file with a temporary name. What earlier attempts of this user left is removed.
    fn temporary_file(&self) -> Result<(File, OsString), Errno> {
        for number in 0..TEMPORARY_NAMES {
            let name = OsString::from(format!(".lodefs-new-{number}"));
            match self.make_temporary(&name) {
                Ok(Some(file)) => return Ok((file, name)),
                Ok(None) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::BUSY)
    }

    /// `None` if another process has it.
    fn make_temporary(&self, name: &OsStr) -> Result<Option<File>, Errno> {
        let flags = OPEN | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let create = || openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR);
        let made = match create() {
            Err(Errno::EXIST) if self.remove_stale(name) => create(),
            made => made,
        };
        let file = File::from(made?);
        // Whoever removes a stale file may have had this one for a moment.
        let is_ours = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && file.metadata().is_ok_and(|metadata| metadata.nlink() == 1);
        Ok(is_ours.then_some(file))
    }

    /// Removes a temporary file of this user that no process uses.
    fn remove_stale(&self, name: &OsStr) -> bool {
        let opened = openat(&self.directory, name, OPEN | OFlags::NOFOLLOW, Mode::empty());
        let Ok(file) = opened.map(File::from) else { return false };
        let user = rustix::process::geteuid().as_raw();
        let is_stale =
            file.metadata().is_ok_and(|found| found.is_file() && found.uid() == user && found.nlink() == 1)
                && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        is_stale && unlinkat(&self.directory, name, AtFlags::empty()).is_ok()
    }

    /// Makes the name durable.
    fn sync(&self, file: &File) -> io::Result<()> {
        match rustix::fs::fsync(&self.directory) {
            Ok(()) => Ok(()),
            // A directory that cannot be read, or a host that knows no such call for directories.
            Err(Errno::BADF | Errno::INVAL) => Ok(rustix::fs::syncfs(file)?),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn link_unnamed(file: &File, target: &Target) -> Result<(), Errno> {
    let (directory, name) = (&target.directory, target.name.as_os_str());
    let same = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    match linkat(CWD, &same, directory, name, AtFlags::SYMLINK_FOLLOW) {
        // No /proc.
        Err(Errno::NOENT) if !same.exists() => linkat(file, c"", directory, name, AtFlags::EMPTY_PATH),
        linked => linked,
    }
}

fn rename(target: &Target, temporary: &OsStr) -> Result<(), Errno> {
    let (directory, name) = (&target.directory, target.name.as_os_str());
    match renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE) {
        // A host that would replace what is there.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            linkat(directory, temporary, directory, name, AtFlags::empty())?;
            unlinkat(directory, temporary, AtFlags::empty())
        }
        renamed => renamed,
    }
}

/// Whether a new file would have to be marked to be mapped directly, as far as is known before that is tried.
fn wants_mark(file: &File) -> Result<bool, Errno> {
    let found = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
    Ok(can_be_marked(file, &found) && detect::may_be_direct(device) && set_mark(file, true).is_ok())
}

fn can_be_marked(file: &File, found: &rustix::fs::Statx) -> bool {
    let can_be_opened_again = u32::from(found.stx_mode) & OWNER == OWNER;
    // What it has inherited has its effect already, or none.
    let is_unmarked = ioctl_getflags(file).is_ok_and(|flags| !flags.contains(DAX));
    !is_direct(found) && can_be_opened_again && is_unmarked
}

/// Has a new file mapped directly, if that helps. The host looks at the mark when it reads the inode in anew, which it does after the
/// last close.
fn mark_direct(target: &Target, name: &OsStr, file: File) -> Result<File, Errno> {
    let before = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    if !can_be_marked(&file, &before) || set_mark(&file, true).is_err() {
        return Ok(file);
    }
    drop(file);
    let file = File::from(openat(&target.directory, name, OPEN | OFlags::NOFOLLOW, Mode::empty())?);
    let after = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let place = |of: &rustix::fs::Statx| (of.stx_dev_major, of.stx_dev_minor, of.stx_ino);
    if place(&before) != place(&after) {
        return Err(Errno::BUSY);
    }
    if !is_direct(&after) {
        set_mark(&file, false)?;
    }
    Ok(file)
}

fn set_mark(file: &File, on: bool) -> Result<(), Errno> {
    let mut flags = ioctl_getflags(file)?;
    flags.set(DAX, on);
    ioctl_setflags(file, flags)
}

fn is_direct(found: &rustix::fs::Statx) -> bool {
    found.stx_attributes.contains(StatxAttributes::DAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(directory: &Path) -> Target {
        Target::of(&directory.join("vol")).unwrap()
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_temporary_name_becomes_the_name_and_replaces_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let (file, temporary) = target(scratch.path()).temporary_file().unwrap();
        let place = Place::Temporary(target(scratch.path()), temporary);
        place.publish(&file).unwrap();
        assert_eq!(names(scratch.path()), ["vol"]);
        let (file, temporary) = target(scratch.path()).temporary_file().unwrap();
        let place = Place::Temporary(target(scratch.path()), temporary);
        assert_eq!(place.publish(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        place.give_up();
        assert_eq!(names(scratch.path()), ["vol"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let (in_use, first) = target(scratch.path()).temporary_file().unwrap();
        let (left, second) = target(scratch.path()).temporary_file().unwrap();
        assert_ne!(first, second);
        drop(left);
        let (_file, third) = target(scratch.path()).temporary_file().unwrap();
        assert_eq!(third, second, "the name is free again");
        assert_eq!(in_use.metadata().unwrap().nlink(), 1);
        // A link is no file that an attempt left.
        fs::write(scratch.path().join("precious"), "x").unwrap();
        std::os::unix::fs::symlink("precious", scratch.path().join(".lodefs-new-2")).unwrap();
        let (_file, fourth) = target(scratch.path()).temporary_file().unwrap();
        assert_eq!(fourth, ".lodefs-new-3");
        assert_eq!(fs::read(scratch.path().join("precious")).unwrap(), b"x");
    }

    #[test]
    fn a_dangling_link_is_a_name_that_is_taken() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("vol");
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert_eq!(find(&path).unwrap_err(), Errno::NOENT);
        assert_eq!(find(&scratch.path().join("none/")).unwrap_err(), Errno::ISDIR);
        assert_eq!(names(scratch.path()), ["vol"]);
    }
}
