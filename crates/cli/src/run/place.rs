//! Where can files lie that other users must not replace?
//!
//! A directory below `/tmp` is no such place: when a cleaner removes it, any user can make another of its name. A place
//! is trusted if each directory on the way to it belongs to root or to this user, and no other user may write to it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::text::shown;

/// What the choice of places depends on.
pub(super) struct User {
    pub(super) uid: u32,
    /// Environment variables.
    pub(super) variable: fn(&str) -> Option<OsString>,
}

impl User {
    /// The places of this user, the best first. Programs of other users that root starts read files of root's first
    /// places.
    pub(super) fn places(&self) -> Vec<PathBuf> {
        let variable =
            |name: &str| (self.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut places = Vec::new();
        if self.uid == 0 {
            places.extend(ROOT_PLACES.map(PathBuf::from));
        }
        places.extend(variable("XDG_RUNTIME_DIR").map(|directory| directory.join("lodefs")));
        places.push(format!("/run/user/{}/lodefs", self.uid).into());
        places.extend(variable("XDG_CACHE_HOME").map(|directory| directory.join("lodefs")));
        places.extend(variable("HOME").map(|directory| directory.join(".cache/lodefs")));
        places.retain(|place| place.is_absolute());
        places
    }

    /// Makes the directory `path`, with all that is missing on the way, in which only this user can put files.
    /// The result names the same directory without symbolic links.
    pub(super) fn own_directory(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let is_there = |path: &&Path| fs::symlink_metadata(path).is_ok();
        let first = path.ancestors().find(is_there).context("there is no root directory")?;
        let mut directory = first.canonicalize()?;
        self.check_way(&directory)?;
        for name in path.strip_prefix(first).unwrap_or(Path::new("")) {
            directory.push(name);
            self.make(&directory)?;
            self.check(&directory)?;
        }
        if fs::symlink_metadata(&directory)?.uid() != self.uid {
            bail!("{}: belongs to another user", shown(&directory));
        }
        Ok(directory)
    }

    /// Refuses a directory, without symbolic links in its name, that another user can exchange or write to.
    pub(super) fn check_way(&self, directory: &Path) -> anyhow::Result<()> {
        directory.ancestors().try_for_each(|directory| self.check(directory))
    }

    fn check(&self, directory: &Path) -> anyhow::Result<()> {
        let found = fs::symlink_metadata(directory)?;
        if !found.is_dir() {
            bail!("{}: not a directory", shown(directory));
        }
        if found.uid() != 0 && found.uid() != self.uid {
            bail!("{}: belongs to another user", shown(directory));
        }
        if found.mode() & 0o022 != 0 {
            bail!("{}: other users may write to it", shown(directory));
        }
        Ok(())
    }

    fn make(&self, directory: &Path) -> io::Result<()> {
        // Programs that root starts may run as other users.
        let mode = if self.uid == 0 { 0o755 } else { 0o700 };
        match DirBuilder::new().mode(mode).create(directory) {
            // Whatever the mask for new files says.
            Ok(()) => fs::set_permissions(directory, Permissions::from_mode(mode)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Places that only root can make, and every user can read.
pub(super) const ROOT_PLACES: [&str; 2] = ["/run/lodefs", "/var/cache/lodefs"];

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32) -> User {
        User { uid, variable: |name| (name == "HOME").then(|| "/home/somebody".into()) }
    }

    #[test]
    fn places_that_every_user_can_make_are_none() {
        for uid in [0, 1000] {
            for place in user(uid).places() {
                assert!(!place.starts_with("/tmp") && !place.starts_with("/var/tmp"), "{}", place.display());
                assert!(!place.starts_with("/dev/shm"), "{}", place.display());
            }
        }
        assert_eq!(user(0).places()[0], Path::new("/run/lodefs"));
        assert_eq!(user(7).places()[0], Path::new("/run/user/7/lodefs"));
        let relative = User { uid: 7, variable: |_| Some("here".into()) };
        assert_eq!(relative.places(), [Path::new("/run/user/7/lodefs")]);
    }

    #[test]
    fn a_way_through_a_directory_that_others_write_to_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let owner = fs::metadata(scratch.path()).unwrap().uid();
        let open = scratch.path().join("open");
        fs::create_dir(&open).unwrap();
        for mode in [0o777, 0o1777, 0o775] {
            fs::set_permissions(&open, Permissions::from_mode(mode)).unwrap();
            let error = user(owner).check(&open).unwrap_err().to_string();
            assert!(error.contains("may write to it"), "{error}");
            assert!(user(owner).own_directory(&open.join("a/b")).is_err());
            assert!(!open.join("a").exists());
        }
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        user(owner).check(&open).unwrap();
        if owner != 0 {
            let error = user(owner + 1).check(&open).unwrap_err().to_string();
            assert!(error.contains("another user"), "{error}");
        }
    }
}
