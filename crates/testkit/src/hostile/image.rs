//! The bytes of a volume, to look at and to damage: single structures are read, changed and, where the damage is to go
//! unnoticed by a checksum, sealed again.

#![expect(
    clippy::missing_panics_doc,
    reason = "what is asked for is there, or the test is wrong and has to fail"
)]

use lodefs_sync::AtomicU64;
use std::ops::Range;
use std::sync::Arc;

use lodefs_core::fsck::{self, Finding, Options, Report};
use lodefs_core::{Clock, FormatOptions, Fs, NewNames, OpenOptions, Result};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::checksum::Seed;
use lodefs_layout::directory::{
    BlockHead, Child, EntryHead, HEAP_START, Leaf, Node, TAGS, TAGS_START, tag, tag_position,
};
use lodefs_layout::extent::{
    ExtentBlockHead, ExtentSlot, InlineExtent, SLOT_SIZE as EXTENT_SLOT_SIZE, SLOTS, SLOTS_START,
};
use lodefs_layout::inode::{InodeSlot, SLOT_SIZE};
use lodefs_layout::inode_map::{CHUNK_INODES, ENTRY_SIZE, Entry, Found};
use lodefs_layout::names::NameKey;
use lodefs_layout::saved_bitmap::{BitmapBlock, COVERED_BLOCKS};
use lodefs_layout::state::State;
use lodefs_layout::superblock::Superblock;
use lodefs_pmem::{Access, Domain, Medium};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::memory_file::MemoryFile;

/// The boot of the host in which images are made and crash.
pub const BOOT: [u8; 16] = [1; 16];

/// When images are made, in nanoseconds since 1970: the same image comes out every time.
const NOW_NS: u64 = 1_700_000_000_000_000_000;

fn clock() -> Clock {
    Clock::Manual(Arc::new(AtomicU64::new(NOW_NS)))
}

/// How volumes are opened.
pub(crate) fn open_options() -> OpenOptions {
    OpenOptions { clock: clock(), ..OpenOptions::default() }
}

/// A file in memory with these bytes.
fn scratch(bytes: &[u8]) -> MemoryFile {
    let file = MemoryFile::new(bytes.len() as u64).unwrap();
    file.write(bytes).unwrap();
    file
}

/// Where an entry of a directory is.
#[derive(Clone, Copy, Debug)]
pub struct EntryAt {
    /// The leaf.
    pub block: u64,
    /// Its tag.
    pub tag: usize,
    /// Its head, in bytes from the start of the volume.
    pub head: u64,
}

/// The bytes of a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// How names are hashed, the same each time.
    pub const NAMES: NewNames = NewNames::Key(NameKey([11; 16]));

    /// These bytes.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// A new volume that was filled and closed.
    pub fn made_with(size: u64, fill: impl FnOnce(&Arc<Fs>)) -> Self {
        Self::made_as(size, &Self::format(), fill)
    }

    /// How volumes are made, the same each time.
    pub(crate) fn format() -> FormatOptions {
        FormatOptions { uuid: Some([7; 16]), names: Self::NAMES, clock: clock(), ..FormatOptions::default() }
    }

    /// A new volume made in this way, filled and closed.
    pub(crate) fn made_as(size: u64, options: &FormatOptions, fill: impl FnOnce(&Arc<Fs>)) -> Self {
        let scratch = MemoryFile::new(size).unwrap();
        Fs::format(&scratch.open(Domain::Volatile).unwrap(), options).unwrap();
        let fs = Fs::open(scratch.open(Domain::Volatile).unwrap(), &open_options()).unwrap();
        fill(&fs);
        fs.close().unwrap();
        drop(fs);
        Self { bytes: scratch.read().unwrap() }
    }

    /// The volume as it is while it is open, after `work`: as if the process had been killed then.
    #[must_use]
    pub fn crashed_after(&self, work: impl FnOnce(&Arc<Fs>)) -> Self {
        self.crashed_as(Domain::Volatile, work)
    }

    /// The same on a medium of this domain.
    ///
    /// What `work` returns is kept until then: files that are open, for example.
    #[must_use]
    pub fn crashed_as<T>(&self, domain: Domain, work: impl FnOnce(&Arc<Fs>) -> T) -> Self {
        let file = scratch(&self.bytes);
        let fs = Fs::open(file.open(domain).unwrap().with_boot_id(BOOT), &open_options()).unwrap();
        let held = work(&fs);
        let bytes = file.read().unwrap();
        drop(held);
        Self { bytes }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// What fsck finds.
    pub fn check(&self) -> Result<Report> {
        let medium = Medium::from_image(&self.bytes, Domain::Volatile, Access::ReadOnly).unwrap();
        fsck::check(medium.with_boot_id(BOOT), &Options::default(), &mut |_| {})
    }

    /// Repairs a copy.
    pub fn repair(&self, decide: &mut dyn FnMut(&Finding) -> bool) -> (Result<Report>, Self) {
        self.repair_as(Domain::Volatile, decide)
    }

    /// Repairs a copy on a medium of this domain.
    pub fn repair_as(
        &self,
        domain: Domain,
        decide: &mut dyn FnMut(&Finding) -> bool,
    ) -> (Result<Report>, Self) {
        let file = scratch(&self.bytes);
        let medium = file.open(domain).unwrap().with_boot_id(BOOT);
        let report = fsck::repair(medium, &Options::default(), decide, &mut |_| {});
        (report, Self { bytes: file.read().unwrap() })
    }

    /// Opens a copy for writing, lets `work` use it, and closes it.
    pub fn open_and(&self, work: impl FnOnce(&Arc<Fs>)) -> Result<Self> {
        let file = scratch(&self.bytes);
        let fs = Fs::open(file.open(Domain::Volatile).unwrap(), &open_options())?;
        work(&fs);
        fs.close()?;
        drop(fs);
        Ok(Self { bytes: file.read().unwrap() })
    }

    /// The structure at byte `at`.
    pub fn get<T: FromBytes + IntoBytes + Immutable>(&self, at: u64) -> T {
        T::read_from_bytes(&self.bytes[range(at, size_of::<T>())]).unwrap()
    }

    /// Replaces the bytes from `at` on.
    pub fn put(&mut self, at: u64, value: &(impl IntoBytes + Immutable + ?Sized)) {
        let bytes = value.as_bytes();
        self.bytes[range(at, bytes.len())].copy_from_slice(bytes);
    }

    /// Turns one bit over.
    pub fn flip(&mut self, at: u64) {
        self.bytes[at as usize] ^= 0x10;
    }

    /// The superblock: the first copy, or else the second.
    pub fn superblock(&self) -> Superblock {
        Superblock::parse(&self.bytes)
            .or_else(|_| Superblock::parse(&self.bytes[self.last_block() as usize..]))
            .unwrap()
    }

    /// Where the last block starts, in bytes.
    pub fn last_block(&self) -> u64 {
        self.bytes.len() as u64 - BLOCK_SIZE
    }

    /// What seeds the checksums.
    pub fn seed(&self) -> Seed {
        self.superblock().seed()
    }

    /// Where a state slot is.
    pub fn state_at(&self, slot: u64) -> u64 {
        (self.superblock().state.start.get() + slot) * BLOCK_SIZE
    }

    /// The newest state.
    pub fn state(&self) -> State {
        let slots = [0, 1].map(|slot| State::parse(&self.bytes[self.state_at(slot) as usize..], self.seed()));
        slots.into_iter().flatten().max_by_key(|state| state.update.get()).unwrap()
    }

    /// Replaces the newest state, with a right checksum.
    pub fn edit_state(&mut self, edit: impl FnOnce(&mut State)) {
        let mut state = self.state();
        let slot = State::slot_of(state.update.get());
        edit(&mut state);
        self.put(self.state_at(slot), &state.sealed(self.seed()));
    }

    /// Where an entry of the inode map is.
    pub fn map_at(&self, chunk: u64) -> u64 {
        self.superblock().inode_map.start.get() * BLOCK_SIZE + chunk * ENTRY_SIZE
    }

    /// Number of chunks of inodes, with those that have been given back.
    pub fn chunks(&self) -> u64 {
        let mut chunk = 0;
        while self.get::<Entry>(self.map_at(chunk)).interpret(chunk, self.seed()) != Found::Absent {
            chunk += 1;
        }
        chunk
    }

    /// The block of a chunk of inodes.
    pub fn chunk(&self, chunk: u64) -> u64 {
        match self.get::<Entry>(self.map_at(chunk)).interpret(chunk, self.seed()) {
            Found::At(block) => block,
            other => panic!("chunk {chunk}: {other:?}"),
        }
    }

    /// Where the slot of an inode is.
    pub fn inode_at(&self, ino: u64) -> u64 {
        self.chunk(ino / CHUNK_INODES) * BLOCK_SIZE + ino % CHUNK_INODES * SLOT_SIZE as u64
    }

    /// The slot of an inode.
    pub fn inode(&self, ino: u64) -> InodeSlot {
        self.get(self.inode_at(ino))
    }

    /// Replaces an inode, with a right checksum.
    pub fn edit_inode(&mut self, ino: u64, edit: impl FnOnce(&mut InodeSlot)) {
        let mut slot = self.inode(ino);
        edit(&mut slot);
        self.put(self.inode_at(ino), &slot.sealed(ino, self.seed()));
    }

    /// The first extent in an inode, and its place there.
    pub fn first_extent(&self, ino: u64) -> (usize, InlineExtent) {
        let inline = self.inode(ino).inline_extents();
        inline.into_iter().enumerate().find(|(_, extent)| extent.blocks.get() > 0).unwrap()
    }

    /// Replaces the first extent in an inode.
    pub fn edit_first_extent(&mut self, ino: u64, edit: impl FnOnce(&mut InlineExtent)) {
        let (index, _) = self.first_extent(ino);
        self.edit_inode(ino, |slot| {
            let mut inline = slot.inline_extents();
            edit(&mut inline[index]);
            slot.set_inline_extents(inline);
        });
    }

    /// The extent blocks of a file, in the order of the chain.
    pub fn chain(&self, ino: u64) -> Vec<u64> {
        let mut chain = Vec::new();
        let mut block = self.inode(ino).root.get();
        while block != 0 {
            chain.push(block);
            block = self.get::<ExtentBlockHead>(block * BLOCK_SIZE).next.get();
        }
        chain
    }

    /// Where the first slots in use of an extent block are.
    pub fn extent_slots(&self, block: u64) -> Vec<u64> {
        let all = (0..SLOTS).map(|i| block * BLOCK_SIZE + (SLOTS_START + i * EXTENT_SLOT_SIZE) as u64);
        all.filter(|at| !self.get::<ExtentSlot>(*at).is_free()).collect()
    }

    /// The nodes and the leaves of a directory.
    pub fn tree(&self, ino: u64) -> (Vec<u64>, Vec<u64>) {
        let (mut nodes, mut leaves) = (Vec::new(), Vec::new());
        let mut left: Vec<u64> =
            Some(self.inode(ino).root.get()).into_iter().filter(|root| *root != 0).collect();
        while let Some(block) = left.pop() {
            if self.get::<BlockHead>(block * BLOCK_SIZE).claimed_level() == 0 {
                leaves.push(block);
            } else {
                nodes.push(block);
                left.extend(
                    self.get::<Node>(block * BLOCK_SIZE).children().iter().map(|child| child.block.get()),
                );
            }
        }
        (nodes, leaves)
    }

    /// Replaces the children of a node, with a right checksum.
    pub fn edit_children(&mut self, block: u64, edit: impl FnOnce(&mut Vec<Child>)) {
        let node: Node = self.get(block * BLOCK_SIZE);
        let mut children = node.children().to_vec();
        edit(&mut children);
        let node = Node::new(node.head.owner.get(), block, node.head.claimed_level(), &children, self.seed());
        self.put(block * BLOCK_SIZE, &node);
    }

    /// The entries of a leaf.
    pub fn entries(&self, block: u64) -> Vec<EntryAt> {
        let leaf: Leaf = self.get(block * BLOCK_SIZE);
        let in_use = leaf.tags.iter().enumerate().filter(|(_, tag)| tag.get() != 0);
        let at = |(tag, value): (usize, &zerocopy::little_endian::U32)| {
            let position = tag_position(value.get()) as u64;
            EntryAt { block, tag, head: block * BLOCK_SIZE + position }
        };
        in_use.map(at).collect()
    }

    /// The name of an entry.
    pub fn name(&self, entry: EntryAt) -> Vec<u8> {
        let size = self.get::<EntryHead>(entry.head).name_size as usize;
        self.bytes[range(entry.head + size_of::<EntryHead>() as u64, size)].to_vec()
    }

    /// The entry with this name in a directory.
    pub fn entry(&self, directory: u64, name: &str) -> EntryAt {
        let leaves = self.tree(directory).1;
        let all = leaves.into_iter().flat_map(|block| self.entries(block));
        all.into_iter().find(|entry| self.name(*entry) == name.as_bytes()).unwrap()
    }

    /// Where a tag is.
    pub fn tag_at(block: u64, tag: usize) -> u64 {
        block * BLOCK_SIZE + (TAGS_START + tag * 4) as u64
    }

    /// Replaces the head of an entry, with a right checksum.
    pub fn edit_entry(&mut self, entry: EntryAt, edit: impl FnOnce(&mut EntryHead)) {
        let owner = self.get::<BlockHead>(entry.block * BLOCK_SIZE).owner.get();
        let name = self.name(entry);
        let mut head: EntryHead = self.get(entry.head);
        edit(&mut head);
        let head = EntryHead::new(owner, &name, head.hash.get(), head.ino.get(), head.kind, self.seed());
        self.put(entry.head, &head);
    }

    /// Adds an entry to the leaf of a directory where its hash belongs, with everything right but what is asked for.
    pub fn add_entry(&mut self, directory: u64, name: &[u8], ino: u64, kind: u8) -> EntryAt {
        let hash = self.free_hash(directory, name);
        let block = self.leaf_for(directory, hash);
        self.add_entry_to(block, directory, name, hash, ino, kind)
    }

    /// A hash for a new entry of a directory, as the engine chooses one.
    fn free_hash(&self, directory: u64, name: &[u8]) -> u64 {
        let range = self.seed().name_range(name);
        let entries = self.tree(directory).1.into_iter().flat_map(|leaf| self.entries(leaf));
        let hashes = entries.map(|entry| self.get::<EntryHead>(entry.head).hash.get());
        let mut used: Vec<u64> = hashes.filter(|hash| range.contains(*hash)).collect();
        used.sort_unstable();
        range.free_hash(&used).unwrap_or(range.first)
    }

    /// Adds an entry to a certain leaf.
    pub fn add_entry_to(
        &mut self,
        block: u64,
        directory: u64,
        name: &[u8],
        hash: u64,
        ino: u64,
        kind: u8,
    ) -> EntryAt {
        let entries = self.entries(block);
        let end = |entry: &EntryAt| {
            let size = lodefs_layout::directory::entry_size(self.name(*entry).len());
            (entry.head - block * BLOCK_SIZE) as usize + size
        };
        let position = entries.iter().map(end).max().unwrap_or(HEAP_START);
        let free = (0..TAGS).find(|tag| entries.iter().all(|entry| entry.tag != *tag)).unwrap();
        let head = EntryHead::new(directory, name, hash, ino, kind, self.seed());
        let at = block * BLOCK_SIZE + position as u64;
        assert!(position + size_of::<EntryHead>() + name.len() <= BLOCK_SIZE as usize, "the leaf is full");
        self.put(at, &head);
        self.put(at + size_of::<EntryHead>() as u64, name);
        self.put(Self::tag_at(block, free), &tag(self.seed().names.tag_bits(hash), position).to_le_bytes());
        EntryAt { block, tag: free, head: at }
    }

    /// The leaf into which a hash belongs.
    pub fn leaf_for(&self, directory: u64, hash: u64) -> u64 {
        let mut block = self.inode(directory).root.get();
        while self.get::<BlockHead>(block * BLOCK_SIZE).claimed_level() > 0 {
            let node: Node = self.get(block * BLOCK_SIZE);
            let children = node.children();
            let index = children.partition_point(|child| child.hash.get() <= hash).saturating_sub(1);
            block = children[index].block.get();
        }
        block
    }

    /// Turns over the bit of a block in the saved bitmap, with a right checksum.
    pub fn flip_saved(&mut self, block: u64) {
        let index = block / COVERED_BLOCKS;
        let at = (self.superblock().saved_bitmap.start.get() + index) * BLOCK_SIZE;
        let old: BitmapBlock = self.get(at);
        let mut words = old.words;
        let bit = block % COVERED_BLOCKS;
        let word = &mut words[(bit / 64) as usize];
        *word = (word.get() ^ (1 << (bit % 64))).into();
        self.put(at, &BitmapBlock::new(index, old.update.get(), words, self.seed()));
    }
}

fn range(at: u64, size: usize) -> Range<usize> {
    at as usize..at as usize + size
}
