//! Looking at everything on a volume, without changing anything.
//!
//! The passes, each over all inodes: where the inodes are and what they say of themselves (`inodes`), which metadata
//! they own (`attributes`, `extents`, `directories`), which data (`extents`), which names lead to them (`entries`),
//! whether the names make a tree and the numbers are right (`names`), and whether a clean close saved the same (`saved`).
//!
//! Metadata blocks name their owner, extents of data do not; so metadata claims its blocks first, and an extent that
//! claims the same block is the one that is wrong.
//!
//! What is damaged hides what stands on it. A missing name, for example, means nothing while a directory block cannot
//! be read; such consequences are not reported until the damage is repaired.
//!
//! Memory: bits for each block of the volume, some bytes for each inode that there can be in the chunks that exist, the
//! extents of one file at a time, and the findings, of which only so many are kept.

use std::collections::{BTreeSet, HashMap};

use lodefs_layout::inode::InodeSlot;
use lodefs_layout::inode_map::CHUNK_INODES;
use lodefs_layout::state::State;
use zerocopy::{FromZeros, IntoBytes};

use super::claims::{BlockSet, Claims};
use super::finding::{Code, Finding, Object, Place};
use super::{Phase, Progress, Step};
use crate::alloc::Run;
use crate::error::Result;
use crate::tx::offset_of;
use crate::types::{Ino, Kind};
use crate::volume::Volume;

/// Whether an inode slot can be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is free.
    #[default]
    Free,
    /// Its checksum and type are right.
    Good,
    /// It is in use and cannot be believed.
    Damaged,
}

/// What is known of an inode.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InodeFacts {
    pub(super) standing: Standing,
    /// If it is good.
    pub(super) kind: Option<Kind>,
    /// A part of it could not be read, so that its numbers cannot be checked.
    pub(super) is_broken: bool,
    /// Links it says it has.
    pub(super) links: u32,
    /// Names that lead to it.
    pub(super) names: u32,
    /// Of a directory: where it is in [`Survey::directories`].
    pub(super) directory: u32,
    /// Blocks of metadata it owns.
    pub(super) metadata_blocks: u64,
}

/// What is known of a directory.
#[derive(Clone, Debug)]
pub(super) struct DirectoryFacts {
    pub(super) ino: Ino,
    /// The parent it says it has.
    pub(super) stated_parent: Ino,
    /// Size it says it has.
    pub(super) size: u64,
    /// The directory whose entry leads to it.
    pub(super) parent: Option<Ino>,
    /// That entry.
    pub(super) via: Option<EntryPlace>,
    pub(super) entries: u64,
    pub(super) subdirectories: u32,
}

/// Where an entry of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryPlace {
    pub(super) block: u64,
    pub(super) tag: usize,
}

/// What is known about an inode number.
pub(super) enum Known<'s> {
    /// There can be no such inode.
    Absent,
    /// The inode map does not say where it is.
    Unknown,
    /// This.
    Facts(&'s mut InodeFacts),
}

/// Whether nothing is hidden by damage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Complete {
    /// Every name that there may be has been seen.
    pub(super) names: bool,
    /// Every block that may have an owner has been seen.
    pub(super) claims: bool,
}

/// A chunk of inodes.
pub(super) enum Chunk {
    /// Its map entry cannot be used.
    Lost,
    /// It was given back.
    Gone,
    /// It is this block.
    At(u64, Box<[InodeFacts]>),
}

pub(super) struct Survey<'v> {
    pub(super) volume: &'v Volume,
    pub(super) claims: Claims,
    /// Blocks of metadata, the fixed regions included; complete when data is looked at.
    pub(super) metadata: BlockSet,
    pub(super) chunks: Vec<Chunk>,
    pub(super) directories: Vec<DirectoryFacts>,
    /// Chunks of inodes behind the end of the map to which names lead; not more than a few.
    pub(super) missing_chunks: BTreeSet<u64>,
    pub(super) findings: Vec<Finding>,
    /// Findings that were not kept.
    pub(super) omitted: u64,
    findings_max: usize,
    /// Findings are counted, but not kept.
    muted: bool,
    /// Findings so far, kept or not.
    pub(super) faults: u64,
    /// What can be concluded from what was not found.
    pub(super) complete: Complete,
    /// The volume was closed, so that nothing is left to be done at the next open.
    pub(super) was_closed: bool,
    progress: Progress<'v>,
}

impl<'v> Survey<'v> {
    /// Looks at everything. `saved` is the state that a clean close left, if nothing happened since and what it saved is
    /// to be looked at; `was_closed` tells that there is such a state at all.
    pub(super) fn run(
        volume: &'v Volume,
        saved: Option<&State>,
        was_closed: bool,
        findings_max: usize,
        progress: Progress<'v>,
    ) -> Result<Self> {
        let total_blocks = volume.shape.total_blocks;
        let mut survey = Self {
            volume,
            claims: Claims::new(total_blocks),
            metadata: BlockSet::new(0),
            chunks: Vec::new(),
            directories: Vec::new(),
            missing_chunks: BTreeSet::new(),
            findings: Vec::new(),
            omitted: 0,
            findings_max,
            muted: false,
            faults: 0,
            complete: Complete { names: true, claims: true },
            was_closed,
            progress,
        };
        survey.claim_fixed_regions();
        survey.look_at_map()?;
        survey.for_each_slot(Phase::Inodes, Self::look_at_slot)?;
        survey.metadata = survey.claims.used.clone();
        survey.for_each_good(Phase::Blocks, Self::look_at_data)?;
        survey.for_each_slot(Phase::Blocks, Self::look_at_damaged)?;
        survey.name_other_owners()?;
        survey.look_at_entries()?;
        survey.look_at_names()?;
        survey.look_at_counts()?;
        if let Some(state) = saved {
            survey.look_at_saved(state)?;
        }
        survey.findings.sort_by_key(|finding| finding.code.stage());
        Ok(survey)
    }

    fn claim_fixed_regions(&mut self) {
        let shape = &self.volume.shape;
        let before = Run { start: 0, blocks: shape.data_start };
        let behind = Run { start: shape.data_end, blocks: shape.total_blocks - shape.data_end };
        let _free = (self.claims.take(before), self.claims.take(behind));
    }

    /// Notes a finding.
    pub(super) fn report(&mut self, finding: Finding) {
        self.faults += 1;
        if self.muted {
            return;
        }
        if self.findings.len() < self.findings_max {
            self.findings.push(finding);
        } else {
            self.omitted += 1;
        }
    }

    /// Notes a finding about an inode.
    pub(super) fn report_inode(&mut self, code: Code, ino: Ino, detail: impl Into<String>) {
        self.report(Finding::new(code, Object::Inode(ino), detail));
    }

    /// Notes that a number of an inode is wrong.
    pub(super) fn report_number(&mut self, code: Code, ino: Ino, found: u64, right: u64) {
        let finding = Finding::new(code, Object::Inode(ino), format!("{found} instead of {right}"));
        self.report(finding.at(Place::Number(right)));
    }

    /// Does something without keeping its findings; returns whether there were any.
    pub(super) fn muted(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<bool> {
        let before = (self.faults, self.muted, self.complete);
        self.muted = true;
        work(self)?;
        let found = self.faults > before.0;
        (self.faults, self.muted, self.complete) = before;
        Ok(found)
    }

    /// What is known about an inode number.
    pub(super) fn known(&mut self, ino: Ino) -> Known<'_> {
        match self.chunks.get_mut((ino.0 / CHUNK_INODES) as usize) {
            None | Some(Chunk::Gone) => Known::Absent,
            Some(Chunk::Lost) => Known::Unknown,
            Some(Chunk::At(_, facts)) => Known::Facts(&mut facts[(ino.0 % CHUNK_INODES) as usize]),
        }
    }

    /// What is known about an inode that was seen.
    pub(super) fn facts(&mut self, ino: Ino) -> &mut InodeFacts {
        match self.known(ino) {
            Known::Facts(facts) => facts,
            Known::Absent | Known::Unknown => unreachable!("inode {ino} was read from its chunk"),
        }
    }

    /// What is known about an inode that is a good directory.
    pub(super) fn directory(&mut self, ino: Ino) -> &mut DirectoryFacts {
        let index = self.facts(ino).directory as usize;
        &mut self.directories[index]
    }

    /// Visits every slot of every chunk that was found.
    pub(super) fn for_each_slot(
        &mut self,
        phase: Phase,
        mut visit: impl FnMut(&mut Self, Ino, &InodeSlot) -> Result<()>,
    ) -> Result<()> {
        let mut slots = InodeSlot::new_vec_zeroed(CHUNK_INODES as usize).expect("4 KiB of memory");
        for index in 0..self.chunks.len() as u64 {
            self.step(phase, index);
            let Chunk::At(block, _) = self.chunks[index as usize] else { continue };
            self.volume.medium.read_meta(offset_of(block), slots.as_mut_bytes())?;
            for (i, slot) in (0..).zip(&slots) {
                visit(self, Ino(index * CHUNK_INODES + i), slot)?;
            }
        }
        Ok(())
    }

    /// Visits every inode that can be believed.
    pub(super) fn for_each_good(
        &mut self,
        phase: Phase,
        mut visit: impl FnMut(&mut Self, Ino, Kind, &InodeSlot) -> Result<()>,
    ) -> Result<()> {
        self.for_each_slot(phase, |survey, ino, slot| {
            let facts = *survey.facts(ino);
            match facts.kind {
                Some(kind) if facts.standing == Standing::Good => visit(survey, ino, kind, slot),
                _ => Ok(()),
            }
        })
    }

    /// Reports that chunk `done` of the phase is next.
    pub(super) fn step(&mut self, phase: Phase, done: u64) {
        let total = self.chunks.len() as u64;
        (self.progress)(Step { phase, done, total });
    }

    /// Inodes in use.
    pub(super) fn used_inodes(&self) -> u64 {
        let chunks = self.chunks.iter().map(|chunk| match chunk {
            Chunk::Lost | Chunk::Gone => 0,
            Chunk::At(_, facts) => {
                facts.iter().filter(|facts| facts.standing != Standing::Free).count() as u64
            }
        });
        chunks.sum()
    }

    /// Inodes to which fewer names lead than should, with their kind and how many are missing.
    pub(super) fn nameless(&mut self) -> Result<HashMap<Ino, (Kind, u32)>> {
        let mut nameless = HashMap::new();
        self.for_each_good(Phase::Names, |survey, ino, kind, _| {
            let facts = *survey.facts(ino);
            let missing = match kind {
                Kind::Directory => u32::from(survey.directory(ino).parent.is_none() && ino != Ino::ROOT),
                _ => facts.links.saturating_sub(facts.names),
            };
            if missing > 0 {
                nameless.insert(ino, (kind, missing));
            }
            Ok(())
        })?;
        Ok(nameless)
    }

    /// Chunks that the map knows of, but not where they are. Those that were given back are none of them.
    pub(super) fn lost_chunks(&self) -> impl Iterator<Item = u64> {
        let numbered = (0..).zip(&self.chunks);
        numbered.filter(|(_, chunk)| matches!(chunk, Chunk::Lost)).map(|(index, _)| index)
    }

    /// Where chunk `index` is, if that is known.
    pub(super) fn chunk_run(&self, index: usize) -> Option<Run> {
        match self.chunks.get(index) {
            Some(Chunk::At(start, _)) => Some(Run { start: *start, blocks: 1 }),
            _ => None,
        }
    }
}
