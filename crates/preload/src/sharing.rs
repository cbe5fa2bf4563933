//! When do other processes share an open file?
//!
//! They do after a fork, when a program is started that inherits descriptors, and when a descriptor is sent by a socket. From then on
//! whoever reads or writes moves the offset for all of them, which only the kernel can do at once. A fork also waits for whoever changes what
//! is mapped.

use std::cell::Cell;
use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libc::{msghdr, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t, ssize_t};

use lodefs_direct::descriptor_table;

use crate::within::Within;
use crate::{changing, ending, next, outline, showing, table};

static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// Sees to it that forks are noticed; whether they are.
///
/// Called when there is a file that can be shared, and so after `lodefs_direct` has begun to notice them: what is registered later runs
/// earlier. A fork waits here for whoever moves an offset, who may wait for what `lodefs_direct` keeps closed during a fork.
/// (Registering it twice, which threads that come together do, does no harm.)
pub(crate) fn watch() -> bool {
    if IS_WATCHED.load(Ordering::Acquire) {
        return true;
    }
    // SAFETY: the handlers have the signature that is demanded, and stay.
    let errno = unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
    let is_registered = errno == 0;
    IS_WATCHED.fetch_or(is_registered, Ordering::Release);
    ending::threads_begin();
    is_registered
}

thread_local! {
    /// Whether this thread, which forks, keeps others from changing what is mapped.
    static KEEPS_OTHERS: Cell<bool> = const { Cell::new(false) };
    /// Whether it used the descriptor table of the process when it forked.
    static USED_TABLE: Cell<bool> = const { Cell::new(false) };
}

extern "C" fn before_fork() {
    share_all();
    USED_TABLE.set(descriptor_table::is_surely_used_here());
    // Who forks in the midst of a call waits for nobody, and takes what there is. (Registered twice, it is called twice.)
    if !Within::is_here() && !KEEPS_OTHERS.replace(true) {
        changing::before_fork();
    }
}

extern "C" fn in_parent() {
    if KEEPS_OTHERS.replace(false) {
        // SAFETY: this thread has called it for this fork.
        unsafe { changing::after_fork() };
    }
}

extern "C" fn in_child() {
    in_parent();
    let has_table = USED_TABLE.get();
    descriptor_table::in_child();
    ending::in_child();
    table::forget_users();
    if !has_table {
        table::forget_all();
    }
    outline::forget_users();
    showing::in_child();
    // Another thread of the parent may have opened some in between. It may have had their locks, which nobody takes any more.
    table::known().filter_map(table::get_of_process).for_each(|file| file.position().share(false));
}

/// How often all open files have come to be shared.
static TIMES: AtomicU64 = AtomicU64::new(0);

/// To be compared, by whoever has opened a file meanwhile.
pub(crate) fn times() -> u64 {
    TIMES.load(Ordering::SeqCst)
}

/// All open files may be shared from now on, and nobody is about to move an offset.
pub(crate) fn share_all() {
    TIMES.fetch_add(1, Ordering::SeqCst);
    // Who comes here in the midst of a call waits for nobody: it may be himself.
    let within = Within::enter();
    for file in table::known().filter_map(table::get_of_process) {
        file.position().share(within.is_some());
    }
}

/// # Safety
/// As for system(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn system(command: *const c_char) -> c_int {
    share_all();
    // SAFETY: by the caller's promise.
    unsafe { next::system(command) }
}

/// # Safety
/// As for `posix_spawn(3)`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    arguments: *const *mut c_char,
    environment: *const *mut c_char,
) -> c_int {
    share_all();
    // SAFETY: by the caller's promise.
    unsafe { next::posix_spawn(pid, path, actions, attributes, arguments, environment) }
}

/// # Safety
/// As for `posix_spawnp(3)`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn posix_spawnp(
    pid: *mut pid_t,
    file: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    arguments: *const *mut c_char,
    environment: *const *mut c_char,
) -> c_int {
    share_all();
    // SAFETY: by the caller's promise.
    unsafe { next::posix_spawnp(pid, file, actions, attributes, arguments, environment) }
}

/// # Safety
/// As for popen(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn popen(command: *const c_char, kind: *const c_char) -> *mut libc::FILE {
    share_all();
    // SAFETY: by the caller's promise.
    unsafe { next::popen(command, kind) }
}

/// Descriptors that are sent are their receiver's too.
///
/// # Safety
/// As for sendmsg(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendmsg(socket: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller has a message there.
    if unsafe { message.as_ref() }.is_some_and(|message| !message.msg_control.is_null()) {
        share_all();
    }
    // SAFETY: by the caller's promise.
    unsafe { next::sendmsg(socket, message, flags) }
}

/// # Safety
/// As for sendmmsg(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendmmsg(
    socket: c_int,
    messages: *mut libc::mmsghdr,
    count: libc::c_uint,
    flags: c_int,
) -> c_int {
    share_all();
    // SAFETY: by the caller's promise.
    unsafe { next::sendmmsg(socket, messages, count, flags) }
}
