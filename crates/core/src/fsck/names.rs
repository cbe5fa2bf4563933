//! Do the names make a tree, and are links and entries counted right?

use super::Phase;
use super::directories::read_block;
use super::entries::{name_at, object_of};
use super::finding::{Code, Finding, Object, Place};
use super::survey::{DirectoryFacts, InodeFacts, Survey};
use crate::error::Result;
use crate::types::{Ino, Kind};

/// What is known about the way from a directory to the root.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nothing yet.
    Unseen,
    /// It is on the way that is being followed.
    Followed,
    /// It was followed to its end: the root, a directory without a parent, or a circle.
    Done,
}

impl Survey<'_> {
    /// Checks that every directory hangs from its parent, and no directory from itself.
    pub(super) fn look_at_names(&mut self) -> Result<()> {
        self.find_cycles()?;
        for index in 0..self.directories.len() {
            let DirectoryFacts { ino, stated_parent, parent, entries, .. } = self.directories[index];
            let expected = if ino == Ino::ROOT { Some(Ino::ROOT) } else { parent };
            match expected {
                Some(parent) if parent != stated_parent => {
                    let detail = format!("{stated_parent} instead of {parent}");
                    let finding = Finding::new(Code::DirParent, Object::Inode(ino), detail);
                    self.report(finding.at(Place::Target(parent)));
                }
                None if self.complete.names && !self.is_orphan(ino, entries) => {
                    self.report_inode(Code::DirUnreachable, ino, "");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a directory without a name is only waiting to be reclaimed.
    fn is_orphan(&mut self, ino: Ino, entries: u64) -> bool {
        self.facts(ino).links == 0 && entries == 0
    }

    /// Follows each directory up until the way is known.
    fn find_cycles(&mut self) -> Result<()> {
        let mut ways = vec![Way::Unseen; self.directories.len()];
        for start in 0..self.directories.len() {
            let mut path = Vec::new();
            let mut at = start;
            while ways[at] == Way::Unseen {
                ways[at] = Way::Followed;
                path.push(at);
                let Some(parent) = self.directories[at].parent else { break };
                at = self.facts(parent).directory as usize;
            }
            if ways[at] == Way::Followed && path.last() != Some(&at) {
                let from = path.iter().position(|index| *index == at).unwrap_or_default();
                self.report_cycle(&path[from..])?;
            }
            for index in path {
                ways[index] = Way::Done;
            }
        }
        Ok(())
    }

    /// Reports a circle of directories at the one with the lowest number.
    fn report_cycle(&mut self, circle: &[usize]) -> Result<()> {
        let Some(&first) = circle.iter().min() else { return Ok(()) };
        let DirectoryFacts { ino, parent, via, .. } = self.directories[first];
        let (Some(parent), Some(via)) = (parent, via) else { return Ok(()) };
        let bytes = read_block(self.volume, via.block)?;
        let object = object_of(parent, via, name_at(self.volume, parent, &bytes, via.tag));
        let detail = format!("directory {ino}, through {} directories", circle.len());
        self.report(Finding::new(Code::DirCycle, object, detail).at(Place::Target(ino)));
        Ok(())
    }

    /// Checks the number of links of every inode, and of entries of every directory.
    pub(super) fn look_at_counts(&mut self) -> Result<()> {
        self.for_each_good(Phase::Names, |survey, ino, kind, _| {
            let facts = *survey.facts(ino);
            if kind == Kind::Directory {
                survey.look_at_directory_counts(ino, facts);
            } else {
                survey.look_at_links(ino, facts);
            }
            Ok(())
        })
    }

    fn look_at_links(&mut self, ino: Ino, facts: InodeFacts) {
        match (facts.links, facts.names) {
            (0, 0) => self.report_orphan(ino),
            (links, names) if links == names => {}
            (links, names) if names < links && !self.complete.names => {}
            (_, 0) => self.report_inode(Code::InodeUnreachable, ino, ""),
            (links, names) => self.report_number(Code::LinkCount, ino, links.into(), names.into()),
        }
    }

    fn report_orphan(&mut self, ino: Ino) {
        if self.complete.names {
            self.report_inode(if self.was_closed { Code::OrphanKept } else { Code::Orphan }, ino, "");
        }
    }

    fn look_at_directory_counts(&mut self, ino: Ino, facts: InodeFacts) {
        let DirectoryFacts { entries, subdirectories, size, parent, .. } = *self.directory(ino);
        let has_name = parent.is_some() || ino == Ino::ROOT;
        if !has_name && facts.links == 0 && entries == 0 {
            self.report_orphan(ino);
            return;
        }
        if facts.is_broken {
            return;
        }
        let links = u64::from(subdirectories) + 2;
        // One without a name gets the right number with its new name.
        if has_name && u64::from(facts.links) != links {
            self.report_number(Code::LinkCount, ino, facts.links.into(), links);
        }
        if size != entries {
            self.report_number(Code::DirSize, ino, size, entries);
        }
    }
}
