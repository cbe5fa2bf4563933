//! Which attributes have the operations of a thread changed?
//!
//! A front end lets others remember attributes (the kernel behind a mount does). An operation may change attributes that
//! these others do not expect to change: a write clears set-id bits, a read moves an access time, a program's size is
//! settled. [`noting`] tells the front end of every change that was committed, whatever operation made it.

use std::cell::RefCell;
use std::rc::Rc;

use bitflags::bitflags;
use lodefs_layout::inode::InodeSlot;
use smallvec::SmallVec;

use crate::inode::attr_of;
use crate::types::{Attr, Ino};

bitflags! {
    /// Attributes of an inode that stat(2) shows.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Attributes: u16 {
        /// Permissions, set-id and sticky bits.
        const MODE = 1;
        /// User and group.
        const OWNER = 1 << 1;
        /// Number of links.
        const LINKS = 1 << 2;
        /// Size in bytes.
        const SIZE = 1 << 3;
        /// Space that is used.
        const BLOCKS = 1 << 4;
        /// Time of the last access.
        const ATIME = 1 << 5;
        /// Time of the last change of content.
        const MTIME = 1 << 6;
        /// Time of the last change of anything.
        const CTIME = 1 << 7;
        /// What a change of content moves.
        const CONTENT = Self::SIZE.bits() | Self::BLOCKS.bits() | Self::MTIME.bits() | Self::CTIME.bits();
    }
}

/// What has changed, by inode. An inode may be there more than once.
pub type Changes = SmallVec<[(Ino, Attributes); 4]>;

thread_local! {
    /// The changes that are being noted, if any are.
    static NOTED: RefCell<Option<Changes>> = const { RefCell::new(None) };
    /// Who is told of each change at once.
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// Is told of a change before the inode is unlocked. It must not wait for the engine.
pub type Listener = Rc<dyn Fn(Ino, Attributes)>;

/// Has `listener` told of each change that this thread makes from now on.
///
/// What an operation hands out before it returns (a grant to a program) must come after the news of what it has changed:
/// then [`noting`] is too late.
pub fn listen(listener: Listener) {
    LISTENER.with_borrow_mut(|present| *present = Some(listener));
}

/// Runs `work`, and tells which attributes of which inodes it has changed in this thread. Not to be nested.
pub fn noting<T>(work: impl FnOnce() -> T) -> (T, Changes) {
    NOTED.with_borrow_mut(|noted| *noted = Some(Changes::new()));
    let _end = EndsNoting;
    let outcome = work();
    let changes = NOTED.with_borrow_mut(Option::take).unwrap_or_default();
    (outcome, changes)
}

/// A panic of the work ends the noting, too.
struct EndsNoting;

impl Drop for EndsNoting {
    fn drop(&mut self) {
        NOTED.with_borrow_mut(|noted| *noted = None);
    }
}

/// Notes a change that was committed.
pub(crate) fn note(before: &InodeSlot, after: &InodeSlot) {
    let listener = LISTENER.with_borrow(Clone::clone);
    let is_noting = NOTED.with_borrow(Option::is_some);
    if listener.is_none() && !is_noting {
        return;
    }
    let (before, after) = (attr_of(before), attr_of(after));
    let changed = difference(&before, &after);
    if changed.is_empty() {
        return;
    }
    if let Some(listener) = listener {
        listener(after.ino, changed);
    }
    NOTED.with_borrow_mut(|noted| {
        if let Some(noted) = noted {
            noted.push((after.ino, changed));
        }
    });
}

fn difference(before: &Attr, after: &Attr) -> Attributes {
    let mut changed = Attributes::empty();
    changed.set(Attributes::MODE, before.perm != after.perm);
    changed.set(Attributes::OWNER, (before.uid, before.gid) != (after.uid, after.gid));
    changed.set(Attributes::LINKS, before.links != after.links);
    changed.set(Attributes::SIZE, before.size != after.size);
    changed.set(Attributes::BLOCKS, before.sectors != after.sectors);
    changed.set(Attributes::ATIME, before.atime != after.atime);
    changed.set(Attributes::MTIME, before.mtime != after.mtime);
    changed.set(Attributes::CTIME, before.ctime != after.ctime);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_noted_outside_and_after_a_panic() {
        assert!(std::panic::catch_unwind(|| noting(|| panic!("deliberate"))).is_err());
        NOTED.with_borrow(|noted| assert!(noted.is_none()));
        assert!(noting(|| ()).1.is_empty());
    }
}
