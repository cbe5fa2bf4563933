//! A mapped volume and everything that can be done to its bytes.
//!
//! Three protocols hide behind one set of functions:
//!
//! | domain              | fresh bytes                   | fence   | metadata                 | sync, settle      |
//! |---------------------|-------------------------------|---------|--------------------------|-------------------|
//! | `memory-controller` | streamed, or stored + flushed | `sfence`| in place, flushed later  | flush + `sfence`  |
//! | `cpu-cache`         | stored                        | `sfence`| in place                 | `sfence`          |
//! | `page`              | stored (shared mapping)       | -       | private copies of pages  | copy in + msync   |
//! | `volatile`          | stored                        | -       | in place                 | -                 |
//!
//! Rules for the caller, which no type can see:
//! - ranges that are used at the same time by several threads, one of which changes them, are under the caller's
//!   locks (else a read may see a mixture; nothing worse happens);
//! - a 4 KiB page that was changed with `store_meta` is not given to `write` or `zero` before a settle that includes
//!   it has been released (on media with an overlay this is checked: `MediumError::UnderMetadata`);
//! - `store_meta` is excluded during `stage` and `release`.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lodefs_sync::{Mutex, point};

use crate::domain::{Domain, DomainReport, MediumKind};
use crate::error::MediumError;
use crate::evidence::{
    Dirty, DirtyRanges, Durable, Flushed, LINE_SIZE, Ordered, PAGE_SIZE, Settled, Staged, StagedWhat,
};
use crate::flush::WriteBack;
use crate::lock::LockedFile;
use crate::losses::{Fault, Losses};
use crate::mapping::{Mapping, Refused};
use crate::overlay::Overlay;
use crate::recording::{Recording, What};
use crate::store::{Content, HOST_ZEROES_FROM, Piece};

/// What makes a store durable on this medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Leaving the caches, then a fence.
    WriteBack(WriteBack),
    /// A fence.
    Fence,
    /// Nothing that the processor can do.
    None,
}

/// A mapped volume.
#[derive(Debug)]
pub struct Medium {
    pub(crate) shared: Mapping,
    pub(crate) overlay: Option<Overlay>,
    /// Of both mappings.
    pub(crate) losses: Arc<Losses>,
    pub(crate) protocol: Protocol,
    pub(crate) recording: Option<Recording>,
    pub(crate) report: DomainReport,
    pub(crate) read_only: bool,
    /// Below the mappings, so that they are gone when it is unlocked.
    pub(crate) file: LockedFile,
    pub(crate) path: Option<PathBuf>,
    pub(crate) boot_id: [u8; 16],
    /// Whether a write-back failed. The host may have forgotten what it could not write, and tells of it only once, so
    /// no later one can be believed. Held during a write-back, so that no other returns before this is known.
    pub(crate) failed: Mutex<bool>,
}

impl Medium {
    /// Bytes in the medium.
    pub fn size(&self) -> u64 {
        self.shared.size() as u64
    }

    /// What makes stores durable here.
    #[inline]
    pub fn domain(&self) -> Domain {
        self.report.domain
    }

    /// What the medium is and how its domain is known.
    pub fn report(&self) -> &DomainReport {
        &self.report
    }

    /// Whether the medium itself cannot be changed. Metadata can, in memory, where there is an overlay.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The path that was opened; `None` for memory of this process.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Identifies the boot of the host: as long as it is the same, everything stored is still in the host's memory.
    /// All zero if unknown.
    pub fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }

    /// The same medium as if found by another boot of the host: for tests of recovery.
    #[must_use]
    pub fn with_boot_id(mut self, boot_id: [u8; 16]) -> Self {
        self.boot_id = boot_id;
        self
    }

    /// A descriptor of the medium, for another process to map it. As long as somebody has one, or a mapping made with it, nobody
    /// else can open the medium to write.
    pub fn share(&self, writable: bool) -> Result<OwnedFd, MediumError> {
        if writable && self.read_only {
            return Err(MediumError::ReadOnly { name: self.name() });
        }
        self.file.share(writable).map_err(|source| self.io_error("share it", source))
    }

    /// The inode number of its file or device on the host, as lists of mappings show it.
    pub fn host_inode(&self) -> Result<u64, MediumError> {
        let metadata = self.file.metadata().map_err(|source| self.io_error("look at it", source))?;
        Ok(metadata.ino())
    }

    /// Whether any page of it can be mapped by itself, at 4 KiB.
    pub fn maps_single_pages(&self) -> bool {
        self.shared.unit() as u64 == PAGE_SIZE
    }

    /// Notes a position in the log of a recorded medium; does nothing on others.
    pub fn mark(&self, number: u64) {
        let _held = self.log(|| What::Mark(number));
    }

    /// Copies `into.len()` bytes of file data out, from `at` on.
    #[inline]
    pub fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediumError> {
        match self.shared.span(at, into.len()) {
            Ok(span) => {
                self.log_read(at, into.len());
                point();
                span.copy_out(into);
                self.check_kept(at, into.len() as u64)
            }
            Err(refused) => Err(self.refused(refused, at, into.len() as u64)),
        }
    }

    /// Copies `into.len()` bytes of metadata out, from `at` on, as `store_meta` left them.
    #[inline]
    pub fn read_meta(&self, at: u64, into: &mut [u8]) -> Result<(), MediumError> {
        match self.metadata().span(at, into.len()) {
            Ok(span) => {
                self.log_read(at, into.len());
                point();
                span.copy_out(into);
                self.check_kept(at, into.len() as u64)
            }
            Err(refused) => Err(self.refused(refused, at, into.len() as u64)),
        }
    }

    /// Stores fresh bytes and starts their write-back. Fastest if start and end are multiples of a cache line (64).
    #[inline]
    #[track_caller]
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<Flushed, MediumError> {
        self.store(at, Content::Bytes(bytes))
    }

    /// Like [`write`](Self::write), with `size` zeroes. Large ranges of a file behind a page cache are left to the
    /// host's file system, which sets room aside for them without writing them.
    #[inline]
    #[track_caller]
    pub fn zero(&self, at: u64, size: u64) -> Result<Flushed, MediumError> {
        if size >= HOST_ZEROES_FROM && self.zero_by_host(at, size)? {
            return Ok(Flushed::new());
        }
        self.store(at, Content::Zeroes(size as usize))
    }

    /// The evidence of an operation that wrote no fresh bytes.
    #[inline]
    pub fn nothing_flushed() -> Flushed {
        Flushed::nothing()
    }

    /// Orders what was flushed before everything that follows. Costs nothing if that is nothing. Refused once a page of
    /// the medium is lost: what was stored may have gone there.
    #[inline]
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "the evidence is used up")]
    pub fn fence(&self, flushed: Flushed) -> Result<Ordered, MediumError> {
        if flushed.pending {
            self.fence_stores();
        }
        self.check_whole()?;
        Ok(Ordered::new())
    }

    /// Changes metadata in place, after the journal record that explains the change was fenced. Not flushed: the
    /// journal has it until the change is settled. With an overlay the change goes there, also on a read-only medium.
    #[inline]
    #[track_caller]
    pub fn store_meta(&self, at: u64, bytes: &[u8], explained: &Ordered) -> Result<Dirty, MediumError> {
        let Ordered { .. } = explained;
        point();
        let stored = match &self.overlay {
            Some(overlay) => overlay.store(at, bytes),
            None => self.shared.span_mut(at, bytes.len()).map(|span| {
                self.store_cached(Piece { at, span, content: Content::Bytes(bytes) });
            }),
        };
        match stored {
            Ok(()) => Ok(Dirty::covering(at, bytes.len())),
            Err(refused) => Err(self.refused(refused, at, bytes.len() as u64)),
        }
    }

    /// Makes what was flushed, and everything that was fenced before, survive a power failure, as far as the medium can.
    ///
    /// Where a fence does that, whatever was fenced before is durable already, by whichever thread.
    #[track_caller]
    pub fn sync(&self, flushed: Flushed) -> Result<Durable, MediumError> {
        self.check_still_whole()?;
        let _in_order = self.fence(flushed)?;
        if self.domain() == Domain::Page && !self.read_only {
            self.sync_pages()?;
        }
        Ok(Durable::new())
    }

    /// Takes changed metadata as it is now, to be settled. The caller excludes `store_meta` meanwhile.
    pub fn stage(&self, dirty: DirtyRanges) -> Staged {
        let what = match &self.overlay {
            Some(overlay) => StagedWhat::Copied(overlay.stage(&dirty)),
            None => StagedWhat::InPlace(dirty),
        };
        Staged { what }
    }

    /// Brings staged metadata to the medium, after the records that explain it became durable. Everything else that
    /// was written and fenced becomes durable with it.
    #[track_caller]
    pub fn settle(&self, staged: Staged, explained: &Durable) -> Result<(Settled, Durable), MediumError> {
        let Durable { .. } = explained;
        if self.read_only {
            return Err(self.refused(Refused::ReadOnly, 0, 0));
        }
        // What was staged may have been an empty page.
        self.check_whole()?;
        let pages = match staged.what {
            StagedWhat::InPlace(dirty) => {
                self.write_back_all(&dirty)?;
                Vec::new()
            }
            StagedWhat::Copied(pages) => {
                for (at, bytes) in pages.iter() {
                    match self.shared.span_mut(at, bytes.len()) {
                        Ok(span) => self.store_cached(Piece { at, span, content: Content::Bytes(bytes) }),
                        Err(refused) => return Err(self.refused(refused, at, bytes.len() as u64)),
                    }
                }
                pages.into_runs()
            }
        };
        Ok((Settled { pages }, self.sync(Flushed::new())?))
    }

    /// Drops what was kept privately of settled metadata, but for what is dirty again. The caller excludes
    /// `store_meta` meanwhile.
    #[expect(clippy::needless_pass_by_value, reason = "the evidence is used up")]
    pub fn release(&self, settled: Settled, still_dirty: &DirtyRanges) {
        if let Some(overlay) = &self.overlay {
            // A copy that cannot be dropped (locked memory) says the same as what is shared, and stays guarded.
            let _ = overlay.release(&settled.pages, still_dirty);
        }
    }

    /// Refuses once any page of the medium could not be provided by the host, from when on nothing more can be stored. What
    /// was in intact pages can still be read.
    #[inline]
    pub fn check_whole(&self) -> Result<(), MediumError> {
        if self.losses.any() { Err(self.loss()) } else { Ok(()) }
    }

    /// Refuses if any of these bytes, which were accessed, is lost.
    #[inline]
    pub(crate) fn check_kept(&self, at: u64, size: u64) -> Result<(), MediumError> {
        if self.losses.any() { self.check_not_lost(at, size) } else { Ok(()) }
    }

    #[cold]
    fn check_not_lost(&self, at: u64, size: u64) -> Result<(), MediumError> {
        let error = self.loss();
        if self.losses.meets(at, size) { Err(error) } else { Ok(()) }
    }

    /// Why there are lost pages.
    #[cold]
    fn loss(&self) -> MediumError {
        let name = self.name();
        match self.losses.fault(|| self.find_fault()) {
            Fault::Truncated { found } => {
                MediumError::TruncatedWhileMapped { name, mapped: self.size(), found }
            }
            Fault::NoRoom => MediumError::HostFull { name },
            Fault::Memory => MediumError::MemoryFailed { name },
            Fault::Unknown => MediumError::PageLost { name },
        }
    }

    fn find_fault(&self) -> Fault {
        match (self.is_file(), self.file.metadata(), rustix::fs::fstatvfs(&*self.file)) {
            (true, Ok(metadata), _) if metadata.len() < self.size() => {
                Fault::Truncated { found: metadata.len() }
            }
            (true, _, Ok(host)) if host.f_blocks > 0 && host.f_bfree == 0 => Fault::NoRoom,
            _ => Fault::Unknown,
        }
    }

    /// Where metadata is read and changed.
    #[inline]
    fn metadata(&self) -> &Mapping {
        self.overlay.as_ref().map_or(&self.shared, Overlay::private)
    }

    /// Writes back every changed line, in place.
    #[track_caller]
    fn write_back_all(&self, dirty: &DirtyRanges) -> Result<(), MediumError> {
        let Protocol::WriteBack(way) = self.protocol else { return Ok(()) };
        for (at, size) in dirty.runs(LINE_SIZE) {
            // The medium may end within its last line.
            let size = size.min(self.size().saturating_sub(at));
            match self.shared.span_mut(at, size as usize) {
                Ok(span) => self.flush(at, span, way),
                Err(refused) => return Err(self.refused(refused, at, size)),
            }
        }
        Ok(())
    }

    #[track_caller]
    fn sync_pages(&self) -> Result<(), MediumError> {
        let mut failed = self.failed.lock();
        if *failed {
            return Err(MediumError::Failed { name: self.name() });
        }
        let location = Location::caller();
        let _held = self.log(|| What::Sync { location });
        let synced = self.shared.sync().map_err(|source| self.io_error("write its pages back", source));
        *failed = synced.is_err();
        synced
    }

    /// Whether the file is still as long as what is mapped of it. Where it is not, not every access raises a signal: the rest of its
    /// last page can be stored to.
    pub(crate) fn check_still_whole(&self) -> Result<(), MediumError> {
        if !self.is_file() {
            return Ok(());
        }
        let found = self.file.metadata().map_err(|source| self.io_error("ask for its size", source))?.len();
        if found < self.size() {
            self.losses.note(found, self.size() - found, false);
            return Err(self.loss());
        }
        Ok(())
    }

    /// Whether it is a file, which has a size.
    fn is_file(&self) -> bool {
        !matches!(self.report.kind, MediumKind::DeviceDax | MediumKind::BlockDevice)
    }

    #[cold]
    pub(crate) fn refused(&self, refused: Refused, at: u64, size: u64) -> MediumError {
        match refused {
            Refused::OutOfRange => MediumError::OutOfRange { name: self.name(), at, size, end: self.size() },
            Refused::ReadOnly => MediumError::ReadOnly { name: self.name() },
        }
    }

    #[cold]
    pub(crate) fn io_error(&self, action: &'static str, source: io::Error) -> MediumError {
        MediumError::Io { name: self.name(), action, source }
    }

    pub(crate) fn name(&self) -> String {
        name_of(self.path.as_deref())
    }
}

/// What messages call a medium.
pub(crate) fn name_of(path: Option<&Path>) -> String {
    path.map_or_else(|| "anonymous memory".to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous() -> Medium {
        Medium::anonymous(1 << 20, Domain::Page).unwrap()
    }

    #[test]
    fn after_a_failed_sync_none_is_believed() {
        let medium = anonymous();
        let _durable = medium.sync(Medium::nothing_flushed()).unwrap();
        *medium.failed.lock() = true;
        let outcome = medium.sync(Medium::nothing_flushed());
        assert!(matches!(outcome, Err(MediumError::Failed { .. })), "{outcome:?}");
    }

    #[test]
    fn a_page_that_is_lost_on_a_host_with_room_is_not_blamed_on_a_lack_of_it() {
        let medium = anonymous();
        medium.losses.note(4096, 4096, false);
        let error = medium.loss();
        assert!(matches!(error, MediumError::PageLost { .. }), "{error:?}");
    }
}
