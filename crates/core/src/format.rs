//! Making a new volume.
//!
//! The superblock is written last, and a mark replaces the old one first: a crash leaves the old volume as it was, a
//! mark by which [`Error::Unfinished`] tells that the volume is to be made again, or a complete volume.

use std::path::Path;

use lodefs_layout::geometry::{Geometry, VOLUME_SIZE_MAX, VOLUME_SIZE_MIN};
use lodefs_layout::inode::{InodeSlot, SLOT_SIZE};
use lodefs_layout::inode_map;
use lodefs_layout::names::NameKey;
use lodefs_layout::saved_bitmap;
use lodefs_layout::state::{CLEAN, State};
use lodefs_layout::superblock::{MAGIC, Region, Superblock, UNFINISHED};
use lodefs_layout::{BLOCK_SIZE, ROOT_INO, checksum::Seed, features};
use lodefs_pmem::{Domain, Flushed, Medium, NewFile, Reserve};
use rustix::rand::{GetRandomFlags, getrandom};
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::clock::Clock;
use crate::error::{Error, Result, ensure};
use crate::inode::SetTimes;
use crate::types::{Kind, S_PERM, Time};

/// What a new volume is to be like.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Its name, at most 64 bytes.
    pub label: String,
    /// Its identity; random if not given.
    pub uuid: Option<[u8; 16]>,
    /// Owner of the root directory.
    pub root_uid: u32,
    /// Group of the root directory.
    pub root_gid: u32,
    /// Permissions of the root directory.
    pub root_perm: u32,
    /// Source of timestamps.
    pub clock: Clock,
    /// How its names are hashed.
    pub names: NewNames,
}

/// How the names of a new volume are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewNames {
    /// With a random key, which only those can read who can read the volume.
    #[default]
    Secret,
    /// With this key. For tests: a volume with the same content is the same each time.
    Key(NameKey),
    /// With a seed that follows from the UUID, as by engines that do not know keyed names. Users can forge names that
    /// share one hash.
    FromUuid,
}

impl NewNames {
    fn key(self) -> Result<Option<NameKey>> {
        let mut key = [0; 16];
        match self {
            // All zeros stands for no key.
            Self::Secret => {
                while key == [0; 16] {
                    getrandom(&mut key[..], GetRandomFlags::empty())?;
                }
            }
            Self::Key(NameKey(given)) => {
                ensure(given != [0; 16], rustix::io::Errno::INVAL)?;
                key = given;
            }
            Self::FromUuid => return Ok(None),
        }
        Ok(Some(NameKey(key)))
    }
}

impl Default for FormatOptions {
    fn default() -> Self {
        Self {
            label: String::new(),
            uuid: None,
            root_uid: 0,
            root_gid: 0,
            root_perm: 0o755,
            clock: Clock::System,
            names: NewNames::Secret,
        }
    }
}

/// A file in which a new volume is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewVolume<'a> {
    /// Where. There is nothing, an empty file, or a file that an interrupted attempt left.
    pub path: &'a Path,
    /// Its size, in bytes.
    pub size: u64,
    /// Whether the host sets room aside.
    pub reserve: Reserve,
    /// The domain to treat the file as.
    pub force_domain: Option<Domain>,
}

/// Makes a volume that fills `medium`. What was there is lost.
pub(crate) fn format(medium: &Medium, options: &FormatOptions) -> Result<()> {
    format_over(medium, options, Before::Anything)
}

/// What is on a medium before a volume is made there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Anything,
    /// Nothing but zeroes, without room that was set aside for them. The inode map of a volume of 8 TiB has 8 GiB, which takes
    /// room when it is written.
    Holes,
}

fn format_over(medium: &Medium, options: &FormatOptions, before: Before) -> Result<()> {
    let geometry = check_size(medium.size())?;
    check_label(&options.label)?;
    let uuid = options.uuid.map_or_else(random_uuid, Ok)?;
    let name_key = options.names.key()?;
    let seed = Seed::of_volume(&uuid);
    let now = options.clock.now();
    let last = geometry.total_blocks - 1;

    // No superblock, and no journal record, state or inode from an earlier life. What the superblocks described is whole
    // until both are gone, so one goes before the other is touched.
    let marked = medium.write(0, &first_block(&UNFINISHED))?;
    let _marked = medium.sync(marked)?;
    let wiped = wipe(medium, Region { start: U64::new(last), blocks: U64::new(1) })?;
    let _wiped = medium.sync(wiped)?;
    let mut flushed = Medium::nothing_flushed();
    if before == Before::Anything {
        for region in [geometry.state, geometry.journal, geometry.inode_map, geometry.saved_bitmap] {
            flushed = flushed.and(wipe(medium, region)?);
        }
    }

    let root_chunk = geometry.data.start.get();
    flushed = flushed.and(wipe(medium, Region { start: U64::new(root_chunk), blocks: U64::new(1) })?);
    // What follows replaces parts of what was wiped.
    let _in_order = medium.fence(flushed)?;
    let root = root_slot(options, now).sealed(ROOT_INO, seed);
    let root_at = root_chunk * BLOCK_SIZE + ROOT_INO * SLOT_SIZE as u64;
    let flushed = medium.write(root_at, root.as_bytes())?;
    let entry = inode_map::Entry::new(0, root_chunk, seed);
    let flushed = flushed.and(medium.write(geometry.inode_map.start.get() * BLOCK_SIZE, entry.as_bytes())?);
    let flushed = flushed.and(write_bitmap(medium, &geometry, seed)?);
    let state = first_state(&geometry).sealed(seed);
    let state_block = geometry.state.start.get() + State::slot_of(state.update.get());
    let flushed = flushed.and(medium.write(state_block * BLOCK_SIZE, state.as_bytes())?);
    let _complete = medium.sync(flushed)?;

    // The last copy first: the mark stays until there is a volume.
    let superblock = superblock(&geometry, options, uuid, name_key, now);
    for block in [last, 0] {
        let flushed = medium.write(block * BLOCK_SIZE, superblock.as_bytes())?;
        let _in_place = medium.sync(flushed)?;
    }
    Ok(())
}

/// Makes a volume in a new or empty file; see [`NewFile::make`].
pub(crate) fn create(new: &NewVolume<'_>, options: &FormatOptions) -> Result<()> {
    let NewVolume { path, size, reserve, force_domain } = *new;
    check_size(size)?;
    check_label(&options.label)?;
    let before = if reserve == Reserve::Sparse { Before::Holes } else { Before::Anything };
    NewFile { path, size, reserve, unfinished: &UNFINISHED, force_domain }
        .make(|medium| format_over(medium, options, before))
}

fn check_size(size: u64) -> Result<Geometry> {
    let (min, max) = (VOLUME_SIZE_MIN, VOLUME_SIZE_MAX);
    Geometry::for_size(size).map_err(|_| Error::VolumeSize { size, min, max })
}

fn check_label(label: &str) -> Result<()> {
    ensure(label.len() <= 64, rustix::io::Errno::NAMETOOLONG)
}

/// A block that begins like this and is zero otherwise.
fn first_block(start: &[u8]) -> [u8; BLOCK_SIZE as usize] {
    let mut block = [0; BLOCK_SIZE as usize];
    block[..start.len()].copy_from_slice(start);
    block
}

pub(crate) fn random_uuid() -> Result<[u8; 16]> {
    let mut uuid = [0; 16];
    getrandom(&mut uuid[..], GetRandomFlags::empty())?;
    // Version 4, variant 1, as RFC 9562 wants it.
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

fn wipe(medium: &Medium, region: Region) -> Result<Flushed> {
    Ok(medium.zero(region.start.get() * BLOCK_SIZE, region.blocks.get() * BLOCK_SIZE)?)
}

fn root_slot(options: &FormatOptions, now: Time) -> InodeSlot {
    let mut slot = InodeSlot::new_zeroed();
    slot.mode = U32::new(Kind::Directory.mode_bits() | (options.root_perm & S_PERM));
    slot.ino = U64::new(ROOT_INO);
    slot.generation = U32::new(1);
    slot.links = U32::new(2);
    slot.uid = U32::new(options.root_uid);
    slot.gid = U32::new(options.root_gid);
    slot.parent = U64::new(ROOT_INO);
    slot.set_atime(now);
    slot.set_mtime(now);
    slot.set_ctime(now);
    slot.set_btime(now);
    slot
}

const FIRST_UPDATE: u64 = 1;

fn first_state(geometry: &Geometry) -> State {
    let mut state = State::new(FIRST_UPDATE, 1);
    state.flags = U32::new(CLEAN);
    state.used_inodes = U64::new(1);
    state.free_blocks = U64::new(geometry.data.blocks.get() - 1);
    state
}

/// Saves a bitmap in which all is free but the fixed regions and the first chunk of inodes.
fn write_bitmap(medium: &Medium, geometry: &Geometry, seed: Seed) -> Result<Flushed> {
    let mut flushed = Medium::nothing_flushed();
    let used_until = geometry.data.start.get() + 1;
    let is_used = |block: u64| block < used_until || block >= geometry.total_blocks - 1;
    for index in 0..geometry.saved_bitmap.blocks.get() {
        let mut words = [U64::ZERO; saved_bitmap::WORDS];
        for (w, word) in words.iter_mut().enumerate() {
            let first = index * saved_bitmap::COVERED_BLOCKS + w as u64 * 64;
            let bits = (0..64).filter(|bit| is_used(first + bit)).fold(0, |bits, bit| bits | 1 << bit);
            *word = U64::new(bits);
        }
        let block = saved_bitmap::BitmapBlock::new(index, FIRST_UPDATE, words, seed);
        let at = (geometry.saved_bitmap.start.get() + index) * BLOCK_SIZE;
        flushed = flushed.and(medium.write(at, block.as_bytes())?);
    }
    Ok(flushed)
}

fn superblock(
    geometry: &Geometry,
    options: &FormatOptions,
    uuid: [u8; 16],
    name_key: Option<NameKey>,
    now: Time,
) -> Superblock {
    let mut label = [0; 64];
    label[..options.label.len()].copy_from_slice(options.label.as_bytes());
    let identity = Superblock { uuid, label, created_s: I64::new(now.s), ..Superblock::new_zeroed() };
    superblock_like(&identity, geometry, name_key)
}

/// A superblock of a volume of this geometry, with the identity, label and time of another.
///
/// `name_key`: the key of the names, if it was found. Without it, every entry of every directory seems to have a wrong hash,
/// and the directories are built again, with the hashes of a volume without keyed names.
pub(crate) fn superblock_like(
    left: &Superblock,
    geometry: &Geometry,
    name_key: Option<NameKey>,
) -> Superblock {
    let is_text = std::str::from_utf8(&left.label).is_ok();
    Superblock {
        magic: MAGIC,
        crc: U32::ZERO,
        version: U32::new(features::FORMAT_VERSION),
        compat: U64::ZERO,
        ro_compat: U64::ZERO,
        incompat: U64::new(if name_key.is_some() { features::KEYED_NAMES } else { 0 }),
        uuid: left.uuid,
        label: if is_text { left.label } else { [0; 64] },
        block_size: U32::new(BLOCK_SIZE as u32),
        lanes: U32::new(geometry.lanes),
        total_blocks: U64::new(geometry.total_blocks),
        created_s: left.created_s,
        state: geometry.state,
        journal: geometry.journal,
        inode_map: geometry.inode_map,
        saved_bitmap: geometry.saved_bitmap,
        data: geometry.data,
        name_crc: U32::ZERO,
        reserved: [U32::ZERO; 3],
        name_key: name_key.unwrap_or(NameKey([0; 16])),
    }
    .sealed()
}
