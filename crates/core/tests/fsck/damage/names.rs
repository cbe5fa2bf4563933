//! What names lead to, and numbers that count them.

use lodefs_core::fsck::{Code, Object};
use lodefs_core::{Ino, Kind};

use crate::image::{EntryAt, Image};
use crate::sample::SAMPLE;
use crate::seeded::{Seeded, is_note};

fn object(directory: u64, at: EntryAt, name: &str) -> Object {
    Object::Entry { directory: Ino(directory), block: at.block, tag: at.tag, name: name.into() }
}

/// Adds an entry and counts it.
fn add(image: &mut Image, directory: u64, name: &str, ino: u64, kind: Kind) -> EntryAt {
    let at = image.add_entry(directory, name.as_bytes(), ino, kind.d_type());
    image.edit_inode(directory, |slot| slot.size = (slot.size.get() + 1).into());
    at
}

/// Removes an entry and counts it.
fn remove(image: &mut Image, directory: u64, name: &str) {
    let at = image.entry(directory, name);
    image.put(Image::tag_at(at.block, at.tag), &0_u32);
    image.edit_inode(directory, |slot| slot.size = (slot.size.get() - 1).into());
}

fn add_links(image: &mut Image, ino: u64, change: i32) {
    image.edit_inode(ino, |slot| slot.links = slot.links.get().checked_add_signed(change).unwrap().into());
}

#[test]
fn entry_dangling() {
    let free = (1..512).find(|ino| SAMPLE.image.inode(*ino).is_free()).unwrap();
    for target in [free, 0, 1 << 40, 512 * 20] {
        let mut image = SAMPLE.image.clone();
        let at = add(&mut image, SAMPLE.ino("/dir"), "ghost", target, Kind::File);
        Seeded::of(image).finds(Code::EntryDangling, object(SAMPLE.ino("/dir"), at, "ghost")).verify();
    }
}

#[test]
fn entry_type() {
    let at = SAMPLE.image.entry(1, "fifo");
    for kind in [Kind::File.d_type(), Kind::Directory.d_type(), 0, 77] {
        Seeded::new(|image, _| image.edit_entry(at, |head| head.kind = kind))
            .finds(Code::EntryType, object(1, at, "fifo"))
            .verify();
    }
}

#[test]
fn dir_two_parents() {
    // The name in the parent that the directory knows is the right one, wherever the other is.
    for (directory, target) in
        [("/emptydir", "/dir/sub"), ("", "/dir/sub/deep"), ("/dir/sub", "/big"), ("/dir", "")]
    {
        let mut image = SAMPLE.image.clone();
        let directory = SAMPLE.ino(directory);
        let at = if image.tree(directory).1.is_empty() {
            // An empty directory has no leaf to add to.
            continue;
        } else {
            add(&mut image, directory, "again", SAMPLE.ino(target), Kind::Directory)
        };
        Seeded::of(image).finds(Code::DirTwoParents, object(directory, at, "again")).verify();
    }
}

#[test]
fn dir_parent() {
    Seeded::new(|image, sample| image.edit_inode(sample.ino("/dir/sub"), |slot| slot.parent = 77.into()))
        .finds_at(Code::DirParent, "/dir/sub")
        .verify();
    Seeded::new(|image, sample| image.edit_inode(1, |slot| slot.parent = sample.ino("/dir").into()))
        .finds_at(Code::DirParent, "")
        .verify();
}

#[test]
fn dir_cycle() {
    // /dir moves below /dir/sub/deep.
    let mut image = SAMPLE.image.clone();
    let (dir, deep) = (SAMPLE.ino("/dir"), SAMPLE.ino("/dir/sub/deep"));
    remove(&mut image, 1, "dir");
    add_links(&mut image, 1, -1);
    let at = add(&mut image, deep, "dir", dir, Kind::Directory);
    add_links(&mut image, deep, 1);
    image.edit_inode(dir, |slot| slot.parent = deep.into());
    let after = Seeded::of(image).finds(Code::DirCycle, object(deep, at, "dir")).touches("/dir").verify();
    assert!(after.contains_key(&format!("/lost+found/#{dir}/sub/deep/file")));
}

#[test]
fn dir_unreachable() {
    let mut image = SAMPLE.image.clone();
    let dir = SAMPLE.ino("/dir");
    remove(&mut image, 1, "dir");
    add_links(&mut image, 1, -1);
    let after = Seeded::of(image).finds_at(Code::DirUnreachable, "/dir").touches("/dir").verify();
    let before = crate::sample::contents(&SAMPLE.image);
    for (path, content) in before.iter().filter(|(path, _)| path.starts_with("/dir/")) {
        let found = &after[&path.replacen("/dir", &format!("/lost+found/#{dir}"), 1)];
        assert!(found == content, "{path}");
    }
}

#[test]
fn a_directory_without_links_but_with_entries_is_not_reclaimed() {
    let mut image = SAMPLE.image.clone();
    let dir = SAMPLE.ino("/dir");
    remove(&mut image, 1, "dir");
    add_links(&mut image, 1, -1);
    image.edit_inode(dir, |slot| slot.links = 0.into());
    let after = Seeded::of(image).finds_at(Code::DirUnreachable, "/dir").touches("/dir").verify();
    assert!(after.contains_key(&format!("/lost+found/#{dir}/sub/deep/file")));
}

#[test]
fn inode_unreachable() {
    for path in ["/few", "/fifo", "/longlink"] {
        let mut image = SAMPLE.image.clone();
        remove(&mut image, 1, &path[1..]);
        let after = Seeded::of(image).finds_at(Code::InodeUnreachable, path).touches(path).verify();
        let found = &after[&format!("/lost+found/#{}", SAMPLE.ino(path))];
        assert!(*found == crate::sample::contents(&SAMPLE.image)[path]);
    }
}

#[test]
fn an_existing_lost_found_is_used() {
    let image = SAMPLE
        .image
        .open_and(|fs| {
            let root = fs.root().unwrap();
            let new = lodefs_core::NewInode {
                kind: lodefs_core::NewKind::File,
                perm: 0o600,
                umask: 0,
                uid: 0,
                gid: 0,
            };
            fs.create(&root, b"lost+found", &new).unwrap();
            let new = lodefs_core::NewInode { kind: lodefs_core::NewKind::Directory, ..new };
            let second = fs.create(&root, b"lost+found.1", &new).unwrap();
            let name = format!("#{}", SAMPLE.ino("/few"));
            fs.create(&second, name.as_bytes(), &new).unwrap();
        })
        .unwrap();
    let mut image = image;
    remove(&mut image, 1, "few");
    let (report, repaired) = image.repair(&mut |_| true);
    assert_eq!(report.unwrap().left().count(), 0);
    let after = crate::sample::contents(&repaired);
    assert!(after.contains_key(&format!("/lost+found.1/#{}.1", SAMPLE.ino("/few"))));
    assert_eq!(repaired.check().unwrap().findings, []);
}

#[test]
fn link_count() {
    for (path, links) in [
        ("/plain", 1),
        ("/plain", 3),
        ("/few", 0),
        ("/few", 2),
        ("/dir", 2),
        ("/dir", 4),
        ("", 99),
        ("/big", 1),
    ] {
        Seeded::new(|image, sample| image.edit_inode(sample.ino(path), |slot| slot.links = links.into()))
            .finds_at(Code::LinkCount, path)
            .verify();
    }
}

#[test]
fn dir_size() {
    for (path, size) in [("/big", 1), ("/emptydir", 1), ("", 0), ("/dir", u64::MAX)] {
        Seeded::new(|image, sample| image.edit_inode(sample.ino(path), |slot| slot.size = size.into()))
            .finds_at(Code::DirSize, path)
            .verify();
    }
}

#[test]
fn orphan() {
    assert!(is_note(Code::Orphan));
    let crashed = SAMPLE.image.crashed_after(|fs| {
        let root = fs.root().unwrap();
        let open = fs.lookup(&root, b"few").unwrap();
        fs.unlink(&root, b"few").unwrap();
        // Still referred to when the process dies.
        std::mem::forget(open);
    });
    Seeded::of(crashed).finds_at(Code::Orphan, "/few").touches("/few").verify();
}

#[test]
fn orphan_kept() {
    let mut image = SAMPLE.image.clone();
    remove(&mut image, 1, "scattered");
    image.edit_inode(SAMPLE.ino("/scattered"), |slot| slot.links = 0.into());
    Seeded::of(image).finds_at(Code::OrphanKept, "/scattered").touches("/scattered").verify();
    let mut image = SAMPLE.image.clone();
    remove(&mut image, 1, "emptydir");
    add_links(&mut image, 1, -1);
    image.edit_inode(SAMPLE.ino("/emptydir"), |slot| slot.links = 0.into());
    Seeded::of(image).finds_at(Code::OrphanKept, "/emptydir").touches("/emptydir").verify();
}

#[test]
fn tail_left() {
    for path in ["/few", "/empty"] {
        Seeded::new(|image, sample| image.edit_inode(sample.ino(path), |slot| slot.tail = (1 << 20).into()))
            .finds_at(Code::TailLeft, path)
            .verify();
    }
}
