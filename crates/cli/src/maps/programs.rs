//! What do programs tell that map files by themselves?
//!
//! Each waits at a socket of its own. What a program says is untrusted. All programs are asked at once, and have [`PATIENCE`] in
//! all, so that a program that says little, or too much, costs neither the time nor the memory of the others.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use lodefs_direct::maps::{Census, MESSAGE_MAX};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, socket_with,
};

use super::sockets::{Name, Sockets, owns};

/// How long programs may take to tell, all of those that are asked at once together.
const PATIENCE: Duration = Duration::from_secs(2);
/// Programs that are asked at once. Each takes a descriptor.
const AT_ONCE: usize = 512;
/// Bytes that are kept of all messages that are not complete. The longest message is given up first.
const BYTES_MAX: usize = 256 << 20;
/// Bytes that are received at a time.
const PART: usize = 64 << 10;

/// What a process says.
pub(super) enum Told {
    /// It does not map files by itself, or does not tell the caller.
    Nothing,
    Census(Census),
    /// It maps files by itself, but what is mapped is not known, because of this.
    Fault(&'static str),
}

const SILENT: Answer = Answer::Fault(
    "maps files by itself, and does not say which; it may be stopped, or in another network name space",
);
const TOO_MUCH: Answer = Answer::Fault("has mapped more than can be shown");
const UNCLEAR: &str = "what it says cannot be understood; it may be of another version";
const LOST: Answer = Answer::Fault("cannot be asked; try again");

/// A process that is being asked.
struct Asked {
    pid: u32,
    socket: OwnedFd,
    bytes: Vec<u8>,
    answer: Option<Answer>,
}

/// What there is to say of a process when listening to the process has ended.
#[derive(Clone, Copy)]
enum Answer {
    /// The message is complete, and is not looked at before all have been heard.
    Message,
    Nothing,
    Fault(&'static str),
}

/// Asks processes, and passes on what each of them says.
pub(super) fn ask_all(pids: &[u32], mut told: impl FnMut(u32, Told)) {
    let mut sockets = Sockets::default();
    for pids in pids.chunks(AT_ONCE) {
        let mut asked = Vec::new();
        let mut known = Vec::new();
        for pid in pids.iter().copied() {
            match connect_to(pid, &sockets.of(pid)) {
                Ok(socket) => asked.push(Asked { pid, socket, bytes: Vec::new(), answer: None }),
                Err(answer) => known.push((pid, answer)),
            }
        }
        listen(&mut asked, Instant::now() + PATIENCE);
        // What is done with the answers may take its time, while a program waits for a second at most to be heard.
        for (pid, answer) in known {
            told(pid, answer.told(&[]));
        }
        for one in asked {
            told(one.pid, one.answer.unwrap_or(SILENT).told(&one.bytes));
        }
    }
}

impl Answer {
    fn told(self, message: &[u8]) -> Told {
        match self {
            Self::Message => Census::parse(message).map_or(Told::Fault(UNCLEAR), Told::Census),
            Self::Nothing => Told::Nothing,
            Self::Fault(fault) => Told::Fault(fault),
        }
    }
}

/// A connection to a process, at one of these sockets.
fn connect_to(pid: u32, names: &[Name]) -> Result<OwnedFd, Answer> {
    let mut is_there = false;
    for name in names {
        match connected(&name.bytes) {
            Ok(socket) => {
                let peer = socket_peercred(&socket).map_err(|_| LOST)?;
                if peer.pid.as_raw_nonzero().get().cast_unsigned() == pid {
                    return Ok(socket);
                }
            }
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => return Err(LOST),
            // Its queue is full, or it is in another name space; or another process waits at a socket of such a name.
            Err(_) => is_there = is_there || owns(pid, name.inode),
        }
    }
    Err(if is_there { SILENT } else { Answer::Nothing })
}

fn connected(name: &[u8]) -> Result<OwnedFd, Errno> {
    // It does not wait for one who takes nobody in.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(socket.as_fd(), &SocketAddrUnix::new_abstract_name(name)?)?;
    Ok(socket)
}

/// Hears all of them at once, until the deadline.
fn listen(asked: &mut [Asked], deadline: Instant) {
    let mut part = vec![0; PART];
    loop {
        let mut open: Vec<&mut Asked> = asked.iter_mut().filter(|one| one.answer.is_none()).collect();
        let left = deadline.saturating_duration_since(Instant::now());
        if open.is_empty() || left.is_zero() {
            return;
        }
        let patience = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut polled: Vec<_> = open.iter().map(|one| PollFd::new(&one.socket, PollFlags::IN)).collect();
        match poll(&mut polled, Some(&patience)) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return open.iter_mut().for_each(|one| one.answer = Some(LOST)),
        }
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        open.iter_mut().zip(ready).filter(|(_, ready)| *ready).for_each(|(one, _)| one.hear(&mut part));
        while asked.iter().map(|one| one.bytes.len()).sum::<usize>() > BYTES_MAX {
            if let Some(longest) = asked.iter_mut().max_by_key(|one| one.bytes.len()) {
                longest.give_up();
            }
        }
    }
}

impl Asked {
    /// Receives what there is, once.
    fn hear(&mut self, part: &mut [u8]) {
        match recv(&self.socket, &mut *part, RecvFlags::DONTWAIT) {
            // The caller has not the right to know, or the program has ended.
            Ok((0, _)) if self.bytes.is_empty() => self.answer = Some(Answer::Nothing),
            Ok((0, _)) => self.answer = Some(Answer::Message),
            Ok((_, size)) if self.bytes.len() + size > MESSAGE_MAX => self.give_up(),
            Ok((_, size)) => self.bytes.extend_from_slice(&part[..size]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::CONNRESET) => self.answer = Some(Answer::Nothing),
            Err(_) => self.answer = Some(LOST),
        }
    }

    /// Hears no more, and keeps nothing.
    fn give_up(&mut self) {
        self.bytes = Vec::new();
        self.answer = Some(TOO_MUCH);
    }
}

/// Whether an error says that a process has ended.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// One end for a program, the other as it is asked.
    fn program(pid: u32) -> (UnixStream, Asked) {
        let (program, asked) = UnixStream::pair().unwrap();
        (program, Asked { pid, socket: asked.into(), bytes: Vec::new(), answer: None })
    }

    fn heard<const N: usize>(mut asked: [Asked; N], deadline: Instant) -> [Told; N] {
        listen(&mut asked, deadline);
        asked.map(|one| one.answer.unwrap_or(SILENT).told(&one.bytes))
    }

    #[test]
    fn a_process_without_mappings_tells_nothing() {
        let mut answers = Vec::new();
        ask_all(&[std::process::id()], |pid, told| answers.push((pid, matches!(told, Told::Nothing))));
        assert_eq!(answers, [(std::process::id(), true)]);
    }

    /// A time limit of each read never ends that.
    #[test]
    fn a_program_that_drips_does_not_keep_the_others() {
        let (mut dripping, asked) = program(1);
        let (mut good, other) = program(2);
        good.write_all(&Census::default().bytes()).unwrap();
        drop(good);
        let is_over = AtomicBool::new(false);
        let answers = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && dripping.write_all(&[0]).is_ok() {
                    std::thread::yield_now();
                }
            });
            let answers = heard([asked, other], Instant::now() + Duration::from_millis(50));
            is_over.store(true, Ordering::Relaxed);
            answers
        });
        assert!(matches!(answers[0], Told::Fault(text) if text.contains("does not say which")));
        assert!(matches!(&answers[1], Told::Census(census) if *census == Census::default()));
    }

    #[test]
    fn what_is_wrong_with_one_is_said_of_that_one() {
        let (mut wrong, first) = program(1);
        wrong.write_all(b"nonsense").unwrap();
        let (nothing, second) = program(2);
        let (mut right, third) = program(3);
        right.write_all(&Census::default().bytes()).unwrap();
        drop((wrong, nothing, right));
        let answers = heard([first, second, third], Instant::now() + Duration::from_mins(1));
        assert!(matches!(answers[0], Told::Fault(text) if text.contains("understood")));
        assert!(matches!(answers[1], Told::Nothing));
        assert!(matches!(answers[2], Told::Census(_)));
    }

    #[test]
    fn a_message_that_is_too_long_is_not_kept() {
        let (mut endless, asked) = program(1);
        let answers = std::thread::scope(|scope| {
            scope.spawn(move || while endless.write_all(&[0; 4096]).is_ok() {});
            heard([asked], Instant::now() + Duration::from_mins(1))
        });
        assert!(matches!(answers[0], Told::Fault(text) if text.contains("more than can be shown")));
    }
}
