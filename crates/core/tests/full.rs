//! A full volume: writing fails with ENOSPC, nothing is damaged, deleting works, and all space comes back.

use std::sync::Arc;

use lodefs_core::{
    Fallocate, FormatOptions, Fs, NewInode, NewKind, Node, OpenOptions, RenameMode, SetAttr, XattrMode,
};
use lodefs_pmem::{Domain, Medium};
use rustix::io::Errno;

const FILE: NewInode<'static> = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
const DIRECTORY: NewInode<'static> =
    NewInode { kind: NewKind::Directory, perm: 0o755, umask: 0, uid: 0, gid: 0 };
const BLOCK: u64 = 4096;
const DOMAINS: [Domain; 3] = [Domain::MemoryController, Domain::Page, Domain::Volatile];

fn new_fs(size: u64, domain: Domain) -> Arc<Fs> {
    let medium = Medium::anonymous(size, domain).unwrap();
    Fs::format(&medium, &FormatOptions::default()).unwrap();
    Fs::open(medium, &OpenOptions::default()).unwrap()
}

fn name(i: u64) -> Vec<u8> {
    format!("a file with a rather long name, number {i}").into_bytes()
}

/// Makes files of `size` bytes until there is no space; the number of files, and how much of the last was written.
fn fill(fs: &Fs, dir: &Node, size: usize) -> (u64, usize) {
    let content: Vec<u8> = (0..size).map(|i| i as u8).collect();
    for i in 0.. {
        let file = match fs.create(dir, &name(i), &FILE) {
            Ok(file) => file,
            Err(error) => {
                assert_eq!(error.errno(), Errno::NOSPC);
                return (i, size);
            }
        };
        let written = match fs.write(&file, 0, &content, false) {
            Ok(written) => written,
            Err(error) => {
                assert_eq!(error.errno(), Errno::NOSPC);
                0
            }
        };
        if written < size {
            return (i + 1, written);
        }
    }
    unreachable!("no volume is endless")
}

fn verify(fs: &Fs, dir: &Node, files: u64, size: usize, last: usize) {
    let mut buffer = vec![0; size + 1];
    for i in 0..files {
        let file = fs.lookup(dir, &name(i)).unwrap();
        let read = fs.read(&file, 0, &mut buffer).unwrap();
        assert_eq!(read, if i + 1 == files { last } else { size });
        assert!(buffer[..read].iter().enumerate().all(|(at, byte)| *byte == at as u8), "file {i} is damaged");
    }
}

#[test]
fn full_of_data_and_empty_again() {
    for domain in DOMAINS {
        for size in [3_000, 70_000, 3_000_000] {
            let fs = new_fs(16 << 20, domain);
            let dir = fs.create(&fs.root().unwrap(), b"d", &DIRECTORY).unwrap();
            let free = fs.space().blocks_free;
            for _ in 0..2 {
                let (files, last) = fill(&fs, &dir, size);
                assert!(fs.space().blocks_available < 800, "{domain}: full at {:?}", fs.space());
                verify(&fs, &dir, files, size, last);
                for i in 0..files {
                    fs.unlink(&dir, &name(i)).unwrap();
                }
                assert_eq!(fs.space().blocks_free, free, "{domain}: files of {size} bytes");
            }
        }
    }
}

#[test]
fn full_of_names_and_empty_again() {
    for domain in DOMAINS {
        let fs = new_fs(4 << 20, domain);
        let empty = fs.space();
        let dir = fs.create(&fs.root().unwrap(), b"d", &DIRECTORY).unwrap();
        let (files, _) = fill(&fs, &dir, 0);
        for i in (0..files).step_by(2) {
            fs.unlink(&dir, &name(i)).unwrap();
        }
        for i in (0..files).step_by(2) {
            fs.create(&dir, &name(i), &FILE).unwrap();
        }
        for i in 0..files {
            fs.unlink(&dir, &name(i)).unwrap();
        }
        fs.rmdir(&fs.root().unwrap(), b"d").unwrap();
        drop(dir);
        assert_eq!(fs.space(), empty);
    }
}

#[test]
fn a_full_volume_can_truncate_punch_and_rename() {
    for domain in DOMAINS {
        let fs = new_fs(8 << 20, domain);
        let root = fs.root().unwrap();
        // Many extents, so that cutting one needs an extent block.
        let file = fs.create(&root, b"holes", &FILE).unwrap();
        for i in 0..200 {
            fs.write(&file, i * 12_288, &[1; 8192], false).unwrap();
        }
        let (files, _) = fill(&fs, &root, 50_000);
        for i in 0..200 {
            fs.fallocate(&file, Fallocate::PunchHole, i * 12_288, 4096).unwrap();
        }
        fs.set_attr(&file, &SetAttr { size: Some(100_000), ..SetAttr::default() }).unwrap();
        for i in 0..files {
            fs.rename(&root, &name(i), &root, format!("{i}").as_bytes(), RenameMode::Replace, (0, 0))
                .unwrap();
            fs.unlink(&root, format!("{i}").as_bytes()).unwrap();
        }
        let mut buffer = vec![0; 100_000];
        assert_eq!(fs.read(&file, 0, &mut buffer).unwrap(), 100_000);
        assert!(
            buffer
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == u8::from((4096..8192).contains(&(at % 12_288))))
        );
    }
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    for domain in DOMAINS {
        let fs = new_fs(4 << 20, domain);
        let root = fs.root().unwrap();
        let file = fs.create(&root, b"f", &FILE).unwrap();
        let free = fs.space().blocks_free;
        let too_much = Fallocate::Allocate { keep_size: false };
        assert_eq!(fs.fallocate(&file, too_much, 0, 1 << 40).unwrap_err().errno(), Errno::NOSPC);
        assert_eq!((fs.attr(&file).unwrap().size, fs.space().blocks_free), (0, free));
        fill(&fs, &root, 10_000);
        let before = fs.space().blocks_free;
        let value = vec![7; 60_000];
        assert_eq!(fs.set_xattr(&file, b"user.x", &value, XattrMode::Set).unwrap_err().errno(), Errno::NOSPC);
        assert_eq!(fs.get_xattr(&file, b"user.x").unwrap_err().errno(), Errno::NODATA);
        assert_eq!(fs.space().blocks_free, before);
    }
}

#[test]
fn a_large_write_takes_scattered_free_blocks() {
    const SIZE: usize = 8 << 20;
    for domain in DOMAINS {
        let fs = new_fs(24 << 20, domain);
        let root = fs.root().unwrap();
        let (files, _) = fill(&fs, &root, 4096);
        for i in (0..files).step_by(2) {
            fs.unlink(&root, &name(i)).unwrap();
        }
        fs.sync().unwrap();
        let file = fs.create(&root, b"large", &FILE).unwrap();
        let content: Vec<u8> = (0..SIZE).map(|i| (i / 4096) as u8).collect();
        assert_eq!(fs.write(&file, 0, &content, false).unwrap(), SIZE);
        let mut read = vec![0; SIZE];
        assert_eq!(fs.read(&file, 0, &mut read).unwrap(), SIZE);
        assert!(read == content, "the content is damaged");
        fs.fallocate(&file, Fallocate::Allocate { keep_size: false }, SIZE as u64, 1 << 20).unwrap();
        assert_eq!(fs.attr(&file).unwrap().size, SIZE as u64 + (1 << 20));
    }
}

/// On a `page` volume a power failure can take back that a file was made shorter. An operation that was refused must not have
/// changed what is there then.
#[test]
fn a_write_that_finds_no_room_has_zeroed_nothing() {
    const SEVENS: usize = 4000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    lodefs_pmem::create_file(&path, 4 << 20, lodefs_pmem::Reserve::Full).unwrap();
    let options =
        lodefs_pmem::OpenOptions { access: lodefs_pmem::Access::ReadWrite, force_domain: Some(Domain::Page) };
    let open = || Medium::open(&path, &options).unwrap();
    Fs::format(&open(), &FormatOptions::default()).unwrap();
    let fs = Fs::open(open(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    let file = fs.create(&root, b"f", &FILE).unwrap();
    fs.write(&file, 0, &[7; SEVENS], false).unwrap();
    fill(&fs, &root, 100_000);
    fs.sync().unwrap();
    fs.set_attr(&file, &SetAttr { size: Some(100), ..SetAttr::default() }).unwrap();
    let sevens =
        || std::fs::read(&path).unwrap().windows(SEVENS).filter(|bytes| **bytes == [7; SEVENS]).count();
    assert_eq!(sevens(), 1, "they are there until the file grows");
    let refused = |outcome: lodefs_core::Result<()>| {
        assert_eq!(outcome.unwrap_err().errno(), Errno::NOSPC);
        assert_eq!(sevens(), 1);
    };
    refused(fs.write(&file, 1 << 20, &[1; 10], false).map(|_| ()));
    refused(fs.fallocate(&file, Fallocate::Allocate { keep_size: false }, 8192, 8 << 20));
    fs.write(&file, 200, &[1], false).unwrap();
    assert_eq!(sevens(), 0, "now it has grown");
}

/// A file of single blocks with holes between them.
fn scattered(fs: &Fs, root: &Node, name: &[u8], extents: u64) -> Node {
    let file = fs.create(root, name, &FILE).unwrap();
    for number in 0..extents {
        fs.write(&file, 2 * number * BLOCK, &[7; BLOCK as usize], false).unwrap();
    }
    file
}

/// Fills the volume, and frees so many single blocks, of which the list of what is left may take some.
fn leave_scattered(fs: &Fs, root: &Node, blocks: u64) {
    let filling = fs.create(root, b"filling", &FILE).unwrap();
    let size = fs.space().blocks_available * BLOCK;
    fs.fallocate(&filling, Fallocate::Allocate { keep_size: false }, 0, size).unwrap();
    for number in 0..blocks {
        fs.fallocate(&filling, Fallocate::PunchHole, (100 + 2 * number) * BLOCK, BLOCK).unwrap();
    }
    fs.sync().unwrap();
}

#[test]
fn what_there_was_no_room_to_note_is_free_again() {
    let mut short = 0;
    for domain in DOMAINS {
        for left in 2..8 {
            let fs = new_fs(8 << 20, domain);
            let root = fs.root().unwrap();
            let unlink = |names: &[&[u8]]| {
                for name in names {
                    fs.unlink(&root, name).unwrap();
                }
                fs.sync().unwrap();
                fs.space().blocks_free
            };
            drop((scattered(&fs, &root, b"f", 3), scattered(&fs, &root, b"filling", 1)));
            let free = unlink(&[b"f", b"filling"]);
            let file = scattered(&fs, &root, b"f", 3);
            leave_scattered(&fs, &root, left);
            // The first block fits into the inode, the next into a list that there may be no room for.
            let written = fs.write(&file, 20 * BLOCK, &vec![1; 8 * BLOCK as usize], false).unwrap() as u64;
            let sectors = fs.attr(&file).unwrap().sectors;
            if written == BLOCK {
                short += 1;
                assert_eq!(sectors * 512, 4 * BLOCK);
            }
            drop(file);
            assert_eq!(unlink(&[b"f", b"filling"]), free, "{domain}, {left} blocks");
        }
    }
    assert!(short > 0);
}

#[test]
fn a_range_for_which_there_is_no_room_stays_as_it_is() {
    for domain in DOMAINS {
        for how in [Fallocate::ZeroRange { keep_size: false }, Fallocate::Allocate { keep_size: false }] {
            let fs = new_fs(32 << 20, domain);
            let root = fs.root().unwrap();
            let file = scattered(&fs, &root, b"f", 1);
            // So many that their list does not fit into one record, and takes room as well.
            leave_scattered(&fs, &root, 3000);
            let (before, available) = (fs.attr(&file).unwrap(), fs.space().blocks_available);
            let refused = fs.fallocate(&file, how, 0, (1 + available) * BLOCK);
            assert_eq!(refused.unwrap_err().errno(), Errno::NOSPC);
            fs.sync().unwrap();
            let after = fs.attr(&file).unwrap();
            assert_eq!((after.size, after.sectors), (before.size, before.sectors));
            assert_eq!(fs.space().blocks_available, available);
            let mut read = [0; BLOCK as usize];
            fs.read(&file, 0, &mut read).unwrap();
            assert_eq!(read, [7; BLOCK as usize]);
        }
    }
}
