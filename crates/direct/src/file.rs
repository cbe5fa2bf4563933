//! How is an open file read and written without a system call?

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lodefs_mmap::buffers;
use lodefs_proto::attach::Ask;
use lodefs_proto::server::Outcome;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;

use crate::attachment::{Attachment, give_back, open, watch_forks};
use crate::data::{Data, Leased, Miss};
use crate::ticket;

/// Most bytes of a read or write that are copied at once. Who wants the file meanwhile waits for that: some hundredths of a second, where
/// the server would wait for a whole one.
const SIZE_MAX: usize = 64 << 20;

/// Questions for one read or write at most: it may go through many parts of a file.
const QUESTIONS_MAX: usize = 256;

/// An open file, of which this process reads and writes the bytes by itself if it can: if the file is direct, on a mount that this process
/// may attach to. Else, and for whatever else has to be done, it asks the kernel. Others cannot tell the difference, nor does it
/// matter which of them do likewise: reads and writes are atomic, and what [`write_at`](Self::write_at) has written to a direct file
/// is durable when it returns, as far as the medium can.
///
/// Positions are always given. A file that was opened to append (`O_APPEND`) is appended to, as by pwrite(2).
pub struct File {
    opened: fs::File,
    data: Arc<Data>,
    /// What it was opened for.
    mode: OFlags,
    /// Only the kernel can do it.
    is_plain: AtomicBool,
}

impl File {
    /// Takes an open file over. Its flags are not to be changed afterwards.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn new(file: fs::File) -> io::Result<Self> {
        let mode = fcntl_getfl(&file)?;
        // Whoever may not read it cannot be shown where its bytes are.
        let is_plain = AtomicBool::new(mode & OFlags::RWMODE == OFlags::WRONLY);
        watch_forks();
        Ok(Self { opened: file, data: Data::new(), mode, is_plain })
    }

    /// The open file, for everything else.
    pub fn as_file(&self) -> &fs::File {
        &self.opened
    }

    /// Reads into `into` from byte `offset` on. Fewer bytes than asked for only at the end of the file.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        buffers::filled(into, |into| {
            if let Some(read) = self.data.read_by_glimpse(offset, into) {
                return Ok(read);
            }
            let mut asked_for = None;
            let questions = if into.len() > SIZE_MAX { 0 } else { QUESTIONS_MAX };
            for _ in 0..questions {
                buffers::touch_mut(into);
                match self.data.read(offset, into) {
                    Ok(read) => return Ok(read),
                    Err(Miss::Ungranted(at))
                        if asked_for != Some(at)
                            && self.obtain(|lease| Ask::Take { lease, offset: at, write: false }) =>
                    {
                        asked_for = Some(at);
                    }
                    Err(_) => break,
                }
            }
            self.opened.read_at(into, offset)
        })
    }

    /// Writes bytes at byte `offset`. Returns how many were written.
    ///
    /// # Errors
    /// Those of pwrite(2).
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let by_kernel = !self.is_writable() || bytes.is_empty() || bytes.len() > SIZE_MAX;
        if by_kernel {
            return self.opened.write_at(bytes, offset);
        }
        let place = (!self.mode.contains(OFlags::APPEND)).then_some(offset);
        let own = buffers::own(bytes);
        let mut last = None;
        for _ in 0..QUESTIONS_MAX {
            buffers::touch(&own);
            let miss = match self.data.write(place, &own) {
                Ok(()) => return Ok(bytes.len()),
                Err(miss) => miss,
            };
            let goes_on = match miss {
                Miss::Untold(tick) => {
                    self.tell_of_change(tick);
                    continue;
                }
                Miss::Ungranted(offset) => self.obtain(|lease| Ask::Take { lease, offset, write: true }),
                Miss::Unreserved { at, end } => self.obtain(|lease| Ask::Reserve { lease, offset: at, end }),
                Miss::More => false,
            };
            // The same once more would be for ever.
            if !goes_on || last.replace(miss) == Some(miss) {
                break;
            }
        }
        self.opened.write_at(&own, offset)
    }

    fn is_writable(&self) -> bool {
        self.mode & OFlags::RWMODE == OFlags::RDWR
    }

    /// Has the time of a change stored, once in each tick of the clock, before anything is changed.
    fn tell_of_change(&self, tick: u64) {
        let leased = self.data.leased().clone();
        match leased.map(|Leased { link, lease, .. }| link.ask(Ask::Changed { lease })) {
            Some(Ok(_)) => self.data.note_told(tick),
            // The kernel says what is wrong.
            Some(Err(_)) | None => self.data.recall(0),
        }
    }

    /// Asks for content, by its lease. Whether it is there now, perhaps.
    fn obtain(&self, ask: impl FnOnce(u64) -> Ask) -> bool {
        if self.is_plain.load(Ordering::Relaxed) || self.data.rests() {
            return false;
        }
        let taken = self.lease().and_then(|leased| leased.link.ask(ask(leased.lease)));
        if taken.is_err() {
            self.data.rest();
        }
        taken.is_ok()
    }

    /// The lease by which it is asked for.
    fn lease(&self) -> Result<Leased, Errno> {
        let mut leased = self.data.leased();
        if let Some(leased) = leased.as_ref().filter(|leased| leased.link.is_there()) {
            return Ok(leased.clone());
        }
        let answer = ticket::ask(&self.opened).inspect_err(|errno| {
            // But for too many tickets, it will be so for ever.
            self.is_plain.store(*errno != Errno::AGAIN, Ordering::Relaxed);
        })?;
        let writable = self.is_writable();
        let attachment = Attachment::of(answer.name(), writable);
        let link = attachment.link()?;
        let opened = open(&link, answer.ticket)?;
        let asked = link.ask(Ask::Lease { file: opened.file, writable });
        link.ask(Ask::Close { file: opened.file })?;
        let (Outcome::Leased { lease }, _) = asked? else { return Err(Errno::PROTO) };
        // From here on the server may grant it, and takes it back if this fails.
        let new = Leased { link: Arc::clone(&link), lease, _attachment: Arc::clone(&attachment) };
        match attachment.view(opened, writable) {
            Ok(view) => self.data.use_view(view),
            Err(errno) => {
                give_back(&link, lease);
                return Err(errno);
            }
        }
        link.add_data(lease, &self.data);
        *leased = Some(new.clone());
        Ok(new)
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.as_fd()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // In a child, it is its own: those of its parent are forgotten.
        let leased = self.data.leased().take();
        self.data.lose();
        if let Some(Leased { link, lease, .. }) = leased {
            give_back(&link, lease);
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("file", &self.opened).finish_non_exhaustive()
    }
}
