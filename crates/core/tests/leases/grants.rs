//! What is granted for a touch, and what not?

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use lodefs_core::{Flags, LeaseOptions, Lessee, Node, Part, Touch, What};
use rustix::io::Errno;

use super::{BLOCK, Program, SIZE, Volume, WRITABLE, at, lease, touch, touch_of, try_touch};

#[test]
fn reading_a_hole_allocates_nothing_and_writing_does_once() {
    let volume = Volume::new();
    let file = volume.hole("f", 4);
    let program = Arc::new(Program::default());
    let lease = lease(&file, &program);
    let free = volume.free();
    let (epoch, parts) = touch(&lease, 1, false);
    assert_eq!((epoch, &parts[..]), (0, &[Part { offset: BLOCK, size: BLOCK, what: What::Zeroes }][..]));
    assert_eq!(volume.free(), free);
    let (epoch, parts) = touch(&lease, 1, true);
    assert_eq!((epoch, parts[0].offset, parts[0].size), (1, BLOCK, BLOCK));
    assert_eq!(program.recalls(), [(1, 1, 2)], "its own zeroes are taken back first");
    assert_eq!(volume.free(), free - 1);
    assert_eq!(touch(&lease, 1, true), touch(&lease, 1, false), "from then on it is one block");
    volume.medium.write_all_at(&[5; 10], at(&parts)).unwrap();
    assert_eq!(volume.block(&file, 1)[..12], [5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 0, 0]);
    volume.fs.write(&file, BLOCK + 4, &[6; 2], false).unwrap();
    assert_eq!(volume.mapped(at(&parts))[..8], [5, 5, 5, 5, 6, 6, 5, 5]);
    assert!(program.recalls().is_empty());
}

#[test]
fn a_window_of_a_hole_is_filled_and_nothing_beside_it() {
    let volume = Volume::new();
    let file = volume.hole("f", 64);
    volume.fs.write(&file, 6 * BLOCK, &[1; 10], false).unwrap();
    let lease = lease(&file, &Arc::new(Program::default()));
    let free = volume.free();
    let wide = Touch { window: 8 * BLOCK, ..touch_of(3, true) };
    let (_, parts) = try_touch(&lease, &wide).unwrap();
    assert_eq!(volume.free(), free - 6, "blocks 0 to 5; 6 is there, 7 is another hole");
    assert_eq!(parts.iter().map(|part| part.size / BLOCK).sum::<u64>() / 6, 1, "{parts:?}");
    let narrow = Touch { window: 8 * BLOCK, from: 17 * BLOCK, to: 19 * BLOCK, ..touch_of(18, true) };
    let (_, parts) = try_touch(&lease, &narrow).unwrap();
    assert_eq!((parts[0].offset / BLOCK, parts[0].size / BLOCK), (17, 2), "not beyond the mapping");
    let last = Touch { window: 1 << 20, ..touch_of(60, true) };
    let (_, parts) = try_touch(&lease, &last).unwrap();
    let end = parts.last().map(|part| part.offset + part.size);
    assert_eq!(end, Some(64 * BLOCK), "not beyond the end of the file");
}

#[test]
fn sixteen_threads_fill_a_hole_once() {
    let volume = Volume::new();
    let file = volume.hole("f", 64);
    let free = volume.free();
    let granted: Vec<Vec<u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let lease = lease(&file, &Arc::new(Program::default()));
                    (0..64).map(|block| at(&touch(&lease, block, true).1)).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(volume.free(), free - 64);
    assert!(granted.iter().all(|other| *other == granted[0]));
}

#[test]
fn where_there_is_no_room_nothing_else_is_lost() {
    let volume = Volume::new();
    let file = volume.hole("f", 1 << 20);
    let other = volume.file("other");
    volume.fs.write(&other, 0, &vec![3; SIZE as usize], false).unwrap();
    let lease = lease(&file, &Arc::new(Program::default()));
    let wide = Touch { window: 2 << 20, ..touch_of(0, true) };
    let mut block = 0;
    let refused = loop {
        match try_touch(&lease, &Touch { offset: block * BLOCK, ..wide }) {
            Ok((_, parts)) => block = parts.last().map_or(block, |part| (part.offset + part.size) / BLOCK),
            Err(errno) => break errno,
        }
    };
    assert_eq!(refused, Errno::NOSPC);
    assert_eq!(volume.fs.space().blocks_available, 0, "all was given out, to the last block");
    assert_eq!(touch(&lease, block, false).1[0].what, What::Zeroes);
    volume.fs.unlink(&volume.fs.root().unwrap(), b"other").unwrap();
    drop(other);
    at(&touch(&lease, block, true).1);
}

#[test]
fn touches_that_make_no_sense_are_refused() {
    let volume = Volume::new();
    let file = volume.hole("f", 4);
    let lease = lease(&file, &Arc::new(Program::default()));
    let good = touch_of(1, true);
    let end = 1 << 63;
    for bad in [
        Touch { from: 2 * BLOCK, ..good },
        Touch { to: BLOCK, ..good },
        Touch { from: 1, ..good },
        Touch { to: 5 * BLOCK - 1, ..good },
        Touch { window: 0, ..good },
        Touch { window: 3 * BLOCK, ..good },
        Touch { window: 4 << 20, ..good },
        Touch { window: 2048, ..good },
        Touch { to: end + BLOCK, ..good },
        Touch { offset: u64::MAX, to: u64::MAX - BLOCK + 1, ..good },
    ] {
        assert_eq!(try_touch(&lease, &bad), Err(Errno::INVAL), "{bad:?}");
    }
    let last = Touch { offset: end - 1, to: end, window: 2 << 20, ..good };
    assert_eq!(try_touch(&lease, &last), Ok((0, vec![])), "beyond the end of this file");
}

#[test]
fn the_last_block_of_the_largest_file_can_be_mapped() {
    let volume = Volume::new();
    let file = volume.file("f");
    volume.resize(&file, i64::MAX as u64);
    let lease = lease(&file, &Arc::new(Program::default()));
    let end = 1 << 63;
    let touch = Touch { offset: end - 1, write: true, from: end - BLOCK, to: end, window: 2 << 20 };
    let (_, parts) = try_touch(&lease, &touch).unwrap();
    assert_eq!((parts[0].offset, parts[0].size), (end - BLOCK, BLOCK));
    volume.medium.write_all_at(b"near the end", at(&parts)).unwrap();
    let mut read = [0; 12];
    volume.fs.read(&file, end - BLOCK, &mut read).unwrap();
    assert_eq!(&read, b"near the end");
}

#[test]
fn only_direct_files_are_leased_and_only_as_far_as_may_be() {
    let volume = Volume::new();
    let file = volume.hole("f", 1);
    let program = || Arc::new(Program::default()) as Arc<dyn Lessee>;
    let refusal = |node: &Node, options| {
        volume.fs.lease(node, program(), options).map(|_| ()).map_err(|error| error.errno())
    };
    let reading = LeaseOptions { writable: false, ..WRITABLE };
    assert_eq!(refusal(&volume.fs.root().unwrap(), reading), Err(Errno::INVAL));
    volume.fs.set_flags(&file, Flags::IMMUTABLE, None).unwrap();
    assert_eq!(refusal(&file, WRITABLE), Err(Errno::PERM));
    let read_only = volume.fs.lease(&file, program(), reading).unwrap();
    assert_eq!(try_touch(&read_only, &touch_of(0, true)), Err(Errno::INVAL));
    assert!(try_touch(&read_only, &touch_of(0, false)).is_ok());
}

#[test]
fn a_writable_mapping_changes_the_times_when_it_is_made_touched_and_gone() {
    let volume = Volume::new();
    let file = volume.hole("f", 4);
    let mtime = || volume.fs.attr(&file).unwrap().mtime;
    let mut last = mtime();
    let mut has_changed = |what: &str| {
        let now = mtime();
        assert!(now > last, "{what}");
        last = now;
    };
    let lease = lease(&file, &Arc::new(Program::default()));
    has_changed("made");
    touch(&lease, 0, true);
    has_changed("a write fault on a hole");
    touch(&lease, 0, true);
    has_changed("a write fault on a block");
    lease.note_change().unwrap();
    has_changed("a store that was told of");
    drop(lease);
    has_changed("gone");
}

#[test]
fn what_is_behind_the_end_is_not_shown() {
    let volume = Volume::new();
    let file = volume.file("f");
    volume.fs.write(&file, 0, &[7; 4096], false).unwrap();
    volume.resize(&file, 100);
    let lease = lease(&file, &Arc::new(Program::default()));
    let block = at(&touch(&lease, 0, false).1);
    assert_eq!(volume.mapped(block), [[7u8; 100].as_slice(), &[0; 3996]].concat());
    volume.medium.write_all_at(&[9; 4096], block).unwrap();
    volume.resize(&file, 50);
    assert_eq!(volume.mapped(block), [[9u8; 50].as_slice(), &[0; 4046]].concat());
    volume.medium.write_all_at(&[9; 4096], block).unwrap();
    volume.resize(&file, 4096);
    assert_eq!(volume.block(&file, 0), [[9u8; 50].as_slice(), &[0; 4046]].concat());
}
