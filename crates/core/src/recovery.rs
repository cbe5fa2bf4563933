//! Opening a volume: replaying the journal and finding out what is free.
//!
//! After a clean close the saved bitmap says what is free, whatever the number of files. After a crash every inode is
//! looked at once. Either way nothing is changed but what the journal's records say, until the new state is stored.

use lodefs_layout::inode::{INLINE_SIZE, InodeSlot, SLOT_SIZE};
use lodefs_layout::inode_map::{CHUNK_INODES, Found};
use lodefs_layout::state::State;

use crate::alloc::{BlockAllocator, Builder, Run};
use crate::dir::NodeCache;
use crate::dir::tree::Tree;
use crate::error::{Error, Result};
use crate::extents::store;
use crate::fs::RecoveryReport;
use crate::inode::table::{self, InodeTable};
use crate::inode::{check, kind_of};
use crate::journal::{Journal, replay, state};
use crate::ops::tail::{AllowedTails, place_of_word, word_of};
use crate::tx::offset_of;
use crate::types::{Ino, Kind};
use crate::volume::Volume;
use crate::{bitmap, blob};

/// What opening a volume yields.
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    pub(crate) blocks: BlockAllocator,
    pub(crate) table: InodeTable,
    pub(crate) report: RecoveryReport,
    /// Inodes without links, to be reclaimed.
    pub(crate) orphans: Vec<Ino>,
    /// Others to which programs were appending, to be settled.
    pub(crate) tails: Vec<Ino>,
    pub(crate) allowed_tails: AllowedTails,
}

pub(crate) fn open(volume: &Volume, read_only: bool) -> Result<Opened> {
    let (last, is_certain) = (state::read(volume)?, state::is_certain(volume)?);
    let replayed = replay::replay(volume, &last)?;
    // A bitmap that was saved before the last changes must not be believed.
    let is_closed = last.is_clean() && replayed.records == 0 && is_certain;
    let known = if is_closed { from_clean_state(volume, &last)? } else { None };
    let (blocks, table, found) = match known {
        Some((blocks, table)) => (blocks, table, Scan::default()),
        None => from_scan(volume)?,
    };
    let journal = if read_only {
        Journal::idle(volume, &replayed.state)
    } else {
        Journal::start(volume, &replayed.state, replayed.last_seq, &replayed.ready)?
    };
    let report = RecoveryReport {
        was_clean: last.is_clean(),
        records_replayed: replayed.records,
        inodes_scanned: found.inodes,
        orphans_reclaimed: found.orphans.len() as u64,
    };
    let (tails, allowed_tails) =
        if is_closed { (Vec::new(), AllowedTails::None) } else { (found.tails, AllowedTails::Possible) };
    Ok(Opened { journal, blocks, table, report, orphans: found.orphans, tails, allowed_tails })
}

/// What a clean close left, if all of it is intact.
fn from_clean_state(volume: &Volume, state: &State) -> Result<Option<(BlockAllocator, InodeTable)>> {
    let Some(blocks) = bitmap::load(volume, state.update.get())? else { return Ok(None) };
    if blocks.counts().free != state.free_blocks.get() {
        return Ok(None);
    }
    let used_inodes = state.used_inodes.get();
    if used_inodes > table::chunk_count(volume)? * CHUNK_INODES {
        return Ok(None);
    }
    let table = InodeTable::open(volume, used_inodes, state.inode_chunk_hint.get())?;
    Ok(Some((blocks, table)))
}

#[derive(Default)]
struct Scan {
    inodes: u64,
    orphans: Vec<Ino>,
    tails: Vec<Ino>,
}

/// Looks at every inode and marks its blocks.
fn from_scan(volume: &Volume) -> Result<(BlockAllocator, InodeTable, Scan)> {
    let mut builder = bitmap::empty_builder(volume);
    let mut scan = Scan::default();
    for chunk in 0..table::chunk_count(volume)? {
        scan_chunk(volume, chunk, &mut builder, &mut scan)?;
    }
    let table = InodeTable::open(volume, scan.inodes, 0)?;
    Ok((builder.finish(bitmap::reserve_blocks(volume)), table, scan))
}

/// Slots that point to words, on a volume of which some may be damaged.
pub(crate) fn slots_with_words(volume: &Volume) -> Result<Vec<(Ino, InodeSlot)>> {
    let mut tails = Vec::new();
    for chunk in 0..table::chunk_count(volume)? {
        let Found::At(block) = table::find_chunk(volume, chunk)? else { continue };
        if !volume.holds(Run { start: block, blocks: 1 }) {
            continue;
        }
        for index in 0..CHUNK_INODES {
            let ino = Ino(chunk * CHUNK_INODES + index);
            let slot: InodeSlot = volume.get(offset_of(block) + index * SLOT_SIZE as u64)?;
            if place_of_word(volume, &slot).is_some() {
                tails.push((ino, slot));
            }
        }
    }
    Ok(tails)
}

fn scan_chunk(volume: &Volume, chunk: u64, builder: &mut Builder, scan: &mut Scan) -> Result<()> {
    let damaged = |fault| Error::Corrupt { object: format!("inode map entry {chunk}"), fault };
    let block = match table::find_chunk(volume, chunk)? {
        Found::At(block) => block,
        Found::Gone => return Ok(()),
        Found::Damaged | Found::Absent => return Err(damaged("wrong checksum")),
    };
    let run = Run { start: block, blocks: 1 };
    if !volume.holds(run) {
        return Err(damaged("it points outside of the volume"));
    }
    builder.mark_used(run).map_err(|_| damaged("its blocks belong to something else"))?;
    for index in 0..CHUNK_INODES {
        let ino = Ino(chunk * CHUNK_INODES + index);
        let slot: InodeSlot = volume.get(offset_of(block) + index * SLOT_SIZE as u64)?;
        if slot.is_free() || ino.0 == 0 {
            continue;
        }
        if let Some(fault) = check::fault_of(volume, ino, &slot) {
            return Err(Error::corrupt_inode(ino, fault));
        }
        scan.inodes += 1;
        if slot.links.get() == 0 {
            scan.orphans.push(ino);
        } else if word_of(volume, &slot).is_some() {
            scan.tails.push(ino);
        }
        visit_runs(volume, ino, &slot, &mut |run| {
            builder
                .mark_used(run)
                .map_err(|_| Error::corrupt_inode(ino, "its blocks belong to something else as well"))
        })?;
    }
    Ok(())
}

/// Visits everything that an inode occupies, besides its slot.
pub(crate) fn visit_runs(
    volume: &Volume,
    ino: Ino,
    slot: &InodeSlot,
    visit: &mut impl FnMut(Run) -> Result<()>,
) -> Result<()> {
    if slot.xattr_block.get() != 0 {
        visit(blob::run(slot.xattr_block.get(), slot.xattr_size.get() as usize))?;
    }
    match kind_of(slot) {
        Kind::File => {
            let map = store::load(volume, ino, slot)?;
            for block in &map.chain {
                visit(Run { start: *block, blocks: 1 })?;
            }
            map.iter().try_for_each(|extent| visit(extent.run()))
        }
        Kind::Directory => {
            let nodes = NodeCache::default();
            let tree = Tree { volume, nodes: &nodes, owner: ino };
            tree.visit_blocks(slot.root.get(), &mut |block| visit(Run { start: block, blocks: 1 }))
        }
        Kind::Symlink if slot.size.get() as usize > INLINE_SIZE => {
            let run = blob::run(slot.root.get(), slot.size.get() as usize);
            if !volume.holds(run) {
                return Err(Error::corrupt_inode(ino, "its target lies outside of the volume"));
            }
            visit(run)
        }
        _ => Ok(()),
    }
}
