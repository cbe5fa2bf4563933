//! Are the extents of a file right, and do their blocks belong to it alone?

use std::collections::{BTreeSet, HashSet};

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::extent::{ExtentBlockHead, ExtentSlot, InlineExtent, SLOT_SIZE, SLOTS_START};
use lodefs_layout::inode::InodeSlot;
use zerocopy::FromBytes;

use super::Phase;
use super::finding::{Code, Finding, Object, Place};
use super::survey::Survey;
use crate::alloc::Run;
use crate::error::Result;
use crate::extents::{Extent, ExtentMap, store};
use crate::tx::offset_of;
use crate::types::{Ino, Kind};
use crate::volume::Volume;

/// A chain of extent blocks, as far as it can be followed.
pub(super) struct Chain {
    pub(super) blocks: Vec<u64>,
    /// Why it could not be followed to its end.
    fault: Option<String>,
}

/// Follows the chain of extent blocks that starts at `first`.
pub(super) fn follow_chain(volume: &Volume, ino: Ino, first: u64) -> Result<Chain> {
    let mut chain = Chain { blocks: Vec::new(), fault: None };
    let mut seen = HashSet::new();
    let mut block = first;
    while block != 0 {
        let fault = if !volume.holds_block(block) {
            format!("block {block} lies outside of the volume")
        } else if !seen.insert(block) {
            format!("block {block} leads back to itself")
        } else {
            let head: ExtentBlockHead = volume.get(offset_of(block))?;
            if head.is_valid(ino.0, block, volume.seed) {
                chain.blocks.push(block);
                block = head.next.get();
                continue;
            }
            format!("block {block} has a wrong head")
        };
        chain.fault = Some(fault);
        break;
    }
    Ok(chain)
}

impl Survey<'_> {
    /// Checks the chain of extent blocks of a file and claims them; returns how many.
    pub(super) fn claim_chain(&mut self, ino: Ino, slot: &InodeSlot) -> Result<u64> {
        let chain = follow_chain(self.volume, ino, slot.root.get())?;
        let mut last = 0;
        for (count, block) in (0..).zip(&chain.blocks) {
            if !self.claims.take_block(*block) {
                self.report_chain(ino, last, format!("block {block} belongs to something else"));
                return Ok(count);
            }
            last = *block;
        }
        if let Some(fault) = chain.fault {
            self.report_chain(ino, last, fault);
        }
        Ok(chain.blocks.len() as u64)
    }

    fn report_chain(&mut self, ino: Ino, last: u64, fault: String) {
        self.facts(ino).is_broken = true;
        self.complete.claims = false;
        self.report(Finding::new(Code::ExtentChain, Object::Inode(ino), fault).at(Place::ChainEnd(last)));
    }

    /// Second look at an inode that can be believed: its data, and the number of its blocks.
    pub(super) fn look_at_data(&mut self, ino: Ino, kind: Kind, slot: &InodeSlot) -> Result<()> {
        let data = if kind == Kind::File { self.claim_data(ino, slot)? } else { 0 };
        let facts = *self.facts(ino);
        let blocks = facts.metadata_blocks + data;
        if !facts.is_broken && blocks != slot.blocks.get() {
            self.report_number(Code::BlockCount, ino, slot.blocks.get(), blocks);
        }
        Ok(())
    }

    /// Checks the extents of a file and claims their blocks; returns how many.
    pub(super) fn claim_data(&mut self, ino: Ino, slot: &InodeSlot) -> Result<u64> {
        let faults_before = self.faults;
        let map = self.read_extents(ino, slot)?;
        if self.faults > faults_before {
            self.facts(ino).is_broken = true;
            self.complete.claims = false;
        }
        if !self.facts(ino).is_broken && map.len() as u64 != u64::from(slot.extents.get()) {
            self.report_number(Code::ExtentCount, ino, slot.extents.get().into(), map.len() as u64);
        }
        let mut blocks = 0;
        for extent in map.iter() {
            blocks += extent.blocks;
            if let Some(taken) = self.claims.take(extent.run()) {
                let with_metadata = self.metadata.contains_any(taken.span);
                let logical = extent.logical + (taken.span.start - extent.physical);
                let place = Place::Shared { logical, run: taken.span, with_metadata };
                let object = Object::Inode(ino);
                let detail = blocks_text(taken.span, taken.count);
                self.report(Finding::new(Code::BlocksShared, object, detail).at(place));
            }
        }
        Ok(blocks)
    }

    /// Reads the extents of a file, reporting and leaving out those that make no sense.
    fn read_extents(&mut self, ino: Ino, slot: &InodeSlot) -> Result<ExtentMap> {
        let mut map = ExtentMap::default();
        let mut number = 0;
        for (index, inline) in slot.inline_extents().iter().enumerate() {
            if *inline != InlineExtent::default() {
                self.load_extent(ino, &mut map, number, inline, Place::InlineExtent(index));
                number += 1;
            }
        }
        let chain = follow_chain(self.volume, ino, slot.root.get())?;
        for block in chain.blocks {
            let mut bytes = [0; BLOCK_SIZE as usize];
            self.volume.medium.read_meta(offset_of(block), &mut bytes)?;
            for (index, raw) in bytes[SLOTS_START..].chunks_exact(SLOT_SIZE).enumerate() {
                let stored = ExtentSlot::read_from_bytes(raw).expect("chunks have the size of a slot");
                let place = Place::ExtentSlot(block, index);
                if stored.is_free() {
                    continue;
                }
                if stored.is_valid(ino.0, self.volume.seed) {
                    self.load_extent(ino, &mut map, number, &stored.extent, place);
                    number += 1;
                } else {
                    let detail = format!("slot {index} of block {block}");
                    self.report(Finding::new(Code::ExtentChecksum, Object::Inode(ino), detail).at(place));
                }
            }
        }
        Ok(map)
    }

    fn load_extent(
        &mut self,
        ino: Ino,
        map: &mut ExtentMap,
        number: u32,
        stored: &InlineExtent,
        place: Place,
    ) {
        let (logical, physical, blocks) = (stored.logical.get(), stored.physical.get(), stored.blocks.get());
        let detail = format!("{blocks} blocks from {physical} on, at block {logical} of the file");
        let code = match store::check_extent(self.volume, stored) {
            None => Code::ExtentRange,
            Some(extent) if !map.load(number, extent) => Code::ExtentOverlap,
            Some(_) => return,
        };
        self.report(Finding::new(code, Object::Inode(ino), detail).at(place));
    }

    /// Completes the findings about shared blocks with the first owner.
    pub(super) fn name_other_owners(&mut self) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for (index, finding) in self.findings.iter_mut().enumerate() {
            match finding.place {
                Place::Shared { with_metadata: true, .. } => finding.detail.push_str(", with metadata"),
                Place::Shared { run, .. } => _ = wanted.insert((run.start, index)),
                _ => {}
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.for_each_good(Phase::Blocks, |survey, ino, kind, slot| {
            if kind != Kind::File || wanted.is_empty() {
                return Ok(());
            }
            let mut map = ExtentMap::default();
            survey.muted(|survey| {
                map = survey.read_extents(ino, slot)?;
                Ok(())
            })?;
            for extent in map.iter() {
                for index in take_range(&mut wanted, extent) {
                    let detail = &mut survey.findings[index].detail;
                    *detail = format!("{detail}, with inode {ino}");
                }
            }
            Ok(())
        })
    }
}

/// Takes out the findings whose block lies in `extent`.
fn take_range(wanted: &mut BTreeSet<(u64, usize)>, extent: Extent) -> Vec<usize> {
    let range = (extent.physical, 0)..(extent.run().end(), 0);
    let found: Vec<(u64, usize)> = wanted.range(range).copied().collect();
    for item in &found {
        wanted.remove(item);
    }
    found.into_iter().map(|(_, index)| index).collect()
}

fn blocks_text(span: Run, count: u64) -> String {
    if span.blocks == 1 {
        format!("block {}", span.start)
    } else {
        format!("{count} of the blocks {} to {}", span.start, span.end() - 1)
    }
}
