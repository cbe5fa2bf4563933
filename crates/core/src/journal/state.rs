//! Reading and replacing the volume's state.

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::state::State;
use lodefs_pmem::Durable;
use zerocopy::IntoBytes;

use crate::error::{Error, Result};
use crate::volume::Volume;

/// The newest valid state.
pub(crate) fn read(volume: &Volume) -> Result<State> {
    let mut newest: Option<State> = None;
    for slot in 0..2 {
        let mut bytes = [0; size_of::<State>()];
        volume.medium.read(slot_offset(volume, slot), &mut bytes)?;
        let Some(state) = State::parse(&bytes, volume.seed) else { continue };
        if newest.is_none_or(|newest| newest.update.get() < state.update.get()) {
            newest = Some(state);
        }
    }
    newest.ok_or(Error::Corrupt { object: "volume state".into(), fault: "both copies are damaged" })
}

/// Makes `state` the newest. It overwrites the older slot, so that a crash leaves either the present state or this.
///
/// `before` is what must be durable before this state may be believed.
pub(crate) fn write(volume: &Volume, state: State, _before: &Durable) -> Result<Durable> {
    let slot = State::slot_of(state.update.get());
    let flushed = volume.medium.write(slot_offset(volume, slot), state.sealed(volume.seed).as_bytes())?;
    let _in_place = volume.medium.fence(flushed);
    Ok(volume.medium.sync()?)
}

fn slot_offset(volume: &Volume, slot: u64) -> u64 {
    (volume.shape.state_start + slot) * BLOCK_SIZE
}
