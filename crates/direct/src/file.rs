//! How is an open file read and written without a system call?

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lodefs_mapping::{descriptor_table, uncancelled};
use lodefs_mmap::buffers;
use lodefs_proto::attach::Ask;
use lodefs_proto::server::Outcome;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;

use crate::attachment::{Attachment, give_back, open, watch_forks};
use crate::data::{Confirmed, Generation, Leased, Miss};
use crate::identity::Identity;
use crate::shared::Shared;
use crate::ticket;

/// Most bytes of a read or write that are copied at once. Who wants the file meanwhile waits for that: some hundredths of a second, where
/// the server would wait for a whole one.
const SIZE_MAX: usize = 64 << 20;

/// Questions for one read or write at most: it may go through many parts of a file.
const QUESTIONS_MAX: usize = 256;

/// What this process reads and writes of an open file by itself: for those who ask the kernel for the rest. [`File`] does that.
///
/// Whoever calls it says each time which descriptor it is.
pub struct Access {
    data: Arc<Shared>,
    /// What it was opened for.
    mode: OFlags,
    /// Only the kernel can do it.
    is_plain: AtomicBool,
    /// So it was when the server was asked last: it may be switched.
    is_buffered: AtomicBool,
    /// What the descriptor has to be, if others may make another file of it.
    watched: Option<Identity>,
    /// Since when it is known to be that: a [`Generation`].
    confirmed: AtomicU64,
}

impl Access {
    /// Of an open file. Its flags are not to be changed afterwards, nor its descriptor closed before the last call.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::new(fcntl_getfl(&file)?, None))
    }

    /// The same of one descriptor, which others may close, or make another file of, without telling: of which the server is told instead,
    /// because it was opened with [`TELLS_WHEN_CLOSED`](lodefs_proto::ticket::TELLS_WHEN_CLOSED). `None` if it was not.
    ///
    /// # Errors
    /// Those of fcntl(2) and statx(2).
    pub fn of_watched(file: impl AsFd) -> io::Result<Option<Self>> {
        let identity = Identity::of(&file)?;
        if !identity.tells_when_closed() {
            return Ok(None);
        }
        Ok(Some(Self::new(fcntl_getfl(&file)?, Some(identity))))
    }

    fn new(mode: OFlags, watched: Option<Identity>) -> Self {
        watch_forks();
        let data = match &watched {
            Some(identity) => Shared::of(identity, is_writable(mode)),
            None => Shared::alone(),
        };
        let confirmed = AtomicU64::new(Generation::NONE.into());
        let (is_plain, is_buffered) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { data, mode, is_plain, is_buffered, watched, confirmed }
    }

    /// Whether only the kernel can read and write it, as far as is known: it is not direct, or this process may not attach.
    pub fn is_left_to_kernel(&self) -> bool {
        self.is_plain.load(Ordering::Relaxed) || self.is_buffered.load(Ordering::Relaxed)
    }

    /// Whether writes are appended, wherever they are said to be.
    pub fn appends(&self) -> bool {
        self.mode.contains(OFlags::APPEND)
    }

    /// Whether all that was written to the file, by whomever, is durable, as far as the medium can: so that fsync(2) has nothing to do. If not, the
    /// kernel is to be asked.
    pub fn is_durable(&self) -> bool {
        self.data.is_durable(self.confirmed())
    }

    /// Whether anything is granted: to this one, or to another one of the same file.
    pub fn has_any(&self) -> bool {
        self.data.granted().is_some()
    }

    /// Reads into `into` from byte `offset` on; fewer bytes only at the end of the file. `None`: the kernel is to be asked.
    pub fn read_at(&self, file: impl AsFd, into: &mut [u8], offset: u64) -> Option<usize> {
        let read = |into: &mut [u8]| self.read(file.as_fd(), into, offset).ok_or(Errno::NOSYS.into());
        buffers::filled(into, read).ok()
    }

    /// Writes bytes at byte `offset`; `None`: at the end of the file. Returns where they end. `None`: nothing was written that anybody can
    /// see, and the kernel is to be asked.
    pub fn write_at(&self, file: impl AsFd, bytes: &[u8], offset: Option<u64>) -> Option<u64> {
        let own = buffers::own(bytes);
        self.repeat(file.as_fd(), own.len(), || {
            buffers::touch(&own);
            self.data.write(self.confirmed(), offset, &own)
        })
    }

    /// Whether [`write_at`](Self::write_at) would write so many bytes at byte `offset` now, most likely: what the server has to be asked
    /// for has been asked for.
    pub fn can_write_at(&self, file: impl AsFd, size: usize, offset: u64) -> bool {
        self.repeat(file.as_fd(), size, || self.data.can_write(self.confirmed(), offset, size)).is_some()
    }

    /// Whether the file ends there, as far as this process has it.
    pub fn ends_at(&self, end: u64) -> bool {
        self.data.ends_at(self.confirmed(), end)
    }

    /// Whether the descriptor still has the flags that it was opened with. Other processes that have the same open file may change them.
    pub fn has_same_flags(&self, file: impl AsFd) -> bool {
        fcntl_getfl(file).is_ok_and(|flags| flags == self.mode)
    }

    /// The same into a buffer that is no mapping.
    fn read(&self, file: BorrowedFd<'_>, into: &mut [u8], offset: u64) -> Option<usize> {
        if self.mode & OFlags::RWMODE == OFlags::WRONLY || into.len() > SIZE_MAX {
            return None;
        }
        if let Some(read) = self.data.read_by_glimpse(self.confirmed(), offset, into) {
            return Some(read);
        }
        let mut asked_for = None;
        let mut is_confirmed = false;
        for _ in 0..QUESTIONS_MAX {
            buffers::touch_mut(into);
            match self.data.read(self.confirmed(), offset, into) {
                Ok(read) => return Some(read),
                Err(Miss::Ungranted(at))
                    if asked_for != Some(at)
                        && self.obtain(file, |lease| Ask::Take { lease, offset: at, write: false }) =>
                {
                    asked_for = Some(at);
                }
                Err(Miss::Unconfirmed) if !is_confirmed && self.confirm(file) => is_confirmed = true,
                Err(_) => break,
            }
        }
        None
    }

    /// Writes, and asks the server for what it says to be missing, until it succeeds or cannot.
    fn repeat<T>(
        &self,
        file: BorrowedFd<'_>,
        size: usize,
        mut write: impl FnMut() -> Result<T, Miss>,
    ) -> Option<T> {
        if !self.is_writable() || size == 0 || size > SIZE_MAX {
            return None;
        }
        let mut last = None;
        for _ in 0..QUESTIONS_MAX {
            let miss = match write() {
                Ok(done) => return Some(done),
                Err(miss) => miss,
            };
            let goes_on = match miss {
                Miss::Untold(tick) => {
                    self.tell_of_change(tick);
                    continue;
                }
                Miss::Ungranted(offset) => {
                    self.obtain(file, |lease| Ask::Take { lease, offset, write: true })
                }
                Miss::Unreserved { at, end } => {
                    self.obtain(file, |lease| Ask::Reserve { lease, offset: at, end })
                }
                Miss::Unconfirmed => self.confirm(file),
                Miss::More => false,
            };
            // The same once more would be for ever.
            if !goes_on || last.replace(miss) == Some(miss) {
                break;
            }
        }
        None
    }

    fn is_writable(&self) -> bool {
        is_writable(self.mode)
    }

    fn confirmed(&self) -> Confirmed {
        self.watched.map(|_| self.confirmed.load(Ordering::Relaxed).into())
    }

    /// Looks whether the descriptor is still the file. Whether what is granted may be used.
    fn confirm(&self, file: BorrowedFd<'_>) -> bool {
        let (Some(identity), Some(generation)) = (self.watched, self.data.granted()) else { return false };
        if !descriptor_table::is_surely_used_here() {
            return false;
        }
        // Afterwards: from now on nobody closes it before that has been recalled.
        let is_there = identity.is_of(file);
        if is_there {
            descriptor_table::begin_epoch();
            self.confirmed.store(generation.into(), Ordering::Relaxed);
        } else {
            self.is_plain.store(true, Ordering::Relaxed);
        }
        is_there
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
    fn obtain(&self, file: BorrowedFd<'_>, ask: impl FnOnce(u64) -> Ask) -> bool {
        if self.is_plain.load(Ordering::Relaxed) || self.data.rests() {
            return false;
        }
        let taken = self.lease(file).and_then(|leased| leased.link.ask(ask(leased.lease)));
        self.is_buffered.store(matches!(taken, Err(Errno::OPNOTSUPP)), Ordering::Relaxed);
        if taken.is_err() {
            self.data.rest();
        }
        taken.is_ok()
    }

    /// The lease by which it is asked for.
    fn lease(&self, file: BorrowedFd<'_>) -> Result<Leased, Errno> {
        let mut leased = self.data.leased();
        if let Some(leased) = leased.as_ref().filter(|leased| leased.link.is_there()) {
            return Ok(leased.clone());
        }
        if self.watched.is_some() && !descriptor_table::is_surely_used_here() {
            // The library's threads and descriptors belong to the table of the process.
            return Err(Errno::NOTCONN);
        }
        let _uncancelled = uncancelled();
        let answer = ticket::ask(file).inspect_err(|errno| {
            // But for too many tickets, it will be so for ever.
            self.is_plain.store(*errno != Errno::AGAIN, Ordering::Relaxed);
        })?;
        let writable = self.is_writable();
        let attachment = Attachment::of(answer.name(), writable);
        let link = attachment.link()?;
        let opened = open(&link, answer.ticket)?;
        let is_another = |identity: Identity| identity.inode() != opened.inode || !identity.is_of(file);
        if self.watched.is_some_and(is_another) {
            // It is another file by now, on this mount or another one, which is not to be taken for this one by those that share what is granted.
            self.is_plain.store(true, Ordering::Relaxed);
            link.ask(Ask::Close { file: opened.file })?;
            return Err(Errno::BADF);
        }
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

/// Whether a file that was opened so may be written.
fn is_writable(mode: OFlags) -> bool {
    mode & OFlags::RWMODE != OFlags::RDONLY
}

/// An open file, of which this process reads and writes the bytes by itself if it can: if the file is direct, on a mount that this process
/// may attach to. Else, and for whatever else has to be done, it asks the kernel. Others cannot tell the difference, nor does it
/// matter which of them do likewise: reads and writes are atomic, and what [`write_at`](Self::write_at) has written to a direct file
/// is durable when it returns, as far as the medium can.
///
/// Positions are always given. A file that was opened to append (`O_APPEND`) is appended to, as by pwrite(2).
pub struct File {
    /// Dropped before the descriptor is.
    access: Access,
    opened: fs::File,
}

impl File {
    /// Takes an open file over. Its flags are not to be changed afterwards.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn new(file: fs::File) -> io::Result<Self> {
        Ok(Self { access: Access::of(&file)?, opened: file })
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
        buffers::filled(into, |into| match self.access.read(self.opened.as_fd(), into, offset) {
            Some(read) => Ok(read),
            None => self.opened.read_at(into, offset),
        })
    }

    /// Writes bytes at byte `offset`. Returns how many were written.
    ///
    /// # Errors
    /// Those of pwrite(2).
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let offset_or_end = (!self.access.appends()).then_some(offset);
        match self.access.write_at(&self.opened, bytes, offset_or_end) {
            Some(_) => Ok(bytes.len()),
            None => self.opened.write_at(&buffers::own(bytes), offset),
        }
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.as_fd()
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("file", &self.opened).finish_non_exhaustive()
    }
}
