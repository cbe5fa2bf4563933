//! The socket at which programs come in, and the programs that have.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, shutdown,
    socket_with, sockopt,
};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::Serving;
use crate::policy::{Caller, Policy};
use crate::presence::{Presence, timespec};
use crate::program::Program;
use crate::tickets::LIFETIME;

/// Most programs at a time.
const PROGRAMS_MAX: usize = 1024;
/// Most of them that are one process: it needs one to read, one to write, and more for a moment when its threads begin at once.
const SAME_PROCESS_MAX: usize = 64;
/// Bytes that may be on their way to a program, as far as the host allows (`net.core.wmem_max`).
const BUFFER_SIZE: usize = 1 << 20;

/// What all threads share.
struct Shared {
    serving: Serving,
    policy: Policy,
    socket: OwnedFd,
    /// The medium's, as lists of mappings show it.
    medium: u64,
    is_stopping: AtomicBool,
    /// Each is there until its thread ends, which takes it out.
    programs: Mutex<Vec<Arc<Program>>>,
}

/// Takes programs in.
pub(crate) struct Listener {
    name: Vec<u8>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Listener {
    pub(crate) fn start(serving: Serving, policy: Policy) -> io::Result<Self> {
        let medium = serving.fs.medium_inode().map_err(io::Error::other)?;
        let name = random_name()?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // A name that nobody can take, and that is gone with this process.
        bind(&socket, &SocketAddrUnix::new_abstract_name(&name)?)?;
        listen(&socket, 64)?;
        let programs = Mutex::new(Vec::new());
        let shared = Arc::new(Shared {
            serving,
            policy,
            socket,
            medium,
            is_stopping: AtomicBool::new(false),
            programs,
        });
        let accepting = Arc::clone(&shared);
        let thread = thread::Builder::new().name("attach".into()).spawn(move || accepting.accept_all())?;
        Ok(Self { name, shared, thread: Mutex::new(Some(thread)) })
    }

    /// The name of the socket.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Takes nobody in any more, and cuts off who is there.
    pub(crate) fn stop(&self) {
        if self.shared.is_stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        // It ends the waiting for programs. That it fails is impossible for a socket that listens.
        let _ = shutdown(&self.shared.socket, Shutdown::Both);
        if let Some(thread) = self.thread.lock().take() {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
        for program in self.shared.programs.lock().drain(..) {
            // Its threads end when it has nothing mapped any more.
            program.cut_off();
        }
    }
}

impl Shared {
    fn accept_all(self: &Arc<Self>) {
        while !self.is_stopping.load(Ordering::Acquire) {
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
            // Nobody may come for a long time, and tickets keep files that have been deleted.
            if poll(&mut polled, Some(&timespec(LIFETIME))) == Ok(0) {
                self.serving.tickets.expire();
                continue;
            }
            match accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    if let Err(error) = self.take_in(socket) {
                        tracing::debug!(%error, "a program could not be taken in");
                    }
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) if self.is_stopping.load(Ordering::Acquire) => return,
                Err(errno) => {
                    tracing::warn!(%errno, "programs cannot attach for a moment");
                    thread::sleep(crate::PATIENCE);
                }
            }
        }
    }

    fn take_in(self: &Arc<Self>, socket: OwnedFd) -> io::Result<()> {
        let mut programs = self.programs.lock();
        if programs.len() >= PROGRAMS_MAX {
            return Err(io::Error::other("there are too many"));
        }
        let peer = sockopt::socket_peercred(&socket)?;
        let pid = peer.pid.as_raw_nonzero().get().cast_unsigned();
        if programs.iter().filter(|program| program.pid == pid).count() >= SAME_PROCESS_MAX {
            return Err(io::Error::other("the same process is attached too often"));
        }
        if !self.policy.allows(&Caller::of_process(pid, peer.uid, peer.gid, self.policy)) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        sockopt::set_socket_send_buffer_size(&socket, BUFFER_SIZE)?;
        let presence = Presence::of(peer.pid, self.medium)?;
        let program = Arc::new(Program::new(socket, pid, presence)?);
        let (serving, served, listener) = (self.serving.clone(), Arc::clone(&program), Arc::downgrade(self));
        let thread = thread::Builder::new().name(format!("program {pid}"));
        thread.spawn(move || {
            let entry = Entry { listener, program: served };
            Arc::clone(&entry.program).serve(serving);
        })?;
        programs.push(program);
        Ok(())
    }
}

/// A program in the list, for as long as its thread runs. The program's descriptors are closed with it, whether another
/// program comes or not.
struct Entry {
    listener: Weak<Shared>,
    program: Arc<Program>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.upgrade() {
            listener.programs.lock().retain(|program| !Arc::ptr_eq(program, &self.program));
        }
    }
}

fn random_name() -> io::Result<Vec<u8>> {
    let mut bytes = [0; 16];
    if getrandom(&mut bytes, GetRandomFlags::empty())? != bytes.len() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let number = u128::from_ne_bytes(bytes);
    Ok(format!("lodefs-{number:032x}").into_bytes())
}
