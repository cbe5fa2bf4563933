//! Who may attach, to what, and what can he do to others by what he says?

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process;
use std::thread;

use lodefs_direct::{MapOptions, MappingKind};
use lodefs_proto::attach::{Ask, FromProgram};
use lodefs_proto::server::Outcome;
use lodefs_proto::ticket::Ticket;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::process::{Uid, WaitOptions, waitpid};
use rustix::thread::set_thread_res_uid;

use crate::common::lodefs;
use crate::liar::{self, Liar};
use crate::program::Program;
use crate::stage::{PAGE, Stage, byte, map, open};

#[test]
fn who_may_not_attach_maps_no_direct_file() {
    let Some(stage) = Stage::set_up("attach=none") else { return };
    let (_, file) = stage.hole(8);
    assert_eq!(map(&file, 4096).map(|_| ()), Err(Errno::NODEV));
    drop(file);
    stage.tear_down();
}

#[test]
fn a_buffered_file_is_mapped_as_the_kernel_does() {
    let Some(stage) = Stage::set_up("dax=inode") else { return };
    let (path, buffered) = stage.hole(8);
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
    stage.tear_down();
}

#[test]
fn tickets_are_for_one_process_one_file_and_once() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(8);
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
    stage.tear_down();
}

/// Bytes of a mapping.
const ALL: usize = 600 * 4096;

#[test]
fn system_calls_find_all_of_it_where_the_kernel_lets_nobody_serve_them() {
    let Some(stage) = Stage::set_up("attach=group") else { return };
    let (path, file) = stage.hole(ALL as u64 / PAGE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let sparse = open(&stage.mounted.path("sparse"));
    sparse.set_len(1 << 40).unwrap();
    let source = open(&stage.bench.path("source"));
    source.set_len(ALL as u64).unwrap();
    source.write_at(b"here", 599 * PAGE).unwrap();
    // A right of the thread that maps first; its group stays.
    let as_nobody = |file: &File, size| {
        let nobody = Uid::from_raw(65534);
        set_thread_res_uid(nobody, nobody, nobody).unwrap();
        map(file, size).unwrap()
    };
    let map_as_nobody =
        |file, size| thread::scope(|scope| scope.spawn(move || as_nobody(file, size)).join().unwrap());
    let mapping = map_as_nobody(&file, ALL);
    let transfer = |write: bool| {
        let (buffer, source) = (mapping.as_ptr().cast(), source.as_raw_fd());
        // SAFETY: the buffer is mapped, and nobody uses it otherwise meanwhile.
        unsafe {
            if write { libc::pwrite(source, buffer, ALL, 0) } else { libc::pread(source, buffer, ALL, 0) }
        }
    };
    assert_eq!(transfer(false), ALL.cast_signed());
    assert_eq!(byte(&file, 599 * PAGE), b'h');
    let shown = || {
        let output = lodefs(["maps", "--json", &process::id().to_string()]).output().unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mapped = answer["processes"][0]["mappings"].as_array().unwrap().clone();
        let mut kinds: Vec<String> =
            mapped.iter().map(|one| format!("{} {}", one["kind"], one["serves_system_calls"])).collect();
        kinds.dedup();
        (kinds.join(", "), String::from_utf8(output.stderr).unwrap().contains("EFAULT"))
    };
    assert_eq!(shown(), ("\"direct\" false".into(), false));
    // A hole that is made meanwhile is one, and is read as such.
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 10 * PAGE).unwrap();
    while transfer(true) != ALL.cast_signed() {
        thread::yield_now();
    }
    assert_eq!(file.metadata().unwrap().blocks(), 590 * 8);
    assert_eq!(shown(), ("\"hole\" false, \"direct\" false".into(), true));
    // There is no room for all of this one, so nothing of it is filled.
    let most = map_as_nobody(&sparse, 1 << 30);
    assert_eq!(sparse.metadata().unwrap().blocks(), 0);
    drop((most, mapping));
    drop((file, sparse));
    stage.tear_down();
}

fn refused(errno: Errno) -> Outcome {
    Outcome::Refused(errno.raw_os_error().unsigned_abs())
}

#[test]
fn whatever_a_program_says_harms_nobody_else() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(64);
    let mut honest = Program::start(&path, 64 * 4096, MappingKind::Direct);
    for page in 0..64 {
        honest.write(page * PAGE, 1);
    }
    let other = open(&stage.mounted.path("other"));
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
    let ask = FromProgram::Ask(1, Ask::Return { lease: 1 });
    let taken = (0..1_000_000).take_while(|_| flood.say(&ask)).count();
    assert!(taken < 1_000_000, "it is cut off");
    for page in 0..64 {
        assert_eq!(honest.read(page * PAGE), 1);
        honest.write(page * PAGE, 2);
    }
    drop((file, other, honest, flood));
    stage.tear_down();
}
