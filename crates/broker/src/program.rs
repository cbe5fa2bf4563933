//! One attached program: what it is told, and what if it does not answer.
//!
//! One thread listens to it, and never waits for anything else: it takes answers to recalls, and hands requests to another
//! thread ([`crate::requests`]), which may wait in the engine. So an answer is heard although a request of the same program
//! waits for it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lodefs_core::{Answer, Lessee, Recall};
use lodefs_proto::attach::{FromProgram, Raw};
use lodefs_proto::server::FromServer;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, recv, sendmsg, shutdown,
};

use crate::presence::{Presence, timespec};
use crate::queue::{Queue, Refused};
use crate::requests::Requests;
use crate::{PATIENCE, Serving};

/// Most requests of one program that wait. Each of its threads has one, and each thread that has touched a page.
const REQUESTS_MAX: usize = 4096;

/// Who has not answered for so long may be ending.
const LOOKED_AFTER: Duration = Duration::from_millis(10);

/// A recall that has not been answered.
struct Awaited {
    lease: u64,
    epoch: u64,
    since: Instant,
    /// It has been asked whether the program is ending.
    is_looked_after: bool,
    answer: Answer,
}

/// One attached program.
pub(crate) struct Program {
    socket: OwnedFd,
    pub(crate) pid: u32,
    presence: Presence,
    /// Tells the listening thread that there is something to wait for.
    alarm: OwnedFd,
    awaited: Mutex<Vec<Awaited>>,
    /// It has been given up on: nobody waits for it until it has answered everything.
    is_lagging: AtomicBool,
    /// The conversation has ended: it answers nothing any more.
    is_over: AtomicBool,
    /// It reaches nothing of the medium any more.
    is_gone: AtomicBool,
}

impl Program {
    pub(crate) fn new(socket: OwnedFd, pid: u32, presence: Presence) -> io::Result<Self> {
        Ok(Self {
            socket,
            pid,
            presence,
            alarm: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            awaited: Mutex::new(Vec::new()),
            is_lagging: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
        })
    }

    /// Serves it until it is gone.
    pub(crate) fn serve(self: Arc<Self>, serving: Serving) {
        let queue = Arc::new(Queue::new(REQUESTS_MAX));
        let queued = Arc::clone(&queue);
        let requests = Requests::new(Arc::clone(&self), serving);
        let worker = thread::Builder::new().name(format!("requests {}", self.pid));
        match worker.spawn(move || requests.run(&queued)) {
            Ok(worker) => {
                if let Err(error) = self.listen(&queue) {
                    tracing::warn!(pid = self.pid, %error, "a program is cut off");
                }
                self.cut_off();
                self.expect_no_answers();
                queue.close();
                // What it has done is kept as long as the program may reach the medium by it.
                let done = worker.join();
                let has_nothing =
                    done.as_ref().is_ok_and(Requests::have_left_nothing) && self.awaited.lock().is_empty();
                if !has_nothing {
                    self.presence.wait_until_gone();
                }
                self.forget();
                drop(done);
            }
            Err(error) => tracing::warn!(pid = self.pid, %error, "a program cannot be served"),
        }
    }

    /// Ends the conversation.
    pub(crate) fn cut_off(&self) {
        // Perhaps it has ended it first.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Nobody waits for it any more, whatever is recalled from it.
    fn expect_no_answers(&self) {
        let mut awaited = self.awaited.lock();
        self.is_over.store(true, Ordering::Release);
        awaited.iter_mut().for_each(|one| one.answer.give_up());
    }

    /// Whether it has been given up on, and is not to be granted anything more.
    pub(crate) fn is_lagging(&self) -> bool {
        self.is_lagging.load(Ordering::Acquire)
    }

    /// Whatever was recalled from it, it does not reach any more.
    fn forget(&self) {
        self.is_gone.store(true, Ordering::Release);
        let answered = std::mem::take(&mut *self.awaited.lock());
        drop(answered);
    }

    fn listen(&self, queue: &Queue<FromProgram>) -> io::Result<()> {
        loop {
            if !self.wait()? {
                return Ok(());
            }
            let mut bytes = [0; size_of::<Raw>() + 1];
            let (size, _) = match recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(()),
                Ok(received) => received,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let message = FromProgram::parse(&bytes[..size]).map_err(|_| io::ErrorKind::InvalidData)?;
            match message {
                FromProgram::Answer { lease, epoch } => self.take_answer(lease, epoch),
                request => match queue.push(request) {
                    Ok(()) => {}
                    // A thread may touch the same page many times while it waits.
                    Err(Refused::Full(FromProgram::Touch { lease, offset, .. })) => {
                        self.tell(&FromServer::Again { lease, offset }, None);
                    }
                    Err(Refused::Full(_)) => {
                        return Err(io::Error::other("it asks for too much at once"));
                    }
                    Err(Refused::Closed) => {
                        return Err(io::Error::other("nobody does what it asks for"));
                    }
                },
            }
        }
    }

    /// Waits until it says something (or has ended: then it is `false`); meanwhile, gives up on what is not answered in time.
    fn wait(&self) -> io::Result<bool> {
        loop {
            if self.is_ending() {
                return Ok(false);
            }
            let patience = self.give_up_late();
            let patience = patience.map(timespec);
            let mut polled = [&self.socket, &self.alarm, self.presence.handle()]
                .map(|one| PollFd::new(one, PollFlags::IN));
            match poll(&mut polled, patience.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let [heard, alarmed, ended] = polled.map(|one| !one.revents().is_empty());
            if alarmed {
                // Only that it was rung matters.
                let _ = rustix::io::read(&self.alarm, &mut [0; 8]);
            }
            // A child may have its socket open still.
            if heard || ended {
                return Ok(heard);
            }
        }
    }

    /// Whether it cannot answer any more, though it has not ended; asked once for each recall that it could have answered.
    fn is_ending(&self) -> bool {
        let late = |one: &&mut Awaited| !one.is_looked_after && one.since.elapsed() >= LOOKED_AFTER;
        let mut awaited = self.awaited.lock();
        let is_late = awaited.iter_mut().filter(late).map(|one| one.is_looked_after = true).count() > 0;
        drop(awaited);
        is_late && self.presence.is_ending()
    }

    /// Nobody waits any longer for what has not been answered in time. Returns how long there is until the next.
    fn give_up_late(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut awaited = self.awaited.lock();
        let is_lagging = self.is_lagging.load(Ordering::Acquire);
        let mut next: Option<Duration> = None;
        for one in awaited.iter_mut() {
            let left = PATIENCE.checked_sub(now.duration_since(one.since)).filter(|_| !is_lagging);
            if let Some(left) = left {
                let left = if one.is_looked_after { left } else { left.min(LOOKED_AFTER) };
                next = Some(next.map_or(left, |next| left.min(next)));
                continue;
            }
            if !self.is_lagging.swap(true, Ordering::AcqRel) {
                tracing::warn!(pid = self.pid, "a program does not answer; others go on without it");
            }
            one.answer.give_up();
        }
        next
    }

    fn take_answer(&self, lease: u64, epoch: u64) {
        let mut awaited = self.awaited.lock();
        let (answered, left): (Vec<Awaited>, _) = std::mem::take(&mut *awaited)
            .into_iter()
            .partition(|one| one.lease == lease && one.epoch <= epoch);
        *awaited = left;
        if awaited.is_empty() && self.is_lagging.swap(false, Ordering::AcqRel) {
            tracing::info!(pid = self.pid, "a program answers again");
        }
        drop(awaited);
        drop(answered);
    }

    /// Tells it something. If it does not listen, it is cut off.
    pub(crate) fn tell(&self, message: &FromServer, medium: Option<BorrowedFd<'_>>) {
        let bytes = message.bytes();
        let passed: Vec<BorrowedFd<'_>> = medium.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !passed.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&passed));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = sendmsg(self.socket.as_fd(), &[io::IoSlice::new(&bytes)], &mut control, flags);
        if let Err(errno) = sent {
            if errno != Errno::PIPE && errno != Errno::CONNRESET {
                tracing::warn!(pid = self.pid, %errno, "a program does not listen, and is cut off");
            }
            self.cut_off();
        }
    }
}

impl Lessee for Program {
    fn recall(&self, recall: Recall) {
        let Recall { lease, offset, end, epoch, mut answer } = recall;
        let mut awaited = self.awaited.lock();
        if self.is_gone.load(Ordering::Acquire) {
            drop(awaited);
            drop(answer);
            return;
        }
        let is_over = self.is_over.load(Ordering::Acquire);
        if is_over {
            answer.give_up();
        }
        awaited.push(Awaited { lease, epoch, since: Instant::now(), is_looked_after: false, answer });
        drop(awaited);
        if is_over {
            return;
        }
        self.tell(&FromServer::Recall { lease, epoch, offset, end }, None);
        // If it is full, it has been rung.
        let _ = rustix::io::write(&self.alarm, &1u64.to_ne_bytes());
    }
}
