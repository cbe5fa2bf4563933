//! How does this process talk to the server of a mount?
//!
//! One socket, and one thread that takes everything from it in the order in which it was sent: answers to requests, for
//! whoever waits for them, and grants and recalls, which it carries out itself.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;

use lodefs_mapping::{
    Fault, Own, Pager, Part, Region, What, descriptor_table, enter, leave_to_parent, spawn_own,
};
use lodefs_proto::attach::{Ask, FromProgram};
use lodefs_proto::server::{FromServer, MESSAGE_MAX, Outcome};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags,
    Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, shutdown, socket_with,
};
use zerocopy::IntoBytes;

use crate::data::{Data, Granted};
use crate::origin::Origin;
use crate::window::Window;

/// Bytes of a page.
const PAGE_SIZE: u64 = 4096;

/// The answer to a request, and the descriptor that came with it.
type Answered = (Outcome, Option<OwnedFd>);

/// Runs once when the server is gone.
type Ending = Box<dyn FnOnce(&Link) + Send>;

/// A mapping that the server knows.
struct Mapped {
    region: Weak<Region>,
    origin: Arc<Origin>,
    window: Window,
}

/// What a connection is for, by lease.
#[derive(Default)]
struct Table {
    mapped: HashMap<u64, Mapped>,
    data: HashMap<u64, Weak<Data>>,
    /// Recalls of leases whose regions were not known yet: the last of each.
    missed: HashMap<u64, u64>,
}

/// A connection to the server of one mount.
pub(crate) struct Link {
    socket: Own,
    /// The process that has made it. A child has a copy, and must not use it.
    pid: u32,
    last_number: AtomicU64,
    /// Who waits for answers; `None` once there are none any more.
    waiting: Mutex<Option<HashMap<u64, mpsc::Sender<Answered>>>>,
    mapped: Mutex<Table>,
    /// Regions that are being made, and then added.
    adding: AtomicUsize,
    /// Whoever opens files; `None` once the server is gone.
    opener: Mutex<Option<mpsc::Sender<Opening>>>,
}

/// A region is being made.
pub(crate) struct Adding<'l>(&'l Link);

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        self.0.adding.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A file that is to be mapped as the kernel does it. It has to be opened for that, and the server may answer the kernel only when
/// it has been answered: so that is a thread's that answers nobody.
struct Opening {
    region: Weak<Region>,
    origin: Arc<Origin>,
    /// Recalls when this was decided.
    epoch: u64,
    /// The byte that was touched.
    offset: u64,
}

impl Opening {
    fn carry_out(&self) {
        let Some(region) = self.region.upgrade() else { return };
        let errno_of = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let shown =
            self.origin.open().and_then(|file| region.install_file(self.epoch, &file).map_err(errno_of));
        match shown {
            Ok(_) => {}
            // It has become direct again, which the kernel does not map.
            Err(Errno::NODEV) => ask_again(&region, self.offset),
            Err(_) => region.fail(region.epoch(), self.offset, 1),
        }
    }
}

impl Link {
    /// Connects to the server with the socket of this name.
    pub(crate) fn connect(name: &[u8], ending: Ending) -> Result<Arc<Self>, Errno> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
        let (opener, to_open) = mpsc::channel();
        let link = Arc::new(Self {
            socket: socket.into(),
            pid: process::id(),
            last_number: AtomicU64::new(0),
            waiting: Mutex::new(Some(HashMap::new())),
            mapped: Mutex::default(),
            adding: AtomicUsize::new(0),
            opener: Mutex::new(Some(opener)),
        });
        // Whoever runs a signal handler may touch a mapping, and wait for these threads: they take none.
        let _masked = enter();
        let opening = move || to_open.iter().for_each(|opening: Opening| opening.carry_out());
        spawn_own("open", opening).map_err(|_| Errno::AGAIN)?;
        let listening = Arc::clone(&link);
        spawn_own("attach", move || listening.listen(ending)).map_err(|_| Errno::AGAIN)?;
        Ok(link)
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        // The server may have ended it first.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// In a child: the connection is the parent's, and only the descriptor of it is to go. Nobody uses it here any more.
    pub(crate) fn leave_to_parent(&self) {
        leave_to_parent(&self.socket);
    }

    /// Asks for something, and waits for the answer. NOTCONN if the server is gone, or this thread has a descriptor table of its own.
    pub(crate) fn ask(&self, ask: Ask) -> Result<Answered, Errno> {
        if !descriptor_table::has_own_descriptors() {
            // By the number of the socket this thread has something else.
            return Err(Errno::NOTCONN);
        }
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = mpsc::channel();
        lock(&self.waiting).as_mut().ok_or(Errno::NOTCONN)?.insert(number, sender);
        if let Err(errno) = self.say(&FromProgram::Ask(number, ask)) {
            if let Some(waiting) = lock(&self.waiting).as_mut() {
                waiting.remove(&number);
            }
            return Err(errno);
        }
        match answer.recv().map_err(|_| Errno::NOTCONN)? {
            (Outcome::Refused(errno), _) => Err(Errno::from_raw_os_error(errno.cast_signed())),
            answered => Ok(answered),
        }
    }

    fn say(&self, message: &FromProgram) -> Result<(), Errno> {
        if process::id() != self.pid {
            return Err(Errno::NOTCONN);
        }
        let raw = message.raw();
        let mut nothing = SendAncillaryBuffer::default();
        loop {
            match sendmsg(
                self.socket.as_fd(),
                &[IoSlice::new(raw.as_bytes())],
                &mut nothing,
                SendFlags::NOSIGNAL,
            ) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Errno::NOTCONN),
            }
        }
    }

    /// From now on grants and recalls of this lease are for this region.
    pub(crate) fn add(&self, lease: u64, region: &Arc<Region>, origin: &Arc<Origin>) {
        let (known, region, origin) = (region, Arc::downgrade(region), Arc::clone(origin));
        let mapped = Mapped { region, origin, window: Window::default() };
        let mut table = lock(&self.mapped);
        table.mapped.insert(lease, mapped);
        if let Some(epoch) = table.missed.remove(&lease) {
            // Nothing was mapped, but it has to be counted.
            known.recall(known.offset(), 0, epoch);
        }
    }

    /// A region is made while this lives, and is touched perhaps before it has been added.
    pub(crate) fn adding(&self) -> Adding<'_> {
        self.adding.fetch_add(1, Ordering::AcqRel);
        Adding(self)
    }

    /// The server knows nothing of this lease any more.
    pub(crate) fn forget(&self, lease: u64) {
        lock(&self.mapped).missed.remove(&lease);
    }

    /// From now on grants and recalls of this lease are for this file.
    pub(crate) fn add_data(&self, lease: u64, data: &Arc<Data>) {
        let mut table = lock(&self.mapped);
        table.data.insert(lease, Arc::downgrade(data));
        // Nothing had been granted.
        table.missed.remove(&lease);
    }

    /// What this lease was for is not used any more.
    pub(crate) fn remove(&self, lease: u64) {
        let mut table = lock(&self.mapped);
        table.mapped.remove(&lease);
        table.data.remove(&lease);
    }

    /// Whether the server is still there.
    pub(crate) fn is_there(&self) -> bool {
        lock(&self.waiting).is_some()
    }

    fn data(&self, lease: u64) -> Option<Arc<Data>> {
        lock(&self.mapped).data.get(&lease)?.upgrade()
    }

    fn region(&self, lease: u64) -> Option<Arc<Region>> {
        lock(&self.mapped).mapped.get(&lease)?.region.upgrade()
    }

    /// Takes what the server sends, until it is gone.
    fn listen(&self, ending: Ending) {
        let mut bytes = [0; MESSAGE_MAX + 1];
        while let Some((size, medium)) = self.receive(&mut bytes) {
            // A server that makes no sense is as good as none.
            let Ok(message) = FromServer::parse(&bytes[..size]) else { break };
            self.carry_out(message, medium);
        }
        self.close();
        // Before anybody finds the server gone, and asks another one for the same.
        let all = std::mem::take(&mut lock(&self.mapped).data);
        all.values().filter_map(Weak::upgrade).for_each(|data| data.lose());
        // Whoever waits finds nobody who could answer.
        lock(&self.waiting).take();
        lock(&self.opener).take();
        ending(self);
    }

    fn receive(&self, bytes: &mut [u8]) -> Option<(usize, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(self.socket.as_fd(), &mut [IoSliceMut::new(bytes)], &mut control, flags) {
                Err(Errno::INTR) => {}
                Err(_) => return None,
                Ok(received) => break received,
            }
        };
        let medium = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        (received.bytes > 0).then_some((received.bytes, medium))
    }

    fn carry_out(&self, message: FromServer, medium: Option<OwnedFd>) {
        match message {
            FromServer::Outcome(number, outcome) => self.tell_waiting(number, (outcome, medium)),
            FromServer::Data { number, lease, epoch, size, right, is_settled, parts } => {
                if let Some(data) = self.data(lease) {
                    data.install(epoch, Granted { right, size, is_settled }, &parts);
                }
                self.tell_waiting(number, (Outcome::Done, None));
            }
            FromServer::Granted { lease, epoch, parts } => {
                let Some(region) = self.region(lease) else { return };
                let parts: Vec<Part> = parts.iter().map(part).collect();
                if let (Err(_), Some(first)) = (region.install(epoch, &parts), parts.first()) {
                    // No memory, most likely: whoever waits cannot have it.
                    region.fail(region.epoch(), first.offset, first.size);
                }
            }
            FromServer::Buffered { lease, epoch, offset } => {
                let Some(region) = self.region(lease) else { return };
                let origin = lock(&self.mapped).mapped.get(&lease).map(|mapped| Arc::clone(&mapped.origin));
                let Some(origin) = origin else { return };
                let opening = Opening { region: Arc::downgrade(&region), origin, epoch, offset };
                if lock(&self.opener).as_ref().is_none_or(|opener| opener.send(opening).is_err()) {
                    region.fail(region.epoch(), offset, 1);
                }
            }
            FromServer::Again { lease, offset } => {
                if let Some(region) = self.region(lease) {
                    ask_again(&region, offset);
                }
            }
            FromServer::Nothing { lease, epoch, offset, errno } => {
                let Some(region) = self.region(lease) else { return };
                let epoch = if errno == 0 { epoch } else { region.epoch() };
                region.fail(epoch, offset, 1);
            }
            FromServer::Recall { lease, epoch, offset, end } => {
                if let Some(data) = self.data(lease) {
                    data.recall(epoch);
                    let _ = self.say(&FromProgram::Answer { lease, epoch });
                    return;
                }
                let known = lock(&self.mapped).note_recall(lease, epoch);
                if let Some(region) = known.and_then(|region| region.upgrade()) {
                    region.recall(offset, end.saturating_sub(offset), epoch);
                }
                // If the server does not hear it, it is gone.
                let _ = self.say(&FromProgram::Answer { lease, epoch });
            }
        }
    }
}

impl Link {
    /// Whoever has asked gets his answer.
    fn tell_waiting(&self, number: u64, answered: Answered) {
        let waiting = lock(&self.waiting).as_mut().and_then(|waiting| waiting.remove(&number));
        if let Some(waiting) = waiting {
            // If he does not wait any more, he has no use for it.
            let _ = waiting.send(answered);
        }
    }
}

impl Table {
    /// The region of a lease that is recalled; if it is not known yet, it will have to be told.
    fn note_recall(&mut self, lease: u64, epoch: u64) -> Option<Weak<Region>> {
        if let Some(mapped) = self.mapped.get(&lease) {
            return Some(Weak::clone(&mapped.region));
        }
        self.missed.insert(lease, epoch);
        None
    }
}

impl Pager for Link {
    fn fault(&self, region: &Arc<Region>, fault: Fault) {
        // Before it is looked for.
        let is_adding = self.adding.load(Ordering::Acquire) > 0;
        let mut table = lock(&self.mapped);
        let is_meant = |mapped: &Mapped| ptr::eq(mapped.region.as_ptr(), Arc::as_ptr(region));
        let found = table.mapped.iter_mut().find(|(_, mapped)| is_meant(mapped));
        let touch = found.map(|(lease, mapped)| FromProgram::Touch {
            lease: *lease,
            offset: fault.offset,
            window: mapped.window.next(fault.offset),
            write: fault.write,
        });
        drop(table);
        let is_asked = match touch {
            Some(touch) => self.say(&touch).is_ok(),
            None if is_adding => {
                // It may have replaced something that others use, and is about to be known.
                thread::yield_now();
                return ask_again(region, fault.offset);
            }
            // In a child that may not open the file.
            None => false,
        };
        if !is_asked {
            region.fail(region.epoch(), fault.offset, 1);
        }
    }
}

/// Whoever waits for this page asks again: what is installed of another epoch is not mapped.
fn ask_again(region: &Region, offset: u64) {
    let page = Part { offset: offset - offset % PAGE_SIZE, size: PAGE_SIZE, what: What::Zeroes };
    let _nothing_is_installed = region.install(u64::MAX, &[page]);
}

fn part(part: &lodefs_proto::server::Part) -> Part {
    let what = part.at.map_or(What::Zeroes, What::Medium);
    Part { offset: part.offset, size: part.size, what }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
