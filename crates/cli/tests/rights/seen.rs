//! What is there after an operation, and what the kernel enforces.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::operation::c_path;
use super::stage::NAMES;

/// What stat shows of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    inode: u64,
    mode: u16,
    uid: u32,
    gid: u32,
    links: u32,
    size: u64,
    /// Access, change of content, change.
    times: [(i64, u32); 3],
    blocks: u64,
}

/// What is compared: as [`Status`], but with times that are the same as before, those that were set, or others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    name: &'static str,
    mode: u16,
    owner: (u32, u32),
    links: u32,
    size: u64,
    moved: [&'static str; 3],
    /// `FS_XFLAG_*`.
    flags: u32,
    attributes: Vec<(String, Vec<u8>)>,
}

/// All names of a directory.
pub(crate) type Statuses = Vec<Option<Status>>;

pub(crate) fn status(directory: &Path, name: &str, sync: i32) -> Option<Status> {
    let path = c_path(directory, name);
    // SAFETY: a structure of integers may be all zeroes.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW | sync;
    let (name, mask) = (path.as_ptr(), libc::STATX_BASIC_STATS);
    // SAFETY: the path is a string that lives, and the kernel fills in the structure.
    let outcome = unsafe { libc::statx(libc::AT_FDCWD, name, flags, mask, &raw mut found) };
    let time = |time: libc::statx_timestamp| (time.tv_sec, time.tv_nsec);
    (outcome == 0).then(|| Status {
        inode: found.stx_ino,
        mode: found.stx_mode,
        uid: found.stx_uid,
        gid: found.stx_gid,
        links: found.stx_nlink,
        size: found.stx_size,
        times: [time(found.stx_atime), time(found.stx_mtime), time(found.stx_ctime)],
        blocks: found.stx_blocks,
    })
}

/// What the kernel shows, which it may remember.
pub(crate) fn remembered(directory: &Path) -> Statuses {
    NAMES.iter().map(|name| status(directory, name, 0)).collect()
}

/// What the file system says when it is asked.
pub(crate) fn asked(directory: &Path) -> Statuses {
    NAMES.iter().map(|name| status(directory, name, libc::AT_STATX_FORCE_SYNC)).collect()
}

/// Sync, immutable, append, nodump, noatime, DAX.
const FLAGS: u32 = 0x20 | IMMUTABLE | 0x10 | 0x80 | 0x40 | 0x8000;
const IMMUTABLE: u32 = 0x08;

fn flags(directory: &Path, name: &str) -> u32 {
    let file = File::open(directory.join(name)).expect("root can open it");
    let mut found = [0u32; 7];
    // SAFETY: the kernel fills in the 28 bytes of the structure.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), 0x801c_581f, found.as_mut_ptr()) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
    found[0] & FLAGS
}

impl Shown {
    /// Forgets the access time of a file. Reads that the page cache answers do not reach the server of a mount.
    pub(crate) fn forget_access(&mut self) {
        self.moved[0] = "";
    }

    /// Whether it is no file, or one with the DAX flag.
    pub(crate) fn may_be_direct(&self) -> bool {
        self.mode & 0o170_000 != 0o100_000 || self.flags & 0x8000 != 0
    }

    /// Forgets the time of the last change.
    pub(crate) fn forget_change(&mut self) {
        self.moved[2] = "";
    }

    pub(crate) fn is_immutable_f(&self) -> bool {
        self.name == "f" && self.flags & IMMUTABLE != 0
    }

    /// Whether it is the same but for capabilities, which the other one has kept.
    pub(crate) fn has_lost_capability(&self, other: &Self) -> bool {
        let kept = |(name, _): &&(String, Vec<u8>)| name != "security.capability";
        let attributes = other.attributes.iter().filter(kept).cloned().collect();
        *self == Self { moved: self.moved, attributes, ..other.clone() }
    }

    /// Whether it is the same but for set-id bits, which the other one has kept.
    pub(crate) fn has_lost_set_id(&self, other: &Self) -> bool {
        let lost = other.mode & 0o6000 & !self.mode;
        lost != 0 && Self { mode: self.mode | lost, moved: other.moved, ..self.clone() } == *other
    }
}

/// What is compared with the other file system.
pub(crate) fn shown(directory: &Path, before: &Statuses, after: &Statuses) -> Vec<Shown> {
    let mut shown = Vec::new();
    for (name, after) in NAMES.iter().zip(after) {
        let Some(after) = after else { continue };
        // It may have had another name.
        let before = before.iter().flatten().find(|before| before.inode == after.inode);
        let is_directory = after.mode & 0o170_000 == 0o040_000;
        let is_file = after.mode & 0o170_000 == 0o100_000;
        let moved = [0, 1, 2].map(|which| {
            let old = before.map(|before| before.times[which]);
            match after.times[which] {
                (12345, _) => "set",
                time if old == Some(time) => "kept",
                _ => "moved",
            }
        });
        shown.push(Shown {
            name,
            mode: after.mode,
            owner: (after.uid, after.gid),
            links: after.links,
            size: if is_directory { 0 } else { after.size },
            moved,
            flags: if is_directory || is_file { flags(directory, name) } else { 0 },
            attributes: attributes(directory, name),
        });
    }
    shown
}

/// The first difference between what two file systems show.
pub(crate) fn difference(ours: &[Shown], theirs: &[Shown]) -> String {
    let names = |shown: &[Shown]| shown.iter().map(|shown| shown.name).collect::<Vec<_>>();
    if names(ours) != names(theirs) {
        return format!("names {:?}, on XFS {:?}", names(ours), names(theirs));
    }
    let Some((ours, theirs)) = ours.iter().zip(theirs).find(|(ours, theirs)| ours != theirs) else {
        return "nothing".into();
    };
    let mut differences = vec![format!("{:?}:", ours.name)];
    let mut compare = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            differences.push(format!("{what} {ours}, on XFS {theirs};"));
        }
    };
    compare("mode", format!("{:o}", ours.mode), format!("{:o}", theirs.mode));
    compare("owner", format!("{:?}", ours.owner), format!("{:?}", theirs.owner));
    compare("links", ours.links.to_string(), theirs.links.to_string());
    compare("size", ours.size.to_string(), theirs.size.to_string());
    compare("flags", format!("{:x}", ours.flags), format!("{:x}", theirs.flags));
    compare("times", format!("{:?}", ours.moved), format!("{:?}", theirs.moved));
    compare("attributes", format!("{:?}", ours.attributes), format!("{:?}", theirs.attributes));
    differences.join(" ")
}

/// What `f` was before a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    pub(crate) had_capability: bool,
    /// It was immutable or append-only.
    pub(crate) had_flags: bool,
    pub(crate) was_empty: bool,
}

impl Before {
    pub(crate) fn of(directory: &Path) -> Self {
        let mut value = [0u8; 64];
        let path = directory.join("f");
        let size = std::fs::metadata(&path).map_or(1, |found| found.len());
        let is_there = path.exists();
        Self {
            had_capability: rustix::fs::lgetxattr(&path, "security.capability", &mut value[..]).is_ok(),
            had_flags: is_there && flags(directory, "f") & (IMMUTABLE | 0x10) != 0,
            was_empty: size == 0,
        }
    }
}

fn attributes(directory: &Path, name: &str) -> Vec<(String, Vec<u8>)> {
    let path = directory.join(name);
    let mut list = [0u8; 1024];
    let size = rustix::fs::llistxattr(&path, &mut list[..]).expect("the names of attributes");
    let mut found: Vec<_> = list[..size]
        .split(|byte| *byte == 0)
        // XFS lists its own form of ACLs, too.
        .filter(|name| !name.is_empty() && !name.starts_with(b"trusted.SGI_ACL"))
        .map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = [0u8; 1024];
            let size = rustix::fs::lgetxattr(&path, name.as_str(), &mut value[..]).expect("a value");
            (name, value[..size].to_vec())
        })
        .collect();
    found.sort();
    found
}

/// Which of reading, writing and executing `f` the kernel allows the calling thread, by its effective rights.
pub(crate) fn allowed(directory: &Path) -> [bool; 3] {
    let path = c_path(directory, "f");
    [libc::R_OK, libc::W_OK, libc::X_OK].map(|mode| {
        // SAFETY: the path is a string that lives.
        let outcome = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) };
        outcome == 0
    })
}
