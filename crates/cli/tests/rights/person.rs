//! Threads that act as somebody: each has user, groups and capabilities of its own.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use libc::c_long;

/// Who acts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) uid: u32,
    gid: u32,
    groups: &'static [u32],
    /// Capabilities, one bit each.
    capabilities: u64,
}

/// Owner and group of all files.
pub(crate) const OWNER: u32 = 1000;
pub(crate) const GROUP: u32 = 1000;
pub(crate) const STRANGER: u32 = 65534;

const ALL: u64 = u64::MAX;
const CHOWN: u64 = 1;
const DAC: u64 = 1 << 1 | 1 << 2;
const FOWNER: u64 = 1 << 3;
const FSETID: u64 = 1 << 4;
const LINUX_IMMUTABLE: u64 = 1 << 9;
const SYS_ADMIN: u64 = 1 << 21;

const fn ordinary(name: &'static str, uid: u32, gid: u32, groups: &'static [u32]) -> Person {
    Person { name, uid, gid, groups, capabilities: 0 }
}

const fn root_without(name: &'static str, missing: u64) -> Person {
    Person { name, uid: 0, gid: 0, groups: &[], capabilities: ALL & !missing }
}

pub(crate) const PEOPLE: [Person; 14] = [
    ordinary("owner", OWNER, GROUP, &[]),
    ordinary("owner outside of the group", OWNER, 7, &[]),
    ordinary("member", 1001, 1001, &[GROUP]),
    ordinary("member by the first group", 1002, GROUP, &[]),
    ordinary("stranger", STRANGER, STRANGER, &[]),
    root_without("root", 0),
    root_without("root without FOWNER", FOWNER),
    root_without("root without FSETID", FSETID),
    root_without("root without DAC", DAC),
    root_without("root without CHOWN", CHOWN),
    root_without("root without LINUX_IMMUTABLE", LINUX_IMMUTABLE),
    root_without("root without SYS_ADMIN", SYS_ADMIN),
    root_without("root without capabilities", ALL),
    Person { name: "stranger with FSETID", uid: STRANGER, gid: STRANGER, groups: &[], capabilities: FSETID },
];

/// A thread that acts as a person.
pub(crate) struct Actor {
    pub(crate) person: Person,
    work: Sender<Box<dyn FnOnce() + Send>>,
}

impl Actor {
    pub(crate) fn new(person: Person) -> Self {
        let (work, tasks) = channel::<Box<dyn FnOnce() + Send>>();
        thread::spawn(move || {
            become_person(&person);
            for task in tasks {
                task();
            }
        });
        Self { person, work }
    }

    /// Runs `task` as this person, and waits for what comes of it.
    pub(crate) fn run<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, outcome) = channel();
        let task = move || answer.send(task()).expect("the test waits");
        self.work.send(Box::new(task)).expect("the thread lives");
        outcome.recv().expect("the task ends")
    }
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

fn call(what: &str, outcome: c_long) {
    assert_eq!(outcome, 0, "{what}: {}", std::io::Error::last_os_error());
}

/// Root in a container may lack some.
fn capabilities_of_process() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let of_line = |line: &str| u64::from_str_radix(line.strip_prefix("CapPrm:")?.trim(), 16).ok();
    status.lines().find_map(of_line).expect("the line is there")
}

/// Gives this thread, and no other, the rights of a person. (The C library's functions would give them to all threads.)
fn become_person(person: &Person) {
    let (uid, gid) = (person.uid, person.gid);
    let count = person.groups.len();
    let capabilities = person.capabilities & capabilities_of_process();
    let (low, high) = (capabilities as u32, (capabilities >> 32) as u32);
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let sets: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: these calls change what belongs to this thread. The arrays are as long as it is said.
    unsafe {
        // The umask belongs to each thread from here on.
        call("unshare", libc::unshare(libc::CLONE_FS).into());
        libc::umask(0o022);
        call("setgroups", libc::syscall(libc::SYS_setgroups, count, person.groups.as_ptr()));
        call("setresgid", libc::syscall(libc::SYS_setresgid, gid, gid, gid));
        call("prctl", libc::prctl(libc::PR_SET_KEEPCAPS, 1).into());
        call("setresuid", libc::syscall(libc::SYS_setresuid, uid, uid, uid));
        call("capset", libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()));
    }
}
