//! Random damage: bytes that change, and structures that change under a right checksum. Nothing may panic or go on for
//! ever, and what was repaired is clean.
//!
//! `LODEFS_FSCK_CASES` sets the number of cases, `LODEFS_FSCK_FIRST` the first; a failing case prints its number.

use std::sync::LazyLock;

use lodefs_core::fsck::{Finding, Outcome};
use lodefs_core::{Fs, Kind, Node, OpenOptions};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::directory::{EntryHead, tag};
use lodefs_layout::extent::{ExtentBlockHead, ExtentSlot, InlineExtent};
use lodefs_layout::inode::SLOT_SIZE;
use lodefs_layout::inode_map::Entry;
use lodefs_layout::journal::{RECORD_HEAD_SIZE, WriteHead, seal};
use lodefs_layout::state::State;
use lodefs_pmem::{Access, Domain, Medium};
use zerocopy::{FromBytes, IntoBytes};

use crate::image::{EntryAt, Image};
use crate::sample;

/// A volume that is small, so that a case takes little time and space is scarce.
const SIZE: u64 = 5 << 19;

/// Cases in a normal run.
const CASES: u64 = 200;

/// The small volume, and where its structures are.
struct Target {
    image: Image,
    inodes: Vec<u64>,
    /// Owner and block of extent blocks.
    chains: Vec<(u64, u64)>,
    leaves: Vec<(u64, u64)>,
    nodes: Vec<u64>,
    entries: Vec<EntryAt>,
    /// Blocks of metadata of any kind.
    metadata: Vec<u64>,
}

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let image = Image::made_with(SIZE, sample::fill);
    let inodes: Vec<u64> = sample::contents(&image).values().map(|content| content.ino).collect();
    let (mut chains, mut leaves, mut nodes, mut entries) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut metadata: Vec<u64> = (0..image.superblock().data.start.get()).collect();
    metadata.push(image.last_block() / BLOCK_SIZE);
    for ino in &inodes {
        let slot = image.inode(*ino);
        match Kind::from_mode(slot.mode.get()) {
            Some(Kind::File) => chains.extend(image.chain(*ino).into_iter().map(|block| (*ino, block))),
            Some(Kind::Directory) => {
                let tree = image.tree(*ino);
                nodes.extend(tree.0);
                leaves.extend(tree.1.iter().map(|block| (*ino, *block)));
                entries.extend(tree.1.iter().flat_map(|block| image.entries(*block)));
            }
            _ => metadata.push(slot.root.get()),
        }
        metadata.push(slot.xattr_block.get());
    }
    for chunk in 0..2 {
        metadata.extend((0..16).map(|i| image.chunk(chunk) + i));
    }
    metadata.extend(chains.iter().chain(&leaves).map(|(_, block)| *block));
    metadata.extend(&nodes);
    Target { image, inodes, chains, leaves, nodes, entries, metadata }
});

/// A source of numbers that is the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// A number that is likely to matter: small, a block or an inode in use, near a limit, or anything.
    fn interesting(&mut self) -> u64 {
        match self.below(8) {
            0 => self.below(4),
            1 => *self.of(&TARGET.metadata),
            2 => *self.of(&TARGET.inodes),
            3 => u64::MAX - self.below(3),
            4 => (1 << self.below(64)) - self.below(2),
            5 => SIZE / BLOCK_SIZE - self.below(3),
            6 => self.below(SIZE / BLOCK_SIZE),
            _ => self.next(),
        }
    }
}

/// Damages the image once.
fn damage(image: &mut Image, numbers: &mut Numbers) {
    let seed = TARGET.image.seed();
    match numbers.below(14) {
        0 => {
            let block = *numbers.of(&TARGET.metadata);
            let at = block * BLOCK_SIZE + numbers.below(BLOCK_SIZE);
            image.bytes_mut()[at as usize] ^= 1 << numbers.below(8);
        }
        1 => {
            let at = numbers.of(&TARGET.metadata) * BLOCK_SIZE + numbers.below(BLOCK_SIZE / 8) * 8;
            image.put(at, &numbers.interesting().to_le_bytes());
        }
        2 => {
            let (from, to) = (*numbers.of(&TARGET.metadata), *numbers.of(&TARGET.metadata));
            let bytes = image.bytes()[(from * BLOCK_SIZE) as usize..][..BLOCK_SIZE as usize].to_vec();
            image.put(to * BLOCK_SIZE, &bytes[..]);
        }
        3 => {
            let block = *numbers.of(&TARGET.metadata);
            let value = numbers.next() as u8;
            image.bytes_mut()[(block * BLOCK_SIZE) as usize..][..BLOCK_SIZE as usize].fill(value & 1);
        }
        4..7 => damage_inode(image, numbers),
        7 => {
            let chunk = numbers.below(TARGET.image.superblock().total_blocks.get() * 4 / 256);
            let at = TARGET.image.map_at(chunk);
            image.put(at, &Entry::new(chunk, numbers.interesting(), seed));
        }
        8 => damage_extents(image, numbers),
        9 => damage_node(image, numbers),
        10 | 11 => damage_entry(image, numbers),
        12 => {
            let mut state = TARGET.image.state();
            let field = numbers.below(10);
            let at = (8 + field * 8) as usize;
            state.as_mut_bytes()[at.min(72)..][..8].copy_from_slice(&numbers.interesting().to_le_bytes());
            let at = TARGET.image.state_at(State::slot_of(state.update.get()));
            image.put(at, &state.sealed(seed));
        }
        _ => damage_journal(image, numbers),
    }
}

fn damage_inode(image: &mut Image, numbers: &mut Numbers) {
    let ino = *numbers.of(&TARGET.inodes);
    let at = TARGET.image.inode_at(ino);
    let mut slot: lodefs_layout::inode::InodeSlot = image.get(at);
    let field = 4 + numbers.below((SLOT_SIZE as u64 - 4) / 4) * 4;
    let value = numbers.interesting();
    let bytes = slot.as_mut_bytes();
    if numbers.below(2) == 0 && field + 8 <= SLOT_SIZE as u64 {
        bytes[field as usize..][..8].copy_from_slice(&value.to_le_bytes());
    } else {
        bytes[field as usize..][..4].copy_from_slice(&(value as u32).to_le_bytes());
    }
    image.put(at, &slot.sealed(ino, TARGET.image.seed()));
}

fn damage_extents(image: &mut Image, numbers: &mut Numbers) {
    let seed = TARGET.image.seed();
    let (ino, block) = *numbers.of(&TARGET.chains);
    if numbers.below(3) == 0 {
        let next = numbers.interesting();
        image.put(block * BLOCK_SIZE, &ExtentBlockHead::new(ino, next, block, seed));
        return;
    }
    let at = *numbers.of(&TARGET.image.extent_slots(block));
    let mut extent: InlineExtent = image.get::<ExtentSlot>(at).extent;
    match numbers.below(3) {
        0 => extent.logical = numbers.interesting().into(),
        1 => extent.physical = numbers.interesting().into(),
        _ => extent.blocks = (numbers.interesting() as u32).into(),
    }
    image.put(at, &ExtentSlot::new(extent, ino, seed));
}

fn damage_node(image: &mut Image, numbers: &mut Numbers) {
    let block = *numbers.of(&TARGET.nodes);
    let (child, value) = (numbers.next() as usize, numbers.interesting());
    match numbers.below(4) {
        0 => image.edit_children(block, |children| {
            let index = child % children.len().max(1);
            if let Some(child) = children.get_mut(index) {
                child.block = value.into();
            }
        }),
        1 => image.edit_children(block, |children| {
            let index = child % children.len().max(1);
            if let Some(child) = children.get_mut(index) {
                child.hash = value.into();
            }
        }),
        2 => image.edit_children(block, |children| children.truncate(child % 3)),
        _ => image.edit_children(block, |children| {
            let again = children.first().copied().unwrap_or_default();
            children.push(again);
        }),
    }
}

fn damage_entry(image: &mut Image, numbers: &mut Numbers) {
    let entry = *numbers.of(&TARGET.entries);
    let value = numbers.interesting();
    match numbers.below(6) {
        0 => edit_entry(image, entry, |head| head.ino = value.into()),
        1 => edit_entry(image, entry, |head| head.kind = value as u8),
        2 => edit_entry(image, entry, |head| head.hash = value.into()),
        3 => image.put(Image::tag_at(entry.block, entry.tag), &(value as u32).to_le_bytes()),
        4 => image.put(Image::tag_at(entry.block, value as usize % 128), &0_u32.to_le_bytes()),
        _ => {
            // One more tag for an entry that is there.
            let position = (entry.head - entry.block * BLOCK_SIZE) as usize;
            let same = tag(TARGET.image.get::<EntryHead>(entry.head).hash.get(), position);
            image.put(Image::tag_at(entry.block, value as usize % 128), &same.to_le_bytes());
        }
    }
}

/// Replaces the head of an entry as it was made, with a right checksum.
fn edit_entry(image: &mut Image, entry: EntryAt, edit: impl FnOnce(&mut EntryHead)) {
    let owner = TARGET.leaves.iter().find(|(_, block)| *block == entry.block).unwrap().0;
    let mut head: EntryHead = TARGET.image.get(entry.head);
    edit(&mut head);
    let name = TARGET.image.name(entry);
    let head = EntryHead::new(owner, &name, head.hash.get(), head.ino.get(), head.kind, TARGET.image.seed());
    image.put(entry.head, &head);
}

/// Adds a record with a random write, and takes back that the volume was closed.
fn damage_journal(image: &mut Image, numbers: &mut Numbers) {
    let seed = TARGET.image.seed();
    let mut state = TARGET.image.state();
    state.flags = 0.into();
    image.put(TARGET.image.state_at(State::slot_of(state.update.get())), &state.sealed(seed));
    let size = numbers.below(200) + 1;
    let offset = numbers.of(&TARGET.metadata) * BLOCK_SIZE + numbers.below(BLOCK_SIZE);
    let claimed = if numbers.below(4) == 0 { numbers.next() as u32 } else { size as u32 };
    let head = WriteHead { offset: offset.into(), size: claimed.into(), reserved: 0.into() };
    let mut bytes = vec![0; RECORD_HEAD_SIZE];
    bytes.extend(head.as_bytes());
    bytes.extend((0..size.next_multiple_of(8)).map(|_| numbers.next() as u8));
    let generation = state.generation.get();
    seal(&mut bytes, generation, numbers.interesting(), seed);
    let superblock = TARGET.image.superblock();
    let half = superblock.journal.blocks.get() / (2 * u64::from(superblock.lanes.get())) * BLOCK_SIZE;
    image.put(superblock.journal.start.get() * BLOCK_SIZE + generation % 2 * half, &bytes[..]);
}

/// Prints the number of the case if it fails.
struct Case(u64);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run it again with LODEFS_FSCK_FIRST={} LODEFS_FSCK_CASES=1", self.0);
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn whatever_is_damaged_is_found_and_repaired() {
    let first = setting("LODEFS_FSCK_FIRST", 0);
    for number in first..first + setting("LODEFS_FSCK_CASES", CASES) {
        let _case = Case(number);
        let mut numbers = Numbers(number);
        let mut image = TARGET.image.clone();
        for _ in 0..=numbers.below(6) {
            damage(&mut image, &mut numbers);
        }
        run_case(&image, &mut numbers);
    }
}

fn run_case(image: &Image, numbers: &mut Numbers) {
    let checked = image.check();
    use_it(image);
    let domain = *numbers.of(&[Domain::Volatile, Domain::Page, Domain::MemoryController]);
    let (report, repaired) = image.repair_as(domain, &mut |_| true);
    match (checked, report) {
        (Ok(_), Ok(report)) => {
            let left: Vec<&Finding> = report.left().collect();
            let lacks_room = left.iter().all(|finding| match &finding.outcome {
                Outcome::Failed(reason) => reason.contains("No space left"),
                _ => false,
            });
            assert!(lacks_room, "left: {left:#?}");
            let again = repaired.check().unwrap();
            assert!(!left.is_empty() || again.findings.is_empty(), "still there: {:#?}", again.findings);
            let used = repaired.open_and(|fs| walk(fs, &fs.root().unwrap(), 0));
            if left.is_empty() {
                assert_eq!(used.unwrap().check().unwrap().findings, []);
            }
        }
        (Err(before), Err(after)) => {
            assert_eq!(before.to_string(), after.to_string());
            assert!(repaired == *image, "what cannot be repaired is not touched");
        }
        (checked, report) => panic!("check says {checked:?}, repair says {report:?}"),
    }
    // Some of it is declined.
    let (_, partly) = image.repair(&mut |_| numbers.below(2) == 0);
    let _ = partly.check();
    use_it(&partly);
    if partly.check().is_ok() {
        let (report, repaired) = partly.repair(&mut |_| true);
        let left = report.unwrap().left().count();
        assert!(left > 0 || repaired.check().unwrap().findings.is_empty());
    }
}

/// Opens a volume, if that is possible, and looks at everything; only that it ends matters.
fn use_it(image: &Image) {
    let medium = Medium::from_image(image.bytes(), Domain::Volatile, Access::ReadOnly).unwrap();
    if let Ok(fs) = Fs::open(medium, &OpenOptions { read_only: true, ..OpenOptions::default() })
        && let Ok(root) = fs.root()
    {
        walk(&fs, &root, 0);
    }
}

fn walk(fs: &Fs, node: &Node, depth: u32) {
    let Ok(attr) = fs.attr(node) else { return };
    let mut buffer = vec![0; 8192];
    let _ = fs.read(node, 0, &mut buffer);
    let _ = fs.read(node, attr.size.saturating_sub(10), &mut buffer);
    let _ = fs.read_link(node);
    let _ = fs.list_xattr(node);
    let mut names = Vec::new();
    let _ = fs.read_dir(node, 0, &mut |entry| {
        names.push(entry.name.clone());
        names.len() < 1000
    });
    for name in names.iter().filter(|name| *name != b"." && *name != b"..") {
        if let Ok(child) = fs.lookup(node, name)
            && depth < 6
        {
            walk(fs, &child, depth + 1);
        }
    }
}

#[test]
fn any_superblock_is_answered() {
    for number in 0..400 {
        let _case = Case(number);
        let mut numbers = Numbers(number);
        let mut image = TARGET.image.clone();
        let mut superblock = image.superblock();
        for _ in 0..=numbers.below(3) {
            let at = 12 + numbers.below((224 - 12) / 4) as usize * 4;
            let value = numbers.interesting().to_le_bytes();
            let size = 8.min(224 - at);
            superblock.as_mut_bytes()[at..at + size].copy_from_slice(&value[..size]);
        }
        image.put(0, &superblock.sealed());
        let _ = image.check();
        use_it(&image);
        let _ = image.repair(&mut |_| true);
    }
}

#[test]
fn any_length_is_answered() {
    for size in
        [0, 1, 4095, 4096, 8191, 8192, 12_288, 40_000, 1 << 20, SIZE as usize - 4096, SIZE as usize - 1]
    {
        let image = Image::of(TARGET.image.bytes()[..size].to_vec());
        if size > 0 {
            assert!(image.check().is_err());
            use_it(&image);
            assert!(image.repair(&mut |_| true).0.is_err());
        }
    }
}

#[test]
fn bytes_that_are_no_volume_are_no_volume() {
    let mut numbers = Numbers(1);
    for _ in 0..20 {
        let bytes: Vec<u8> = (0..65_536).map(|_| numbers.next() as u8).collect();
        let image = Image::of(bytes);
        assert!(matches!(image.check(), Err(lodefs_core::Error::NotAVolume)));
        assert!(<[u8; 4]>::read_from_prefix(image.bytes()).is_ok());
    }
}
