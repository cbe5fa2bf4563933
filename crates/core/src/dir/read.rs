//! Listing a directory in the order of the hashes.
//!
//! The position behind an entry is its hash plus one. All entries with one hash are listed together or not at all, so
//! that none is skipped when reading goes on from there.

use lodefs_layout::directory::FIRST_HASH;

use super::leaf::OwnedEntry;
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::types::DirEntry;

/// Visits the entries of the tree at `root` from position `from` on, until the visitor has enough (and returns
/// `false`: it did not take the entry).
pub(crate) fn read(
    tree: &Tree<'_>,
    root: u64,
    from: u64,
    visit: &mut dyn FnMut(&DirEntry) -> bool,
) -> Result<()> {
    let mut from = from.max(FIRST_HASH);
    while root != 0 && from < u64::MAX {
        let (leaf, hashes) = tree.leaf_for(root, from)?;
        let mut entries = tree.entries_of(tree.volume, leaf)?;
        // The positions of others would not ascend, and looking them up would not find them.
        if entries.iter().any(|entry| !hashes.contains(&entry.hash)) {
            return Err(Error::corrupt_block(leaf, "it holds an entry of another directory leaf"));
        }
        entries.retain(|entry| entry.hash >= from);
        entries.sort_unstable_by(|a, b| (a.hash, &a.name).cmp(&(b.hash, &b.name)));
        for group in entries.chunk_by(|a, b| a.hash == b.hash) {
            if !visit_group(group, visit) {
                return Ok(());
            }
        }
        from = hashes.end;
    }
    Ok(())
}

/// Entries with one hash carry the position of the hash itself until the last of them, so that a reader who stops among
/// them starts again with the first.
fn visit_group(group: &[OwnedEntry], visit: &mut dyn FnMut(&DirEntry) -> bool) -> bool {
    let last = group.len() - 1;
    group.iter().enumerate().all(|(i, entry)| {
        let next = if i == last { entry.hash + 1 } else { entry.hash };
        visit(&DirEntry { next, ino: entry.ino, kind: entry.kind, name: entry.name.clone() })
    })
}
