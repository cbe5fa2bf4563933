//! How is a file mapped?

use std::io;
use std::mem;
use std::process;
use std::sync::Arc;

use lodefs_core::LeaseOptions;
use lodefs_mapping::{Region, Request};
use lodefs_mmap::maps::FileId;
use lodefs_mmap::{MapOptions, Mapping, Source, Subject};
use rustix::io::Errno;

use crate::error::Unmappable;
use crate::pager::Taker;
use crate::shared::{Held, Shared};

/// A part of a file in memory, which keeps the volume open.
struct MappedFile {
    region: Arc<Region>,
    /// The process that has mapped it. A child has nothing of it but reserved addresses.
    pid: u32,
    shared: Option<Arc<Shared>>,
}

/// Maps a part of a file.
pub(crate) fn map(held: &Held, options: &MapOptions) -> io::Result<Mapping> {
    let MapOptions { offset, size, writable, sync } = *options;
    let fs = &held.shared.fs;
    if !fs.can_be_attached() {
        return Err(Unmappable(fs.domain().clone()).into());
    }
    let mapper = held.shared.maps.mapper(fs)?;
    let region = Region::new(&mapper, &Request { offset, size, writable }).map_err(refusal)?;
    let (pid, taker) = (process::id(), Taker(Arc::downgrade(&region)));
    let lease = fs.lease(&held.node, Arc::new(taker), LeaseOptions { writable, sync, pid })?;
    held.shared.maps.pager.add(&region, lease);
    if !mapper.serves_system_calls() {
        region.populate(writable && has_room_for_holes(held)?);
    }
    let source = MappedFile { region: Arc::clone(&region), pid, shared: Some(Arc::clone(&held.shared)) };
    let file = FileId::Volume { volume: fs.info().uuid, inode: held.node.ino().0 };
    let subject = Subject { file, named: None };
    Mapping::of_region(region, options, fs.domain().domain, subject, Box::new(source))
}

/// Whether there is room to fill all holes of the file now.
fn has_room_for_holes(held: &Held) -> io::Result<bool> {
    let fs = &held.shared.fs;
    let (attr, space) = (fs.attr(&held.node)?, fs.space());
    let holes = attr.size.saturating_sub(attr.sectors.saturating_mul(512));
    Ok(holes <= space.blocks_available * space.block_size)
}

/// The errno for a request that makes no sense, or finds no addresses.
fn refusal(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidInput => Errno::INVAL.into(),
        io::ErrorKind::OutOfMemory => Errno::NOMEM.into(),
        _ => error,
    }
}

impl Source for MappedFile {
    fn note_change(&self) -> io::Result<()> {
        self.shared.as_ref().map_or(Ok(()), |shared| shared.maps.pager.note_change(&self.region))
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        let unmapped = self.region.unmap(self.region.offset(), self.region.size() as u64);
        debug_assert!(unmapped.is_ok(), "what is mapped can be unmapped: {unmapped:?}");
        let Some(shared) = self.shared.take() else { return };
        if process::id() == self.pid {
            drop(shared.maps.pager.remove(&self.region));
        } else {
            // The engine is the parent's, and its locks may be held for ever.
            mem::forget(shared);
        }
    }
}
