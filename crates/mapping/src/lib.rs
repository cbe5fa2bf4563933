//! What is mapped where in this process?
//!
//! A [`Region`] is a range of a direct file at a range of addresses. Parts of it lead straight to the medium; parts show the zeroes of
//! a hole; the rest is *armed*: nobody has said yet what is there, and a touch raises a fault. A [`Mapper`] reads these faults and hands
//! them to a [`Pager`], whoever that is: a daemon asked by a socket, or the engine in the same process. The pager answers with
//! [`Region::install`] or [`Region::fail`], and takes back with [`Region::recall`] what it has given. This crate knows nothing of
//! sockets, of the layout of files, or of the engine.
//!
//! | module | question |
//! |---|---|
//! | [`mapper`] | who serves the faults of this process? |
//! | [`region`] | what is mapped in this range of addresses? |
//! | [`request`] | what may be asked for, and what may be answered? |
//! | `change` | how does a range of a region become something else? |
//! | `runs` | what was a range said to be? |
//! | `service` | what works behind a mapper? The threads, and what they hand to each other. |
//! | `limits` | what becomes of the oldest parts when there are too many? |
//! | `fork` | what happens in a child? |
//! | `gate` | when is no change under way? |
//! | `over` | what becomes of regions over which something is mapped? |
//! | `own` | which descriptors are the library's own? |
//! | `threads` | which threads are? |
//! | [`descriptor_table`] | does this thread use the descriptor table of the process? |
//! | `cancel` | when is a thread not cancelled? |
//! | `memory` | how are addresses mapped? |
//! | `uffd` | what is asked of the kernel's userfaultfd? |
//!
//! # What must not be
//! *A touch that nobody sees.* What is armed is registered with a userfaultfd. It is made so at other addresses, and then moved over
//! what it replaces, by one mremap. The kernel goes on with that only when the message about it has been read: the thread that
//! reads takes no lock and calls nobody.
//!
//! *An answer that comes too late.* A region counts its recalls ([`Region::recall`] says the number), and an answer is mapped only
//! if it was given knowing of all of them. Otherwise whoever waits for it touches the page again, and asks again.
//!
//! *A thread that sleeps for ever.* It is woken after whatever has been done where it waits. Waking a thread too often costs another fault,
//! no more.
//!
//! *A child with mappings that nobody recalls.* It does not inherit any, and gets its own ([`set_fork_hook`]).
//!
//! # Limits
//! - A system call that has begun to use a page (direct I/O with a mapped buffer, above all) may reach it after a recall, as it would in
//!   kernels with direct access.
//! - While a write to a hole is refused, its page cannot be read either, for [`SIGNAL_TIME`].
//! - Who closes descriptors that are not his, or maps over a region without [`Region::unmap`], gets what he asked for.
//! - Where the host commits all memory that it promises (`vm.overcommit_memory=2`), it counts regions as if they were memory.

#![deny(missing_docs)]

mod cancel;
mod change;
pub mod descriptor_table;
mod fork;
mod gate;
mod limits;
pub mod mapper;
mod memory;
mod over;
mod own;
pub mod region;
pub mod request;
mod runs;
mod service;
mod threads;
mod uffd;

pub use cancel::{Uncancelled, uncancelled};
pub use fork::{leave_to_parent, set_fork_hook};
pub use gate::{Alone, Inside, alone, enter};
pub use limits::Limits;
pub use mapper::{Mapper, Pager};
pub use over::replace;
pub use own::{Own, is_own_descriptor, own_descriptors};
pub use region::{Region, SIGNAL_TIME};
pub use request::{Extent, Fault, Medium, Part, Request, Shown, What};
pub use threads::{Threads, spawn_own};
