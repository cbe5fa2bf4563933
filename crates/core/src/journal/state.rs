//! Reading and replacing the volume's state.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::state::State;
use lodefs_pmem::{Durable, MediumError};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use crate::error::{Error, Result};
use crate::volume::Volume;

/// Counts above this are damage: nothing gets there by counting, and from here on nothing overflows.
pub(crate) const COUNT_MAX: u64 = 1 << 62;

/// What a state slot holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot {
    /// A state.
    Valid(State),
    /// Nothing was ever stored there.
    Blank,
    /// A state that was torn by a crash, or is damaged.
    Damaged,
}

/// Reads slot 0 or 1.
pub(crate) fn read_slot(volume: &Volume, slot: u64) -> Result<Slot> {
    let mut bytes = [0; size_of::<State>()];
    volume.medium.read(slot_offset(volume, slot), &mut bytes)?;
    let sane = |state: &State| {
        State::slot_of(state.update.get()) == slot
            && [state.update, state.generation, state.committed_seq]
                .iter()
                .all(|count| count.get() <= COUNT_MAX)
    };
    Ok(match State::parse(&bytes, volume.seed).filter(sane) {
        Some(state) => Slot::Valid(state),
        None if bytes == [0; size_of::<State>()] => Slot::Blank,
        None => Slot::Damaged,
    })
}

/// The newest of the slots.
pub(crate) fn newest(slots: impl IntoIterator<Item = Slot>) -> Option<State> {
    let states =
        slots.into_iter().filter_map(|slot| if let Slot::Valid(state) = slot { Some(state) } else { None });
    states.max_by_key(|state| state.update.get())
}

/// The newest valid state.
pub(crate) fn read(volume: &Volume) -> Result<State> {
    let found = newest([read_slot(volume, 0)?, read_slot(volume, 1)?]);
    found.ok_or(Error::Corrupt { object: "volume state".into(), fault: "both copies are damaged" })
}

/// Whether the newest valid state is the newest that was written. If the other slot is damaged, that may have been newer;
/// or a crash tore it, which looks the same.
pub(crate) fn is_certain(volume: &Volume) -> Result<bool> {
    let slots = [read_slot(volume, 0)?, read_slot(volume, 1)?];
    Ok(!slots.iter().any(|slot| matches!(slot, Slot::Damaged)))
}

/// Makes `state` the newest. It overwrites the older slot, so that a crash leaves either the present state or this.
///
/// `before` is what must be durable before this state may be believed.
pub(crate) fn write(volume: &Volume, state: State, _before: &Durable) -> Result<Durable> {
    let slot = State::slot_of(state.update.get());
    let flushed = volume.medium.write(slot_offset(volume, slot), state.sealed(volume.seed).as_bytes())?;
    Ok(volume.medium.sync(flushed)?)
}

/// After something failed: if it was a write-back, takes the boot out of the newest state, which is `durable`.
///
/// What the host could not write it may drop from its cache, and read what was there before. So from now on the cache is
/// no better than the medium after a power failure, though the host has not been restarted, and the next open must not
/// take it for more.
///
/// This is the one state that is not waited for. It says nothing that the durable one does not, so it may reach the
/// medium at any time.
pub(crate) fn distrust_cache(volume: &Volume, durable: &State, failure: &Error) {
    let is_write_back = matches!(failure, Error::Medium(MediumError::Io { .. }));
    if !is_write_back || !durable.is_gated() {
        return;
    }
    let mut state = *durable;
    state.update = U64::new(state.update.get() + 1);
    state.boot_id = [0; 16];
    let slot = State::slot_of(state.update.get());
    if let Err(error) = volume.medium.write(slot_offset(volume, slot), state.sealed(volume.seed).as_bytes()) {
        tracing::debug!(%error, "the state could not be stored any more");
    }
}

fn slot_offset(volume: &Volume, slot: u64) -> u64 {
    (volume.shape.state_start + slot) * BLOCK_SIZE
}
