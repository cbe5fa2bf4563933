//! From the bytes of an input to a hostile image.
//!
//! An input is a head that chooses the volume and how it is opened, and edits of a fixed size, so that what a fuzzer does
//! to one of them leaves the others alone.

use std::mem::offset_of;
use std::ops::Range;

use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::blob::BlobHead;
use lodefs_layout::directory::{ENTRY_HEAD_SIZE, EntryHead};
use lodefs_layout::geometry::Geometry;
use lodefs_layout::inode::InodeSlot;
use lodefs_layout::state::State;
use lodefs_layout::superblock::Superblock;
use lodefs_pmem::Domain;
use zerocopy::{FromBytes, IntoBytes};

use super::atlas::{Kind, Structure};
use super::bases::{self, Base};
use super::choices::Choices;
use super::forge::Journal;
use super::image::BOOT;
use super::seal::{seal_touched, seed_of};

/// Edits of one case; the rest of a longer input counts for nothing.
const EDITS_MAX: usize = 24;

/// Bytes of an edit.
pub(super) const SIZE: usize = 15;

/// Kinds of edits.
pub(super) const KINDS: u8 = 33;

/// Set in the kind of an edit: the checksums stay as they are.
const UNSEALED: u8 = 0x80;
/// Set in the kind of an edit: it is made by a journal record instead of in place, or the other way round.
const OTHER_WAY: u8 = 0x40;

/// The kinds of structures as often as a field of them is changed.
const FIELDS: [Kind; 20] = [
    Kind::Superblock,
    Kind::State,
    Kind::State,
    Kind::Record,
    Kind::MapEntry,
    Kind::Inode,
    Kind::Inode,
    Kind::Inode,
    Kind::Inode,
    Kind::ExtentHead,
    Kind::ExtentSlot,
    Kind::ExtentSlot,
    Kind::Node,
    Kind::LeafHead,
    Kind::Tags,
    Kind::Entry,
    Kind::Entry,
    Kind::Xattrs,
    Kind::Target,
    Kind::Bitmap,
];

/// A hostile image, and how it is to be opened.
pub(super) struct Case {
    pub(super) base: &'static Base,
    pub(super) bytes: Vec<u8>,
    pub(super) domain: Domain,
    /// The boot of the host in which it is found.
    pub(super) boot: [u8; 16],
    /// The medium is longer than the volume.
    pub(super) is_guarded: bool,
    /// From which it follows what is done with the volume.
    pub(super) salt: u64,
    /// Inodes that were changed.
    pub(super) changed: Vec<u64>,
}

/// How edits get onto the volume unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    InPlace,
    ByRecords,
}

/// New bytes in some place.
struct Patch {
    at: u64,
    bytes: Vec<u8>,
}

impl Case {
    /// Takes an input for a case.
    pub(super) fn of(data: &[u8], way: Way) -> Self {
        let mut choices = Choices::new(data);
        let mut case = Self::unchanged(&mut choices);
        let journal = Journal::of(&case.base.image);
        let mut seq = case.base.image.state().committed_seq.get();
        for _ in 0..EDITS_MAX {
            if choices.is_empty() {
                break;
            }
            let (kind, detail) = (choices.byte(), choices.byte());
            let by_record = (kind & OTHER_WAY != 0) != (way == Way::ByRecords);
            let Some(patch) = case.patch(kind & !(UNSEALED | OTHER_WAY), &mut choices) else { continue };
            if by_record {
                seq += 1;
                case.journal(&journal, &patch, kind & UNSEALED == 0, detail, seq);
            } else {
                case.apply(&patch, kind & UNSEALED == 0);
            }
        }
        case
    }

    /// The volume that the head of an input chooses.
    pub(super) fn unchanged(choices: &mut Choices<'_>) -> Self {
        let all = bases::all();
        let base = &all[usize::from(choices.byte()) % all.len()];
        let settings = choices.byte();
        let domain = Domain::ALL[usize::from(settings & 3) % Domain::ALL.len()];
        let boot = if settings & 4 == 0 { BOOT } else { [2; 16] };
        let bytes = base.image.bytes().to_vec();
        Self {
            base,
            bytes,
            domain,
            boot,
            is_guarded: settings & 8 != 0,
            salt: u64::from(settings >> 4),
            changed: Vec::new(),
        }
    }

    /// Changes the volume in place. Returns what has changed.
    pub(super) fn apply_bytes(&mut self, at: u64, bytes: &[u8], sealed: bool) -> Range<u64> {
        let end = (at as usize + bytes.len()).min(self.bytes.len());
        let old_seed = seed_of(&self.bytes);
        let Some(place) = self.bytes.get_mut(at as usize..end) else { return 0..0 };
        place.copy_from_slice(&bytes[..place.len()]);
        let mut range = at..end as u64;
        let all = self.base.atlas.structures();
        let met = all.iter().filter(|it| it.ino != 0 && it.meets(at, bytes.len()));
        self.changed.extend(met.map(|structure| structure.ino));
        if sealed {
            seal_touched(&mut self.bytes, all, std::slice::from_ref(&range), old_seed);
            for structure in all.iter().filter(|it| it.meets(at, bytes.len())) {
                range = range.start.min(structure.at)..range.end.max(structure.end());
            }
        }
        range
    }

    /// Lets a blob and its inode say that it has another size.
    pub(super) fn resize_blob(&mut self, blob: &Structure, size: usize) {
        let size = (size as u32).to_le_bytes();
        let _ = self.apply_bytes(blob.at + offset_of!(BlobHead, size) as u64, &size, true);
        let inode = self.base.atlas.of_kind(Kind::Inode).iter().find(|inode| inode.ino == blob.ino);
        let field = match blob.kind {
            Kind::Xattrs => offset_of!(InodeSlot, xattr_size),
            _ => offset_of!(InodeSlot, size),
        };
        if let Some(inode) = inode {
            let _ = self.apply_bytes(inode.at + field as u64, &size, true);
        }
    }

    fn apply(&mut self, patch: &Patch, sealed: bool) -> Range<u64> {
        self.apply_bytes(patch.at, &patch.bytes, sealed)
    }

    /// Has recovery change the volume: it is changed, what has changed goes into a record, and is taken back.
    fn journal(&mut self, journal: &Journal, patch: &Patch, sealed: bool, detail: u8, seq: u64) {
        let before = self.bytes.clone();
        let range = self.apply(patch, sealed);
        let end = range.end.min(range.start + Journal::WRITE_MAX as u64);
        let content = self.bytes[range.start as usize..end as usize].to_vec();
        self.bytes = before;
        let state = self.base.image.state();
        let lane = u64::from(detail & 7);
        let generation = state.generation.get() + u64::from(detail >> 3 & 1);
        let seq = match detail >> 4 & 3 {
            0 | 1 => seq,
            // Among those that were there before.
            2 => seq.saturating_sub(u64::from(detail)),
            _ => u64::MAX >> (detail >> 6),
        };
        let offset = match detail >> 6 {
            0..3 => range.start,
            _ => range.start.wrapping_sub(u64::from(detail)),
        };
        let _without_room = journal.add(&mut self.bytes, lane, generation, seq, &[(offset, content)]);
    }

    /// What an edit changes; nothing if this volume has no such structure. Takes the same number of bytes in any case.
    fn patch(&self, kind: u8, choices: &mut Choices<'_>) -> Option<Patch> {
        let (which, field) = (choices.half_word(), choices.half_word());
        let (selector, value) = (choices.byte(), choices.number());
        let total = self.bytes.len() as u64;
        let blocks = self.base.atlas.blocks();
        let block = blocks[usize::from(which) % blocks.len()] * BLOCK_SIZE;
        match usize::from(kind) {
            number if number < FIELDS.len() => {
                let structure = self.pick(FIELDS[number], which)?;
                Some(self.field(&structure, field, selector, value))
            }
            20 => {
                let at = block + u64::from(field) % BLOCK_SIZE;
                Some(Patch { at, bytes: vec![self.bytes[at as usize] ^ 1 << (selector & 7)] })
            }
            21 | 22 => {
                let block =
                    Structure { kind: Kind::Tags, at: block, size: BLOCK_SIZE as usize, salt: 0, ino: 0 };
                Some(self.field(&block, field, selector, value))
            }
            23 | 24 => {
                let kind = Kind::ALL[usize::from(selector) % Kind::ALL.len()];
                let (from, to) = (self.pick(kind, which)?, self.pick(kind, field)?);
                Some(Patch { at: to.at, bytes: self.content(&from)[..from.size.min(to.size)].to_vec() })
            }
            25 => {
                let from = blocks[usize::from(field) % blocks.len()] * BLOCK_SIZE;
                Some(Patch { at: block, bytes: self.bytes[from as usize..][..BLOCK_SIZE as usize].to_vec() })
            }
            26 => {
                let structure = self.pick(Kind::ALL[usize::from(selector) % Kind::ALL.len()], which)?;
                Some(Patch { at: structure.at, bytes: vec![value as u8; structure.size] })
            }
            27 => Some(Patch { at: block, bytes: vec![value as u8 & 1; BLOCK_SIZE as usize] }),
            28 => self.reshaped(
                total.wrapping_add_signed(i64::from(field.cast_signed()) * BLOCK_SIZE.cast_signed()),
            ),
            29 => self.renamed(&self.pick(Kind::Entry, which)?, field, value),
            30 => self.state(|state| state.flags = (value as u32 & 3).into()),
            31 => self.state(|state| {
                // What a saved bitmap with one bit more or less has to go with.
                let change = if selector & 1 == 0 { 1 } else { u64::MAX };
                state.free_blocks = state.free_blocks.get().wrapping_add(change).into();
            }),
            _ => Some(Patch {
                at: value % total,
                bytes: value.to_le_bytes()[..=usize::from(selector) % 8].to_vec(),
            }),
        }
    }

    fn pick(&self, kind: Kind, which: u16) -> Option<Structure> {
        let all = self.base.atlas.of_kind(kind);
        all.get(usize::from(which).checked_rem(all.len())?).copied()
    }

    fn content(&self, structure: &Structure) -> &[u8] {
        &self.bytes[structure.at as usize..][..structure.size]
    }

    /// Another value in a field of a structure.
    fn field(&self, structure: &Structure, field: u16, selector: u8, value: u64) -> Patch {
        let width = [4, 8, 8, 4, 2, 1, 4, 8][usize::from(selector >> 5)];
        let last = structure.size.saturating_sub(width);
        let offset = (usize::from(field) % (last + 1)) / width * width;
        let mut old = [0; 8];
        let width = width.min(structure.size);
        old[..width].copy_from_slice(&self.content(structure)[offset..offset + width]);
        let new = self.interesting(selector & 31, value, u64::from_le_bytes(old));
        Patch { at: structure.at + offset as u64, bytes: new.to_le_bytes()[..width].to_vec() }
    }

    /// A value that is likely to matter.
    fn interesting(&self, selector: u8, value: u64, old: u64) -> u64 {
        let blocks = self.bytes.len() as u64 / BLOCK_SIZE;
        let of = |all: &[u64]| all[(value % all.len().max(1) as u64) as usize];
        match selector % 12 {
            0 => value,
            1 => value % 4,
            2 => of(self.base.atlas.blocks()),
            3 => of(self.base.atlas.inodes()),
            4 => u64::MAX - value % 3,
            5 => (1_u64 << (value % 64)).wrapping_sub(value >> 8 & 1),
            6 => blocks.wrapping_sub(value % 3),
            7 => value % blocks,
            8 => old ^ 1 << (value % 64),
            9 => old.wrapping_add(value % 256).wrapping_sub(128),
            // What a medium that is longer than the volume has there.
            10 => blocks + value % 16,
            _ => old.swap_bytes(),
        }
    }

    /// A superblock for a volume of another size, with everything where it is on such a volume.
    fn reshaped(&self, size: u64) -> Option<Patch> {
        let geometry = Geometry::for_size(size).ok()?;
        let (superblock, _) = Superblock::read_from_prefix(&self.bytes).ok()?;
        let superblock = superblock.with_geometry(&geometry);
        Some(Patch { at: 0, bytes: superblock.as_bytes().to_vec() })
    }

    /// An entry with a byte of its name changed, and the right hash for that.
    fn renamed(&self, entry: &Structure, field: u16, value: u64) -> Option<Patch> {
        let mut bytes = self.content(entry).to_vec();
        let (mut head, _) = EntryHead::read_from_prefix(&bytes).ok()?;
        let name = bytes.get_mut(ENTRY_HEAD_SIZE..ENTRY_HEAD_SIZE + usize::from(head.name_size))?;
        let at = usize::from(field).checked_rem(name.len())?;
        name[at] = value as u8;
        head.hash = seed_of(&self.bytes).name_range(name).first.into();
        bytes[..ENTRY_HEAD_SIZE].copy_from_slice(head.as_bytes());
        Some(Patch { at: entry.at, bytes })
    }

    /// The newest state, changed.
    fn state(&self, edit: impl FnOnce(&mut State)) -> Option<Patch> {
        let slot = State::slot_of(self.base.image.state().update.get());
        let at = self.base.image.state_at(slot);
        let (mut state, _) = State::read_from_prefix(&self.bytes[at as usize..]).ok()?;
        edit(&mut state);
        Some(Patch { at, bytes: state.as_bytes().to_vec() })
    }
}
