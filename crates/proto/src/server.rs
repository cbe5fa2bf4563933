//! What the server of a mount says to an attached program: a [`Head`], and behind it the parts of a grant.

use alloc::vec::Vec;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::Malformed;
use crate::attach::VERSION;

/// Most parts of one grant.
pub const PARTS_MAX: usize = 16;

/// Most bytes of one message.
pub const MESSAGE_MAX: usize = size_of::<Head>() + PARTS_MAX * size_of::<RawPart>();

/// The start of a message as it is sent. Zero where its kind says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Head {
    version: u32,
    kind: u32,
    number: u64,
    object: u64,
    epoch: u64,
    offset: u64,
    end: u64,
    value: u32,
    parts: u32,
}

const _: () = assert!(size_of::<Head>() == 56);

/// A part of a grant as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawPart {
    offset: u64,
    size: u64,
    /// Where on the medium it is; all ones: it is a hole.
    at: u64,
}

/// What makes stores to the medium durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Fences.
    CpuCache,
    /// Writing cache lines back, and fences.
    MemoryController,
    /// Nothing can.
    Volatile,
}

/// Set in the word of [`Right::Append`] when it is not to be replaced any more. The size is in the other bits.
pub const REVOKED: u64 = 1 << 63;

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte within the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Where it is on the medium; `None`: a hole.
    pub at: Option<u64>,
}

/// What a program may do with the content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Read it.
    Read,
    /// Read it, and write to what is on the medium.
    Write,
    /// The same, and append to it. How many bytes the file has, is in a word of the medium, a little-endian number: whoever has stored
    /// bytes behind the end, and made them durable, replaces it, if it is still what it was, and makes that durable.
    Append {
        /// Where the word is on the medium: a multiple of eight.
        word: u64,
    },
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To `Open`. With the message comes a descriptor of the medium, which is writable if the file was opened for writing.
    Opened {
        /// By which the file is named from now on.
        file: u64,
        /// The number of its inode, as stat(2) says it.
        inode: u64,
        /// The medium's.
        domain: Domain,
        /// The medium is to be mapped with `MAP_SYNC`, so that the host keeps its own metadata durable.
        host_sync: bool,
    },
    /// To `Map`.
    Mapped {
        /// By which the mapping is named from now on.
        lease: u64,
        /// The file is direct now. If not, the program had better map it as the kernel does, at once.
        is_direct: bool,
    },
    /// To `Lease`.
    Leased {
        /// By which it is named from now on.
        lease: u64,
    },
    /// To all others.
    Done,
    /// It was refused, with this errno.
    Refused(u32),
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromServer {
    /// The answer to the request of this number.
    Outcome(u64, Outcome),
    /// To `Take` and `Reserve`, with its number: what the program may read and write by itself, until it is recalled. (OPNOTSUPP instead: the file
    /// is buffered now. BUSY: it is just being switched.)
    Data {
        /// The number of the request.
        number: u64,
        /// Which file.
        lease: u64,
        /// Recalls before it: it is void if there has been another since.
        epoch: u64,
        /// Bytes of the file; with the right to append, that it can have. The last part may reach further.
        size: u64,
        /// What it may do.
        right: Right,
        /// Nobody may store to it by a mapping, until this is recalled: what is in the file is durable, as far as the medium can.
        is_settled: bool,
        /// At most [`PARTS_MAX`], ascending and without gaps, from the one with the byte on that was asked for. None: there is nothing.
        parts: Vec<Part>,
    },
    /// After a touch: what may be mapped, until it is recalled.
    Granted {
        /// Which mapping.
        lease: u64,
        /// Recalls before it: it is void if there has been another since.
        epoch: u64,
        /// At most [`PARTS_MAX`].
        parts: Vec<Part>,
    },
    /// After a touch: there is nothing, or no room for anything.
    Nothing {
        /// Which mapping.
        lease: u64,
        /// Recalls before it.
        epoch: u64,
        /// The byte that was touched.
        offset: u64,
        /// 0: it lies beyond the end of the file; else why it cannot be provided.
        errno: u32,
    },
    /// After a touch: the file is not direct, and is to be mapped as the kernel does it.
    Buffered {
        /// Which mapping.
        lease: u64,
        /// Recalls before it.
        epoch: u64,
        /// The byte that was touched.
        offset: u64,
    },
    /// After a touch: the file is just being switched. Whoever has touched it is to touch it again.
    Again {
        /// Which mapping.
        lease: u64,
        /// The byte that was touched.
        offset: u64,
    },
    /// What lies here is to be unmapped, or not to be read and written any more, and that to be answered.
    Recall {
        /// Which mapping, or file.
        lease: u64,
        /// The number of this recall.
        epoch: u64,
        /// First byte of the file.
        offset: u64,
        /// Behind the last one.
        end: u64,
    },
}

const OPENED: u32 = 1;
const MAPPED: u32 = 2;
const DONE: u32 = 3;
const REFUSED: u32 = 4;
const GRANTED: u32 = 5;
const NOTHING: u32 = 6;
const RECALL: u32 = 7;
const BUFFERED: u32 = 8;
const AGAIN: u32 = 9;
const LEASED: u32 = 10;
const DATA: u32 = 11;

const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 3;
/// Beside one of these.
const SETTLED: u32 = 1 << 16;

const HOLE: u64 = u64::MAX;

impl FromServer {
    /// The message to send.
    pub fn bytes(&self) -> Vec<u8> {
        let head = Head { version: VERSION, ..Head::new_zeroed() };
        let mut sent: &[Part] = &[];
        let head = match self {
            Self::Outcome(number, outcome) => {
                let head = Head { number: *number, ..head };
                match *outcome {
                    Outcome::Opened { file, inode, domain, host_sync } => {
                        let (offset, end) = (inode, host_sync.into());
                        Head { kind: OPENED, object: file, offset, value: domain.number(), end, ..head }
                    }
                    Outcome::Mapped { lease, is_direct } => {
                        Head { kind: MAPPED, object: lease, end: is_direct.into(), ..head }
                    }
                    Outcome::Leased { lease } => Head { kind: LEASED, object: lease, ..head },
                    Outcome::Done => Head { kind: DONE, ..head },
                    Outcome::Refused(errno) => Head { kind: REFUSED, value: errno, ..head },
                }
            }
            Self::Data { number, lease, epoch, size, right, is_settled, parts } => {
                sent = &parts[..parts.len().min(PARTS_MAX)];
                let (value, offset) = match *right {
                    Right::Read => (READ, 0),
                    Right::Write => (WRITE, 0),
                    Right::Append { word } => (APPEND, word),
                };
                Head {
                    offset,
                    kind: DATA,
                    number: *number,
                    object: *lease,
                    epoch: *epoch,
                    end: *size,
                    value: value | if *is_settled { SETTLED } else { 0 },
                    parts: sent.len() as u32,
                    ..head
                }
            }
            Self::Granted { lease, epoch, parts } => {
                sent = &parts[..parts.len().min(PARTS_MAX)];
                Head { kind: GRANTED, object: *lease, epoch: *epoch, parts: sent.len() as u32, ..head }
            }
            Self::Nothing { lease, epoch, offset, errno } => {
                Head { kind: NOTHING, object: *lease, epoch: *epoch, offset: *offset, value: *errno, ..head }
            }
            Self::Buffered { lease, epoch, offset } => {
                Head { kind: BUFFERED, object: *lease, epoch: *epoch, offset: *offset, ..head }
            }
            Self::Again { lease, offset } => Head { kind: AGAIN, object: *lease, offset: *offset, ..head },
            Self::Recall { lease, epoch, offset, end } => {
                Head { kind: RECALL, object: *lease, epoch: *epoch, offset: *offset, end: *end, ..head }
            }
        };
        let mut bytes = head.as_bytes().to_vec();
        for part in sent {
            let raw = RawPart { offset: part.offset, size: part.size, at: part.at.unwrap_or(HOLE) };
            bytes.extend_from_slice(raw.as_bytes());
        }
        bytes
    }

    /// What was received: exactly what [`Self::bytes`] gives.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (head, rest) = Head::read_from_prefix(bytes).map_err(|_| Malformed)?;
        let Head { number, object, epoch, offset, end, value, .. } = head;
        let message = match head.kind {
            OPENED => {
                let domain = Domain::from_number(value)?;
                let (inode, host_sync) = (offset, end != 0);
                Self::Outcome(number, Outcome::Opened { file: object, inode, domain, host_sync })
            }
            MAPPED => Self::Outcome(number, Outcome::Mapped { lease: object, is_direct: end != 0 }),
            LEASED => Self::Outcome(number, Outcome::Leased { lease: object }),
            DONE => Self::Outcome(number, Outcome::Done),
            DATA => {
                let right = match value & !SETTLED {
                    READ => Right::Read,
                    WRITE => Right::Write,
                    APPEND => Right::Append { word: offset },
                    _ => return Err(Malformed),
                };
                Self::Data {
                    number,
                    lease: object,
                    epoch,
                    size: end,
                    right,
                    is_settled: value & SETTLED != 0,
                    parts: parse_parts(rest)?,
                }
            }
            REFUSED => Self::Outcome(number, Outcome::Refused(value)),
            GRANTED => Self::Granted { lease: object, epoch, parts: parse_parts(rest)? },
            NOTHING => Self::Nothing { lease: object, epoch, offset, errno: value },
            BUFFERED => Self::Buffered { lease: object, epoch, offset },
            AGAIN => Self::Again { lease: object, offset },
            RECALL => Self::Recall { lease: object, epoch, offset, end },
            _ => return Err(Malformed),
        };
        if message.bytes() == bytes { Ok(message) } else { Err(Malformed) }
    }
}

fn parse_parts(mut rest: &[u8]) -> Result<Vec<Part>, Malformed> {
    if rest.len() > PARTS_MAX * size_of::<RawPart>() {
        return Err(Malformed);
    }
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (raw, behind) = RawPart::read_from_prefix(rest).map_err(|_| Malformed)?;
        parts.push(Part { offset: raw.offset, size: raw.size, at: (raw.at != HOLE).then_some(raw.at) });
        rest = behind;
    }
    Ok(parts)
}

impl Domain {
    fn number(self) -> u32 {
        match self {
            Self::CpuCache => 1,
            Self::MemoryController => 2,
            Self::Volatile => 3,
        }
    }

    fn from_number(number: u32) -> Result<Self, Malformed> {
        match number {
            1 => Ok(Self::CpuCache),
            2 => Ok(Self::MemoryController),
            3 => Ok(Self::Volatile),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn all() -> Vec<FromServer> {
        let outcome = |outcome| FromServer::Outcome(77, outcome);
        let part = Part { offset: 1, size: 2, at: Some(3) };
        vec![
            outcome(Outcome::Opened { file: 1, inode: 2, domain: Domain::CpuCache, host_sync: true }),
            outcome(Outcome::Opened {
                file: 1,
                inode: 2,
                domain: Domain::MemoryController,
                host_sync: false,
            }),
            outcome(Outcome::Opened { file: 1, inode: 2, domain: Domain::Volatile, host_sync: false }),
            outcome(Outcome::Mapped { lease: 2, is_direct: true }),
            outcome(Outcome::Mapped { lease: 2, is_direct: false }),
            outcome(Outcome::Leased { lease: 6 }),
            outcome(Outcome::Done),
            FromServer::Data {
                number: 7,
                lease: 3,
                epoch: 4,
                size: 5,
                right: Right::Read,
                is_settled: true,
                parts: vec![],
            },
            FromServer::Data {
                number: 7,
                lease: 3,
                epoch: 4,
                size: 5,
                right: Right::Write,
                is_settled: false,
                parts: vec![part; 2],
            },
            FromServer::Data {
                number: 7,
                lease: 3,
                epoch: 4,
                size: 5,
                right: Right::Append { word: 8 },
                is_settled: true,
                parts: vec![part],
            },
            outcome(Outcome::Refused(28)),
            FromServer::Granted { lease: 3, epoch: 4, parts: vec![] },
            FromServer::Granted { lease: 3, epoch: 4, parts: vec![part, Part { at: None, ..part }] },
            FromServer::Granted { lease: 3, epoch: 4, parts: vec![part; PARTS_MAX] },
            FromServer::Nothing { lease: 5, epoch: 6, offset: 7, errno: 28 },
            FromServer::Buffered { lease: 8, epoch: 9, offset: 10 },
            FromServer::Again { lease: 8, offset: 10 },
            FromServer::Recall { lease: 8, epoch: 9, offset: 10, end: u64::MAX },
        ]
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        for message in all() {
            let bytes = message.bytes();
            assert!(bytes.len() <= MESSAGE_MAX);
            assert_eq!(FromServer::parse(&bytes), Ok(message));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for message in all() {
            let good = message.bytes();
            for cut in [0, 1, 55, good.len() - 1] {
                assert_eq!(FromServer::parse(&good[..cut]), Err(Malformed), "{message:?}");
            }
            let mut longer = good.clone();
            longer.extend([0; 24]);
            assert_eq!(FromServer::parse(&longer), Err(Malformed));
            for (at, value) in [(0, 9), (4, 0), (4, 12)] {
                let mut bad = good.clone();
                bad[at] = value;
                assert_eq!(FromServer::parse(&bad), Err(Malformed), "{message:?}");
            }
        }
        let mut too_many = FromServer::Granted { lease: 3, epoch: 4, parts: vec![] }.bytes();
        too_many[52] = 17;
        too_many.extend([0; 17 * 24]);
        assert_eq!(FromServer::parse(&too_many), Err(Malformed));
    }
}
