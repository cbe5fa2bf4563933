//! In which ways can a call be made?

use std::ffi::{c_char, c_int, c_long, c_void};

use crate::Numbers;
use crate::calls::{Call, Name};
use crate::common::unseen;

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A function of the C library.
    Library,
    /// syscall(3).
    Number,
    /// The instruction.
    Unseen,
    /// dprintf(3), which writes by a function that the C library does not let others replace.
    Stream,
    /// Linux AIO, by instructions.
    Asynchronous,
}

unsafe extern "C" {
    fn dprintf(file: c_int, format: *const c_char, ...) -> c_int;
}

pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn outcome(result: isize) -> Result<isize, i32> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

impl Way {
    pub(crate) fn any(numbers: &mut Numbers) -> Self {
        let all = [
            Self::Library,
            Self::Library,
            Self::Library,
            Self::Number,
            Self::Unseen,
            Self::Stream,
            Self::Asynchronous,
        ];
        numbers.pick(&all)
    }

    /// Whether a call can be made so.
    pub(crate) fn can_make(self, call: &Call) -> bool {
        match self {
            Self::Library | Self::Number => true,
            Self::Unseen => !matches!(call, Call::Append { .. }),
            Self::Stream => matches!(call, Call::Write { .. }),
            Self::Asynchronous => matches!(call, Call::ReadAt { .. } | Call::WriteAt { .. }),
        }
    }

    /// Whether the library sees it. If not, an append leaves the position where the kernel has seen the end last, and `RWF_APPEND` appends
    /// there (docs/SEMANTICS.md).
    pub(crate) fn is_seen(self) -> bool {
        matches!(self, Self::Library | Self::Number)
    }

    /// By its number.
    ///
    /// # Safety
    /// As for the call of this number.
    pub(crate) unsafe fn number(self, number: c_long, arguments: [usize; 6]) -> Result<isize, i32> {
        let [first, second, third, fourth, fifth, sixth] = arguments;
        // SAFETY: by the caller's promise.
        unsafe {
            match self {
                Self::Unseen => unseen::call(number, arguments),
                _ => outcome(libc::syscall(number, first, second, third, fourth, fifth, sixth) as isize),
            }
        }
    }

    pub(crate) fn read(self, file: c_int, into: &mut [u8], offset: Option<usize>) -> Result<isize, i32> {
        let (start, size) = (into.as_mut_ptr(), into.len());
        // SAFETY: there is room for so many bytes.
        unsafe {
            match (self, offset) {
                (Self::Library, None) => outcome(libc::read(file, start.cast(), size)),
                (Self::Library, Some(offset)) => {
                    outcome(libc::pread(file, start.cast(), size, offset as i64))
                }
                (Self::Asynchronous, Some(offset)) => asynchronous(PREAD, file, start.addr(), size, offset),
                (_, None) => self.number(libc::SYS_read, [file as usize, start.addr(), size, 0, 0, 0]),
                (_, Some(offset)) => {
                    self.number(libc::SYS_pread64, [file as usize, start.addr(), size, offset, 0, 0])
                }
            }
        }
    }

    pub(crate) fn write(self, file: c_int, bytes: &[u8], offset: Option<usize>) -> Result<isize, i32> {
        let (start, size) = (bytes.as_ptr(), bytes.len());
        // SAFETY: so many bytes are there.
        unsafe {
            match (self, offset) {
                (Self::Library, None) => outcome(libc::write(file, start.cast(), size)),
                (Self::Library, Some(offset)) => {
                    outcome(libc::pwrite(file, start.cast(), size, offset as i64))
                }
                (Self::Stream, _) => outcome(dprintf(file, c"%.*s".as_ptr(), size as c_int, start) as isize),
                (Self::Asynchronous, Some(offset)) => asynchronous(PWRITE, file, start.addr(), size, offset),
                (_, None) => self.number(libc::SYS_write, [file as usize, start.addr(), size, 0, 0, 0]),
                (_, Some(offset)) => {
                    self.number(libc::SYS_pwrite64, [file as usize, start.addr(), size, offset, 0, 0])
                }
            }
        }
    }

    pub(crate) fn read_parts(self, file: c_int, into: &mut [u8]) -> Result<isize, i32> {
        let parts = halves(into.as_mut_ptr().cast(), into.len());
        // SAFETY: there is room for so many bytes.
        unsafe {
            match self {
                Self::Library => outcome(libc::readv(file, parts.as_ptr(), 2)),
                _ => self.number(libc::SYS_readv, [file as usize, parts.as_ptr().addr(), 2, 0, 0, 0]),
            }
        }
    }

    /// `append`: with `RWF_APPEND`, at this offset.
    pub(crate) fn write_parts(self, file: c_int, bytes: &[u8], append: Option<i64>) -> Result<isize, i32> {
        let parts = halves(bytes.as_ptr().cast_mut().cast(), bytes.len());
        let (start, flags) = (parts.as_ptr(), libc::RWF_APPEND);
        // SAFETY: so many bytes are there.
        unsafe {
            match (self, append) {
                (Self::Library, None) => outcome(libc::writev(file, start, 2)),
                (Self::Library, Some(offset)) => outcome(libc::pwritev2(file, start, 2, offset, flags)),
                (_, None) => self.number(libc::SYS_writev, [file as usize, start.addr(), 2, 0, 0, 0]),
                (_, Some(offset)) => {
                    let arguments = [file as usize, start.addr(), 2, offset as usize, 0, flags as usize];
                    self.number(libc::SYS_pwritev2, arguments)
                }
            }
        }
    }

    pub(crate) fn seek(self, file: c_int, offset: isize, whence: c_int) -> Result<isize, i32> {
        // SAFETY: the arguments are numbers.
        unsafe {
            if self == Self::Library {
                return outcome(libc::lseek(file, offset as i64, whence) as isize);
            }
            self.number(libc::SYS_lseek, [file as usize, offset.cast_unsigned(), whence as usize, 0, 0, 0])
        }
    }

    pub(crate) fn control(self, file: c_int, command: c_int, argument: usize) -> Result<isize, i32> {
        // SAFETY: the arguments are numbers.
        unsafe {
            match self {
                Self::Library => outcome(libc::fcntl(file, command, argument) as isize),
                _ => self.number(libc::SYS_fcntl, [file as usize, command as usize, argument, 0, 0, 0]),
            }
        }
    }

    /// Makes `to` another descriptor of `file`, or a new one if it is negative.
    pub(crate) fn copy(self, file: c_int, to: c_int) -> Result<isize, i32> {
        // SAFETY: the arguments are numbers, and the descriptors this program's.
        unsafe {
            match (self, to) {
                (Self::Library, 0..) => outcome(libc::dup2(file, to) as isize),
                (Self::Library, _) => outcome(libc::dup(file) as isize),
                // It refuses what is the same already.
                (_, 0..) if file == to => self.control(file, libc::F_GETFL, 0).map(|_| to as isize),
                (_, 0..) => self.number(libc::SYS_dup3, [file as usize, to as usize, 0, 0, 0, 0]),
                (_, _) => self.number(libc::SYS_dup, [file as usize, 0, 0, 0, 0, 0]),
            }
        }
    }

    pub(crate) fn open(self, name: &Name, mode: c_int) -> Result<isize, i32> {
        // SAFETY: the name is a string that ends.
        unsafe {
            if self == Self::Library {
                return outcome(libc::open(name.as_ptr(), mode) as isize);
            }
            let at = libc::AT_FDCWD as usize;
            self.number(libc::SYS_openat, [at, name.as_ptr().addr(), mode as usize, 0, 0, 0])
        }
    }

    pub(crate) fn close(self, file: c_int) -> Result<isize, i32> {
        // SAFETY: the descriptor is this program's, or none.
        unsafe {
            match self {
                Self::Library => outcome(libc::close(file) as isize),
                _ => self.number(libc::SYS_close, [file as usize, 0, 0, 0, 0, 0]),
            }
        }
    }
}

fn halves(start: *mut c_void, size: usize) -> [libc::iovec; 2] {
    let first = size / 2;
    [
        libc::iovec { iov_base: start, iov_len: first },
        libc::iovec { iov_base: start.wrapping_byte_add(first), iov_len: size - first },
    ]
}

const PREAD: u16 = 0;
const PWRITE: u16 = 1;

/// `struct iocb` of `linux/aio_abi.h`.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    size: u64,
    offset: i64,
    reserved: u64,
    more_flags: u32,
    event: u32,
}

/// `struct io_event` of `linux/aio_abi.h`.
#[repr(C)]
#[derive(Default)]
struct IoEvent {
    data: u64,
    iocb: u64,
    result: i64,
    more: i64,
}

/// Reads or writes with a context of its own.
///
/// # Safety
/// So many bytes are the caller's.
unsafe fn asynchronous(
    opcode: u16,
    file: c_int,
    buffer: usize,
    size: usize,
    offset: usize,
) -> Result<isize, i32> {
    let mut context = 0_usize;
    let iocb = Iocb {
        opcode,
        file: file.cast_unsigned(),
        buffer: buffer as u64,
        size: size as u64,
        offset: offset as i64,
        ..Iocb::default()
    };
    let iocbs = [&raw const iocb];
    let mut event = IoEvent::default();
    // SAFETY: all that is passed lives until the context is gone, and so do the bytes by the caller's promise.
    unsafe {
        unseen::call(libc::SYS_io_setup, [1, (&raw mut context).addr(), 0, 0, 0, 0])?;
        let submitted = unseen::call(libc::SYS_io_submit, [context, 1, iocbs.as_ptr().addr(), 0, 0, 0]);
        let done = submitted.and_then(|_| {
            unseen::call(libc::SYS_io_getevents, [context, 1, 1, (&raw mut event).addr(), 0, 0])
        });
        unseen::call(libc::SYS_io_destroy, [context, 0, 0, 0, 0, 0])?;
        done?;
    }
    let result = event.result as isize;
    if result < 0 { Err(-result as i32) } else { Ok(result) }
}
