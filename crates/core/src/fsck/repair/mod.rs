//! Putting right what a survey found.
//!
//! In rounds: a survey, then the remedies for everything it found in the lowest stage (what stands on something else comes
//! after it), then a survey again. So no remedy has to foresee what another one changes, and a remedy that did not
//! help is noticed.
//!
//! # Crashes
//! A remedy is one journal transaction. The superblock and the state are written as always, one copy after the other. So a
//! crash leaves the volume with some remedies applied and others not; what it had before is still there, and repairing
//! again goes on from there. Within a round no block is given back: what a remedy cuts off is free for the next round,
//! after a checkpoint has made sure that no record can write there any more.
//!
//! # What is left
//! If something is declined or cannot be repaired, a volume that could be opened before can be opened afterwards: one that
//! was closed is closed again, with every block kept in use that was in use before.

mod directories;
mod extents;
mod inodes;
mod lost_found;
mod map;
mod names;
mod start;
mod unowned;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::inode::{InodeSlot, SLOT_SIZE};
use lodefs_pmem::Medium;
use rustix::io::Errno;

use self::start::Started;
use self::unowned::Unowned;
use super::claims::BlockSet;
use super::finding::{Code, Finding, Key, Object, Outcome, Stage};
use super::survey::Survey;
use super::{Options, Progress, Report};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::cache::InodeCache;
use crate::inode::table::{self, InodeTable};
use crate::recovery;
use crate::tx::Tx;
use crate::types::{Ino, Kind};
use lodefs_sync::Arc;

/// Who decides about remedies that lose something.
pub(super) type Decide<'d> = &'d mut dyn FnMut(&Finding) -> bool;

/// Rounds after which what is left counts as not repairable. Each stage takes one or two.
const ROUNDS_MAX: u32 = 200;

/// What came of a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    /// It was applied.
    Done,
    /// A part of it was applied, and the rest has to wait.
    Partly,
    /// Others have to be applied first.
    Later,
}

/// What came of a finding in a round.
enum Treated {
    /// There is nothing more to be done about it, unless it is found again.
    Settled(Outcome),
    /// Something was done, and it will be found again.
    Partly,
    /// Nothing was done yet.
    Waiting,
}

/// A repair under way.
struct Repair {
    fs: Arc<Fs>,
    /// The volume was closed, and nothing happened since.
    was_closed: bool,
    /// Blocks with words that files are counted on in: nothing else gets them until all files are settled. `None`: they are.
    words: Option<BlockSet>,
    /// Blocks that were in use when the volume was closed, if it was.
    saved_words: Option<Vec<u64>>,
    /// Blocks with an owner, as the round found them.
    used: BlockSet,
    /// Directories that were built again in this round.
    rebuilt: HashSet<Ino>,
    /// Lost chunks of inodes that were looked for in this round, and where they are.
    found_chunks: Option<BTreeMap<u64, u64>>,
    /// What looks like metadata in the blocks without an owner.
    unowned: Unowned,
    /// Entries that the inode map had when the repair began: what is behind them looks unused.
    map_end: u64,
    /// Chunks that count as given back because they were not found.
    given_up: BTreeSet<u64>,
    /// Damage may hide names, or did when the repair began.
    hides_names: bool,
    /// Chunks of inodes that the map knows of, but not where they are.
    lost_chunks: BTreeSet<u64>,
    /// Chunks of inodes behind the end of the map to which names lead.
    missing_chunks: BTreeSet<u64>,
    /// While directories are damaged, nothing is written where a leaf may be that hangs below the damage. That takes room,
    /// so it ends if there is none.
    spares_leaves: bool,
    /// Inodes to which names are missing, with their kind and how many; only if directories are damaged.
    nameless: HashMap<Ino, (Kind, u32)>,
    /// Where lost inodes go, once it is known in this round.
    lost_found: Option<Ino>,
    report: Report,
    options: Options,
    /// What became of each finding so far.
    outcomes: HashMap<Key, Outcome>,
    /// Where each finding is in the report.
    noted: HashMap<Key, usize>,
    /// Findings for which the report had no room.
    unnoted: u64,
    /// Findings whose remedy was agreed to.
    agreed: HashSet<Key>,
}

/// Checks a volume, and repairs what is found.
pub(super) fn run(
    medium: Medium,
    options: Options,
    decide: Decide<'_>,
    progress: Progress<'_>,
) -> Result<Report> {
    match start::start(medium, options, decide, progress)? {
        Started::Nothing(report) => Ok(report),
        Started::Repair(repair) => repair.go_on(decide, progress),
    }
}

/// What a survey leaves for the repair.
struct Surveyed {
    findings: Vec<Finding>,
    omitted: u64,
    used: BlockSet,
    used_inodes: u64,
    chunks: u64,
}

impl Drop for Repair {
    fn drop(&mut self) {
        // What was not closed on purpose is not closed at all: the next open must look at everything.
        self.fs.abandon();
    }
}

impl Surveyed {
    fn is_anything_left(&self) -> bool {
        self.omitted > 0 || !self.findings.is_empty()
    }
}

impl Repair {
    fn go_on(mut self, decide: Decide<'_>, progress: Progress<'_>) -> Result<Report> {
        // From here on both slots hold a state that this repair has written.
        self.fs.checkpoint()?;
        for _ in 0..ROUNDS_MAX {
            let surveyed = self.survey(progress)?;
            self.start_round(&surveyed)?;
            if self.restore_missing(surveyed.chunks)? {
                self.fs.checkpoint()?;
                continue;
            }
            let open = surveyed.findings.iter().filter(|finding| self.is_open(finding));
            let Some(stage) = open.map(|finding| finding.code.stage()).min() else {
                if self.words.is_none() {
                    return self.finish(surveyed);
                }
                self.settle_tails()?;
                self.fs.checkpoint()?;
                continue;
            };
            self.treat_stage(stage, surveyed.findings, decide)?;
            self.fs.checkpoint()?;
        }
        let surveyed = self.survey(progress)?;
        self.start_round(&surveyed)?;
        self.finish(surveyed)
    }

    fn survey(&mut self, progress: Progress<'_>) -> Result<Surveyed> {
        let mut survey =
            Survey::run(&self.fs.volume, None, self.was_closed, self.options.findings_max, progress)?;
        self.report.add_totals(&survey);
        self.lost_chunks = survey.lost_chunks().collect();
        let used_inodes = survey.used_inodes();
        let has_lost_names = survey.findings.iter().any(|finding| finding.code == Code::DirBlock);
        self.nameless = if has_lost_names { survey.nameless()? } else { HashMap::new() };
        // A name without an inode may be that of a directory whose own names are not seen any more.
        let may_hide = |finding: &Finding| finding.code == Code::EntryDangling;
        self.hides_names |=
            !survey.complete.names || survey.omitted > 0 || survey.findings.iter().any(may_hide);
        self.missing_chunks = survey.missing_chunks;
        Ok(Surveyed {
            used_inodes,
            chunks: survey.chunks.len() as u64,
            used: survey.claims.used,
            findings: survey.findings,
            omitted: survey.omitted,
        })
    }

    /// Lets the engine know what is free according to the survey.
    fn start_round(&mut self, surveyed: &Surveyed) -> Result<()> {
        self.rebuilt.clear();
        self.unowned.expire();
        self.found_chunks = None;
        self.lost_found = None;
        self.used.clone_from(&surveyed.used);
        let mut in_use = surveyed.used.clone();
        if let Some(words) = self.saved_words.as_ref().filter(|_| surveyed.is_anything_left()) {
            // What had an owner when the volume was closed may have one that cannot be seen.
            in_use.add_words(words);
        }
        if self.spares_leaves && surveyed.findings.iter().any(|finding| finding.code == Code::DirBlock) {
            self.unowned.look(&self.fs.volume, &self.used)?;
            in_use.add_words(self.unowned.leaves().words());
        }
        self.keep_words(&mut in_use)?;
        let table = InodeTable::open(&self.fs.volume, surveyed.used_inodes, 0)?;
        let fs = Arc::get_mut(&mut self.fs).ok_or(Errno::BUSY)?;
        fs.blocks = in_use.builder().finish(0);
        fs.table = table;
        fs.cache = InodeCache::default();
        Ok(())
    }

    /// Keeps blocks with words from being used, which belong to no inode; also those of inodes that were found just now.
    fn keep_words(&mut self, in_use: &mut BlockSet) -> Result<()> {
        let Some(words) = &mut self.words else { return Ok(()) };
        for (_, slot) in recovery::slots_with_words(&self.fs.volume)? {
            words.insert(slot.tail.get() / BLOCK_SIZE);
        }
        in_use.add_words(words.words());
        Ok(())
    }

    /// Settles files to which programs were appending, once everything else is right.
    fn settle_tails(&mut self) -> Result<()> {
        for (ino, _) in recovery::slots_with_words(&self.fs.volume)? {
            match self.fs.node(ino).and_then(|node| self.fs.settle_after_crash(&node)) {
                // What could not be repaired stays as it is, and so does the volume.
                Ok(()) | Err(Error::Refused(_) | Error::Corrupt { .. }) => (),
                Err(error) => return Err(error),
            }
        }
        self.words = None;
        Ok(())
    }

    /// Whether something is still to be tried about a finding.
    fn is_open(&self, finding: &Finding) -> bool {
        matches!(self.outcomes.get(&finding.key()), None | Some(Outcome::Repaired))
    }

    /// Treats the findings of one stage.
    fn treat_stage(&mut self, stage: Stage, findings: Vec<Finding>, decide: Decide<'_>) -> Result<()> {
        let mut waiting = Vec::new();
        let mut any_done = false;
        let mut treated = HashSet::new();
        for finding in findings {
            if finding.code.stage() != stage || !self.is_open(&finding) || !treated.insert(finding.key()) {
                continue;
            }
            match self.treat(&finding, decide)? {
                Treated::Settled(outcome) => {
                    any_done |= outcome == Outcome::Repaired;
                    self.settle(finding, outcome);
                }
                Treated::Partly => any_done = true,
                Treated::Waiting => waiting.push(finding),
            }
        }
        if !any_done {
            for finding in waiting {
                self.settle(finding, Outcome::Failed("something else has to be repaired before".into()));
            }
        }
        Ok(())
    }

    /// Asks about a finding if need be, and applies its remedy.
    fn treat(&mut self, finding: &Finding, decide: Decide<'_>) -> Result<Treated> {
        let key = finding.key();
        if self.outcomes.contains_key(&key) {
            return Ok(Treated::Settled(Outcome::Failed("the remedy did not help".into())));
        }
        if finding.code.asks() && !self.agreed.contains(&key) && !decide(finding) {
            return Ok(Treated::Settled(Outcome::Declined));
        }
        self.agreed.insert(key);
        match self.apply(finding) {
            Ok(Applied::Done) => Ok(Treated::Settled(Outcome::Repaired)),
            Ok(Applied::Partly) => Ok(Treated::Partly),
            Ok(Applied::Later) => Ok(Treated::Waiting),
            Err(Error::Refused(Errno::NOSPC)) if self.spares_leaves => {
                self.spares_leaves = false;
                Ok(Treated::Partly)
            }
            Err(error @ (Error::Refused(_) | Error::Corrupt { .. })) => {
                Ok(Treated::Settled(Outcome::Failed(error.to_string())))
            }
            Err(error) => Err(error),
        }
    }

    fn settle(&mut self, mut finding: Finding, outcome: Outcome) {
        self.outcomes.insert(finding.key(), outcome.clone());
        finding.outcome = outcome;
        self.note(finding);
    }

    /// Puts a finding into the report, or its new outcome if it is there.
    fn note(&mut self, finding: Finding) {
        let findings = &mut self.report.findings;
        match self.noted.entry(finding.key()) {
            Entry::Occupied(known) => findings[*known.get()] = finding,
            Entry::Vacant(vacant) if findings.len() < self.options.findings_max => {
                vacant.insert(findings.len());
                findings.push(finding);
            }
            Entry::Vacant(_) => self.unnoted += 1,
        }
    }

    /// Applies the remedy for a finding.
    fn apply(&mut self, finding: &Finding) -> Result<Applied> {
        let place = &finding.place;
        match (&finding.object, finding.code) {
            (Object::MapEntries { first, count }, _) => return self.find_chunks_again(*first, *count),
            (Object::Inode(ino), code) => self.apply_to_inode(*ino, code, place)?,
            (Object::DirectoryBlock { directory, .. }, code) => return self.rebuild(*directory, code.asks()),
            (Object::Entry { directory, block, tag, .. }, code) => {
                return self.apply_to_entry(*directory, *block, *tag, code, place);
            }
            (object, code) => {
                unreachable!("{code} of {object} is no finding of a survey without a saved state")
            }
        }
        Ok(Applied::Done)
    }

    /// Closes the volume, or leaves it as it was.
    fn finish(mut self, surveyed: Surveyed) -> Result<Report> {
        let is_left = surveyed.is_anything_left();
        for mut finding in surveyed.findings {
            if !self.outcomes.contains_key(&finding.key()) {
                finding.outcome = Outcome::Failed("too much had to be repaired before".into());
                self.note(finding);
            }
        }
        self.report.omitted = surveyed.omitted + self.unnoted;
        if !is_left || self.saved_words.is_some() {
            self.fs.close()?;
        }
        Ok(std::mem::take(&mut self.report))
    }

    /// Changes the slot of an inode, whatever is in it, in a transaction that may hold more.
    fn edit_inode_in(&self, tx: &mut Tx<'_>, ino: Ino, edit: impl FnOnce(&mut InodeSlot)) -> Result<()> {
        let offset = self.slot_offset(ino)?;
        let old: InodeSlot = tx.get(offset)?;
        let mut new = old;
        edit(&mut new);
        tx.put_inode(offset, ino, &old, &mut new);
        Ok(())
    }

    /// Changes the slot of an inode, whatever is in it.
    fn edit_inode(&self, ino: Ino, edit: impl FnOnce(&mut InodeSlot)) -> Result<()> {
        let mut tx = Tx::begin(&self.fs)?;
        self.edit_inode_in(&mut tx, ino, edit)?;
        tx.commit()
    }

    /// The slot of an inode, whatever is in it.
    fn inode(&self, ino: Ino) -> Result<InodeSlot> {
        self.fs.volume.get(self.slot_offset(ino)?)
    }

    /// Where the slot of an inode is; also that of number zero, which is none.
    fn slot_offset(&self, ino: Ino) -> Result<u64> {
        match ino {
            Ino(0) => Ok(table::slot_offset(&self.fs.volume, Ino::ROOT)? - SLOT_SIZE as u64),
            ino => table::slot_offset(&self.fs.volume, ino),
        }
    }
}
