//! The two file systems that are compared, and what is made on them before each case.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::{Mounted, Workbench, can_mount, on_memory, succeed};
use super::operation::{Attribute, Operation, set_extended};
use super::person::{GROUP, OWNER};

/// A volume, and XFS on a loop device.
pub(crate) struct Stage {
    pub(crate) ours: PathBuf,
    pub(crate) theirs: PathBuf,
    _loop: LoopMount,
    _mounted: Mounted,
    _bench: Workbench,
}

struct LoopMount(PathBuf);

impl Drop for LoopMount {
    fn drop(&mut self) {
        // A test that fails leaves it to this.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

impl Stage {
    /// `None` where nothing can be mounted.
    pub(crate) fn new() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let bench = Workbench::new();
        let (image, theirs) = (bench.path("xfs.image"), bench.path("xfs"));
        File::create(&image).and_then(|file| file.set_len(512 << 20)).expect("a sparse file");
        succeed(Command::new("mkfs.xfs").arg("-q").arg(&image));
        fs::create_dir(&theirs).expect("a directory");
        succeed(Command::new("mount").args(["-t", "xfs", "-o", "loop"]).arg(&image).arg(&theirs));
        let loop_mount = LoopMount(theirs.clone());
        succeed(on_memory(&mut bench.mount_command(&[])));
        let mounted = Mounted { directory: bench.directory() };
        for path in [bench.path(""), theirs.clone(), mounted.directory.clone()] {
            set_mode(&path, 0o755);
        }
        let ours = mounted.directory.clone();
        Some(Self { ours, theirs, _loop: loop_mount, _mounted: mounted, _bench: bench })
    }

    pub(crate) fn sides(&self) -> [&Path; 2] {
        [&self.ours, &self.theirs]
    }
}

/// What there is before a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixture {
    mode: u32,
    directory: u32,
    directory_owner: u32,
    pub(crate) attribute: Option<Attribute>,
    has_default_acl: bool,
    pub(crate) is_direct: bool,
}

const MODES: [u32; 12] =
    [0o644, 0o666, 0o777, 0o600, 0o4777, 0o6777, 0o2777, 0o2666, 0o6666, 0o4755, 0o2646, 0o6767];
const DIRECTORIES: [(u32, u32); 5] =
    [(0o777, OWNER), (0o1777, 0), (0o2777, OWNER), (0o755, OWNER), (0o3777, 7)];
const ATTRIBUTES: [Option<Attribute>; 5] =
    [None, None, Some(Attribute::Acl), Some(Attribute::Capability), Some(Attribute::User)];

/// The names that are looked at after each operation.
pub(crate) const NAMES: [&str; 8] = [".", "f", "g", "new", "sub", "sub/new", "new/new", "s"];

impl Fixture {
    /// How many there are.
    pub(crate) const ALL: u64 = 2400;

    /// One of them, by a number.
    pub(crate) fn of(number: u64) -> Self {
        let pick = |among: usize, divisor: u64| (number / divisor % among as u64) as usize;
        let (directory, directory_owner) = DIRECTORIES[pick(5, 24)];
        Self {
            mode: MODES[pick(12, 2)],
            directory,
            directory_owner,
            attribute: ATTRIBUTES[pick(5, 120)],
            has_default_acl: pick(4, 600) == 3,
            is_direct: number.is_multiple_of(2),
        }
    }

    /// Makes it in a new directory.
    pub(crate) fn make(&self, directory: &Path) {
        fs::create_dir(directory).expect("a directory");
        if self.is_direct {
            make_direct(directory);
        }
        for (name, size) in [("f", 5000), ("g", 3000)] {
            fs::write(directory.join(name), vec![name.as_bytes()[0]; size]).expect("a file");
            chown(directory.join(name), Some(OWNER), Some(GROUP)).expect("an owner");
        }
        symlink("f", directory.join("s")).expect("a symbolic link");
        fs::create_dir(directory.join("sub")).expect("a directory");
        set_mode(&directory.join("sub"), 0o777);
        chown(directory.join("sub"), Some(OWNER), Some(GROUP)).expect("an owner");
        if let Some(attribute) = self.attribute {
            set_as_root(directory, attribute);
        }
        set_mode(&directory.join("f"), self.mode);
        set_mode(&directory.join("g"), 0o666);
        // Long ago, so that the next read moves the access time.
        let time = rustix::fs::Timespec { tv_sec: 12000, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        for name in ["f", "g"] {
            let (at, none) = (directory.join(name), rustix::fs::AtFlags::empty());
            rustix::fs::utimensat(rustix::fs::CWD, at, &times, none).expect("times");
        }
        if self.has_default_acl {
            set_as_root(directory, Attribute::DefaultAcl);
        }
        chown(directory, Some(self.directory_owner), Some(GROUP)).expect("an owner");
        set_mode(directory, self.directory);
    }
}

/// Has what is made in a directory be direct.
pub(crate) fn make_direct(directory: &Path) {
    let opened = File::open(directory).expect("the directory can be opened");
    assert_eq!(set_extended(opened.as_raw_fd(), 0x8000), 0, "{}", std::io::Error::last_os_error());
}

fn set_as_root(directory: &Path, attribute: Attribute) {
    let set = Operation::SetAttribute(attribute);
    assert_eq!(set.perform(directory, [-1, -1]), Ok(0), "{set:?}");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

/// Removes what a case has left.
pub(crate) fn remove(directory: &Path) {
    for name in NAMES {
        let path = directory.join(name);
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() || found.is_dir()) {
            // Nothing else has flags.
            let opened = OpenOptions::new().read(true).open(&path).expect("root can open it");
            set_extended(opened.as_raw_fd(), 0);
        }
    }
    for name in ["sub/new", "new/new", "new", "f", "g", "s"] {
        let path = directory.join(name);
        if fs::remove_file(&path).is_err() && path.is_dir() {
            fs::remove_dir(&path).expect("an empty directory");
        }
    }
    if directory.join("sub").exists() {
        fs::remove_dir(directory.join("sub")).expect("an empty directory");
    }
    fs::remove_dir(directory).expect("all has been removed");
}
