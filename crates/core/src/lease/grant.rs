//! What a program is told when it has touched a page that is not mapped.

use smallvec::SmallVec;

/// A touch of a page that is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Byte of the file.
    pub offset: u64,
    /// To store to it.
    pub write: bool,
    /// The part of the file that the mapping shows, in bytes: more is not granted.
    pub from: u64,
    /// Its end.
    pub to: u64,
    /// How many bytes of a hole may be decided at once around the touched one: a power of two, at least a block.
    pub window: u64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// What may be mapped.
    Granted(Grant),
    /// The file is not direct: it is to be mapped as the host does it.
    Buffered {
        /// Recalls that the lease had seen.
        epoch: u64,
    },
    /// The file is just being switched: the touch is to be made again.
    Switching,
    /// What is kept of the content has to be dropped first ([`crate::Fs::drop_cached`]): then the touch is to be made again.
    Cached,
    /// There is nothing: it lies beyond the end of the file.
    BeyondEnd {
        /// Recalls that the lease had seen.
        epoch: u64,
    },
}

/// What may be mapped, until it is recalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Recalls that the lease had seen when it was given. It is void if there has been one since.
    pub epoch: u64,
    /// Ascending, in whole blocks. The touched byte is in one of them.
    pub parts: SmallVec<[Part; 4]>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte within the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// What is there.
    pub what: What,
}

/// What a part of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// On the medium, from this byte on.
    Medium(u64),
    /// A hole, to be shown as zeroes that cannot be stored to.
    Zeroes,
}
