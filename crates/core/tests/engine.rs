//! The engine from outside: what a program sees, and what is still there after closing and opening again.

use std::sync::Arc;

use lodefs_core::{
    Fallocate, FormatOptions, Fs, NewInode, NewKind, OpenOptions, RenameMode, SeekTarget, SetAttr,
};
use lodefs_pmem::{Access, Domain, Medium};
use lodefs_testkit::MemoryFile;
use rustix::io::Errno;

const FILE: NewInode<'static> = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
const DIR: NewInode<'static> = NewInode { kind: NewKind::Directory, perm: 0o755, umask: 0, uid: 0, gid: 0 };

fn new_fs(size: u64, domain: Domain) -> Arc<Fs> {
    let medium = Medium::anonymous(size, domain).unwrap();
    Fs::format(&medium, &FormatOptions::default()).unwrap();
    Fs::open(medium, &OpenOptions::default()).unwrap()
}

#[test]
fn write_read_and_list() {
    for domain in [Domain::MemoryController, Domain::Page, Domain::Volatile, Domain::CpuCache] {
        let fs = new_fs(16 << 20, domain);
        let root = fs.root().unwrap();
        let dir = fs.create(&root, b"d", &DIR).unwrap();
        let file = fs.create(&dir, b"f", &FILE).unwrap();
        assert_eq!(fs.write(&file, 5000, b"hello", false).unwrap(), 5);
        let mut buffer = [9; 6000];
        assert_eq!(fs.read(&file, 0, &mut buffer).unwrap(), 5005);
        assert!(buffer[..5000].iter().all(|byte| *byte == 0));
        assert_eq!(&buffer[5000..5005], b"hello");
        assert_eq!(fs.seek(&file, 0, SeekTarget::Data).unwrap(), 4096);
        let mut names = Vec::new();
        fs.read_dir(&dir, 0, &mut |entry| {
            names.push(entry.name.clone());
            true
        })
        .unwrap();
        assert_eq!(names, [b".".to_vec(), b"..".to_vec(), b"f".to_vec()]);
        assert_eq!(fs.create(&dir, b"f", &FILE).unwrap_err().errno(), Errno::EXIST);
        assert_eq!(fs.rmdir(&root, b"d").unwrap_err().errno(), Errno::NOTEMPTY);
        fs.unlink(&dir, b"f").unwrap();
        assert_eq!(fs.read(&file, 5000, &mut buffer).unwrap(), 5, "an open file outlives its name");
        drop(file);
        fs.rmdir(&root, b"d").unwrap();
    }
}

/// A block of inodes that are all free is given back, and their generations with it; still no file gets the number and
/// generation of one before, by which somebody may still ask for that.
#[test]
fn a_number_that_is_used_again_has_another_generation() {
    const FILES: u64 = 64;
    for domain in [Domain::MemoryController, Domain::Page, Domain::Volatile] {
        let memory = MemoryFile::new(4 << 20).unwrap();
        Fs::format(&memory.open(domain).unwrap(), &FormatOptions::default()).unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 {
            let fs = Fs::open(memory.open(domain).unwrap(), &OpenOptions::default()).unwrap();
            let root = fs.root().unwrap();
            let names: Vec<_> = (0..FILES).map(|number| format!("{number}").into_bytes()).collect();
            for name in &names {
                let attr = fs.attr(&fs.create(&root, name, &FILE).unwrap()).unwrap();
                assert!(seen.insert((attr.ino, attr.generation)), "{domain}: inode {} again", attr.ino);
            }
            for name in &names {
                fs.unlink(&root, name).unwrap();
            }
            drop(root);
            fs.close().unwrap();
        }
    }
}

#[test]
fn space_comes_back_to_the_byte() {
    for domain in [Domain::MemoryController, Domain::Page] {
        let fs = new_fs(32 << 20, domain);
        let root = fs.root().unwrap();
        let before = fs.space().blocks_free;
        for round in 0..3u64 {
            let file = fs.create(&root, b"f", &FILE).unwrap();
            for i in 0..1000 {
                fs.write(&file, i * 8192 + round, &[7; 3000], false).unwrap();
            }
            assert_eq!(
                fs.attr(&file).unwrap().sectors / 8 + 1,
                before - fs.space().blocks_free,
                "and a directory leaf"
            );
            fs.fallocate(&file, Fallocate::PunchHole, 100_000, 3_000_000).unwrap();
            fs.set_attr(&file, &SetAttr { size: Some(4_000_001), ..SetAttr::default() }).unwrap();
            fs.unlink(&root, b"f").unwrap();
            drop(file);
            assert_eq!(fs.space().blocks_free, before);
        }
    }
}

#[test]
fn a_large_directory_grows_and_shrinks() {
    let fs = new_fs(64 << 20, Domain::Volatile);
    let root = fs.root().unwrap();
    let count = 20_000;
    let name = |i: u32| format!("name-{i}").into_bytes();
    for i in 0..count {
        fs.create(&root, &name(i), &FILE).unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut from = 0;
    loop {
        let mut taken = 0;
        fs.read_dir(&root, from, &mut |entry| {
            if taken == 37 {
                return false;
            }
            taken += 1;
            from = entry.next;
            assert!(seen.insert(entry.name.clone()), "{:?} is listed twice", entry.name);
            true
        })
        .unwrap();
        if taken == 0 {
            break;
        }
    }
    assert_eq!(seen.len(), count as usize + 2);
    for i in 0..count {
        assert!(fs.lookup(&root, &name(i)).is_ok());
        fs.unlink(&root, &name(i)).unwrap();
        assert_eq!(fs.lookup(&root, &name(i)).unwrap_err().errno(), Errno::NOENT);
    }
    assert_eq!(fs.attr(&root).unwrap().size, 0);
}

#[test]
fn a_closed_volume_opens_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vol");
    lodefs_pmem::create_file(&path, 16 << 20, lodefs_pmem::Reserve::Full).unwrap();
    let open = || {
        let options = lodefs_pmem::OpenOptions { access: Access::ReadWrite, force_domain: None };
        Medium::open(&path, &options).unwrap()
    };
    Fs::format(&open(), &FormatOptions::default()).unwrap();
    let fs = Fs::open(open(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    let file = fs.create(&root, b"f", &FILE).unwrap();
    fs.write(&file, 0, &vec![1; 100_000], false).unwrap();
    let space = fs.space();
    drop((file, root));
    fs.close().unwrap();
    drop(fs);
    let fs = Fs::open(open(), &OpenOptions::default()).unwrap();
    assert!(fs.recovery().was_clean);
    assert_eq!(fs.recovery().inodes_scanned, 0);
    assert_eq!(fs.space(), space);
    let file = fs.lookup(&fs.root().unwrap(), b"f").unwrap();
    let mut buffer = vec![0; 100_000];
    assert_eq!(fs.read(&file, 0, &mut buffer).unwrap(), 100_000);
    assert!(buffer.iter().all(|byte| *byte == 1));
}

#[test]
fn rename_in_all_modes() {
    let fs = new_fs(16 << 20, Domain::MemoryController);
    let root = fs.root().unwrap();
    let a = fs.create(&root, b"a", &DIR).unwrap();
    let b = fs.create(&a, b"b", &DIR).unwrap();
    let rename =
        |from: (&_, &[u8]), to: (&_, &[u8]), mode| fs.rename(from.0, from.1, to.0, to.1, mode, (0, 0));
    assert_eq!(rename((&root, b"a"), (&b, b"x"), RenameMode::Replace).unwrap_err().errno(), Errno::INVAL);
    let inside = fs.create(&b, b"inside", &FILE).unwrap();
    let over_ancestor = rename((&b, b"inside"), (&root, b"a"), RenameMode::Replace).unwrap_err();
    assert_eq!(over_ancestor.errno(), Errno::NOTEMPTY, "as on Linux, whatever is moved");
    drop(inside);
    rename((&a, b"b"), (&root, b"c"), RenameMode::Replace).unwrap();
    assert_eq!(fs.attr(&a).unwrap().links, 2);
    assert_eq!(fs.lookup(&b, b"..").unwrap().ino(), root.ino());
    let file = fs.create(&root, b"f", &FILE).unwrap();
    rename((&root, b"f"), (&root, b"a"), RenameMode::Exchange).unwrap();
    assert_eq!(fs.lookup(&root, b"a").unwrap().ino(), file.ino());
    rename((&root, b"a"), (&b, b"g"), RenameMode::Whiteout).unwrap();
    assert_eq!(fs.attr(&fs.lookup(&root, b"a").unwrap()).unwrap().kind, lodefs_core::Kind::CharDevice);
    assert_eq!(fs.lookup(&b, b"g").unwrap().ino(), file.ino());
}

#[test]
fn copying_a_range_fills_no_holes() {
    let fs = new_fs(32 << 20, Domain::Volatile);
    let root = fs.root().unwrap();
    let from = fs.create(&root, b"from", &FILE).unwrap();
    let to = fs.create(&root, b"to", &FILE).unwrap();
    fs.write(&from, 0, &[1; 10], false).unwrap();
    fs.write(&from, 3_000_000, &[2; 10], false).unwrap();
    fs.write(&to, 1_000_000, &[3; 10], false).unwrap();
    assert_eq!(fs.copy_range(&from, 0, &to, 0, u64::MAX).unwrap(), 3_000_010);
    assert_eq!(fs.attr(&to).unwrap().sectors, 3 * 8);
    let mut copied = vec![9; 3_000_010];
    assert_eq!(fs.read(&to, 0, &mut copied).unwrap(), copied.len());
    let expected = |at| match at {
        0..10 => 1,
        3_000_000.. => 2,
        _ => 0,
    };
    assert!(copied.iter().enumerate().all(|(at, byte)| *byte == expected(at)));
    assert_eq!(fs.copy_range(&from, u64::MAX, &to, u64::MAX, 0).unwrap(), 0);
}
