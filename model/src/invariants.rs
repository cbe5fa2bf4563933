//! What must be true in every state.

use crate::client::{Life, Mapping, Page};
use crate::protocol::Protocol;
use crate::server::{Change, Effect, Owner};
use crate::state::State;

/// While the file is direct nothing of it is in a cache, and while it is buffered nobody has mapped the medium.
pub fn one_copy(_: &Protocol, state: &State) -> bool {
    match state.effect {
        Effect::Direct => {
            state.cache.is_none() && state.clients.iter().all(|client| client.mapping != Mapping::Buffered)
        }
        Effect::Buffered => state.clients.iter().all(|client| client.page().is_none()),
    }
}

/// Who has mapped a block has mapped the one that the file has, unless a recall is on its way to him.
pub fn the_block_that_counts(_: &Protocol, state: &State) -> bool {
    state.clients.iter().all(|client| match client.page() {
        Some(Page::Block(block)) => state.home == Some(block) || client.is_recalled(),
        _ => true,
    })
}

/// Who has mapped zeroes for a hole has no block to miss, unless he was stopped when it was allocated.
pub fn no_stale_zeroes(_: &Protocol, state: &State) -> bool {
    state.clients.iter().enumerate().all(|(number, client)| {
        client.page() != Some(Page::Zero) || state.home.is_none() || state.excused & 1 << number != 0
    })
}

/// A block that somebody may still reach is not given to another file.
pub fn nobody_elses_block(_: &Protocol, state: &State) -> bool {
    state.clients.iter().filter(|client| client.life != Life::Dead).all(|client| match client.page() {
        Some(Page::Block(block)) => {
            matches!(state.owners[usize::from(block)], Owner::File | Owner::Quarantined(_))
        }
        _ => true,
    })
}

/// A read gives what was written last, by whichever way. (What is read while a file is being cut is not fixed.)
pub fn what_was_written_is_read(_: &Protocol, state: &State) -> bool {
    state.change == Some(Change::Truncate) || state.read() == state.latest
}

/// What was mapped with `MAP_SYNC` is never replaced by anything weaker.
pub fn a_synchronous_mapping_stays(protocol: &Protocol, state: &State) -> bool {
    protocol
        .synchronous
        .is_none_or(|number| !state.is_synchronous || state.clients[number].mapping != Mapping::Buffered)
}

/// What must be possible, or the rest would say little.
pub mod reached {
    use super::{Effect, Mapping, Owner, Page, Protocol, State};

    /// Both programs have mapped the block of the file.
    pub fn both_have_mapped_the_block(_: &Protocol, state: &State) -> bool {
        state.clients.iter().all(|client| matches!(client.page(), Some(Page::Block(_))))
    }

    /// A block is kept back because somebody may still reach it.
    pub fn a_block_is_in_quarantine(_: &Protocol, state: &State) -> bool {
        state.owners.iter().any(|owner| matches!(owner, Owner::Quarantined(_)))
    }

    /// A program that was stopped was not waited for, and goes on.
    pub fn somebody_was_given_up_on(_: &Protocol, state: &State) -> bool {
        let mut numbered = state.clients.iter().enumerate();
        numbered.any(|(number, client)| {
            state.excused & 1 << number != 0 && client.life == super::Life::Alive && client.page().is_some()
        })
    }

    /// The file is buffered, with something in the cache that is newer than the medium.
    pub fn buffered_and_mapped(_: &Protocol, state: &State) -> bool {
        state.effect == Effect::Buffered
            && matches!(state.cache, Some((_, true)))
            && state.clients.iter().any(|client| client.mapping == Mapping::Buffered)
    }

    /// The file was buffered and is direct again, mapped, with what was written meanwhile.
    pub fn direct_again(protocol: &Protocol, state: &State) -> bool {
        state.effect == Effect::Direct
            && state.left[2] + 2 <= protocol.switches
            && state.latest != 0
            && state.clients.iter().any(|client| matches!(client.page(), Some(Page::Block(_))))
    }
}
