//! Are the blocks of a directory a tree of this directory?
//!
//! The walk goes down with a stack of its own, no deeper than the format allows, and enters no block twice.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::directory::{BlockHead, Child, LEVELS_MAX, Node};
use lodefs_layout::inode::InodeSlot;
use std::ops::Range;
use zerocopy::{FromZeros, IntoBytes};

use super::finding::{Code, Finding, Object};
use super::survey::Survey;
use crate::error::Result;
use crate::tx::offset_of;
use crate::types::Ino;
use crate::volume::Volume;

/// What a walk through the tree of a directory meets.
#[derive(Debug)]
pub(super) enum Met {
    /// An interior block.
    Node,
    /// A leaf, and the hashes that belong into it.
    Leaf(u64, Range<u64>),
    /// A block of the tree that is none, or whose children cannot be believed.
    Fault { code: Code, block: u64, detail: String },
}

/// A node whose children are being visited.
struct Frame {
    children: std::vec::IntoIter<Child>,
    level: u16,
    hashes: Range<u64>,
    is_first: bool,
}

impl Frame {
    /// The next child and the hashes that belong below it.
    fn next(&mut self) -> Option<(u64, Range<u64>)> {
        let child = self.children.next()?;
        let start = if self.is_first { self.hashes.start } else { child.hash.get() };
        let end = self.children.as_slice().first().map_or(self.hashes.end, |next| next.hash.get());
        self.is_first = false;
        Some((child.block.get(), start..end))
    }
}

/// Walks through the tree at `root` of directory `owner`. `enter` says whether a block may be entered; one that lies
/// outside of the volume is never asked for.
pub(super) fn walk(
    volume: &Volume,
    owner: Ino,
    root: u64,
    enter: &mut dyn FnMut(u64) -> bool,
    visit: &mut dyn FnMut(Met) -> Result<()>,
) -> Result<()> {
    if root == 0 {
        return Ok(());
    }
    let mut stack: Vec<Frame> = Vec::new();
    let mut next = Some((root, 0..u64::MAX, None));
    loop {
        if let Some((block, hashes, level)) = next.take() {
            stack.extend(meet(volume, owner, block, hashes, level, enter, visit)?);
        }
        let Some(frame) = stack.last_mut() else { return Ok(()) };
        match frame.next() {
            Some((block, hashes)) => next = Some((block, hashes, Some(frame.level - 1))),
            None => drop(stack.pop()),
        }
    }
}

/// Looks at one block; if it is a node, returns its children.
fn meet(
    volume: &Volume,
    owner: Ino,
    block: u64,
    hashes: Range<u64>,
    level: Option<u16>,
    enter: &mut dyn FnMut(u64) -> bool,
    visit: &mut dyn FnMut(Met) -> Result<()>,
) -> Result<Option<Frame>> {
    let fault = |code, detail: &str| Met::Fault { code, block, detail: detail.into() };
    if !volume.holds_block(block) {
        visit(fault(Code::DirBlock, "it lies outside of the volume"))?;
        return Ok(None);
    }
    if !enter(block) {
        visit(fault(Code::DirBlock, "it belongs to something else"))?;
        return Ok(None);
    }
    let head: BlockHead = volume.get(offset_of(block))?;
    let level = level.unwrap_or_else(|| head.claimed_level());
    if level == 0 {
        let is_leaf = head.is_leaf(owner.0, block, volume.seed);
        visit(if is_leaf {
            Met::Leaf(block, hashes)
        } else {
            fault(Code::DirBlock, "a leaf with a wrong head")
        })?;
        return Ok(None);
    }
    let node = read_node(volume, block)?;
    if level > LEVELS_MAX || !is_intact(volume, owner, block, level, &node) {
        visit(fault(Code::DirBlock, "a node with a wrong checksum"))?;
        return Ok(None);
    }
    let children = node.children().to_vec();
    visit(Met::Node)?;
    if !is_ordered(&children, &hashes) {
        visit(fault(Code::DirOrder, ""))?;
    }
    Ok(Some(Frame { children: children.into_iter(), level, hashes, is_first: true }))
}

fn read_node(volume: &Volume, block: u64) -> Result<Box<Node>> {
    let mut node = Node::new_box_zeroed().expect("4 KiB of memory");
    volume.medium.read_meta(offset_of(block), node.as_mut_bytes())?;
    Ok(node)
}

/// Whether the node is what was written there, be the order of its children right or wrong.
pub(super) fn is_intact(volume: &Volume, owner: Ino, block: u64, level: u16, node: &Node) -> bool {
    let again = Node::new(owner.0, block, level, node.children(), volume.seed);
    node.is_valid(owner.0, block, level, volume.seed) || again.as_bytes() == node.as_bytes()
}

/// Whether the hashes of a node's children ascend within those that belong below it.
fn is_ordered(children: &[Child], hashes: &Range<u64>) -> bool {
    let Some((first, others)) = children.split_first() else { return false };
    first.hash.get() < hashes.end
        && others.iter().all(|child| hashes.contains(&child.hash.get()))
        && children.windows(2).all(|pair| pair[0].hash.get() < pair[1].hash.get())
}

impl Survey<'_> {
    /// Checks the tree of a directory and claims its blocks; returns how many.
    pub(super) fn claim_tree(&mut self, ino: Ino, slot: &InodeSlot) -> Result<u64> {
        let (volume, mut blocks, mut faults) = (self.volume, 0, Vec::new());
        let claims = &mut self.claims;
        walk(volume, ino, slot.root.get(), &mut |block| claims.take_block(block), &mut |met| {
            match met {
                Met::Node | Met::Leaf(..) => blocks += 1,
                Met::Fault { code, block, detail } => faults.push((code, block, detail)),
            }
            Ok(())
        })?;
        for (code, block, detail) in faults {
            self.facts(ino).is_broken = true;
            self.complete.names = false;
            self.complete.claims = false;
            self.report(Finding::new(code, Object::DirectoryBlock { directory: ino, block }, detail));
        }
        Ok(blocks)
    }
}

/// A block of a directory as it is, to look for entries in it.
pub(super) type RawBlock = [u8; BLOCK_SIZE as usize];

/// Reads a block of metadata.
pub(super) fn read_block(volume: &Volume, block: u64) -> Result<Box<RawBlock>> {
    let mut bytes = Box::new([0; BLOCK_SIZE as usize]);
    volume.medium.read_meta(offset_of(block), &mut bytes[..])?;
    Ok(bytes)
}
