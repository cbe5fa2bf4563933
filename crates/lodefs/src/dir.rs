//! A directory to start paths from, and what can be done to the files below it: content and attributes.
//!
//! Names (making, removing, renaming) are in [`crate::names`].

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io::{self, Read};
use std::path::Path;

use lodefs_core::{Flags, Kind, NewInode, NewKind, SetAttr, XattrMode};
use rustix::io::Errno;

use crate::attributes;
use crate::file::{Access, File};
use crate::metadata::{FileTimes, Metadata};
use crate::open_options::OpenOptions;
use crate::path::{AtEnd, resolve, resolve_if_any};
use crate::read_dir::ReadDir;
use crate::shared::{Credentials, Held};
use crate::walk::Walk;

/// An open directory.
///
/// It is what the functions of [`std::fs`] are methods of. Paths start in this directory; with a slash at the start,
/// in the volume's root. This is no sandbox: `..` leads to the parent, and symbolic links lead wherever they say. A
/// [`Volume`](crate::Volume) stands for its root directory.
///
/// A `Dir` keeps the volume open, and stays what it is if the directory is renamed. To open one saves walking a long
/// path again and again.
///
/// ```
/// use lodefs::Volume;
///
/// let volume = Volume::in_memory(16 << 20)?;
/// volume.create_dir_all("var/log")?;
/// let logs = volume.open_dir("var/log")?;
/// logs.write("today", "nothing happened")?;
/// assert_eq!(volume.read_to_string("var/log/today")?, "nothing happened");
/// assert!(logs.exists("../log/today")? && logs.exists("/var")?);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # What is durable when
/// Every change of names or attributes is atomic: after a crash of the program or of the host it has happened or not.
/// On `cpu-cache` and `memory-controller` volumes it is durable when it returns; on `page` volumes after
/// [`File::sync_all`] or [`Volume::sync`](crate::Volume::sync).
///
/// # Errors
/// What a system call would say ([`io::Error::raw_os_error`]), for example: `ENOENT` nothing there, `ENOTDIR` a file
/// in the place of a directory, `EISDIR` the reverse, `EEXIST`, `ENOTEMPTY`, `ELOOP` more than 40 symbolic links on
/// the way, `ENAMETOOLONG` a name of more than 255 bytes, `EINVAL` a name with a zero byte, `EPERM` a file that is
/// immutable or append-only, `ENOSPC`, `EROFS` opened read-only, or closed. Anything more is an [`Error`](crate::Error)
/// inside ([`engine_error`](crate::engine_error)).
#[derive(Clone)]
pub struct Dir {
    pub(crate) held: Held,
    pub(crate) credentials: Credentials,
}

impl std::fmt::Debug for Dir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dir")
            .field("ino", &self.held.ino().0)
            .field("credentials", &self.credentials)
            .finish()
    }
}

impl Dir {
    /// Opens the directory at `path`.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> io::Result<Self> {
        let held = self.find(path.as_ref(), AtEnd::Follow)?;
        if held.kind() != Kind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        Ok(Self { held, credentials: self.credentials })
    }

    /// The same directory for somebody else: what is made below it belongs to them.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        Self { held: self.held.clone(), credentials }
    }

    /// Who owns what is made below this directory.
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// Whether the path leads anywhere.
    pub fn exists(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        Ok(resolve_if_any(&self.held, path.as_ref(), AtEnd::Follow)?.is_some())
    }

    /// What is known of the file that the path leads to.
    pub fn metadata(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        attributes::metadata(&resolve(&self.held, path.as_ref(), AtEnd::Follow)?)
    }

    /// Like [`metadata`](Self::metadata); of the symbolic link itself, if there is one at the end.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        attributes::metadata(&resolve(&self.held, path.as_ref(), AtEnd::Stay)?)
    }

    /// All entries of a directory, without `.` and `..`, in no particular order.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> io::Result<ReadDir> {
        let path = path.as_ref();
        ReadDir::open(self.open_dir(path)?, path)
    }

    /// Everything below a directory, each directory before what is in it. Symbolic links are not followed.
    pub fn walk(&self, path: impl AsRef<Path>) -> io::Result<Walk> {
        Walk::open(self, path.as_ref())
    }

    /// The content of a file.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(self, path)?.into_cursor().read_to_end(&mut content)?;
        Ok(content)
    }

    /// The content of a file that is UTF-8. `InvalidData` if it is not.
    pub fn read_to_string(&self, path: impl AsRef<Path>) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Makes `content` all that is in a file, which is made if there is none. A crash in the middle leaves less; see
    /// the example `checkpoint` for how to replace a file as a whole.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> io::Result<()> {
        File::create(self, path)?.write_all_at(content.as_ref(), 0)
    }

    /// Copies content and permissions of a file to another, which is made or emptied. Returns the number of bytes.
    /// `EINVAL` if both paths lead to one file.
    pub fn copy(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<u64> {
        let source = File::open(self, from)?;
        let metadata = source.metadata()?;
        let to = to.as_ref();
        let present = resolve_if_any(&self.held, to, AtEnd::Follow)?;
        if present.is_some_and(|node| node.ino() == source.held.ino()) {
            return Err(Errno::INVAL.into());
        }
        let mut options = OpenOptions::new();
        let target =
            options.write(true).create(true).truncate(true).mode(metadata.mode() & 0o777).open(self, to)?;
        let mut copied = 0;
        while copied < metadata.len() {
            match source.copy_range(copied, &target, copied, metadata.len() - copied)? {
                0 => break,
                part => copied += part,
            }
        }
        target.set_permissions(metadata.permissions())?;
        Ok(copied)
    }

    /// A file without a name, open for reading and writing. It is gone when it is closed, or when the program
    /// crashes, unless [`link_file`](Self::link_file) gives it a name before.
    ///
    /// ```
    /// let volume = lodefs::Volume::in_memory(16 << 20)?;
    /// let file = volume.tmpfile()?;
    /// file.write_all_at(b"complete from the start", 0)?;
    /// volume.link_file(&file, "name")?;
    /// assert_eq!(volume.read("name")?, b"complete from the start");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn tmpfile(&self) -> io::Result<File> {
        let node = self.held.fs().tmpfile(&self.held, &self.new_inode(NewKind::File, 0o600))?;
        Ok(File::new(self.held.with(node), Access::ALL, self.credentials))
    }

    /// Sets who may do what, once the volume is mounted.
    #[expect(clippy::needless_pass_by_value, reason = "as in the standard library")]
    pub fn set_permissions(&self, path: impl AsRef<Path>, permissions: Permissions) -> io::Result<()> {
        self.change(path.as_ref(), AtEnd::Follow, &attributes::permissions_change(&permissions))
    }

    /// Sets owner and group; what is `None` stays. A symbolic link at the end is not followed.
    pub fn set_owner(&self, path: impl AsRef<Path>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        self.change(path.as_ref(), AtEnd::Stay, &SetAttr { uid, gid, ..SetAttr::default() })
    }

    /// Sets times.
    pub fn set_times(&self, path: impl AsRef<Path>, times: FileTimes) -> io::Result<()> {
        self.change(path.as_ref(), AtEnd::Follow, &times.to_change())
    }

    fn change(&self, path: &Path, at_end: AtEnd, change: &SetAttr) -> io::Result<()> {
        self.held.fs().set_attr(&resolve(&self.held, path, at_end)?, change)?;
        Ok(())
    }

    /// Sets the persistent flags of a regular file or directory (`EINVAL` for others); those that are not named are
    /// cleared. [`Metadata::flags`] tells them.
    ///
    /// ```
    /// use lodefs::{Flags, Volume};
    ///
    /// let volume = Volume::in_memory(16 << 20)?;
    /// volume.create_dir("direct")?;
    /// volume.set_flags("direct", Flags::DAX)?; // what is made in it inherits the flag
    /// volume.write("direct/f", "")?;
    /// assert!(volume.metadata("direct/f")?.flags().contains(Flags::DAX));
    ///
    /// volume.set_flags("direct/f", Flags::IMMUTABLE)?;
    /// let refused = volume.remove_file("direct/f").unwrap_err();
    /// assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_flags(&self, path: impl AsRef<Path>, flags: Flags) -> io::Result<()> {
        let node = resolve(&self.held, path.as_ref(), AtEnd::Follow)?;
        Ok(self.held.fs().set_flags(&node, flags, None)?)
    }

    /// The value of an extended attribute; `None` if there is none of that name.
    ///
    /// ```
    /// let volume = lodefs::Volume::in_memory(16 << 20)?;
    /// volume.write("f", "")?;
    /// volume.set_xattr("f", "user.origin", "import")?;
    /// assert_eq!(volume.xattr("f", "user.origin")?.as_deref(), Some(&b"import"[..]));
    /// assert_eq!(volume.xattr("f", "user.other")?, None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn xattr(&self, path: impl AsRef<Path>, name: impl AsRef<OsStr>) -> io::Result<Option<Vec<u8>>> {
        attributes::xattr(&resolve(&self.held, path.as_ref(), AtEnd::Follow)?, name.as_ref())
    }

    /// Sets an extended attribute, whether it exists or not. Names start with `user.`, `trusted.`, `security.` or
    /// are one of the two of POSIX ACLs; values have at most 64 KiB.
    pub fn set_xattr(
        &self,
        path: impl AsRef<Path>,
        name: impl AsRef<OsStr>,
        value: impl AsRef<[u8]>,
    ) -> io::Result<()> {
        self.set_xattr_with(path, name, value, XattrMode::Set)
    }

    /// Sets an extended attribute that must exist (else `ENODATA`), or that must not (else `EEXIST`).
    pub fn set_xattr_with(
        &self,
        path: impl AsRef<Path>,
        name: impl AsRef<OsStr>,
        value: impl AsRef<[u8]>,
        mode: XattrMode,
    ) -> io::Result<()> {
        let node = resolve(&self.held, path.as_ref(), AtEnd::Follow)?;
        attributes::set_xattr(&node, name.as_ref(), value.as_ref(), mode)
    }

    /// The names of all extended attributes.
    pub fn xattr_names(&self, path: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        attributes::xattr_names(&resolve(&self.held, path.as_ref(), AtEnd::Follow)?)
    }

    /// Removes an extended attribute. `ENODATA` if there is none of that name.
    pub fn remove_xattr(&self, path: impl AsRef<Path>, name: impl AsRef<OsStr>) -> io::Result<()> {
        attributes::remove_xattr(&resolve(&self.held, path.as_ref(), AtEnd::Follow)?, name.as_ref())
    }

    pub(crate) fn find(&self, path: &Path, at_end: AtEnd) -> io::Result<Held> {
        Ok(self.held.with(resolve(&self.held, path, at_end)?))
    }

    /// An inode to make, owned by whom this directory acts for.
    pub(crate) fn new_inode<'k>(&self, kind: NewKind<'k>, perm: u32) -> NewInode<'k> {
        let Credentials { uid, gid, umask } = self.credentials;
        NewInode { kind, perm, umask, uid, gid }
    }
}
