//! Data leases: programs that read and write a file's bytes by themselves.
//!
//! A [`DataLease`] says where the bytes of a direct file are, and how many there are, and lends the lock of its content: many may
//! read, or one may read and write. Whoever else wants to do more takes it back first, so that reads and writes are as atomic as
//! if all were done here: a read here takes it from a writer, a change from everybody.
//!
//! What a program has does not move, because whatever changes an inode locks it with [`LockedInode::lock`], which takes data leases
//! back. The few operations that leave content, size and rights alone, and may happen beside them, say so
//! ([`LockedInode::lock_beside_data`]).
//!
//! A program writes only to blocks that the file has, or that are reserved for it behind the end ([`DataLease::reserve`], `ops::tail`), and
//! makes that durable itself: a crash can tear it at any 8 bytes, as it can an overwrite by the engine. It tells the time of a change
//! before the first of each tick of the clock ([`DataLease::note_change`]).

use lodefs_layout::{BLOCK_SIZE, FILE_SIZE_MAX};
use rustix::io::Errno;
use smallvec::SmallVec;

use super::recall::recall_data;
use super::{Bounds, Lease, LeaseOptions, Lessee, Part, Use, What};
use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::{InodeState, Node};
use crate::ops::attr::has_set_id;
use crate::ops::fault::parts;
use crate::ops::locked::LockedInode;
use crate::ops::xattr;
use crate::types::{Flags, Kind};
use lodefs_sync::Arc;

/// What a program may do with the content of a file, until it is recalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataRight {
    /// Nothing.
    #[default]
    None,
    /// Read it. Nobody changes it meanwhile but by mappings.
    Read,
    /// Read and change what has blocks. Nobody else does meanwhile but by mappings.
    Write,
}

/// What a program is told when it asks for content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataAnswer {
    /// It may go ahead.
    Granted(DataGrant),
    /// The file is not direct.
    Buffered,
    /// The file is just being switched.
    Switching,
    /// What is kept of the content has to be dropped first ([`Fs::drop_cached`]).
    Cached,
}

/// Content that a program may use, until it is recalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataGrant {
    /// Recalls that the lease had seen when it was given. It is void if there has been one since.
    pub epoch: u64,
    /// What it may do; at least what it has asked for.
    pub right: DataRight,
    /// Bytes of the file. Parts may reach further.
    pub size: u64,
    /// Nobody may store to it by a mapping: what is in the file is durable, as far as the medium can.
    pub is_settled: bool,
    /// Ascending and without gaps, in whole blocks, from the one on that was asked for; not all, if there are many.
    pub parts: SmallVec<[Part; 4]>,
    /// How it may append.
    pub tail: Option<TailGrant>,
}

/// How a program appends by itself: it stores bytes behind the end, makes them durable, and then replaces the word that has the file's size,
/// a little-endian number, if it is still what it was, and makes that durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailGrant {
    /// Where the word is on the medium.
    pub word: u64,
    /// Bytes that the file can have then.
    pub end: u64,
}

/// A file of which a program uses the content. Dropping it tells that it does not any more, or is gone.
#[derive(Debug)]
pub struct DataLease(Lease);

impl Fs {
    /// Lets a program ask for the content of a file. Errors as for [`Fs::lease`], but nothing counts as a change.
    pub fn lease_data(
        self: &Arc<Self>,
        node: &Node,
        lessee: Arc<dyn Lessee>,
        writable: bool,
        pid: u32,
    ) -> Result<DataLease> {
        ensure(node.kind() == Kind::File, Errno::INVAL)?;
        ensure(self.can_be_attached(), Errno::OPNOTSUPP)?;
        let options = LeaseOptions { writable, sync: false, pid };
        let state = node.inode().write()?;
        Ok(DataLease(self.add_lease(node, state, lessee, options, Use::Data)?))
    }
}

impl DataLease {
    /// The file.
    pub fn node(&self) -> &Node {
        self.0.node()
    }

    /// Its number, by which recalls name it: unique as long as the volume is open.
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// Answers a program that asks for what is at byte `offset`: `deliver` is called with the answer, once, while nothing of it can be
    /// recalled. INVAL if it may not write, or nobody can be there; PERM if a write has to do more than to change bytes.
    pub fn take(&self, offset: u64, write: bool, deliver: impl FnOnce(DataAnswer)) -> Result<()> {
        self.answer(offset, write, None, deliver)
    }

    /// The same for a program that is to append up to byte `end`: blocks are reserved for that. PERM also if the file has blocks behind its
    /// end already; NOSPC.
    pub fn reserve(&self, offset: u64, end: u64, deliver: impl FnOnce(DataAnswer)) -> Result<()> {
        self.answer(offset, true, Some(end), deliver)
    }

    fn answer(
        &self,
        offset: u64,
        write: bool,
        reserved_to: Option<u64>,
        deliver: impl FnOnce(DataAnswer),
    ) -> Result<()> {
        let (node, lease) = (self.0.node(), &self.0);
        let fs = node.fs();
        ensure(lease.options().writable || !write, Errno::INVAL)?;
        ensure(offset < FILE_SIZE_MAX, Errno::INVAL)?;
        if write {
            fs.check_writable()?;
        }
        let mut locked = LockedInode::lock_beside_data(node.inode())?;
        if locked.state.is_switching {
            deliver(DataAnswer::Switching);
            return Ok(());
        }
        if lease.renounce_unless_direct(&mut locked)?.is_some() {
            deliver(DataAnswer::Buffered);
            return Ok(());
        }
        if write && locked.state.cached.is_there() {
            deliver(DataAnswer::Cached);
            return Ok(());
        }
        let is_bound = locked.flags().intersects(Flags::IMMUTABLE | Flags::APPEND)
            || has_set_id(locked.state.slot.mode.get())
            || xattr::has_capability(&fs.volume, &mut locked.state);
        ensure(!write || !is_bound, Errno::PERM)?;
        let right = if write { DataRight::Write } else { DataRight::Read };
        recall_data(&mut locked.state, right, Some(lease.id()));
        // A program may only append while it may write, which a switch takes back too.
        let may_append = super::find(&mut locked.state, lease.id())?.data == DataRight::Write;
        if locked.state.tail.is_some_and(|tail| tail.lease != lease.id() || !may_append) {
            fs.settle_tail(&mut locked)?;
        }
        fs.note_read(&mut locked)?;
        if let Some(end) = reserved_to {
            fs.reserve_tail(&mut locked, lease.id(), end)?;
        }
        let size = fs.size_of(&locked.state)?;
        locked.state.extents(&fs.volume, node.ino())?;
        let tail = locked.state.tail;
        let all = Bounds { from: 0, to: tail.map_or(size.div_ceil(BLOCK_SIZE), |tail| tail.end) };
        let parts = parts(&locked.state, offset / BLOCK_SIZE, all, all, true);
        let (epoch, right) = note(lease, &mut locked.state, right, &parts)?;
        let tail = tail.map(|tail| TailGrant {
            word: tail.word,
            end: tail.end.saturating_mul(BLOCK_SIZE).min(FILE_SIZE_MAX),
        });
        let is_settled = !locked.state.leases.iter().any(super::Leased::may_store);
        deliver(DataAnswer::Granted(DataGrant { epoch, right, size, is_settled, parts, tail }));
        Ok(())
    }

    /// Notes that the program changes the file. It is told before it does.
    pub fn note_change(&self) -> Result<()> {
        let node = self.0.node();
        ensure(self.0.options().writable, Errno::INVAL)?;
        node.fs().check_writable()?;
        node.fs().note_content_changed(node)
    }
}

/// Notes what is granted. Gives the number of recalls so far, and what the lease may do now.
fn note(lease: &Lease, state: &mut InodeState, right: DataRight, parts: &[Part]) -> Result<(u64, DataRight)> {
    let leased = super::find(state, lease.id())?;
    leased.data = leased.data.max(right);
    for part in parts {
        match part.what {
            What::Medium(_) => leased.blocks.add(Bounds::of(part)),
            What::Zeroes => leased.zeroes.add(Bounds::of(part)),
        }
    }
    Ok((leased.epoch, leased.data))
}
