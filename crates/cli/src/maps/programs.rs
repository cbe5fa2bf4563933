//! What do programs tell that map files by themselves?
//!
//! Each waits at a socket of its own. What it says is untrusted, and is about itself: others could at most wait at a socket of such a name,
//! and are found out by their credentials.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use lodefs_direct::maps::{Census, MESSAGE_MAX, SOCKET_PREFIX};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// How long a program may take to tell.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a process says.
pub(super) enum Told {
    /// It does not map files by itself.
    Nothing,
    Census(Census),
    /// It does, but it does not answer.
    Silence,
}

/// Asks a process.
pub(super) fn ask(pid: u32) -> anyhow::Result<Told> {
    let Ok(sockets) = fs::read(format!("/proc/{pid}/net/unix")) else { return Ok(Told::Nothing) };
    let inner = inner_pid(pid);
    let mut is_there = false;
    for name in sockets.split(|byte| *byte == b'\n').filter_map(|line| name_of(line, inner)) {
        match connected(&name) {
            Ok(socket) => {
                let peer = socket_peercred(&socket).map_err(io::Error::from)?;
                if peer.pid.as_raw_nonzero().get().cast_unsigned() == pid {
                    return listen(pid, &UnixStream::from(socket));
                }
            }
            // It may have ended, or be in another name space.
            Err(_) => is_there = true,
        }
    }
    let is_alive = fs::exists(format!("/proc/{pid}")).unwrap_or(false);
    Ok(if is_there && is_alive { Told::Silence } else { Told::Nothing })
}

/// The number by which a process knows itself.
fn inner_pid(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.and_then(|numbers| numbers.split_whitespace().next_back()?.parse().ok()).unwrap_or(pid)
}

/// The name of a socket, on a line of `/proc/PID/net/unix`, if it is one of process `pid`.
fn name_of(line: &[u8], pid: u32) -> Option<Vec<u8>> {
    let name = line.split(|byte| *byte == b' ').next_back()?.strip_prefix(b"@")?;
    let number = name.strip_prefix(SOCKET_PREFIX.as_bytes())?.strip_prefix(pid.to_string().as_bytes())?;
    number.starts_with(b"/").then(|| name.to_vec())
}

fn connected(name: &[u8]) -> Result<OwnedFd, Errno> {
    // It does not wait for one who takes nobody in.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(socket.as_fd(), &SocketAddrUnix::new_abstract_name(name)?)?;
    Ok(socket)
}

fn listen(pid: u32, mut program: &UnixStream) -> anyhow::Result<Told> {
    let mut bytes = Vec::new();
    program.set_nonblocking(false)?;
    program.set_read_timeout(Some(PATIENCE))?;
    match program.by_ref().take(MESSAGE_MAX as u64 + 1).read_to_end(&mut bytes) {
        // It has not the right to know, or the program has ended.
        Ok(0) => return Ok(Told::Nothing),
        Ok(_) if bytes.len() > MESSAGE_MAX => bail!("process {pid}: has mapped more than can be shown"),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Told::Silence),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Told::Nothing),
        Err(error) => return Err(error).with_context(|| format!("process {pid}")),
    }
    let census = Census::parse(&bytes);
    let census = census.map_err(|_| {
        anyhow::anyhow!("process {pid}: what it says cannot be understood; it may be of another version")
    })?;
    Ok(Told::Census(census))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_by_their_names() {
        let line = b"0000000000000000: 00000002 00000000 00010000 0001 01 77 @lodefs-maps/12/0";
        assert_eq!(name_of(line, 12), Some(b"lodefs-maps/12/0".to_vec()));
        assert_eq!(name_of(line, 1), None);
        for line in ["", "0: 2 0 0 1 1 7", "0: 2 0 0 1 1 7 /lodefs-maps/12/0", "0: 2 0 0 1 1 7 @x"] {
            assert_eq!(name_of(line.as_bytes(), 12), None, "{line}");
        }
    }

    #[test]
    fn a_process_without_mappings_tells_nothing() {
        assert_eq!(inner_pid(std::process::id()), std::process::id());
        assert!(matches!(ask(std::process::id()).unwrap(), Told::Nothing));
    }
}
