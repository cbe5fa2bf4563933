//! What the file system under test can do at all, so that only that is asked of it.

use std::path::Path;

use crate::model::Leniency;
use crate::operation::xflag;

/// Bounds of the operations that are generated for a kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Name by which it is chosen.
    pub name: &'static str,
    /// Flags that may be set.
    pub xflags: u32,
    /// Offsets and sizes far away that are worth trying.
    pub far: &'static [u64],
    /// Whether files without a name can be made (`O_TMPFILE`).
    pub tmpfile: bool,
    /// Whether fallocate zeroes ranges.
    pub zero_range: bool,
    /// Longest target of a symbolic link that is tried.
    pub symlink_max: usize,
    /// Largest extended attribute.
    pub xattr_max: u32,
    /// Whether the times have to move exactly when they do on XFS.
    pub times: bool,
    /// What is forgiven.
    pub leniency: Leniency,
}

/// Offsets that any file system with 64-bit sizes knows.
const MIDDLE: [u64; 4] = [(1 << 31) - 1, 1 << 32, 1 << 40, (1 << 43) + 1];

const FAR: &[u64] = &[
    MIDDLE[0],
    MIDDLE[1],
    MIDDLE[2],
    MIDDLE[3],
    1 << 44,
    1 << 62,
    (1 << 63) - 8192,
    (1 << 63) - 4097,
    (1 << 63) - 4096,
    (1 << 63) - 2,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

impl Profile {
    /// lodefs: everything.
    pub const LODEFS: Self = Self {
        name: "lodefs",
        xflags: xflag::ALL,
        far: FAR,
        tmpfile: true,
        zero_range: true,
        symlink_max: 4096,
        xattr_max: (1 << 16) + 1,
        times: true,
        leniency: Leniency {
            out_of_space: false,
            blind_at_end: false,
            exist_for_not_empty: false,
            flags_last: false,
            emptying_touches: false,
        },
    };
    /// lodefs through its mount: the FUSE library has no request for `O_TMPFILE`.
    pub const MOUNT: Self = Self {
        name: "mount",
        tmpfile: false,
        leniency: Leniency { flags_last: true, emptying_touches: true, ..Self::LODEFS.leniency },
        ..Self::LODEFS
    };
    /// XFS, by which the model was made: it only has shorter symbolic links, and its own way with ENOTEMPTY.
    pub const XFS: Self = Self {
        name: "xfs",
        symlink_max: 1023,
        leniency: Leniency { blind_at_end: true, exist_for_not_empty: true, ..Self::LODEFS.leniency },
        ..Self::LODEFS
    };
    /// ext4: smaller files and attributes; an immutable file also refuses writes through what is open already.
    pub const EXT4: Self = Self {
        name: "ext4",
        xflags: xflag::ALL & !xflag::IMMUTABLE,
        far: &MIDDLE,
        symlink_max: 4095,
        xattr_max: 500,
        times: false,
        ..Self::LODEFS
    };
    /// tmpfs: no DAX, no zeroing of ranges, and small attributes.
    pub const TMPFS: Self =
        Self { name: "tmpfs", xflags: xflag::ALL & !xflag::DAX, zero_range: false, ..Self::EXT4 };

    /// All of them.
    pub const ALL: [Self; 5] = [Self::LODEFS, Self::MOUNT, Self::XFS, Self::EXT4, Self::TMPFS];

    /// Whether files may reach up to the last offset, and fallocate takes sizes that no volume has.
    pub fn is_unlimited(&self) -> bool {
        self.far.contains(&(1 << 62))
    }

    /// The profile called `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }

    /// The profile of the file system that `directory` is on; everything unknown is taken for a mount of
    /// lodefs.
    pub fn of_directory(directory: &Path) -> rustix::io::Result<Self> {
        Ok(match rustix::fs::statfs(directory)?.f_type {
            0x5846_5342 => Self::XFS,
            0xef53 => Self::EXT4,
            0x0102_1994 => Self::TMPFS,
            _ => Self::MOUNT,
        })
    }
}
