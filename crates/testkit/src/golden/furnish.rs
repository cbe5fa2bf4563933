//! A volume with everything that version 1 of the format has.

use std::collections::BTreeMap;
use std::sync::Arc;

use lodefs_core::{
    Fallocate, Flags, Fs, NewInode, NewKind, Node, RenameMode, Result, SetAttr, SetTime, Time, XattrMode,
};
use lodefs_layout::checksum::Seed;
use lodefs_layout::inode_map::CHUNK_INODES;

use crate::hostile::sample::acl;

/// Blocks of a file that does not fit into one extent block.
const SCATTERED: u64 = 140;
/// Files in the directory `/wide`: several leaves below a node.
const WIDE: u32 = 48;
/// Names among which some share a bucket.
const CANDIDATES: u32 = 60_000;
/// Names in the directory of [`tree`]: more leaves than one node has room for.
const NAMES: u32 = 1600;

/// An inode that belongs to an ordinary user.
pub(super) fn new(kind: NewKind<'_>) -> NewInode<'_> {
    NewInode { kind, perm: 0o640, umask: 0o022, uid: 1000, gid: 100 }
}

/// Bytes that differ from place to place, but not much.
pub(super) fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 1000) as u8 + 1).collect()
}

/// Makes everything.
pub(super) fn furnish(fs: &Arc<Fs>) -> Result<()> {
    let root = fs.root()?;
    files(fs, &root)?;
    ranges(fs, &root)?;
    links_and_nodes(fs, &root)?;
    attributes(fs, &root)?;
    flags(fs, &root)?;
    owners_and_times(fs, &root)?;
    directories(fs, &root)
}

fn file(fs: &Fs, dir: &Node, name: &str) -> Result<Node> {
    fs.create(dir, name.as_bytes(), &new(NewKind::File))
}

/// Extents in the inode, and in one and more extent blocks.
fn files(fs: &Fs, root: &Node) -> Result<()> {
    file(fs, root, "empty")?;
    let plain = file(fs, root, "plain")?;
    fs.write(&plain, 0, &bytes(50_000), false)?;
    fs.link(&plain, root, b"hard link")?;
    for (name, count) in [("few", 3), ("some", 20), ("scattered", SCATTERED)] {
        let scattered = file(fs, root, name)?;
        for i in 0..count {
            fs.write(&scattered, i * 8192, &[i as u8 + 1; 100], false)?;
        }
    }
    let sparse = file(fs, root, "sparse")?;
    fs.write(&sparse, (1 << 40) + 5, b"far away", false)?;
    Ok(())
}

/// Blocks without data, and files that were cut.
fn ranges(fs: &Fs, root: &Node) -> Result<()> {
    let reserved = file(fs, root, "reserved")?;
    fs.write(&reserved, 0, &bytes(100), false)?;
    fs.fallocate(&reserved, Fallocate::Allocate { keep_size: true }, 0, 30_000)?;
    let allocated = file(fs, root, "allocated")?;
    fs.fallocate(&allocated, Fallocate::Allocate { keep_size: false }, 5000, 10_000)?;
    let punched = file(fs, root, "punched")?;
    fs.write(&punched, 0, &bytes(30_000), false)?;
    fs.fallocate(&punched, Fallocate::PunchHole, 5000, 12_000)?;
    let zeroed = file(fs, root, "zeroed")?;
    fs.write(&zeroed, 0, &bytes(30_000), false)?;
    fs.fallocate(&zeroed, Fallocate::ZeroRange { keep_size: false }, 5000, 12_000)?;
    let cut = file(fs, root, "cut")?;
    fs.write(&cut, 0, &bytes(30_000), false)?;
    for size in [10_001, 50_000] {
        fs.set_attr(&cut, &SetAttr { size: Some(size), ..SetAttr::default() })?;
    }
    Ok(())
}

/// Symbolic links in and outside of the inode, and inodes of every other kind.
fn links_and_nodes(fs: &Fs, root: &Node) -> Result<()> {
    for (name, size) in
        [("short link", 1), ("longest inline link", 96), ("long link", 97), ("longest link", 4095)]
    {
        fs.create(root, name.as_bytes(), &new(NewKind::Symlink(&vec![b'x'; size])))?;
    }
    for (name, kind) in [
        ("fifo", NewKind::Fifo),
        ("socket", NewKind::Socket),
        ("char", NewKind::CharDevice(0x0103)),
        ("block", NewKind::BlockDevice(0x000f_ff01)),
    ] {
        fs.create(root, name.as_bytes(), &new(kind))?;
    }
    file(fs, root, "before")?;
    fs.rename(root, b"before", root, b"moved away", RenameMode::Whiteout, (0, 0))
}

/// Extended attributes of all kinds and sizes.
fn attributes(fs: &Fs, root: &Node) -> Result<()> {
    let named = file(fs, root, "attributes")?;
    for (name, value) in [
        ("user.small", &b"value"[..]),
        ("user.empty", b""),
        ("user.large", &bytes(20_000)),
        ("security.label", &[0; 40]),
        ("trusted.one", b"1"),
    ] {
        fs.set_xattr(&named, name.as_bytes(), value, XattrMode::Set)?;
    }
    let listed = file(fs, root, "access list")?;
    fs.set_xattr(&listed, b"system.posix_acl_access", &acl(), XattrMode::Set)?;
    let default = fs.create(root, b"default list", &new(NewKind::Directory))?;
    fs.set_xattr(&default, b"system.posix_acl_default", &acl(), XattrMode::Set)?;
    file(fs, &default, "file")?;
    fs.create(&default, b"directory", &new(NewKind::Directory))?;
    Ok(())
}

/// Every flag, and project identifiers.
fn flags(fs: &Fs, root: &Node) -> Result<()> {
    let projects = fs.create(root, b"projects", &new(NewKind::Directory))?;
    fs.set_flags(&projects, Flags::PROJINHERIT | Flags::DAX, Some(42))?;
    file(fs, &projects, "file")?;
    let all = [
        ("immutable", Flags::IMMUTABLE),
        ("append only", Flags::APPEND),
        ("dax", Flags::DAX),
        ("others", Flags::SYNC | Flags::NOATIME | Flags::NODUMP),
    ];
    for (name, flags) in all {
        let flagged = file(fs, root, name)?;
        fs.write(&flagged, 0, name.as_bytes(), false)?;
        fs.set_flags(&flagged, flags, Some(u32::MAX))?;
    }
    Ok(())
}

/// The first and last numbers that there can be.
fn owners_and_times(fs: &Fs, root: &Node) -> Result<()> {
    let at = |s, ns| Some(SetTime::At(Time { s, ns }));
    for (name, perm, owner, atime, mtime) in [
        ("set-id", 0o6755, 0, at(0, 0), at(0, 1)),
        ("long ago", 0o000, 65_534, at(-1, 999_999_999), at(-2_000_000_000, 1)),
        ("far ahead", 0o1777, u32::MAX - 1, at(1 << 33, 123_456_789), at(1 << 40, 0)),
    ] {
        let node = file(fs, root, name)?;
        let change = SetAttr {
            perm: Some(perm),
            uid: Some(owner),
            gid: Some(owner),
            atime,
            mtime,
            ..SetAttr::default()
        };
        fs.set_attr(&node, &change)?;
    }
    Ok(())
}

/// Directories within each other, one with leaves below a node, names of all sorts, and inodes that were given back.
fn directories(fs: &Arc<Fs>, root: &Node) -> Result<()> {
    let directory = |dir: &Node, name: &[u8]| fs.create(dir, name, &new(NewKind::Directory));
    directory(root, b"empty directory")?;
    let mut at = directory(root, b"a")?;
    for name in [&b"b"[..], b"c", b"d"] {
        at = directory(&at, name)?;
    }
    let deep = file(fs, &at, "file")?;
    fs.write(&deep, 10, &bytes(9000), false)?;
    let names = directory(root, b"names")?;
    for name in [&b"x"[..], b"a\nb", b"\xff\xfe", "\u{e4}\u{1f40c}".as_bytes(), &[b'n'; 255]] {
        fs.create(&names, name, &new(NewKind::File))?;
    }
    let wide = directory(root, b"wide")?;
    let name = |i: u32| format!("{i} {}", "w".repeat(200)).into_bytes();
    let mut made = Vec::new();
    for i in 0..WIDE {
        made.push((i, fs.create(&wide, &name(i), &new(NewKind::File))?.ino()));
    }
    // A number that was used before.
    fs.unlink(&wide, &name(3))?;
    file(fs, &wide, "again")?;
    let chunk = made[WIDE as usize / 2].1.0 / CHUNK_INODES;
    for (i, ino) in made {
        let is_single = i == 5;
        if is_single || ino.0 / CHUNK_INODES == chunk {
            fs.unlink(&wide, &name(i))?;
        }
    }
    Ok(())
}

/// Makes a directory with nodes below a node. One file has all the names in it.
pub(super) fn tree(fs: &Arc<Fs>) -> Result<()> {
    let root = fs.root()?;
    let tree = fs.create(&root, b"tree", &new(NewKind::Directory))?;
    let file = file(fs, &tree, "file")?;
    // In the order of their hashes, so that every leaf that splits stays half full.
    let seed = Seed::of_volume(&fs.info().uuid);
    let mut names: Vec<String> = (0..NAMES).map(|i| format!("{}{i}", "t".repeat(240))).collect();
    names.sort_by_key(|name| seed.name_range(name.as_bytes()).first);
    names.iter().try_for_each(|name| fs.link(&file, &tree, name.as_bytes()))
}

/// Makes a directory in which names share buckets of hashes, besides everything else.
pub(super) fn keyed(fs: &Arc<Fs>, seed: Seed) -> Result<()> {
    furnish(fs)?;
    let root = fs.root()?;
    let shared = fs.create(&root, b"shared", &new(NewKind::Directory))?;
    let file = file(fs, &shared, "file")?;
    let mut by_bucket: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for i in 0..CANDIDATES {
        let name = format!("shared {i}");
        by_bucket.entry(seed.name_range(name.as_bytes()).first).or_default().push(name);
    }
    for names in by_bucket.values().filter(|names| names.len() > 1) {
        names.iter().try_for_each(|name| fs.link(&file, &shared, name.as_bytes()))?;
    }
    // Enough for several leaves.
    (0..WIDE).try_for_each(|i| fs.link(&file, &shared, format!("{i} {}", "s".repeat(200)).as_bytes()))
}
