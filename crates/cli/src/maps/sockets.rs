//! At which sockets do programs tell what they have mapped?

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;

use lodefs_direct::maps::{ATTEMPTS_MAX, SOCKET_PREFIX};

/// Descriptors of a process that are looked at. A process with more of them is believed to own every socket.
const DESCRIPTORS_MAX: usize = 1 << 16;

/// A socket of which the name says that a process tells there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// The process, by the number by which the process knows itself; if the name is true.
    pid: u32,
    pub(super) inode: u64,
    pub(super) bytes: Vec<u8>,
}

/// The sockets of a network name space, by the process of their names.
type Names = Rc<HashMap<u32, Vec<Name>>>;

/// The sockets of each network name space, which are read once.
#[derive(Default)]
pub(super) struct Sockets {
    by_space: HashMap<u64, Names>,
}

impl Sockets {
    /// The sockets at which a process may tell.
    pub(super) fn of(&mut self, pid: u32) -> Vec<Name> {
        let read = || {
            Rc::new(
                fs::read(format!("/proc/{pid}/net/unix"))
                    .map_or_else(|_| HashMap::new(), |text| names(&text)),
            )
        };
        // A process that may not be looked into does not say in which space it is.
        let names = match fs::metadata(format!("/proc/{pid}/ns/net")) {
            Ok(space) => Rc::clone(self.by_space.entry(space.ino()).or_insert_with(read)),
            Err(_) => read(),
        };
        names.get(&inner_pid(pid)).cloned().unwrap_or_default()
    }
}

/// The number by which a process knows itself.
fn inner_pid(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.and_then(|numbers| numbers.split_whitespace().next_back()?.parse().ok()).unwrap_or(pid)
}

/// The sockets in a list like `/proc/PID/net/unix`.
fn names(text: &[u8]) -> HashMap<u32, Vec<Name>> {
    let mut names: HashMap<u32, Vec<Name>> = HashMap::new();
    for name in text.split(|byte| *byte == b'\n').filter_map(parse) {
        let of_process = names.entry(name.pid).or_default();
        // A connection has the name of the socket at which it came in.
        if !of_process.iter().any(|other| other.bytes == name.bytes) {
            of_process.push(name);
        }
    }
    names
}

/// `ADDRESS: REFERENCES PROTOCOL FLAGS TYPE STATE INODE @NAME`
fn parse(line: &[u8]) -> Option<Name> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let inode = fields.nth(6)?.parse().ok()?;
    let name = fields.next()?.strip_prefix('@')?;
    let (pid, attempt) = name.strip_prefix(SOCKET_PREFIX)?.split_once('/')?;
    let (number, attempt): (u32, u32) = (pid.parse().ok()?, attempt.parse().ok()?);
    let is_whole = lodefs_direct::maps::socket_name(number, attempt) == name;
    (is_whole && attempt < ATTEMPTS_MAX).then(|| Name { pid: number, inode, bytes: name.as_bytes().to_vec() })
}

/// Whether a socket is one of a process. A process that may not be looked into does not tell the caller anyway.
pub(super) fn owns(pid: u32, socket: u64) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let name = format!("socket:[{socket}]");
    let is_socket = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == name.as_str())
    };
    let mut count = 0;
    descriptors.flatten().any(|entry| {
        count += 1;
        count > DESCRIPTORS_MAX || is_socket(&entry)
    })
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use super::*;

    #[test]
    fn sockets_are_found_by_their_names() {
        let name = |pid: u32, inode, text: &str| Name { pid, inode, bytes: text.as_bytes().to_vec() };
        let line = b"0000000000000000: 00000002 00000000 00010000 0001 01 77 @lodefs-maps/12/0";
        assert_eq!(parse(line), Some(name(12, 77, "lodefs-maps/12/0")));
        for line in [
            "",
            "0: 2 0 0 1 1 7",
            "0: 2 0 0 1 1 7 /lodefs-maps/12/0",
            "0: 2 0 0 1 1 7 @x",
            "0: 2 0 0 1 1 7 @lodefs-maps/12",
            "0: 2 0 0 1 1 7 @lodefs-maps/012/0",
            "0: 2 0 0 1 1 7 @lodefs-maps/12/64",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        let text = [&line[..], b"\n0: 3 0 0 1 3 78 @lodefs-maps/12/0\n0: 2 0 0 1 1 79 @lodefs-maps/12/63\n"]
            .concat();
        let expected = vec![name(12, 77, "lodefs-maps/12/0"), name(12, 79, "lodefs-maps/12/63")];
        assert_eq!(names(&text), HashMap::from([(12, expected)]));
    }

    /// Another process may wait at a socket of such a name, and say that this one maps files.
    #[test]
    fn a_socket_belongs_to_the_process_that_has_it_open() {
        let (own, parent) = (std::process::id(), std::os::unix::process::parent_id());
        assert_eq!(inner_pid(own), own);
        // A number that no process has.
        let name = lodefs_direct::maps::socket_name(u32::MAX, own % ATTEMPTS_MAX);
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let found = names(&fs::read("/proc/self/net/unix").unwrap());
        let inode = found[&u32::MAX].iter().find(|found| found.bytes == name.as_bytes()).unwrap().inode;
        assert!(owns(own, inode) && !owns(parent, inode));
        drop(listener);
        assert!(!owns(own, inode));
    }
}
