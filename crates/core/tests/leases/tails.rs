//! Tails that are settled in the worst of circumstances: after crashes, by repairs, on full volumes, while the volume is closed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use lodefs_core::{
    DataRight, DaxPolicy, Flags, Fs, HolderKind, NewInode, NewKind, Node, OpenOptions, SeekTarget, SetAttr,
    fsck,
};
use lodefs_layout::inode::{InodeSlot, SLOT_SIZE};
use lodefs_layout::superblock::Superblock;
use lodefs_pmem::{Access, Domain, Medium, What as Event};
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::appends::{
    append, content, file, leave_single_blocks, reserve, reserve_in_many_places, set_word, size,
};
use super::data::{data_lease, take};
use super::{BLOCK, Program, Volume};

fn open_medium(path: &Path, access: Access) -> Medium {
    let options = lodefs_pmem::OpenOptions { access, force_domain: Some(Domain::CpuCache) };
    Medium::open(path, &options).unwrap()
}

fn open(path: &Path) -> Arc<Fs> {
    Fs::open(open_medium(path, Access::ReadWrite), &OpenOptions::default()).unwrap()
}

fn check(path: &Path) -> fsck::Report {
    fsck::check(open_medium(path, Access::ReadOnly), &fsck::Options::default(), &mut |_| ()).unwrap()
}

fn repair(path: &Path) -> fsck::Report {
    let medium = open_medium(path, Access::ReadWrite);
    fsck::repair(medium, &fsck::Options::default(), &mut |_| true, &mut |_| ()).unwrap()
}

/// A copy of the volume as it is on its medium.
fn copy(volume: &Volume) -> PathBuf {
    let copy = volume.dir.path().join("copy");
    fs::copy(volume.dir.path().join("vol"), &copy).unwrap();
    copy
}

/// A copy of the volume as it is after a crash, with nothing left in its journal.
fn crashed(volume: &Volume) -> PathBuf {
    volume.fs.close().unwrap();
    copy(volume)
}

fn node(fs: &Arc<Fs>, name: &str) -> Node {
    fs.lookup(&fs.root().unwrap(), name.as_bytes()).unwrap()
}

fn size_in(fs: &Arc<Fs>, name: &str) -> u64 {
    fs.attr(&node(fs, name)).unwrap().size
}

/// A file of so many extents of a block, one to every other block.
fn scattered(volume: &Volume, name: &str, extents: u64) -> Node {
    let file = volume.file(name);
    for number in 0..extents {
        volume.fs.write(&file, 2 * number * BLOCK, &[1; BLOCK as usize], false).unwrap();
    }
    file
}

/// Changes the slot of an inode, with a right checksum or without.
fn edit_slot(path: &Path, ino: u64, seal: bool, edit: impl Fn(&mut InodeSlot)) {
    let mut bytes = fs::read(path).unwrap();
    let seed = Superblock::read_from_prefix(&bytes).unwrap().0.seed();
    let mut edited = 0;
    for place in bytes.chunks_exact_mut(SLOT_SIZE) {
        let mut slot = InodeSlot::read_from_bytes(place).unwrap();
        if slot.is_valid(ino, seed) && !slot.is_free() {
            edit(&mut slot);
            let slot = if seal { slot.sealed(ino, seed) } else { slot };
            place.copy_from_slice(slot.as_bytes());
            edited += 1;
        }
    }
    assert!(edited > 0);
    fs::write(path, bytes).unwrap();
}

/// Two files to which programs have appended, of which one has as many extents as fit into its inode.
fn two_files(volume: &Volume) -> Vec<Box<dyn std::any::Any>> {
    let first = scattered(volume, "a", 4);
    let first_lease = data_lease(&first, &Arc::new(Program::default()));
    append(volume, &reserve(&first_lease, 7 * BLOCK + 100), &[2; 100]);
    let (second, program, second_lease) = file(volume, b"begun");
    append(volume, &reserve(&second_lease, 2 * BLOCK), &[7; 5000]);
    vec![Box::new((first, first_lease)), Box::new((second, program, second_lease))]
}

#[test]
fn recovery_leaves_words_alone_until_it_has_read_them() {
    let volume = Volume::new();
    let held = two_files(&volume);
    let copy = copy(&volume);
    let image = fs::read(&copy).unwrap();
    let recovered = open(&copy);
    assert_eq!((size_in(&recovered, "a"), size_in(&recovered, "f")), (7 * BLOCK + 100, 5005));
    drop(recovered);
    assert!(check(&copy).is_clean());
    // The same after a crash at any store of the recovery.
    let (medium, recording) =
        Medium::recording_from_image(&image, Domain::CpuCache, Access::ReadWrite).unwrap();
    drop(Fs::open(medium, &OpenOptions::default()).unwrap());
    let mut torn = image;
    for event in recording.take() {
        let Event::Store { at, bytes, .. } = event.what else { continue };
        torn[at as usize..][..bytes.len()].copy_from_slice(&bytes);
        fs::write(&copy, &torn).unwrap();
        let recovered = open(&copy);
        assert_eq!((size_in(&recovered, "a"), size_in(&recovered, "f")), (7 * BLOCK + 100, 5005));
    }
    drop(held);
}

#[test]
fn recovery_takes_no_block_for_what_lies_in_many_places() {
    let volume = Volume::of_size(32 << 20, DaxPolicy::Always);
    let first = volume.file("a");
    for number in 0..10 {
        volume.fs.write(&first, 2 * number * BLOCK, &[1; BLOCK as usize], false).unwrap();
    }
    leave_single_blocks(&volume);
    let first_lease = data_lease(&first, &Arc::new(Program::default()));
    let tail = reserve(&first_lease, 19 * BLOCK + 100).tail.unwrap();
    set_word(&volume, tail, 19 * BLOCK + 100);
    let (second, program, second_lease) = file(&volume, b"begun");
    append(&volume, &reserve(&second_lease, 2 * BLOCK), &[7; 5000]);
    assert!(reserve_in_many_places(&first_lease, 20) > 1000);
    let free = volume.free();
    let copy = copy(&volume);
    let recovered = open(&copy);
    assert_eq!((size_in(&recovered, "a"), size_in(&recovered, "f")), (19 * BLOCK + 100, 5005));
    assert!(recovered.space().blocks_free > free + 1000);
    drop((second, program));
}

#[test]
fn repair_leaves_words_alone_until_all_is_found() {
    for seal in [false, true] {
        let edit = |slot: &mut InodeSlot| {
            if seal {
                slot.extents = 7.into();
            } else {
                slot.atime_s = 7.into();
            }
        };
        let volume = Volume::new();
        let held = two_files(&volume);
        let copy = crashed(&volume);
        edit_slot(&copy, node(&volume.fs, "f").ino().0, seal, edit);
        assert!(!repair(&copy).findings.is_empty());
        assert!(check(&copy).is_clean());
        let repaired = open(&copy);
        assert_eq!((size_in(&repaired, "a"), size_in(&repaired, "f")), (7 * BLOCK + 100, 5005));
        assert_eq!(&content(&repaired, &node(&repaired, "f"))[5..], [7; 5000]);
        drop(held);
    }
}

#[test]
fn a_word_is_not_believed_on_a_volume_that_was_closed() {
    let volume = Volume::new();
    let (file, program, lease) = file(&volume, b"begun");
    let grant = reserve(&lease, 2 * BLOCK);
    append(&volume, &grant, &[7; 5000]);
    let word = grant.tail.unwrap().word;
    drop((lease, program));
    volume.resize(&file, 5);
    let ino = file.ino().0;
    drop(file);
    let copy = crashed(&volume);
    assert!(check(&copy).is_clean());
    edit_slot(&copy, ino, true, |slot| slot.tail = word.into());
    assert_eq!(check(&copy).findings.len(), 1);
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let options = OpenOptions { read_only: access == Access::ReadOnly, ..OpenOptions::default() };
        let opened = Fs::open(open_medium(&copy, access), &options).unwrap();
        let looked_up = opened.lookup(&opened.root().unwrap(), b"f");
        assert_eq!(looked_up.unwrap_err().errno(), Errno::UCLEAN);
    }
    repair(&copy);
    assert!(check(&copy).is_clean());
    let repaired = open(&copy);
    assert_eq!(content(&repaired, &node(&repaired, "f")), b"begun");
}

#[test]
fn a_word_can_only_be_where_one_can_be() {
    for nonsense in [12_345, 1 << 60] {
        let volume = Volume::new();
        let held = two_files(&volume);
        let copy = crashed(&volume);
        edit_slot(&copy, node(&volume.fs, "f").ino().0, true, |slot| slot.tail = nonsense.into());
        assert_eq!(check(&copy).findings.len(), 1);
        let opened = open(&copy);
        assert_eq!(opened.lookup(&opened.root().unwrap(), b"f").unwrap_err().errno(), Errno::UCLEAN);
        assert_eq!(size_in(&opened, "a"), 7 * BLOCK + 100);
        opened.close().unwrap();
        drop(opened);
        repair(&copy);
        assert!(check(&copy).is_clean());
        let repaired = open(&copy);
        assert_eq!(content(&repaired, &node(&repaired, "f")), b"begun");
        drop(held);
    }
}

#[test]
fn only_files_are_counted_on_in_words() {
    let volume = Volume::new();
    let new = NewInode { kind: NewKind::Directory, perm: 0o755, umask: 0, uid: 0, gid: 0 };
    let directory = volume.fs.create(&volume.fs.root().unwrap(), b"d", &new).unwrap().ino();
    let (file, _program, lease) = file(&volume, b"begun");
    let word = reserve(&lease, 1).tail.unwrap().word;
    let copy = crashed(&volume);
    edit_slot(&copy, directory.0, true, |slot| slot.tail = word.into());
    assert_eq!(check(&copy).findings.len(), 1);
    let opened = open(&copy);
    assert_eq!(opened.lookup(&opened.root().unwrap(), b"d").unwrap_err().errno(), Errno::UCLEAN);
    drop(opened);
    repair(&copy);
    assert!(check(&copy).is_clean());
    let repaired = open(&copy);
    assert_eq!(node(&repaired, "d").ino(), directory);
    drop(file);
}

#[test]
fn whoever_changes_a_file_while_the_volume_is_closed_is_refused_or_done() {
    for change in [
        SetAttr { perm: Some(0o600), ..SetAttr::default() },
        SetAttr { size: Some(10), ..SetAttr::default() },
    ] {
        let volume = Volume::new();
        let (file, other) = (volume.file("f"), volume.file("other"));
        let (program, asked) = Program::that_keeps();
        let lease = data_lease(&file, &program);
        append(&volume, &reserve(&lease, 2 * BLOCK), &[7; 100]);
        let is_done = thread::scope(|scope| {
            let changing = scope.spawn(|| volume.fs.set_attr(&file, &change));
            asked.wait();
            let closing = scope.spawn(|| volume.fs.close());
            while volume.fs.set_attr(&other, &SetAttr::default()).is_ok() {
                thread::yield_now();
            }
            program.waiting().clear();
            closing.join().unwrap().unwrap();
            changing.join().unwrap().is_ok()
        });
        let copy = copy(&volume);
        assert!(check(&copy).is_clean());
        let opened = open(&copy);
        let attr = opened.attr(&node(&opened, "f")).unwrap();
        let changed = (change.perm.unwrap_or(0o644), change.size.unwrap_or(100));
        let expected = if is_done { changed } else { (0o644, 100) };
        assert_eq!((attr.perm, attr.size), expected);
        drop((lease, program));
    }
}

#[test]
fn what_was_appended_is_copied() {
    let volume = Volume::new();
    let (file, _program, lease) = file(&volume, b"");
    append(&volume, &reserve(&lease, 2 * BLOCK), &[7; 5000]);
    let target = volume.file("g");
    assert_eq!(volume.fs.copy_range(&file, 0, &target, 0, 1 << 20).unwrap(), 5000);
    assert_eq!(content(&volume.fs, &target), [7; 5000]);
}

#[test]
fn settling_takes_no_block() {
    let volume = Volume::new();
    let programs: Vec<_> = (0..12)
        .map(|number| {
            let file = scattered(&volume, &format!("f{number}"), 4);
            let program = Arc::new(Program::default());
            let lease = data_lease(&file, &program);
            append(&volume, &reserve(&lease, 7 * BLOCK + 100), &[2; 100]);
            (file, program, lease)
        })
        .collect();
    let filling = volume.file("filling");
    let size = volume.fs.space().blocks_available * BLOCK;
    volume.fs.write(&filling, 0, &vec![1; size as usize], false).unwrap();
    for (file, ..) in &programs {
        assert_eq!(content(&volume.fs, file).len() as u64, 7 * BLOCK + 100);
        // Blocks 0, 2, 4, 6 and 7.
        assert_eq!(volume.fs.attr(file).unwrap().sectors * 512, 5 * BLOCK);
    }
}

#[test]
fn a_switch_takes_appending_back() {
    let volume = Volume::with(DaxPolicy::Inode);
    let file = volume.file("f");
    volume.fs.set_flags(&file, Flags::DAX, None).unwrap();
    let lease = data_lease(&file, &Arc::new(Program::default()));
    let grant = reserve(&lease, 1);
    let end = grant.tail.unwrap().end;
    append(&volume, &grant, &vec![1; end as usize]);
    let open = volume.fs.hold(&file, HolderKind::OpenFile, 1).unwrap();
    let revoked = volume.fs.revoke_dax(&file, false, None, &mut || false);
    assert_eq!(revoked.unwrap_err().errno(), Errno::BUSY);
    let again = take(&lease, false);
    assert_eq!((again.right, again.tail, again.size), (DataRight::Read, None, end));
    assert_eq!(size(&volume, &file), end);
    assert_eq!(volume.fs.seek(&file, 0, SeekTarget::Hole).unwrap(), end);
    drop(open);
}

#[test]
fn an_open_that_fails_does_not_close() {
    let volume = Volume::new();
    let held = two_files(&volume);
    let copy = crashed(&volume);
    edit_slot(&copy, 1, true, |slot| {
        (slot.mode, slot.root, slot.extents, slot.parent) = (0o100_644.into(), 0.into(), 0.into(), 0.into());
    });
    assert!(Fs::open(open_medium(&copy, Access::ReadWrite), &OpenOptions::default()).is_err());
    assert!(!Fs::probe_clean(open_medium(&copy, Access::ReadOnly)).unwrap());
    drop(held);
}
