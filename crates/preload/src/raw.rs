//! What does a program ask of the kernel by number?
//!
//! syscall(3) is a function of the C library like others. Calls that this library has a function for go to that function: else a number would
//! mean another file without its knowledge, or flags would change. Instructions in the program itself are not seen.

use std::ffi::{c_char, c_int, c_long, c_uint};

use libc::{iovec, mode_t, off_t};

use crate::tables::before_clone;
use crate::{next, opening, tables, transfer};

/// An argument that is an `int`: its lower half.
fn int(argument: usize) -> c_int {
    (argument as u32).cast_signed()
}

/// # Safety
/// As for the call of this number.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn syscall(
    number: c_long,
    first: usize,
    second: usize,
    third: usize,
    fourth: usize,
    fifth: usize,
    sixth: usize,
) -> c_long {
    let file = int(first);
    let parts = second as *const iovec;
    // Positions of the vectored calls come in two halves, of which a machine with 64 bits uses the first.
    let (count, offset) = (int(third), fourth.cast_signed() as off_t);
    // SAFETY: by the caller's promise, the arguments are those of the call.
    unsafe {
        match number {
            libc::SYS_read => transfer::read(file, second as *mut _, third) as c_long,
            libc::SYS_write => transfer::write(file, second as *const _, third) as c_long,
            libc::SYS_pread64 => transfer::pread(file, second as *mut _, third, offset) as c_long,
            libc::SYS_pwrite64 => transfer::pwrite(file, second as *const _, third, offset) as c_long,
            libc::SYS_readv => transfer::readv(file, parts, count) as c_long,
            libc::SYS_writev => transfer::writev(file, parts, count) as c_long,
            libc::SYS_preadv => transfer::preadv(file, parts, count, offset) as c_long,
            libc::SYS_pwritev => transfer::pwritev(file, parts, count, offset) as c_long,
            libc::SYS_preadv2 => transfer::preadv2(file, parts, count, offset, int(sixth)) as c_long,
            libc::SYS_pwritev2 => transfer::pwritev2(file, parts, count, offset, int(sixth)) as c_long,
            libc::SYS_lseek => transfer::lseek(file, second.cast_signed() as off_t, count) as c_long,
            libc::SYS_openat => {
                opening::openat(file, second as *const c_char, count, fourth as mode_t).into()
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => opening::open(first as *const c_char, int(second), third as mode_t).into(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => opening::creat(first as *const c_char, second as mode_t).into(),
            libc::SYS_close => opening::close(file).into(),
            libc::SYS_close_range => opening::close_range(first as c_uint, second as c_uint, count).into(),
            libc::SYS_dup => opening::dup(file).into(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_dup2 => opening::dup2(file, int(second)).into(),
            libc::SYS_dup3 => opening::dup3(file, int(second), count).into(),
            libc::SYS_fcntl => opening::fcntl(file, int(second), third).into(),
            libc::SYS_unshare => tables::unshare(file).into(),
            _ => {
                match number {
                    libc::SYS_clone => before_clone(int(first)),
                    // Whether it makes a thread is said in memory that only the kernel is to read.
                    libc::SYS_clone3 => before_clone(libc::CLONE_VM),
                    #[cfg(target_arch = "x86_64")]
                    libc::SYS_fork | libc::SYS_vfork => before_clone(0),
                    _ => {}
                }
                next::syscall(number, first, second, third, fourth, fifth, sixth)
            }
        }
    }
}
