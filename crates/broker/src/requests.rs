//! What a program's requests mean in calls of the engine.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lodefs_core::changes;
use lodefs_core::{
    DataAnswer, DataGrant, DataLease, DataRight, Error, Fs, Lease, LeaseOptions, Lessee, Node, Touch,
    Touched, What,
};
use lodefs_pmem::{Domain, MediumKind};
use lodefs_proto::attach::{Ask, FromProgram};
use lodefs_proto::server::{self, FromServer, Outcome, Part, Right};
use lodefs_proto::ticket::Ticket;
use rustix::io::Errno;

use crate::Serving;
use crate::changing::Change;
use crate::program::Program;
use crate::queue::Queue;
use crate::tickets::Rights;

/// How long one who has touched a file that is just being switched is kept from doing it again.
const PAUSE: Duration = Duration::from_micros(100);

/// Most files that one program has open here, and most mappings.
const OBJECTS_MAX: usize = 1 << 16;
/// Mappings begin and end at multiples of this.
const PAGE_SIZE: u64 = 4096;

/// What the engine calls with its answer.
type Deliver<'a> = Box<dyn FnOnce(DataAnswer) + 'a>;

/// A file that a program has shown its right to.
struct OpenFile {
    node: Node,
    rights: Rights,
}

/// A part of a file that a program has mapped.
struct Mapped {
    lease: Lease,
    from: u64,
    to: u64,
    /// Ends when the lease has.
    _change: Option<Change>,
}

/// A file that a program reads and writes by itself.
struct Data {
    lease: DataLease,
    /// Ends when the lease has.
    _change: Option<Change>,
}

/// One program's requests, and what they have left behind.
pub(crate) struct Requests {
    program: Arc<Program>,
    serving: Serving,
    files: HashMap<u64, OpenFile>,
    mapped: HashMap<u64, Mapped>,
    /// Files that it reads and writes by itself, by lease.
    data: HashMap<u64, Data>,
    last_file: u64,
}

impl Requests {
    pub(crate) fn new(program: Arc<Program>, serving: Serving) -> Self {
        let (files, mapped, data) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { program, serving, files, mapped, data, last_file: 0 }
    }

    /// Does what is asked for, one after the other, until nobody can ask any more. What it has left behind is returned.
    pub(crate) fn run(mut self, queued: &Queue<FromProgram>) -> Self {
        // Attributes that a request changes expire before the program is answered, unless others look at them each time.
        let changing = Arc::clone(&self.serving.changing);
        changes::listen(Rc::new(move |ino, _| {
            if !changing.contains(ino) {
                changing.expire(ino);
            }
        }));
        while let Some(message) = queued.pop() {
            if catch_unwind(AssertUnwindSafe(|| self.take(message))).is_err() {
                // It has said why. What the program has mapped, it still has.
                self.program.cut_off();
                break;
            }
        }
        queued.close();
        self
    }

    /// Whether nothing is mapped, or read and written by the program itself.
    pub(crate) fn have_left_nothing(&self) -> bool {
        self.mapped.is_empty() && self.data.is_empty()
    }

    fn take(&mut self, message: FromProgram) {
        match message {
            FromProgram::Ask(number, Ask::Open { ticket }) => self.open(number, &ticket),
            FromProgram::Ask(number, Ask::Take { lease, offset, write }) => {
                self.lend(number, lease, |data, deliver| data.take(offset, write, deliver));
            }
            FromProgram::Ask(number, Ask::Reserve { lease, offset, end }) => {
                self.lend(number, lease, |data, deliver| data.reserve(offset, end, deliver));
            }
            FromProgram::Ask(number, ask) => {
                let outcome = self.answer(&ask).unwrap_or_else(refused);
                self.program.tell(&FromServer::Outcome(number, outcome), None);
            }
            FromProgram::Touch { lease, offset, window, write } => self.touch(lease, offset, window, write),
            // Whoever listens takes these.
            FromProgram::Answer { .. } => {}
        }
    }

    fn open(&mut self, number: u64, ticket: &Ticket) {
        let opened = self.redeem(ticket).and_then(|file| {
            let medium = self.serving.fs.share_medium(file.rights.write).map_err(|error| error.errno())?;
            Ok((file, medium))
        });
        match opened {
            Ok((file, medium)) => {
                self.last_file += 1;
                let inode = file.node.ino().0;
                self.files.insert(self.last_file, file);
                let kind = self.serving.fs.domain().kind;
                let host_sync = matches!(kind, MediumKind::DeviceDax | MediumKind::FsDax);
                let domain = domain_of(&self.serving.fs);
                let outcome = Outcome::Opened { file: self.last_file, inode, domain, host_sync };
                self.program.tell(&FromServer::Outcome(number, outcome), Some(medium.as_fd()));
            }
            Err(errno) => self.program.tell(&FromServer::Outcome(number, refused(errno)), None),
        }
    }

    fn redeem(&self, ticket: &Ticket) -> Result<OpenFile, Errno> {
        if self.files.len() >= OBJECTS_MAX {
            return Err(Errno::MFILE);
        }
        let right = self.serving.tickets.redeem(ticket, self.program.pid).ok_or(Errno::ACCESS)?;
        Ok(OpenFile { node: right.node, rights: right.rights })
    }

    fn answer(&mut self, ask: &Ask) -> Result<Outcome, Errno> {
        match *ask {
            // Answered with more than an outcome.
            Ask::Open { .. } | Ask::Take { .. } | Ask::Reserve { .. } => Err(Errno::INVAL),
            Ask::Close { file } => {
                self.files.remove(&file).ok_or(Errno::BADF)?;
                Ok(Outcome::Done)
            }
            Ask::Map { file, offset, size, writable, sync } => self.map(file, offset, size, writable, sync),
            Ask::Lease { file, writable } => self.lease(file, writable),
            Ask::Return { lease } => {
                let is_there = self.mapped.remove(&lease).is_some() || self.data.remove(&lease).is_some();
                if is_there { Ok(Outcome::Done) } else { Err(Errno::BADF) }
            }
            Ask::Changed { lease } => {
                let noted = match (self.mapped.get(&lease), self.data.get(&lease)) {
                    (Some(mapped), _) => mapped.lease.note_change(),
                    (None, Some(data)) => data.lease.note_change(),
                    (None, None) => return Err(Errno::BADF),
                };
                noted.map_err(|error| error.errno())?;
                Ok(Outcome::Done)
            }
        }
    }

    /// The file, if the program may do that with it, and has room for one more lease.
    fn file(&self, file: u64, writable: bool) -> Result<&OpenFile, Errno> {
        let file = self.files.get(&file).ok_or(Errno::BADF)?;
        if writable && !file.rights.write {
            return Err(Errno::ACCESS);
        }
        if self.mapped.len() + self.data.len() >= OBJECTS_MAX {
            return Err(Errno::NOMEM);
        }
        Ok(file)
    }

    /// What there is as long as the program may change the file.
    fn change(&self, file: &OpenFile, writable: bool) -> Option<Change> {
        writable.then(|| self.serving.changing.begin(file.node.ino()))
    }

    fn lease(&mut self, file: u64, writable: bool) -> Result<Outcome, Errno> {
        let file = self.file(file, writable)?;
        if !file.rights.read && !writable {
            return Err(Errno::ACCESS);
        }
        let lessee = Arc::clone(&self.program) as Arc<dyn Lessee>;
        let change = self.change(file, writable);
        let lease = self.serving.fs.lease_data(&file.node, lessee, writable, self.program.pid);
        let lease = lease.map_err(|error| error.errno())?;
        let id = lease.id();
        self.data.insert(id, Data { lease, _change: change });
        Ok(Outcome::Leased { lease: id })
    }

    /// Lets a program read or write by itself, by what `ask` asks the engine, and tells it.
    fn lend(&self, number: u64, lease: u64, ask: impl Fn(&DataLease, Deliver<'_>) -> Result<(), Error>) {
        let lent = match self.data.get(&lease) {
            None => Err(Errno::BADF),
            // What it has not given back comes first.
            Some(_) if self.program.is_lagging() => Err(Errno::BUSY),
            Some(data) => self.lend_once(number, lease, data, &ask).and_then(|is_cached| {
                if is_cached {
                    self.serving.drop_cached(data.lease.node())?;
                    // Who has it cached again at once wants it more.
                    let is_cached = self.lend_once(number, lease, data, &ask)?;
                    return if is_cached { Err(Errno::BUSY) } else { Ok(()) };
                }
                Ok(())
            }),
        };
        if let Err(errno) = lent {
            self.program.tell(&FromServer::Outcome(number, refused(errno)), None);
        }
    }

    /// The same; whether what is kept of the content has to be dropped first.
    fn lend_once(
        &self,
        number: u64,
        lease: u64,
        data: &Data,
        ask: impl Fn(&DataLease, Deliver<'_>) -> Result<(), Error>,
    ) -> Result<bool, Errno> {
        let mut lent = Ok(false);
        let deliver = |answer| match answer {
            DataAnswer::Granted(grant) => self.program.tell(&data_message(number, lease, &grant), None),
            DataAnswer::Buffered => lent = Err(Errno::OPNOTSUPP),
            DataAnswer::Switching => lent = Err(Errno::BUSY),
            DataAnswer::Cached => lent = Ok(true),
        };
        ask(&data.lease, Box::new(deliver)).map_err(|error| error.errno())?;
        lent
    }

    fn map(&mut self, file: u64, from: u64, size: u64, writable: bool, sync: bool) -> Result<Outcome, Errno> {
        let file = self.file(file, writable)?;
        if !file.rights.read {
            return Err(Errno::ACCESS);
        }
        let to = from.checked_add(size).filter(|to| *to <= 1 << 63).ok_or(Errno::OVERFLOW)?;
        if size == 0 || !from.is_multiple_of(PAGE_SIZE) || !to.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::INVAL);
        }
        let options = LeaseOptions { writable, sync, pid: self.program.pid };
        let lessee = Arc::clone(&self.program) as Arc<dyn Lessee>;
        let change = self.change(file, writable);
        let lease = self.serving.fs.lease(&file.node, lessee, options).map_err(|error| error.errno())?;
        let (id, is_direct) = (lease.id(), lease.is_direct());
        self.mapped.insert(id, Mapped { lease, from, to, _change: change });
        Ok(Outcome::Mapped { lease: id, is_direct })
    }

    /// A touch of what is no longer mapped is a message that was on its way, and nobody waits for the answer.
    fn touch(&self, lease: u64, offset: u64, window: u64, write: bool) {
        let Some(mapped) = self.mapped.get(&lease) else { return };
        if self.program.is_lagging() {
            // What it has not given back comes first.
            thread::sleep(PAUSE);
            self.program.tell(&FromServer::Again { lease, offset }, None);
            return;
        }
        let touch = Touch { offset, write, from: mapped.from, to: mapped.to, window };
        let program = &self.program;
        let (mut is_switching, mut is_cached) = (false, false);
        let outcome = mapped.lease.touch(&touch, |touched| {
            let message = match touched {
                Touched::Granted(grant) => {
                    let parts = grant.parts.iter().map(part).collect();
                    FromServer::Granted { lease, epoch: grant.epoch, parts }
                }
                Touched::Buffered { epoch } => FromServer::Buffered { lease, epoch, offset },
                Touched::Switching => {
                    is_switching = true;
                    return;
                }
                Touched::Cached => {
                    is_cached = true;
                    return;
                }
                Touched::BeyondEnd { epoch } => FromServer::Nothing { lease, epoch, offset, errno: 0 },
            };
            program.tell(&message, None);
        });
        if is_switching {
            // Not so often that it would hold up those who have to finish.
            thread::sleep(PAUSE);
            program.tell(&FromServer::Again { lease, offset }, None);
        }
        let outcome = outcome.map_err(|error| error.errno()).and_then(|()| {
            if is_cached {
                self.serving.drop_cached(mapped.lease.node())?;
                program.tell(&FromServer::Again { lease, offset }, None);
            }
            Ok(())
        });
        if let Err(errno) = outcome {
            let errno = errno.raw_os_error().unsigned_abs();
            // Of which moment that is said does not matter: it says nothing about what is mapped.
            program.tell(&FromServer::Nothing { lease, epoch: u64::MAX, offset, errno }, None);
        }
    }
}

fn refused(errno: Errno) -> Outcome {
    Outcome::Refused(errno.raw_os_error().unsigned_abs())
}

fn data_message(number: u64, lease: u64, grant: &DataGrant) -> FromServer {
    let (right, size) = match (grant.tail, grant.right) {
        (Some(tail), _) => (Right::Append { word: tail.word }, tail.end),
        (None, DataRight::Write) => (Right::Write, grant.size),
        (None, _) => (Right::Read, grant.size),
    };
    let parts = grant.parts.iter().map(part).collect();
    FromServer::Data { number, lease, epoch: grant.epoch, size, right, is_settled: grant.is_settled, parts }
}

fn part(part: &lodefs_core::Part) -> Part {
    let at = match part.what {
        What::Medium(at) => Some(at),
        What::Zeroes => None,
    };
    Part { offset: part.offset, size: part.size, at }
}

fn domain_of(fs: &Fs) -> server::Domain {
    match fs.domain().domain {
        Domain::CpuCache => server::Domain::CpuCache,
        Domain::MemoryController => server::Domain::MemoryController,
        // Nothing is direct on a medium behind a page cache, so nothing is mapped.
        Domain::Volatile | Domain::Page => server::Domain::Volatile,
    }
}
