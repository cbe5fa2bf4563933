//! Who holds which file, and with which effect.

use std::collections::HashMap;

use super::{Asker, Effect};
use crate::types::Ino;
use lodefs_sync::{AtomicU64, Mutex, Ordering};

/// A power of two, so that two threads seldom meet.
const SHARDS: usize = 16;

/// What somebody holds a file by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderKind {
    /// An open file.
    OpenFile,
    /// A mapping.
    Mapping {
        /// Made with `MAP_SYNC`: never to become anything weaker.
        sync: bool,
    },
    /// A read or write that is under way.
    Io,
}

/// Somebody who holds a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// By what.
    pub kind: HolderKind,
    /// The process or thread that it was made for, or 0 if that is not known.
    pub pid: u32,
}

/// A file that somebody holds. There is at least one holder, and all have its effect.
struct Held {
    effect: Effect,
    /// With the number of each, ascending.
    holders: Vec<(u64, Holder)>,
}

/// All holders of all files.
#[derive(Default)]
pub(crate) struct Holders {
    shards: [Mutex<HashMap<u64, Held>>; SHARDS],
    last_id: AtomicU64,
}

impl Holders {
    fn shard(&self, ino: Ino) -> &Mutex<HashMap<u64, Held>> {
        &self.shards[ino.0 as usize % SHARDS]
    }

    /// Adds a holder. Gives its number, and the effect that the file has from now on: `wanted`, unless others hold it.
    pub(crate) fn add(&self, ino: Ino, wanted: Effect, holder: Holder) -> (u64, Effect) {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut shard = self.shard(ino).lock();
        let held = shard.entry(ino.0).or_insert_with(|| Held { effect: wanted, holders: Vec::new() });
        held.holders.push((id, holder));
        (id, held.effect)
    }

    /// Takes a holder out, if it is there. With the last one goes what held the effect back.
    pub(crate) fn release(&self, ino: Ino, number: u64) {
        let mut shard = self.shard(ino).lock();
        let Some(entry) = shard.get_mut(&ino.0) else { return };
        entry.holders.retain(|(id, _)| *id != number);
        if entry.holders.is_empty() {
            shard.remove(&ino.0);
        }
    }

    /// The effect of a file that is held, and by whom, but for `asker`; `None` if it is not held at all.
    pub(super) fn of(&self, ino: Ino, asker: Option<Asker>) -> Option<(Effect, Vec<Holder>)> {
        let asker = asker.map(|asker| asker.id);
        let shard = self.shard(ino).lock();
        let held = shard.get(&ino.0)?;
        let others = held.holders.iter().filter(|(id, _)| Some(*id) != asker);
        Some((held.effect, others.map(|(_, holder)| *holder).collect()))
    }

    /// Whether anybody but those with the numbers `besides` holds the file with another effect than `wanted`.
    pub(crate) fn is_held_otherwise(&self, ino: Ino, wanted: Effect, besides: &[u64]) -> bool {
        let shard = self.shard(ino).lock();
        let others = |held: &Held| held.holders.iter().any(|(id, _)| !besides.contains(id));
        shard.get(&ino.0).is_some_and(|held| held.effect != wanted && others(held))
    }
}
