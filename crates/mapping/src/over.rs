//! What becomes of regions over which something is mapped?
//!
//! They lose these addresses without unmapping them: there is no moment at which nothing is there, or at which others can be given the
//! addresses. A thread that touches one in between asks again until the new mapping is there.

use std::ops::Range;

use crate::fork::watched;
use crate::gate::{Inside, enter};

/// Does something by which whatever is mapped at these addresses is replaced, or unmapped. What regions have there is theirs no more
/// when it begins. It is not to wait for anybody.
///
/// # Safety
/// It leaves nothing of what was there, even if it fails, and nobody relies on that.
pub unsafe fn replace<T>(addresses: &Range<usize>, how: impl FnOnce() -> T) -> T {
    // SAFETY: by the caller's promise.
    unsafe { replaced(addresses, &enter(), how) }
}

/// # Safety
/// As for `replace`.
pub(crate) unsafe fn replaced<T>(addresses: &Range<usize>, inside: &Inside, how: impl FnOnce() -> T) -> T {
    let mappers = watched(inside);
    let losing: Vec<_> = mappers.iter().flat_map(|mapper| mapper.regions_at(addresses, inside)).collect();
    for region in &losing {
        region.leave(addresses, inside);
    }
    let result = how();
    for region in &losing {
        region.wake(addresses, inside);
    }
    result
}
