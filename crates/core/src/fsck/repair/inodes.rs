//! Remedies for an inode by itself.

use lodefs_layout::inode::{InodeSlot, SLOT_SIZE};
use lodefs_layout::{BLOCK_SIZE, FILE_SIZE_MAX};
use zerocopy::FromZeros;
use zerocopy::little_endian::{U32, U64};

use super::Repair;
use crate::blob;
use crate::error::{Error, Result};
use crate::extents::store;
use crate::fsck::finding::{Code, Place, Value};
use crate::fsck::inodes::{NOBODY, without_unused};
use crate::inode::SetTimes;
use crate::tx::Tx;
use crate::types::{Flags, Ino, Kind, S_IFMT, S_PERM};
use crate::xattr_set::XattrSet;

const _: () = assert!(size_of::<InodeSlot>() == SLOT_SIZE);

impl Repair {
    /// Applies the remedy for a finding about an inode.
    pub(super) fn apply_to_inode(&mut self, ino: Ino, code: Code, place: &Place) -> Result<()> {
        match (code, place) {
            // Any change seals it again.
            (Code::InodeChecksum, Place::Plausible(true)) => self.edit_inode(ino, |_| {}),
            (Code::InodeChecksum | Code::InodeType | Code::InodeFreeSlot | Code::SymlinkTarget, _) => {
                self.edit_inode(ino, |slot| clear(ino, slot))
            }
            (Code::InodeValue, Place::Value(value)) => self.replace_value(ino, *value),
            (Code::RootMissing, _) => self.make_root(),
            (Code::XattrBlob | Code::XattrContent, _) => self.edit_inode(ino, |slot| {
                slot.xattr_block = U64::ZERO;
                slot.xattr_size = U32::ZERO;
            }),
            (Code::XattrName | Code::XattrAcl, Place::Attribute(name)) => self.drop_attribute(ino, name),
            (Code::ExtentCount, Place::Number(count)) => {
                self.edit_inode(ino, |slot| slot.extents = U32::new(*count as u32))
            }
            (Code::ExtentChain | Code::ExtentChecksum | Code::ExtentRange | Code::ExtentOverlap, place) => {
                self.drop_extent(ino, place)
            }
            (Code::BlocksShared, Place::Shared { logical, run, with_metadata }) => {
                self.part_with(ino, *logical, *run, *with_metadata)
            }
            (Code::DirParent, Place::Target(parent)) => {
                self.edit_inode(ino, |slot| slot.parent = U64::new(parent.0))
            }
            (Code::LinkCount, Place::Number(links)) => {
                self.edit_inode(ino, |slot| slot.links = U32::new(*links as u32))
            }
            (Code::DirSize, Place::Number(size)) => self.edit_inode(ino, |slot| slot.size = U64::new(*size)),
            (Code::BlockCount, Place::Number(blocks)) => {
                self.edit_inode(ino, |slot| slot.blocks = U64::new(*blocks))
            }
            (Code::DirUnreachable | Code::InodeUnreachable, _) => self.move_to_lost_found(ino),
            (Code::Orphan | Code::OrphanKept, _) => self.fs.reclaim_orphan(ino),
            (Code::TailLeft, _) => self.fs.forget_tail(&self.fs.node(ino)?),
            (code, place) => unreachable!("{code} is no finding about an inode with {place:?}"),
        }
    }

    fn replace_value(&self, ino: Ino, value: Value) -> Result<()> {
        let slot = self.inode(ino)?;
        let size = if value == Value::Size { self.size_by_extents(ino, &slot)? } else { 0 };
        self.edit_inode(ino, |slot| match value {
            Value::Mode => slot.mode = U32::new(slot.mode.get() & (S_IFMT | S_PERM)),
            Value::Times => {
                for ns in &mut slot.times_ns {
                    *ns = U32::new(ns.get().min(999_999_999));
                }
            }
            Value::Size => slot.size = U64::new(size),
            Value::XattrSize => slot.xattr_size = U32::ZERO,
            Value::Flags => slot.xflags = U32::new(slot.xflags.get() & Flags::all().bits()),
            Value::Owner => {
                for number in [&mut slot.uid, &mut slot.gid] {
                    if number.get() == NOBODY {
                        *number = U32::ZERO;
                    }
                }
            }
            Value::Unused => {
                if let Some(kind) = Kind::from_mode(slot.mode.get()) {
                    *slot = without_unused(kind, slot);
                }
            }
        })
    }

    /// A size that covers all extents of a file, as far as they can be read.
    fn size_by_extents(&self, ino: Ino, slot: &InodeSlot) -> Result<u64> {
        match store::load(&self.fs.volume, ino, slot) {
            Ok(map) => {
                let end = map.iter().last().map_or(0, |extent| extent.logical_end());
                Ok(end.saturating_mul(BLOCK_SIZE).min(FILE_SIZE_MAX))
            }
            Err(Error::Corrupt { .. }) => Ok(FILE_SIZE_MAX),
            Err(error) => Err(error),
        }
    }

    fn drop_attribute(&self, ino: Ino, name: &[u8]) -> Result<()> {
        let volume = &self.fs.volume;
        let slot = self.inode(ino)?;
        let content = blob::read(volume, ino, slot.xattr_block.get(), slot.xattr_size.get() as usize)?;
        let fault = "its attributes make no sense";
        let freed = blob::run(0, content.len()).blocks;
        let mut set = XattrSet::decode(content).map_err(|_| Error::corrupt_inode(ino, fault))?;
        // Gone already if its name was wrong and its value too.
        let _ = set.remove(name);
        let mut tx = Tx::begin(&self.fs)?;
        let (block, size) = if set.is_empty() {
            (0, 0)
        } else {
            let bytes = set.encoded();
            (blob::write(&mut tx, volume, ino, bytes)?.start, bytes.len())
        };
        let added = if size == 0 { 0 } else { blob::run(0, size).blocks };
        self.edit_inode_in(&mut tx, ino, |slot| {
            slot.xattr_block = U64::new(block);
            slot.xattr_size = U32::new(size as u32);
            slot.blocks = U64::new(slot.blocks.get().saturating_sub(freed).saturating_add(added));
        })?;
        tx.commit()
    }

    fn make_root(&self) -> Result<()> {
        let now = self.fs.clock.fine();
        self.edit_inode(Ino::ROOT, |slot| {
            clear(Ino::ROOT, slot);
            slot.generation = U32::new(slot.generation.get().wrapping_add(1));
            slot.mode = U32::new(Kind::Directory.mode_bits() | 0o755);
            slot.links = U32::new(2);
            slot.parent = U64::new(Ino::ROOT.0);
            slot.set_atime(now);
            slot.set_mtime(now);
            slot.set_ctime(now);
            slot.set_btime(now);
        })
    }
}

/// Makes the slot of an inode free.
fn clear(ino: Ino, slot: &mut InodeSlot) {
    let generation = slot.generation;
    *slot = InodeSlot::new_zeroed();
    slot.ino = U64::new(ino.0);
    slot.generation = generation;
}
