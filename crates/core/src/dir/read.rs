//! Listing a directory in the order of the hashes.
//!
//! A listing may stop behind any entry and go on from the position of that entry ([`super::position`]).

use smallvec::smallvec;

use super::position::Group;
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::types::DirEntry;

/// Visits the entries of the tree at `root`, a directory of `size` entries, from position `from` on, until the visitor
/// has enough (and returns `false`: it did not take the entry).
pub(crate) fn read(
    tree: &Tree<'_>,
    root: u64,
    size: u64,
    from: u64,
    visit: &mut dyn FnMut(&DirEntry) -> bool,
) -> Result<()> {
    let ties = &tree.nodes.ties;
    let start = ties.start(from);
    let (mut from, mut behind) = (start.hash, start.behind);
    // No entry has a hash of more than 63 bits.
    while root != 0 && i64::try_from(from).is_ok() {
        let (leaf, hashes) = tree.leaf_for(root, from)?;
        let mut entries = tree.entries_of(tree.volume, leaf)?;
        // Looking such an entry up would not find it, and its position would lead elsewhere.
        if entries.iter().any(|entry| !hashes.contains(&entry.hash)) {
            return Err(Error::corrupt_block(leaf, "it holds an entry of another directory leaf"));
        }
        entries.retain(|entry| entry.hash >= from);
        entries.sort_unstable_by_key(|entry| entry.hash);
        let mut entries = entries.into_iter().peekable();
        while let Some(first) = entries.next() {
            let hash = first.hash;
            let mut group: Group = smallvec![first];
            while let Some(other) = entries.next_if(|entry| entry.hash == hash) {
                group.push(other);
            }
            let after = behind.take().filter(|_| hash == from);
            ties.arrange(&mut group, after, size);
            let next = entries.peek().map_or(hashes.end, |entry| entry.hash);
            if !visit_group(tree, group, next, size, visit) {
                return Ok(());
            }
        }
        (from, behind) = (hashes.end, None);
    }
    Ok(())
}

/// Visits entries with one hash; the hash of those that follow is `next` or more.
fn visit_group(
    tree: &Tree<'_>,
    group: Group,
    next: u64,
    size: u64,
    visit: &mut dyn FnMut(&DirEntry) -> bool,
) -> bool {
    let mut left = group.len();
    group.into_iter().all(|entry| {
        left -= 1;
        let next = if left == 0 { next } else { entry.hash };
        let next = tree.nodes.ties.behind(&entry, next, size);
        visit(&DirEntry { next, ino: entry.ino, kind: entry.kind, name: entry.name })
    })
}
