//! Who reads and writes a file by itself, and who takes that back.

use std::sync::Arc;
use std::thread;

use lodefs_core::{
    DataAnswer, DataGrant, DataLease, DataRight, DaxPolicy, Fallocate, Flags, LeaseOptions, Lessee, Node,
    SetAttr, Switch, What,
};
use rustix::io::Errno;

use super::{BLOCK, Program, Volume, WRITABLE, lease, touch};

/// A lease by which a program reads and writes a file.
pub(crate) fn data_lease(file: &Node, program: &Arc<Program>) -> DataLease {
    file.fs().lease_data(file, Arc::clone(program) as Arc<dyn Lessee>, true, 7).unwrap()
}

pub(crate) fn answer(lease: &DataLease, offset: u64, write: bool) -> Result<DataAnswer, Errno> {
    let mut answers = Vec::new();
    lease.take(offset, write, |answer| answers.push(answer)).map_err(|error| error.errno())?;
    assert_eq!(answers.len(), 1, "it is answered once");
    Ok(answers.remove(0))
}

pub(crate) fn take(lease: &DataLease, write: bool) -> DataGrant {
    match answer(lease, 0, write) {
        Ok(DataAnswer::Granted(grant)) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

/// A file with three blocks, of which the second is a hole, and an end in the third.
fn file(volume: &Volume) -> Node {
    let file = volume.hole("f", 3);
    volume.fs.write(&file, 0, &[1; BLOCK as usize], false).unwrap();
    volume.fs.write(&file, 2 * BLOCK, &[3; BLOCK as usize], false).unwrap();
    volume.resize(&file, 2 * BLOCK + 100);
    file
}

#[test]
fn what_is_granted_is_where_the_bytes_are() {
    let volume = Volume::new();
    let file = file(&volume);
    let program = Arc::new(Program::default());
    let lease = data_lease(&file, &program);
    let grant = take(&lease, false);
    assert_eq!((grant.epoch, grant.right, grant.size), (0, DataRight::Read, 2 * BLOCK + 100));
    let [first, hole, last] = &grant.parts[..] else { panic!("three parts: {:?}", grant.parts) };
    assert_eq!((first.offset, first.size, hole.offset, hole.size), (0, BLOCK, BLOCK, BLOCK));
    assert_eq!((hole.what, last.offset, last.size), (What::Zeroes, 2 * BLOCK, BLOCK));
    let (What::Medium(first), What::Medium(last)) = (first.what, last.what) else {
        panic!("both have blocks: {:?}", grant.parts)
    };
    assert_eq!(volume.mapped(first), [1; BLOCK as usize]);
    assert_eq!(volume.mapped(last)[..100], [3; 100]);
    let Ok(DataAnswer::Granted(rest)) = answer(&lease, 2 * BLOCK + 5, false) else { panic!("not granted") };
    assert_eq!(rest.parts[..], grant.parts[2..], "from the one on that was asked for");
    let Ok(DataAnswer::Granted(behind)) = answer(&lease, 1 << 40, false) else { panic!("not granted") };
    assert!(behind.parts.is_empty() && behind.size == grant.size);
}

#[test]
fn many_read_and_a_change_takes_it_from_all() {
    let volume = Volume::new();
    let file = file(&volume);
    let programs = [Arc::new(Program::default()), Arc::new(Program::default())];
    let leases = programs.each_ref().map(|program| data_lease(&file, program));
    let set = |change: SetAttr| {
        volume.fs.set_attr(&file, &change).unwrap();
    };
    let changes: [&dyn Fn(); 6] = [
        &|| assert_eq!(volume.fs.write(&file, 5, b"12345", false).unwrap(), 5),
        &|| assert_eq!(volume.fs.append(&file, b"12345", false).unwrap().1, 5),
        &|| set(SetAttr { size: Some(2 * BLOCK + 50), ..SetAttr::default() }),
        &|| volume.fs.fallocate(&file, Fallocate::PunchHole, 0, 10).unwrap(),
        &|| set(SetAttr { perm: Some(0o4755), ..SetAttr::default() }),
        &|| volume.fs.set_flags(&file, Flags::DAX, None).unwrap(),
    ];
    for (number, change) in changes.iter().enumerate() {
        for (lease, program) in leases.iter().zip(&programs) {
            take(lease, false);
            assert!(program.recalls().is_empty(), "they are not in each other's way");
        }
        assert_eq!(volume.block(&file, 1), [0; BLOCK as usize], "nor in the way of other readers");
        change();
        for program in &programs {
            let recalls = program.recalls();
            assert_eq!(recalls.len(), 1, "{number}");
            assert_eq!((recalls[0].0, recalls[0].1), (number as u64 + 1, 0), "{number}");
        }
        change();
        assert!(programs.iter().all(|program| program.recalls().is_empty()), "{number}: once is enough");
    }
}

#[test]
fn one_writes_and_reads_take_it_from_him() {
    let volume = Volume::new();
    let file = file(&volume);
    let (writer, other) = (Arc::new(Program::default()), Arc::new(Program::default()));
    let (to_write, to_read) = (data_lease(&file, &writer), data_lease(&file, &other));
    take(&to_read, false);
    assert_eq!(take(&to_write, true).right, DataRight::Write);
    assert_eq!(other.recalls().len(), 1, "nobody else reads meanwhile");
    assert_eq!(take(&to_write, false).right, DataRight::Write, "who may write may read, and goes on");
    volume.block(&file, 0);
    assert_eq!(writer.recalls().len(), 1);
    volume.block(&file, 0);
    assert!(writer.recalls().is_empty());
    take(&to_write, true);
    take(&to_read, false);
    assert_eq!(writer.recalls().len(), 1);
    take(&to_read, true);
    take(&to_write, true);
    assert_eq!((other.recalls().len(), writer.recalls().len()), (1, 0));
    // By a glimpse nobody looks at what he writes.
    drop(take(&to_write, false));
    let mut bytes = [0; 10];
    volume.fs.read(&file, 0, &mut bytes).unwrap();
    volume.fs.read(&file, 0, &mut bytes).unwrap();
    take(&to_write, true);
    assert_eq!(writer.recalls().len(), 1);
    volume.fs.read(&file, 0, &mut bytes).unwrap();
    assert_eq!(writer.recalls().len(), 1);
}

#[test]
fn what_leaves_content_alone_does_not_disturb() {
    let volume = Volume::new();
    let file = file(&volume);
    let (writer, mapper) = (Arc::new(Program::default()), Arc::new(Program::default()));
    let to_write = data_lease(&file, &writer);
    take(&to_write, true);
    let before = volume.fs.attr(&file).unwrap();
    to_write.note_change().unwrap();
    let after = volume.fs.attr(&file).unwrap();
    assert!(after.mtime > before.mtime && after.size == before.size);
    volume.fs.fsync(&file, false).unwrap();
    assert!(writer.recalls().is_empty());
    let mapping = lease(&file, &mapper);
    assert_eq!(writer.recalls().len(), 1, "who could rely on what is durable");
    take(&to_write, true);
    touch(&mapping, 0, true);
    assert!(writer.recalls().is_empty());
    // But where a hole gets a block, and where a block goes, nobody may go on as before.
    touch(&mapping, 1, true);
    assert_eq!(writer.recalls().len(), 1);
    assert_eq!(mapper.recalls().len(), 0);
}

#[test]
fn rights_are_what_they_were_when_it_was_opened() {
    let volume = Volume::new();
    let file = file(&volume);
    let program = Arc::new(Program::default());
    let reads = volume.fs.lease_data(&file, Arc::clone(&program) as Arc<dyn Lessee>, false, 7).unwrap();
    take(&reads, false);
    assert_eq!(answer(&reads, 0, true), Err(Errno::INVAL));
    assert!(reads.note_change().is_err());
    let writes = data_lease(&file, &program);
    volume.fs.set_attr(&file, &SetAttr { perm: Some(0o4755), ..SetAttr::default() }).unwrap();
    assert_eq!(answer(&writes, 0, true), Err(Errno::PERM), "a write has to clear that bit");
    take(&writes, false);
    volume.fs.set_attr(&file, &SetAttr { perm: Some(0o755), ..SetAttr::default() }).unwrap();
    take(&writes, true);
    volume.fs.set_flags(&file, Flags::APPEND, None).unwrap();
    assert_eq!(answer(&writes, 0, true), Err(Errno::PERM));
    assert_eq!(answer(&writes, u64::MAX, false), Err(Errno::INVAL));
    let dir = volume.fs.root().unwrap();
    let refused = volume.fs.lease_data(&dir, program, false, 7).map(drop).unwrap_err();
    assert_eq!(refused.errno(), Errno::INVAL);
}

#[test]
fn a_buffered_file_is_left_to_the_host() {
    let volume = Volume::with(DaxPolicy::Inode);
    let file = volume.hole("f", 2);
    let program = Arc::new(Program::default());
    let lease = data_lease(&file, &program);
    assert_eq!(answer(&lease, 0, false), Ok(DataAnswer::Buffered));
    volume.fs.set_flags(&file, Flags::DAX, None).unwrap();
    take(&lease, true);
    let refused = volume.fs.set_dax(&file, false, Switch::Now, None).unwrap_err();
    assert_eq!(refused.errno(), Errno::BUSY, "whoever reads and writes it by himself holds it");
    assert_eq!(
        volume.fs.revoke_dax(&file, false, None, &mut || false).map_err(|error| error.errno()),
        Ok(false)
    );
    assert_eq!(program.recalls().len(), 1);
    assert_eq!(answer(&lease, 0, true), Ok(DataAnswer::Buffered));
    assert!(volume.fs.dax_status(&file, None).unwrap().holders.is_empty());
}

#[test]
fn a_read_waits_for_the_writer() {
    let volume = Volume::new();
    let file = file(&volume);
    let (program, asked) = Program::that_keeps();
    let lease = data_lease(&file, &program);
    let What::Medium(at) = take(&lease, true).parts[0].what else { panic!("a block") };
    thread::scope(|scope| {
        let read = scope.spawn(|| volume.block(&file, 0));
        asked.wait();
        // A write that is under way is finished.
        std::os::unix::fs::FileExt::write_all_at(&volume.medium, &[9; BLOCK as usize], at).unwrap();
        assert!(!read.is_finished());
        program.waiting().clear();
        assert_eq!(read.join().unwrap(), [9; BLOCK as usize]);
    });
}

#[test]
fn blocks_of_one_who_does_not_answer_are_not_used_again() {
    let volume = Volume::new();
    let file = file(&volume);
    let (program, asked) = Program::that_keeps();
    let lease = data_lease(&file, &program);
    take(&lease, true);
    let free = volume.free();
    thread::scope(|scope| {
        let read = scope.spawn(|| volume.block(&file, 0));
        asked.wait();
        program.waiting().iter_mut().for_each(|recall| recall.answer.give_up());
        read.join().unwrap();
    });
    // It was asked by another operation, and may still be at it.
    volume.resize(&file, 0);
    assert_eq!(volume.free(), free);
    program.waiting().clear();
    assert_eq!(volume.free(), free + 2);
}

#[test]
fn who_is_gone_is_not_waited_for() {
    let volume = Volume::new();
    let file = file(&volume);
    let (program, _asked) = Program::that_keeps();
    let lease = data_lease(&file, &program);
    take(&lease, true);
    drop(lease);
    volume.block(&file, 0);
    volume.fs.write(&file, 0, b"12345", false).unwrap();
    assert!(program.waiting().is_empty());
}

#[test]
fn who_relies_on_what_is_durable_is_told_of_a_mapping_that_can_be_stored_to() {
    let volume = Volume::new();
    let file = file(&volume);
    let (program, other) = (Arc::new(Program::default()), Arc::new(Program::default()));
    let data = data_lease(&file, &program);
    assert!(take(&data, true).is_settled);
    let reads = LeaseOptions { writable: false, ..WRITABLE };
    let reads = volume.fs.lease(&file, Arc::clone(&other) as Arc<dyn Lessee>, reads).unwrap();
    assert!(program.recalls().is_empty() && take(&data, true).is_settled, "nobody can store by it");
    let stores = lease(&file, &other);
    assert_eq!(program.recalls().len(), 1);
    assert!(!take(&data, true).is_settled);
    drop((reads, stores));
    assert!(take(&data, false).is_settled, "what was stored has been made durable");
}
