//! Programs that have files of a mount mapped directly: what they see, and what becomes of them.

mod coherence;
#[path = "../common/mod.rs"]
mod common;
mod liar;
mod program;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Mounted, Workbench, can_mount, lodefs, succeed, wait_for_end};
use liar::Liar;
use lodefs_direct::dax::{self, How};
use lodefs_direct::{MapOptions, Mapping, MappingKind};
use lodefs_proto::attach::{Ask, FromProgram};
use lodefs_proto::server::Outcome;
use lodefs_proto::ticket::Ticket;
use program::Program;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, waitpid};

const PAGE: u64 = 4096;

/// The program that other tests start.
#[test]
#[ignore = "it is no test"]
fn a_program() {
    program::run();
}

/// A process of the test of coherence.
#[test]
#[ignore = "it is no test"]
fn a_process() {
    coherence::run();
}

/// With `LODEFS_TEST_OPERATIONS=10000000`, as long as one likes.
#[test]
fn all_processes_see_one_file_whatever_it_is() {
    if !can_mount() {
        return;
    }
    let operations = std::env::var(coherence::OPERATIONS).map_or(12_000, |number| number.parse().unwrap());
    let bench = Workbench::new();
    let mounted = mount(&bench, "dax=inode");
    let [made, refused] = coherence::let_loose(&mounted.path("f"), &bench.path("model"), operations);
    println!("{operations} operations; {made} switches, {refused} refused");
    assert!(made > 0);
    mounted.unmount();
    assert!(succeed(lodefs(["fsck"]).arg(bench.volume())).contains("clean"));
}

fn mount(bench: &Workbench, options: &str) -> Mounted {
    let options = format!("dax=always,{options}");
    succeed(bench.mount_command(&["-o", &options]).env("LODEFS_FORCE_DOMAIN", "memory-controller"));
    Mounted { directory: bench.directory() }
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// A file of so many pages of hole.
fn hole(mounted: &Mounted, pages: u64) -> (PathBuf, File) {
    let path = mounted.path("f");
    let file = open(&path);
    file.set_len(pages * PAGE).unwrap();
    (path, file)
}

fn byte(file: &File, offset: u64) -> u8 {
    let mut byte = [0];
    assert_eq!(file.read_at(&mut byte, offset).unwrap(), 1);
    byte[0]
}

fn map(file: &File, size: usize) -> Result<Mapping, Errno> {
    lodefs_direct::map(file, &MapOptions { offset: 0, size, writable: true, sync: false })
}

#[test]
fn a_mapping_and_the_mount_show_one_file() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 64);
    let blocks = || fs::metadata(&path).unwrap().len();
    let mapping = map(&file, 64 * 4096).unwrap();
    assert_eq!(mapping.kind(), MappingKind::Direct);
    let mut bytes = [9; 3];
    mapping.read(5 * 4096, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 3]);
    mapping.write(5 * 4096 + 1, b"ab").unwrap();
    mapping.persist(5 * 4096 + 1..5 * 4096 + 3).unwrap();
    let mut read = [9; 4];
    file.read_exact_at(&mut read, 5 * PAGE).unwrap();
    assert_eq!(&read, b"\0ab\0");
    file.write_all_at(b"from the mount", 5 * PAGE + 2).unwrap();
    let mut read = [0; 16];
    mapping.read(5 * 4096, &mut read).unwrap();
    assert_eq!(&read, b"\0afrom the mount");
    // A hole that was read through the mapping, and is filled through the mount.
    mapping.read(7 * 4096, &mut read).unwrap();
    file.write_all_at(b"x", 7 * PAGE).unwrap();
    mapping.read(7 * 4096, &mut read[..1]).unwrap();
    assert_eq!(read[0], b'x');
    mapping.sync().unwrap();
    assert_eq!(blocks(), 64 * PAGE);
    drop(mapping);
    assert_eq!(byte(&file, 7 * PAGE), b'x');
    drop(file);
    mounted.unmount();
}

#[test]
fn system_calls_may_use_a_mapping_as_their_buffer() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (_, file) = hole(&mounted, 64);
    let mapping = map(&file, 64 * 4096).unwrap();
    // SAFETY: within the mapping; nobody else uses these pages now.
    let page =
        |number: usize| unsafe { std::slice::from_raw_parts_mut(mapping.as_ptr().add(number * 4096), 4096) };
    // The same file, from and to pages that are not there yet.
    for round in 0..20 {
        file.write_all_at(page(round), (40 + round as u64) * PAGE).unwrap();
        file.read_exact_at(page(20 + round), round as u64 * PAGE).unwrap();
    }
    page(0).fill(7);
    file.write_all_at(page(0), 0).unwrap();
    assert_eq!(byte(&file, 4095), 7);
    drop(mapping);
    drop(file);
    mounted.unmount();
}

#[test]
fn beyond_the_end_there_is_sigbus_until_the_file_is_longer() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 8);
    let mut program = Program::start(&path, 16 * 4096, MappingKind::Direct);
    for page in 0..8 {
        program.write(page * PAGE, 1);
    }
    file.set_len(2 * PAGE).unwrap();
    let mut other = Program::start(&path, 16 * 4096, MappingKind::Direct);
    assert_eq!(other.tell("read 8192"), "", "it dies");
    assert_eq!(other.death(), Some(Signal::BUS.as_raw()));
    file.set_len(12 * PAGE).unwrap();
    assert_eq!(program.read(2 * PAGE), 0, "not what was there before");
    program.write(11 * PAGE, 5);
    assert_eq!(byte(&file, 11 * PAGE), 5);
    file.set_len(PAGE).unwrap();
    assert_eq!(program.tell("write 8192 1"), "");
    assert_eq!(program.death(), Some(Signal::BUS.as_raw()));
    drop(file);
    mounted.unmount();
}

#[test]
fn without_the_server_nothing_is_reached() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 8);
    let mut program = Program::start(&path, 8 * 4096, MappingKind::Direct);
    program.write(0, 1);
    let server = mounted.server();
    rustix::process::kill_process(server, Signal::KILL).unwrap();
    wait_for_end(server);
    drop(file);
    drop(mounted);
    // As soon as the program has let go of the volume, it can be mounted again.
    let mounted = loop {
        let mut again = lodefs(["mount"]);
        again.args(["-o", "dax=always"]).env("LODEFS_FORCE_DOMAIN", "memory-controller");
        if again.arg(bench.volume()).arg(bench.directory()).output().unwrap().status.success() {
            break Mounted { directory: bench.directory() };
        }
    };
    assert_eq!(byte(&open(&path), 0), 1, "what was stored is there");
    assert_eq!(program.tell("write 0 2"), "");
    assert_eq!(program.death(), Some(Signal::BUS.as_raw()));
    assert_eq!(byte(&open(&path), 0), 1);
    mounted.unmount();
}

#[test]
fn while_a_stopped_program_has_it_mapped_the_volume_stays_locked() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 8);
    let mut program = Program::start(&path, 8 * 4096, MappingKind::Direct);
    program.write(0, 1);
    program.stop();
    let server = mounted.server();
    rustix::process::kill_process(server, Signal::KILL).unwrap();
    wait_for_end(server);
    drop(file);
    drop(mounted);
    let again = || lodefs(["mount"]).arg(bench.volume()).arg(bench.directory()).output().unwrap();
    assert!(!again().status.success(), "a program could write to blocks that are no longer its own");
    program.signal(Signal::KILL);
    drop(program);
    assert!(again().status.success());
    Mounted { directory: bench.directory() }.unmount();
}

#[test]
fn the_volume_stays_locked_for_those_who_only_read_it_too() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 8);
    file.write_all_at(b"x", 0).unwrap();
    let reader = File::open(&path).unwrap();
    let options = MapOptions { offset: 0, size: 4096, writable: false, sync: false };
    let mapping = lodefs_direct::map(&reader, &options).unwrap();
    let mut byte = [0];
    mapping.read(0, &mut byte).unwrap();
    // 8: the check failed, because it is locked.
    let is_locked = || {
        lodefs(["fsck", "--repair", "--yes"]).arg(bench.volume()).output().unwrap().status.code() == Some(8)
    };
    // As a process that does not notice that the server is gone would: by a descriptor of its own.
    let medium = liar::medium(&reader);
    let server = mounted.server();
    rustix::process::kill_process(server, Signal::KILL).unwrap();
    wait_for_end(server);
    drop((mapping, reader, file));
    drop(mounted);
    assert!(is_locked(), "what is read would change");
    drop(medium);
    assert!((0..1000).any(|_| !is_locked()), "nobody reads any more");
}

#[test]
fn what_a_stopped_program_may_still_reach_is_kept() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 64);
    let mut program = Program::start(&path, 64 * 4096, MappingKind::Direct);
    for page in 0..64 {
        program.write(page * PAGE, 1);
    }
    let free = || rustix::fs::statvfs(&mounted.directory).unwrap().f_bfree;
    let before = free();
    program.stop();
    file.set_len(0).unwrap();
    assert_eq!(free(), before, "its blocks are kept");
    let other = mounted.path("other");
    fs::write(&other, vec![3; 1 << 20]).unwrap();
    program.signal(Signal::CONT);
    program.begin("count 64 1000000000");
    assert_eq!(program.answer(), "", "it dies, because the file has no pages any more");
    assert_eq!(program.death(), Some(Signal::BUS.as_raw()));
    assert!(fs::read(&other).unwrap().iter().all(|byte| *byte == 3));
    while free() < before + 64 - 256 {}
    drop(file);
    mounted.unmount();
}

#[test]
fn a_killed_program_holds_up_nobody() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 64);
    for round in 0..20 {
        let mut program = Program::start(&path, 64 * 4096, MappingKind::Direct);
        program.begin("count 64 100000");
        std::thread::sleep(std::time::Duration::from_millis(10 * (round % 4)));
        program.signal(Signal::KILL);
        file.set_len(0).unwrap();
        assert_eq!(program.death(), Some(Signal::KILL.as_raw()));
        file.set_len(64 * PAGE).unwrap();
    }
    drop(file);
    mounted.unmount();
    assert!(succeed(lodefs(["fsck"]).arg(bench.volume())).contains("clean"));
}

#[test]
fn parent_and_child_write_to_one_file() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 8);
    let mut program = Program::start(&path, 8 * 4096, MappingKind::Direct);
    program.write(0, 5);
    assert_eq!(program.tell("fork 0 6"), "Some(0) 6");
    assert_eq!(program.tell("fork 8192 7"), "Some(0) 7", "a hole");
    assert_eq!((byte(&file, 0), byte(&file, 8192)), (6, 7));
    file.set_len(0).unwrap();
    drop(file);
    drop(program);
    mounted.unmount();
}

#[test]
fn who_may_not_attach_maps_what_the_kernel_maps() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "attach=none");
    let (_, file) = hole(&mounted, 8);
    assert_eq!(map(&file, 4096).map(|_| ()), Err(Errno::NODEV));
    drop(file);
    mounted.unmount();
    succeed(
        lodefs(["mount"]).arg(bench.volume()).arg(bench.directory()).env("LODEFS_FORCE_DOMAIN", "cpu-cache"),
    );
    let mounted = Mounted { directory: bench.directory() };
    let path = mounted.path("f");
    let buffered = open(&path);
    let mapping = map(&buffered, 4096).unwrap();
    assert_eq!(mapping.kind(), MappingKind::Buffered);
    mapping.write(0, b"through the cache").unwrap();
    mapping.sync().unwrap();
    assert_eq!(fs::read(&path).unwrap()[..17], *b"through the cache");
    let synchronous = MapOptions { offset: 0, size: 4096, writable: true, sync: true };
    assert_eq!(lodefs_direct::map(&buffered, &synchronous).map(|_| ()), Err(Errno::OPNOTSUPP));
    drop(mapping);
    let only_written = OpenOptions::new().write(true).open(&path).unwrap();
    assert_eq!(map(&only_written, 4096).map(|_| ()), Err(Errno::ACCESS));
    let only_read = File::open(&path).unwrap();
    assert_eq!(map(&only_read, 4096).map(|_| ()), Err(Errno::ACCESS));
    drop((buffered, only_written, only_read));
    mounted.unmount();
}

#[test]
fn where_there_is_no_room_there_is_sigbus_and_nothing_else_is_lost() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 1 << 20);
    let mut program = Program::start(&path, 1 << 30, MappingKind::Direct);
    program.write(0, 1);
    let other = open(&mounted.path("other"));
    let mut size = 64 << 20;
    while size >= PAGE {
        if fallocate(&other, FallocateFlags::empty(), other.metadata().unwrap().len(), size).is_err() {
            size /= 2;
        }
    }
    let mut page = 1;
    while program.tell(&format!("write {} 1", page * PAGE)) == "done" {
        page += 1;
    }
    assert_eq!(program.death(), Some(Signal::BUS.as_raw()));
    assert_eq!((byte(&file, 0), byte(&file, page * PAGE)), (1, 0));
    drop((file, other));
    mounted.unmount();
    assert!(succeed(lodefs(["fsck"]).arg(bench.volume())).contains("clean"));
}

fn switch(path: &Path, on: bool) -> bool {
    let action = if on { "on" } else { "off" };
    lodefs(["dax", action, "--revoke"]).arg(path).output().unwrap().status.success()
}

#[test]
fn a_mapped_file_is_switched_on_demand_and_back() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "dax=inode");
    let (path, file) = hole(&mounted, 8);
    drop(file);
    assert!(switch(&path, true));
    let mut program = Program::start(&path, 8 * 4096, MappingKind::Direct);
    program.write(0, 1);
    for round in 0..4 {
        assert!(switch(&path, false));
        assert_eq!(program.tell("kind"), "Direct", "until it touches it");
        program.write(4096, 2 + round);
        assert_eq!((program.tell("kind").as_str(), program.read(0)), ("Buffered", 1 + round));
        assert!(switch(&path, true));
        assert_eq!((program.read(4096), program.tell("kind").as_str()), (2 + round, "Direct"));
        program.write(0, 2 + round);
    }
    // An open file of the program is not known to be one that it can do without.
    let open = open(&path);
    assert!(!switch(&path, false), "somebody else has it open");
    program.write(0, 9);
    assert_eq!(byte(&open, 0), 9);
    drop((open, program));
    mounted.unmount();
}

#[test]
fn no_store_is_lost_while_a_file_is_switched() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "dax=inode");
    let (path, file) = hole(&mounted, 16);
    drop(file);
    assert!(switch(&path, true));
    let mut program = Program::start(&path, 16 * 4096, MappingKind::Direct);
    let rounds = 3_000_000_u32;
    program.begin(&format!("count 16 {rounds}"));
    let mut switches = 0;
    for round in 0..60 {
        switches += u32::from(switch(&path, round % 2 == 1));
    }
    assert_eq!(program.answer(), "done");
    assert!(switches >= 30, "{switches} of 60 switches were made");
    let content = fs::read(&path).unwrap();
    let expected = (rounds % 256) as u8;
    assert_eq!(content.iter().step_by(4096).copied().collect::<Vec<_>>(), [expected; 16]);
    drop(program);
    mounted.unmount();
    assert!(succeed(lodefs(["fsck"]).arg(bench.volume())).contains("clean"));
}

#[test]
fn what_the_kernel_had_cached_before_is_not_shown_after() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "dax=inode");
    let (path, asker) = hole(&mounted, 8);
    let mut program = Program::start(&path, 8 * 4096, MappingKind::Buffered);
    program.write(0, 1);
    for round in 2..6 {
        assert_eq!(fs::read(&path).unwrap()[0], round - 1, "it is in the cache now");
        // One descriptor for both, so that nobody opens the file while it is direct.
        dax::set(&asker, true, How::Revoke).unwrap();
        program.write(0, round);
        dax::set(&asker, false, How::Revoke).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap()[0], 5);
    drop((asker, program));
    mounted.unmount();
}

#[test]
fn tickets_are_for_one_process_one_file_and_once() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 8);
    let ticket = liar::ticket(&file);
    let liar = Liar::connect(ticket.name());
    assert_eq!(liar.open(Ticket([0; 16])), refused(Errno::ACCESS), "a ticket that nobody gave");
    let Outcome::Opened { file: number, .. } = liar.open(ticket.ticket) else { panic!("a good ticket") };
    assert_eq!(liar.open(ticket.ticket), refused(Errno::ACCESS), "it has been used");
    let map = |file, offset, size, writable| liar.ask(Ask::Map { file, offset, size, writable, sync: false });
    assert_eq!(map(number + 1, 0, 4096, true), refused(Errno::BADF), "a file that was not opened");
    for (offset, size, errno) in [
        (0, 0, Errno::INVAL),
        (1, 4096, Errno::INVAL),
        (0, 4097, Errno::INVAL),
        (1 << 63, 4096, Errno::OVERFLOW),
        (u64::MAX - 4095, 4096, Errno::OVERFLOW),
        (4096, u64::MAX - 4095, Errno::OVERFLOW),
    ] {
        assert_eq!(map(number, offset, size, true), refused(errno), "{size} at {offset}");
    }
    let only_read = liar::ticket(&File::open(&path).unwrap());
    let Outcome::Opened { file: only_read, .. } = liar.open(only_read.ticket) else {
        panic!("a good ticket")
    };
    assert_eq!(map(only_read, 0, 4096, true), refused(Errno::ACCESS), "it was opened to be read");
    assert!(matches!(map(only_read, 0, 4096, false), Outcome::Mapped { is_direct: true, .. }));
    // Another process has its own tickets only.
    let stolen = liar::ticket(&file);
    // SAFETY: the child does nothing but talk to the server, and end.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let thief = Liar::connect(stolen.name());
        let is_refused = thief.open(stolen.ticket) == refused(Errno::ACCESS);
        // SAFETY: ends the child, without what the parent would do at its end.
        unsafe { libc::_exit(i32::from(!is_refused)) }
    }
    let status = waitpid(rustix::process::Pid::from_raw(child), WaitOptions::empty()).unwrap().unwrap().1;
    assert_eq!(status.exit_status(), Some(0));
    drop((liar, file));
    mounted.unmount();
}

fn refused(errno: Errno) -> Outcome {
    Outcome::Refused(errno.raw_os_error().unsigned_abs())
}

#[test]
fn whatever_a_program_says_harms_nobody_else() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 64);
    let mut honest = Program::start(&path, 64 * 4096, MappingKind::Direct);
    for page in 0..64 {
        honest.write(page * PAGE, 1);
    }
    let other = open(&mounted.path("other"));
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 11) % below.max(1)
    };
    for _ in 0..150 {
        other.set_len(PAGE * next(64)).unwrap();
        let liar = Liar::connect(liar::ticket(&other).name());
        liar::babble(&liar, &mut next, &|| liar::ticket(&other).ticket);
    }
    // Requests without end, to which nobody listens.
    let flood = Liar::connect(liar::ticket(&other).name());
    let ask = FromProgram::Ask(1, Ask::Unmap { lease: 1 });
    let taken = (0..1_000_000).take_while(|_| flood.say(&ask)).count();
    assert!(taken < 1_000_000, "it is cut off");
    for page in 0..64 {
        assert_eq!(honest.read(page * PAGE), 1);
        honest.write(page * PAGE, 2);
    }
    drop((file, other, honest, flood));
    mounted.unmount();
    assert!(succeed(lodefs(["fsck"]).arg(bench.volume())).contains("clean"));
}

#[test]
fn mappings_come_and_go_while_a_file_is_switched() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "dax=inode");
    let (path, asker) = hole(&mounted, 8);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let switching = scope.spawn(|| {
            let mut on = true;
            let mut made = 0;
            while !is_over.load(Ordering::Relaxed) {
                if dax::set(&asker, on, How::Revoke).is_ok() {
                    on = !on;
                    made += 1;
                }
            }
            made
        });
        for round in 0..400_usize {
            let file = open(&path);
            let mapping = map(&file, 8 * 4096).unwrap();
            drop(file);
            let at = round % 8 * 4096;
            mapping.write(at, &[round as u8]).unwrap();
            let mut byte = [0];
            mapping.read(at, &mut byte).unwrap();
            assert_eq!(byte[0], round as u8);
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(switching.join().unwrap() > 0);
    });
    drop(asker);
    mounted.unmount();
}

#[test]
fn sixteen_threads_of_four_processes_fill_one_hole_once() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 256);
    let mut programs: Vec<Program> =
        (0..4).map(|_| Program::start(&path, 256 * 4096, MappingKind::Direct)).collect();
    for (program, number) in programs.iter_mut().zip(0..) {
        program.begin(&format!("race 256 {number}"));
    }
    for program in &mut programs {
        assert_eq!(program.answer(), "done");
    }
    let content = fs::read(&path).unwrap();
    for page in content.chunks(4096) {
        assert!(page[..64].iter().all(|byte| *byte == 1) && page[64..].iter().all(|byte| *byte == 0));
    }
    assert_eq!(fs::metadata(&path).unwrap().blocks(), 256 * 8);
    drop((file, programs));
    mounted.unmount();
}

#[test]
fn the_end_of_the_largest_file_can_be_mapped_and_nothing_behind_it() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let file = open(&mounted.path("f"));
    file.set_len(i64::MAX as u64).unwrap();
    let last = (1 << 63) - PAGE;
    let options = |offset, size| MapOptions { offset, size, writable: true, sync: false };
    let mapping = lodefs_direct::map(&file, &options(last, 4096)).unwrap();
    mapping.write(4090, b"last").unwrap();
    let mut read = [0; 4];
    file.read_exact_at(&mut read, last + 4090).unwrap();
    assert_eq!(&read, b"last");
    for (offset, size) in
        [(last, 8192), (last + PAGE, 4096), (u64::MAX - 4095, 4096), (last - PAGE, usize::MAX)]
    {
        let refused = lodefs_direct::map(&file, &options(offset, size)).map(|_| ());
        assert!(
            matches!(refused, Err(Errno::INVAL | Errno::OVERFLOW | Errno::NOMEM)),
            "{offset}: {refused:?}"
        );
    }
    drop((mapping, file));
    mounted.unmount();
}

#[test]
fn a_stopped_program_to_which_no_more_can_be_said_holds_up_nobody() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let path = mounted.path("f");
    let file = open(&path);
    let pages = 8000;
    fallocate(&file, FallocateFlags::empty(), 0, pages * PAGE).unwrap();
    let mut program = Program::start(&path, 8000 * 4096, MappingKind::Direct);
    program.write(0, 1);
    program.stop();
    // Each takes a page back, until the socket is full and the program is cut off.
    for page in 1..pages - 1 {
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, page * PAGE, PAGE).unwrap();
    }
    assert_eq!(byte(&file, 0), 1);
    program.signal(Signal::KILL);
    drop((file, program));
    mounted.unmount();
    assert!(succeed(lodefs(["fsck"]).arg(bench.volume())).contains("clean"));
}

#[test]
fn threads_that_map_for_the_first_time_at_once_share_an_attachment() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (_, file) = hole(&mounted, 8);
    for round in 0..100_usize {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let file = &file;
                scope.spawn(move || {
                    let mapping = map(file, 8 * 4096).unwrap();
                    mapping.write(thread * 4096, &[round as u8]).unwrap();
                });
            }
        });
        assert_eq!(byte(&file, 7 * PAGE), round as u8);
    }
    drop(file);
    mounted.unmount();
}

#[test]
fn a_child_that_cannot_attach_leaves_its_parent_alone() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let (path, file) = hole(&mounted, 8);
    let mut program = Program::start(&path, 8 * 4096, MappingKind::Direct);
    program.write(0, 5);
    assert_eq!(program.tell("fork-elsewhere"), "Some(0)");
    program.write(4096, 6);
    assert_eq!(program.tell("sync"), "done", "the server still knows it");
    assert_eq!(byte(&file, 4096), 6);
    drop((file, program));
    mounted.unmount();
}
