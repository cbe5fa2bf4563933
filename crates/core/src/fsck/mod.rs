//! fsck: does everything on a volume agree with everything else, and if not, can it be put right?
//!
//! [`check`] never changes the medium. It looks at the volume as recovery would leave it, so a volume that crashed is
//! checked without being recovered. [`repair`] puts right what it finds, and asks before it drops anything.
//!
//! Any bytes at all may be given to either: the answer is a report or an error. Both take time in proportion to what
//! is on the volume, and memory in proportion to its blocks and inodes, whatever the bytes say.
//!
//! `finding` lists all that can be found; `survey` looks for it, `ground` prepares the volume for that, `repair` acts on it.

mod attributes;
mod claims;
mod directories;
mod entries;
mod extents;
mod finding;
mod ground;
mod inodes;
mod map;
mod misplaced;
mod names;
mod repair;
mod saved;
mod survey;

pub use finding::{Code, Finding, Object, Outcome, Severity};

use lodefs_pmem::Medium;
use rustix::io::Errno;

use crate::error::{Result, ensure};
use ground::Ground;
use survey::Survey;

/// How to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Findings that are kept; the others are only counted.
    pub findings_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { findings_max: 100_000 }
    }
}

/// What is being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The inodes, and the metadata they own.
    Inodes,
    /// The blocks of files.
    Blocks,
    /// Directory entries, and the links they make.
    Names,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inodes => "inodes",
            Self::Blocks => "blocks",
            Self::Names => "names",
        })
    }
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of what. A phase may come several times.
    pub phase: Phase,
    /// Chunks of inodes that were looked at in this phase.
    pub done: u64,
    /// Chunks of inodes on the volume.
    pub total: u64,
}

/// Whoever wants to know how far it is.
pub type Progress<'p> = &'p mut dyn FnMut(Step);

/// What was found, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was found, in the order in which it is repaired.
    pub findings: Vec<Finding>,
    /// Findings that were not kept.
    pub omitted: u64,
    /// The volume had been closed properly.
    pub was_clean: bool,
    /// Journal records that a crash had left to be replayed.
    pub records_replayed: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Of those, directories.
    pub directories: u64,
    /// Blocks in use, those of the fixed regions included.
    pub blocks_used: u64,
    /// Blocks on the volume.
    pub blocks_total: u64,
}

impl Report {
    /// Nothing is inconsistent, or was at all. What the next open puts right by itself does not count.
    pub fn is_clean(&self) -> bool {
        self.omitted == 0 && self.findings.iter().all(|finding| finding.code.severity() == Severity::Note)
    }

    /// Inconsistencies that are still there.
    pub fn left(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| {
            finding.outcome != Outcome::Repaired && finding.code.severity() == Severity::Error
        })
    }

    fn add_totals(&mut self, survey: &Survey<'_>) {
        self.omitted = survey.omitted;
        self.inodes = survey.used_inodes();
        self.directories = survey.directories.len() as u64;
        self.blocks_used = survey.claims.used.words().iter().map(|word| u64::from(word.count_ones())).sum();
        self.blocks_total = survey.volume.shape.total_blocks;
    }
}

/// Looks for everything that is inconsistent. The medium must have been opened read-only, so that nothing can change
/// it.
///
/// Fails only if nothing can be said: the bytes are no volume or one of a later version, the medium is too short or
/// cannot be read, or (INVAL) it was not opened read-only.
pub fn check(medium: Medium, options: &Options, progress: Progress<'_>) -> Result<Report> {
    ensure(medium.is_read_only(), Errno::INVAL)?;
    let mut ground = Ground::open(medium)?;
    let _in_memory = ground.replay()?;
    let survey = Survey::run(
        &ground.volume,
        ground.saved(),
        ground.saved().is_some(),
        options.findings_max,
        progress,
    )?;
    let mut report = Report {
        was_clean: ground.state.is_clean(),
        records_replayed: ground.records.all.len() as u64,
        ..Report::default()
    };
    report.add_totals(&survey);
    let found = survey.findings;
    report.findings = std::mem::take(&mut ground.findings);
    report.findings.extend(found);
    Ok(report)
}

/// Looks for everything that is inconsistent, and puts it right. Asks `decide` before a remedy that loses something or
/// that takes something for true which cannot be proved ([`Code::asks`]); what is declined stays as it is.
///
/// A volume on which nothing is found is recovered, if it crashed, and otherwise left as it is.
pub fn repair(
    medium: Medium,
    options: &Options,
    decide: &mut dyn FnMut(&Finding) -> bool,
    progress: Progress<'_>,
) -> Result<Report> {
    ensure(!medium.is_read_only(), Errno::ROFS)?;
    repair::run(medium, *options, decide, progress)
}
