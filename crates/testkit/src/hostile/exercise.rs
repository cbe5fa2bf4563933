//! Looking at all of a volume that may be damaged, and using it. Errors are answers; only that it ends matters, and that
//! what was said fits together.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use lodefs_core::{
    Error, Fallocate, Flags, Fs, Ino, Kind, NewInode, NewKind, Node, RenameMode, SeekTarget, SetAttr,
    XattrMode,
};

use crate::rng::Rng;

/// Operations with which a volume is used.
const USES: u64 = 40;
/// Names that are kept for use.
const NAMES_MAX: usize = 256;

/// What there is on a volume, as far as it can be seen.
#[derive(Debug, Default)]
pub struct Seen {
    inodes: BTreeSet<u64>,
    /// Directory and name.
    names: Vec<(u64, Vec<u8>)>,
    /// Bytes of data that are still to be read: as many as there is room for, which is enough for all unless files share it.
    unread: u64,
    /// The first thing that cannot be read because it is damaged.
    pub(super) damage: Option<String>,
}

impl Seen {
    /// Whether something was not there because it is damaged; a refusal is an answer like any other.
    fn note<T>(&mut self, result: lodefs_core::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Error::Refused(_)) => None,
            Err(error) => {
                self.damage.get_or_insert_with(|| error.to_string());
                None
            }
        }
    }
}

/// Looks at everything that names lead to, each inode once.
pub fn look(fs: &Arc<Fs>) -> Seen {
    let space = fs.space();
    let mut seen = Seen { unread: space.blocks * space.block_size, ..Seen::default() };
    let mut left: Vec<Ino> = vec![Ino::ROOT];
    while let Some(ino) = left.pop() {
        if !seen.inodes.insert(ino.0) {
            continue;
        }
        let Some(node) = seen.note(fs.node_by_handle(ino, None)) else { continue };
        look_at(fs, &node, &mut seen);
        if node.kind() == Kind::Directory {
            left.extend(list(fs, &node, &mut seen));
        }
    }
    for number in [0, u64::MAX, 1 << 32, space.inodes] {
        let _ = fs.node_by_handle(Ino(number), None);
    }
    seen
}

fn look_at(fs: &Fs, node: &Node, seen: &mut Seen) {
    let Some(attr) = seen.note(fs.attr(node)) else { return };
    assert_eq!((attr.ino, attr.kind), (node.ino(), node.kind()));
    let mut buffer = vec![0; 8192];
    for offset in [0, 4096, attr.size / 2, attr.size.saturating_sub(10)] {
        if let Some(count) = seen.note(fs.read(node, offset, &mut buffer)) {
            assert!(count as u64 <= attr.size.saturating_sub(offset), "read beyond the end");
        }
    }
    let mut at = 0;
    while seen.unread > 0 && at < attr.size {
        let Some(data) = seen.note(fs.seek(node, at, SeekTarget::Data)) else { break };
        let Some(hole) = seen.note(fs.seek(node, data, SeekTarget::Hole)) else { break };
        assert!(at <= data && data < hole && hole <= attr.size, "data from {data} to {hole}, from {at} on");
        at = data;
        while at < hole && seen.unread > 0 {
            let room = buffer.len().min((hole - at) as usize);
            match seen.note(fs.read(node, at, &mut buffer[..room])) {
                Some(count) => assert_eq!(count, room, "data end where they end"),
                None => break,
            }
            at += room as u64;
            seen.unread = seen.unread.saturating_sub(room as u64);
        }
        at = hole;
    }
    if node.kind() == Kind::Symlink {
        seen.note(fs.read_link(node));
    }
    let names = seen.note(fs.list_xattr(node)).unwrap_or_default();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        seen.note(fs.get_xattr(node, name));
    }
}

/// The inodes to which the entries of a directory lead.
fn list(fs: &Fs, directory: &Node, seen: &mut Seen) -> Vec<Ino> {
    let mut children = Vec::new();
    let (mut last, mut positions) = (0, HashSet::new());
    let ino = directory.ino().0;
    let listed = fs.read_dir(directory, 0, &mut |entry| {
        assert!(i64::try_from(entry.next).is_ok(), "a position is positive");
        assert!(positions.insert(entry.next), "no position comes twice, or reading would not end");
        last = entry.next;
        if entry.name != b"." && entry.name != b".." {
            children.push((entry.ino, entry.name.clone()));
        }
        true
    });
    seen.note(listed);
    let _ = seen.note(fs.read_dir(directory, last / 2, &mut |_| false));
    for (child, name) in &children {
        let found = seen.note(fs.lookup(directory, name)).map(|found| found.ino());
        if found != Some(*child) {
            let told = format!("inode {child} is listed in {ino}, and {found:?} is found there");
            seen.damage.get_or_insert(told);
        }
        if seen.names.len() < NAMES_MAX {
            seen.names.push((ino, name.clone()));
        }
    }
    children.into_iter().map(|(child, _)| child).collect()
}

/// Uses a volume: changes some of what was seen, and above all the `favoured` inodes, in ways that follow from `salt`.
pub fn use_it(fs: &Arc<Fs>, seen: &Seen, favoured: &[u64], salt: u64) {
    let mut rng = Rng::new(salt);
    let inodes: Vec<u64> = seen.inodes.iter().copied().collect();
    for number in 0..USES {
        let Ok(root) = fs.root() else { return };
        let from = if favoured.is_empty() || rng.one_in(2) { &inodes } else { favoured };
        let Ok(node) = fs.node_by_handle(Ino(*rng.pick(from)), None) else { continue };
        let name = format!("made {number}");
        // What fails says why; what it says is not the point.
        let _ = use_node(fs, &root, &node, name.as_bytes(), &mut rng);
        if let Some((directory, name)) = seen.names.get(rng.below(1 + seen.names.len() as u64) as usize) {
            let _ = use_name(fs, &root, Ino(*directory), name, &mut rng);
        }
    }
    let _ = fs.sync();
}

fn use_node(fs: &Fs, root: &Node, node: &Node, name: &[u8], rng: &mut Rng) -> lodefs_core::Result<()> {
    let new = |kind| NewInode { kind, perm: 0o700, umask: 0, uid: 0, gid: 0 };
    let size = fs.attr(node)?.size;
    let offset = size.saturating_sub(rng.below(9000));
    match rng.below(16) {
        0..3 => {
            let made = fs.create(root, name, &new(NewKind::File))?;
            fs.write(&made, rng.below(10_000), &[7; 9000], false).map(drop)
        }
        3 => fs.create(node, name, &new(NewKind::Directory)).map(drop),
        4 => fs.create(root, name, &new(NewKind::Symlink(&[b'y'; 300]))).map(drop),
        5 => fs.write(node, offset, &[8; 5000], true).map(drop),
        6 => fs.append(node, &[9; 12_000], false).map(drop),
        7 => fs.set_attr(node, &SetAttr { size: Some(size / 2), ..SetAttr::default() }).map(drop),
        8 => fs
            .set_attr(node, &SetAttr { size: Some(1 << 40), perm: Some(0o777), ..SetAttr::default() })
            .map(drop),
        9 => fs.fallocate(node, Fallocate::PunchHole, offset, 20_000),
        10 => fs.fallocate(node, Fallocate::Allocate { keep_size: false }, offset, 20_000),
        11 => fs.fallocate(node, Fallocate::ZeroRange { keep_size: true }, offset, 5000),
        12 => fs.set_xattr(node, b"user.x", &vec![1; rng.below(6000) as usize], XattrMode::Set),
        13 => {
            let names = fs.list_xattr(node)?;
            let first = names.split(|byte| *byte == 0).next().unwrap_or_default();
            fs.remove_xattr(node, first)
        }
        14 => fs.link(node, root, name),
        _ => fs.set_flags(node, Flags::empty(), Some(5)),
    }
}

fn use_name(
    fs: &Arc<Fs>,
    root: &Node,
    directory: Ino,
    name: &[u8],
    rng: &mut Rng,
) -> lodefs_core::Result<()> {
    let directory = fs.node_by_handle(directory, None)?;
    match rng.below(5) {
        0 | 1 => fs.unlink(&directory, name),
        2 => fs.rmdir(&directory, name),
        3 => fs.rename(&directory, name, root, b"moved", RenameMode::Replace, (0, 0)),
        _ => fs.rename(&directory, name, root, b"dir", RenameMode::Exchange, (0, 0)),
    }
}

/// Makes a file, writes it, reads it and removes it, on a volume in order. Fails unless there is no room.
pub fn demand_use(fs: &Arc<Fs>) -> Result<(), String> {
    let name = b"made afterwards";
    let told = |error: Error| error.to_string();
    let root = fs.root().map_err(told)?;
    if fs.attr(&root).map_err(told)?.flags.intersects(Flags::IMMUTABLE | Flags::APPEND) {
        fs.set_flags(&root, Flags::empty(), None).map_err(told)?;
    }
    let lacks_room = |error: &Error| error.errno() == rustix::io::Errno::NOSPC;
    let new = NewInode { kind: NewKind::File, perm: 0o600, umask: 0, uid: 0, gid: 0 };
    let file = match fs.create(&root, name, &new) {
        Err(error) if lacks_room(&error) => return Ok(()),
        file => file.map_err(told)?,
    };
    match fs.write(&file, 3000, &[0x77; 5000], false) {
        Err(error) if lacks_room(&error) => {}
        count => {
            let end = 3000 + count.map_err(told)?;
            let mut read = vec![1; end];
            let count = fs.read(&file, 0, &mut read).map_err(told)?;
            let is_right = count == end && read[..3000].iter().all(|byte| *byte == 0);
            if !is_right || read[3000..].iter().any(|byte| *byte != 0x77) {
                return Err("what was written is not what is read".to_owned());
            }
        }
    }
    drop(file);
    fs.unlink(&root, name).map_err(told)
}
