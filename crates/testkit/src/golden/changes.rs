//! What is done on a furnished volume before it crashes.

use std::sync::Arc;

use lodefs_core::{
    Fallocate, Flags, Fs, NewKind, Node, RenameMode, Result, SetAttr, SetTime, Time, XattrMode,
};
use lodefs_sync::set_thread_number;

use super::furnish::{bytes, new};

/// Operations of every kind, by two threads, so that their records are in two lanes.
pub(super) fn of_every_kind(fs: &Arc<Fs>) -> Result<()> {
    set_thread_number(0);
    names(fs, &fs.root()?)?;
    set_thread_number(1);
    files(fs, &fs.root()?)?;
    set_thread_number(0);
    numbers(fs, &fs.root()?)
}

fn names(fs: &Arc<Fs>, root: &Node) -> Result<()> {
    let made = fs.create(root, b"made later", &new(NewKind::Directory))?;
    fs.create(&made, b"file", &new(NewKind::File))?;
    fs.create(&made, b"link", &new(NewKind::Symlink(b"file")))?;
    fs.link(&fs.lookup(root, b"plain")?, &made, b"another name")?;
    fs.unlink(root, b"hard link")?;
    fs.rmdir(root, b"empty directory")?;
    fs.unlink(root, b"long link")?;
    fs.rename(root, b"few", &made, b"moved", RenameMode::Replace, (0, 0))?;
    fs.rename(root, b"fifo", root, b"socket", RenameMode::Replace, (0, 0))?;
    fs.rename(root, b"a", &made, b"link", RenameMode::Exchange, (0, 0))?;
    let wide = fs.lookup(root, b"wide")?;
    for i in 0..4 {
        fs.create(&wide, format!("later {i} {}", "l".repeat(200)).as_bytes(), &new(NewKind::File))?;
    }
    Ok(())
}

fn files(fs: &Fs, root: &Node) -> Result<()> {
    let write = |name: &[u8], offset, size| fs.write(&fs.lookup(root, name)?, offset, &bytes(size), false);
    write(b"empty", 3000, 10_000)?;
    write(b"plain", 48_000, 7000)?;
    write(b"allocated", 6000, 100)?;
    fs.append(&fs.lookup(root, b"append only")?, b", and more", false)?;
    let cut = fs.lookup(root, b"cut")?;
    fs.set_attr(&cut, &SetAttr { size: Some(5), ..SetAttr::default() })?;
    let scattered = fs.lookup(root, b"scattered")?;
    fs.fallocate(&scattered, Fallocate::PunchHole, 80_000, 200_000)?;
    fs.fallocate(&fs.lookup(root, b"some")?, Fallocate::ZeroRange { keep_size: true }, 0, 20_000)
}

fn numbers(fs: &Fs, root: &Node) -> Result<()> {
    let attributes = fs.lookup(root, b"attributes")?;
    fs.set_xattr(&attributes, b"user.large", &bytes(5000), XattrMode::Replace)?;
    fs.remove_xattr(&attributes, b"user.small")?;
    fs.set_flags(&fs.lookup(root, b"immutable")?, Flags::empty(), Some(7))?;
    let time = SetTime::At(Time { s: -86_400, ns: 5 });
    let change = SetAttr { perm: Some(0o4711), uid: Some(3), mtime: Some(time), ..SetAttr::default() };
    fs.set_attr(&fs.lookup(root, b"set-id")?, &change)?;
    Ok(())
}

/// After the last sync: what a power failure takes back on a volume of pages.
pub(super) fn of_the_last_moment(fs: &Arc<Fs>) -> Result<()> {
    let root = fs.root()?;
    let late = fs.create(&root, b"late", &new(NewKind::File))?;
    fs.write(&late, 0, &bytes(5000), false)?;
    fs.unlink(&root, b"punched")?;
    fs.rename(&root, b"zeroed", &root, b"zeroed, and renamed", RenameMode::Replace, (0, 0))?;
    fs.set_xattr(&fs.lookup(&root, b"dax")?, b"user.late", b"yes", XattrMode::Create)
}

/// Takes the names from files and directories that stay open, and makes one that never had a name.
pub(super) fn that_leave_orphans(fs: &Arc<Fs>) -> Result<Vec<Node>> {
    let root = fs.root()?;
    let mut open = Vec::new();
    for name in [&b"plain"[..], b"hard link", b"scattered", b"attributes", b"longest link", b"reserved"] {
        open.push(fs.lookup(&root, name)?);
        fs.unlink(&root, name)?;
    }
    open.push(fs.lookup(&root, b"empty directory")?);
    fs.rmdir(&root, b"empty directory")?;
    let nameless = fs.tmpfile(&root, &new(NewKind::File))?;
    fs.write(&nameless, 0, &bytes(20_000), false)?;
    open.push(nameless);
    Ok(open)
}
