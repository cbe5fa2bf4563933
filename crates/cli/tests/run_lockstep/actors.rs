//! Who makes a call?

use std::ffi::c_int;
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::Numbers;
use crate::calls::{Call, Done};
use crate::side::Side;
use crate::ways::Way;

/// One of those who make calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// This thread.
    This,
    /// Another thread.
    Other,
    /// A thread with a table of descriptors of its own.
    Unshared,
    /// A signal handler.
    Handler,
    /// A child with a copy of the memory.
    Forked,
    /// A child with the same memory, for which its parent waits.
    Vforked,
}

/// Steps for which a thread has the same table of its own.
const UNSHARED_FOR: usize = 200;
/// Most bytes that a child reads.
const READ_MAX: usize = 8192;

type Sides = [Side; 2];

impl Actor {
    pub(crate) fn any(numbers: &mut Numbers) -> Self {
        match numbers.below(200) {
            0..80 => Self::This,
            80..130 => Self::Other,
            130..165 => Self::Unshared,
            165..194 => Self::Handler,
            194..196 => Self::Forked,
            _ => Self::Vforked,
        }
    }
}

/// A call for both sides, and what it has come to.
struct Job {
    way: Way,
    call: Call,
    table: usize,
    sides: Sides,
    done: Option<[Done; 2]>,
}

impl Job {
    fn make(&mut self) {
        let Self { way, call, table, sides, done } = self;
        let [first, second] = sides;
        let appends = call.written().is_some_and(|slot| {
            // SAFETY: asks for a number.
            let flags = unsafe { libc::fcntl(second.slots[*table][slot], libc::F_GETFL) };
            flags >= 0 && flags & libc::O_APPEND != 0
        });
        let way = if appends && !way.is_seen() { Way::Library } else { *way };
        let all = [call.make(way, first, *table), call.make(way, second, *table)];
        if let Some(slot) = call.written().filter(|slot| appends && first.unseen[*table][*slot]) {
            // The position is where the kernel has seen the end (docs/SEMANTICS.md).
            for side in [&*first, &*second] {
                Way::Unseen.seek(side.slots[*table][slot], 0, libc::SEEK_END).unwrap();
            }
        }
        *done = Some(all);
    }
}

/// A thread that makes calls.
struct Worker {
    jobs: Sender<Job>,
    done: Receiver<Job>,
}

impl Worker {
    fn new(begin: impl FnOnce() + Send + 'static) -> Self {
        let (jobs, to_do) = channel::<Job>();
        let (finished, done) = channel();
        thread::spawn(move || {
            begin();
            for mut job in to_do {
                job.make();
                finished.send(job).unwrap();
            }
        });
        Self { jobs, done }
    }

    fn make(&self, job: Job) -> Job {
        self.jobs.send(job).unwrap();
        self.done.recv().unwrap()
    }
}

/// Those that are there.
pub(crate) struct Actors {
    sides: Sides,
    other: Worker,
    unshared: Option<(Worker, usize)>,
    shared_memory: *mut Shared,
}

/// What a child says.
struct Shared {
    results: [Result<isize, i32>; 2],
    sizes: [usize; 2],
    read: [[u8; READ_MAX]; 2],
}

/// The job of the signal handler, or of a child that has the same memory.
static PENDING: AtomicPtr<Job> = AtomicPtr::new(null_mut());

extern "C" fn make_pending(_: c_int) {
    // SAFETY: whoever raises the signal, or makes the child, has put a job there, and waits.
    unsafe { (*PENDING.load(Ordering::SeqCst)).make() };
}

impl Actors {
    pub(crate) fn new(sides: Sides) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address; the handler does what handlers may do, as far as this program goes.
        let shared_memory = unsafe {
            libc::signal(libc::SIGUSR1, make_pending as *const () as libc::sighandler_t);
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            libc::mmap(ptr::null_mut(), size_of::<Shared>(), protection, flags, -1, 0)
        };
        assert!(shared_memory != libc::MAP_FAILED);
        Self { sides, other: Worker::new(|| ()), unshared: None, shared_memory: shared_memory.cast() }
    }

    /// Makes a call on both sides.
    pub(crate) fn make(&mut self, actor: Actor, way: Way, call: &Call) -> [Done; 2] {
        let table = usize::from(actor == Actor::Unshared);
        if table == 1 {
            self.unshare();
        }
        let mut job = Job { way, call: *call, table, sides: self.sides.clone(), done: None };
        match actor {
            Actor::This => job.make(),
            Actor::Other => job = self.other.make(job),
            Actor::Unshared => job = self.unshared.as_ref().unwrap().0.make(job),
            Actor::Handler => {
                PENDING.store(&raw mut job, Ordering::SeqCst);
                // SAFETY: the handler is there, and runs before this returns.
                assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
            }
            Actor::Forked => return self.fork(&mut job),
            Actor::Vforked => {
                PENDING.store(&raw mut job, Ordering::SeqCst);
                vfork();
                // What it has opened and closed was in its own table.
                return job.done.unwrap();
            }
        }
        self.sides = job.sides;
        job.done.unwrap()
    }

    /// A thread with its own table is there, with what it has opened and closed itself, for a while.
    fn unshare(&mut self) {
        if let Some((_, left)) = &mut self.unshared
            && *left > 0
        {
            *left -= 1;
            return;
        }
        for side in &mut self.sides {
            side.slots[1] = side.slots[0];
            side.unseen[1] = side.unseen[0];
        }
        // The old thread ends, and its table with it.
        drop(self.unshared.take());
        let worker = Worker::new(|| {
            // SAFETY: only this thread is affected.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        });
        // It has unshared when it has done something.
        let call = Call::Size { slot: 0 };
        worker.make(Job { way: Way::Library, call, table: 1, sides: self.sides.clone(), done: None });
        self.unshared = Some((worker, UNSHARED_FOR));
    }

    fn fork(&self, job: &mut Job) -> [Done; 2] {
        // SAFETY: the child makes the call, says what it has come to in memory of its own size, and ends.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                job.make();
                let shared = &mut *self.shared_memory;
                for (side, done) in job.done.take().unwrap().into_iter().enumerate() {
                    shared.results[side] = done.result;
                    shared.sizes[side] = done.read.len();
                    shared.read[side][..done.read.len()].copy_from_slice(&done.read);
                }
                libc::_exit(0);
            }
            wait_for(child);
            let shared = &*self.shared_memory;
            [0, 1].map(|side| Done {
                result: shared.results[side],
                read: shared.read[side][..shared.sizes[side]].to_vec(),
            })
        }
    }
}

fn wait_for(child: c_int) {
    let mut status = 0;
    // SAFETY: the status has room.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}

/// Has the pending job made by a child that shares the memory. In a function of its own, whose variables the child may use.
#[inline(never)]
fn vfork() {
    // SAFETY: the child touches what the job has, which nobody else does, and ends; its parent waits until then.
    let child = unsafe {
        #[expect(deprecated, reason = "programs use it")]
        let child = libc::vfork();
        if child == 0 {
            make_pending(0);
            libc::_exit(0);
        }
        child
    };
    wait_for(child);
}
