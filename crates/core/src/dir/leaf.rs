//! The entries of one leaf.
//!
//! A reader goes from the tags: a tag whose half of the hash matches leads to an entry, which is checked before it is
//! believed. Adding an entry writes it to a free place in the heap and sets a free tag; removing one clears its tag.

use std::ops::Range;

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::directory::{
    BlockHead, ENTRY_HEAD_SIZE, EntryHead, HEAP_END, HEAP_START, Leaf, TAGS, TAGS_START, entry_size, tag,
    tag_position,
};
use lodefs_layout::names::HashRange;
use smallvec::SmallVec;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::Entry;
use crate::error::{Error, Result};
use crate::tx::{Tx, offset_of};
use crate::types::{Ino, Kind};
use crate::volume::Volume;

/// A name with the hashes that its entry may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'n> {
    pub(crate) name: &'n [u8],
    pub(crate) range: HashRange,
}

impl<'n> Key<'n> {
    pub(crate) fn new(volume: &Volume, name: &'n [u8]) -> Self {
        Self { name, range: volume.seed.name_range(name) }
    }
}

/// A copy of an entry, to be listed or moved to another leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnedEntry {
    pub(crate) hash: u64,
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
    pub(crate) name: Vec<u8>,
}

/// Where bytes of a leaf come from: the volume, or the volume as a transaction will leave it.
pub(crate) trait Source {
    fn get<T: FromBytes + IntoBytes + zerocopy::Immutable>(&self, at: u64) -> Result<T>;
    fn get_slice(&self, at: u64, into: &mut [u8]) -> Result<()>;
}

impl Source for Volume {
    fn get<T: FromBytes + IntoBytes + zerocopy::Immutable>(&self, at: u64) -> Result<T> {
        Self::get(self, at)
    }

    fn get_slice(&self, at: u64, into: &mut [u8]) -> Result<()> {
        Ok(self.medium.read_meta(at, into)?)
    }
}

impl Source for Tx<'_> {
    fn get<T: FromBytes + IntoBytes + zerocopy::Immutable>(&self, at: u64) -> Result<T> {
        Self::get(self, at)
    }

    fn get_slice(&self, at: u64, into: &mut [u8]) -> Result<()> {
        self.read(at, into)
    }
}

type Tags = [U32; TAGS];

/// Hashes of entries.
pub(crate) type Hashes = SmallVec<[u64; 16]>;

/// Looks for a name in the leaf at `block` of directory `owner`, into which `hashes` belong.
pub(crate) fn find(
    source: &impl Source,
    volume: &Volume,
    owner: Ino,
    block: u64,
    hashes: &Range<u64>,
    key: Key<'_>,
) -> Result<Option<Entry>> {
    let mut found = None;
    for_each_in(source, volume, block, key.range, |tag_index, position, head| {
        if !hashes.contains(&head.hash.get()) || head.name_size as usize != key.name.len() {
            return Ok(true);
        }
        let mut name = [0; lodefs_layout::NAME_MAX];
        let name = &mut name[..key.name.len()];
        check_end(block, position, name.len())?;
        source.get_slice(offset_of(block) + (position + ENTRY_HEAD_SIZE) as u64, name)?;
        if name == key.name {
            let (ino, kind) = check_entry(volume, owner, block, head, name)?;
            found = Some(Entry { block, tag_index, position, hash: head.hash.get(), ino, kind });
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

/// The hashes in `range` that entries of the leaf at `block` have.
pub(crate) fn hashes_in(
    source: &impl Source,
    volume: &Volume,
    block: u64,
    range: HashRange,
    found: &mut Hashes,
) -> Result<()> {
    for_each_in(source, volume, block, range, |_, _, head| {
        found.push(head.hash.get());
        Ok(true)
    })
}

/// Visits the entries with a hash in `range`, by tag, position and head, until the visitor returns `false`. Of the other
/// entries, only those with the same bits in their tags are read.
fn for_each_in(
    source: &impl Source,
    volume: &Volume,
    block: u64,
    range: HashRange,
    mut visit: impl FnMut(usize, usize, &EntryHead) -> Result<bool>,
) -> Result<()> {
    let tags: Tags = source.get(offset_of(block) + TAGS_START as u64)?;
    let wanted = u32::from(volume.seed.names.tag_bits(range.first));
    for (tag_index, tag) in tags.iter().enumerate() {
        let tag = tag.get();
        if tag >> 16 != wanted || tag == 0 {
            continue;
        }
        let position = check_position(block, tag)?;
        let head: EntryHead = source.get(offset_of(block) + position as u64)?;
        if range.contains(head.hash.get()) && !visit(tag_index, position, &head)? {
            break;
        }
    }
    Ok(())
}

fn check_position(block: u64, tag: u32) -> Result<usize> {
    let position = tag_position(tag);
    if (HEAP_START..=HEAP_END - ENTRY_HEAD_SIZE).contains(&position) {
        Ok(position)
    } else {
        Err(Error::corrupt_block(block, "a directory tag points outside of its leaf"))
    }
}

fn check_end(block: u64, position: usize, name_size: usize) -> Result<()> {
    if position + entry_size(name_size) <= HEAP_END {
        Ok(())
    } else {
        Err(Error::corrupt_block(block, "a directory entry leaves its leaf"))
    }
}

fn check_entry(
    volume: &Volume,
    owner: Ino,
    block: u64,
    head: &EntryHead,
    name: &[u8],
) -> Result<(Ino, Kind)> {
    if !head.is_valid(owner.0, name, volume.seed) {
        return Err(Error::corrupt_block(block, "a directory entry has a wrong checksum"));
    }
    // Whoever reads on behind it adds one.
    if i64::try_from(head.hash.get()).is_err() {
        return Err(Error::corrupt_block(block, "a directory entry has an impossible hash"));
    }
    let kind = Kind::from_d_type(head.kind)
        .ok_or_else(|| Error::corrupt_block(block, "an entry of unknown type"))?;
    Ok((Ino(head.ino.get()), kind))
}

/// Reads a whole leaf and checks its head.
pub(crate) fn read(source: &impl Source, volume: &Volume, owner: Ino, block: u64) -> Result<Box<Leaf>> {
    let mut leaf = Leaf::new_box_zeroed().expect("4 KiB of memory");
    source.get_slice(offset_of(block), leaf.as_mut_bytes())?;
    if !leaf.head.is_leaf(owner.0, block, volume.seed) {
        return Err(Error::corrupt_block(block, "not a leaf of this directory"));
    }
    Ok(leaf)
}

/// The entries of a leaf that was read, checked, with the index of their tags, in no order.
pub(crate) fn entries<'l>(
    volume: &'l Volume,
    owner: Ino,
    block: u64,
    leaf: &'l Leaf,
) -> impl Iterator<Item = Result<(usize, OwnedEntry)>> + 'l {
    let in_use = leaf.tags.iter().enumerate().filter(|(_, tag)| tag.get() != 0);
    in_use.map(move |(index, tag)| {
        let entry = entry_at(volume, owner, block, leaf, tag.get())?;
        Ok((index, entry))
    })
}

fn entry_at(volume: &Volume, owner: Ino, block: u64, leaf: &Leaf, tag: u32) -> Result<OwnedEntry> {
    let position = check_position(block, tag)?;
    let bytes = &leaf.as_bytes()[position..];
    let (head, rest) = EntryHead::read_from_prefix(bytes).expect("check_position leaves room for a head");
    check_end(block, position, head.name_size as usize)?;
    let name = &rest[..head.name_size as usize];
    let (ino, kind) = check_entry(volume, owner, block, &head, name)?;
    Ok(OwnedEntry { hash: head.hash.get(), ino, kind, name: name.to_vec() })
}

/// Adds an entry to the leaf at `block`; `false` if it has no room as it is.
pub(crate) fn insert(
    tx: &mut Tx<'_>,
    volume: &Volume,
    owner: Ino,
    block: u64,
    entry: &OwnedEntry,
) -> Result<bool> {
    let tags: Tags = tx.get(offset_of(block) + TAGS_START as u64)?;
    let Some(tag_index) = tags.iter().position(|tag| tag.get() == 0) else { return Ok(false) };
    let size = entry_size(entry.name.len());
    let Some(position) = find_room(tx, block, &tags, size)? else { return Ok(false) };
    let bytes = encode(volume, owner, &entry.name, entry.hash, entry.ino, entry.kind);
    tx.put(offset_of(block) + position as u64, &bytes.0[..size]);
    put_tag(tx, block, tag_index, tag(volume.seed.names.tag_bits(entry.hash), position));
    Ok(true)
}

struct EntryBytes([u8; lodefs_layout::directory::ENTRY_SIZE_MAX]);

fn encode(volume: &Volume, owner: Ino, name: &[u8], hash: u64, ino: Ino, kind: Kind) -> EntryBytes {
    let head = EntryHead::new(owner.0, name, hash, ino.0, kind.d_type(), volume.seed);
    let mut bytes = [0; lodefs_layout::directory::ENTRY_SIZE_MAX];
    bytes[..ENTRY_HEAD_SIZE].copy_from_slice(head.as_bytes());
    bytes[ENTRY_HEAD_SIZE..ENTRY_HEAD_SIZE + name.len()].copy_from_slice(name);
    EntryBytes(bytes)
}

fn put_tag(tx: &mut Tx<'_>, block: u64, tag_index: usize, tag: u32) {
    tx.put(offset_of(block) + (TAGS_START + tag_index * 4) as u64, &tag.to_le_bytes());
}

/// A place for `size` bytes: behind all entries, or else in the first gap that is large enough.
fn find_room(tx: &Tx<'_>, block: u64, tags: &Tags, size: usize) -> Result<Option<usize>> {
    let last = tags.iter().map(|tag| tag_position(tag.get())).max().unwrap_or_default();
    if last == 0 {
        return Ok(Some(HEAP_START));
    }
    let end = last + size_at(tx, block, last)?;
    if end + size <= HEAP_END {
        return Ok(Some(end));
    }
    let mut positions: Vec<usize> =
        tags.iter().filter(|t| t.get() != 0).map(|t| tag_position(t.get())).collect();
    positions.sort_unstable();
    let mut free_from = HEAP_START;
    for position in positions {
        if position >= free_from + size {
            return Ok(Some(free_from));
        }
        free_from = position + size_at(tx, block, position)?;
    }
    Ok(None)
}

/// Bytes that the entry at `position` takes.
fn size_at(tx: &Tx<'_>, block: u64, position: usize) -> Result<usize> {
    let name_size: [u8; 1] = tx.get(offset_of(block) + position as u64 + 4)?;
    let size = entry_size(name_size[0] as usize);
    if position < HEAP_START || position + size > HEAP_END {
        return Err(Error::corrupt_block(block, "a directory entry leaves its leaf"));
    }
    Ok(size)
}

/// Removes an entry that was found.
pub(crate) fn remove(tx: &mut Tx<'_>, entry: &Entry) {
    put_tag(tx, entry.block, entry.tag_index, 0);
}

/// Makes an entry that was found lead to another inode.
pub(crate) fn redirect(
    tx: &mut Tx<'_>,
    volume: &Volume,
    owner: Ino,
    entry: &Entry,
    name: &[u8],
    ino: Ino,
    kind: Kind,
) {
    let bytes = encode(volume, owner, name, entry.hash, ino, kind);
    tx.put(offset_of(entry.block) + entry.position as u64, &bytes.0[..ENTRY_HEAD_SIZE]);
}

/// Bytes of entries beyond which a leaf counts as full.
pub(crate) const FULL_HEAP: usize = (HEAP_END - HEAP_START) * 7 / 8;

/// Bytes that entries take in the heap.
pub(crate) fn heap_size(entries: &[OwnedEntry]) -> usize {
    entries.iter().map(|entry| entry_size(entry.name.len())).sum()
}

/// Whether entries fit in one leaf.
pub(crate) fn fits(entries: &[OwnedEntry]) -> bool {
    entries.len() <= TAGS && heap_size(entries) <= HEAP_END - HEAP_START
}

/// The bytes of a new leaf with these entries, which fit.
pub(crate) fn build(
    volume: &Volume,
    owner: Ino,
    block: u64,
    entries: &[OwnedEntry],
) -> [u8; BLOCK_SIZE as usize] {
    let mut bytes = [0; BLOCK_SIZE as usize];
    bytes[..TAGS_START].copy_from_slice(BlockHead::leaf(owner.0, block, volume.seed).as_bytes());
    let mut position = HEAP_START;
    for (index, entry) in entries.iter().enumerate() {
        let size = entry_size(entry.name.len());
        let encoded = encode(volume, owner, &entry.name, entry.hash, entry.ino, entry.kind);
        bytes[position..position + size].copy_from_slice(&encoded.0[..size]);
        let tag = tag(volume.seed.names.tag_bits(entry.hash), position);
        bytes[TAGS_START + index * 4..][..4].copy_from_slice(&tag.to_le_bytes());
        position += size;
    }
    bytes
}
