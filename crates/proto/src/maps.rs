//! What a program tells about the files that it has mapped, to whoever connects to its socket of the name that [`socket_name`] gives
//! (abstract, `SOCK_STREAM`): one [`Census`], and then the end. It tells root and its own user, and asks nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Malformed;

/// The version of the messages here.
pub const VERSION: u32 = 1;

/// Most bytes of one message.
pub const MESSAGE_MAX: usize = 64 << 20;

/// What all names of such sockets begin with.
pub const SOCKET_PREFIX: &str = "lodefs-maps/";

/// Names that a process tries for its socket, if others have the first ones.
pub const ATTEMPTS_MAX: u32 = 64;

/// Most bytes of a file's name.
const NAME_MAX: usize = 4096;

/// The name of the socket of process `pid`, in its own name space of processes; by `attempt`, should others have the first ones.
pub fn socket_name(pid: u32, attempt: u32) -> String {
    format!("{SOCKET_PREFIX}{pid}/{attempt}")
}

/// What a process has mapped of files of lodefs, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// The files.
    pub files: Vec<File>,
    /// By address.
    pub ranges: Vec<Range>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Which one.
    pub id: FileId,
    /// What it is called now, if that is known.
    pub name: Option<Vec<u8>>,
}

/// By what a file is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileId {
    /// In the tree of names.
    Host {
        /// `st_dev` of stat(2).
        device: u64,
        /// `st_ino`.
        inode: u64,
    },
    /// In a volume that the program has opened by itself.
    Volume {
        /// The volume's UUID.
        volume: [u8; 16],
        /// The number of the inode.
        inode: u64,
    },
}

/// Addresses that are one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first address.
    pub start: u64,
    /// Behind the last one.
    pub end: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Which of [`Census::files`].
    pub file: u32,
    /// What it is.
    pub kind: Kind,
    /// Whether it may be stored to.
    pub writable: bool,
    /// Whether what is flushed from user space needs no fsync, as with `MAP_SYNC`.
    pub sync: bool,
    /// What makes stores to it durable.
    pub durable_by: DurableBy,
    /// Whether system calls may touch it where nothing is mapped yet. Else they fail with EFAULT there.
    pub serves_system_calls: bool,
    /// With what pages the kernel has mapped it; `None` if it does not say.
    pub pages: Option<Pages>,
}

/// What a range of addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The medium.
    Direct,
    /// A hole of a direct file: the zeroes that are seen there.
    Hole,
    /// The page cache of the kernel.
    Buffered,
    /// Nothing yet: the first access decides.
    Untouched,
    /// It lies beyond the end of the file, or there was no room for it: an access raises SIGBUS.
    Failing,
}

/// What makes stores durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurableBy {
    /// Nothing does.
    Nothing,
    /// A fence.
    Fence,
    /// Writing cache lines back, and a fence.
    Flush,
    /// `msync`.
    Msync,
}

/// With what pages a range is mapped. What is in neither count has not been touched since it was mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Bytes in pages of the usual size (4 KiB).
    pub base: u64,
    /// Bytes in huge pages (2 MiB).
    pub huge: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Head {
    version: u32,
    files: u32,
    ranges: u32,
    reserved: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawFile {
    device: u64,
    inode: u64,
    volume: [u8; 16],
    bits: u32,
    name_size: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawRange {
    start: u64,
    end: u64,
    offset: u64,
    base: u64,
    huge: u64,
    file: u32,
    kind: u32,
    durable_by: u32,
    bits: u32,
}

const OF_VOLUME: u32 = 1;
const NAMED: u32 = 2;

const WRITABLE: u32 = 1;
const SYNC: u32 = 2;
const PAGES: u32 = 4;
const SERVES_SYSTEM_CALLS: u32 = 8;

const KINDS: [Kind; 5] = [Kind::Direct, Kind::Hole, Kind::Buffered, Kind::Untouched, Kind::Failing];
const WAYS: [DurableBy; 4] = [DurableBy::Nothing, DurableBy::Fence, DurableBy::Flush, DurableBy::Msync];

impl Census {
    /// The message to send. A name that is too long is left out.
    pub fn bytes(&self) -> Vec<u8> {
        let head = Head {
            version: VERSION,
            files: self.files.len() as u32,
            ranges: self.ranges.len() as u32,
            reserved: 0,
        };
        let mut bytes = head.as_bytes().to_vec();
        for file in &self.files {
            let name = file.name.as_deref().filter(|name| name.len() <= NAME_MAX);
            bytes.extend_from_slice(RawFile::new(file.id, name).as_bytes());
            bytes.extend_from_slice(name.unwrap_or_default());
        }
        for range in &self.ranges {
            bytes.extend_from_slice(RawRange::new(range).as_bytes());
        }
        bytes
    }

    /// What was received: whole, and nothing behind it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (head, mut rest) = Head::read_from_prefix(bytes).map_err(|_| Malformed)?;
        if head.version != VERSION || head.reserved != 0 {
            return Err(Malformed);
        }
        let mut census = Self::default();
        for _ in 0..head.files {
            let (raw, behind) = RawFile::read_from_prefix(rest).map_err(|_| Malformed)?;
            let size = raw.name_size as usize;
            let name = behind.get(..size).filter(|_| size <= NAME_MAX).ok_or(Malformed)?;
            census.files.push(raw.parse(name)?);
            rest = &behind[size..];
        }
        for _ in 0..head.ranges {
            let (raw, behind) = RawRange::read_from_prefix(rest).map_err(|_| Malformed)?;
            let range = raw.parse(head.files)?;
            if census.ranges.last().is_some_and(|last: &Range| range.start < last.end) {
                return Err(Malformed);
            }
            census.ranges.push(range);
            rest = behind;
        }
        if rest.is_empty() { Ok(census) } else { Err(Malformed) }
    }
}

impl RawFile {
    fn new(id: FileId, name: Option<&[u8]>) -> Self {
        let named = if name.is_some() { NAMED } else { 0 };
        let name_size = name.map_or(0, <[u8]>::len) as u32;
        match id {
            FileId::Host { device, inode } => Self { device, inode, volume: [0; 16], bits: named, name_size },
            FileId::Volume { volume, inode } => {
                Self { device: 0, inode, volume, bits: named | OF_VOLUME, name_size }
            }
        }
    }

    fn parse(&self, name: &[u8]) -> Result<File, Malformed> {
        let id = if self.bits & OF_VOLUME == 0 {
            FileId::Host { device: self.device, inode: self.inode }
        } else {
            FileId::Volume { volume: self.volume, inode: self.inode }
        };
        let name = (self.bits & NAMED != 0).then_some(name);
        // Whatever cannot be meant has been lost on the way.
        let is_sound = Self::new(id, name).as_bytes() == self.as_bytes();
        if is_sound { Ok(File { id, name: name.map(<[u8]>::to_vec) }) } else { Err(Malformed) }
    }
}

impl RawRange {
    fn new(range: &Range) -> Self {
        let bit = |is: bool, bit: u32| if is { bit } else { 0 };
        let pages = range.pages.unwrap_or_default();
        Self {
            start: range.start,
            end: range.end,
            offset: range.offset,
            base: pages.base,
            huge: pages.huge,
            file: range.file,
            kind: KINDS.iter().position(|kind| *kind == range.kind).unwrap_or(0) as u32,
            durable_by: WAYS.iter().position(|way| *way == range.durable_by).unwrap_or(0) as u32,
            bits: bit(range.writable, WRITABLE)
                | bit(range.sync, SYNC)
                | bit(range.serves_system_calls, SERVES_SYSTEM_CALLS)
                | bit(range.pages.is_some(), PAGES),
        }
    }

    fn parse(&self, files: u32) -> Result<Range, Malformed> {
        let range = Range {
            start: self.start,
            end: self.end,
            offset: self.offset,
            file: self.file,
            kind: *KINDS.get(self.kind as usize).ok_or(Malformed)?,
            writable: self.bits & WRITABLE != 0,
            sync: self.bits & SYNC != 0,
            serves_system_calls: self.bits & SERVES_SYSTEM_CALLS != 0,
            durable_by: *WAYS.get(self.durable_by as usize).ok_or(Malformed)?,
            pages: (self.bits & PAGES != 0).then_some(Pages { base: self.base, huge: self.huge }),
        };
        let size = self.end.checked_sub(self.start).filter(|size| *size > 0).ok_or(Malformed)?;
        let has_room = self.base.checked_add(self.huge).is_some_and(|mapped| mapped <= size);
        let ends = self.offset.checked_add(size).is_some();
        let is_sound = Self::new(&range).as_bytes() == self.as_bytes();
        if self.file < files && has_room && ends && is_sound { Ok(range) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn census() -> Census {
        let one = Range {
            start: 0x1000,
            end: 0x3000,
            offset: 0x7000,
            file: 1,
            kind: Kind::Direct,
            writable: true,
            sync: false,
            serves_system_calls: true,
            durable_by: DurableBy::Flush,
            pages: Some(Pages { base: 0x1000, huge: 0 }),
        };
        let other = Range {
            start: 0x3000,
            end: 0x4000,
            file: 0,
            kind: Kind::Failing,
            writable: false,
            sync: true,
            serves_system_calls: false,
            durable_by: DurableBy::Msync,
            pages: None,
            ..one
        };
        Census {
            files: vec![
                File { id: FileId::Host { device: 7, inode: 8 }, name: Some(b"/mnt/\xff".to_vec()) },
                File { id: FileId::Volume { volume: [9; 16], inode: 10 }, name: None },
            ],
            ranges: vec![one, other],
        }
    }

    #[test]
    fn a_census_arrives_as_it_was_sent() {
        for census in [census(), Census::default()] {
            assert_eq!(Census::parse(&census.bytes()), Ok(census));
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_left_out() {
        let mut census = census();
        census.files[0].name = Some(vec![b'x'; NAME_MAX + 1]);
        let arrived = Census::parse(&census.bytes()).unwrap();
        assert_eq!(arrived.files[0].name, None);
        assert_eq!(arrived.ranges, census.ranges);
    }

    #[test]
    fn nonsense_is_refused() {
        let good = census().bytes();
        for size in 0..good.len() {
            assert_eq!(Census::parse(&good[..size]), Err(Malformed), "{size}");
        }
        let longer = [&good[..], &[0]].concat();
        assert_eq!(Census::parse(&longer), Err(Malformed));
        let changes: [fn(&mut Census); 5] = [
            |census| census.ranges[1].start = 0x2000,
            |census| census.ranges[0].end = census.ranges[0].start,
            |census| census.ranges[0].file = 2,
            |census| census.ranges[0].pages = Some(Pages { base: 0x1000, huge: 0x1001 }),
            |census| census.ranges[0].offset = u64::MAX - 0x1000,
        ];
        for change in changes {
            let mut bad = census();
            change(&mut bad);
            assert_eq!(Census::parse(&bad.bytes()), Err(Malformed), "{bad:?}");
        }
        // The version, what is reserved, the bits of a file, a range's kind, its way to durability and its bits.
        let range = good.len() - size_of::<RawRange>();
        for at in [0, 12, size_of::<Head>() + 32, range + 44, range + 48, range + 52] {
            let mut bad = good.clone();
            bad[at] |= 0x88;
            assert_eq!(Census::parse(&bad), Err(Malformed), "{at}");
        }
    }
}
