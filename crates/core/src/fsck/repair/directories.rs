//! Building a directory again from the entries that can be read.
//!
//! The new tree is written into fresh blocks, and the inode is pointed at it in one record: a crash leaves the old tree or
//! the new one. Every entry carries a checksum over its directory's number and its name, so one that is found in a
//! block whose head is damaged is still known to be one of this directory.
//!
//! What hung below a damaged block is looked for among the blocks that nobody owns. Old leaves, of which the entries were
//! moved or removed long ago, look the same there; so of those entries only such are taken that lead to an inode without
//! a name.

use std::collections::{HashMap, HashSet};

use lodefs_layout::directory::{BlockHead, CHILDREN_MAX, Child, LEVELS_MAX, Node};
use rustix::io::Errno;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use super::{Applied, Repair};
use crate::blob;
use crate::dir::leaf::{self, OwnedEntry};
use crate::error::{Result, ensure};
use crate::fsck::claims::BlockSet;
use crate::fsck::directories::{RawBlock, is_intact, read_block};
use crate::fsck::entries::{RawEntry, entries};
use crate::tx::{Tx, offset_of};
use crate::types::{Ino, Kind, check_name};
use crate::volume::Volume;

/// The entries of a directory that can be read.
struct Salvage<'v> {
    volume: &'v Volume,
    owner: Ino,
    visited: HashSet<u64>,
    entries: Vec<OwnedEntry>,
    /// The inodes of those entries that lie below damage, where a survey does not look.
    hidden: Vec<(Ino, Kind)>,
    /// Something could not be read.
    is_incomplete: bool,
    /// A block could not be read, so that others may be below it.
    lost_blocks: bool,
}

/// A block of a tree that is still to be read.
struct Left {
    block: u64,
    /// `None`: the root, which says itself.
    level: Option<u16>,
    /// It lies below damage.
    hidden: bool,
}

impl Repair {
    /// Builds a directory again. Unless `may_lose`, only if every entry of it can be read.
    pub(super) fn rebuild(&mut self, ino: Ino, may_lose: bool) -> Result<Applied> {
        if self.rebuilt.contains(&ino) {
            return Ok(Applied::Done);
        }
        let root = self.inode(ino)?.root.get();
        if may_lose {
            self.unowned.look(&self.fs.volume, &self.used)?;
        }
        let mut salvage = Salvage::of(&self.fs.volume, ino, root)?;
        salvage.sort();
        if (salvage.is_incomplete || salvage.lost_blocks) && !may_lose {
            return Ok(Applied::Later);
        }
        if salvage.lost_blocks {
            salvage.take_unowned(self.unowned.leaves_of(ino), &self.used, &mut self.nameless)?;
            salvage.sort();
        }
        let mut tx = Tx::begin(&self.fs)?;
        let mut new_tree = NewTree { volume: &self.fs.volume, owner: ino, blocks: 0 };
        let root = new_tree.write(&mut tx, &salvage.entries)?;
        let (size, tree_blocks) = (salvage.entries.len() as u64, new_tree.blocks);
        self.edit_inode_in(&mut tx, ino, |slot| {
            let attributes = match slot.xattr_block.get() {
                0 => 0,
                block => blob::run(block, slot.xattr_size.get() as usize).blocks,
            };
            slot.root = U64::new(root);
            slot.size = U64::new(size);
            slot.blocks = U64::new(attributes + tree_blocks);
        })?;
        tx.commit()?;
        self.rebuilt.insert(ino);
        Ok(Applied::Done)
    }
}

impl<'v> Salvage<'v> {
    /// Reads what can be read below `root`.
    fn of(volume: &'v Volume, owner: Ino, root: u64) -> Result<Self> {
        let mut salvage = Self {
            volume,
            owner,
            visited: HashSet::new(),
            entries: Vec::new(),
            hidden: Vec::new(),
            is_incomplete: false,
            lost_blocks: false,
        };
        let mut left = Vec::new();
        if root != 0 {
            left.push(Left { block: root, level: None, hidden: false });
        }
        while let Some(next) = left.pop() {
            if !volume.holds_block(next.block) || !salvage.visited.insert(next.block) {
                salvage.lost_blocks = true;
                continue;
            }
            let bytes = read_block(volume, next.block)?;
            let head = BlockHead::read_from_prefix(&bytes[..]).expect("a block is longer than a head").0;
            match next.level.unwrap_or_else(|| head.claimed_level()) {
                0 => salvage.read_leaf(&next, &head, &bytes),
                level => salvage.read_node(&next, level, &bytes, &mut left),
            }
        }
        Ok(salvage)
    }

    fn read_node(&mut self, at: &Left, level: u16, bytes: &RawBlock, left: &mut Vec<Left>) {
        let node = Node::read_from_bytes(&bytes[..]).expect("a node is a block");
        let is_intact = level <= LEVELS_MAX && is_intact(self.volume, self.owner, at.block, level, &node);
        self.lost_blocks |= !is_intact;
        if level > LEVELS_MAX {
            return;
        }
        // Whatever a damaged node leads to proves by itself that it belongs here.
        let hidden = at.hidden || !is_intact;
        let children = node.children().iter().rev();
        left.extend(children.map(|child| Left { block: child.block.get(), level: Some(level - 1), hidden }));
    }

    fn read_leaf(&mut self, at: &Left, head: &BlockHead, bytes: &RawBlock) {
        let is_intact = head.is_leaf(self.owner.0, at.block, self.volume.seed);
        self.lost_blocks |= !is_intact;
        for (_, entry) in entries(self.volume, self.owner, bytes) {
            let Some(entry) = entry.ok().and_then(|entry| self.owned(&entry)) else {
                self.is_incomplete = true;
                continue;
            };
            if at.hidden || !is_intact {
                self.hidden.push((entry.ino, entry.kind));
            }
            self.entries.push(entry);
        }
    }

    /// The entry with a hash that its name may have. One of unknown type gets the right one later.
    fn owned(&self, entry: &RawEntry<'_>) -> Option<OwnedEntry> {
        check_name(entry.name).ok()?;
        let range = self.volume.seed.name_range(entry.name);
        let stored = Some(entry.head.hash.get()).filter(|hash| range.contains(*hash));
        Some(OwnedEntry {
            hash: stored.unwrap_or(range.first),
            ino: entry.ino(),
            kind: Kind::from_d_type(entry.head.kind).unwrap_or(Kind::File),
            name: entry.name.to_vec(),
        })
    }

    /// Of leaves that nobody uses, takes the entries that lead to an inode without a name.
    fn take_unowned(
        &mut self,
        leaves: &[u64],
        used: &BlockSet,
        nameless: &mut HashMap<Ino, (Kind, u32)>,
    ) -> Result<()> {
        let mut names: HashSet<Vec<u8>> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        for (ino, kind) in &self.hidden {
            // It has found its name already.
            take_name(nameless, *ino, *kind);
        }
        for &block in leaves {
            if used.contains(block) || self.visited.contains(&block) {
                continue;
            }
            let head: BlockHead = self.volume.get(offset_of(block))?;
            if !head.is_leaf(self.owner.0, block, self.volume.seed) {
                // Where there was no room to spare it, something else is there by now.
                continue;
            }
            let bytes = read_block(self.volume, block)?;
            for entry in entries(self.volume, self.owner, &bytes).filter_map(|(_, entry)| entry.ok()) {
                let Some(entry) = self.owned(&entry) else { continue };
                if !names.contains(&entry.name) && take_name(nameless, entry.ino, entry.kind) {
                    names.insert(entry.name.clone());
                    self.entries.push(entry);
                }
            }
        }
        Ok(())
    }

    /// Brings the entries into order, and leaves one of each name.
    fn sort(&mut self) {
        let before = self.entries.len();
        self.entries.sort_by(|a, b| (&a.name, a.hash).cmp(&(&b.name, b.hash)));
        self.entries.dedup_by(|b, a| a.name == b.name);
        self.is_incomplete |= self.entries.len() < before;
        self.entries.sort_by(|a, b| (a.hash, &a.name).cmp(&(b.hash, &b.name)));
        let names = self.volume.seed.names;
        if names.is_keyed() {
            let same_bucket = |a: &OwnedEntry, b: &OwnedEntry| names.same_bucket(a.hash, b.hash);
            self.entries.chunk_by_mut(same_bucket).for_each(|bucket| tell_apart(self.volume, bucket));
        }
    }
}

/// Gives each entry of a bucket, sorted by hash, a hash of its own. Those that have one keep it.
fn tell_apart(volume: &Volume, bucket: &mut [OwnedEntry]) {
    if bucket.windows(2).all(|pair| pair[0].hash < pair[1].hash) {
        return;
    }
    let mut used: Vec<u64> = bucket.iter().map(|entry| entry.hash).collect();
    used.dedup();
    let mut before = None;
    for entry in bucket.iter_mut() {
        if before.replace(entry.hash) == Some(entry.hash) {
            let range = volume.seed.name_range(&entry.name);
            // A bucket has more hashes than a volume has room for entries.
            entry.hash = range.free_hash(&used).expect("a bucket has 2^36 hashes");
            used.insert(used.partition_point(|hash| *hash < entry.hash), entry.hash);
        }
    }
    bucket.sort_by_key(|entry| entry.hash);
}

/// Whether an inode lacks a name, and is of this type; then it lacks one less.
fn take_name(nameless: &mut HashMap<Ino, (Kind, u32)>, ino: Ino, of_kind: Kind) -> bool {
    match nameless.get_mut(&ino) {
        Some((kind, missing)) if *kind == of_kind && *missing > 0 => {
            *missing -= 1;
            true
        }
        _ => false,
    }
}

/// A tree that is being written.
struct NewTree<'v> {
    volume: &'v Volume,
    owner: Ino,
    blocks: u64,
}

impl NewTree<'_> {
    /// Writes a tree with these entries, which are sorted, and returns its root (zero: there are none).
    fn write(&mut self, tx: &mut Tx<'_>, entries: &[OwnedEntry]) -> Result<u64> {
        let mut children = self.write_leaves(tx, entries)?;
        let mut level = 1;
        while children.len() > 1 {
            ensure(level <= LEVELS_MAX, Errno::NOSPC)?;
            let mut parents = Vec::new();
            for part in children.chunks(CHILDREN_MAX * 3 / 4) {
                let block = self.take_block(tx)?;
                let node = Node::new(self.owner.0, block, level, part, self.volume.seed);
                tx.write_fresh(offset_of(block), node.as_bytes())?;
                parents.push(Child { hash: part[0].hash, block: U64::new(block) });
            }
            children = parents;
            level += 1;
        }
        Ok(children.first().map_or(0, |root| root.block.get()))
    }

    fn write_leaves(&mut self, tx: &mut Tx<'_>, entries: &[OwnedEntry]) -> Result<Vec<Child>> {
        let mut children = Vec::new();
        let mut rest = entries;
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(leaf_len(rest).ok_or(Errno::NOSPC)?);
            let block = self.take_block(tx)?;
            tx.write_fresh(offset_of(block), &leaf::build(self.volume, self.owner, block, part))?;
            let hash = if children.is_empty() { 0 } else { part[0].hash };
            children.push(Child { hash: U64::new(hash), block: U64::new(block) });
            rest = behind;
        }
        Ok(children)
    }

    fn take_block(&mut self, tx: &mut Tx<'_>) -> Result<u64> {
        self.blocks += 1;
        tx.allocate_metadata_block(true)
    }
}

/// How many of these entries to put into one leaf, with some room to spare: all with one hash go together.
fn leaf_len(entries: &[OwnedEntry]) -> Option<usize> {
    let mut len = 0;
    for group in entries.chunk_by(|a, b| a.hash == b.hash) {
        let with_group = &entries[..len + group.len()];
        let is_full = !leaf::fits(with_group) || leaf::heap_size(with_group) > leaf::FULL_HEAP;
        if is_full && len > 0 {
            break;
        }
        if !leaf::fits(with_group) {
            return None;
        }
        len += group.len();
    }
    Some(len)
}
