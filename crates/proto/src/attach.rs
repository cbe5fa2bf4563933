//! What an attached program says to the server of a mount, on a socket that keeps messages apart (`SOCK_SEQPACKET`).
//!
//! Every message is one [`Raw`]; what its fields mean depends on its kind. What a request is answered with is in [`crate::server`].

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::Malformed;
use crate::ticket::{TICKET_SIZE, Ticket};

/// The version of the messages here and in [`crate::server`].
pub const VERSION: u32 = 1;

/// A message as it is sent. Zero where its kind says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Raw {
    version: u32,
    kind: u32,
    number: u64,
    object: u64,
    offset: u64,
    size: u64,
    bits: u64,
    ticket: [u8; TICKET_SIZE],
}

const _: () = assert!(size_of::<Raw>() == 64);

/// What a program asks for, to be answered once with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Shows its right to a file.
    Open {
        /// From [`crate::ticket`].
        ticket: Ticket,
    },
    /// Has no more use for a file.
    Close {
        /// From the answer to `Open`.
        file: u64,
    },
    /// Maps a part of a file.
    Map {
        /// From the answer to `Open`.
        file: u64,
        /// First byte: a multiple of 4096.
        offset: u64,
        /// Bytes: a multiple of 4096, not 0.
        size: u64,
        /// To store to it.
        writable: bool,
        /// As with `MAP_SYNC`.
        sync: bool,
    },
    /// Wants to read, or also to write, a file by itself.
    Lease {
        /// From the answer to `Open`.
        file: u64,
        /// To write.
        writable: bool,
    },
    /// Asks for the content of a file.
    Take {
        /// From the answer to `Lease`.
        lease: u64,
        /// The byte that it wants first.
        offset: u64,
        /// To change it. Else to read it.
        write: bool,
    },
    /// Asks for the content of a file, to change it, and for blocks behind its end, to append.
    Reserve {
        /// From the answer to `Lease`.
        lease: u64,
        /// The byte that it wants first.
        offset: u64,
        /// Bytes that the file is to have at least.
        end: u64,
    },
    /// Has unmapped it, or does not read and write it by itself any more.
    Return {
        /// From the answer to `Map` or `Lease`.
        lease: u64,
    },
    /// Has stored to a mapping, or is about to write, and wants that to show in the file's times.
    Changed {
        /// From the answer to `Map` or `Lease`.
        lease: u64,
    },
}

/// What a program says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromProgram {
    /// A request, with a number of the program's choice.
    Ask(u64, Ask),
    /// A page that is not mapped was touched. Answered with what may be mapped, or that there is nothing.
    Touch {
        /// Which mapping.
        lease: u64,
        /// Byte of the file.
        offset: u64,
        /// Bytes of a hole that may be decided at once: a power of two from 4096 to 2 MiB.
        window: u64,
        /// To store to it.
        write: bool,
    },
    /// What was recalled is not mapped, read or written any more.
    Answer {
        /// Which mapping, or file.
        lease: u64,
        /// The number of the recall.
        epoch: u64,
    },
}

const OPEN: u32 = 1;
const CLOSE: u32 = 2;
const MAP: u32 = 3;
const RETURN: u32 = 4;
const CHANGED: u32 = 5;
const TOUCH: u32 = 6;
const ANSWER: u32 = 7;
const LEASE: u32 = 8;
const TAKE: u32 = 9;
const RESERVE: u32 = 10;

const WRITE: u64 = 1;
const SYNC: u64 = 2;

impl FromProgram {
    /// The message to send.
    pub fn raw(&self) -> Raw {
        let raw = Raw { version: VERSION, ..Raw::new_zeroed() };
        let bit = |is: bool, bit: u64| if is { bit } else { 0 };
        match *self {
            Self::Ask(number, Ask::Open { ticket }) => Raw { kind: OPEN, number, ticket: ticket.0, ..raw },
            Self::Ask(number, Ask::Close { file }) => Raw { kind: CLOSE, number, object: file, ..raw },
            Self::Ask(number, Ask::Map { file, offset, size, writable, sync }) => {
                let bits = bit(writable, WRITE) | bit(sync, SYNC);
                Raw { kind: MAP, number, object: file, offset, size, bits, ..raw }
            }
            Self::Ask(number, Ask::Lease { file, writable }) => {
                Raw { kind: LEASE, number, object: file, bits: bit(writable, WRITE), ..raw }
            }
            Self::Ask(number, Ask::Take { lease, offset, write }) => {
                Raw { kind: TAKE, number, object: lease, offset, bits: bit(write, WRITE), ..raw }
            }
            Self::Ask(number, Ask::Reserve { lease, offset, end }) => {
                Raw { kind: RESERVE, number, object: lease, offset, size: end, ..raw }
            }
            Self::Ask(number, Ask::Return { lease }) => Raw { kind: RETURN, number, object: lease, ..raw },
            Self::Ask(number, Ask::Changed { lease }) => Raw { kind: CHANGED, number, object: lease, ..raw },
            Self::Touch { lease, offset, window, write } => {
                Raw { kind: TOUCH, object: lease, offset, size: window, bits: bit(write, WRITE), ..raw }
            }
            Self::Answer { lease, epoch } => Raw { kind: ANSWER, object: lease, size: epoch, ..raw },
        }
    }

    /// What was received: exactly what [`Self::raw`] gives.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let raw = Raw::read_from_bytes(bytes).map_err(|_| Malformed)?;
        let Raw { number, object, offset, size, bits, .. } = raw;
        let (write, sync) = (bits & WRITE != 0, bits & SYNC != 0);
        let message = match raw.kind {
            OPEN => Self::Ask(number, Ask::Open { ticket: Ticket(raw.ticket) }),
            CLOSE => Self::Ask(number, Ask::Close { file: object }),
            MAP => Self::Ask(number, Ask::Map { file: object, offset, size, writable: write, sync }),
            LEASE => Self::Ask(number, Ask::Lease { file: object, writable: write }),
            TAKE => Self::Ask(number, Ask::Take { lease: object, offset, write }),
            RESERVE => Self::Ask(number, Ask::Reserve { lease: object, offset, end: size }),
            RETURN => Self::Ask(number, Ask::Return { lease: object }),
            CHANGED => Self::Ask(number, Ask::Changed { lease: object }),
            TOUCH => Self::Touch { lease: object, offset, window: size, write },
            ANSWER => Self::Answer { lease: object, epoch: size },
            _ => return Err(Malformed),
        };
        // Anything that is set beside what the kind has belongs to another version.
        if message.raw() == raw { Ok(message) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [FromProgram; 14] {
        let ask = |ask| FromProgram::Ask(77, ask);
        let map = |writable, sync| ask(Ask::Map { file: 1, offset: 2, size: 3, writable, sync });
        [
            ask(Ask::Open { ticket: Ticket([9; TICKET_SIZE]) }),
            ask(Ask::Close { file: 5 }),
            map(true, false),
            map(false, true),
            ask(Ask::Lease { file: 4, writable: true }),
            ask(Ask::Lease { file: 4, writable: false }),
            ask(Ask::Take { lease: 4, offset: u64::MAX, write: true }),
            ask(Ask::Take { lease: 4, offset: 0, write: false }),
            ask(Ask::Reserve { lease: 4, offset: 8, end: u64::MAX }),
            ask(Ask::Return { lease: 6 }),
            ask(Ask::Changed { lease: 7 }),
            FromProgram::Touch { lease: 8, offset: u64::MAX, window: 4096, write: true },
            FromProgram::Touch { lease: 8, offset: 0, window: 4096, write: false },
            FromProgram::Answer { lease: 9, epoch: 10 },
        ]
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        for message in all() {
            assert_eq!(FromProgram::parse(message.raw().as_bytes()), Ok(message));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for message in all() {
            let good = message.raw();
            for bad in [
                Raw { version: 0, ..good },
                Raw { version: VERSION + 1, ..good },
                Raw { kind: 0, ..good },
                Raw { kind: 11, ..good },
                Raw { bits: good.bits | 4, ..good },
            ] {
                assert_eq!(FromProgram::parse(bad.as_bytes()), Err(Malformed), "{bad:?}");
            }
            assert_eq!(FromProgram::parse(&good.as_bytes()[..63]), Err(Malformed));
            let mut longer = good.as_bytes().to_vec();
            longer.push(0);
            assert_eq!(FromProgram::parse(&longer), Err(Malformed));
        }
        let answer = FromProgram::Answer { lease: 9, epoch: 10 }.raw();
        let with_ticket = Raw { ticket: [1; TICKET_SIZE], ..answer };
        assert_eq!(FromProgram::parse(with_ticket.as_bytes()), Err(Malformed));
    }
}
