//! The ground that everything else stands on, as far as it is left: superblock, state, journal.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::checksum::Seed;
use lodefs_layout::geometry::Geometry;
use lodefs_layout::journal::RECORD_ALIGN;
use lodefs_layout::names::NameKey;
use lodefs_layout::state::State;
use lodefs_layout::superblock::{Superblock, SuperblockError};
use lodefs_pmem::Medium;
use zerocopy::FromBytes;

use super::finding::{Code, Finding, Object};
use crate::error::{Error, Result};
use crate::format::superblock_like;
use crate::journal::replay::{self, Probed, Records, Replayed};
use crate::journal::state::{self, Slot};
use crate::lost;
use crate::tx::offset_of;
use crate::volume::{Volume, is_unfinished};

/// Intact records that are looked for behind a damaged one, in each half of a lane, before giving up: bounds the time
/// that a made-up journal can cost.
const PROBES_MAX: u32 = 4096;

/// Highest count of a state from which a repair goes on: what it writes is then far from what the engine refuses.
pub(super) const COUNT_MAX: u64 = state::COUNT_MAX / 2;

/// What can be believed of superblock, state and journal.
pub(super) struct Ground {
    pub(super) volume: Volume,
    /// The newest state, or one made up if there is none.
    pub(super) state: State,
    /// There is no slot in which a newer state may have been.
    is_certain: bool,
    /// The records that count and make sense.
    pub(super) records: Records,
    pub(super) findings: Vec<Finding>,
}

impl Ground {
    /// Reads what there is. Nothing is changed.
    pub(super) fn open(medium: Medium) -> Result<Self> {
        let mut findings = Vec::new();
        let superblock = choose_superblock(&medium, &mut findings)?;
        let volume = Volume::with_superblock(medium, superblock)?;
        let (state, is_lost) = choose_state(&volume, &mut findings)?;
        let mut records = Records { all: Vec::new(), last_seq: state.committed_seq.get() };
        if !is_lost {
            records = replay::gather(&volume, &state)?;
            drop_nonsense(&volume, &state, &mut records, &mut findings);
            find_lost_records(&volume, &state, &mut findings)?;
        }
        let is_certain = state::is_certain(&volume)?;
        Ok(Self { volume, state, is_certain, records, findings })
    }

    /// Stores the records at home: on the medium, or in memory if that was opened read-only.
    pub(super) fn replay(&self) -> Result<Replayed> {
        replay::apply_all(&self.volume, &self.state, &self.records)
    }

    /// The state with which a bitmap was saved that should be right, if the volume was closed.
    pub(super) fn saved(&self) -> Option<&State> {
        let is_closed = self.state.is_clean() && self.records.all.is_empty() && self.is_certain;
        is_closed.then_some(&self.state)
    }
}

fn parse_at(medium: &Medium, block: u64) -> Result<Result<Superblock, SuperblockError>> {
    let mut bytes = [0; size_of::<Superblock>()];
    medium.read(offset_of(block), &mut bytes)?;
    Ok(Superblock::parse(&bytes))
}

/// The superblock to go by: the first, or else the second.
fn choose_superblock(medium: &Medium, findings: &mut Vec<Finding>) -> Result<Superblock> {
    if medium.size() < 2 * BLOCK_SIZE {
        return Err(if is_unfinished(medium)? { Error::Unfinished } else { Error::NotAVolume });
    }
    let end_of_medium = medium.size() / BLOCK_SIZE - 1;
    let mut report = |code, block, detail| {
        findings.push(Finding::new(code, Object::Superblock { block }, detail));
    };
    match parse_at(medium, 0)? {
        Ok(first) => {
            let last = first.total_blocks.get().saturating_sub(1);
            if last == 0 || last > end_of_medium {
                // The volume is refused for that later.
                return Ok(first);
            }
            match parse_at(medium, last)? {
                Ok(second) if second == first => {}
                Ok(_) => report(Code::SuperblockDiffers, last, ""),
                Err(fault) => report(Code::SuperblockDamaged, last, text_of(fault)),
            }
            Ok(first)
        }
        Err(SuperblockError::NewerVersion(version)) => Err(Error::Incompatible(format!("format {version}"))),
        Err(first_fault) => match parse_at(medium, end_of_medium)? {
            Ok(second) => {
                report(Code::SuperblockDamaged, 0, text_of(first_fault));
                Ok(second)
            }
            Err(_) if is_unfinished(medium)? => Err(Error::Unfinished),
            Err(second_fault) => {
                let rebuilt = rebuild_superblock(medium, end_of_medium)?;
                let Some(rebuilt) = rebuilt else {
                    if let Some(found) = lost::superblock(medium)? {
                        report(Code::IdentityLost, 0, "");
                        return Ok(found);
                    }
                    let is_volume = [first_fault, second_fault].contains(&SuperblockError::Damaged);
                    return Err(if is_volume { both_damaged() } else { Error::NotAVolume });
                };
                report(Code::SuperblockLost, 0, "");
                Ok(rebuilt)
            }
        },
    }
}

/// The key of the names, if either copy of the superblock still has it.
fn left_name_key(medium: &Medium, last: u64, uuid: &[u8; 16]) -> Result<Option<NameKey>> {
    for block in [0, last] {
        let mut bytes = [0; size_of::<Superblock>()];
        medium.read(offset_of(block), &mut bytes)?;
        let left = Superblock::read_from_bytes(&bytes).expect("the size of a superblock");
        if let Some(key) = left.name_key_of(uuid) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

fn text_of(fault: SuperblockError) -> &'static str {
    match fault {
        SuperblockError::NotAVolume => "no magic number",
        SuperblockError::Damaged => "wrong checksum",
        SuperblockError::NewerVersion(_) => "another version of the format",
    }
}

fn both_damaged() -> Error {
    Error::Corrupt { object: "superblock".into(), fault: "both copies are damaged beyond recognition" }
}

/// Makes a superblock from what is left of either copy, if a state shows that the identity in it is right and the
/// volume is laid out as one of this size is.
fn rebuild_superblock(medium: &Medium, last: u64) -> Result<Option<Superblock>> {
    let Ok(geometry) = Geometry::for_size(medium.size()) else { return Ok(None) };
    for block in [0, last] {
        let mut bytes = [0; size_of::<Superblock>()];
        medium.read(offset_of(block), &mut bytes)?;
        let left = Superblock::read_from_bytes(&bytes).expect("the size of a superblock");
        let seed = Seed::of_volume(&left.uuid);
        for slot in 0..2 {
            let mut bytes = [0; size_of::<State>()];
            medium.read(offset_of(geometry.state.start.get() + slot), &mut bytes)?;
            if State::parse(&bytes, seed).is_some() {
                let name_key = left_name_key(medium, last, &left.uuid)?;
                return Ok(Some(superblock_like(&left, &geometry, name_key)));
            }
        }
    }
    Ok(None)
}

/// The newest state; or, and `true`, one that is made up.
fn choose_state(volume: &Volume, findings: &mut Vec<Finding>) -> Result<(State, bool)> {
    let slots = [state::read_slot(volume, 0)?, state::read_slot(volume, 1)?];
    let is_possible = |slot: &Slot| !matches!(slot, Slot::Valid(state) if counts_of(state) > COUNT_MAX);
    let newest = state::newest(slots.into_iter().filter(is_possible));
    let mut report =
        |code, number, detail| findings.push(Finding::new(code, Object::StateSlot(number), detail));
    for (number, slot) in (0..).zip(slots) {
        match slot {
            Slot::Valid(_) if is_possible(&slot) => {}
            Slot::Valid(_) => report(Code::StateCount, number, ""),
            _ if newest.is_none() => {}
            Slot::Damaged => report(Code::StateDamaged, number, "wrong checksum"),
            // Only a volume that was never opened has written to one slot only.
            Slot::Blank if newest.is_none_or(|newest| newest.update.get() == 1) => {}
            Slot::Blank => report(Code::StateDamaged, number, "empty"),
        }
    }
    let Some(newest) = newest else {
        findings.push(Finding::new(Code::StateLost, Object::State, ""));
        return Ok((State::new(0, 0), true));
    };
    Ok((newest, false))
}

/// The highest of the counts that go on from where a state left them.
fn counts_of(state: &State) -> u64 {
    state.update.get().max(state.generation.get()).max(state.committed_seq.get())
}

/// Leaves out the records that make no sense.
fn drop_nonsense(volume: &Volume, state: &State, records: &mut Records, findings: &mut Vec<Finding>) {
    records.all.retain(|record| {
        let count_fault = (record.seq > COUNT_MAX).then_some("nothing counts that far");
        let fault = count_fault.or_else(|| replay::fault_of(volume, record));
        findings.extend(
            fault.map(|fault| {
                Finding::new(Code::JournalRecordInvalid, Object::JournalRecord(record.seq), fault)
            }),
        );
        fault.is_none()
    });
    if records.last_seq > COUNT_MAX {
        records.last_seq = records.all.last().map_or(0, |record| record.seq).max(state.committed_seq.get());
    }
}

/// Looks for intact records behind the end of each half lane. A lane is written from its start, one record after
/// another was in place, so a crash leaves none there.
fn find_lost_records(volume: &Volume, state: &State, findings: &mut Vec<Finding>) -> Result<()> {
    let half_size = volume.shape.half_blocks * BLOCK_SIZE;
    for lane in 0..volume.shape.lanes {
        for generation in replay::live_generations(state) {
            let mut at = replay::read_half(volume, lane, generation, &mut Vec::new())?;
            let mut probes = 0;
            while at < half_size && probes < PROBES_MAX {
                at += RECORD_ALIGN as u64;
                let seq = match replay::probe_record(volume, lane, generation, at)? {
                    Probed::Nothing => continue,
                    Probed::Torn => None,
                    Probed::Record(record) => Some(record.seq),
                };
                probes += 1;
                if seq.is_some_and(|seq| replay::counts(volume, state, seq)) {
                    let detail = format!("{at} bytes into the half for generation {generation}");
                    findings.push(Finding::new(Code::JournalRecordsLost, Object::JournalLane(lane), detail));
                    break;
                }
            }
        }
    }
    Ok(())
}
