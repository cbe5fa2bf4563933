//! Does an inode make sense by itself?

use lodefs_layout::inode::{INLINE_SIZE, InodeSlot};
use lodefs_layout::{FILE_SIZE_MAX, ROOT_INO};
use zerocopy::IntoBytes;

use super::finding::{Code, Finding, Object, Place, Value};
use super::survey::{DirectoryFacts, Standing, Survey};
use crate::error::Result;
use crate::ops::tail::AllowedTails;
use crate::types::{Flags, Ino, Kind, S_IFMT, S_PERM};

/// What system calls take for "leave it as it is", so that nobody can have this number.
pub(super) const NOBODY: u32 = u32::MAX;

impl Survey<'_> {
    /// First look at a slot: can it be believed, and which metadata does it own?
    pub(super) fn look_at_slot(&mut self, ino: Ino, slot: &InodeSlot) -> Result<()> {
        let standing = self.standing_of(ino, slot);
        let kind = Kind::from_mode(slot.mode.get()).filter(|_| standing == Standing::Good);
        let facts = self.facts(ino);
        facts.standing = standing;
        facts.kind = kind;
        facts.links = slot.links.get();
        if standing == Standing::Damaged {
            // It may be a directory, and it may own blocks.
            self.complete.names = false;
            self.complete.claims = false;
        }
        if ino.0 == ROOT_INO && standing != Standing::Damaged && kind != Some(Kind::Directory) {
            self.report_inode(Code::RootMissing, ino, "");
            self.complete.names = false;
            self.complete.claims = false;
        }
        match kind {
            Some(kind) => self.look_at_good(ino, kind, slot),
            None => Ok(()),
        }
    }

    fn standing_of(&mut self, ino: Ino, slot: &InodeSlot) -> Standing {
        if slot.is_free() || ino.0 == 0 {
            if !is_empty(slot) {
                // It may have been an inode that lost its type.
                self.report_inode(Code::InodeFreeSlot, ino, "");
                self.complete.names = false;
                self.complete.claims = false;
            }
            return Standing::Free;
        }
        // The findings come later, when it is known whether the content makes sense all the same.
        if slot.is_valid(ino.0, self.volume.seed) && Kind::from_mode(slot.mode.get()).is_some() {
            Standing::Good
        } else {
            Standing::Damaged
        }
    }

    fn look_at_good(&mut self, ino: Ino, kind: Kind, slot: &InodeSlot) -> Result<()> {
        self.look_at_values(ino, kind, slot);
        if kind == Kind::Directory {
            self.facts(ino).directory = self.directories.len() as u32;
            self.directories.push(DirectoryFacts {
                ino,
                stated_parent: Ino(slot.parent.get()),
                size: slot.size.get(),
                parent: None,
                via: None,
                entries: 0,
                subdirectories: 0,
            });
        }
        let blocks = self.claim_metadata(ino, kind, slot)?;
        self.facts(ino).metadata_blocks = blocks;
        Ok(())
    }

    /// Checks and claims the blocks of metadata of an inode, and returns their number.
    fn claim_metadata(&mut self, ino: Ino, kind: Kind, slot: &InodeSlot) -> Result<u64> {
        let attributes = self.look_at_attributes(ino, kind, slot)?;
        let own = match kind {
            Kind::File => self.claim_chain(ino, slot)?,
            Kind::Directory => self.claim_tree(ino, slot)?,
            Kind::Symlink => self.look_at_target(ino, slot)?,
            _ => 0,
        };
        Ok(attributes + own)
    }

    /// Looks at an inode that cannot be believed, after all others have claimed what is theirs: does its content make
    /// sense all the same? What it claims is kept from being used by a repair.
    pub(super) fn look_at_damaged(&mut self, ino: Ino, slot: &InodeSlot) -> Result<()> {
        if self.facts(ino).standing != Standing::Damaged {
            return Ok(());
        }
        let is_intact = slot.is_valid(ino.0, self.volume.seed);
        let Some(kind) = Kind::from_mode(slot.mode.get()) else {
            let code = if is_intact { Code::InodeType } else { Code::InodeChecksum };
            let detail = format!("mode {:o}", slot.mode.get());
            self.report(Finding::new(code, Object::Inode(ino), detail).at(Place::Plausible(false)));
            return Ok(());
        };
        let has_faults = self.muted(|survey| {
            survey.look_at_values(ino, kind, slot);
            survey.claim_metadata(ino, kind, slot)?;
            if kind == Kind::File { survey.claim_data(ino, slot).map(drop) } else { Ok(()) }
        })?;
        let is_plausible = !has_faults && slot.ino.get() == ino.0;
        let detail = if is_plausible { "its content makes sense" } else { "its content makes no sense" };
        let finding = Finding::new(Code::InodeChecksum, Object::Inode(ino), detail);
        self.report(finding.at(Place::Plausible(is_plausible)));
        Ok(())
    }

    fn look_at_values(&mut self, ino: Ino, kind: Kind, slot: &InodeSlot) {
        let mut report = |value, detail: String| {
            let finding = Finding::new(Code::InodeValue, Object::Inode(ino), detail);
            self.report(finding.at(Place::Value(value)));
        };
        if slot.mode.get() & !(S_IFMT | S_PERM) != 0 {
            report(Value::Mode, format!("mode {:o}", slot.mode.get()));
        }
        if slot.times_ns.iter().any(|ns| ns.get() >= 1_000_000_000) {
            report(Value::Times, "nanoseconds of a time".into());
        }
        if kind == Kind::File && slot.size.get() > FILE_SIZE_MAX {
            report(Value::Size, format!("size {}", slot.size.get()));
        }
        if slot.xattr_block.get() == 0 && slot.xattr_size.get() != 0 {
            report(Value::XattrSize, "size of attributes that it has not".into());
        }
        if !Flags::all().contains(Flags::from_bits_retain(slot.xflags.get())) {
            report(Value::Flags, format!("flags {:#x}", slot.xflags.get()));
        }
        if slot.uid.get() == NOBODY || slot.gid.get() == NOBODY {
            report(Value::Owner, "an owner or a group that is none".into());
        }
        if *slot != without_unused(kind, slot) {
            report(Value::Unused, "fields that inodes of its type do not use".into());
        }
        let tails = if self.was_closed { AllowedTails::None } else { AllowedTails::Possible };
        if kind == Kind::File && slot.links.get() > 0 && !tails.allow(self.volume, slot) {
            self.report_inode(Code::TailLeft, ino, "");
        }
    }
}

/// Whether a free slot holds nothing but what a free slot may hold.
fn is_empty(slot: &InodeSlot) -> bool {
    let mut rest = *slot;
    rest.crc = 0.into();
    rest.ino = 0.into();
    rest.generation = 0.into();
    rest.as_bytes().iter().all(|byte| *byte == 0)
}

/// The slot with zero in all fields that an inode of this kind does not use.
pub(super) fn without_unused(kind: Kind, slot: &InodeSlot) -> InodeSlot {
    let mut used = *slot;
    let size = slot.size.get();
    if !matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        used.rdev = 0.into();
    }
    if kind != Kind::Directory {
        used.parent = 0.into();
    }
    if kind != Kind::File {
        used.extents = 0.into();
        used.tail = 0.into();
    }
    let is_long_link = kind == Kind::Symlink && size > INLINE_SIZE as u64;
    if !matches!(kind, Kind::File | Kind::Directory) && !is_long_link {
        used.root = 0.into();
    }
    match kind {
        Kind::File => {}
        Kind::Symlink if !is_long_link => used.inline[size as usize..].fill(0),
        _ => used.inline.fill(0),
    }
    if !matches!(kind, Kind::File | Kind::Directory | Kind::Symlink) {
        used.size = 0.into();
    }
    used
}
