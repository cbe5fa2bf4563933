//! The ioctl that asks about and sets direct access ([`DAX_IOCTL`]), on an open file or directory of a mount.
//!
//! Programs that only set or read the flag use the standard ioctls (`FS_IOC_FSSETXATTR`); this one also says what has become of
//! it, and can be told to change nothing if that is not immediate.

use alloc::vec::Vec;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::Malformed;

/// `_IOWR('l', 0xd0, struct Message)`: the argument is a [`Message`], which is overwritten with the answer.
///
/// Errors: EINVAL for what is not a regular file or directory, or a message of another version; EPERM for setting by others than
/// the owner and root, and for immutable files; EBUSY if it should be at once, and others hold the file; EOPNOTSUPP if it should be at
/// once, and the mount's option or the medium decides otherwise; EROFS.
pub const DAX_IOCTL: u32 = 3 << 30 | (size_of::<Message>() as u32) << 16 | (b'l' as u32) << 8 | 0xd0;

/// The extended attribute of a regular file that says how it is reached now: `direct` or `buffered`. It is not listed, and cannot be set. (The
/// kernel lets everybody read attributes of the system who can reach the file by name.)
pub const EFFECT_ATTRIBUTE: &str = "system.lodefs.dax";

/// The version of the messages here.
pub const VERSION: u32 = 1;

/// Holders that one answer names; more are only counted.
pub const HOLDERS_MAX: usize = 250;

/// Question and answer. Zero where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Message {
    version: u32,
    /// Question: 0 to ask, 1 to set the flag, 2 to clear it.
    operation: u32,
    /// Question: 0 to let it be pending, 1 to change nothing unless it takes effect at once, 2 to take mappings by programs back for
    /// that.
    how: u32,
    /// Answer: 1 if the flag is set.
    flag: u32,
    /// Answer: 0 there is none (a directory), 1 direct, 2 buffered.
    effect: u32,
    /// Answer: 0 the flag decides about the effect, 1 the mount option, 2 the medium, 3 holders.
    reason: u32,
    /// Answer: how many hold the file.
    holders_count: u32,
    reserved: u32,
    /// Answer: of each, the process, and by what it holds the file: 1 an open file, 2 a mapping, 3 one made with `MAP_SYNC`, 4 a
    /// read or write.
    holders: [[u32; 2]; HOLDERS_MAX],
}

const _: () = assert!(size_of::<Message>() == 2032);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// To be told how it is.
    Ask,
    /// To set or clear the flag.
    Set {
        /// Set.
        on: bool,
        /// What if it cannot take effect at once.
        how: How,
    },
}

/// What if a flag cannot take effect at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It takes effect when the last holder has gone.
    Pending,
    /// EBUSY, and no change.
    Now,
    /// Mappings by attached programs are taken back; EBUSY, and no change, if that is not enough.
    Revoke,
}

/// How programs reach the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A directory has no bytes of its own.
    None,
    /// Without a cache in between.
    Direct,
    /// Perhaps through a cache.
    Buffered,
}

/// What decided about the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The flag.
    Flag,
    /// The mount option `dax`.
    Option,
    /// The medium.
    Medium,
    /// Those who hold the file: until they go, the effect stays what it was.
    Holders,
}

/// What somebody holds a file by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderKind {
    /// An open file.
    OpenFile,
    /// A mapping.
    Mapping,
    /// A mapping made with `MAP_SYNC`.
    SyncMapping,
    /// A read or write under way.
    Io,
}

/// Somebody who holds a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process, or 0 if it is not known.
    pub pid: u32,
    /// By what.
    pub kind: HolderKind,
}

/// How it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the flag is set.
    pub flag: bool,
    /// How the file is reached now.
    pub effect: Effect,
    /// What decided about that.
    pub reason: Reason,
    /// Number of holders: [`Self::holders`] may be fewer.
    pub holders_count: u32,
    /// Holders, at most [`HOLDERS_MAX`].
    pub holders: Vec<Holder>,
}

impl Request {
    /// The message to send.
    pub fn message(self) -> Message {
        let (operation, how) = match self {
            Self::Ask => (0, How::Pending),
            Self::Set { on: true, how } => (1, how),
            Self::Set { on: false, how } => (2, how),
        };
        let how = match how {
            How::Pending => 0,
            How::Now => 1,
            How::Revoke => 2,
        };
        Message { version: VERSION, operation, how, ..Message::new_zeroed() }
    }

    /// What was received.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let message = Message::read_from_bytes(bytes).map_err(|_| Malformed)?;
        let how = match message.how {
            0 => How::Pending,
            1 => How::Now,
            2 => How::Revoke,
            _ => return Err(Malformed),
        };
        match (message.version, message.operation) {
            (VERSION, 0) => Ok(Self::Ask),
            (VERSION, operation @ (1 | 2)) => Ok(Self::Set { on: operation == 1, how }),
            _ => Err(Malformed),
        }
    }
}

impl Answer {
    /// The message to send.
    pub fn message(&self) -> Message {
        let mut message = Message {
            version: VERSION,
            flag: self.flag.into(),
            effect: match self.effect {
                Effect::None => 0,
                Effect::Direct => 1,
                Effect::Buffered => 2,
            },
            reason: match self.reason {
                Reason::Flag => 0,
                Reason::Option => 1,
                Reason::Medium => 2,
                Reason::Holders => 3,
            },
            holders_count: self.holders_count,
            ..Message::new_zeroed()
        };
        for (raw, holder) in message.holders.iter_mut().zip(&self.holders) {
            let kind = match holder.kind {
                HolderKind::OpenFile => 1,
                HolderKind::Mapping => 2,
                HolderKind::SyncMapping => 3,
                HolderKind::Io => 4,
            };
            *raw = [holder.pid, kind];
        }
        message
    }

    /// What was received.
    pub fn parse(message: &Message) -> Result<Self, Malformed> {
        let holder = |&[pid, kind]: &[u32; 2]| {
            let kind = match kind {
                1 => HolderKind::OpenFile,
                2 => HolderKind::Mapping,
                3 => HolderKind::SyncMapping,
                4 => HolderKind::Io,
                _ => return Err(Malformed),
            };
            Ok(Holder { pid, kind })
        };
        let named = (message.holders_count as usize).min(HOLDERS_MAX);
        Ok(Self {
            flag: match (message.version, message.flag) {
                (VERSION, flag @ (0 | 1)) => flag == 1,
                _ => return Err(Malformed),
            },
            effect: match message.effect {
                0 => Effect::None,
                1 => Effect::Direct,
                2 => Effect::Buffered,
                _ => return Err(Malformed),
            },
            reason: match message.reason {
                0 => Reason::Flag,
                1 => Reason::Option,
                2 => Reason::Medium,
                3 => Reason::Holders,
                _ => return Err(Malformed),
            },
            holders_count: message.holders_count,
            holders: message.holders[..named].iter().map(holder).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_direction_and_size() {
        assert_eq!(DAX_IOCTL, 0xc7f0_6cd0);
    }

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        assert_eq!(Request::parse(Request::Ask.message().as_bytes()), Ok(Request::Ask));
        for on in [true, false] {
            for how in [How::Pending, How::Now, How::Revoke] {
                let request = Request::Set { on, how };
                assert_eq!(Request::parse(request.message().as_bytes()), Ok(request));
            }
        }
    }

    #[test]
    fn an_answer_arrives_as_it_was_sent() {
        let kinds = [HolderKind::OpenFile, HolderKind::Mapping, HolderKind::SyncMapping, HolderKind::Io];
        let holders: Vec<Holder> = kinds.iter().map(|kind| Holder { pid: 77, kind: *kind }).collect();
        for effect in [Effect::None, Effect::Direct, Effect::Buffered] {
            for reason in [Reason::Flag, Reason::Option, Reason::Medium, Reason::Holders] {
                let answer =
                    Answer { flag: true, effect, reason, holders_count: 4, holders: holders.clone() };
                assert_eq!(Answer::parse(&answer.message()), Ok(answer));
            }
        }
    }

    #[test]
    fn more_holders_than_there_is_room_for_are_counted() {
        let one = Holder { pid: 1, kind: HolderKind::Io };
        let many = Answer {
            flag: false,
            effect: Effect::Buffered,
            reason: Reason::Holders,
            holders_count: 1000,
            holders: alloc::vec![one; 1000],
        };
        let arrived = Answer::parse(&many.message()).unwrap();
        assert_eq!((arrived.holders_count, arrived.holders.len()), (1000, HOLDERS_MAX));
    }

    #[test]
    fn nonsense_is_refused() {
        let good = Request::Set { on: true, how: How::Now }.message();
        let bad = [
            Message { version: 2, ..good },
            Message { operation: 3, ..good },
            Message { how: 3, ..good },
            Message { version: 0, ..good },
        ];
        for message in bad {
            assert_eq!(Request::parse(message.as_bytes()), Err(Malformed));
        }
        assert_eq!(Request::parse(&good.as_bytes()[1..]), Err(Malformed));
        let answer = Answer {
            flag: true,
            effect: Effect::Direct,
            reason: Reason::Flag,
            holders_count: 1,
            holders: alloc::vec![Holder { pid: 1, kind: HolderKind::Io }],
        };
        let good = answer.message();
        let mut unknown_holder = good;
        unknown_holder.holders[0][1] = 9;
        let bad = [
            Message { version: 7, ..good },
            Message { flag: 2, ..good },
            Message { effect: 3, ..good },
            Message { reason: 4, ..good },
            unknown_holder,
        ];
        for message in bad {
            assert_eq!(Answer::parse(&message), Err(Malformed));
        }
    }
}
