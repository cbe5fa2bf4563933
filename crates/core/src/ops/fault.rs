//! Faults of direct mappings: what is granted to a program that has touched a page.
//!
//! A touch for reading allocates nothing; one for writing fills holes with zeroed blocks, which are committed before they are
//! granted. So whoever stores to a mapping finds what he stored by what is durable already: a crash can take back the store,
//! but never the block under it.

use lodefs_layout::{BLOCK_SIZE, FILE_SIZE_MAX};
use rustix::io::Errno;

use super::locked::LockedInode;
use super::read::loaded;
use super::tail::Tail;
use crate::error::{Error, Result, ensure};
use crate::extents::map::Edits;
use crate::fs::Fs;
use crate::inode::{InodeState, Node};
use crate::lease::{Bounds, DataRight, Grant, Lease, Part, Touch, Touched, What, recall_data};
use crate::tx::{Tx, offset_of};
use smallvec::SmallVec;

/// Parts that one touch is answered with at most.
pub const PARTS_MAX: usize = 16;
/// Most bytes of a hole that one touch may decide.
const WINDOW_MAX: u64 = 2 << 20;
/// Behind the last byte that can be mapped: whole blocks of the largest file, as far as they can be numbered.
const MAPPED_MAX: u64 = FILE_SIZE_MAX.next_multiple_of(BLOCK_SIZE);

impl Lease {
    /// Answers a touch: `deliver` is called with what may be mapped, once, while nothing of it can be recalled. NOSPC if a hole
    /// cannot be filled, INVAL if the touch makes no sense.
    pub fn touch(&self, touch: &Touch, deliver: impl FnOnce(Touched)) -> Result<()> {
        let node = self.node();
        let fs = node.fs();
        ensure(touch.is_sensible() && (self.options().writable || !touch.write), Errno::INVAL)?;
        if touch.write {
            fs.check_writable()?;
        }
        let mut locked = LockedInode::lock_beside_data(node.inode())?;
        let appended = fs.settle_for_touch(&mut locked, touch)?;
        if locked.state.is_switching {
            deliver(Touched::Switching);
            return Ok(());
        }
        if let Some(epoch) = self.renounce_unless_direct(&mut locked)? {
            deliver(Touched::Buffered { epoch });
            return Ok(());
        }
        if self.options().writable && locked.state.cached.is_there() {
            deliver(Touched::Cached);
            return Ok(());
        }
        let window = touch.window();
        let filled = fs.answer(&mut locked, touch, window, appended);
        if filled.is_err() {
            locked.forget_changes();
        }
        let granted = filled?;
        let epoch = self.note(&mut locked.state, &granted)?;
        deliver(if granted.is_empty() {
            Touched::BeyondEnd { epoch }
        } else {
            Touched::Granted(Grant { epoch, parts: granted })
        });
        Ok(())
    }
}

impl Fs {
    /// What may be granted for a touch; nothing, if it lies beyond the end. `appended`: the blocks of a file that has a tail.
    fn answer(
        &self,
        locked: &mut LockedInode<'_>,
        touch: &Touch,
        window: Bounds,
        appended: Option<u64>,
    ) -> Result<SmallVec<[Part; 4]>> {
        locked.state.extents(&self.volume, locked.inode.ino)?;
        let end = appended.unwrap_or(locked.slot.size.get().div_ceil(BLOCK_SIZE));
        let block = touch.offset / BLOCK_SIZE;
        if block >= end {
            return Ok(SmallVec::new());
        }
        let window = Bounds { from: window.from, to: window.to.min(end) };
        if touch.write {
            self.fill(locked, block, window)?;
        }
        let most = Bounds { from: touch.from / BLOCK_SIZE, to: (touch.to / BLOCK_SIZE).min(end) };
        let parts = parts(&locked.state, block, window, most, !touch.write);
        if appended.is_none() {
            self.clear_tail(&locked.state, &parts)?;
        }
        Ok(parts)
    }

    /// Settles the tail of a file, if it has one, because the last page shows where the file ends. Whole blocks before that are there for good,
    /// whoever appends: if they are enough for a touch, it stays, and how many they are is returned.
    fn settle_for_touch(&self, locked: &mut LockedInode<'_>, touch: &Touch) -> Result<Option<u64>> {
        let Some(tail) = locked.state.tail else { return Ok(None) };
        let appended = self.size_of(&locked.state)? / BLOCK_SIZE;
        if touch.write || touch.offset / BLOCK_SIZE >= appended {
            recall_data(&mut locked.state, DataRight::Write, None);
            self.settle_tail(locked)?;
            return Ok(None);
        }
        // They are not freed from now on, whatever the program makes of the word.
        locked.state.tail = Some(Tail { shown: appended, ..tail });
        Ok(Some(appended))
    }

    /// Gives the touched block, if it is in a hole, and the hole around it, blocks. Notes the change in any case.
    fn fill(&self, locked: &mut LockedInode<'_>, block: u64, window: Bounds) -> Result<()> {
        let map = loaded(&locked.state);
        let hole = match map.find(block) {
            Ok(_) => return self.fill_range(locked, Bounds::default()),
            Err(after) => Bounds {
                from: map.neighbours(block).0.map_or(0, |before| before.logical_end()).max(window.from),
                to: block.saturating_add(after).min(window.to),
            },
        };
        match self.fill_range(locked, hole) {
            Err(Error::Refused(Errno::NOSPC)) if hole.to - hole.from > 1 => {
                // What was asked for may still be there.
                locked.forget_changes();
                self.fill_range(locked, Bounds { from: block, to: block + 1 })
            }
            outcome => outcome,
        }
    }

    /// Gives a range of hole, which may be empty, blocks.
    fn fill_range(&self, locked: &mut LockedInode<'_>, hole: Bounds) -> Result<()> {
        let mut tx = Tx::begin(self)?;
        let mut edits = Edits::new();
        if !hole.is_empty() {
            self.allocate_batch(&mut tx, locked, hole.from, hole.to, &mut edits)?;
            self.put_extents(&mut tx, locked, &edits, false)?;
        }
        let now = locked.now(self);
        locked.touch_content(now);
        locked.commit(tx)
    }

    /// Takes back from all programs what they read and write of a file by themselves. They may ask for it again.
    pub fn take_back_data(&self, node: &Node) -> Result<()> {
        LockedInode::lock(self, node.inode()).map(drop)
    }

    /// Notes that the content has changed by stores of a program.
    pub(crate) fn note_content_changed(&self, node: &Node) -> Result<()> {
        let tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock_beside_data(node.inode())?;
        let now = locked.now(self);
        locked.touch_content(now);
        locked.commit(tx)
    }

    /// After the file was made shorter: what was in its last block beyond the end goes, if somebody has mapped that block.
    pub(super) fn clear_mapped_tail(&self, locked: &mut LockedInode<'_>) -> Result<()> {
        if locked.state.leases.is_empty() {
            return Ok(());
        }
        locked.state.extents(&self.volume, locked.inode.ino)?;
        let block = locked.state.slot.size.get() / BLOCK_SIZE;
        let last = Bounds { from: block, to: block + 1 };
        self.clear_tail(&locked.state, &parts(&locked.state, block, last, last, false))
    }

    /// The last block of the file holds anything behind the end, which a mapping would show: it becomes zeroes.
    fn clear_tail(&self, state: &InodeState, parts: &[Part]) -> Result<()> {
        let size = state.slot.size.get();
        let within = size % BLOCK_SIZE;
        let last = parts.iter().find(|part| part.offset < size && size < part.offset + part.size);
        let Some(Part { offset, what: What::Medium(at), .. }) = last else { return Ok(()) };
        if within == 0 || self.is_read_only() {
            return Ok(());
        }
        let cleared = self.volume.medium.zero(at + (size - offset), BLOCK_SIZE - within)?;
        let _in_order = self.volume.medium.fence(cleared)?;
        Ok(())
    }
}

impl Touch {
    /// Whether it can come from a mapping of whole pages.
    fn is_sensible(&self) -> bool {
        let aligned = self.from.is_multiple_of(BLOCK_SIZE) && self.to.is_multiple_of(BLOCK_SIZE);
        let window = self.window.is_power_of_two() && (BLOCK_SIZE..=WINDOW_MAX).contains(&self.window);
        aligned && window && self.from <= self.offset && self.offset < self.to && self.to <= MAPPED_MAX
    }

    /// The blocks that may be decided with the touched one.
    fn window(&self) -> Bounds {
        let from = self.offset - self.offset % self.window;
        let to = from + self.window;
        Bounds { from: from.max(self.from) / BLOCK_SIZE, to: to.min(self.to) / BLOCK_SIZE }
    }
}

/// The part of the file that `block` is in, and what follows in the window.
pub(crate) fn parts(
    state: &InodeState,
    block: u64,
    window: Bounds,
    most: Bounds,
    shows_holes: bool,
) -> SmallVec<[Part; 4]> {
    let map = loaded(state);
    let mut parts = SmallVec::new();
    let mut next = block;
    while next < window.to && parts.len() < PARTS_MAX {
        let (from, to, what) = if let Some(extent) = map.extent_at(next) {
            let from = extent.logical.max(most.from);
            let at = offset_of(extent.physical + (from - extent.logical));
            (from, extent.logical_end().min(most.to), Some(What::Medium(at)))
        } else {
            let (before, behind) = map.neighbours(next);
            let from = before.map_or(0, |before| before.logical_end());
            let to = behind.map_or(u64::MAX, |behind| behind.logical);
            (from.max(window.from), to.min(window.to), shows_holes.then_some(What::Zeroes))
        };
        if let Some(what) = what {
            parts.push(Part { offset: from * BLOCK_SIZE, size: (to - from) * BLOCK_SIZE, what });
        }
        next = to;
    }
    parts
}
