//! Attributes: reading and changing them.

use lodefs_layout::FILE_SIZE_MAX;
use rustix::io::Errno;
use zerocopy::little_endian::U32;

use super::locked::LockedInode;
use super::xattr;
use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::{InodeState, Node, SetTimes, attr_of};
use crate::tx::Tx;
use crate::types::{Attr, Flags, Kind, OpenIntent, S_ISGID, S_ISUID, S_IXGRP, SetAttr, SetTime, Writer};

impl Fs {
    /// The attributes of an inode.
    pub fn attr(&self, node: &Node) -> Result<Attr> {
        let state = node.inode().read()?;
        node.inode().note_times_seen();
        let attr = attr_of(&state.slot);
        if state.tail.is_none() {
            return Ok(attr);
        }
        Ok(Attr { size: self.size_of(&state)?, ..attr })
    }

    /// Whether an inode may be opened like this: the rules of immutable and append-only files. It does not truncate.
    pub fn check_open(&self, node: &Node, intent: OpenIntent) -> Result<()> {
        let state = node.inode().read()?;
        let changes = intent.write || intent.truncate;
        if changes {
            self.check_writable()?;
        }
        ensure(!(changes && state.kind() == Kind::Directory), Errno::ISDIR)?;
        let flags = state.flags();
        ensure(!(changes && flags.contains(Flags::IMMUTABLE)), Errno::PERM)?;
        let appends_only = !intent.truncate && (intent.append || !intent.write);
        ensure(appends_only || !flags.contains(Flags::APPEND), Errno::PERM)
    }

    /// Changes attributes, and returns them as they are then. Changing the owner drops set-id bits and capabilities.
    pub fn set_attr(&self, node: &Node, change: &SetAttr) -> Result<Attr> {
        let tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock(self, node.inode())?;
        check_flags(&locked, change)?;
        if let Some(size) = change.size.filter(|size| *size <= FILE_SIZE_MAX && locked.kind() == Kind::File) {
            self.leave_reached_block(&mut locked, size)?;
        }
        let old_size = locked.slot.size.get();
        let mut result = self.change_attr(tx, &mut locked, change);
        if result.is_ok() && locked.slot.size.get() < old_size {
            result = self.clear_mapped_tail(&mut locked);
        }
        if result.is_err() && change.size.is_some() {
            locked.state.extents = None;
        }
        result?;
        node.inode().note_times_seen();
        Ok(attr_of(&locked.slot))
    }

    /// Changes attributes. If that fails, the extents in memory may be wrong.
    fn change_attr(&self, mut tx: Tx<'_>, locked: &mut LockedInode<'_>, change: &SetAttr) -> Result<()> {
        let now = locked.now(self);
        if let Some(perm) = change.perm {
            xattr::change_perm(&mut tx, &self.volume, &mut locked.slot, perm)?;
        }
        let changes_owner = change.uid.is_some() || change.gid.is_some();
        if let Some(uid) = change.uid {
            locked.slot.uid = U32::new(uid);
        }
        if let Some(gid) = change.gid {
            locked.slot.gid = U32::new(gid);
        }
        let takes = changes_owner || change.size.is_some() || change.writer != Writer::Privileged;
        if takes && locked.kind() != Kind::Directory && change.perm.is_none() {
            let writer = match change.writer {
                // Nobody keeps the bits of a file for another owner.
                Writer::Privileged if changes_owner => Writer::Member,
                writer => writer,
            };
            self.drop_privileges(&mut tx, locked, writer)?;
        }
        if let Some(size) = change.size {
            self.change_size(&mut tx, locked, size)?;
            if keeps_size(locked, change) {
                return locked.commit(tx);
            }
            locked.slot.set_mtime(now);
        }
        let given = |time| match time {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        if let Some(atime) = change.atime {
            locked.slot.set_atime(given(atime));
        }
        if let Some(mtime) = change.mtime {
            locked.slot.set_mtime(given(mtime));
        }
        locked.slot.set_ctime(now);
        locked.commit(tx)
    }

    /// Takes away what lets a program run with more rights than its user has.
    pub(super) fn drop_privileges(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut LockedInode<'_>,
        writer: Writer,
    ) -> Result<()> {
        locked.slot.mode = U32::new(writer.keeps_of(locked.slot.mode.get()));
        xattr::drop_capability(tx, &self.volume, &mut locked.slot)
    }

    /// Takes from a file what a change of its content by this writer takes. For changes that do not do so themselves
    /// ([`Fs::fallocate`], [`Fs::copy_range`]).
    pub fn take_privileges(&self, node: &Node, writer: Writer) -> Result<()> {
        let loses = |state: &mut InodeState| self.loses_privileges(state, writer);
        if !loses(&mut *node.inode().write()?) {
            return Ok(());
        }
        let mut tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock(self, node.inode())?;
        self.drop_privileges(&mut tx, &mut locked, writer)?;
        let now = locked.now(self);
        locked.slot.set_ctime(now);
        locked.commit(tx)
    }

    /// As whom a process changes a file. The questions are asked only if the file has set-id bits: whether the process
    /// has `CAP_FSETID`, and whether it belongs to a group.
    pub fn writer(
        &self,
        node: &Node,
        has_fsetid: impl FnOnce() -> bool,
        is_in_group: impl FnOnce(u32) -> bool,
    ) -> Result<Writer> {
        let (mode, gid) = {
            let state = node.inode().read()?;
            (state.slot.mode.get(), state.slot.gid.get())
        };
        if !has_set_id(mode) || has_fsetid() {
            return Ok(Writer::Privileged);
        }
        let asks = mode & S_ISGID != 0 && mode & S_IXGRP == 0;
        Ok(if asks && is_in_group(gid) { Writer::Member } else { Writer::Stranger })
    }
}

/// Whether a mode has bits that let a program run as another user or group.
pub(crate) fn has_set_id(mode: u32) -> bool {
    mode & (S_ISUID | S_ISGID) != 0
}

/// Whether a file is truncated, by its path, to the size it has: its times then stay, as on XFS.
fn keeps_size(locked: &LockedInode<'_>, change: &SetAttr) -> bool {
    let size = locked.state.slot.size.get();
    let only_size = SetAttr { size: Some(size), writer: change.writer, ..SetAttr::default() };
    *change == only_size && locked.kind() == Kind::File
}

/// The rules of immutable and append-only inodes for a change of attributes.
fn check_flags(locked: &LockedInode<'_>, change: &SetAttr) -> Result<()> {
    let flags = locked.flags();
    let names_nothing =
        SetAttr { by_handle: false, writer: Writer::Privileged, ..*change } == SetAttr::default();
    if names_nothing {
        // chown(-1, -1), which is how programs ask whether they may.
        return Ok(());
    }
    // Both times at once, to now, is what touch does, and no more than a write could do.
    let sets_times =
        !matches!((change.atime, change.mtime), (None, None) | (Some(SetTime::Now), Some(SetTime::Now)));
    let only_size = change.perm.is_none() && change.uid.is_none() && change.gid.is_none() && !sets_times;
    if flags.contains(Flags::IMMUTABLE) {
        // A file that was opened before the flag was set can still be truncated, as on XFS.
        let through_handle = change.by_handle && change.size.is_some() && only_size;
        ensure(through_handle, Errno::PERM)?;
    }
    if flags.contains(Flags::APPEND) {
        ensure(only_size && change.size.is_none(), Errno::PERM)?;
    }
    Ok(())
}
