//! Leases: programs that reach a file's blocks by themselves, and how blocks are taken back from them.
//!
//! A [`Lease`] is the promise to one mapping of one program that what it was *granted* stays where it is until it is *recalled*.
//! Somebody outside of the engine carries grants and recalls to the program ([`Lessee`]).
//!
//! The rules, which the model in `model/` has been checked for:
//! - Whatever is granted, is granted under the lock of the inode, and so is what is recalled. A grant carries the number of
//!   recalls that its lease has seen (its *epoch*): a program does not map what was granted before a recall after it.
//! - Before a block leaves a file, whoever may have mapped it is asked to give it back, and has answered, or was given up on.
//! - Before a hole gets a block, whoever may have mapped zeroes in its place is asked likewise, he who wants the block too.
//! - An operation waits for answers under the lock of the inode only; nothing that answers takes one. How long it may take is
//!   up to the lessee, which *gives up* on a program that does not answer ([`Answer::give_up`]).
//! - The blocks that an operation frees while somebody was given up on are in *quarantine* until the program has answered, or
//!   is gone.
//!
//! A crash tears nothing here: what was granted for writing was committed before.

mod cached;
mod data;
mod flush;
mod grant;
mod recall;
mod words;

use std::os::fd::OwnedFd;

use lodefs_layout::BLOCK_SIZE;
use lodefs_pmem::Domain;
use rustix::io::Errno;

use crate::access::{Effect, Holder, HolderKind};
use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::glimpse::StateWriteGuard;
use crate::inode::{InodeState, Node};
use crate::ops::locked::LockedInode;
use crate::types::{Flags, Ino, Kind};
use lodefs_sync::{Arc, Ordering, Weak};

pub(crate) use cached::Cached;
pub use data::{DataAnswer, DataGrant, DataLease, DataRight, TailGrant};
pub use grant::{Grant, Part, Touch, Touched, What};
use recall::Asked;
pub use recall::{Answer, Recall};
pub(crate) use recall::{
    Lagging, Quarantine, Recalled, has_writer, is_asked, is_reached_by_writer, recall_blocks, recall_data,
    recall_end, recall_zeroes,
};
pub(crate) use words::Words;

/// Who carries grants and recalls to a program.
pub trait Lessee: Send + Sync {
    /// Asks the program to give back what it was granted. Must not wait for anything: an operation of the engine holds locks
    /// meanwhile. The answer comes by dropping [`Recall::answer`].
    fn recall(&self, recall: Recall);
}

/// How a file is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// The program may store to it.
    pub writable: bool,
    /// Made with `MAP_SYNC`: never recalled into something weaker.
    pub sync: bool,
    /// The process, or 0 if that is not known.
    pub pid: u32,
}

/// What a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// To map the file.
    Mapping,
    /// To read and write it.
    Data,
}

/// What a lease has of its file.
pub(crate) struct Leased {
    id: u64,
    purpose: Use,
    lessee: Arc<dyn Lessee>,
    fs: Weak<Fs>,
    /// The program may store to it.
    writable: bool,
    /// Not to be recalled for a switch.
    pub(crate) sync: bool,
    /// Its number among those who hold the file direct; `None`: it does not.
    pub(crate) holder: Option<u64>,
    /// Recalls so far.
    epoch: u64,
    /// Where it may have mapped blocks: from the first to behind the last.
    blocks: Bounds,
    /// Where it may have stored to blocks, whatever has become of them.
    stored: Bounds,
    /// Where it may have mapped zeroes in place of holes.
    zeroes: Bounds,
    /// It was told of a page that it lies beyond the end.
    met_end: bool,
    /// What it may do with the content by itself.
    data: DataRight,
    /// Where it may have mapped either until it answers.
    asked: Vec<Asked>,
}

impl Leased {
    /// Whether the program may store to the file by a mapping.
    fn may_store(&self) -> bool {
        self.purpose == Use::Mapping && self.writable
    }
}

/// Block numbers from one to before another; nothing if they are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Bounds {
    /// The blocks of a part.
    fn of(part: &Part) -> Self {
        Self { from: part.offset / BLOCK_SIZE, to: (part.offset + part.size) / BLOCK_SIZE }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.from >= self.to
    }

    fn meets(self, other: Self) -> bool {
        self.from.max(other.from) < self.to.min(other.to)
    }

    fn common(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    fn add(&mut self, other: Self) {
        *self = match (self.is_empty(), other.is_empty()) {
            (_, true) => *self,
            (true, false) => other,
            (false, false) => Self { from: self.from.min(other.from), to: self.to.max(other.to) },
        };
    }

    /// What is certainly left without `other`: as long as that is one piece.
    fn remove(&mut self, other: Self) {
        if !self.meets(other) {
            return;
        }
        if other.from <= self.from {
            self.from = other.to;
        } else if other.to >= self.to {
            self.to = other.from;
        }
    }
}

/// A mapping of a file by a program. Dropping it tells that the program has unmapped it, or is gone.
pub struct Lease {
    node: Node,
    id: u64,
    purpose: Use,
    options: LeaseOptions,
}

impl Fs {
    /// Lets a program map a file. INVAL if it is no regular file; OPNOTSUPP if it should be `sync`, and the file is not direct or the
    /// medium cannot do that, or if the medium cannot be attached at all; PERM if it should be writable and is immutable or
    /// append-only. A writable one counts as a change.
    ///
    /// As long as the file is direct, the lease holds it so. One of a file that is buffered holds nothing: a touch tells the program to
    /// map the file as the host does.
    pub fn lease(
        self: &Arc<Self>,
        node: &Node,
        lessee: Arc<dyn Lessee>,
        options: LeaseOptions,
    ) -> Result<Lease> {
        ensure(node.kind() == Kind::File, Errno::INVAL)?;
        ensure(self.can_be_attached(), Errno::OPNOTSUPP)?;
        if options.writable {
            let flags = node.inode().read()?.flags();
            ensure(!flags.intersects(Flags::IMMUTABLE | Flags::APPEND), Errno::PERM)?;
            self.note_content_changed(node)?;
        }
        let mut state = node.inode().write()?;
        if options.writable {
            // Whoever was told that nobody stores to it asks again.
            recall_data(&mut state, DataRight::Write, None);
        }
        self.add_lease(node, state, lessee, options, Use::Mapping)
    }

    /// Adds a lease of a file whose lock is handed over.
    fn add_lease(
        &self,
        node: &Node,
        mut state: StateWriteGuard<'_>,
        lessee: Arc<dyn Lessee>,
        options: LeaseOptions,
        purpose: Use,
    ) -> Result<Lease> {
        let holder = self.hold_direct(node, state.flags(), purpose, options);
        if options.sync {
            let is_synchronous = holder.is_some() && self.domain().domain.is_durable_on_fence();
            if let Some(holder) = holder.filter(|_| !is_synchronous) {
                self.holders.release(node.ino(), holder);
            }
            ensure(is_synchronous, Errno::OPNOTSUPP)?;
        }
        let id = self.last_lease.fetch_add(1, Ordering::Relaxed) + 1;
        state.leases.push(Leased {
            id,
            purpose,
            lessee,
            fs: Arc::downgrade(node.fs()),
            writable: options.writable,
            sync: options.sync,
            holder,
            epoch: 0,
            blocks: Bounds::default(),
            stored: Bounds::default(),
            zeroes: Bounds::default(),
            met_end: false,
            data: DataRight::None,
            asked: Vec::new(),
        });
        Ok(Lease { node: node.clone(), id, purpose, options })
    }

    /// Holds a file, whose lock the caller has, for a program, if it is direct.
    fn hold_direct(&self, node: &Node, flags: Flags, purpose: Use, options: LeaseOptions) -> Option<u64> {
        let ino = node.ino();
        let (wanted, _) = self.dax_rules.wanted(flags);
        let kind = match purpose {
            Use::Mapping => HolderKind::Mapping { sync: options.sync },
            Use::Data => HolderKind::Io,
        };
        let (holder, effect) = self.holders.add(ino, wanted, Holder { kind, pid: options.pid });
        if effect == Effect::Buffered {
            self.holders.release(ino, holder);
            return None;
        }
        node.inode().was_direct.store(true, Ordering::Release);
        Some(holder)
    }
}

impl Fs {
    /// Whether programs can map the medium by themselves, in single pages and with no cache in between.
    pub fn can_be_attached(&self) -> bool {
        self.domain().domain != Domain::Page && self.volume.medium.maps_single_pages()
    }

    /// A descriptor of the medium, for another process. As long as one is open somewhere, or mapped, the volume cannot be
    /// opened again to write.
    pub fn share_medium(&self, writable: bool) -> Result<OwnedFd> {
        Ok(self.volume.medium.share(writable)?)
    }

    /// The inode number of the medium's file or device on the host, as lists of mappings show it.
    pub fn medium_inode(&self) -> Result<u64> {
        Ok(self.volume.medium.host_inode()?)
    }
}

impl Lease {
    /// The file.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its number, by which recalls name it: unique as long as the volume is open.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file's number.
    pub fn ino(&self) -> Ino {
        self.node().ino()
    }

    /// How it was asked for.
    pub fn options(&self) -> LeaseOptions {
        self.options
    }

    /// If the file is direct, holds it so. If it is not: nothing that is on the medium may be granted; gives the number of recalls so
    /// far.
    pub(crate) fn renounce_unless_direct(&self, locked: &mut LockedInode<'_>) -> Result<Option<u64>> {
        let flags = locked.flags();
        let leased = find(&mut locked.state, self.id)?;
        if leased.holder.is_none() {
            leased.holder = self.node.fs().hold_direct(&self.node, flags, self.purpose, self.options);
        }
        Ok(leased.holder.is_none().then_some(leased.epoch))
    }

    /// Notes what is granted; nothing, if the touched page lies beyond the end. Gives the number of recalls so far.
    pub(crate) fn note(&self, state: &mut InodeState, parts: &[Part]) -> Result<u64> {
        let leased = find(state, self.id)?;
        leased.met_end |= parts.is_empty();
        for part in parts {
            let bounds = Bounds::of(part);
            match part.what {
                What::Medium(_) => {
                    leased.blocks.add(bounds);
                    if self.options.writable {
                        leased.stored.add(bounds);
                    }
                }
                What::Zeroes => leased.zeroes.add(bounds),
            }
        }
        Ok(leased.epoch)
    }

    /// Whether it holds its file direct now.
    pub fn is_direct(&self) -> bool {
        let mut state = self.node().inode().state.write();
        state.keep_glimpse();
        find(&mut state, self.id).is_ok_and(|leased| leased.holder.is_some())
    }

    /// Settles what the program has appended: it does not any more.
    fn end_tail(&self) -> Result<()> {
        let mut locked = LockedInode::lock_beside_data(self.node().inode())?;
        if locked.state.tail.is_some_and(|tail| tail.lease == self.id) {
            self.node().fs().settle_tail(&mut locked)?;
        }
        Ok(())
    }

    /// Makes what the program has stored durable, and notes that it has changed the file.
    pub fn note_change(&self) -> Result<()> {
        let node = self.node();
        node.fs().flush_mapped(node, |leased| leased.id == self.id)?;
        node.fs().note_content_changed(node)
    }
}

fn find(state: &mut InodeState, id: u64) -> Result<&mut Leased> {
    Ok(state.leases.iter_mut().find(|leased| leased.id == id).ok_or(Errno::STALE)?)
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = self.node().fs().flush_mapped(self.node(), |leased| leased.id == self.id) {
            // The medium has failed; the volume is read-only, or gone.
            tracing::warn!(ino = self.ino().0, %error, "what was stored to a mapping was not made durable");
        }
        if self.purpose == Use::Data
            && let Err(error) = self.end_tail()
        {
            tracing::warn!(ino = self.ino().0, %error, "what a program has appended could not be settled; the next open does it");
        }
        let mut state = self.node().inode().state.write();
        let holder = find(&mut state, self.id).ok().and_then(|leased| leased.holder.take());
        state.leases.retain(|leased| leased.id != self.id);
        state.keep_glimpse();
        drop(state);
        if let Some(holder) = holder {
            self.node().fs().holders.release(self.ino(), holder);
        }
        // Who writes by itself has told the time before.
        if self.options.writable
            && self.purpose == Use::Mapping
            && let Err(error) = self.note_change()
        {
            tracing::warn!(ino = self.ino().0, %error, "the time of a change by a mapping was not stored");
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("ino", &self.ino()).field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Bounds;

    const fn bounds(from: u64, to: u64) -> Bounds {
        Bounds { from, to }
    }

    #[test]
    fn bounds_hold_all_that_was_added() {
        let mut sum = Bounds::default();
        assert!(!sum.meets(bounds(0, u64::MAX)));
        sum.add(bounds(5, 7));
        sum.add(bounds(0, 0));
        assert_eq!(sum, bounds(5, 7));
        sum.add(bounds(10, 12));
        assert_eq!(sum, bounds(5, 12));
        assert!(sum.meets(bounds(11, u64::MAX)) && !sum.meets(bounds(12, 20)) && !sum.meets(bounds(0, 5)));
    }

    #[test]
    fn what_is_removed_leaves_no_less_than_the_rest() {
        for (removed, left) in [
            (bounds(0, 10), Bounds::default()),
            (bounds(3, 7), Bounds::default()),
            (bounds(0, 4), bounds(4, 7)),
            (bounds(6, 100), bounds(3, 6)),
            (bounds(4, 5), bounds(3, 7)),
            (bounds(7, 9), bounds(3, 7)),
        ] {
            let mut rest = bounds(3, 7);
            rest.remove(removed);
            assert_eq!(
                (rest.is_empty(), !rest.is_empty() && rest != left),
                (left.is_empty(), false),
                "{removed:?}: {rest:?}"
            );
        }
    }
}
