//! Are the entries of a directory right, and what do they lead to?

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::directory::{EntryHead, HEAP_END, HEAP_START, TAGS, TAGS_START, entry_size, tag_position};
use lodefs_layout::inode_map::CHUNK_INODES;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use zerocopy::FromBytes;

use super::Phase;
use super::claims::BlockSet;
use super::directories::{Met, RawBlock, read_block, walk};
use super::finding::{Code, Finding, Object, Place};
use super::survey::{EntryPlace, InodeFacts, Known, Standing, Survey};
use crate::error::Result;
use crate::types::{Ino, Kind, check_name};
use crate::volume::Volume;

/// Missing chunks of inodes that are remembered.
const MISSING_CHUNKS_MAX: usize = 1024;

const _: () = assert!(HEAP_END as u64 == BLOCK_SIZE);

/// An entry that can be read.
#[derive(Clone, Debug)]
pub(super) struct RawEntry<'b> {
    pub(super) tag_index: usize,
    pub(super) position: usize,
    pub(super) head: EntryHead,
    pub(super) name: &'b [u8],
}

impl RawEntry<'_> {
    pub(super) fn ino(&self) -> Ino {
        Ino(self.head.ino.get())
    }

    fn size(&self) -> usize {
        entry_size(self.name.len())
    }
}

/// The tags of a leaf that are in use, each with its entry or with what is wrong.
pub(super) fn entries<'b>(
    volume: &Volume,
    owner: Ino,
    block: &'b RawBlock,
) -> impl Iterator<Item = (usize, Result<RawEntry<'b>, Code>)> {
    let seed = volume.seed;
    let tags = block[TAGS_START..HEAP_START].chunks_exact(4).take(TAGS);
    tags.enumerate().filter_map(move |(tag_index, bytes)| {
        let tag = u32::from_le_bytes(bytes.try_into().expect("chunks of four bytes"));
        if tag == 0 {
            return None;
        }
        let position = tag_position(tag);
        let entry = read_entry(block, position).ok_or(Code::EntryPlace).and_then(|(head, name)| {
            let entry = RawEntry { tag_index, position, head, name };
            if head.is_valid(owner.0, name, seed) { Ok(entry) } else { Err(Code::EntryChecksum) }
        });
        Some((tag_index, entry))
    })
}

fn read_entry(block: &RawBlock, position: usize) -> Option<(EntryHead, &[u8])> {
    if position < HEAP_START {
        return None;
    }
    let (head, rest) = EntryHead::read_from_prefix(block.get(position..)?).ok()?;
    let size = head.name_size as usize;
    if position + entry_size(size) > HEAP_END {
        return None;
    }
    Some((head, rest.get(..size)?))
}

/// What is wrong with an entry by itself, and why.
fn fault_of(volume: &Volume, block: &RawBlock, hashes: &Range<u64>, entry: &RawEntry<'_>) -> Option<Code> {
    let hash = entry.head.hash.get();
    let tag_at = TAGS_START + entry.tag_index * 4;
    let tag_bits = u16::from_le_bytes([block[tag_at + 2], block[tag_at + 3]]);
    if check_name(entry.name).is_err() {
        Some(Code::EntryName)
    } else if !volume.seed.name_range(entry.name).contains(hash) {
        Some(Code::EntryHash)
    } else if tag_bits != volume.seed.names.tag_bits(hash) {
        Some(Code::EntryTag)
    } else if !hashes.is_empty() && !hashes.contains(&hash) {
        Some(Code::EntryMisplaced)
    } else {
        None
    }
}

/// A tag in use, and what is wrong with its entry by itself.
pub(super) struct Judged<'b> {
    pub(super) tag: usize,
    /// If it can be read.
    pub(super) entry: Option<RawEntry<'b>>,
    pub(super) fault: Option<Code>,
}

impl Judged<'_> {
    /// Whether it stays, be it that the directory has to be built again to bring it to its place.
    pub(super) fn stays(&self) -> bool {
        self.fault.is_none_or(|code| !code.asks())
    }

    fn name(&self) -> &[u8] {
        self.entry.as_ref().map_or(&[], |entry| entry.name)
    }
}

/// What is in a leaf into which `hashes` belong.
pub(super) fn judge<'b>(
    volume: &Volume,
    owner: Ino,
    block: &'b RawBlock,
    hashes: &Range<u64>,
) -> Vec<Judged<'b>> {
    let mut by_position: BTreeMap<usize, usize> = BTreeMap::new();
    let mut names: Vec<&[u8]> = Vec::new();
    let mut keyed_hashes = HashSet::new();
    let mut all = Vec::new();
    for (tag, entry) in entries(volume, owner, block) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(code) => {
                all.push(Judged { tag, entry: None, fault: Some(code) });
                continue;
            }
        };
        let mut fault = Some(Code::EntryOverlap);
        if !overlaps(&by_position, &entry) {
            by_position.insert(entry.position, entry.size());
            fault = fault_of(volume, block, hashes, &entry);
            if fault.is_none() && volume.seed.names.is_keyed() && !keyed_hashes.insert(entry.head.hash.get())
            {
                fault = Some(Code::EntryHash);
            }
        }
        if fault.is_none_or(|code| !code.asks()) {
            if names.contains(&entry.name) {
                fault = Some(Code::EntryDuplicate);
            } else {
                names.push(entry.name);
            }
        }
        all.push(Judged { tag, entry: Some(entry), fault });
    }
    all
}

impl Survey<'_> {
    /// Looks at all entries of all directories.
    pub(super) fn look_at_entries(&mut self) -> Result<()> {
        let mut visited = BlockSet::new(self.volume.shape.total_blocks);
        self.for_each_good(Phase::Names, |survey, ino, kind, slot| {
            if kind != Kind::Directory {
                return Ok(());
            }
            let volume = survey.volume;
            let (mut leaves, mut is_in_order) = (Vec::new(), true);
            walk(volume, ino, slot.root.get(), &mut |block| visited.insert(block), &mut |met| {
                match met {
                    Met::Leaf(block, hashes) => {
                        is_in_order &= survey.look_at_leaf(ino, block, &hashes)?;
                        leaves.push((block, hashes));
                    }
                    // Reported when the blocks were claimed.
                    Met::Node => {}
                    Met::Fault { code, .. } => is_in_order &= code != Code::DirOrder,
                }
                Ok(())
            })?;
            if is_in_order { Ok(()) } else { survey.look_at_misplaced(ino, &leaves) }
        })
    }

    /// Looks at what the entries in their places lead to. Returns whether these are all that stay.
    fn look_at_leaf(&mut self, directory: Ino, block: u64, hashes: &Range<u64>) -> Result<bool> {
        let volume = self.volume;
        let bytes = read_block(volume, block)?;
        let mut is_in_order = true;
        for judged in judge(volume, directory, &bytes, hashes) {
            self.directory(directory).entries += 1;
            let place = EntryPlace { block, tag: judged.tag };
            if let Some(code) = judged.fault {
                self.report_entry(code, directory, place, judged.name());
            }
            match &judged.entry {
                Some(entry) if judged.fault.is_none() => self.look_at_target_of(directory, place, entry)?,
                _ => is_in_order &= !judged.stays(),
            }
        }
        Ok(is_in_order)
    }

    /// An entry that makes sense by itself: does it lead to the right inode?
    pub(super) fn look_at_target_of(
        &mut self,
        directory: Ino,
        place: EntryPlace,
        entry: &RawEntry<'_>,
    ) -> Result<()> {
        let ino = entry.ino();
        let says_directory = Kind::from_d_type(entry.head.kind) == Some(Kind::Directory);
        let facts = match self.known(ino) {
            Known::Absent => {
                self.note_missing_chunk(ino);
                None
            }
            Known::Facts(facts) if facts.standing == Standing::Good => Some(facts),
            Known::Facts(facts) if facts.standing == Standing::Free => None,
            Known::Unknown | Known::Facts(_) => {
                self.count_subdirectory(directory, says_directory);
                return Ok(());
            }
        };
        let Some(&mut InodeFacts { kind: Some(kind), .. }) = facts else {
            let object = object_of(directory, place, entry.name);
            let detail = format!("inode {ino}");
            self.report(Finding::new(Code::EntryDangling, object, detail).at(Place::Target(ino)));
            return Ok(());
        };
        if Kind::from_d_type(entry.head.kind) != Some(kind) {
            let object = object_of(directory, place, entry.name);
            self.report(Finding::new(Code::EntryType, object, "").at(Place::Target(ino)));
        }
        if kind == Kind::Directory {
            return self.note_parent(ino, directory, place, entry.name);
        }
        let facts = self.facts(ino);
        facts.names = facts.names.saturating_add(1);
        Ok(())
    }

    fn note_missing_chunk(&mut self, ino: Ino) {
        let chunk = ino.0 / CHUNK_INODES;
        if chunk < self.volume.shape.inode_chunks_max && self.missing_chunks.len() < MISSING_CHUNKS_MAX {
            self.missing_chunks.insert(chunk);
        }
    }

    fn count_subdirectory(&mut self, directory: Ino, is_directory: bool) {
        self.directory(directory).subdirectories += u32::from(is_directory);
    }

    /// A name leads to directory `ino`. Of several, the one in the parent that the directory names is right, or else the
    /// first.
    fn note_parent(&mut self, ino: Ino, parent: Ino, via: EntryPlace, name: &[u8]) -> Result<()> {
        let child = self.directory(ino);
        let (before, stated) = (child.parent.zip(child.via), child.stated_parent);
        if ino == Ino::ROOT || ino == parent {
            self.report_second_name(ino, parent, via, name);
            return Ok(());
        }
        match before {
            Some((other, other_via)) if stated == parent && other != parent => {
                let bytes = read_block(self.volume, other_via.block)?;
                let other_name = name_at(self.volume, other, &bytes, other_via.tag);
                self.report_second_name(ino, other, other_via, other_name);
                self.directory(other).subdirectories -= 1;
            }
            Some(_) => {
                self.report_second_name(ino, parent, via, name);
                return Ok(());
            }
            None => {}
        }
        let child = self.directory(ino);
        (child.parent, child.via) = (Some(parent), Some(via));
        self.facts(ino).names = 1;
        self.count_subdirectory(parent, true);
        Ok(())
    }

    fn report_second_name(&mut self, ino: Ino, parent: Ino, via: EntryPlace, name: &[u8]) {
        let finding =
            Finding::new(Code::DirTwoParents, object_of(parent, via, name), format!("directory {ino}"));
        self.report(finding.at(Place::Target(ino)));
    }

    pub(super) fn report_entry(&mut self, code: Code, directory: Ino, place: EntryPlace, name: &[u8]) {
        if code.asks() {
            // Its inode may seem to be without a name.
            self.complete.names = false;
            self.facts(directory).is_broken = true;
        }
        self.report(Finding::new(code, object_of(directory, place, name), ""));
    }
}

fn overlaps(by_position: &BTreeMap<usize, usize>, entry: &RawEntry<'_>) -> bool {
    let end = entry.position + entry.size();
    let before = by_position.range(..end).next_back();
    before.is_some_and(|(position, size)| position + size > entry.position)
}

/// The name of the entry behind a tag; empty if it cannot be read.
pub(super) fn name_at<'b>(volume: &Volume, owner: Ino, block: &'b RawBlock, tag: usize) -> &'b [u8] {
    let mut all = entries(volume, owner, block);
    let found = all.find_map(|(index, entry)| entry.ok().filter(|_| index == tag));
    found.map_or(&[], |entry| entry.name)
}

pub(super) fn object_of(directory: Ino, place: EntryPlace, name: &[u8]) -> Object {
    Object::Entry { directory, block: place.block, tag: place.tag, name: name.to_vec() }
}
