//! Drops the cached pages that a write with `O_DIRECT` leaves stale.
//!
//! A program writes a file with `O_DIRECT`. The kernel drops the cached pages of the range before it sends the WRITE
//! request. A concurrent buffered read (of a direct file: a fault of a private mapping) may then fill a page with the
//! old bytes before the server writes the new ones. After a synchronous write the kernel drops the pages again. After an
//! asynchronous write (`io_submit(2)`, `io_uring`) the kernel does not: `fuse_aio_complete` touches no page, and the
//! stale page would stay for ever. A WRITE request does not say whether the program waits for it. So the server has the
//! kernel drop the pages before the server answers each WRITE of this kind.
//!
//! Rules:
//! 1. The server drops pages only if the kernel may have some ([`StalePages::note_fill`]). A request that fills pages
//!    is noted before the engine serves it, and the write looks for the note after the engine has written. So either the
//!    write sees the note, or the page has the new bytes.
//! 2. Dropping a page waits for its lock. The lock is held by a READ or a WRITE that is under way, which a server thread
//!    must answer. So at most half of the server threads drop pages at a time; a thread of its own drops the rest.
//! 3. A READ that has locked its page may wait for one of the slots that the kernel has for background requests. The
//!    writes that wait here occupy such slots. So at most half as many writes wait as there are slots. A write beyond
//!    that is answered first, and its pages are dropped afterwards.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use fuser::{INodeNo, Notifier, ReplyWrite};

/// Bits that note which inodes the kernel may keep pages of. Inodes that share a bit cost a needless drop.
const FILLED_BITS: usize = 1 << 16;

/// A range of a file, and the answer to the WRITE request for it.
struct Task {
    ino: u64,
    offset: u64,
    size: u64,
    written: usize,
    reply: Option<ReplyWrite>,
}

/// What all threads that drop pages share.
struct Shared {
    notifier: Arc<OnceLock<Notifier>>,
    /// Writes whose answers wait.
    waiting: AtomicUsize,
    /// Most writes whose answers may wait.
    waiting_max: usize,
}

/// Has the kernel drop cached pages that a direct write has made stale.
pub(crate) struct StalePages {
    filled: Box<[AtomicU64]>,
    shared: Arc<Shared>,
    /// Server threads that may still begin to drop pages.
    permits: AtomicUsize,
    queue: Sender<Task>,
}

impl StalePages {
    /// Starts the thread. `threads`: how many threads serve requests; `slots`: how many background requests the kernel
    /// may have under way.
    pub(crate) fn start(notifier: Arc<OnceLock<Notifier>>, threads: usize, slots: usize) -> io::Result<Self> {
        let (queue, tasks) = channel();
        let shared =
            Arc::new(Shared { notifier, waiting: AtomicUsize::new(0), waiting_max: (slots / 2).max(1) });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("lodefs-pages".into()).spawn(move || of_thread.run(&tasks))?;
        let filled = (0..FILLED_BITS / 64).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { filled, shared, permits: AtomicUsize::new(threads / 2), queue })
    }

    /// Notes that the kernel is about to fill pages of a file.
    pub(crate) fn note_fill(&self, ino: INodeNo) {
        let (word, bit) = place(ino);
        if self.filled[word].load(Ordering::Relaxed) & bit == 0 {
            self.filled[word].fetch_or(bit, Ordering::Relaxed);
        }
        // The bytes are read after the note. See rule 1.
        fence(Ordering::SeqCst);
    }

    /// Whether the kernel may have pages of a file that were filled before now.
    fn may_be_cached(&self, ino: INodeNo) -> bool {
        // The note is looked for after the bytes were written. See rule 1.
        fence(Ordering::SeqCst);
        let (word, bit) = place(ino);
        self.filled[word].load(Ordering::Relaxed) & bit != 0
    }

    /// Answers a write with `O_DIRECT` after the pages of its range are dropped. The engine has written by now.
    pub(crate) fn answer(&self, ino: INodeNo, offset: u64, written: usize, reply: ReplyWrite) {
        if written == 0 || !self.may_be_cached(ino) {
            return reply.written(written as u32);
        }
        let mut task = Task { ino: ino.0, offset, size: written as u64, written, reply: Some(reply) };
        if self.shared.waiting.fetch_add(1, Ordering::AcqRel) >= self.shared.waiting_max {
            self.shared.answer(&mut task);
        } else if take_permit(&self.permits) {
            self.shared.drop_pages(task);
            self.permits.fetch_add(1, Ordering::AcqRel);
            return;
        }
        if let Err(unsent) = self.queue.send(task) {
            // The thread has ended by a panic. Rule 2 is then the kernel's slots alone.
            self.shared.drop_pages(unsent.0);
        }
    }
}

impl Shared {
    fn run(&self, tasks: &Receiver<Task>) {
        for task in tasks {
            self.drop_pages(task);
        }
    }

    fn drop_pages(&self, mut task: Task) {
        if let Some(notifier) = self.notifier.get() {
            let (offset, size) = (task.offset.cast_signed(), task.size.cast_signed());
            if let Err(error) = notifier.inval_inode(INodeNo(task.ino), offset, size) {
                tracing::debug!(ino = task.ino, %error, "the kernel did not drop cached pages");
            }
        }
        self.answer(&mut task);
    }

    fn answer(&self, task: &mut Task) {
        if let Some(reply) = task.reply.take() {
            reply.written(task.written as u32);
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn place(ino: INodeNo) -> (usize, u64) {
    let bit = ino.0 as usize % FILLED_BITS;
    (bit / 64, 1 << (bit % 64))
}

/// Takes one of `permits`, if there is one.
fn take_permit(permits: &AtomicUsize) -> bool {
    let less = |left: usize| left.checked_sub(1);
    permits.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_noted_inode_may_be_cached() {
        let stale = StalePages::start(Arc::default(), 4, 8).unwrap();
        assert!(!stale.may_be_cached(INodeNo(70)));
        stale.note_fill(INodeNo(70));
        assert!(stale.may_be_cached(INodeNo(70)));
        assert!(!stale.may_be_cached(INodeNo(71)));
    }

    #[test]
    fn no_more_permits_are_taken_than_there_are() {
        let permits = AtomicUsize::new(2);
        assert!(take_permit(&permits) && take_permit(&permits));
        assert!(!take_permit(&permits));
    }
}
