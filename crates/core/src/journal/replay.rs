//! Recovery of the journal: finds the records that count and stores them at home again.
//!
//! Replay only stores what the records say, in the order of their sequence numbers, so doing it twice, or crashing
//! in the middle and starting over, gives the same result. At most the journal's own size is read into memory.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::journal::{RECORD_ALIGN, RECORD_HEAD_SIZE, claimed_size, verify, writes};
use lodefs_layout::state::State;
use lodefs_pmem::{DirtyRanges, Durable, Medium, Ordered};

use super::lane::{half_start, lane_start};
use zerocopy::little_endian::U64;

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

struct Record {
    seq: u64,
    bytes: Vec<u8>,
}

/// Replays the journal and makes the result durable. On a medium opened read-only the result is in the overlay.
pub(crate) fn replay(volume: &Volume, state: &State) -> Result<Replayed> {
    let mut records = Vec::new();
    for lane in 0..volume.shape.lanes {
        for generation in [state.generation.get(), state.generation.get() + 1] {
            read_half(volume, lane, generation, &mut records)?;
        }
    }
    records.sort_unstable_by_key(|record| record.seq);
    let last_seq = last_seq_of(&records, state);
    if state.is_gated() && !same_boot(volume, state) {
        records.retain(|record| record.seq <= state.committed_seq.get());
    }
    let ready = volume.medium.fence(Medium::nothing_flushed());
    let mut dirty = DirtyRanges::default();
    for record in &records {
        apply(volume, record, &ready, &mut dirty)?;
    }
    let replayed = |state, ready| Replayed { records: records.len() as u64, last_seq, state, ready };
    let mut state = *state;
    let mut explained = volume.medium.sync()?;
    if volume.medium.is_read_only() || records.is_empty() {
        return Ok(replayed(state, explained));
    }
    if state.is_gated() {
        // From here on the homes show what these records did: if the host goes down now, the next recovery, in another
        // boot, has to replay all of them as well.
        state.update = U64::new(state.update.get() + 1);
        state.committed_seq = U64::new(last_seq_of(&records, &state));
        explained = super::state::write(volume, state, &explained)?;
    }
    let staged = volume.medium.stage(dirty);
    let (settled, ready) = volume.medium.settle(staged, &explained)?;
    volume.medium.release(settled, &DirtyRanges::default());
    Ok(replayed(state, ready))
}

/// The last of the records that are replayed, or the last that was committed before.
fn last_seq_of(records: &[Record], state: &State) -> u64 {
    records.last().map_or(0, |record| record.seq).max(state.committed_seq.get())
}

/// Whether the host has been up since the records were written, so that nothing the process wrote is missing.
fn same_boot(volume: &Volume, state: &State) -> bool {
    let now = volume.medium.boot_id();
    now != [0; 16] && now == state.boot_id
}

fn read_half(volume: &Volume, lane: u64, generation: u64, records: &mut Vec<Record>) -> Result<()> {
    let half_size = volume.shape.half_blocks * BLOCK_SIZE;
    let start = half_start(lane_start(volume, lane), half_size, generation);
    let mut used = 0;
    while used + RECORD_HEAD_SIZE as u64 <= half_size {
        let mut head = [0; RECORD_HEAD_SIZE];
        volume.medium.read(start + used, &mut head)?;
        let Some(size) = claimed_size(&head, generation) else { break };
        if used + size as u64 > half_size {
            break;
        }
        let mut bytes = vec![0; size];
        volume.medium.read(start + used, &mut bytes)?;
        let Some(seq) = verify(&bytes, volume.seed) else { break };
        records.push(Record { seq, bytes });
        used += size.next_multiple_of(RECORD_ALIGN) as u64;
    }
    Ok(())
}

fn apply(volume: &Volume, record: &Record, ready: &Ordered, dirty: &mut DirtyRanges) -> Result<()> {
    let damaged = |fault| Error::Corrupt { object: format!("journal record {}", record.seq), fault };
    for write in writes(&record.bytes) {
        let (offset, bytes) = write.ok_or_else(|| damaged("its inside does not add up"))?;
        if !is_home(volume, offset, bytes.len() as u64) {
            return Err(damaged("it would write outside of the metadata"));
        }
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
