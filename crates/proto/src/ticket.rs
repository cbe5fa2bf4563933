//! The ioctl that proves a program's right to a file ([`TICKET_IOCTL`]): a one-time *ticket* for one that it has opened.
//!
//! The kernel has decided who may open the file, and how; the server of the mount remembers that for each open file. A ticket is
//! good for that file, that access and that process, for a few seconds, and once.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::Malformed;

/// `_IOWR('l', 0xd1, struct Message)`: the argument is a [`Message`], which is overwritten with the answer.
///
/// Errors: EINVAL for what is not a regular file, or a message of another version; EPERM if the mount lets nobody like the caller
/// attach; EOPNOTSUPP if nothing on this medium can be reached directly; EAGAIN if too many tickets wait to be used.
pub const TICKET_IOCTL: u32 = 3 << 30 | (size_of::<Message>() as u32) << 16 | (b'l' as u32) << 8 | 0xd1;

/// A flag of open(2) that means nothing for files (`O_ASYNC`, of Linux on x86 and ARM). To this server it means: when a descriptor of
/// this open file is closed, by whomever and in whatever way, and before that returns, what programs have been lent of the file's content
/// is taken back (see `docs/PROTOCOL.md`).
pub const TELLS_WHEN_CLOSED: u32 = 0o20_000;

/// The version of the message here.
pub const VERSION: u32 = 1;

/// Bytes of a ticket: too many to be guessed.
pub const TICKET_SIZE: usize = 16;

/// Longest name of a server's socket.
pub const NAME_MAX: usize = 64;

/// Question and answer. Zero where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Message {
    version: u32,
    /// Answer: bytes of the name.
    name_size: u32,
    /// Answer.
    ticket: [u8; TICKET_SIZE],
    /// Answer: the name of the server's socket, in the abstract name space.
    name: [u8; NAME_MAX],
}

const _: () = assert!(size_of::<Message>() == 88);

/// The right to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub [u8; TICKET_SIZE]);

/// What a program is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To be shown to the server.
    pub ticket: Ticket,
    name_size: usize,
    name: [u8; NAME_MAX],
}

impl Message {
    /// The message that asks.
    pub fn question() -> Self {
        Self { version: VERSION, ..Self::new_zeroed() }
    }

    /// Whether what was received asks for a ticket.
    pub fn check_question(bytes: &[u8]) -> Result<(), Malformed> {
        match Self::read_from_bytes(bytes) {
            Ok(message) if message == Self::question() => Ok(()),
            _ => Err(Malformed),
        }
    }
}

impl Answer {
    /// An answer. The name is at most [`NAME_MAX`] bytes long, and not empty.
    pub fn new(ticket: Ticket, name: &[u8]) -> Result<Self, Malformed> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Malformed);
        }
        let mut padded = [0; NAME_MAX];
        padded[..name.len()].copy_from_slice(name);
        Ok(Self { ticket, name_size: name.len(), name: padded })
    }

    /// The name of the server's socket, in the abstract name space.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.name_size]
    }

    /// The message to send.
    pub fn message(&self) -> Message {
        let Self { ticket, name_size, name } = *self;
        Message { version: VERSION, name_size: name_size as u32, ticket: ticket.0, name }
    }

    /// What was received.
    pub fn parse(message: &Message) -> Result<Self, Malformed> {
        let name = message.name.get(..message.name_size as usize).ok_or(Malformed)?;
        if message.version != VERSION {
            return Err(Malformed);
        }
        Self::new(Ticket(message.ticket), name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_direction_and_size() {
        assert_eq!(TICKET_IOCTL, 0xc058_6cd1);
    }

    #[test]
    fn only_the_question_asks() {
        let question = Message::question();
        assert_eq!(Message::check_question(question.as_bytes()), Ok(()));
        let newer = Message { version: VERSION + 1, ..question };
        assert_eq!(Message::check_question(newer.as_bytes()), Err(Malformed));
        assert_eq!(Message::check_question(&question.as_bytes()[1..]), Err(Malformed));
    }

    #[test]
    fn an_answer_arrives_as_it_was_sent() {
        for name in [b"x".as_slice(), &[b'y'; NAME_MAX]] {
            let answer = Answer::new(Ticket([7; TICKET_SIZE]), name).unwrap();
            let arrived = Answer::parse(&answer.message()).unwrap();
            assert_eq!((arrived, arrived.name()), (answer, name));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = Answer::new(Ticket([7; TICKET_SIZE]), b"name").unwrap().message();
        for bad in [
            Message { version: 0, ..good },
            Message { name_size: 0, ..good },
            Message { name_size: NAME_MAX as u32 + 1, ..good },
            Message { name_size: u32::MAX, ..good },
        ] {
            assert_eq!(Answer::parse(&bad), Err(Malformed));
        }
        assert_eq!(Answer::new(Ticket([0; TICKET_SIZE]), b""), Err(Malformed));
    }
}
