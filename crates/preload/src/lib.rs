//! Direct access to the files of mounted lodefs volumes, for programs as they are.
//!
//! `lodefs run` has the dynamic linker load this library before the C library, so that calls of programs come here first. What can be
//! done without the kernel is done here; everything else goes on to whom it was meant for. The kernel's descriptor stays the truth:
//! its offset, its flags, its locks and its lifetime. A call that does not come here finds the same bytes.
//!
//! | module | question |
//! |---|---|
//! | `next` | to whom does a call go on? |
//! | `within` | is this thread in this library already? |
//! | `mounts` | which files may be on a mounted volume? |
//! | `table` | which descriptors are such files? |
//! | `opened` | how is one read and written without the kernel? |
//! | `position` | where does an open file stand, and who moves it? |
//! | `opening` | what becomes of a descriptor that is opened, copied, or closed? |
//! | `transfer` | which calls read and write? |
//! | `ending` | when does a process end whose first thread has ended? |
//! | `domain` | what are media to be treated as? |
//! | `stats` | what was done without the kernel, and what not? |
//! | `attributes` | which attribute of a file does the kernel not tell? |
//! | `sharing` | when do other processes share an open file? |
//! | `tables` | which calls make another table of descriptors? |
//! | `raw` | what does a program ask of the kernel by number? |
//! | `mapping` | which calls map, move and unmap files? |
//! | `locking` | which calls lock memory? |
//! | `tending` | which calls look after what is mapped? |
//! | `showing` | how does a part of a file come to some addresses, and go? |
//! | `addresses` | which addresses show files that the kernel does not map? |
//! | `outline` | are there any at these addresses? Said without a lock. |
//! | `changing` | who changes what is mapped, and when does nobody? |
//!
//! # What must not be
//! *A descriptor that is taken for another file's.* Programs close descriptors in ways that nobody sees. So a file is opened with a flag
//! by which its server takes back what it has lent before any close returns; see `lodefs_direct::Access::of_watched`.
//!
//! *A number that means two files.* Threads and children can have descriptor tables of their own. What is known of a number is known of the
//! table of the process (`lodefs_direct::descriptor_table`).
//!
//! *A position that others move meanwhile.* A range at the position is claimed in one step (`position`). Reads and writes at the position are
//! the kernel's as soon as another process may share the open file.
//!
//! *A thread that waits for itself.* A signal handler may come here in the midst of a call: that one goes on to the kernel. Memory comes
//! from an allocator of its own, so that a handler can come here in the midst of the program's.

mod addresses;
mod attributes;
mod changing;
mod domain;
mod ending;
mod locking;
mod mapping;
mod mounts;
mod next;
mod opened;
mod opening;
mod outline;
mod position;
mod raw;
mod sharing;
mod showing;
mod stats;
mod table;
mod tables;
mod tending;
mod transfer;
mod within;

use dlmalloc::GlobalDlmalloc;
use lodefs_direct::descriptor_table;

#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

/// Runs when the library has been loaded, before the program begins.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

extern "C" fn begin() {
    // Before anything else that has to do with forks, so that it is closed last: whoever is waited for may want memory.
    // SAFETY: there is one thread, and nothing of this allocator is held.
    unsafe { dlmalloc::enable_alloc_after_fork() };
    next::find_all();
    descriptor_table::begin();
    ending::begin();
    mounts::begin();
    domain::begin();
    stats::begin();
}
