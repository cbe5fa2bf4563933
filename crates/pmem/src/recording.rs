//! A log of everything that is done to a medium, for a crash explorer.
//!
//! The log is written by the code that does the stores, flushes and fences, beside each of them and under one lock
//! with it, so its order is the order in which they were made, over all threads. What may be on the medium after a
//! crash at some point of the log:
//!
//! - `memory-controller`: a non-temporal store is there for certain after the next fence of its thread; a cached
//!   store after a flush of its cache line, by any thread, and then a fence of the thread that flushed. Anything
//!   else may or may not be there, in pieces of eight bytes and in any order.
//! - `cpu-cache`: a store is there for certain after a fence of its thread.
//! - `page`: what was stored before a sync is there for certain; any page may be at any time. Stores to private
//!   copies of pages are not in the log, since they reach the medium as a store by settle, or never.

use lodefs_sync::{Arc, thread_number};
use std::panic::Location;
// Not one of the locks that a scheduler decides about: what is logged is done before anybody else can go on.
use parking_lot::{Mutex, MutexGuard};

/// One thing that was done to the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The thread that did it; small numbers, unique within the process.
    pub thread: u64,
    /// What was done.
    pub what: What,
}

/// What was done to the medium.
///
/// A `location` is the place of the call to [`Medium`](crate::Medium), so that all flushes or fences of one call can
/// be taken out of a log and the consequences looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes were stored.
    Store {
        /// Where, from the start of the medium.
        at: u64,
        /// What.
        bytes: Vec<u8>,
        /// Whether past the caches.
        non_temporal: bool,
    },
    /// The write-back of every cache line that holds one of these bytes was started.
    Flush {
        /// First byte.
        at: u64,
        /// Number of bytes.
        size: u64,
        /// The call that did it.
        location: &'static Location<'static>,
    },
    /// The thread's streamed stores and write-backs were waited for.
    Fence {
        /// The call that did it.
        location: &'static Location<'static>,
    },
    /// The host wrote everything stored to the medium (msync).
    Sync {
        /// The call that did it.
        location: &'static Location<'static>,
    },
    /// Bytes were read. Only in logs that were asked for with reads ([`Medium::watched`](crate::Medium::watched)).
    Read {
        /// First byte.
        at: u64,
        /// Number of bytes.
        size: u64,
    },
    /// A position that the program marked, with its number.
    Mark(u64),
}

/// The events of one recorded medium.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    events: Arc<Mutex<Vec<Event>>>,
    with_reads: bool,
}

impl Recording {
    pub(crate) fn with_reads() -> Self {
        Self { events: Arc::default(), with_reads: true }
    }

    /// The events since the start or the last call.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock())
    }

    /// Number of events since the start or the last call of `take`.
    pub fn len(&self) -> usize {
        self.events.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Logs that bytes are read, if that was asked for.
    #[cold]
    pub(crate) fn log_read(&self, at: u64, size: u64) {
        if self.with_reads {
            drop(self.log(What::Read { at, size }));
        }
    }

    /// Logs an event. It must be carried out while the result lives: until then no other is logged.
    #[cold]
    pub(crate) fn log(&self, what: What) -> Held<'_> {
        let mut events = self.events.lock();
        events.push(Event { thread: thread_number() as u64, what });
        Held { _events: events }
    }
}

/// Keeps other events from being logged, and so from happening.
#[must_use = "the event is carried out while this is held"]
pub(crate) struct Held<'l> {
    _events: MutexGuard<'l, Vec<Event>>,
}
