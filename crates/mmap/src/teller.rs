//! How do others learn what is mapped in this process?
//!
//! A thread waits at a socket (see [`lodefs_proto::maps`]), and answers one after the other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lodefs_mapping::{Own, leave_to_parent, spawn_own};
use lodefs_proto::maps::{ATTEMPTS_MAX, socket_name};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    send, shutdown, socket_with,
};
use rustix::process::geteuid;

use crate::census::census;

/// How long somebody may take to listen to all of it, while others wait.
const LISTENING_MAX: Duration = Duration::from_secs(2);
/// How long to wait where there are no descriptors, or is no memory.
const PAUSE: Duration = Duration::from_secs(1);
/// Who waits to be told.
const WAITING_MAX: i32 = 16;

/// The thread, until this is dropped.
pub(crate) struct Teller {
    socket: Arc<Own>,
    pid: u32,
}

impl Teller {
    pub(crate) fn start() -> io::Result<Self> {
        let socket = Arc::new(Own::from(listening()?));
        let own = Arc::clone(&socket);
        spawn_own("maps", move || tell_all(&own))?;
        Ok(Self { socket, pid: process::id() })
    }

    /// Whether it is this process's. A child has the descriptor, and no thread.
    pub(crate) fn is_of(&self, pid: u32) -> bool {
        self.pid == pid
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if self.is_of(process::id()) {
            // It ends the waiting. That it fails is impossible for a socket that listens.
            let _ = shutdown(&self.socket, Shutdown::Both);
        } else {
            leave_to_parent(&self.socket);
        }
    }
}

fn listening() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let pid = process::id();
    let is_free = |attempt| {
        let name = SocketAddrUnix::new_abstract_name(socket_name(pid, attempt).as_bytes());
        match name.and_then(|name| bind(&socket, &name)) {
            Ok(()) => Some(Ok(())),
            Err(Errno::ADDRINUSE) => None,
            Err(errno) => Some(Err(errno)),
        }
    };
    (0..ATTEMPTS_MAX).find_map(is_free).unwrap_or(Err(Errno::ADDRINUSE))?;
    listen(&socket, WAITING_MAX)?;
    Ok(socket)
}

fn tell_all(socket: &Own) {
    loop {
        match accept_with(socket, SocketFlags::CLOEXEC) {
            // Whoever does not listen is not told.
            Ok(asking) => drop(tell(&asking)),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            // The last mapping is gone.
            Err(Errno::INVAL) => return,
            // No descriptors, or no memory, for a moment.
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn tell(asking: impl AsFd) -> io::Result<()> {
    let uid = socket_peercred(&asking)?.uid;
    if !uid.is_root() && uid != geteuid() {
        return Err(Errno::PERM.into());
    }
    let bytes = census().bytes();
    let mut rest = &bytes[..];
    let deadline = Instant::now() + LISTENING_MAX;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::TIMEDOUT.into());
        }
        set_socket_timeout(&asking, Timeout::Send, Some(left))?;
        let sent = send(&asking, rest, SendFlags::NOSIGNAL)?;
        rest = &rest[sent..];
    }
    Ok(())
}
