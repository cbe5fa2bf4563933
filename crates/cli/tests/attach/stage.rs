//! A mount on which files are direct, and what tests do to its files.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lodefs_direct::{MapOptions, Mapping};
use rustix::io::Errno;

use crate::common::{Mounted, Workbench, can_mount, lodefs, on_memory, succeed};

pub(crate) const PAGE: u64 = 4096;

/// A mount for one test.
pub(crate) struct Stage {
    pub(crate) mounted: Mounted,
    pub(crate) bench: Workbench,
}

impl Stage {
    /// Mounts with these options, after `dax=always`, on what is treated as persistent memory. `None` where that cannot be.
    pub(crate) fn set_up(options: &str) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let bench = Workbench::new();
        let options = format!("dax=always,{options}");
        succeed(on_memory(&mut bench.mount_command(&["-o", &options])));
        Some(Self { mounted: Mounted { directory: bench.directory() }, bench })
    }

    /// A file of so many pages of hole.
    pub(crate) fn hole(&self, pages: u64) -> (PathBuf, File) {
        let path = self.mounted.path("f");
        let file = open(&path);
        file.set_len(pages * PAGE).unwrap();
        (path, file)
    }

    /// Unmounts, which nobody is in the way of any more, and finds the volume in order.
    pub(crate) fn tear_down(self) {
        self.mounted.unmount();
        assert!(succeed(lodefs(["fsck"]).arg(self.bench.volume())).contains("clean"));
    }
}

/// Opens a file for reading and writing; makes it if it is not there.
pub(crate) fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// The byte at this offset, through the mount.
pub(crate) fn byte(file: &File, offset: u64) -> u8 {
    let mut byte = [0];
    assert_eq!(file.read_at(&mut byte, offset).unwrap(), 1);
    byte[0]
}

/// Maps the start of a file, to write.
pub(crate) fn map(file: &File, size: usize) -> Result<Mapping, Errno> {
    lodefs_direct::map(file, &MapOptions { offset: 0, size, writable: true, sync: false })
}
