//! Asynchronous I/O by the kernel's own interfaces: `io_submit(2)` and `io_uring`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Asynchronous writes of one program. All buffers outlive the writes: each call waits for what it has begun.
pub(crate) trait Asynchronous {
    /// Begins all writes (offset, bytes) before it waits for any, and returns the result of each.
    fn write_all(&mut self, file: &File, writes: &[(u64, &[u8])]) -> Vec<i64>;
}

/// `struct iocb`.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    request: u64,
    result: i64,
    result2: i64,
}

const IOCB_CMD_PWRITE: u16 = 1;

/// `io_setup(2)` and `io_submit(2)`.
pub(crate) struct Aio(libc::c_ulong);

impl Aio {
    pub(crate) fn new(depth: u32) -> io::Result<Self> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes one number to `context`, which lives.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) };
        if made < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(context)) }
    }
}

impl Asynchronous for Aio {
    fn write_all(&mut self, file: &File, writes: &[(u64, &[u8])]) -> Vec<i64> {
        let fd = file.as_raw_fd().cast_unsigned();
        let mut blocks: Vec<Iocb> = (0u64..)
            .zip(writes)
            .map(|(number, (offset, bytes))| Iocb {
                data: number,
                opcode: IOCB_CMD_PWRITE,
                fd,
                buffer: bytes.as_ptr() as u64,
                bytes: bytes.len() as u64,
                offset: offset.cast_signed(),
                ..Iocb::default()
            })
            .collect();
        let pointers: Vec<*mut Iocb> = blocks.iter_mut().map(ptr::from_mut).collect();
        let mut begun = 0;
        while begun < pointers.len() {
            let (left, count) = (&pointers[begun..], pointers.len() - begun);
            // SAFETY: `left` holds `count` pointers to control blocks, which live, as do their buffers, until the events
            // below have come.
            let taken = unsafe { libc::syscall(libc::SYS_io_submit, self.0, count, left.as_ptr()) };
            assert!(taken > 0, "io_submit: {}", io::Error::last_os_error());
            begun += taken.cast_unsigned() as usize;
        }
        let mut events = vec![IoEvent::default(); writes.len()];
        let count = events.len();
        let none = ptr::null::<libc::timespec>();
        let into = events.as_mut_ptr();
        // SAFETY: the kernel writes at most `count` events to the array, which has room for them.
        let came = unsafe { libc::syscall(libc::SYS_io_getevents, self.0, count, count, into, none) };
        assert_eq!(came, i64::try_from(count).unwrap(), "io_getevents: {}", io::Error::last_os_error());
        events.sort_unstable_by_key(|event| event.data);
        events.iter().map(|event| event.result).collect()
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: the context is this value's own, and no request of it is under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// `struct io_uring_params`, as 30 words; the two tables of offsets begin at words 10 and 20.
type Parameters = [u32; 30];

const SUBMISSIONS: usize = 10;
const COMPLETIONS: usize = 20;
const IORING_OFF_SQES: i64 = 0x1000_0000;
const IORING_FEAT_SINGLE_MMAP: u32 = 1;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_OP_WRITE: u8 = 23;

/// `struct io_uring_sqe`.
#[repr(C)]
struct Submission {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    size: u32,
    rw_flags: u32,
    data: u64,
    rest: [u64; 3],
}

/// `struct io_uring_cqe`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Completion {
    data: u64,
    result: i32,
    flags: u32,
}

/// `io_uring_setup(2)` and `io_uring_enter(2)`.
pub(crate) struct Uring {
    fd: OwnedFd,
    parameters: Parameters,
    rings: *mut libc::c_void,
    submissions: *mut Submission,
}

impl Uring {
    pub(crate) fn new(depth: u32) -> io::Result<Self> {
        let mut parameters: Parameters = [0; 30];
        // SAFETY: the kernel reads and writes 120 bytes, which the array has.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, depth, parameters.as_mut_ptr()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor")) };
        assert!(parameters[5] & IORING_FEAT_SINGLE_MMAP != 0, "Linux 5.4 maps both rings at once");
        let (entries, completions) = (parameters[0] as usize, parameters[1] as usize);
        let rings = parameters[SUBMISSIONS + 6] as usize + entries * size_of::<u32>();
        let rings = rings.max(parameters[COMPLETIONS + 5] as usize + completions * size_of::<Completion>());
        let map = |size, offset| {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            // SAFETY: a new mapping at an address that the kernel chooses.
            let at = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, fd.as_raw_fd(), offset) };
            if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at) }
        };
        let rings = map(rings, 0)?;
        let submissions = map(entries * size_of::<Submission>(), IORING_OFF_SQES)?.cast();
        Ok(Self { fd, parameters, rings, submissions })
    }

    /// A word of the rings. The parameters say where it is.
    fn word(&self, parameter: usize) -> &AtomicU32 {
        // SAFETY: the kernel gave the offset of an aligned word within the mapping, which is never unmapped.
        unsafe { AtomicU32::from_ptr(self.rings.byte_add(self.parameters[parameter] as usize).cast()) }
    }

    fn put(&self, number: u32, file: &File, offset: u64, bytes: &[u8]) {
        let mask = self.word(SUBMISSIONS + 2).load(Ordering::Relaxed);
        let tail = self.word(SUBMISSIONS + 1).load(Ordering::Relaxed);
        let index = tail & mask;
        let submission = Submission {
            opcode: IORING_OP_WRITE,
            flags: 0,
            priority: 0,
            fd: file.as_raw_fd(),
            offset,
            address: bytes.as_ptr() as u64,
            size: u32::try_from(bytes.len()).expect("a small write"),
            rw_flags: 0,
            data: number.into(),
            rest: [0; 3],
        };
        // SAFETY: the index is within the array of entries, and the kernel does not read the entry before the tail moves.
        unsafe { self.submissions.add(index as usize).write(submission) };
        let array = self.parameters[SUBMISSIONS + 6] as usize;
        // SAFETY: the array of indices has as many words as there are entries.
        unsafe { self.rings.byte_add(array).cast::<u32>().add(index as usize).write(index) };
        self.word(SUBMISSIONS + 1).store(tail.wrapping_add(1), Ordering::Release);
    }

    fn enter(&self, submit: u32, wait: u32) {
        let fd = self.fd.as_raw_fd();
        let none = ptr::null::<libc::sigset_t>();
        // SAFETY: `submit` entries were filled in; the kernel takes no further argument.
        let entered = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, fd, submit, wait, IORING_ENTER_GETEVENTS, none, 0usize)
        };
        assert_eq!(entered, i64::from(submit), "io_uring_enter: {}", io::Error::last_os_error());
    }

    fn take(&self) -> Option<Completion> {
        let head = self.word(COMPLETIONS).load(Ordering::Relaxed);
        if head == self.word(COMPLETIONS + 1).load(Ordering::Acquire) {
            return None;
        }
        let index = head & self.word(COMPLETIONS + 2).load(Ordering::Relaxed);
        let entries = self.parameters[COMPLETIONS + 5] as usize;
        // SAFETY: the index is within the array of completions, and the kernel has written this one: the tail is behind it.
        let completion = unsafe {
            let completions = self.rings.byte_add(entries).cast::<Completion>();
            completions.add(index as usize).read()
        };
        self.word(COMPLETIONS).store(head.wrapping_add(1), Ordering::Release);
        Some(completion)
    }
}

impl Asynchronous for Uring {
    fn write_all(&mut self, file: &File, writes: &[(u64, &[u8])]) -> Vec<i64> {
        for (number, (offset, bytes)) in (0u32..).zip(writes) {
            self.put(number, file, *offset, bytes);
        }
        let count = u32::try_from(writes.len()).expect("few writes");
        self.enter(count, count);
        let mut results = vec![0; writes.len()];
        for _ in writes {
            let completion = self.take().expect("all have ended");
            results[completion.data as usize] = completion.result.into();
        }
        results
    }
}
