//! The files and descriptors of one side.

use std::ffi::{CString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The files.
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];
/// Descriptors by which they are open, or not.
pub(crate) const SLOTS: usize = 6;

/// One side.
#[derive(Clone)]
pub(crate) struct Side {
    place: PathBuf,
    /// In each table of descriptors, their numbers; -1 if it is not open.
    pub(crate) slots: [[c_int; SLOTS]; 2],
    /// Those of them that were opened or copied in a way that the library does not see.
    pub(crate) unseen: [[bool; SLOTS]; 2],
}

impl Side {
    pub(crate) fn new(place: &Path) -> Self {
        for name in NAMES {
            std::fs::write(place.join(name), [b'0'; 5000]).unwrap();
        }
        Self { place: place.to_path_buf(), slots: [[-1; SLOTS]; 2], unseen: [[false; SLOTS]; 2] }
    }

    pub(crate) fn path(&self, file: usize) -> CString {
        CString::new(self.place.join(NAMES[file]).as_os_str().as_bytes()).unwrap()
    }
}
