//! The entries of one leaf.
//!
//! A reader goes from the tags: a tag whose half of the hash matches leads to an entry, which is checked before it is
//! believed. Adding an entry writes it to a free place in the heap and sets a free tag; removing one clears its tag.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::directory::{
    BlockHead, ENTRY_HEAD_SIZE, EntryHead, HEAP_END, HEAP_START, Leaf, TAGS, TAGS_START, entry_size, tag,
    tag_position,
};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::Entry;
use crate::error::{Error, Result};
use crate::tx::{Tx, offset_of};
use crate::types::{Ino, Kind};
use crate::volume::Volume;

/// A name with its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'n> {
    pub(crate) name: &'n [u8],
    pub(crate) hash: u64,
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

/// Looks for a name in the leaf at `block` of directory `owner`.
pub(crate) fn find(
    source: &impl Source,
    volume: &Volume,
    owner: Ino,
    block: u64,
    key: Key<'_>,
) -> Result<Option<Entry>> {
    let tags: Tags = source.get(offset_of(block) + TAGS_START as u64)?;
    let wanted = (key.hash & 0xffff) as u32;
    for (tag_index, tag) in tags.iter().enumerate() {
        let tag = tag.get();
        if tag >> 16 != wanted || tag == 0 {
            continue;
        }
        let position = check_position(block, tag)?;
        let head: EntryHead = source.get(offset_of(block) + position as u64)?;
        if head.hash.get() != key.hash || head.name_size as usize != key.name.len() {
            continue;
        }
        let mut name = [0; lodefs_layout::NAME_MAX];
        let name = &mut name[..key.name.len()];
        check_end(block, position, name.len())?;
        source.get_slice(offset_of(block) + (position + ENTRY_HEAD_SIZE) as u64, name)?;
        if name == key.name {
            let (ino, kind) = check_entry(volume, owner, block, &head, name)?;
            return Ok(Some(Entry { block, tag_index, position, ino, kind }));
        }
    }
    Ok(None)
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
    key: Key<'_>,
    ino: Ino,
    kind: Kind,
) -> Result<bool> {
    let tags: Tags = tx.get(offset_of(block) + TAGS_START as u64)?;
    let Some(tag_index) = tags.iter().position(|tag| tag.get() == 0) else { return Ok(false) };
    let size = entry_size(key.name.len());
    let Some(position) = find_room(tx, block, &tags, size)? else { return Ok(false) };
    let bytes = encode(volume, owner, key, ino, kind);
    tx.put(offset_of(block) + position as u64, &bytes.0[..size]);
    put_tag(tx, block, tag_index, tag(key.hash, position));
    Ok(true)
}

struct EntryBytes([u8; lodefs_layout::directory::ENTRY_SIZE_MAX]);

fn encode(volume: &Volume, owner: Ino, key: Key<'_>, ino: Ino, kind: Kind) -> EntryBytes {
    let head = EntryHead::new(owner.0, key.name, key.hash, ino.0, kind.d_type(), volume.seed);
    let mut bytes = [0; lodefs_layout::directory::ENTRY_SIZE_MAX];
    bytes[..ENTRY_HEAD_SIZE].copy_from_slice(head.as_bytes());
    bytes[ENTRY_HEAD_SIZE..ENTRY_HEAD_SIZE + key.name.len()].copy_from_slice(key.name);
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
    key: Key<'_>,
    ino: Ino,
    kind: Kind,
) {
    let bytes = encode(volume, owner, key, ino, kind);
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
        let key = Key { name: &entry.name, hash: entry.hash };
        let size = entry_size(entry.name.len());
        bytes[position..position + size]
            .copy_from_slice(&encode(volume, owner, key, entry.ino, entry.kind).0[..size]);
        bytes[TAGS_START + index * 4..][..4].copy_from_slice(&tag(entry.hash, position).to_le_bytes());
        position += size;
    }
    bytes
}
