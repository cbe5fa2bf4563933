//! Extended attributes.
//!
//! All attributes of an inode are one blob, replaced as a whole. The two POSIX ACLs are attributes whose change also
//! changes the permissions.

use lodefs_layout::inode::InodeSlot;
use rustix::io::Errno;
use zerocopy::little_endian::{U32, U64};

use super::locked::LockedInode;
use crate::acl::{Acl, AclError};
use crate::blob;
use crate::error::{Error, Result, ensure};
use crate::fs::Fs;
use crate::inode::{InodeState, Node, SetTimes, kind_of};
use crate::tx::Tx;
use crate::types::{Flags, Ino, Kind, S_PERM, XattrMode};
use crate::volume::{Run, Volume};
use crate::xattr_set::{self, XattrSet};

pub(crate) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub(crate) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
/// File capabilities, which go when somebody without privilege changes the file.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

impl Fs {
    /// The value of an attribute. NODATA if there is none of that name.
    pub fn get_xattr(&self, node: &Node, name: &[u8]) -> Result<Vec<u8>> {
        let state = node.inode().read()?;
        check_attribute(name, state.kind())?;
        ensure(state.slot.xattr_block.get() != 0, Errno::NODATA)?;
        let bytes = load_bytes(&self.volume, &state.slot)?;
        let value = xattr_set::find(&bytes, name).map_err(|_| makes_no_sense(&state.slot))?;
        Ok(value.ok_or(Errno::NODATA)?.to_vec())
    }

    /// The names of all attributes, each ended by a zero byte.
    pub fn list_xattr(&self, node: &Node) -> Result<Vec<u8>> {
        let state = node.inode().read()?;
        Ok(load(&self.volume, &state.slot)?.list())
    }

    /// Sets an attribute. An ACL sets the permissions as well.
    pub fn set_xattr(&self, node: &Node, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let mut tx = Tx::begin(self)?;
        let mut locked = lock_for_change(self, node, name)?;
        let mut attributes = load(&self.volume, &locked.slot)?;
        let was_there = attributes.get(name).is_some();
        match name {
            ACL_ACCESS => set_access_acl(&mut locked, &mut attributes, value)?,
            ACL_DEFAULT => set_default_acl(&locked, &mut attributes, value)?,
            _ => attributes.set(name, value, mode)?,
        }
        let is_there = attributes.get(name).is_some();
        if !was_there && !is_there && locked.slot.mode == locked.state.slot.mode {
            // An ACL that says what the mode says, where there is none.
            return Ok(());
        }
        store(&mut tx, &self.volume, &mut locked.slot, &attributes)?;
        let now = locked.now(self);
        locked.slot.set_ctime(now);
        locked.commit(tx)
    }

    /// Removes an attribute. NODATA if there is none of that name.
    pub fn remove_xattr(&self, node: &Node, name: &[u8]) -> Result<()> {
        let mut tx = Tx::begin(self)?;
        let mut locked = lock_for_change(self, node, name)?;
        let mut attributes = load(&self.volume, &locked.slot)?;
        let removed = attributes.remove(name);
        let is_acl = name == ACL_ACCESS || name == ACL_DEFAULT;
        if removed.is_err() && is_acl {
            // Removing the ACL that is not there is how programs make sure that there is none.
            return Ok(());
        }
        removed?;
        store(&mut tx, &self.volume, &mut locked.slot, &attributes)?;
        let now = locked.now(self);
        locked.slot.set_ctime(now);
        locked.commit(tx)
    }
}

fn lock_for_change<'n>(fs: &Fs, node: &'n Node, name: &[u8]) -> Result<LockedInode<'n>> {
    let locked = LockedInode::lock(fs, node.inode())?;
    ensure(!locked.flags().intersects(Flags::IMMUTABLE | Flags::APPEND), Errno::PERM)?;
    check_attribute(name, locked.kind())?;
    Ok(locked)
}

/// Refuses names outside of the known namespaces, and user attributes where Linux has none.
pub(crate) fn check_attribute(name: &[u8], kind: Kind) -> Result<()> {
    ensure(!name.is_empty() && name.len() <= lodefs_layout::NAME_MAX, Errno::RANGE)?;
    if name == ACL_ACCESS || name == ACL_DEFAULT {
        return ensure(kind != Kind::Symlink, Errno::OPNOTSUPP);
    }
    let rest = |prefix: &[u8]| name.strip_prefix(prefix).map(<[u8]>::len);
    if let Some(size) = rest(b"user.") {
        ensure(matches!(kind, Kind::File | Kind::Directory), Errno::PERM)?;
        return ensure(size > 0, Errno::INVAL);
    }
    match rest(b"trusted.").or_else(|| rest(b"security.")) {
        Some(size) => ensure(size > 0, Errno::INVAL),
        None => Err(Errno::OPNOTSUPP.into()),
    }
}

/// The blocks of an inode's attributes.
pub(super) fn run_of(slot: &InodeSlot) -> Option<Run> {
    let block = slot.xattr_block.get();
    (block != 0).then(|| blob::run(block, slot.xattr_size.get() as usize))
}

/// The attributes of an inode.
pub(super) fn load(volume: &Volume, slot: &InodeSlot) -> Result<XattrSet> {
    if slot.xattr_block.get() == 0 {
        return Ok(XattrSet::default());
    }
    XattrSet::decode(load_bytes(volume, slot)?).map_err(|_| makes_no_sense(slot))
}

fn load_bytes(volume: &Volume, slot: &InodeSlot) -> Result<Vec<u8>> {
    blob::read(volume, Ino(slot.ino.get()), slot.xattr_block.get(), slot.xattr_size.get() as usize)
}

fn makes_no_sense(slot: &InodeSlot) -> Error {
    Error::corrupt_inode(Ino(slot.ino.get()), "its attributes make no sense")
}

/// Replaces the attributes of an inode.
pub(super) fn store(
    tx: &mut Tx<'_>,
    volume: &Volume,
    slot: &mut InodeSlot,
    attributes: &XattrSet,
) -> Result<()> {
    let mut blocks = slot.blocks.get();
    if let Some(run) = run_of(slot) {
        tx.free_data(run);
        blocks = blocks.saturating_sub(run.blocks);
    }
    if attributes.is_empty() {
        slot.xattr_block = U64::ZERO;
        slot.xattr_size = U32::ZERO;
    } else {
        let bytes = attributes.encoded();
        let run = blob::write(tx, volume, Ino(slot.ino.get()), bytes)?;
        slot.xattr_block = U64::new(run.start);
        slot.xattr_size = U32::new(bytes.len() as u32);
        blocks += run.blocks;
    }
    slot.blocks = U64::new(blocks);
    Ok(())
}

fn set_access_acl(locked: &mut LockedInode<'_>, attributes: &mut XattrSet, value: &[u8]) -> Result<()> {
    let acl = parse_acl(value)?;
    if let Some(acl) = &acl {
        locked.slot.mode = U32::new(acl.mode(locked.slot.mode.get()));
    }
    replace_acl(attributes, ACL_ACCESS, acl.filter(|acl| !acl.is_mode_only()))
}

fn set_default_acl(locked: &LockedInode<'_>, attributes: &mut XattrSet, value: &[u8]) -> Result<()> {
    ensure(locked.kind() == Kind::Directory, Errno::ACCESS)?;
    replace_acl(attributes, ACL_DEFAULT, parse_acl(value)?)
}

/// The ACL that a program hands over; none, if it is empty.
fn parse_acl(value: &[u8]) -> Result<Option<Acl>> {
    if value.is_empty() {
        return Ok(None);
    }
    Acl::parse(value).map_err(|error| match error {
        AclError::Version(_) => Errno::OPNOTSUPP.into(),
        _ => Errno::INVAL.into(),
    })
}

fn replace_acl(attributes: &mut XattrSet, name: &[u8], acl: Option<Acl>) -> Result<()> {
    match acl {
        Some(acl) => attributes.set(name, &acl.to_bytes(), XattrMode::Set)?,
        None if attributes.get(name).is_some() => attributes.remove(name)?,
        None => {}
    }
    Ok(())
}

/// Sets the permissions, in the mode and in the access ACL if there is one.
pub(super) fn change_perm(tx: &mut Tx<'_>, volume: &Volume, slot: &mut InodeSlot, perm: u32) -> Result<()> {
    slot.mode = U32::new(kind_of(slot).mode_bits() | (perm & S_PERM));
    if slot.xattr_block.get() == 0 {
        return Ok(());
    }
    let mut attributes = load(volume, slot)?;
    let Some(value) = attributes.get(ACL_ACCESS) else { return Ok(()) };
    let damaged = |_| Error::corrupt_inode(Ino(slot.ino.get()), "its ACL makes no sense");
    let Some(mut acl) = Acl::parse(value).map_err(damaged)? else { return Ok(()) };
    acl.chmod(perm);
    attributes.set(ACL_ACCESS, &acl.to_bytes(), XattrMode::Set)?;
    store(tx, volume, slot, &attributes)
}

/// Whether a file has capabilities. Attributes that cannot be read give none to anybody: execve(2) fails on them.
pub(crate) fn has_capability(volume: &Volume, state: &mut InodeState) -> bool {
    if state.slot.xattr_block.get() == 0 {
        return false;
    }
    if let Some(known) = state.has_capability {
        return known;
    }
    let found = load(volume, &state.slot).is_ok_and(|attributes| attributes.get(CAPABILITY).is_some());
    state.has_capability = Some(found);
    found
}

/// Drops file capabilities, if there are any.
pub(super) fn drop_capability(tx: &mut Tx<'_>, volume: &Volume, slot: &mut InodeSlot) -> Result<()> {
    if slot.xattr_block.get() == 0 {
        return Ok(());
    }
    let mut attributes = load(volume, slot)?;
    if attributes.remove(CAPABILITY).is_err() {
        return Ok(());
    }
    store(tx, volume, slot, &attributes)
}
