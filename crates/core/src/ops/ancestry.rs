//! Which directory lies below which: asked before a directory moves, so that none moves below itself.
//!
//! The parents of a directory up to the root may be many. They are remembered in a forest of *link-cut trees* (Sleator and
//! Tarjan), in which a question, a link and a cut take logarithmic time, amortized over all. A directory comes into the forest
//! when a question first leads there; only that takes a step for each directory on the way. A directory that moves is cut
//! from its parent, and linked to the next one when a question leads there.
//!
//! A number that is used again is another directory: the generation is a part of the key. What is remembered of a directory that
//! was removed can stay, for no question leads there.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::inode::Node;
use crate::types::Ino;

/// Directories that are remembered, after which all are forgotten before the next question.
const KNOWN_MAX: usize = 1 << 18;

const NONE: u32 = u32::MAX;

/// A directory, and no other that has had its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    ino: Ino,
    generation: u32,
}

/// A directory in a tree of the forest. Paths of the tree are splay trees, ordered by depth: what is nearer to the root is left.
#[derive(Debug)]
struct Known {
    key: Key,
    /// In the splay tree; of its root: the directory above the path, or `NONE`.
    above: u32,
    below: [u32; 2],
}

/// What is known of parents.
#[derive(Debug, Default)]
pub(crate) struct Forest {
    index: HashMap<Key, u32>,
    known: Vec<Known>,
    /// Steps that were made, for tests: directories that were looked at, and rotations.
    #[cfg(test)]
    looked_at: u64,
    #[cfg(test)]
    rotations: u64,
}

impl Forest {
    /// A directory may get another parent.
    pub(crate) fn moved(&mut self, directory: Key) {
        if let Some(&at) = self.index.get(&directory) {
            self.cut(at);
        }
    }

    fn of(&mut self, key: Key) -> u32 {
        let next = self.known.len() as u32;
        let at = *self.index.entry(key).or_insert(next);
        if at == next {
            self.known.push(Known { key, above: NONE, below: [NONE; 2] });
        }
        at
    }

    fn forget_all_if_too_many(&mut self) {
        if self.known.len() > KNOWN_MAX {
            *self = Self::default();
        }
    }

    fn at(&mut self, directory: u32) -> &mut Known {
        &mut self.known[directory as usize]
    }

    /// Which child of its parent in the splay tree this is; `None` for the root of one.
    fn side(&self, directory: u32) -> Option<usize> {
        let above = self.known.get(self.known[directory as usize].above as usize)?;
        above.below.iter().position(|below| *below == directory)
    }

    fn rotate(&mut self, directory: u32, side: usize) {
        #[cfg(test)]
        {
            self.rotations += 1;
        }
        let parent = self.at(directory).above;
        let above = self.at(parent).above;
        if let Some(side_of_parent) = self.side(parent) {
            self.at(above).below[side_of_parent] = directory;
        }
        let between = self.at(directory).below[1 - side];
        self.at(parent).below[side] = between;
        if between != NONE {
            self.at(between).above = parent;
        }
        self.at(directory).below[1 - side] = parent;
        self.at(parent).above = directory;
        self.at(directory).above = above;
    }

    /// Makes a directory the root of its splay tree.
    fn splay(&mut self, directory: u32) {
        while let Some(side) = self.side(directory) {
            let parent = self.at(directory).above;
            match self.side(parent) {
                Some(other) if other == side => self.rotate(parent, other),
                Some(_) => self.rotate(directory, side),
                None => {}
            }
            let side = self.side(directory).expect("it is below its parent, or was brought up to be so");
            self.rotate(directory, side);
        }
    }

    /// Makes the path from the root to a directory one splay tree, and the directory its root.
    fn expose(&mut self, directory: u32) {
        let (mut at, mut last) = (directory, NONE);
        while at != NONE {
            self.splay(at);
            self.at(at).below[1] = last;
            last = at;
            at = self.at(at).above;
        }
        self.splay(directory);
    }

    /// The highest known directory above this one.
    fn top_of(&mut self, directory: u32) -> u32 {
        self.expose(directory);
        let mut top = directory;
        while self.at(top).below[0] != NONE {
            top = self.at(top).below[0];
        }
        self.splay(top);
        top
    }

    /// Puts the top of a tree below a directory; `false` if that lies below it.
    fn link(&mut self, top: u32, parent: u32) -> bool {
        if self.top_of(parent) == top {
            return false;
        }
        self.expose(top);
        self.at(top).above = parent;
        true
    }

    fn cut(&mut self, directory: u32) {
        self.expose(directory);
        let left = std::mem::replace(&mut self.at(directory).below[0], NONE);
        if left != NONE {
            self.at(left).above = NONE;
        }
    }

    /// Whether a directory is another or lies below it, as far as is known.
    fn is_below(&mut self, directory: u32, ancestor: u32) -> bool {
        self.expose(directory);
        self.splay(ancestor);
        // The directory was the root, so it is only a few steps below the new one, if both are on one path.
        let mut at = directory;
        while at != ancestor {
            if self.side(at).is_none() {
                return false;
            }
            at = self.at(at).above;
        }
        true
    }
}

/// What tells a directory apart.
pub(crate) fn key_of(node: &Node) -> Result<Key> {
    Ok(Key { ino: node.ino(), generation: node.inode().read()?.slot.generation.get() })
}

/// Whether `dir` is `ancestor` or lies below it. Directories must not be moving.
pub(super) fn is_within(forest: &mut Forest, dir: &Node, ancestor: &Node) -> Result<bool> {
    if dir.ino() == ancestor.ino() {
        return Ok(true);
    }
    // Below a directory without subdirectories there is none, nor is a directory below another that has no name any more.
    if ancestor.inode().read()?.slot.links.get() <= 2 || dir.inode().read()?.slot.links.get() == 0 {
        return Ok(false);
    }
    forest.forget_all_if_too_many();
    let start = forest.of(key_of(dir)?);
    let wanted = forest.of(key_of(ancestor)?);
    loop {
        if forest.is_below(start, wanted) {
            return Ok(true);
        }
        #[cfg(test)]
        {
            forest.looked_at += 1;
        }
        let top = forest.top_of(start);
        let ino = forest.at(top).key.ino;
        let node = dir.fs().node(ino)?;
        let parent = Ino(node.inode().read()?.slot.parent.get());
        if ino == Ino::ROOT || parent == ino {
            return Ok(false);
        }
        let parent = forest.of(key_of(&dir.fs().node(parent)?)?);
        if !forest.link(top, parent) {
            return Err(Error::corrupt_inode(dir.ino(), "its parents form a circle"));
        }
    }
}

#[cfg(test)]
mod tests {
    use lodefs_pmem::{Domain, Medium};
    use proptest::prelude::*;
    use rustix::io::Errno;

    use super::*;
    use crate::FormatOptions;
    use crate::fs::{Fs, OpenOptions};
    use crate::types::{NewInode, NewKind, RenameMode};

    fn key(number: u32) -> Key {
        Key { ino: Ino(u64::from(number)), generation: 1 }
    }

    fn chain(length: u32) -> (Forest, Vec<u32>) {
        let mut forest = Forest::default();
        let all: Vec<u32> = (0..length).map(|number| forest.of(key(number))).collect();
        for pair in all.windows(2) {
            assert!(forest.link(pair[1], pair[0]));
        }
        (forest, all)
    }

    #[test]
    fn a_deep_path_is_no_deep_recursion_and_no_circle() {
        let (mut forest, all) = chain(100_000);
        let (first, last) = (all[0], *all.last().unwrap());
        assert!(forest.is_below(last, first) && !forest.is_below(first, last));
        assert_eq!(forest.top_of(last), first);
        assert!(!forest.link(first, last), "that would be a circle");
        forest.moved(key(50_000));
        assert!(!forest.is_below(last, first) && forest.is_below(last, all[50_000]));
        assert_eq!(forest.top_of(last), all[50_000]);
    }

    /// Numbers that look random.
    fn numbers() -> impl Iterator<Item = u64> {
        std::iter::successors(Some(1_u64), |number| {
            Some(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
        })
        .map(|number| number >> 33)
    }

    #[test]
    fn questions_take_few_steps_however_deep_the_path_is() {
        let (mut forest, all) = chain(20_000);
        forest.rotations = 0;
        let questions = 1000;
        for (a, b) in numbers().zip(numbers().skip(7)).take(questions) {
            let (a, b) = ((a % 20_000) as usize, (b % 20_000) as usize);
            assert_eq!(forest.is_below(all[a], all[b]), a >= b);
        }
        // The first questions pay for the shape that the links left.
        let bound = 20_000 * 3 + questions as u64 * 6 * 15;
        assert!(forest.rotations < bound, "{} rotations", forest.rotations);
        forest.rotations = 0;
        for number in numbers().take(questions) {
            let at = (number % 19_999) as usize + 1;
            forest.moved(key(at as u32));
            assert!(forest.link(all[at], all[at - 1]));
        }
        assert!(forest.rotations < questions as u64 * 12 * 15, "{} rotations", forest.rotations);
    }

    #[test]
    fn a_path_is_looked_at_once() {
        const DEPTH: u64 = 1000;
        let medium = Medium::anonymous(8 << 20, Domain::Volatile).unwrap();
        Fs::format(&medium, &FormatOptions::default()).unwrap();
        let fs = Fs::open(medium, &OpenOptions::default()).unwrap();
        let root = fs.root().unwrap();
        let new = NewInode { kind: NewKind::Directory, perm: 0o700, umask: 0, uid: 0, gid: 0 };
        let moved = fs.create(&root, b"moved", &new).unwrap();
        fs.create(&moved, b"below", &new).unwrap();
        let mut deep = root.clone();
        for _ in 0..DEPTH {
            deep = fs.create(&deep, b"d", &new).unwrap();
        }
        let go = |from: &Node, to: &Node| {
            let before = fs.moving_directories.lock().looked_at;
            fs.rename(from, b"moved", to, b"moved", RenameMode::Replace, (0, 0)).unwrap();
            fs.moving_directories.lock().looked_at - before
        };
        assert!(go(&root, &deep) > DEPTH, "each directory on the way, once");
        for _ in 0..10 {
            assert!(go(&deep, &root) <= 2);
            assert!(go(&root, &deep) <= 2);
        }
        // A directory on the way moves, and with it all that is below.
        let first = fs.lookup(&root, b"d").unwrap();
        let other = fs.create(&root, b"other", &new).unwrap();
        fs.rename(&root, b"d", &other, b"d", RenameMode::Replace, (0, 0)).unwrap();
        let below = fs.rename(&root, b"other", &deep, b"other", RenameMode::Replace, (0, 0));
        assert_eq!(below.unwrap_err().errno(), Errno::INVAL, "it would lie below itself");
        assert!(go(&deep, &first) <= 3);
    }

    proptest! {
        /// Compared with parents that are followed one by one.
        #[test]
        fn the_forest_is_what_its_links_say(steps in prop::collection::vec((0..3_u8, 0..12_u32, 0..12_u32), 0..300)) {
            let mut forest = Forest::default();
            let all: Vec<u32> = (0..12).map(|number| forest.of(key(number))).collect();
            let mut parents: [Option<u32>; 12] = [None; 12];
            let above = |parents: &[Option<u32>; 12], from: u32| {
                std::iter::successors(Some(from), |at| parents[*at as usize]).collect::<Vec<_>>()
            };
            for (what, a, b) in steps {
                let way = above(&parents, b);
                match what {
                    0 if parents[a as usize].is_none() => {
                        let linked = forest.link(all[a as usize], all[b as usize]);
                        prop_assert_eq!(linked, !way.contains(&a));
                        if linked {
                            parents[a as usize] = Some(b);
                        }
                    }
                    1 => {
                        forest.moved(key(a));
                        parents[a as usize] = None;
                    }
                    _ => {
                        prop_assert_eq!(forest.is_below(all[b as usize], all[a as usize]), way.contains(&a));
                        prop_assert_eq!(forest.top_of(all[b as usize]), all[*way.last().unwrap() as usize]);
                    }
                }
            }
        }
    }
}
