//! To whom does a call go on?
//!
//! To whoever has a function of that name behind this library: the C library, or another one that was preloaded.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_uint, c_void};
use std::mem::transmute_copy;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{iovec, mode_t, off64_t, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t, size_t, ssize_t};

use crate::within::set_errno;

/// A function, once it has been looked for.
struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(null_mut()) }
    }

    /// Null if there is none.
    fn address(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a string that ends.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(found, Ordering::Relaxed);
        found
    }
}

unsafe extern "C-unwind" {
    safe fn pthread_testcancel();
}

/// Ends this thread here if it has been cancelled: in functions that are cancellation points, where the kernel is not asked. Nothing that is to be
/// undone may have been done.
pub(crate) fn cancellation_point() {
    pthread_testcancel();
}

/// What a function returns that has failed.
trait Failed {
    fn failed() -> Self;
}

impl Failed for c_int {
    fn failed() -> Self {
        -1
    }
}

impl Failed for off64_t {
    fn failed() -> Self {
        -1
    }
}

impl Failed for ssize_t {
    fn failed() -> Self {
        -1
    }
}

impl<T> Failed for *mut T {
    fn failed() -> Self {
        null_mut()
    }
}

/// Where the C library's vfork(2) is, which is not to be called from a function that returns.
pub(crate) fn vfork_address() -> *mut c_void {
    static VFORK: Next = Next::new(c"vfork");
    VFORK.address()
}

macro_rules! next {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        /// What is behind each name.
        #[allow(non_upper_case_globals)]
        mod found {
            use super::{CStr, Next};

            $(
                pub(super) static $name: Next = Next::new(match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("a name without zero bytes"),
                });
            )*

            pub(super) static ALL: &[&Next] = &[$(&$name),*];
        }

        $(
            /// Calls the next function of this name.
            ///
            /// # Safety
            /// As for that function.
            pub(crate) unsafe fn $name($($argument: $type),*) -> $result {
                let address = found::$name.address();
                if address.is_null() {
                    set_errno(libc::ENOSYS);
                    return <$result as Failed>::failed();
                }
                // SAFETY: the C library declares it so, and whoever replaces it has to as well.
                let function: unsafe extern "C-unwind" fn($($type),*) -> $result = unsafe { transmute_copy(&address) };
                // SAFETY: by the caller's promise.
                unsafe { function($($argument),*) }
            }
        )*
    };
}

/// Looks for all of them, while there is one thread, and no signal handler: nobody can be in the midst of what the dynamic linker locks.
/// (Somebody may have come here before, for some.)
pub(crate) fn find_all() {
    for next in found::ALL {
        next.address();
    }
}

next! {
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fn close(file: c_int) -> c_int;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
    fn dup(file: c_int) -> c_int;
    fn dup2(file: c_int, copy: c_int) -> c_int;
    fn dup3(file: c_int, copy: c_int, flags: c_int) -> c_int;
    fn fcntl(file: c_int, command: c_int, argument: usize) -> c_int;
    fn read(file: c_int, buffer: *mut c_void, size: size_t) -> ssize_t;
    fn pread64(file: c_int, buffer: *mut c_void, size: size_t, offset: off64_t) -> ssize_t;
    fn write(file: c_int, buffer: *const c_void, size: size_t) -> ssize_t;
    fn pwrite64(file: c_int, buffer: *const c_void, size: size_t, offset: off64_t) -> ssize_t;
    fn __open_2(path: *const c_char, flags: c_int) -> c_int;
    fn __openat_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn __read_chk(file: c_int, buffer: *mut c_void, size: size_t, room: size_t) -> ssize_t;
    fn __pread64_chk(file: c_int, buffer: *mut c_void, size: size_t, offset: off64_t, room: size_t) -> ssize_t;
    fn preadv64(file: c_int, parts: *const iovec, count: c_int, offset: off64_t) -> ssize_t;
    fn pwritev64(file: c_int, parts: *const iovec, count: c_int, offset: off64_t) -> ssize_t;
    fn fclose(stream: *mut libc::FILE) -> c_int;
    fn popen(command: *const c_char, kind: *const c_char) -> *mut libc::FILE;
    fn sendmmsg(socket: c_int, messages: *mut libc::mmsghdr, count: c_uint, flags: c_int) -> c_int;
    fn readv(file: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    fn writev(file: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    fn preadv64v2(file: c_int, parts: *const iovec, count: c_int, offset: off64_t, flags: c_int) -> ssize_t;
    fn pwritev64v2(file: c_int, parts: *const iovec, count: c_int, offset: off64_t, flags: c_int) -> ssize_t;
    fn copy_file_range(
        from: c_int,
        from_offset: *mut off64_t,
        to: c_int,
        to_offset: *mut off64_t,
        size: size_t,
        flags: c_uint
    ) -> ssize_t;
    fn sendfile64(to: c_int, from: c_int, offset: *mut off64_t, size: size_t) -> ssize_t;
    fn splice(
        from: c_int,
        from_offset: *mut off64_t,
        to: c_int,
        to_offset: *mut off64_t,
        size: size_t,
        flags: c_uint
    ) -> ssize_t;
    fn statx(directory: c_int, path: *const c_char, flags: c_int, mask: c_uint, into: *mut libc::statx) -> c_int;
    fn fsync(file: c_int) -> c_int;
    fn fdatasync(file: c_int) -> c_int;
    fn lseek64(file: c_int, offset: off64_t, whence: c_int) -> off64_t;
    fn mmap64(
        address: *mut c_void,
        size: size_t,
        protection: c_int,
        flags: c_int,
        file: c_int,
        offset: off64_t
    ) -> *mut c_void;
    fn munmap(address: *mut c_void, size: size_t) -> c_int;
    fn mremap(old: *mut c_void, old_size: size_t, size: size_t, flags: c_int, new: *mut c_void) -> *mut c_void;
    fn mprotect(address: *mut c_void, size: size_t, protection: c_int) -> c_int;
    fn mlock(address: *mut c_void, size: size_t) -> c_int;
    fn mlock2(address: *mut c_void, size: size_t, flags: c_uint) -> c_int;
    fn munlock(address: *mut c_void, size: size_t) -> c_int;
    fn mlockall(flags: c_int) -> c_int;
    fn munlockall() -> c_int;
    fn msync(address: *mut c_void, size: size_t, flags: c_int) -> c_int;
    fn madvise(address: *mut c_void, size: size_t, advice: c_int) -> c_int;
    fn mincore(address: *mut c_void, size: size_t, into: *mut c_uchar) -> c_int;
    fn clone(
        function: *mut c_void,
        stack: *mut c_void,
        flags: c_int,
        argument: *mut c_void,
        parent_tid: *mut c_void,
        tls: *mut c_void,
        child_tid: *mut c_void
    ) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn syscall(
        number: c_long,
        first: usize,
        second: usize,
        third: usize,
        fourth: usize,
        fifth: usize,
        sixth: usize
    ) -> c_long;
    fn sendmsg(socket: c_int, message: *const libc::msghdr, flags: c_int) -> ssize_t;
    fn system(command: *const c_char) -> c_int;
    fn posix_spawn(
        pid: *mut pid_t,
        path: *const c_char,
        actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t,
        arguments: *const *mut c_char,
        environment: *const *mut c_char
    ) -> c_int;
    fn posix_spawnp(
        pid: *mut pid_t,
        file: *const c_char,
        actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t,
        arguments: *const *mut c_char,
        environment: *const *mut c_char
    ) -> c_int;
}
