//! Reads that do not take the lock of their file see only bytes of that file, whatever happens to its blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lodefs_core::{FormatOptions, Fs, NewInode, NewKind, Node, OpenOptions, SetAttr};
use lodefs_pmem::{Domain, Medium};

const FILE: NewInode<'static> = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
const SIZE: usize = 64 << 10;
const PIECE: usize = 4096;
/// More than a thread copies without being interrupted now and then.
const LARGE: usize = 1 << 20;
const ROUNDS: usize = 3000;

fn new_fs() -> Arc<Fs> {
    let medium = Medium::anonymous(16 << 20, Domain::Volatile).unwrap();
    Fs::format(&medium, &FormatOptions::default()).unwrap();
    Fs::open(medium, &OpenOptions::default()).unwrap()
}

fn truncate(fs: &Fs, node: &Node) {
    fs.set_attr(node, &SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
}

#[test]
fn blocks_that_went_to_another_file_are_not_read() {
    let fs = new_fs();
    let root = fs.root().unwrap();
    let (ours, theirs) = (fs.create(&root, b"a", &FILE).unwrap(), fs.create(&root, b"b", &FILE).unwrap());
    let is_over = AtomicBool::new(false);
    let read_all = || {
        let mut buffer = [0; PIECE];
        while !is_over.load(Ordering::Relaxed) {
            for offset in (0..SIZE).step_by(PIECE) {
                let read = fs.read(&ours, offset as u64, &mut buffer).unwrap();
                assert!(read == 0 || read == PIECE, "{read} bytes at {offset}");
                assert!(buffer[..read].iter().all(|byte| *byte == b'a'), "foreign bytes at {offset}");
            }
        }
    };
    // Each takes the blocks that the other has just given up.
    let change = || {
        for _ in 0..ROUNDS {
            assert_eq!(fs.write(&ours, 0, &vec![b'a'; SIZE], false).unwrap(), SIZE);
            thread::yield_now();
            truncate(&fs, &ours);
            assert_eq!(fs.write(&theirs, 0, &vec![b'b'; SIZE], false).unwrap(), SIZE);
            truncate(&fs, &theirs);
        }
        is_over.store(true, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        let readers = [scope.spawn(read_all), scope.spawn(read_all)];
        let changed = scope.spawn(change).join();
        // Else a failure would leave the readers running.
        is_over.store(true, Ordering::Relaxed);
        changed.unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn an_overwrite_is_read_whole() {
    let fs = new_fs();
    let root = fs.root().unwrap();
    let file = fs.create(&root, b"f", &FILE).unwrap();
    fs.write(&file, 0, &vec![0; LARGE], false).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..ROUNDS {
                fs.write(&file, 0, &vec![round as u8; LARGE], false).unwrap();
                thread::yield_now();
            }
        });
        let mut buffer = vec![0; LARGE];
        while !writer.is_finished() {
            fs.read(&file, 0, &mut buffer).unwrap();
            assert!(buffer.iter().all(|byte| *byte == buffer[0]), "a mixture of two writes");
        }
    });
}

#[test]
fn a_short_read_ends_with_the_file() {
    let fs = new_fs();
    let root = fs.root().unwrap();
    let file = fs.create(&root, b"f", &FILE).unwrap();
    fs.write(&file, 0, &[1; 5000], false).unwrap();
    let mut buffer = [0; PIECE];
    let mut sizes = || [0, 4096, 5000, 6000].map(|offset| fs.read(&file, offset, &mut buffer).unwrap());
    assert_eq!(sizes(), [4096, 904, 0, 0]);
    assert_eq!(sizes(), [4096, 904, 0, 0], "once more, with what the first reads left behind");
    fs.set_attr(&file, &SetAttr { size: Some(100), ..SetAttr::default() }).unwrap();
    assert_eq!(fs.read(&file, 0, &mut buffer).unwrap(), 100);
}
