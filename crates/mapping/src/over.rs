//! What becomes of regions over which something is mapped?
//!
//! They lose these addresses without unmapping them: there is no moment at which nothing is there, or at which others can be given the
//! addresses. They are locked until what was there is gone: whoever recalls something waits for that, because then nobody reaches it. A
//! thread that touches a page meanwhile asks again until the new mapping is there.

use std::ops::Range;
use std::sync::Arc;

use crate::fork::watched;
use crate::gate::{Inside, enter};

/// Does something by which whatever is mapped at these addresses is replaced, or unmapped. What regions have there is theirs no more
/// then. It waits for nobody but the thread that reads what the kernel says of mappings.
///
/// # Safety
/// It leaves nothing of what regions had there, even if it fails, and nobody relies on that.
pub unsafe fn replace<T>(addresses: &Range<usize>, how: impl FnOnce() -> T) -> T {
    // SAFETY: by the caller's promise.
    unsafe { replaced(addresses, &enter(), how) }
}

/// # Safety
/// As for `replace`.
pub(crate) unsafe fn replaced<T>(addresses: &Range<usize>, inside: &Inside, how: impl FnOnce() -> T) -> T {
    let mappers = watched(inside);
    let mut losing: Vec<_> = mappers.iter().flat_map(|mapper| mapper.regions_at(addresses, inside)).collect();
    // Whoever else locks several does so in this order.
    losing.sort_unstable_by_key(|region| Arc::as_ptr(region).addr());
    let leaving: Vec<_> = losing.iter().map(|region| region.leave(addresses, inside)).collect();
    let result = how();
    drop(leaving);
    for region in &losing {
        region.wake(addresses, inside);
    }
    result
}
