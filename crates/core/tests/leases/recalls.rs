//! What is taken back before a file changes, and what if nobody answers?

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use lodefs_core::{Fallocate, Fs, Lessee, What};
use lodefs_pmem::Medium;

use super::{BLOCK, Program, SIZE, Volume, at, lease, touch};

#[test]
fn zeroes_go_before_anybody_else_fills_the_hole() {
    let volume = Volume::new();
    let file = volume.hole("f", 8);
    let (reader, writer) = (Arc::new(Program::default()), Arc::new(Program::default()));
    let (to_read, to_write) = (lease(&file, &reader), lease(&file, &writer));
    touch(&to_read, 2, false);
    touch(&to_write, 2, true);
    assert_eq!(reader.recalls(), [(1, 2, 3)]);
    assert!(writer.recalls().is_empty(), "it had nothing there");
    touch(&to_read, 4, false);
    volume.fs.write(&file, 4 * BLOCK, b"through the mount", false).unwrap();
    assert_eq!(reader.recalls(), [(2, 4, 5)]);
    touch(&to_read, 5, false);
    volume.fs.fallocate(&file, Fallocate::Allocate { keep_size: false }, 5 * BLOCK, BLOCK).unwrap();
    assert_eq!(reader.recalls(), [(3, 5, 6)]);
    volume.fs.write(&file, 7 * BLOCK, b"where nobody looked", false).unwrap();
    assert!(reader.recalls().is_empty());
}

#[test]
fn blocks_are_taken_back_before_they_are_freed() {
    let volume = Volume::new();
    let file = volume.hole("f", 8);
    let program = Arc::new(Program::default());
    let lease = lease(&file, &program);
    for block in 0..8 {
        touch(&lease, block, true);
    }
    volume.fs.fallocate(&file, Fallocate::PunchHole, 3 * BLOCK, 2 * BLOCK).unwrap();
    assert_eq!(program.recalls(), [(1, 3, 5)]);
    assert_eq!(touch(&lease, 3, false).1[0].what, What::Zeroes);
    volume.resize(&file, 2 * BLOCK);
    assert_eq!(program.recalls()[0].1, 2);
    assert_eq!(touch(&lease, 2, false), (2, vec![]), "beyond the end");
    volume.resize(&file, 8 * BLOCK);
    assert_eq!(program.recalls(), [(3, 2, u64::MAX / BLOCK)], "there is something now");
    assert_eq!(touch(&lease, 2, false).1[0].what, What::Zeroes, "not what was there before");
    volume.fs.unlink(&volume.fs.root().unwrap(), b"f").unwrap();
    assert!(program.recalls().is_empty(), "what is mapped stays");
    touch(&lease, 7, true);
}

#[test]
fn zeroes_behind_the_end_are_taken_back() {
    let volume = Volume::new();
    let file = volume.hole("f", 8);
    let program = Arc::new(Program::default());
    let lease = lease(&file, &program);
    touch(&lease, 6, false);
    volume.resize(&file, 2 * BLOCK);
    assert_eq!(program.recalls().len(), 1);
    assert_eq!(touch(&lease, 6, false), (1, vec![]), "beyond the end");
}

#[test]
fn who_has_met_the_end_is_told_that_it_has_moved() {
    let volume = Volume::new();
    let file = volume.hole("f", 2);
    let (program, other) = (Arc::new(Program::default()), Arc::new(Program::default()));
    let (lease, untold) = (lease(&file, &program), lease(&file, &other));
    assert_eq!(touch(&lease, 2, false), (0, vec![]), "beyond the end");
    touch(&untold, 1, false);
    volume.fs.write(&file, BLOCK, &[1; BLOCK as usize], false).unwrap();
    assert!(program.recalls().is_empty());
    volume.fs.write(&file, 4 * BLOCK, &[1], false).unwrap();
    assert_eq!(program.recalls(), [(1, 2, u64::MAX / BLOCK)]);
    volume.resize(&file, 10 * BLOCK);
    assert!(program.recalls().is_empty(), "it is told once");
    assert_eq!(touch(&lease, 12, false), (1, vec![]));
    volume
        .fs
        .lease_data(&file, Arc::clone(&other) as Arc<dyn Lessee>, true, 1)
        .unwrap()
        .reserve(0, 11 * BLOCK, |_| {})
        .unwrap();
    assert_eq!(program.recalls().len(), 1, "of a program that may append");
    assert!(other.recalls().iter().all(|(_, from, _)| *from < 10), "of whom the zeroes were taken back only");
}

#[test]
fn an_operation_waits_for_the_answer() {
    let volume = Volume::new();
    let file = volume.hole("f", 2);
    let (program, asked) = Program::that_keeps();
    let lease = lease(&file, &program);
    let block = at(&touch(&lease, 1, true).1);
    volume.medium.write_all_at(&[1; 8], block).unwrap();
    thread::scope(|scope| {
        let cut = scope.spawn(|| volume.resize(&file, BLOCK));
        asked.wait();
        // A store that is made before the answer is made to the file.
        volume.medium.write_all_at(&[2; 8], block).unwrap();
        assert!(!cut.is_finished());
        program.waiting().clear();
        cut.join().unwrap();
    });
    assert_eq!(volume.fs.attr(&file).unwrap().size, BLOCK);
}

#[test]
fn what_a_program_may_still_reach_is_not_used_again() {
    let volume = Volume::new();
    let file = volume.hole("f", 16);
    let (program, asked) = Program::that_keeps();
    let lease = lease(&file, &program);
    let free = volume.free();
    let kept: Vec<u64> = (0..16).map(|block| at(&touch(&lease, block, true).1)).collect();
    thread::scope(|scope| {
        let cut = scope.spawn(|| volume.resize(&file, 0));
        asked.wait();
        program.waiting()[0].answer.give_up();
        cut.join().unwrap();
    });
    assert_eq!(volume.free(), free - 16);
    // Another file takes all there is.
    let other = volume.file("other");
    let all = vec![3; SIZE as usize];
    volume.fs.write(&other, 0, &all, false).unwrap();
    for at in &kept {
        volume.medium.write_all_at(&[0xbb; 4096], *at).unwrap();
    }
    let size = volume.fs.attr(&other).unwrap().size;
    let mut read = vec![0; size as usize];
    volume.fs.read(&other, 0, &mut read).unwrap();
    assert!(read.iter().all(|byte| *byte == 3), "a block of it was reached by another program");
    let free = volume.free();
    program.waiting().clear();
    assert_eq!(volume.free(), free + 16);
}

#[test]
fn a_volume_with_blocks_in_quarantine_is_not_closed_as_clean() {
    let volume = Volume::new();
    let file = volume.hole("f", 2);
    let program = Arc::new(Program { keeps: true, ..Program::default() });
    let lease = lease(&file, &program);
    touch(&lease, 0, true);
    thread::scope(|scope| {
        let cut = scope.spawn(|| volume.resize(&file, 0));
        while program.waiting().is_empty() {
            thread::yield_now();
        }
        program.waiting()[0].answer.give_up();
        cut.join().unwrap();
    });
    let path = volume.dir.path().join("vol");
    let Volume { fs, dir: _dir, .. } = volume;
    fs.close().unwrap();
    let copy = path.with_extension("copy");
    std::fs::copy(&path, &copy).unwrap();
    let medium = Medium::open(&copy, &lodefs_pmem::OpenOptions::default()).unwrap();
    assert!(!Fs::probe_clean(medium).unwrap());
    drop(lease);
}
