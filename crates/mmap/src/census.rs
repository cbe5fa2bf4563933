//! What is mapped in this process, at one moment?

use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt;
use std::sync::Weak;

use lodefs_mapping::{Shown, alone, enter};
use lodefs_proto::maps::{Census, DurableBy, File, FileId, Kind, Range};

use crate::pages::Pagemap;
use crate::registry::{self, Known};

/// All that is mapped of files of lodefs in this process. No mapping changes meanwhile, so it is what was so at one moment; that
/// takes as long as looking at the page tables of what is mapped, and threads that touch new pages wait for it.
///
/// What a child has inherited, but not mapped again, is told as untouched.
pub fn census() -> Census {
    // Kernels without it say nothing of pages.
    let pagemap = Pagemap::of_self().ok();
    let mut census = Census::default();
    let mut files: HashMap<FileId, u32> = HashMap::new();
    let alone = alone();
    for (start, known) in registry::all(&enter()) {
        let file = *files.entry(known.subject.file).or_insert_with(|| {
            let name = known.subject.named.as_ref().and_then(|named| named.name());
            let name = name.map(|name| name.into_os_string().into_vec());
            census.files.push(File { id: known.subject.file, name });
            census.files.len() as u32 - 1
        });
        ranges(start, &known, file, pagemap.as_ref(), &mut census.ranges);
    }
    drop(alone);
    census
}

fn ranges(start: usize, known: &Known, file: u32, pagemap: Option<&Pagemap>, into: &mut Vec<Range>) {
    let region = known.region.as_ref().map(Weak::upgrade);
    // The kernel maps by itself, whoever touches.
    let serves_system_calls = region
        .as_ref()
        .is_none_or(|region| region.as_ref().is_some_and(|region| region.serves_system_calls()));
    let range = |offset: u64, size: u64, kind, durable_by| {
        let start = start as u64 + (offset - known.offset);
        let end = start + size;
        let Known { writable, sync, .. } = *known;
        let pages = pagemap.and_then(|pagemap| pagemap.pages(start..end).ok());
        Range { start, end, offset, file, kind, writable, sync, serves_system_calls, durable_by, pages }
    };
    let Some(region) = &region else {
        into.push(range(known.offset, known.size as u64, Kind::Buffered, DurableBy::Msync));
        return;
    };
    let parts = region.as_ref().map(|region| region.parts()).unwrap_or_default();
    let last = known.offset + known.size as u64;
    for part in parts {
        let first = part.offset.max(known.offset);
        let end = (part.offset + part.size).min(last);
        if first >= end {
            continue;
        }
        let (kind, durable_by) = match part.shown {
            Shown::Medium(_) => (Kind::Direct, known.durable_by),
            Shown::Zeroes => (Kind::Hole, known.durable_by),
            Shown::Armed => (Kind::Untouched, known.durable_by),
            Shown::File => (Kind::Buffered, DurableBy::Msync),
            Shown::Failing => (Kind::Failing, known.durable_by),
            Shown::Unmapped => continue,
        };
        into.push(range(first, end - first, kind, durable_by));
    }
}
