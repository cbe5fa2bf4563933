//! Leases: what is granted to a program that maps a file, and how it is taken back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use lodefs_core::{
    DaxPolicy, Effect, Fallocate, Flags, FormatOptions, Fs, HolderKind, Lease, LeaseOptions, Lessee,
    NewInode, NewKind, Node, OpenOptions, Part, Recall, SetAttr, Touch, Touched, What,
};
use lodefs_pmem::{Access, Domain, Medium, Reserve, What as PmemEvent};
use rustix::io::Errno;

const BLOCK: u64 = 4096;
const SIZE: u64 = 8 << 20;

/// A volume in a file, through which a program reaches the medium.
struct Volume {
    fs: Arc<Fs>,
    medium: File,
    dir: tempfile::TempDir,
}

impl Volume {
    fn new() -> Self {
        Self::with(DaxPolicy::Always)
    }

    fn with(dax: DaxPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vol");
        lodefs_pmem::create_file(&path, SIZE, Reserve::Full).unwrap();
        let options =
            lodefs_pmem::OpenOptions { access: Access::ReadWrite, force_domain: Some(Domain::CpuCache) };
        let open = || Medium::open(&path, &options).unwrap();
        Fs::format(&open(), &FormatOptions::default()).unwrap();
        let options = OpenOptions { dax, ..OpenOptions::default() };
        let fs = Fs::open(open(), &options).unwrap();
        let medium = File::options().read(true).write(true).open(&path).unwrap();
        Self { fs, medium, dir }
    }

    fn file(&self, name: &str) -> Node {
        let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
        self.fs.create(&self.fs.root().unwrap(), name.as_bytes(), &new).unwrap()
    }

    /// A file of so many blocks of hole.
    fn hole(&self, name: &str, blocks: u64) -> Node {
        let file = self.file(name);
        self.resize(&file, blocks * BLOCK);
        file
    }

    fn resize(&self, file: &Node, size: u64) {
        self.fs.set_attr(file, &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
    }

    fn free(&self) -> u64 {
        self.fs.space().blocks_free
    }

    fn block(&self, file: &Node, number: u64) -> Vec<u8> {
        let mut bytes = vec![0xee; BLOCK as usize];
        assert_eq!(self.fs.read(file, number * BLOCK, &mut bytes).unwrap(), BLOCK as usize);
        bytes
    }

    /// What a program finds that has mapped this part.
    fn mapped(&self, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK as usize];
        self.medium.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}

/// Programs, which answer recalls as they like.
#[derive(Default)]
struct Program {
    waiting: Mutex<Vec<Recall>>,
    keeps: bool,
    epochs: Mutex<Vec<(u64, u64, u64)>>,
    arrived: Option<mpsc::Sender<()>>,
}

impl Program {
    fn waiting(&self) -> MutexGuard<'_, Vec<Recall>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recalls(&self) -> Vec<(u64, u64, u64)> {
        std::mem::take(&mut self.epochs.lock().unwrap())
    }
}

impl Lessee for Program {
    fn recall(&self, recall: Recall) {
        self.epochs.lock().unwrap().push((recall.epoch, recall.offset / BLOCK, recall.end / BLOCK));
        if self.keeps {
            self.waiting().push(recall);
        }
        if let Some(arrived) = &self.arrived {
            arrived.send(()).unwrap();
        }
    }
}

const WRITABLE: LeaseOptions = LeaseOptions { writable: true, sync: false, pid: 7 };

fn lease(file: &Node, program: &Arc<Program>) -> Lease {
    file.fs().lease(file, Arc::clone(program) as Arc<dyn Lessee>, WRITABLE).unwrap()
}

fn touch_of(block: u64, write: bool) -> Touch {
    Touch { offset: block * BLOCK, write, from: 0, to: 1 << 30, window: BLOCK }
}

fn try_touch(lease: &Lease, touch: &Touch) -> Result<(u64, Vec<Part>), Errno> {
    let mut answers = Vec::new();
    lease.touch(touch, |touched| answers.push(touched)).map_err(|error| error.errno())?;
    assert_eq!(answers.len(), 1, "a touch is answered once");
    Ok(match answers.pop() {
        Some(Touched::Granted(grant)) => (grant.epoch, grant.parts.to_vec()),
        Some(Touched::BeyondEnd { epoch }) => (epoch, Vec::new()),
        other => panic!("not granted: {other:?}"),
    })
}

fn touch(lease: &Lease, block: u64, write: bool) -> (u64, Vec<Part>) {
    try_touch(lease, &touch_of(block, write)).unwrap()
}

/// Where on the medium the one block is that was granted.
fn at(parts: &[Part]) -> u64 {
    match parts {
        [Part { what: What::Medium(at), .. }] => *at,
        other => panic!("not one part of the medium: {other:?}"),
    }
}

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

#[test]
fn an_operation_waits_for_the_answer() {
    let volume = Volume::new();
    let file = volume.hole("f", 2);
    let (arrived, has_arrived) = mpsc::channel();
    let program = Arc::new(Program { keeps: true, arrived: Some(arrived), ..Program::default() });
    let lease = lease(&file, &program);
    let block = at(&touch(&lease, 1, true).1);
    volume.medium.write_all_at(&[1; 8], block).unwrap();
    thread::scope(|scope| {
        let cut = scope.spawn(|| volume.resize(&file, BLOCK));
        has_arrived.recv().unwrap();
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
    let (arrived, has_arrived) = mpsc::channel();
    let program = Arc::new(Program { keeps: true, arrived: Some(arrived), ..Program::default() });
    let lease = lease(&file, &program);
    let free = volume.free();
    let kept: Vec<u64> = (0..16).map(|block| at(&touch(&lease, block, true).1)).collect();
    thread::scope(|scope| {
        let cut = scope.spawn(|| volume.resize(&file, 0));
        has_arrived.recv().unwrap();
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
    let volume = Volume::with(DaxPolicy::Inode);
    let file = volume.hole("f", 4);
    volume.fs.set_flags(&file, Flags::DAX, None).unwrap();
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
    let volume = Volume::with(DaxPolicy::Inode);
    let file = volume.hole("f", 4);
    volume.fs.set_flags(&file, Flags::DAX, None).unwrap();
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
fn a_program_that_does_not_answer_keeps_a_file_from_being_switched() {
    let volume = Volume::with(DaxPolicy::Inode);
    let file = volume.hole("f", 4);
    volume.fs.set_flags(&file, Flags::DAX, None).unwrap();
    let (arrived, has_arrived) = mpsc::channel();
    let program = Arc::new(Program { keeps: true, arrived: Some(arrived), ..Program::default() });
    let lease = lease(&file, &program);
    touch(&lease, 0, true);
    thread::scope(|scope| {
        let switch = scope.spawn(|| revoke(&file, false));
        has_arrived.recv().unwrap();
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
    let volume = Volume::with(DaxPolicy::Inode);
    let file = volume.hole("f", 4);
    volume.fs.set_flags(&file, Flags::DAX, None).unwrap();
    let (arrived, has_arrived) = mpsc::channel();
    let program = Arc::new(Program { keeps: true, arrived: Some(arrived), ..Program::default() });
    let lease = lease(&file, &program);
    let free = volume.free();
    touch(&lease, 0, true);
    touch(&lease, 1, true);
    thread::scope(|scope| {
        let switch = scope.spawn(|| revoke(&file, false));
        has_arrived.recv().unwrap();
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

#[test]
fn a_synchronous_mapping_that_is_made_during_a_switch_keeps_the_file_direct() {
    let volume = Volume::with(DaxPolicy::Inode);
    let file = volume.hole("f", 4);
    volume.fs.set_flags(&file, Flags::DAX, None).unwrap();
    let (arrived, has_arrived) = mpsc::channel();
    let program = Arc::new(Program { keeps: true, arrived: Some(arrived), ..Program::default() });
    let first = lease(&file, &program);
    touch(&first, 0, true);
    let sync = thread::scope(|scope| {
        let switch = scope.spawn(|| revoke(&file, false));
        has_arrived.recv().unwrap();
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
