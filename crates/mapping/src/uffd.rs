//! What is asked of the kernel's userfaultfd?
//!
//! | answer | of | means | so |
//! |---|---|---|---|
//! | `EAGAIN` | copy | a mapping moves, and the message about it is unread; or a part was done | go on from there |
//! | `EEXIST` | copy | the page is there: somebody was faster | done |
//! | `ENOENT` | copy | the range is not within one registered mapping | page by page; then the program has mapped something else: done |
//! | `ESRCH` | copy | the process is about to end | done |

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use rustix::param::page_size;

use crate::own::Own;

const GROUP: u8 = 0xaa;
const API: Opcode = opcode::read_write::<Api>(GROUP, 0x3f);
const REGISTER: Opcode = opcode::read_write::<Register>(GROUP, 0x00);
/// Declared as if it only told something, though it is told something.
const WAKE: Opcode = opcode::read::<Span>(GROUP, 0x02);
const COPY: Opcode = opcode::read_write::<Copy>(GROUP, 0x03);

const VERSION: u64 = 0xaa;
const FEATURES: [(u64, &str); 2] = [(1 << 0, "write-protect faults"), (1 << 2, "events of moved mappings")];
const USER_MODE_ONLY: u32 = 1;

const REGISTER_MISSING: u64 = 1 << 0;
const REGISTER_WRITE_PROTECT: u64 = 1 << 1;
const COPY_WRITE_PROTECTED: u64 = 1 << 1;

const EVENT_FAULT: u8 = 0x12;
const FAULT_WRITE: u64 = 1 << 0;
const FAULT_WRITE_PROTECTED: u64 = 1 << 1;

#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Span {
    start: u64,
    size: u64,
}

#[repr(C)]
struct Register {
    span: Span,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    size: u64,
    mode: u64,
    copied: i64,
}

/// Bytes of a message. The first says what it is; of a fault, the flags and the address follow.
const MESSAGE: usize = 32;
const FLAGS_AT: usize = 8;
const ADDRESS_AT: usize = 16;

/// Asks the device for a new descriptor.
struct New(UserfaultfdFlags);

// SAFETY: the call takes flags in place of a pointer, gives a descriptor that nobody else has, and changes no memory.
unsafe impl Ioctl for New {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::none(GROUP, 0x00)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::without_provenance_mut(self.0.bits() as usize)
    }

    unsafe fn output_from_ptr(file: IoctlOutput, _: *mut c_void) -> Result<OwnedFd, Errno> {
        // SAFETY: the call succeeded, so this is a new descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(file) })
    }
}

/// Somebody waits for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Touch {
    pub(crate) address: usize,
    pub(crate) write: bool,
}

/// Where the kernel reports touches of what is registered.
#[derive(Debug)]
pub(crate) struct Uffd {
    file: Own,
    /// Whether those that system calls make are reported, too.
    pub(crate) serves_system_calls: bool,
}

/// Zeroes to copy.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Messages read at a time.
pub(crate) const BATCH: usize = 32;

impl Uffd {
    pub(crate) fn new() -> io::Result<Self> {
        let (file, serves_system_calls) = open()?;
        let wanted = FEATURES.iter().fold(0, |all, (bit, _)| all | bit);
        match handshake(file.as_fd(), wanted) {
            Ok(_) => Ok(Self { file: file.into(), serves_system_calls }),
            Err(_) => Err(missing()?),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn own(&self) -> &Own {
        &self.file
    }

    /// From now on touches of pages that are not there, and stores to pages that are write-protected, are reported.
    ///
    /// # Safety
    /// The range is one anonymous private mapping, in which nobody but the caller decides what is mapped.
    pub(crate) unsafe fn register(&self, range: &Range<usize>) -> io::Result<()> {
        let mode = REGISTER_MISSING | REGISTER_WRITE_PROTECT;
        let mut request = Register { span: Span::from(range), mode, ioctls: 0 };
        // SAFETY: the number and the structure belong together. What the kernel does to the range is what the caller wants.
        let _: () = unsafe { ioctl(&self.file, Updater::<REGISTER, _>::new(&mut request))? };
        Ok(())
    }

    /// Whoever waits for a page of the range touches it again.
    pub(crate) fn wake(&self, range: &Range<usize>) {
        let mut span = Span::from(range);
        // SAFETY: the number and the structure belong together. It changes no mapping.
        let woken = unsafe { ioctl(&self.file, Updater::<WAKE, _>::new(&mut span)) };
        debug_assert!(woken.is_ok(), "whole pages of this process: {woken:?}");
    }

    /// Puts write-protected zeroes where nothing is yet, and wakes.
    ///
    /// # Safety
    /// The range was registered here, and it is for the caller to say what is mapped there.
    pub(crate) unsafe fn fill(&self, range: &Range<usize>) -> io::Result<()> {
        let page = page_size();
        let (mut at, mut step) = (range.start, ZEROES.len());
        while at < range.end {
            let size = step.min(range.end - at);
            // SAFETY: by the caller's promise.
            let (copied, result) = unsafe { self.fill_once(at, size) };
            at += copied;
            match result {
                Ok(()) => step = ZEROES.len(),
                // Another thread must read the message first.
                Err(Errno::AGAIN) if copied == 0 => std::thread::yield_now(),
                Err(Errno::AGAIN) => {}
                Err(Errno::EXIST | Errno::NOENT | Errno::SRCH) if size == page => at += page,
                Err(Errno::EXIST | Errno::NOENT | Errno::SRCH) => step = page,
                Err(error) => return Err(error.into()),
            }
        }
        self.wake(range);
        Ok(())
    }

    /// # Safety
    /// As for `fill`; `size` is no more than there are zeroes.
    unsafe fn fill_once(&self, at: usize, size: usize) -> (usize, Result<(), Errno>) {
        let from = ZEROES.as_ptr().expose_provenance() as u64;
        let mut request =
            Copy { to: at as u64, from, size: size as u64, mode: COPY_WRITE_PROTECTED, copied: 0 };
        // SAFETY: the number and the structure belong together; the source is a static of at least that size. What is changed
        // is for the caller to say.
        let result = unsafe { ioctl(&self.file, Updater::<COPY, _>::new(&mut request)) };
        // In place of a number of bytes there may be that of an error.
        (usize::try_from(request.copied).unwrap_or(0), result)
    }

    /// Adds what was reported since; nothing if there is nothing.
    pub(crate) fn read(&self, touches: &mut Vec<Touch>) -> io::Result<()> {
        let mut messages = [0; BATCH * MESSAGE];
        let read = match rustix::io::read(&self.file, &mut messages) {
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // To have read the events of mappings that move is all that is to be done about them.
        let faults = messages[..read].chunks_exact(MESSAGE).filter(|message| message[0] == EVENT_FAULT);
        touches.extend(faults.map(Touch::of));
        Ok(())
    }
}

impl Touch {
    fn of(message: &[u8]) -> Self {
        let number = |at| message[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let write = number(FLAGS_AT) & (FAULT_WRITE | FAULT_WRITE_PROTECTED) != 0;
        Self { address: number(ADDRESS_AT) as usize & !(page_size() - 1), write }
    }
}

impl From<&Range<usize>> for Span {
    fn from(range: &Range<usize>) -> Self {
        Self { start: range.start as u64, size: range.len() as u64 }
    }
}

/// A descriptor, and whether it reports what system calls touch.
fn open() -> io::Result<(OwnedFd, bool)> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: a descriptor alone changes nothing.
    match unsafe { userfaultfd(flags) } {
        Ok(file) => return Ok((file, true)),
        Err(Errno::PERM) => {}
        Err(Errno::NOSYS) => return Err(lacks("userfaultfd (CONFIG_USERFAULTFD)")),
        Err(error) => return Err(error.into()),
    }
    if let Ok(file) = open_by_device(flags) {
        return Ok((file, true));
    }
    // SAFETY: as above.
    Ok((unsafe { userfaultfd(flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY))? }, false))
}

/// The way for those who have no privilege, but permission to open the device.
fn open_by_device(flags: UserfaultfdFlags) -> io::Result<OwnedFd> {
    let device = open_file(c"/dev/userfaultfd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: the device knows the call.
    Ok(unsafe { ioctl(&device, New(flags))? })
}

/// Agrees on what is wanted; says what there is. Once for each descriptor.
fn handshake(file: BorrowedFd<'_>, wanted: u64) -> io::Result<u64> {
    let mut api = Api { version: VERSION, features: wanted, ioctls: 0 };
    // SAFETY: the number and the structure belong together. It changes no mapping.
    let _: () = unsafe { ioctl(file, Updater::<API, _>::new(&mut api))? };
    Ok(api.features)
}

/// What the kernel lacks.
fn missing() -> io::Result<io::Error> {
    let (file, _) = open()?;
    let present = handshake(file.as_fd(), 0)?;
    let names: Vec<_> =
        FEATURES.iter().filter(|(bit, _)| present & bit == 0).map(|(_, name)| *name).collect();
    Ok(lacks(&format!("userfaultfd with {}", names.join(" and "))))
}

fn lacks(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("the kernel lacks {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(New(UserfaultfdFlags::empty()).opcode(), 0xaa00);
        assert_eq!((API, REGISTER), (0xc018_aa3f, 0xc020_aa00));
        assert_eq!((WAKE, COPY), (0x8010_aa02, 0xc028_aa03));
    }

    #[test]
    fn whoever_may_open_the_device_gets_a_descriptor() {
        let file = open_by_device(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK).unwrap();
        let wanted = FEATURES[0].0 | FEATURES[1].0;
        assert_eq!(handshake(file.as_fd(), wanted).unwrap() & wanted, wanted);
        assert!(handshake(open().unwrap().0.as_fd(), 1 << 60).is_err());
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        let error = lacks("userfaultfd with events of moved mappings");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("moved mappings"));
    }
}
