//! What can be seen of a volume, all at once: every name, every attribute, every byte.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lodefs_core::{Fs, Kind as InodeKind, Node as Inode, SeekTarget};
use rustix::io::Errno;

use crate::engine;
use crate::model::content::PAGE;
use crate::operation::{Status, xflag};
use crate::path::TreePath;

/// Files up to this size are read from start to end, larger ones only where they have data.
const READ_WHOLE_MAX: u64 = 64 << 10;

/// The pages of a file that are not all zeros, by number.
pub(crate) type Pages = BTreeMap<u64, Box<[u8; PAGE as usize]>>;

/// One inode, as a name shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: Status,
    /// Flags, of a file or directory.
    pub(crate) xflags: Option<u32>,
    /// Target of a symbolic link.
    pub(crate) target: Option<String>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

/// Everything on a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// By path.
    pub(crate) entries: BTreeMap<TreePath, Seen>,
    /// Content of the regular files, by inode number.
    pub(crate) files: BTreeMap<u64, Pages>,
}

impl View {
    /// Looks at everything on an open volume.
    ///
    /// # Errors
    /// What cannot be looked at, and why.
    pub(crate) fn of(fs: &Arc<Fs>) -> Result<Self, String> {
        let mut view = Self::default();
        let root = fs.root().map_err(told("the root directory"))?;
        view.add(fs, TreePath::ROOT, &root)?;
        Ok(view)
    }

    #[expect(clippy::needless_pass_by_value, reason = "the path is kept in errors and entries")]
    fn add(&mut self, fs: &Arc<Fs>, path: TreePath, inode: &Inode) -> Result<(), String> {
        let seen = look_at(fs, &path, inode)?;
        let (kind, ino, size) = (inode.kind(), seen.status.ino, seen.status.size);
        if kind == InodeKind::File && !self.files.contains_key(&ino) {
            self.files.insert(ino, read_pages(fs, inode, size).map_err(told(&path))?);
        }
        if kind == InodeKind::Directory {
            for (name, kind) in list(fs, inode).map_err(told(&path))? {
                let child_path = path.join(&engine::text(&name));
                let child = fs.lookup(inode, &name).map_err(told(&child_path))?;
                if child.kind() != kind {
                    return Err(format!("{child_path}: listed as {kind:?}, is {:?}", child.kind()));
                }
                self.add(fs, child_path, &child)?;
            }
        }
        if self.entries.insert(path.clone(), seen).is_some() {
            return Err(format!("{path}: listed twice"));
        }
        Ok(())
    }
}

fn told(what: impl fmt::Display) -> impl FnOnce(lodefs_core::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn look_at(fs: &Fs, path: &TreePath, inode: &Inode) -> Result<Seen, String> {
    let attr = fs.attr(inode).map_err(told(path))?;
    let flagged = matches!(inode.kind(), InodeKind::File | InodeKind::Directory);
    let xflags = flagged.then(|| attr.flags.bits() & xflag::ALL);
    let target = match inode.kind() {
        InodeKind::Symlink => Some(engine::text(&fs.read_link(inode).map_err(told(path))?)),
        _ => None,
    };
    let mut xattrs = BTreeMap::new();
    let names = fs.list_xattr(inode).map_err(told(path))?;
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = fs.get_xattr(inode, name).map_err(told(path))?;
        xattrs.insert(engine::text(name), value);
    }
    Ok(Seen { status: engine::status(&attr), xflags, target, xattrs })
}

fn list(fs: &Fs, directory: &Inode) -> lodefs_core::Result<Vec<(Vec<u8>, InodeKind)>> {
    let mut entries = Vec::new();
    fs.read_dir(directory, 0, &mut |entry| {
        if entry.name != b"." && entry.name != b".." {
            entries.push((entry.name.clone(), entry.kind));
        }
        true
    })?;
    Ok(entries)
}

fn read_pages(fs: &Fs, inode: &Inode, size: u64) -> lodefs_core::Result<Pages> {
    let mut pages = Pages::new();
    if size <= READ_WHOLE_MAX {
        read_range(fs, inode, 0, size, &mut pages)?;
        return Ok(pages);
    }
    let mut at = 0;
    loop {
        at = match fs.seek(inode, at, SeekTarget::Data) {
            Err(lodefs_core::Error::Refused(Errno::NXIO)) => return Ok(pages),
            data => data? / PAGE * PAGE,
        };
        let end = fs.seek(inode, at, SeekTarget::Hole)?;
        read_range(fs, inode, at, end, &mut pages)?;
        at = end;
    }
}

/// Reads from `start`, where a page begins, to `end`.
fn read_range(fs: &Fs, inode: &Inode, start: u64, end: u64, pages: &mut Pages) -> lodefs_core::Result<()> {
    let mut bytes = vec![0; (end - start) as usize];
    let count = fs.read(inode, start, &mut bytes)?;
    if count != bytes.len() {
        // Not to be had from a file of that size; the errno says as much as there is to say.
        return Err(Errno::IO.into());
    }
    for (number, part) in (start / PAGE..).zip(bytes.chunks(PAGE as usize)) {
        if part.iter().any(|byte| *byte != 0) {
            let mut page = Box::new([0; PAGE as usize]);
            page[..part.len()].copy_from_slice(part);
            pages.insert(number, page);
        }
    }
    Ok(())
}
