//! Which calls make another table of descriptors?
//!
//! A number then means one file in one table, and another file in the other. What is known of numbers is known of the table of the process
//! (`lodefs_direct::descriptor_table`); threads that use another one have the kernel do everything.

use std::ffi::{c_int, c_void};

use lodefs_direct::descriptor_table;

use crate::next;
use crate::sharing::share_all;

/// # Safety
/// As for unshare(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn unshare(flags: c_int) -> c_int {
    // SAFETY: by the caller's promise.
    let unshared = unsafe { next::unshare(flags) };
    if unshared == 0 && flags & libc::CLONE_FILES != 0 {
        descriptor_table::leave();
    }
    unshared
}

/// This thread gets a table of its own; whether it has one.
pub(crate) fn unshare_descriptors() -> bool {
    // SAFETY: only this thread is affected, as it has asked for.
    unsafe { unshare(libc::CLONE_FILES) == 0 }
}

/// # Safety
/// As for clone(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn clone(
    function: *mut c_void,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent_tid: *mut c_void,
    tls: *mut c_void,
    child_tid: *mut c_void,
) -> c_int {
    before_clone(flags);
    // SAFETY: by the caller's promise.
    unsafe { next::clone(function, stack, flags, argument, parent_tid, tls, child_tid) }
}

/// A process may be made that shares this one's open files, and perhaps its memory too.
pub(crate) fn before_clone(flags: c_int) {
    if flags & libc::CLONE_THREAD == 0 {
        share_all();
    }
    if flags & libc::CLONE_VM != 0 && flags & (libc::CLONE_THREAD | libc::CLONE_VFORK) == 0 {
        descriptor_table::expect_siblings();
    }
    descriptor_table::doubt();
}

/// The child uses the memory and the stack of its parent, which waits: so this function must not be there any more when the C library's makes
/// it. In the child, the first call that needs to know finds out that it is another process.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn vfork() {
    core::arch::naked_asm!(
        "sub rsp, 8",
        "call {before}",
        "add rsp, 8",
        "jmp rax",
        before = sym before_vfork,
    )
}

/// As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn vfork() {
    core::arch::naked_asm!(
        "stp x29, x30, [sp, #-16]!",
        "bl {before}",
        "ldp x29, x30, [sp], #16",
        "br x0",
        before = sym before_vfork,
    )
}

/// Gives the address of the C library's vfork(2).
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
extern "C" fn before_vfork() -> *mut c_void {
    before_clone(libc::CLONE_VM | libc::CLONE_VFORK);
    next::vfork_address()
}

/// On other machines the child has memory of its own.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[unsafe(no_mangle)]
extern "C-unwind" fn vfork() -> libc::pid_t {
    // SAFETY: as for the caller's.
    unsafe { libc::fork() }
}
