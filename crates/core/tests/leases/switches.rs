//! What if a file that programs have mapped is switched; and what has been stored by then?

use std::sync::Arc;
use std::thread;

use lodefs_core::{
    DaxPolicy, Effect, Fallocate, Flags, FormatOptions, Fs, HolderKind, Lease, LeaseOptions, Lessee,
    NewInode, NewKind, Node, OpenOptions, SetAttr, Touched,
};
use lodefs_pmem::{Domain, Medium, What as PmemEvent};
use rustix::io::Errno;

use super::{BLOCK, Program, SIZE, Volume, WRITABLE, at, lease, touch, touch_of};

/// How a touch is answered.
fn answer(lease: &Lease) -> Touched {
    let mut answer = None;
    lease.touch(&touch_of(0, true), |touched| answer = Some(touched)).unwrap();
    answer.unwrap()
}

fn effect(file: &Node) -> Option<Effect> {
    file.fs().dax_status(file, None).unwrap().effect
}

fn revoke(file: &Node, on: bool) -> Result<bool, Errno> {
    file.fs().revoke_dax(file, on, None, &mut || false).map_err(|error| error.errno())
}

#[test]
fn a_switch_takes_mappings_back_and_the_next_touch_finds_what_the_file_is_then() {
    let (volume, file) = Volume::with_direct_file(4);
    let program = Arc::new(Program::default());
    let lease = lease(&file, &program);
    let block = at(&touch(&lease, 0, true).1);
    for round in 0..3 {
        assert_eq!(revoke(&file, false), Ok(false));
        assert_eq!(program.recalls(), [(2 * round + 1, 0, u64::MAX / BLOCK)]);
        assert_eq!(effect(&file), Some(Effect::Buffered));
        assert_eq!(answer(&lease), Touched::Buffered { epoch: 2 * round + 1 });
        assert_eq!(revoke(&file, true), Ok(false));
        assert_eq!(program.recalls(), [(2 * round + 2, 0, u64::MAX / BLOCK)]);
        assert_eq!(effect(&file), Some(Effect::Direct));
        assert_eq!(at(&touch(&lease, 0, true).1), block);
    }
    assert_eq!(revoke(&file, true), Ok(false), "it is so already");
    assert!(program.recalls().is_empty());
    let kinds: Vec<_> =
        volume.fs.dax_status(&file, None).unwrap().holders.iter().map(|one| one.kind).collect();
    assert_eq!(kinds, [HolderKind::Mapping { sync: false }]);
    drop(lease);
    assert!(volume.fs.dax_status(&file, None).unwrap().holders.is_empty());
}

#[test]
fn what_holds_a_file_otherwise_keeps_it_from_being_switched() {
    let (volume, file) = Volume::with_direct_file(4);
    let program = Arc::new(Program::default());
    let lease = lease(&file, &program);
    let block = at(&touch(&lease, 0, true).1);
    let open = volume.fs.hold(&file, HolderKind::OpenFile, 1).unwrap();
    assert_eq!(revoke(&file, false), Err(Errno::BUSY));
    assert_eq!(effect(&file), Some(Effect::Direct));
    assert!(volume.fs.attr(&file).unwrap().flags.contains(Flags::DAX), "nothing has changed");
    assert_eq!(at(&touch(&lease, 0, true).1), block, "it goes on as before");
    let asker = Some(open.asker());
    assert_eq!(
        volume.fs.revoke_dax(&file, false, asker, &mut || false).map_err(|error| error.errno()),
        Ok(true)
    );
    assert_eq!(effect(&file), Some(Effect::Buffered), "whoever asks does not count");
    drop(open);
    let buffered = volume.fs.hold(&file, HolderKind::OpenFile, 1).unwrap();
    assert_eq!(revoke(&file, true), Err(Errno::BUSY));
    let mut left = Some(buffered);
    let mut patience = || left.take().is_some();
    assert_eq!(
        volume.fs.revoke_dax(&file, true, None, &mut patience).map_err(|error| error.errno()),
        Ok(false)
    );
    assert_eq!(effect(&file), Some(Effect::Direct), "the last holder has gone in time");
}

#[test]
fn a_synchronous_mapping_is_not_taken_back() {
    let volume = Volume::with(DaxPolicy::Inode);
    let file = volume.hole("f", 4);
    let program = Arc::new(Program::default());
    let sync = LeaseOptions { sync: true, ..WRITABLE };
    let lessee = || Arc::clone(&program) as Arc<dyn Lessee>;
    let refused = volume.fs.lease(&file, lessee(), sync).map(|_| ()).map_err(|error| error.errno());
    assert_eq!(refused, Err(Errno::OPNOTSUPP), "it is not direct");
    assert!(volume.fs.dax_status(&file, None).unwrap().holders.is_empty());
    volume.fs.set_flags(&file, Flags::DAX, None).unwrap();
    let lease = volume.fs.lease(&file, lessee(), sync).unwrap();
    assert_eq!(revoke(&file, false), Err(Errno::BUSY));
    assert!(program.recalls().is_empty());
    assert_eq!(effect(&file), Some(Effect::Direct));
    drop(lease);
    assert_eq!(revoke(&file, false), Ok(false));
}

#[test]
fn a_synchronous_mapping_that_is_made_during_a_switch_keeps_the_file_direct() {
    let (volume, file) = Volume::with_direct_file(4);
    let (program, asked) = Program::that_keeps();
    let first = lease(&file, &program);
    touch(&first, 0, true);
    let sync = thread::scope(|scope| {
        let switch = scope.spawn(|| revoke(&file, false));
        asked.wait();
        let options = LeaseOptions { sync: true, ..WRITABLE };
        let sync = volume.fs.lease(&file, Arc::new(Program::default()), options).unwrap();
        program.waiting().clear();
        assert_eq!(switch.join().unwrap(), Err(Errno::BUSY));
        sync
    });
    assert!(sync.is_direct());
    assert_eq!(effect(&file), Some(Effect::Direct));
    at(&touch(&sync, 0, true).1);
}

#[test]
fn a_program_that_does_not_answer_keeps_a_file_from_being_switched() {
    let (volume, file) = Volume::with_direct_file(4);
    let (program, asked) = Program::that_keeps();
    let lease = lease(&file, &program);
    touch(&lease, 0, true);
    thread::scope(|scope| {
        let switch = scope.spawn(|| revoke(&file, false));
        asked.wait();
        assert_eq!(answer(&lease), Touched::Switching);
        assert_eq!(revoke(&file, false), Err(Errno::BUSY), "another one is at it");
        // Nothing else is held up.
        volume.fs.write(&file, 0, b"meanwhile", false).unwrap();
        program.waiting()[0].answer.give_up();
        assert_eq!(switch.join().unwrap(), Err(Errno::BUSY));
    });
    assert_eq!(effect(&file), Some(Effect::Direct));
    program.waiting().clear();
    at(&touch(&lease, 0, true).1);
}

/// What a switch has asked for is still reached until the program answers, whoever frees it.
#[test]
fn what_a_switch_did_not_get_back_is_not_used_again() {
    let (volume, file) = Volume::with_direct_file(4);
    let (program, asked) = Program::that_keeps();
    let lease = lease(&file, &program);
    let free = volume.free();
    touch(&lease, 0, true);
    touch(&lease, 1, true);
    thread::scope(|scope| {
        let switch = scope.spawn(|| revoke(&file, false));
        asked.wait();
        let punch = scope.spawn(|| volume.fs.fallocate(&file, Fallocate::PunchHole, 0, BLOCK).unwrap());
        thread::sleep(std::time::Duration::from_millis(50));
        let waits = !punch.is_finished();
        program.waiting()[0].answer.give_up();
        assert_eq!(switch.join().unwrap(), Err(Errno::BUSY));
        punch.join().unwrap();
        assert!(waits, "not only the switch");
    });
    volume.fs.fallocate(&file, Fallocate::PunchHole, BLOCK, BLOCK).unwrap();
    assert_eq!(volume.free(), free - 2, "both are kept");
    program.waiting().clear();
    assert_eq!(volume.free(), free);
}

#[test]
fn what_was_stored_to_a_mapping_is_made_durable_when_nobody_else_can_or_somebody_asks() {
    let (medium, recording) = Medium::recording(SIZE, Domain::MemoryController).unwrap();
    Fs::format(&medium, &FormatOptions::default()).unwrap();
    let fs = Fs::open(medium, &OpenOptions::default()).unwrap();
    let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
    let file = fs.create(&fs.root().unwrap(), b"f", &new).unwrap();
    fs.set_attr(&file, &SetAttr { size: Some(8 * BLOCK), ..SetAttr::default() }).unwrap();
    fs.set_flags(&file, Flags::DAX, None).unwrap();
    let is_flushed = |block: u64| {
        let covers = |at: u64, size: u64| at <= block && block + BLOCK <= at + size;
        let events = recording.take();
        let flush = events
            .iter()
            .position(|event| matches!(event.what, PmemEvent::Flush { at, size, .. } if covers(at, size)));
        flush.is_some_and(|at| events[at..].iter().any(|event| matches!(event.what, PmemEvent::Fence { .. })))
    };
    let program = Arc::new(Program::default());
    let first = lease(&file, &program);
    let block = at(&touch(&first, 5, true).1);
    recording.take();
    fs.fsync(&file, true).unwrap();
    assert!(is_flushed(block), "fsync");
    // Zeroes that are taken back beside it make the program unmap it, too.
    touch(&first, 7, false);
    fs.write(&file, 7 * BLOCK, b"x", false).unwrap();
    recording.take();
    fs.fsync(&file, true).unwrap();
    assert!(is_flushed(block), "fsync, after it was taken back");
    assert_eq!(revoke(&file, false), Ok(false));
    assert!(is_flushed(block), "a switch");
    assert_eq!(revoke(&file, true), Ok(false));
    touch(&first, 5, true);
    recording.take();
    drop(first);
    assert!(is_flushed(block), "the end of the mapping");
    let reader = fs.lease(&file, program, LeaseOptions { writable: false, ..WRITABLE }).unwrap();
    touch(&reader, 5, false);
    recording.take();
    fs.fsync(&file, true).unwrap();
    assert!(!is_flushed(block), "nothing was stored");
}
