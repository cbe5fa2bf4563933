//! The tree above the leaves: finding the leaf for a hash, splitting, packing and dropping leaves.
//!
//! The entries with one hash are in one leaf. Without keyed names an entry has the hash of its name, so a leaf is divided
//! only between different hashes. With keyed names, every entry has a hash of its own, and the names of one bucket may
//! lie in several leaves: looking for one then reads all of these leaves.

use std::ops::Range;

use lodefs_layout::directory::{BlockHead, CHILDREN_MAX, Child, LEVELS_MAX, Node};
use lodefs_layout::inode::InodeSlot;
use lodefs_layout::names::HashRange;
use rustix::io::Errno;
use smallvec::SmallVec;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::leaf::{self, Hashes, Key, OwnedEntry, Source};
use super::{Entry, NodeCache, split};
use crate::error::{Error, Result, ensure};
use crate::tx::{Tx, offset_of};
use crate::types::{Ino, Kind};
use crate::volume::{Run, Volume};
use lodefs_sync::Arc;

/// A directory to look at or to change.
pub(crate) struct Tree<'a> {
    pub(crate) volume: &'a Volume,
    pub(crate) nodes: &'a NodeCache,
    pub(crate) owner: Ino,
}

/// A node on the way to a leaf, and which of its children was taken.
struct Step {
    node: Arc<Node>,
    block: u64,
    child: usize,
}

/// The way from the root to a leaf.
struct Path {
    steps: SmallVec<[Step; 3]>,
    leaf: u64,
    /// The hashes that belong into this leaf.
    hashes: Range<u64>,
}

impl Tree<'_> {
    /// Looks for a name in the tree at `root` (zero: an empty directory).
    pub(crate) fn find(&self, source: &impl Source, root: u64, key: Key<'_>) -> Result<Option<Entry>> {
        if root == 0 {
            return Ok(None);
        }
        let mut from = key.range.first;
        loop {
            let path = self.descend(source, root, from)?;
            let found = leaf::find(source, self.volume, self.owner, path.leaf, &path.hashes, key)?;
            // The end of the leaf's hashes is behind `from`, so this ends.
            if found.is_some() || path.hashes.end > key.range.last {
                return Ok(found);
            }
            from = path.hashes.end;
        }
    }

    /// A hash for a new entry, which no other entry of the directory has if names are keyed. `NOSPC` if all are used.
    fn choose_hash(&self, source: &impl Source, root: u64, range: HashRange) -> Result<u64> {
        if root == 0 || !self.volume.seed.names.is_keyed() {
            return Ok(range.first);
        }
        let mut used = Hashes::new();
        let mut from = range.first;
        loop {
            let path = self.descend(source, root, from)?;
            leaf::hashes_in(source, self.volume, path.leaf, range, &mut used)?;
            if path.hashes.end > range.last {
                break;
            }
            from = path.hashes.end;
        }
        used.sort_unstable();
        Ok(range.free_hash(&used).ok_or(Errno::NOSPC)?)
    }

    /// The leaf that holds the hashes around `hash`, and which hashes those are.
    pub(crate) fn leaf_for(&self, root: u64, hash: u64) -> Result<(u64, Range<u64>)> {
        let path = self.descend(self.volume, root, hash)?;
        Ok((path.leaf, path.hashes))
    }

    fn descend(&self, source: &impl Source, root: u64, hash: u64) -> Result<Path> {
        let mut path = Path { steps: SmallVec::new(), leaf: root, hashes: 0..u64::MAX };
        let mut expected_level = None;
        loop {
            let block = path.leaf;
            let Some(node) = self.node(source, block, expected_level)? else { return Ok(path) };
            let children = node.children();
            let child = children.partition_point(|child| child.hash.get() <= hash).saturating_sub(1);
            // Whatever is less than all of them is below the first.
            if child > 0 {
                path.hashes.start = path.hashes.start.max(children[child].hash.get());
            }
            if let Some(next) = children.get(child + 1) {
                path.hashes.end = path.hashes.end.min(next.hash.get());
            }
            path.leaf = children[child].block.get();
            expected_level = Some(node.head.claimed_level() - 1);
            path.steps.push(Step { node, block, child });
        }
    }

    /// The interior node at `block`, or `None` if a leaf is there.
    pub(crate) fn node(
        &self,
        source: &impl Source,
        block: u64,
        level: Option<u16>,
    ) -> Result<Option<Arc<Node>>> {
        if level == Some(0) {
            return self.check_leaf(source, block).map(|()| None);
        }
        if let Some(node) = self.nodes.get(block) {
            return Ok(Some(node));
        }
        if !self.volume.holds_block(block) {
            return Err(Error::corrupt_inode(self.owner, "a directory block lies outside of the volume"));
        }
        let head: BlockHead = source.get(offset_of(block))?;
        let level = level.unwrap_or_else(|| head.claimed_level());
        if level == 0 {
            return self.check_leaf(source, block).map(|()| None);
        }
        let node: Node = source.get(offset_of(block))?;
        if level > LEVELS_MAX || !node.is_valid(self.owner.0, block, level, self.volume.seed) {
            return Err(Error::corrupt_block(block, "damaged directory block"));
        }
        let node = Arc::new(node);
        self.nodes.insert(block, Arc::clone(&node));
        Ok(Some(node))
    }

    fn check_leaf(&self, source: &impl Source, block: u64) -> Result<()> {
        if !self.volume.holds_block(block) {
            return Err(Error::corrupt_inode(self.owner, "a directory block lies outside of the volume"));
        }
        let head: BlockHead = source.get(offset_of(block))?;
        if head.is_leaf(self.owner.0, block, self.volume.seed) {
            Ok(())
        } else {
            Err(Error::corrupt_block(block, "damaged directory leaf"))
        }
    }

    /// Adds an entry whose name is not there yet. `slot` is the directory's, as it will be stored; its root, size and
    /// number of blocks are adjusted.
    pub(crate) fn insert(
        &self,
        tx: &mut Tx<'_>,
        slot: &mut InodeSlot,
        key: Key<'_>,
        ino: Ino,
        kind: Kind,
    ) -> Result<()> {
        // An image may say that there are as many as there can be numbers; to count them is for fsck.
        slot.size = U64::new(slot.size.get().saturating_add(1));
        let hash = self.choose_hash(&*tx, slot.root.get(), key.range)?;
        let added = OwnedEntry { hash, ino, kind, name: key.name.to_vec() };
        if slot.root.get() == 0 {
            let block = self.write_leaf(tx, slot, &[added], false)?;
            slot.root = U64::new(block);
            return Ok(());
        }
        let path = self.descend(&*tx, slot.root.get(), hash)?;
        if leaf::insert(tx, self.volume, self.owner, path.leaf, &added)? {
            return Ok(());
        }
        let mut entries = self.entries_of(&*tx, path.leaf)?;
        entries.push(added);
        entries.sort_unstable_by_key(|entry| entry.hash);
        let replacements = self.write_leaves(tx, slot, path.hashes.start, &entries)?;
        self.free_block(tx, slot, path.leaf);
        self.replace_child(tx, slot, &path.steps, &replacements, false)
    }

    /// Removes an entry that was found.
    pub(crate) fn remove(&self, tx: &mut Tx<'_>, slot: &mut InodeSlot, entry: &Entry) -> Result<()> {
        slot.size = U64::new(slot.size.get().saturating_sub(1));
        let leaf = leaf::read(&*tx, self.volume, self.owner, entry.block)?;
        let others = leaf.tags.iter().filter(|tag| tag.get() != 0).count() - 1;
        if others > 0 {
            leaf::remove(tx, entry);
            return Ok(());
        }
        let path = self.descend(&*tx, slot.root.get(), entry.hash)?;
        let (mark, before) = (tx.mark(), *slot);
        self.free_block(tx, slot, path.leaf);
        match self.replace_child(tx, slot, &path.steps, &[], true) {
            // No block for a smaller tree: an empty leaf in the old one does no harm.
            Err(Error::Refused(Errno::NOSPC)) => {
                tx.roll_back(&mark);
                *slot = before;
                leaf::remove(tx, entry);
                Ok(())
            }
            other => other,
        }
    }

    /// All entries of the leaf at `block`.
    pub(crate) fn entries_of(&self, source: &impl Source, block: u64) -> Result<Vec<OwnedEntry>> {
        let leaf = leaf::read(source, self.volume, self.owner, block)?;
        let entries = leaf::entries(self.volume, self.owner, block, &leaf);
        entries.map(|entry| entry.map(|(_, entry)| entry)).collect()
    }

    /// Writes entries, sorted by hash, into as few fresh leaves as they need: one if they fit, else two or more.
    fn write_leaves(
        &self,
        tx: &mut Tx<'_>,
        slot: &mut InodeSlot,
        first_hash: u64,
        entries: &[OwnedEntry],
    ) -> Result<SmallVec<[Child; 2]>> {
        let mut children = SmallVec::new();
        for part in split::parts(self.volume.seed.names, entries)? {
            let block = self.write_leaf(tx, slot, part, false)?;
            let start = if children.is_empty() { first_hash } else { part[0].hash };
            children.push(Child { hash: U64::new(start), block: U64::new(block) });
        }
        Ok(children)
    }

    fn write_leaf(
        &self,
        tx: &mut Tx<'_>,
        slot: &mut InodeSlot,
        entries: &[OwnedEntry],
        reclaim: bool,
    ) -> Result<u64> {
        let block = self.take_block(tx, slot, reclaim)?;
        tx.write_fresh(offset_of(block), &leaf::build(self.volume, self.owner, block, entries))?;
        Ok(block)
    }

    fn take_block(&self, tx: &mut Tx<'_>, slot: &mut InodeSlot, reclaim: bool) -> Result<u64> {
        let block = tx.allocate_metadata_block(reclaim)?;
        // The block may have been an interior node of this directory before.
        self.nodes.forget(block);
        slot.blocks = U64::new(slot.blocks.get() + 1);
        Ok(block)
    }

    fn free_block(&self, tx: &mut Tx<'_>, slot: &mut InodeSlot, block: u64) {
        tx.free_metadata(Run { start: block, blocks: 1 });
        self.nodes.forget(block);
        slot.blocks = U64::new(slot.blocks.get().saturating_sub(1));
    }

    /// Puts `replacements` in the place of the child that the last of `steps` leads to, in fresh nodes up to the root.
    fn replace_child(
        &self,
        tx: &mut Tx<'_>,
        slot: &mut InodeSlot,
        steps: &[Step],
        replacements: &[Child],
        reclaim: bool,
    ) -> Result<()> {
        let Some((last, above)) = steps.split_last() else {
            return self.replace_root(tx, slot, replacements, 1, reclaim);
        };
        let level = last.node.head.claimed_level();
        let mut children = last.node.children().to_vec();
        let old_hash = children[last.child].hash;
        children.splice(last.child..=last.child, replacements.iter().copied());
        if replacements.is_empty() && last.child == 0 && !children.is_empty() {
            children[0].hash = old_hash;
        }
        let parts =
            children.chunks(if children.len() > CHILDREN_MAX { CHILDREN_MAX / 2 + 1 } else { CHILDREN_MAX });
        let mut nodes: SmallVec<[Child; 2]> = SmallVec::new();
        let is_root = above.is_empty();
        if is_root && children.len() == 1 {
            // A root with one child is no use: the child becomes the root.
            nodes.push(children[0]);
        } else {
            for part in parts {
                nodes.push(self.write_node(tx, slot, level, part, reclaim)?);
            }
        }
        self.free_block(tx, slot, last.block);
        self.replace_child_or_root(tx, slot, above, &nodes, level + 1, reclaim)
    }

    fn replace_child_or_root(
        &self,
        tx: &mut Tx<'_>,
        slot: &mut InodeSlot,
        above: &[Step],
        nodes: &[Child],
        level: u16,
        reclaim: bool,
    ) -> Result<()> {
        if above.is_empty() {
            self.replace_root(tx, slot, nodes, level, reclaim)
        } else {
            self.replace_child(tx, slot, above, nodes, reclaim)
        }
    }

    /// Makes the tree hang from `children`; if there are several, below a new root at `level`.
    fn replace_root(
        &self,
        tx: &mut Tx<'_>,
        slot: &mut InodeSlot,
        children: &[Child],
        level: u16,
        reclaim: bool,
    ) -> Result<()> {
        let root = match children {
            [] => 0,
            [only] => only.block.get(),
            several => {
                ensure(level <= LEVELS_MAX, Errno::NOSPC)?;
                self.write_node(tx, slot, level, several, reclaim)?.block.get()
            }
        };
        slot.root = U64::new(root);
        Ok(())
    }

    fn write_node(
        &self,
        tx: &mut Tx<'_>,
        slot: &mut InodeSlot,
        level: u16,
        children: &[Child],
        reclaim: bool,
    ) -> Result<Child> {
        let block = self.take_block(tx, slot, reclaim)?;
        let node = Node::new(self.owner.0, block, level, children, self.volume.seed);
        tx.write_fresh(offset_of(block), node.as_bytes())?;
        Ok(Child { hash: children[0].hash, block: U64::new(block) })
    }

    /// Visits every block of the tree at `root`.
    pub(crate) fn visit_blocks(&self, root: u64, visit: &mut impl FnMut(u64) -> Result<()>) -> Result<()> {
        if root == 0 {
            return Ok(());
        }
        let mut left = self.volume.shape.total_blocks;
        self.visit_below(root, None, &mut |block| {
            left = left
                .checked_sub(1)
                .ok_or_else(|| Error::corrupt_inode(self.owner, "its blocks form a circle"))?;
            visit(block)
        })
    }

    fn visit_below(
        &self,
        block: u64,
        level: Option<u16>,
        visit: &mut impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        visit(block)?;
        let Some(node) = self.node(self.volume, block, level)? else { return Ok(()) };
        for child in node.children() {
            self.visit_below(child.block.get(), Some(node.head.claimed_level() - 1), visit)?;
        }
        Ok(())
    }
}
