//! The ioctls by which programs read and set the persistent flags of an inode.
//!
//! The kernel has checked the caller (owner or `CAP_FOWNER`, `CAP_LINUX_IMMUTABLE`) and passes on regular files and
//! directories only. Arguments are in the byte order of the machine, as `linux/fs.h` has them.

use lodefs_core::{Attr, DaxReason, DaxStatus, Effect, Flags, HolderKind, Kind, Result};
use lodefs_proto::dax::{self, DAX_IOCTL};
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::caller;

/// `_IOR('f', 1, long)`: read the flags in the form of chattr(1).
const GET_FLAGS: u32 = 0x8008_6601;
/// `_IOW('f', 2, long)`: set them.
const SET_FLAGS: u32 = 0x4008_6602;
/// `_IOR('X', 31, struct fsxattr)`: read the extended flags.
const GET_XATTR: u32 = 0x801c_581f;
/// `_IOW('X', 32, struct fsxattr)`: set them.
const SET_XATTR: u32 = 0x401c_5820;

/// `FS_XFLAG_HASATTR`: shown by some file systems, and ignored when it is passed back in.
const HAS_ATTR: u32 = 0x8000_0000;

/// `struct fsxattr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct ExtendedFlags {
    flags: u32,
    /// Allocation hint in bytes; there is none here.
    extent_size: u32,
    /// Number of extents, in answers only.
    extents: u32,
    project: u32,
    /// Allocation hint for copied extents; there is none here.
    copy_extent_size: u32,
    reserved: [u8; 8],
}

const _: () = assert!(size_of::<ExtendedFlags>() == 28);

/// The form of chattr(1) beside the engine's, which is that of `FS_XFLAG_*`.
const CHATTR: [(u32, Flags); 7] = [
    (0x0000_0008, Flags::SYNC),
    (0x0000_0010, Flags::IMMUTABLE),
    (0x0000_0020, Flags::APPEND),
    (0x0000_0040, Flags::NODUMP),
    (0x0000_0080, Flags::NOATIME),
    (0x0200_0000, Flags::DAX),
    (0x2000_0000, Flags::PROJINHERIT),
];

/// What an ioctl asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// To be told the flags, in one form or the other.
    Get(Form),
    /// To change them.
    Set {
        /// The flags from now on.
        flags: Flags,
        /// The project identifier, if the form has one.
        project: Option<u32>,
    },
    /// To be told about direct access, or to set it, and to be told then.
    Dax(dax::Request),
}

/// The two forms of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One word, as chattr(1) uses.
    Chattr,
    /// `struct fsxattr`.
    Extended,
}

impl Request {
    /// Reads a command and its argument; ENOTTY if it is none of these.
    pub(crate) fn parse(command: u32, argument: &[u8]) -> Result<Self> {
        match command {
            GET_FLAGS => Ok(Self::Get(Form::Chattr)),
            GET_XATTR => Ok(Self::Get(Form::Extended)),
            SET_FLAGS => {
                let (bits, _) = u32::read_from_prefix(argument).map_err(|_| Errno::INVAL)?;
                Ok(Self::Set { flags: from_chattr(bits)?, project: None })
            }
            SET_XATTR => {
                let (wanted, _) = ExtendedFlags::read_from_prefix(argument).map_err(|_| Errno::INVAL)?;
                Ok(Self::Set { flags: from_extended(&wanted)?, project: Some(wanted.project) })
            }
            DAX_IOCTL => Ok(Self::Dax(dax::Request::parse(argument).map_err(|_| Errno::INVAL)?)),
            _ => Err(Errno::NOTTY.into()),
        }
    }
}

/// The answer to [`Request::Get`].
pub(crate) fn answer(form: Form, attr: &Attr) -> Vec<u8> {
    match form {
        Form::Chattr => to_chattr(attr.flags).to_ne_bytes().to_vec(),
        Form::Extended => ExtendedFlags {
            flags: attr.flags.bits(),
            extent_size: 0,
            extents: 0,
            project: attr.project,
            copy_extent_size: 0,
            reserved: [0; 8],
        }
        .as_bytes()
        .to_vec(),
    }
}

/// The answer to [`Request::Dax`].
pub(crate) fn dax_answer(status: &DaxStatus) -> Vec<u8> {
    let holders = status.holders.iter().take(dax::HOLDERS_MAX).map(|holder| dax::Holder {
        pid: caller::process_of(holder.pid),
        kind: match holder.kind {
            HolderKind::OpenFile => dax::HolderKind::OpenFile,
            HolderKind::Mapping { sync: false } => dax::HolderKind::Mapping,
            HolderKind::Mapping { sync: true } => dax::HolderKind::SyncMapping,
            HolderKind::Io => dax::HolderKind::Io,
        },
    });
    let answer = dax::Answer {
        flag: status.flag,
        effect: match status.effect {
            None => dax::Effect::None,
            Some(Effect::Direct) => dax::Effect::Direct,
            Some(Effect::Buffered) => dax::Effect::Buffered,
        },
        reason: match status.reason {
            DaxReason::Flag => dax::Reason::Flag,
            DaxReason::Policy => dax::Reason::Option,
            DaxReason::Medium => dax::Reason::Medium,
            DaxReason::Holders => dax::Reason::Holders,
        },
        holders_count: status.holders.len() as u32,
        holders: holders.collect(),
    };
    answer.message().as_bytes().to_vec()
}

/// Refuses inodes that have no flags.
pub(crate) fn check_kind(kind: Kind) -> Result<()> {
    if matches!(kind, Kind::File | Kind::Directory) { Ok(()) } else { Err(Errno::INVAL.into()) }
}

fn from_extended(wanted: &ExtendedFlags) -> Result<Flags> {
    if wanted.extent_size != 0 || wanted.copy_extent_size != 0 {
        return Err(Errno::OPNOTSUPP.into());
    }
    Ok(Flags::from_bits(wanted.flags & !HAS_ATTR).ok_or(Errno::OPNOTSUPP)?)
}

fn from_chattr(bits: u32) -> Result<Flags> {
    let mut unknown = bits;
    let mut flags = Flags::empty();
    for (bit, flag) in CHATTR {
        if bits & bit != 0 {
            flags |= flag;
            unknown &= !bit;
        }
    }
    if unknown == 0 { Ok(flags) } else { Err(Errno::OPNOTSUPP.into()) }
}

fn to_chattr(flags: Flags) -> u32 {
    CHATTR.iter().filter(|(_, flag)| flags.contains(*flag)).fold(0, |bits, (bit, _)| bits | bit)
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn every_flag_has_both_forms() {
        assert_eq!(from_chattr(to_chattr(Flags::all())).unwrap(), Flags::all());
    }

    #[test]
    fn dax_is_the_bit_that_programs_know() {
        assert_eq!(to_chattr(Flags::DAX), 0x0200_0000);
        assert_eq!(Flags::DAX.bits(), 0x8000);
    }

    #[test]
    fn a_set_without_dax_clears_it() {
        let parsed = Request::parse(SET_FLAGS, &0u32.to_ne_bytes()).unwrap();
        assert_eq!(parsed, Request::Set { flags: Flags::empty(), project: None });
    }

    fn set_extended(change: impl FnOnce(&mut ExtendedFlags)) -> Result<Request> {
        let mut wanted = ExtendedFlags::new_zeroed();
        change(&mut wanted);
        Request::parse(SET_XATTR, wanted.as_bytes())
    }

    #[test]
    fn unknown_bits_and_hints_are_refused() {
        for outcome in [
            Request::parse(SET_FLAGS, &0x0008_0000_u32.to_ne_bytes()),
            set_extended(|wanted| wanted.flags = 0x0001_0000),
            set_extended(|wanted| wanted.extent_size = 4096),
        ] {
            assert_eq!(outcome.unwrap_err().errno(), Errno::OPNOTSUPP);
        }
    }

    #[test]
    fn has_attr_is_ignored() {
        let parsed = set_extended(|wanted| {
            wanted.flags = HAS_ATTR | 0x8000;
            wanted.project = 7;
        });
        assert_eq!(parsed.unwrap(), Request::Set { flags: Flags::DAX, project: Some(7) });
    }

    #[test]
    fn short_arguments_and_other_commands_are_refused() {
        assert_eq!(Request::parse(SET_XATTR, &[0; 27]).unwrap_err().errno(), Errno::INVAL);
        assert_eq!(Request::parse(SET_FLAGS, &[0; 3]).unwrap_err().errno(), Errno::INVAL);
        assert_eq!(Request::parse(0x1234, &[]).unwrap_err().errno(), Errno::NOTTY);
    }
}
