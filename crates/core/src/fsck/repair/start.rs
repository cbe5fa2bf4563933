//! Starting a repair: superblock, state and journal are put right first, by direct writes.
//!
//! What a crash can tear: nothing that was right. Of two copies the damaged one is written, and made durable before
//! the other is touched; records are at home before the state that voids them is written.

use std::collections::{BTreeSet, HashMap, HashSet};

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::journal::RECORD_ALIGN;
use lodefs_layout::state::State;
use lodefs_pmem::Medium;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::unowned::Unowned;
use super::{Decide, Repair};
use crate::error::Result;
use crate::fs::{Fs, OpenOptions, RecoveryReport};
use crate::fsck::claims::BlockSet;
use crate::fsck::finding::{Code, Finding, Object, Outcome, Stage};
use crate::fsck::ground::{COUNT_MAX, Ground};
use crate::fsck::saved::read_bitmap;
use crate::fsck::survey::Survey;
use crate::fsck::{Options, Progress, Report};
use crate::inode::table::InodeTable;
use crate::journal::Journal;
use crate::journal::replay::{self, Replayed};
use crate::ops::tail::AllowedTails;
use crate::recovery::Opened;
use crate::tx::offset_of;
use crate::volume::Volume;
use lodefs_sync::Arc;

/// How a repair starts.
pub(super) enum Started {
    /// There is nothing to be repaired, or nothing may be.
    Nothing(Report),
    /// The ground is right, and the rest can follow.
    Repair(Box<Repair>),
}

/// Looks at everything once, and starts to repair if there is something to repair.
pub(super) fn start(
    medium: Medium,
    options: Options,
    decide: Decide<'_>,
    progress: Progress<'_>,
) -> Result<Started> {
    let mut ground = Ground::open(medium)?;
    let mut report = Report {
        was_clean: ground.state.is_clean(),
        records_replayed: ground.records.all.len() as u64,
        ..Report::default()
    };
    let mut basics = std::mem::take(&mut ground.findings);
    for finding in &mut basics {
        if finding.code.asks() && !decide(finding) {
            finding.outcome = Outcome::Declined;
        }
    }
    if basics.iter().any(|finding| finding.outcome == Outcome::Declined) {
        // Everything else stands on this.
        report.findings = basics;
        return Ok(Started::Nothing(report));
    }
    write_superblocks(&ground.volume, &basics)?;
    let replayed = ground.replay()?;
    let saved_words = match ground.saved() {
        Some(state) => read_bitmap(&ground.volume, state.update.get())?.ok(),
        None => None,
    };
    let was_closed = ground.saved().is_some();
    let survey = Survey::run(&ground.volume, ground.saved(), was_closed, options.findings_max, progress)?;
    report.add_totals(&survey);
    if basics.is_empty() && survey.findings.is_empty() && survey.omitted == 0 {
        return Ok(Started::Nothing(report));
    }
    // The rounds begin with a survey of their own. What was saved is saved again at the end.
    let saved = survey.findings.into_iter().filter(is_about_saved);
    let (used, map_end) = (survey.claims.used, survey.chunks.len() as u64);
    for mut finding in basics.into_iter().chain(saved) {
        finding.outcome = Outcome::Repaired;
        report.findings.push(finding);
    }
    let (state, last_seq) = fresh_counts(&ground.volume, &replayed)?;
    let volume = ground.volume;
    let unowned = Unowned::new(volume.shape.total_blocks);
    let journal = Journal::start(&volume, &state, last_seq, &replayed.ready)?;
    let table = InodeTable::open(&volume, 0, 0)?;
    let blocks = used.builder().finish(0);
    let opened = Opened {
        journal,
        blocks,
        table,
        report: RecoveryReport::default(),
        orphans: Vec::new(),
        tails: Vec::new(),
        allowed_tails: AllowedTails::Any,
    };
    let fs = Arc::new(Fs::assemble(volume, opened, &OpenOptions::default()));
    Ok(Started::Repair(Box::new(Repair {
        fs,
        was_closed,
        words: (!was_closed).then(|| BlockSet::new(used.total_blocks())),
        saved_words,
        used,
        rebuilt: HashSet::new(),
        found_chunks: None,
        unowned,
        map_end,
        given_up: BTreeSet::new(),
        hides_names: false,
        spares_leaves: true,
        lost_chunks: BTreeSet::new(),
        missing_chunks: BTreeSet::new(),
        nameless: HashMap::new(),
        lost_found: None,
        report,
        options,
        outcomes: HashMap::new(),
        noted: HashMap::new(),
        unnoted: 0,
        agreed: HashSet::new(),
    })))
}

fn is_about_saved(finding: &Finding) -> bool {
    finding.code.stage() == Stage::Saved
}

/// Writes the superblock to where it is damaged.
fn write_superblocks(volume: &Volume, findings: &[Finding]) -> Result<()> {
    let last = volume.superblock.total_blocks.get() - 1;
    let mut blocks = Vec::new();
    for finding in findings {
        match (finding.code, &finding.object) {
            (Code::SuperblockLost | Code::IdentityLost, _) => blocks.extend([last, 0]),
            (_, Object::Superblock { block }) => blocks.push(*block),
            _ => {}
        }
    }
    for block in blocks {
        let flushed = volume.medium.write(offset_of(block), volume.superblock.as_bytes())?;
        let _in_place = volume.medium.sync(flushed)?;
    }
    Ok(())
}

/// Where the journal is to go on, and the last sequence number: at the latest generation of all records in the journal, for
/// a state that was lost or changed may be behind it, and no old record must be taken for a new one. Counts so high that
/// nothing reached them by counting begin again.
fn fresh_counts(volume: &Volume, replayed: &Replayed) -> Result<(State, u64)> {
    const HIGH: u64 = COUNT_MAX / 2;
    let mut state = replayed.state;
    let mut newest =
        Some(state.generation.get()).filter(|generation| *generation <= HIGH).unwrap_or_default();
    let half_size = volume.shape.half_blocks * BLOCK_SIZE;
    for lane in 0..volume.shape.lanes {
        for half in 0..2 {
            for at in (0..half_size).step_by(RECORD_ALIGN) {
                let later = replay::later_record(volume, lane, half, at, newest)?;
                newest = later.filter(|generation| *generation <= HIGH).unwrap_or(newest);
            }
        }
    }
    state.generation = U64::new(newest);
    if state.update.get() > HIGH {
        // The next one replaces the newest state, and the one after it the other.
        state.update = U64::new(State::slot_of(state.update.get()) + 1);
    }
    let last_seq = if replayed.last_seq > HIGH { 0 } else { replayed.last_seq };
    Ok((state, last_seq))
}
