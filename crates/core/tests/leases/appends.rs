//! Programs that append to a file by themselves.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use lodefs_core::{
    DataAnswer, DataGrant, DataLease, DaxPolicy, Fallocate, Fs, Node, OpenOptions, SeekTarget, SetAttr,
    TailGrant, What, fsck,
};
use lodefs_layout::inode::TAIL_REVOKED as REVOKED;
use lodefs_pmem::{Access, Domain, Medium};
use rustix::io::Errno;

use super::data::{data_lease, take};
use super::{BLOCK, Program, Volume, at, lease, touch};

/// Blocks that words are in.
const WORDS: u64 = 1;

fn try_reserve(lease: &DataLease, end: u64) -> Result<DataGrant, Errno> {
    let mut answers = Vec::new();
    lease.reserve(0, end, |answer| answers.push(answer)).map_err(|error| error.errno())?;
    assert_eq!(answers.len(), 1, "it is answered once");
    match answers.remove(0) {
        DataAnswer::Granted(grant) => Ok(grant),
        other => panic!("not granted: {other:?}"),
    }
}

pub(crate) fn reserve(lease: &DataLease, end: u64) -> DataGrant {
    try_reserve(lease, end).unwrap()
}

fn word(volume: &Volume, tail: TailGrant) -> u64 {
    let mut bytes = [0; 8];
    volume.medium.read_exact_at(&mut bytes, tail.word).unwrap();
    u64::from_le_bytes(bytes)
}

pub(crate) fn set_word(volume: &Volume, tail: TailGrant, value: u64) {
    volume.medium.write_all_at(&value.to_le_bytes(), tail.word).unwrap();
}

/// What a program does to append, but for the word.
fn store(volume: &Volume, grant: &DataGrant, offset: u64, bytes: &[u8]) {
    for (at, byte) in (offset..).zip(bytes) {
        let part = grant.parts.iter().find(|part| part.offset <= at && at < part.offset + part.size).unwrap();
        let What::Medium(start) = part.what else { panic!("a hole behind the end") };
        volume.medium.write_all_at(&[*byte], start + at - part.offset).unwrap();
    }
}

pub(crate) fn append(volume: &Volume, grant: &DataGrant, bytes: &[u8]) {
    let tail = grant.tail.unwrap();
    let end = word(volume, tail);
    assert_eq!(end & REVOKED, 0);
    store(volume, grant, end, bytes);
    set_word(volume, tail, end + bytes.len() as u64);
}

pub(crate) fn size(volume: &Volume, file: &Node) -> u64 {
    volume.fs.attr(file).unwrap().size
}

pub(crate) fn content(fs: &Fs, file: &Node) -> Vec<u8> {
    let mut bytes = vec![0xee; fs.attr(file).unwrap().size as usize + 10];
    let read = fs.read(file, 0, &mut bytes).unwrap();
    bytes.truncate(read);
    bytes
}

/// The volume as the next open finds it if the power fails now; its free blocks, and what is in the file `f`.
fn after_crash(volume: &Volume, access: Access) -> (u64, Vec<u8>) {
    let copy = volume.dir.path().join("after");
    fs::copy(volume.dir.path().join("vol"), &copy).unwrap();
    let open = |access| {
        let options = lodefs_pmem::OpenOptions { access, force_domain: Some(Domain::CpuCache) };
        Medium::open(&copy, &options).unwrap()
    };
    let is_clean = |when: &str| {
        let report = fsck::check(open(Access::ReadOnly), &fsck::Options::default(), &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{when}: {:?}", report.findings);
    };
    is_clean("before recovery");
    let options = OpenOptions { read_only: access == Access::ReadOnly, ..OpenOptions::default() };
    let recovered = Fs::open(open(access), &options).unwrap();
    let file = recovered.lookup(&recovered.root().unwrap(), b"f").unwrap();
    let bytes = content(&recovered, &file);
    assert_eq!(recovered.attr(&file).unwrap().size, bytes.len() as u64);
    let free = recovered.space().blocks_free;
    drop(file);
    recovered.close().unwrap();
    drop(recovered);
    is_clean("after recovery");
    let again = Fs::open(open(Access::ReadWrite), &OpenOptions::default()).unwrap();
    assert_eq!(again.recovery().was_clean, access == Access::ReadWrite);
    let file = again.lookup(&again.root().unwrap(), b"f").unwrap();
    assert_eq!(content(&again, &file), bytes);
    drop(file);
    drop(again);
    fs::remove_file(copy).unwrap();
    (free, bytes)
}

/// A file with `bytes`, and a program that may append to it.
pub(crate) fn file(volume: &Volume, bytes: &[u8]) -> (Node, Arc<Program>, DataLease) {
    let file = volume.file("f");
    volume.fs.write(&file, 0, bytes, false).unwrap();
    let program = Arc::new(Program::default());
    let lease = data_lease(&file, &program);
    (file, program, lease)
}

#[test]
fn what_is_appended_is_seen_at_once_and_found_after_a_crash() {
    let volume = Volume::new();
    let (file, _program, lease) = file(&volume, b"begun");
    let free = volume.free();
    let grant = reserve(&lease, 5 + 3 * BLOCK);
    let tail = grant.tail.unwrap();
    assert!(tail.end >= 5 + 3 * BLOCK && word(&volume, tail) == 5);
    let mut expected = b"begun".to_vec();
    for (bytes, seen) in
        [(vec![7; 3], 8), (vec![8; 2 * BLOCK as usize], 8 + 2 * BLOCK), (vec![9; 100], 108 + 2 * BLOCK)]
    {
        store(&volume, &grant, seen - bytes.len() as u64, &bytes);
        assert_eq!(after_crash(&volume, Access::ReadWrite).1, expected, "not counted yet");
        set_word(&volume, tail, seen);
        expected.extend(&bytes);
        assert_eq!(size(&volume, &file), seen);
        let used = seen.div_ceil(BLOCK) - 1;
        assert_eq!(
            after_crash(&volume, Access::ReadWrite),
            (free - used, expected.clone()),
            "the rest is given back"
        );
        assert_eq!(after_crash(&volume, Access::ReadOnly).1, expected);
    }
    assert_eq!(content(&volume.fs, &file), expected);
    assert_eq!(word(&volume, tail), expected.len() as u64 | REVOKED, "from now on it asks first");
    assert_eq!(after_crash(&volume, Access::ReadWrite).1, expected);
    assert_eq!(volume.free(), free - 2 - WORDS);
    drop((lease, file));
    volume.fs.close().unwrap();
    let Volume { fs, medium, dir } = volume;
    drop((fs, medium));
    let options =
        lodefs_pmem::OpenOptions { access: Access::ReadWrite, force_domain: Some(Domain::CpuCache) };
    let open = || Medium::open(&dir.path().join("vol"), &options).unwrap();
    assert!(Fs::probe_clean(open()).unwrap());
    // What the words were in is free as well.
    assert_eq!(Fs::open(open(), &OpenOptions::default()).unwrap().space().blocks_free, free - 2);
}

#[test]
fn whoever_uses_the_file_settles_it_first() {
    let volume = Volume::new();
    let (file, _program, data) = file(&volume, b"begun");
    let fs = &volume.fs;
    let mapped = lease(&file, &Arc::new(Program::default()));
    let other = data_lease(&file, &Arc::new(Program::default()));
    let uses: [&dyn Fn(); 8] = [
        &|| assert_eq!(fs.read(&file, 5, &mut [0; 100]).unwrap() as u64, size(&volume, &file) - 5),
        &|| assert_eq!(fs.append(&file, b"!", false).unwrap().0 + 1, size(&volume, &file)),
        &|| assert!(fs.set_attr(&file, &SetAttr { perm: Some(0o600), ..SetAttr::default() }).is_ok()),
        &|| assert_eq!(fs.seek(&file, 0, SeekTarget::Hole).unwrap(), size(&volume, &file)),
        &|| fs.fallocate(&file, Fallocate::PunchHole, 0, 1).unwrap(),
        &|| drop(touch(&mapped, 0, true)),
        &|| assert_eq!(take(&other, false).size, size(&volume, &file)),
        &|| assert_eq!(reserve(&other, size(&volume, &file) + 1).size, size(&volume, &file)),
    ];
    for (number, use_it) in uses.into_iter().enumerate() {
        let before = size(&volume, &file);
        let grant = reserve(&data, before + BLOCK);
        append(&volume, &grant, b"appended");
        use_it();
        assert!(size(&volume, &file) >= before + 8, "{number}");
        // The last one has got the word that was given back.
        assert_eq!(word(&volume, grant.tail.unwrap()) & REVOKED == 0, number == 7, "{number}");
        let mut last = [0; 8];
        assert_eq!(fs.read(&file, before, &mut last).unwrap(), 8);
        assert_eq!(&last, b"appended", "{number}");
    }
}

#[test]
fn whole_blocks_are_mapped_while_a_program_goes_on_appending() {
    for is_lowered in [false, true] {
        let volume = Volume::new();
        let (file, program, data) = file(&volume, &[1; 100]);
        let mapped = lease(&file, &Arc::new(Program::default()));
        let grant = reserve(&data, 10 * BLOCK);
        append(&volume, &grant, &[2; 3 * BLOCK as usize]);
        let (_, parts) = touch(&mapped, 1, false);
        assert!(parts.iter().all(|part| part.offset + part.size <= 3 * BLOCK), "{parts:?}");
        let mut byte = [0];
        volume.medium.read_exact_at(&mut byte, at(&parts) + BLOCK - parts[0].offset).unwrap();
        assert_eq!((byte, program.recalls().len()), ([2], 0));
        let tail = grant.tail.unwrap();
        assert_eq!(word(&volume, tail), 3 * BLOCK + 100);
        if is_lowered {
            // What is mapped is not freed.
            set_word(&volume, tail, 100);
        }
        let expected = if is_lowered { 3 * BLOCK } else { 3 * BLOCK + 100 };
        assert_eq!(size(&volume, &file), expected);
        // The end is shown as it is.
        assert_eq!(touch(&mapped, 3, false).1.is_empty(), is_lowered);
        assert_eq!((size(&volume, &file), program.recalls().len()), (expected, 1));
        assert_eq!(touch(&mapped, 1, false).1[0].what, parts[0].what);
        let bytes = content(&volume.fs, &file);
        assert!(bytes[..100] == [1; 100] && bytes[100..].iter().all(|byte| *byte == 2));
    }
}

#[test]
fn a_program_that_ends_gives_back_what_it_has_not_used() {
    let volume = Volume::new();
    let (file, program, lease) = file(&volume, b"begun");
    let free = volume.free();
    let mut grant = reserve(&lease, BLOCK + 1);
    assert_eq!(reserve(&lease, 2 * BLOCK).tail, grant.tail, "there is enough");
    for _ in 0..100 {
        append(&volume, &grant, &[1; 1000]);
        // In larger and larger steps.
        let end = size(&volume, &file) + 1000;
        if end > grant.tail.unwrap().end {
            let step = grant.tail.unwrap().end;
            grant = reserve(&lease, end);
            assert!(grant.tail.unwrap().end >= step + step / 2);
        }
    }
    assert!(program.recalls().is_empty());
    drop(lease);
    assert_eq!(size(&volume, &file), 100_005);
    assert_eq!(volume.free(), free + 1 - 100_005u64.div_ceil(BLOCK) - WORDS);
}

#[test]
fn a_word_that_makes_no_sense_changes_nothing() {
    let volume = Volume::new();
    let (file, _program, lease) = file(&volume, &[1; 5000]);
    for nonsense in [0, 4999, u64::MAX, REVOKED, 1 << 62, !REVOKED] {
        let grant = reserve(&lease, 5001);
        let tail = grant.tail.unwrap();
        for value in [nonsense, tail.end + 1] {
            set_word(&volume, tail, value);
            assert_eq!(size(&volume, &file), 5000, "{value}");
            assert_eq!(after_crash(&volume, Access::ReadWrite).1, [1; 5000], "{value}");
        }
        assert_eq!(content(&volume.fs, &file), [1; 5000]);
    }
}

#[test]
fn only_what_can_be_is_reserved() {
    let volume = Volume::new();
    let (file, _program, lease) = file(&volume, b"begun");
    assert_eq!(try_reserve(&lease, u64::MAX).unwrap_err(), Errno::FBIG);
    let free = volume.free();
    // More often than there are words in a block.
    for _ in 0..=BLOCK / 8 {
        assert_eq!(try_reserve(&lease, 1 << 40).unwrap_err(), Errno::NOSPC);
    }
    assert_eq!((volume.free(), size(&volume, &file)), (free - WORDS, 5));
    // Blocks behind the end may hold what is not to be seen.
    volume.fs.fallocate(&file, Fallocate::Allocate { keep_size: true }, 0, 10 * BLOCK).unwrap();
    assert_eq!(try_reserve(&lease, 2 * BLOCK).unwrap_err(), Errno::PERM);
    volume.resize(&file, 10 * BLOCK);
    assert_eq!(reserve(&lease, 11 * BLOCK).size, 10 * BLOCK);
    let reader = volume.fs.lease_data(&file, Arc::new(Program::default()), false, 7).unwrap();
    assert_eq!(try_reserve(&reader, 12 * BLOCK).unwrap_err(), Errno::INVAL);
}

#[test]
fn the_last_blocks_are_reserved_if_they_are_enough() {
    for (left, reserved) in [(WORDS, 0), (WORDS + 2, 2)] {
        let volume = Volume::new();
        let (file, _program, lease) = file(&volume, b"begun");
        let filling = volume.file("filling");
        let blocks = volume.fs.space().blocks_available - left;
        volume.fs.fallocate(&filling, Fallocate::Allocate { keep_size: false }, 0, blocks * BLOCK).unwrap();
        let end = (1 + reserved) * BLOCK;
        let grant = reserve(&lease, end);
        assert_eq!(grant.tail.unwrap().end, end);
        append(&volume, &grant, &vec![7; (end - 5) as usize]);
        assert_eq!(try_reserve(&lease, end + 1).unwrap_err(), Errno::NOSPC);
        assert_eq!(size_after(&volume, &file), end);
    }
}

#[test]
fn of_little_that_is_free_little_is_reserved() {
    for (left, reserved) in [(63, 1), (640, 10), (2000, 16)] {
        let volume = Volume::new();
        let (_file, _program, lease) = file(&volume, b"");
        let filling = volume.file("filling");
        let blocks = volume.fs.space().blocks_available - left;
        volume.fs.fallocate(&filling, Fallocate::Allocate { keep_size: false }, 0, blocks * BLOCK).unwrap();
        assert_eq!(reserve(&lease, 1).tail.unwrap().end, reserved * BLOCK);
    }
}

#[test]
fn what_lies_in_too_many_places_is_not_reserved() {
    let volume = Volume::new();
    let (file, _program, lease) = file(&volume, b"begun");
    let filling = volume.file("filling");
    let size = volume.fs.space().blocks_available * BLOCK;
    assert_eq!(volume.fs.write(&filling, 0, &vec![1; size as usize], false).unwrap() as u64, size);
    // Single blocks, of which there are enough.
    for number in 0..64 {
        volume.fs.fallocate(&filling, Fallocate::PunchHole, 4 * number * BLOCK, BLOCK).unwrap();
    }
    let free = volume.free();
    assert_eq!(try_reserve(&lease, 20 * BLOCK).unwrap_err(), Errno::NOSPC);
    assert_eq!(volume.free(), free - WORDS);
    assert_eq!(volume.fs.write(&file, 5, &vec![5; 20 * BLOCK as usize], false).unwrap() as u64, 20 * BLOCK);
    let grant = reserve(&lease, 20 * BLOCK + 6);
    assert!(grant.tail.unwrap().end >= 20 * BLOCK + 6);
    append(&volume, &grant, b"!");
    assert_eq!(size_after(&volume, &file), 20 * BLOCK + 6);
}

/// Fills a volume but for single blocks, and a quarter of it. Returns how many blocks it had.
pub(crate) fn leave_single_blocks(volume: &Volume) -> u64 {
    let filling = volume.file("filling");
    let blocks = volume.fs.space().blocks_available;
    volume.fs.fallocate(&filling, Fallocate::Allocate { keep_size: false }, 0, blocks * BLOCK).unwrap();
    for number in 0..blocks / 4 {
        volume.fs.fallocate(&filling, Fallocate::PunchHole, 4 * number * BLOCK, BLOCK).unwrap();
    }
    blocks
}

/// Reserves blocks from `end` on, four at a time, as long as there are some. Returns the end.
pub(crate) fn reserve_in_many_places(lease: &DataLease, mut end: u64) -> u64 {
    while try_reserve(lease, (end + 4) * BLOCK).is_ok() {
        end += 4;
    }
    end
}

#[test]
fn many_places_are_given_back_at_once() {
    // So many that one record has no room for all.
    let volume = Volume::of_size(32 << 20, DaxPolicy::Always);
    // What stays needs a block to be listed, too.
    let file = volume.file("f");
    for number in 0..10 {
        volume.fs.write(&file, 2 * number * BLOCK, &[1; BLOCK as usize], false).unwrap();
    }
    let program = Arc::new(Program::default());
    let lease = data_lease(&file, &program);
    let blocks = leave_single_blocks(&volume);
    let used = |file| volume.fs.attr(file).unwrap().sectors * 512 / BLOCK;
    let (free, used_before) = (volume.free(), used(&file));
    let end = reserve_in_many_places(&lease, 19);
    assert!(end > blocks / 8, "only {end} blocks");
    drop((lease, program));
    assert_eq!(size_after(&volume, &file), 19 * BLOCK);
    // What lists them stays the file's own.
    let lists = used(&file) - used_before;
    assert_eq!(volume.free(), free - WORDS - lists);
    assert!(lists < end / 32);
}

/// The size when it is settled.
fn size_after(volume: &Volume, file: &Node) -> u64 {
    content(&volume.fs, file).len() as u64
}

#[test]
fn a_program_that_was_given_up_on_cannot_append_any_more() {
    let volume = Volume::new();
    let file = volume.file("f");
    let (program, asked) = Program::that_keeps();
    let lease = data_lease(&file, &program);
    let grant = reserve(&lease, 20 * BLOCK);
    append(&volume, &grant, &[5; 100]);
    let free = volume.free();
    let end = word(&volume, grant.tail.unwrap());
    thread::scope(|scope| {
        let read = scope.spawn(|| content(&volume.fs, &file));
        asked.wait();
        program.waiting().iter_mut().for_each(|recall| recall.answer.give_up());
        assert_eq!(read.join().unwrap(), [5; 100]);
    });
    // It goes on: the word is not what it was.
    assert_ne!(word(&volume, grant.tail.unwrap()), end);
    store(&volume, &grant, end, &[6; 2 * BLOCK as usize]);
    set_word(&volume, grant.tail.unwrap(), end + 2 * BLOCK);
    assert_eq!((size(&volume, &file), volume.free()), (100, free), "nobody gets these blocks");
    // Nor the word.
    let other = volume.file("g");
    let others = data_lease(&other, &Arc::new(Program::default()));
    assert_ne!(reserve(&others, 1).tail.unwrap().word, grant.tail.unwrap().word);
    drop(others);
    program.waiting().clear();
    assert!(volume.free() > free + 10);
    drop(lease);
    assert_eq!(content(&volume.fs, &file), [5; 100]);
}

#[test]
fn a_word_without_blocks_is_kept_from_others_too() {
    let volume = Volume::new();
    let file = volume.file("f");
    let (program, asked) = Program::that_keeps();
    let lease = data_lease(&file, &program);
    let mut answers = Vec::new();
    // From an offset at which nothing is granted.
    lease.reserve(1 << 40, 1, |answer| answers.push(answer)).unwrap();
    let Some(DataAnswer::Granted(grant)) = answers.pop() else { panic!("not granted") };
    assert!(grant.parts.is_empty());
    thread::scope(|scope| {
        let read = scope.spawn(|| content(&volume.fs, &file));
        asked.wait();
        program.waiting().iter_mut().for_each(|recall| recall.answer.give_up());
        read.join().unwrap();
    });
    let others = data_lease(&volume.file("g"), &Arc::new(Program::default()));
    assert_ne!(reserve(&others, 1).tail.unwrap().word, grant.tail.unwrap().word);
    program.waiting().clear();
}

#[test]
fn room_ends_where_files_do() {
    let volume = Volume::new();
    let (file, _program, lease) = file(&volume, b"");
    let size = i64::MAX as u64 - 100;
    volume.resize(&file, size);
    assert_eq!(reserve(&lease, size + 1).tail.unwrap().end, i64::MAX as u64);
    assert_eq!(try_reserve(&lease, i64::MAX as u64 + 1).unwrap_err(), Errno::FBIG);
}

#[test]
fn a_repair_keeps_what_was_appended() {
    let volume = Volume::new();
    let (_file, _program, lease) = file(&volume, b"begun");
    let free = volume.free();
    append(&volume, &reserve(&lease, 2 * BLOCK), &[7; 5000]);
    let copy = volume.dir.path().join("after");
    fs::copy(volume.dir.path().join("vol"), &copy).unwrap();
    // The second superblock is damaged.
    let file = fs::File::options().write(true).open(&copy).unwrap();
    file.write_all_at(&[0xff; 100], file.metadata().unwrap().len() - BLOCK).unwrap();
    let open_as = |access| {
        let options = lodefs_pmem::OpenOptions { access, force_domain: Some(Domain::CpuCache) };
        Medium::open(&copy, &options).unwrap()
    };
    let open = || open_as(Access::ReadWrite);
    let report = fsck::repair(open(), &fsck::Options::default(), &mut |_| true, &mut |_| ()).unwrap();
    assert!(!report.findings.is_empty() && report.left().next().is_none(), "{:?}", report.findings);
    let report = fsck::check(open_as(Access::ReadOnly), &fsck::Options::default(), &mut |_| ()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let repaired = Fs::open(open(), &OpenOptions::default()).unwrap();
    let file = repaired.lookup(&repaired.root().unwrap(), b"f").unwrap();
    assert_eq!(content(&repaired, &file), [b"begun", &[7; 5000][..]].concat());
    assert_eq!(repaired.space().blocks_free, free - 1);
}

#[test]
fn what_was_appended_can_be_read_when_nothing_can_be_written() {
    let volume = Volume::new();
    let (file, _program, lease) = file(&volume, b"begun");
    append(&volume, &reserve(&lease, 2 * BLOCK), b", and more");
    volume.fs.close().unwrap();
    assert_eq!(content(&volume.fs, &file), b"begun, and more");
    drop(lease);
    assert_eq!(after_crash(&volume, Access::ReadWrite).1, b"begun, and more");
}

#[test]
fn it_can_be_read_also_when_the_inode_was_dropped_from_memory() {
    let volume = Volume::of_size(256 << 20, DaxPolicy::Always);
    let names: Vec<_> = (0..150_000).map(|number| format!("n{number}")).collect();
    for name in &names {
        drop(volume.file(name));
    }
    let (file, program, lease) = file(&volume, b"begun");
    append(&volume, &reserve(&lease, 2 * BLOCK), b", and more");
    volume.fs.close().unwrap();
    let before = file.ino();
    drop((lease, program, file));
    let root = volume.fs.root().unwrap();
    for name in &names {
        volume.fs.lookup(&root, name.as_bytes()).unwrap();
    }
    let again = volume.fs.lookup(&root, b"f").unwrap();
    assert_eq!(again.ino(), before);
    assert_eq!(content(&volume.fs, &again), b"begun, and more");
}

/// A program has appended 100 bytes, and does not answer when `change` takes the file back. Afterwards it stores behind the end that it
/// knew, as one does that was stopped in the midst of an append. Returns what is in the file then.
fn after_a_late_append(change: impl FnOnce(&Volume, &Node) + Send) -> Vec<u8> {
    let volume = Volume::new();
    let file = volume.file("f");
    let (program, asked) = Program::that_keeps();
    let lease = data_lease(&file, &program);
    let grant = reserve(&lease, 20 * BLOCK);
    append(&volume, &grant, &[5; 100]);
    let end = word(&volume, grant.tail.unwrap());
    let blocks = volume.free();
    thread::scope(|scope| {
        let changing = scope.spawn(|| change(&volume, &file));
        asked.wait();
        program.waiting().iter_mut().for_each(|recall| recall.answer.give_up());
        changing.join().unwrap();
    });
    store(&volume, &grant, end, &[6; BLOCK as usize]);
    let content = content(&volume.fs, &file);
    // The old block is kept from others until the program answers.
    let free = volume.free();
    program.waiting().clear();
    assert!(volume.free() > free && volume.free() > blocks, "the blocks come back");
    drop((lease, program));
    drop(file);
    assert_eq!(after_crash(&volume, Access::ReadWrite).1, content);
    content
}

#[test]
fn a_late_append_leaves_the_appends_of_others_alone() {
    let appended = after_a_late_append(|volume, file| {
        volume.fs.append(file, &[7; 50], false).unwrap();
    });
    assert_eq!(appended, [&[5; 100][..], &[7; 50]].concat());
    let written = after_a_late_append(|volume, file| {
        volume.fs.write(file, 90, &[7; 50], false).unwrap();
    });
    assert_eq!(written, [&[5; 90][..], &[7; 50]].concat());
    let by_itself = after_a_late_append(|volume, file| {
        let other = data_lease(file, &Arc::new(Program::default()));
        append(volume, &reserve(&other, 2 * BLOCK), &[7; 50]);
    });
    assert_eq!(by_itself, [&[5; 100][..], &[7; 50]].concat());
}

#[test]
fn a_late_append_leaves_the_zeroes_of_a_longer_file_alone() {
    let longer = [&[5; 100][..], &[0; 900]].concat();
    assert_eq!(after_a_late_append(|volume, file| volume.resize(file, 1000)), longer);
    let allocated = |volume: &Volume, file: &Node| {
        volume.fs.fallocate(file, Fallocate::Allocate { keep_size: false }, 0, 1000).unwrap();
    };
    assert_eq!(after_a_late_append(allocated), longer);
    let zeroed = |volume: &Volume, file: &Node| {
        volume.fs.fallocate(file, Fallocate::ZeroRange { keep_size: false }, 100, 900).unwrap();
    };
    assert_eq!(after_a_late_append(zeroed), longer);
    let copied = |volume: &Volume, file: &Node| {
        let source = volume.hole("g", 1);
        volume.fs.copy_range(&source, 0, file, 500, 500).unwrap();
    };
    assert_eq!(after_a_late_append(copied), longer);
}
