//! What is known of a file besides its content.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use lodefs_core::{Attr, Flags, Kind, SetAttr, SetTime, Time};

/// What is known of a file, as `stat(2)` shows it.
///
/// ```
/// let volume = lodefs::Volume::in_memory(16 << 20)?;
/// volume.write("f", "12345")?;
/// let metadata = volume.metadata("f")?;
/// assert!(metadata.is_file() && metadata.len() == 5 && metadata.nlink() == 1);
/// assert!(metadata.modified() <= std::time::SystemTime::now());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata(Attr);

impl Metadata {
    pub(crate) fn new(attr: Attr) -> Self {
        Self(attr)
    }

    /// The kind of file.
    pub fn file_type(&self) -> FileType {
        FileType(self.0.kind)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type().is_dir()
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type().is_file()
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.file_type().is_symlink()
    }

    /// Size in bytes: of a regular file, its content; of a symbolic link, its target; of a directory, its blocks.
    #[expect(clippy::len_without_is_empty, reason = "as in `std::fs::Metadata`")]
    pub fn len(&self) -> u64 {
        self.0.size
    }

    /// Who may do what, once the volume is mounted.
    pub fn permissions(&self) -> Permissions {
        Permissions::from_mode(self.0.perm)
    }

    /// Type and permissions, as in `st_mode`.
    pub fn mode(&self) -> u32 {
        self.0.kind.mode_bits() | self.0.perm
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        self.0.gid
    }

    /// Number of the inode, unique within the volume as long as the file exists.
    pub fn ino(&self) -> u64 {
        self.0.ino.0
    }

    /// Differs from that of every earlier file with the same inode number.
    pub fn generation(&self) -> u32 {
        self.0.generation
    }

    /// Number of names (of a directory: two, and one for each directory in it).
    pub fn nlink(&self) -> u32 {
        self.0.links
    }

    /// Space in use, in units of 512 bytes as in `st_blocks`.
    pub fn blocks(&self) -> u64 {
        self.0.sectors
    }

    /// Device number, of a device node.
    pub fn rdev(&self) -> u32 {
        self.0.rdev
    }

    /// Persistent flags, [`Flags::DAX`] among them.
    pub fn flags(&self) -> Flags {
        self.0.flags
    }

    /// Project identifier.
    pub fn project(&self) -> u32 {
        self.0.project
    }

    /// Time of the last change of the content.
    pub fn modified(&self) -> SystemTime {
        system_time(self.0.mtime)
    }

    /// Time of the last access, kept as with the mount option `relatime`.
    pub fn accessed(&self) -> SystemTime {
        system_time(self.0.atime)
    }

    /// Time of the last change of anything.
    pub fn changed(&self) -> SystemTime {
        system_time(self.0.ctime)
    }

    /// Time of creation.
    pub fn created(&self) -> SystemTime {
        system_time(self.0.btime)
    }
}

/// The kind of a file.
///
/// ```
/// let volume = lodefs::Volume::in_memory(16 << 20)?;
/// assert!(volume.metadata("/")?.file_type().is_dir());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileType(pub(crate) Kind);

impl FileType {
    /// Whether it is a directory.
    pub fn is_dir(self) -> bool {
        self.0 == Kind::Directory
    }

    /// Whether it is a regular file.
    pub fn is_file(self) -> bool {
        self.0 == Kind::File
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(self) -> bool {
        self.0 == Kind::Symlink
    }

    /// Which of all kinds it is: also pipes, sockets and devices, which a mount may have made.
    pub fn kind(self) -> Kind {
        self.0
    }
}

/// Times to set; what is not given stays.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// let volume = lodefs::Volume::in_memory(16 << 20)?;
/// volume.write("f", "")?;
/// let then = SystemTime::UNIX_EPOCH + Duration::from_secs(5_000_000_000); // in the year 2128
/// volume.set_times("f", lodefs::FileTimes::new().set_modified(then))?;
/// assert_eq!(volume.metadata("f")?.modified(), then);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTimes {
    accessed: Option<SystemTime>,
    modified: Option<SystemTime>,
}

impl FileTimes {
    /// No time at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time of the last access.
    #[must_use]
    pub fn set_accessed(self, time: SystemTime) -> Self {
        Self { accessed: Some(time), ..self }
    }

    /// Sets the time of the last change of the content.
    #[must_use]
    pub fn set_modified(self, time: SystemTime) -> Self {
        Self { modified: Some(time), ..self }
    }

    pub(crate) fn to_change(self) -> SetAttr {
        let set = |time: Option<SystemTime>| time.map(|time| SetTime::At(stored_time(time)));
        SetAttr { atime: set(self.accessed), mtime: set(self.modified), ..SetAttr::default() }
    }
}

/// A stored time as the standard library has it. Both have 64 bits of seconds, so that every time fits.
fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.s.unsigned_abs());
    let whole = if time.s < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    let exact = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.ns.into())));
    exact.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A time of the standard library as it is stored: seconds rounded down, and nanoseconds on top.
fn stored_time(time: SystemTime) -> Time {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Time { s: seconds(after), ns: after.subsec_nanos() },
        Err(error) => {
            let before = error.duration();
            match before.subsec_nanos() {
                0 => Time { s: 0i64.saturating_sub_unsigned(before.as_secs()), ns: 0 },
                ns => Time { s: (-1i64).saturating_sub_unsigned(before.as_secs()), ns: 1_000_000_000 - ns },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_to_the_medium_and_back() {
        for s in [0, 1, -1, 1_700_000_000, -1_700_000_000, 1 << 33, i64::MAX, i64::MIN, i64::MIN + 1] {
            for ns in [0, 1, 999_999_999] {
                let time = Time { s, ns };
                assert_eq!(stored_time(system_time(time)), time);
            }
        }
    }
}
