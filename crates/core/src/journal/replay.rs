//! Recovery of the journal: finds the records that count and stores them at home again.
//!
//! Replay only stores what the records say, in the order of their sequence numbers, so doing it twice, or crashing
//! in the middle and starting over, gives the same result. At most the journal's own size is read into memory.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::journal::{RECORD_ALIGN, RECORD_HEAD_SIZE, RecordHead, claimed_size, verify, writes};
use lodefs_layout::state::State;
use lodefs_pmem::{DirtyRanges, Durable, Medium, Ordered};
use zerocopy::little_endian::U64;

use super::lane::{half_start, lane_start};
use super::state::COUNT_MAX;
use crate::error::{Error, Result};
use crate::volume::Volume;

/// What replay found and left.
pub(crate) struct Replayed {
    /// Records stored at home.
    pub(crate) records: u64,
    /// The highest sequence number that was ever used, as far as can be seen.
    pub(crate) last_seq: u64,
    /// The volume's state now.
    pub(crate) state: State,
    /// Everything is at home.
    pub(crate) ready: Durable,
}

/// A record that is intact.
pub(crate) struct Record {
    pub(crate) seq: u64,
    bytes: Vec<u8>,
}

/// The records that count.
pub(crate) struct Records {
    /// In the order of their sequence numbers.
    pub(crate) all: Vec<Record>,
    /// The highest sequence number that was ever used, as far as can be seen.
    pub(crate) last_seq: u64,
}

/// Replays the journal and makes the result durable. On a medium opened read-only the result is in the overlay.
pub(crate) fn replay(volume: &Volume, state: &State) -> Result<Replayed> {
    let records = gather(volume, state)?;
    for record in &records.all {
        if let Some(fault) = fault_of(volume, record) {
            return Err(Error::Corrupt { object: format!("journal record {}", record.seq), fault });
        }
    }
    apply_all(volume, state, &records)
}

/// Finds the records that count.
pub(crate) fn gather(volume: &Volume, state: &State) -> Result<Records> {
    let mut all = Vec::new();
    for lane in 0..volume.shape.lanes {
        for generation in live_generations(state) {
            read_half(volume, lane, generation, &mut all)?;
        }
    }
    all.sort_unstable_by_key(|record| record.seq);
    let last_seq = last_seq_of(&all, state);
    all.retain(|record| counts(volume, state, record.seq));
    Ok(Records { all, last_seq })
}

/// The generations whose records may have to be replayed.
pub(crate) fn live_generations(state: &State) -> [u64; 2] {
    [state.generation.get(), state.generation.get() + 1]
}

/// Whether an intact record of a live generation counts. After a power failure on a `page` volume those behind the
/// committed sequence number do not: others before them may be missing.
pub(crate) fn counts(volume: &Volume, state: &State, seq: u64) -> bool {
    seq <= state.committed_seq.get() || !state.is_gated() || same_boot(volume, state)
}

/// Stores records at home, in their order, and makes that durable. None of them has a fault.
pub(crate) fn apply_all(volume: &Volume, state: &State, records: &Records) -> Result<Replayed> {
    let ready = volume.medium.fence(Medium::nothing_flushed())?;
    let mut dirty = DirtyRanges::default();
    for record in &records.all {
        apply(volume, record, &ready, &mut dirty)?;
    }
    let count = records.all.len() as u64;
    let replayed = |state, ready| Replayed { records: count, last_seq: records.last_seq, state, ready };
    let mut state = *state;
    let synced = volume.medium.sync(Medium::nothing_flushed()).map_err(Error::from);
    // What the process before left in the cache: its host may just have failed to write it.
    let mut explained = synced.inspect_err(|error| super::state::distrust_cache(volume, &state, error))?;
    if volume.medium.is_read_only() || records.all.is_empty() {
        return Ok(replayed(state, explained));
    }
    if state.is_gated() {
        // From here on the homes show what these records did: if the host goes down now, the next recovery, in another
        // boot, has to replay all of them as well.
        state.update = U64::new(state.update.get() + 1);
        state.committed_seq = U64::new(last_seq_of(&records.all, &state));
        explained = super::state::write(volume, state, &explained)?;
    }
    let staged = volume.medium.stage(dirty);
    let (settled, ready) = volume.medium.settle(staged, &explained)?;
    volume.medium.release(settled, &DirtyRanges::default());
    Ok(replayed(state, ready))
}

/// The last of the records, or the last that was committed before.
fn last_seq_of(records: &[Record], state: &State) -> u64 {
    records.last().map_or(0, |record| record.seq).max(state.committed_seq.get())
}

/// Whether the host has been up since the records were written, so that nothing the process wrote is missing.
fn same_boot(volume: &Volume, state: &State) -> bool {
    let now = volume.medium.boot_id();
    now != [0; 16] && now == state.boot_id
}

/// Collects the records of a half lane up to the first that is not intact. Returns where that would be, in bytes from
/// the start of the half.
pub(crate) fn read_half(
    volume: &Volume,
    lane: u64,
    generation: u64,
    records: &mut Vec<Record>,
) -> Result<u64> {
    let half_size = volume.shape.half_blocks * BLOCK_SIZE;
    let mut used = 0;
    while let Some(record) = read_record(volume, lane, generation, used)? {
        used += record.bytes.len().next_multiple_of(RECORD_ALIGN) as u64;
        records.push(record);
    }
    Ok(used.min(half_size))
}

/// The record of `generation` at byte `at` of its half of a lane, if there is an intact one.
fn read_record(volume: &Volume, lane: u64, generation: u64, at: u64) -> Result<Option<Record>> {
    Ok(match probe_record(volume, lane, generation, at)? {
        Probed::Record(record) => Some(record),
        Probed::Nothing | Probed::Torn => None,
    })
}

/// What there can be in a place of the journal.
pub(crate) enum Probed {
    /// Not the head of a record of the generation that was asked for.
    Nothing,
    /// The head of one that is not intact.
    Torn,
    /// A record.
    Record(Record),
}

/// Looks at byte `at` of the half of a lane for `generation`.
pub(crate) fn probe_record(volume: &Volume, lane: u64, generation: u64, at: u64) -> Result<Probed> {
    let half_size = volume.shape.half_blocks * BLOCK_SIZE;
    let start = half_start(lane_start(volume, lane), half_size, generation);
    if at + RECORD_HEAD_SIZE as u64 > half_size {
        return Ok(Probed::Nothing);
    }
    let mut head = [0; RECORD_HEAD_SIZE];
    volume.medium.read(start + at, &mut head)?;
    let Some(size) = claimed_size(&head, generation).filter(|size| at + *size as u64 <= half_size) else {
        return Ok(Probed::Nothing);
    };
    let mut bytes = vec![0; size];
    volume.medium.read(start + at, &mut bytes)?;
    let seq = verify(&bytes, volume.seed).filter(|seq| *seq <= COUNT_MAX);
    Ok(seq.map_or(Probed::Torn, |seq| Probed::Record(Record { seq, bytes })))
}

/// Generation of the intact record at byte `at` of a half of a lane, if there is one and it is later than `newest`.
pub(crate) fn later_record(
    volume: &Volume,
    lane: u64,
    half: u64,
    at: u64,
    newest: u64,
) -> Result<Option<u64>> {
    let half_size = volume.shape.half_blocks * BLOCK_SIZE;
    if at + RECORD_HEAD_SIZE as u64 > half_size {
        return Ok(None);
    }
    let head: RecordHead = volume.get(lane_start(volume, lane) + half * half_size + at)?;
    let generation = head.generation.get();
    if generation <= newest || generation > COUNT_MAX || generation % 2 != half {
        return Ok(None);
    }
    Ok(read_record(volume, lane, generation, at)?.map(|_| generation))
}

/// What is wrong with an intact record, so that it must not be replayed.
pub(crate) fn fault_of(volume: &Volume, record: &Record) -> Option<&'static str> {
    let fault_of_write = |write: Option<(u64, &[u8])>| match write {
        None => Some("its inside does not add up"),
        Some((offset, bytes)) if is_home(volume, offset, bytes.len() as u64) => None,
        Some(_) => Some("it would write outside of the metadata"),
    };
    writes(&record.bytes).find_map(fault_of_write)
}

fn apply(volume: &Volume, record: &Record, ready: &Ordered, dirty: &mut DirtyRanges) -> Result<()> {
    // Whoever calls has left out records that make no sense.
    for (offset, bytes) in writes(&record.bytes).flatten() {
        dirty.push(volume.medium.store_meta(offset, bytes, ready)?);
    }
    Ok(())
}

/// Whether journalled metadata may live there: in the inode map, or among the data blocks.
fn is_home(volume: &Volume, offset: u64, size: u64) -> bool {
    let shape = &volume.shape;
    let within = |start: u64, end: u64| {
        offset >= start * BLOCK_SIZE && offset.checked_add(size).is_some_and(|last| last <= end * BLOCK_SIZE)
    };
    within(shape.inode_map_start, shape.bitmap_start) || within(shape.data_start, shape.data_end)
}
