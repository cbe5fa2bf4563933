//! A hostile image where the engine can get at it, and what may have become of its bytes.

use std::cell::RefCell;

use lodefs_core::fsck::{self, Finding, Options, Report};
use lodefs_core::{Fs, OpenOptions};
use lodefs_layout::BLOCK_SIZE;
use lodefs_pmem::{Access, Medium};

use super::edit::Case;
use super::exercise::look;
use super::image::open_options;
use super::memory::bounded;
use crate::memory_file::MemoryFile;

/// Blocks behind the volume that must stay as they are.
const GUARD_BLOCKS: u64 = 16;
/// What is in them.
const GUARD: u8 = 0xc3;
/// Files that are kept for the next case.
const POOL_MAX: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<MemoryFile>> = const { RefCell::new(Vec::new()) };
}

/// A file in memory that is used again, with its pages, when it is dropped: getting pages from the system takes longer
/// than most cases.
struct Pooled(Option<MemoryFile>);

impl Pooled {
    fn of(size: u64) -> Self {
        let known = POOL.with_borrow_mut(|pool| {
            let index = pool.iter().position(|file| file.size() == size);
            index.map(|index| pool.swap_remove(index))
        });
        Self(Some(known.unwrap_or_else(|| MemoryFile::new(size).expect("there is memory for it"))))
    }

    fn file(&self) -> &MemoryFile {
        self.0.as_ref().expect("it is there until it is dropped")
    }

    fn write(&self, bytes: &[u8]) {
        self.file().write(bytes).expect("there is memory for it");
    }

    fn holds(&self, at: u64, bytes: &[u8]) -> bool {
        self.file().holds(at, bytes).expect("a file in memory can be read")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        POOL.with_borrow_mut(|pool| {
            pool.truncate(POOL_MAX - 1);
            pool.extend(self.0.take());
        });
    }
}

/// A hostile image in a file that is longer than the volume.
pub(super) struct Site {
    pub(super) case: Case,
    file: Pooled,
    before: Vec<u8>,
    /// Where the volume ends according to its superblock, in bytes.
    end: usize,
}

impl Site {
    pub(super) fn of(mut case: Case) -> Self {
        let mut before = std::mem::take(&mut case.bytes);
        if case.is_guarded {
            before.resize(before.len() + (GUARD_BLOCKS * BLOCK_SIZE) as usize, GUARD);
        }
        let file = Pooled::of(before.len() as u64);
        file.write(&before);
        let mut site = Self { case, file, before, end: 0 };
        // Where nobody can tell, all of the medium may be meant.
        let info = Fs::probe(&site.medium(Access::ReadOnly));
        let blocks = info.map_or(u64::MAX, |info| info.total_blocks);
        site.end = blocks.saturating_mul(BLOCK_SIZE).min(site.size()) as usize;
        site
    }

    /// The same image once more.
    pub(super) fn again(&self) -> Self {
        let changed = self.case.changed.clone();
        let case = Case { bytes: self.before.clone(), is_guarded: false, changed, ..self.case };
        Self::of(case)
    }

    pub(super) fn size(&self) -> u64 {
        self.before.len() as u64
    }

    pub(super) fn medium(&self, access: Access) -> Medium {
        let opened = match access {
            Access::ReadOnly => self.file.file().open_read_only(self.case.domain),
            Access::ReadWrite => self.file.file().open(self.case.domain),
        };
        opened.expect("a file in memory can be opened").with_boot_id(self.case.boot)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.file.file().read().expect("a file in memory can be read")
    }

    pub(super) fn assert_unchanged(&self) {
        assert!(self.file.holds(0, &self.before), "something was written");
    }

    pub(super) fn assert_nothing_behind_it_changed(&self) {
        let is_same = self.file.holds(self.end as u64, &self.before[self.end..]);
        assert!(is_same, "something behind the volume was written");
    }

    /// The superblocks are those that the image came with.
    pub(super) fn assert_superblocks_unchanged(&self) {
        for start in [0, self.end.saturating_sub(BLOCK_SIZE as usize)] {
            let block = &self.before[start..start + BLOCK_SIZE as usize];
            assert!(self.file.holds(start as u64, block), "a superblock was written");
        }
    }

    pub(super) fn check(&self) -> lodefs_core::Result<Report> {
        let medium = self.medium(Access::ReadOnly);
        bounded(self.size(), || fsck::check(medium, &Options::default(), &mut |_| ()))
    }

    pub(super) fn repair(&self, decide: &mut dyn FnMut(&Finding) -> bool) -> lodefs_core::Result<Report> {
        let medium = self.medium(Access::ReadWrite);
        bounded(self.size(), || fsck::repair(medium, &Options::default(), decide, &mut |_| ()))
    }

    /// Looks at the volume without changing it. The first thing that is damaged, if anything is.
    pub(super) fn look(&self) -> Option<String> {
        let options = OpenOptions { read_only: true, ..open_options() };
        bounded(self.size(), || match Fs::open(self.medium(Access::ReadOnly), &options) {
            Ok(fs) => look(&fs).damage,
            Err(error) => Some(error.to_string()),
        })
    }
}
