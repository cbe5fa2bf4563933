//! Which limits hold for who reads and writes files by itself?

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use lodefs_direct::File;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::data::{REST, read, stage_is_whole};
use crate::program::FILE;
use crate::stage::{PAGE, Stage, map, open};

/// Blocks of a file that is deleted while a program wants to use it.
const BLOCKS: u64 = 256;

#[test]
fn a_part_of_a_page_is_mapped_as_a_whole_one() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (_path, file) = stage.hole(4);
    let mapping = map(&file, PAGE as usize + 5).unwrap();
    mapping.write(PAGE as usize, &[7; 5]).unwrap();
    assert_eq!(crate::stage::byte(&file, PAGE + 4), 7);
    drop(mapping);
    stage_is_whole(stage, file);
}

#[test]
fn at_the_last_byte_that_a_file_can_have_appends_end() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(0);
    let start = i64::MAX as u64 - 99;
    mounted.set_len(start).unwrap();
    let file = File::new(mounted.try_clone().unwrap()).unwrap();
    for done in [0, 25, 50] {
        assert_eq!(file.write_at(&[done as u8; 25], start + done).unwrap(), 25);
        thread::sleep(REST);
        assert_eq!(fs::metadata(&path).unwrap().len(), start + done + 25);
    }
    assert_eq!(file.write_at(&[9; 50], start + 75).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert_eq!(file.write_at(&[9; 24], start + 75).unwrap(), 24);
    assert_eq!(read(&file, start + 49, 3), [25, 50, 50]);
    assert_eq!(fs::metadata(&path).unwrap().len(), start + 99);
    assert_eq!(file.write_at(&[9], start + 99).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    stage_is_whole(stage, (file, mounted));
}

#[test]
fn files_grow_no_longer_than_the_process_may_make_them() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    let (path, mounted) = stage.hole(0);
    let says = tempfile::NamedTempFile::new().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -f 100; exec "$0" "$@""#]).arg(std::env::current_exe().unwrap());
    let appender = ["an_appender", "--exact", "--ignored", "--quiet"];
    let envs = [(FILE, path.as_os_str()), (crate::appends::SAYS, says.path().as_os_str())];
    let ended = shell.args(appender).envs(envs).status().unwrap();
    assert_eq!(ended.signal(), Some(Signal::XFSZ.as_raw()));
    assert_eq!(fs::metadata(&path).unwrap().len(), 100 * 512);
    stage_is_whole(stage, mounted);
}

/// The process that has no descriptor left when it wants to use the file; it says so, and waits until it is told to end.
pub(crate) fn run() {
    let path = std::env::var_os(FILE).expect("the test has set it");
    // With another file it has come in before.
    let known = File::new(open(&Path::new(&path).with_file_name("known"))).unwrap();
    read(&known, 0, 1);
    let file = File::new(open(Path::new(&path))).unwrap();
    let limit = Rlimit { current: Some(200), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut all = Vec::new();
    while let Ok(one) = fs::File::open("/dev/null") {
        all.push(one);
    }
    for _ in 0..3 {
        assert_eq!(read(&file, 5, 1), [2]);
        thread::sleep(REST);
    }
    drop((file, all));
    println!("= read");
    std::io::stdout().flush().unwrap();
    let _end = std::io::stdin().read(&mut [0]);
}

#[test]
fn who_has_no_descriptor_left_keeps_nothing() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    open(&stage.mounted.path("known")).write_all_at(&[1], 0).unwrap();
    let path = stage.mounted.path("f");
    let free = || rustix::fs::statvfs(&stage.mounted.directory).unwrap().f_bfree;
    let before = free();
    fs::write(&path, vec![2; (BLOCKS * PAGE) as usize]).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["a_program_without_descriptors", "--exact", "--ignored", "--nocapture", "--quiet"])
        .env(FILE, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    let output = child.stdout.as_mut().unwrap();
    while !said.ends_with(b"= read\n") {
        let mut byte = [0];
        assert_eq!(output.read(&mut byte).unwrap(), 1, "the program has ended");
        said.push(byte[0]);
    }
    fs::remove_file(&path).unwrap();
    // The kernel tells the server of the last close after it.
    let mut tries = 0..200;
    while free() < before && tries.next().is_some() {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(free(), before);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    stage.tear_down();
}

#[test]
fn one_process_does_not_take_the_place_of_others() {
    let Some(stage) = Stage::set_up("attach=owner") else { return };
    // There may be other servers, whose places are taken too.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (path, mounted) = stage.hole(1);
    // The server's socket, as this process's own attachment has found it.
    let file = File::new(mounted.try_clone().unwrap()).unwrap();
    file.write_at(b"x", 0).unwrap();
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let names = sockets.lines().filter_map(|line| line.split_once('@').map(|(_, name)| name));
    // A connection has the name of the socket at which it came in.
    let names: BTreeSet<&str> = names.filter(|name| name.starts_with("lodefs-")).collect();
    let mut held: Vec<OwnedFd> = Vec::new();
    for name in names {
        let address = SocketAddrUnix::new_abstract_name(std::ffi::OsStr::new(name).as_bytes()).unwrap();
        for _ in 0..1100 {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
            if connect(&socket, &address).is_ok() {
                held.push(socket);
            }
        }
    }
    assert!(held.len() >= 1000, "{}", held.len());
    let mut other = crate::program::Program::start(&path, PAGE as usize, lodefs_direct::MappingKind::Direct);
    other.write(0, 7);
    drop(other);
    stage_is_whole(stage, (file, mounted, held));
}
