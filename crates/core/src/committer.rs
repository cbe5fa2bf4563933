//! The thread that makes a `page` volume durable at least every so often.
//!
//! It does not keep the file system open: it holds on to it only while it commits, and it ends at once when it is told
//! to, so that the medium is free again as soon as the file system is closed and dropped.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fs::Fs;
use lodefs_sync::Arc;

pub(crate) struct Committer {
    /// Nothing is ever sent: dropping it wakes the thread.
    wake: Sender<()>,
    thread: JoinHandle<()>,
}

impl Committer {
    /// Starts the thread. It ends by itself when a commit fails, or when the file system is gone.
    pub(crate) fn start(fs: &Arc<Fs>, interval: Duration) -> Result<Self> {
        let fs = Arc::downgrade(fs);
        let (wake, woken) = mpsc::channel();
        let commit = move || {
            while woken.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let Some(fs) = fs.upgrade() else { return };
                if fs.sync().is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("lodefs-commit".into())
            .spawn(commit)
            .map_err(|error| Error::Refused(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)))?;
        Ok(Self { wake, thread })
    }

    /// Ends the thread and waits for it, unless it is the calling one: the last to let go of the file system may be a
    /// commit.
    pub(crate) fn stop(self) {
        drop(self.wake);
        if self.thread.thread().id() != thread::current().id() {
            // A commit that panicked has said so; there is nothing left to end.
            let _ = self.thread.join();
        }
    }
}
