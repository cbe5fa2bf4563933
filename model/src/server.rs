//! What the server knows.

use crate::client::Block;

/// How the file is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// By mapping the medium.
    Direct,
    /// Through the kernel's cache.
    Buffered,
}

/// Whose a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Nobody's.
    Free,
    /// The file's.
    File,
    /// It was the file's; these programs (one bit each) may still reach it.
    Quarantined(u8),
    /// Another file's.
    Other,
}

/// What is under way, and waits for recalls to be answered. One at a time: the server holds the lock of the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The file is cut to nothing and made long again: it is a hole then.
    Truncate,
    /// The hole gets this block, for a program's fault or, if `None`, for a write of this value through the mount.
    Allocate {
        /// The block.
        block: Block,
        /// Who has faulted.
        fault: Option<usize>,
        /// What is written, if nobody has faulted.
        value: u8,
    },
    /// It becomes buffered.
    Switch,
}
