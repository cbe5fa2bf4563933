//! What becomes of programs that stop, die or fork, and of their blocks; what if the server ends?

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::ptr;
use std::thread;
use std::time::Duration;

use lodefs_direct::{MapOptions, MappingKind};
use lodefs_proto::attach::{Ask, FromProgram};
use lodefs_proto::server::{FromServer, Outcome};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use crate::common::{Mounted, lodefs, on_memory, succeed, wait_for_end};
use crate::liar::{self, Liar};
use crate::program::Program;
use crate::stage::{PAGE, Stage, byte, map, open};

#[test]
fn without_the_server_nothing_is_reached() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(8);
    let Stage { bench, mounted } = stage;
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
        again.args(["-o", "dax=always"]).arg(bench.volume()).arg(bench.directory());
        if on_memory(&mut again).output().unwrap().status.success() {
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
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(8);
    let Stage { bench, mounted } = stage;
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
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(8);
    let Stage { bench, mounted } = stage;
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
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(64);
    let mut program = Program::start(&path, 64 * 4096, MappingKind::Direct);
    for page in 0..64 {
        program.write(page * PAGE, 1);
    }
    let free = || rustix::fs::statvfs(&stage.mounted.directory).unwrap().f_bfree;
    let before = free();
    program.stop();
    file.set_len(0).unwrap();
    assert_eq!(free(), before, "its blocks are kept");
    let other = stage.mounted.path("other");
    fs::write(&other, vec![3; 1 << 20]).unwrap();
    program.signal(Signal::CONT);
    program.begin("count 64 1000000000");
    assert_eq!(program.answer(), "", "it dies, because the file has no pages any more");
    assert_eq!(program.death(), Some(Signal::BUS.as_raw()));
    assert!(fs::read(&other).unwrap().iter().all(|byte| *byte == 3));
    while free() < before + 64 - 256 {}
    drop(file);
    stage.tear_down();
}

/// What a liar does that has mapped the medium, and a page of a file granted: it says nothing more, and its first thread ends.
fn map_and_leave(file: &File) -> ! {
    extern "C" fn sleep(_: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: changes no memory, and ends the process.
        unsafe {
            libc::sleep(60);
            libc::_exit(0)
        }
    }
    let ticket = liar::ticket(file);
    let liar = Liar::connect(ticket.name());
    let Outcome::Opened { file: number, .. } = liar.open(ticket.ticket) else { panic!("a good ticket") };
    let map = Ask::Map { file: number, offset: 0, size: PAGE, writable: true, sync: false };
    let Outcome::Mapped { lease, .. } = liar.ask(map) else { panic!("a good file") };
    liar.say(&FromProgram::Touch { lease, offset: 0, window: PAGE, write: true });
    assert!(matches!(liar.hear(true), Some(FromServer::Granted { .. })));
    // SAFETY: the kernel chooses the address.
    unsafe { mmap(ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::SHARED, liar::medium(file), 0).unwrap() };
    drop(liar);
    let mut thread = 0;
    // SAFETY: the thread's function is there for ever. The system call ends this thread alone.
    unsafe {
        libc::pthread_create(&raw mut thread, ptr::null(), sleep, ptr::null_mut());
        libc::syscall(libc::SYS_exit, 0);
    }
    unreachable!("it has ended")
}

#[test]
fn a_program_whose_first_thread_has_ended_is_there() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (_, file) = stage.hole(1);
    // SAFETY: the child talks to the server, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        map_and_leave(&file);
    }
    let status = || fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    while !status().contains("State:\tZ") {
        thread::yield_now();
    }
    // It has to be noticed, if it is to be taken for one that is gone.
    thread::sleep(Duration::from_millis(200));
    let free = || rustix::fs::statvfs(&stage.mounted.directory).unwrap().f_bfree;
    let before = free();
    file.set_len(0).unwrap();
    assert_eq!(free(), before, "another thread may reach it");
    rustix::process::kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    waitpid(Pid::from_raw(child), WaitOptions::empty()).unwrap();
    while free() == before {
        thread::yield_now();
    }
    drop(file);
    stage.tear_down();
}

#[test]
fn a_stopped_program_to_which_no_more_can_be_said_holds_up_nobody() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let path = stage.mounted.path("f");
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
    stage.tear_down();
}

#[test]
fn a_killed_program_holds_up_nobody() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(64);
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
    stage.tear_down();
}

#[test]
fn parent_and_child_write_to_one_file() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(8);
    let mut program = Program::start(&path, 8 * 4096, MappingKind::Direct);
    program.write(0, 5);
    assert_eq!(program.tell("fork 0 6"), "Some(0) 6");
    assert_eq!(program.tell("fork 8192 7"), "Some(0) 7", "a hole");
    assert_eq!((byte(&file, 0), byte(&file, 8192)), (6, 7));
    file.set_len(0).unwrap();
    drop(file);
    drop(program);
    stage.tear_down();
}

#[test]
fn a_child_has_those_mappings_whose_files_it_may_open() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(8);
    let forbidden = stage.mounted.path("forbidden");
    open(&forbidden).set_len(PAGE).unwrap();
    let both = [
        map(&open(&forbidden), 4096).unwrap(),
        map(&file, 4096).unwrap(),
        map(&open(&forbidden), 4096).unwrap(),
    ];
    let chattr = |how: &str| succeed(Command::new("chattr").arg(how).arg(&forbidden));
    chattr("+i");
    // SAFETY: the child stores to mappings, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: changes no memory.
        unsafe { libc::alarm(60) };
        let is_written = both[1].write(0, b"c").is_ok();
        if is_written {
            let _killed = both[0].write(0, b"c");
        }
        // SAFETY: ends the child, without what the parent would do at its end.
        unsafe { libc::_exit(1) }
    }
    let status = waitpid(Pid::from_raw(child), WaitOptions::empty()).unwrap().unwrap().1;
    assert_eq!((status.terminating_signal(), byte(&file, 0)), (Some(Signal::BUS.as_raw()), b'c'));
    chattr("-i");
    drop((file, both));
    assert_eq!(fs::read(&path).unwrap()[0], b'c');
    stage.tear_down();
}

#[test]
fn a_child_that_cannot_attach_leaves_its_parent_alone() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(8);
    let mut program = Program::start(&path, 8 * 4096, MappingKind::Direct);
    program.write(0, 5);
    assert_eq!(program.tell("fork-elsewhere"), "Some(0)");
    program.write(4096, 6);
    assert_eq!(program.tell("sync"), "done", "the server still knows it");
    assert_eq!(byte(&file, 4096), 6);
    drop((file, program));
    stage.tear_down();
}
