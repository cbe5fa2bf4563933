//! POSIX access control lists, as in acl(5): the rules, on the bytes of the attributes `system.posix_acl_access`
//! and `system.posix_acl_default`.
//!
//! An [`Acl`] is always complete and valid: it is only made from bytes that follow the rules, or from another.
//! Nothing here touches an inode; the engine stores what these functions return.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The only version of the format that there is.
const VERSION: u32 = 2;
/// The identifier of entries that have none, and of nobody.
const NO_ID: u32 = u32::MAX;

const TAG_OWNER: u16 = 0x01;
const TAG_USER: u16 = 0x02;
const TAG_OWNING_GROUP: u16 = 0x04;
const TAG_GROUP: u16 = 0x08;
const TAG_MASK: u16 = 0x10;
const TAG_OTHER: u16 = 0x20;

/// Bits of a mode that an ACL is about: read, write and execute for owner, group and others.
const MODE_BITS: u32 = 0o777;

/// An entry of the attribute, behind the four bytes of the version.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    tag: U16,
    permissions: U16,
    id: U32,
}

const _: () = assert!(size_of::<RawEntry>() == 8);

/// Why bytes are not an ACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AclError {
    /// Another version of the format (`EOPNOTSUPP`).
    #[error("version {0} of the ACL format is not supported")]
    Version(u32),
    /// The size is not that of a number of entries (`EINVAL`).
    #[error("{0} bytes are not a whole number of ACL entries")]
    Size(usize),
    /// An entry is unknown, out of order, there twice, names nobody, or grants what does not exist (`EINVAL`).
    #[error("ACL entry {0} is not valid in its place")]
    Entry(usize),
    /// The entry of the owner, the owning group or the others is missing, or a mask that is needed (`EINVAL`).
    #[error("the ACL lacks a required entry")]
    Incomplete,
}

/// Permissions of a named user or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    id: u32,
    permissions: u8,
}

/// A valid access control list. Permissions are three bits: read 4, write 2, execute 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl {
    owner: u8,
    users: Vec<Named>,
    owning_group: u8,
    groups: Vec<Named>,
    /// Limits the owning group and everybody named; there is one if anybody is named.
    mask: Option<u8>,
    other: u8,
}

/// What a new inode gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// Its mode.
    pub(crate) mode: u32,
    /// Its access ACL, if the mode does not say it all.
    pub(crate) access: Option<Acl>,
    /// Its default ACL: directories only.
    pub(crate) default: Option<Acl>,
}

/// Reads the entries in the order that the format demands.
struct Entries<'a> {
    entries: &'a [RawEntry],
    next: usize,
}

impl Entries<'_> {
    /// The next entry, if it has this tag.
    fn take(&mut self, tag: u16) -> Result<Option<Named>, AclError> {
        let Some(entry) = self.entries.get(self.next).filter(|entry| entry.tag.get() == tag) else {
            return Ok(None);
        };
        let invalid = AclError::Entry(self.next);
        let permissions = u8::try_from(entry.permissions.get()).map_err(|_| invalid)?;
        let is_named = matches!(tag, TAG_USER | TAG_GROUP);
        if permissions > 7 || (is_named && entry.id.get() == NO_ID) {
            return Err(invalid);
        }
        self.next += 1;
        Ok(Some(Named { id: entry.id.get(), permissions }))
    }

    fn take_required(&mut self, tag: u16) -> Result<u8, AclError> {
        let missing =
            if self.next < self.entries.len() { AclError::Entry(self.next) } else { AclError::Incomplete };
        self.take(tag)?.map(|entry| entry.permissions).ok_or(missing)
    }

    fn take_all(&mut self, tag: u16) -> Result<Vec<Named>, AclError> {
        std::iter::from_fn(|| self.take(tag).transpose()).collect()
    }
}

impl Acl {
    /// Interprets the value of an attribute. None: an ACL without entries, which is how one is removed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, AclError> {
        let (version, rest) = U32::read_from_prefix(bytes).map_err(|_| AclError::Size(bytes.len()))?;
        if version.get() != VERSION {
            return Err(AclError::Version(version.get()));
        }
        let entries = <[RawEntry]>::ref_from_bytes(rest).map_err(|_| AclError::Size(bytes.len()))?;
        if entries.is_empty() {
            return Ok(None);
        }
        let mut entries = Entries { entries, next: 0 };
        let owner = entries.take_required(TAG_OWNER)?;
        let users = entries.take_all(TAG_USER)?;
        let owning_group = entries.take_required(TAG_OWNING_GROUP)?;
        let groups = entries.take_all(TAG_GROUP)?;
        let mask = entries.take(TAG_MASK)?.map(|entry| entry.permissions);
        let other = entries.take_required(TAG_OTHER)?;
        if entries.next < entries.entries.len() {
            return Err(AclError::Entry(entries.next));
        }
        let names_anybody = !users.is_empty() || !groups.is_empty();
        if names_anybody && mask.is_none() {
            return Err(AclError::Incomplete);
        }
        Ok(Some(Self { owner, users, owning_group, groups, mask, other }))
    }

    /// The value of the attribute.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let raw = |tag: u16, id: u32, permissions: u8| RawEntry {
            tag: U16::new(tag),
            permissions: U16::new(permissions.into()),
            id: U32::new(id),
        };
        let named = |tag: u16| move |entry: &Named| raw(tag, entry.id, entry.permissions);
        let mut entries = vec![raw(TAG_OWNER, NO_ID, self.owner)];
        entries.extend(self.users.iter().map(named(TAG_USER)));
        entries.push(raw(TAG_OWNING_GROUP, NO_ID, self.owning_group));
        entries.extend(self.groups.iter().map(named(TAG_GROUP)));
        entries.extend(self.mask.map(|permissions| raw(TAG_MASK, NO_ID, permissions)));
        entries.push(raw(TAG_OTHER, NO_ID, self.other));
        [U32::new(VERSION).as_bytes(), entries.as_bytes()].concat()
    }

    /// Whether the mode says the same, so that the ACL need not be stored.
    pub(crate) fn is_mode_only(&self) -> bool {
        self.mask.is_none()
    }

    /// `mode` with the permissions that belong to this access ACL: the group's bits show the mask, if there is one.
    #[must_use]
    pub(crate) fn mode(&self, mode: u32) -> u32 {
        let group = self.mask.unwrap_or(self.owning_group);
        let bits = u32::from(self.owner) << 6 | u32::from(group) << 3 | u32::from(self.other);
        mode & !MODE_BITS | bits
    }

    /// Changes the access ACL as chmod(2) to `mode` demands.
    pub(crate) fn chmod(&mut self, mode: u32) {
        self.owner = bits(mode, 6);
        *self.group_class() = bits(mode, 3);
        self.other = bits(mode, 0);
    }

    /// What the group's bits of the mode stand for.
    fn group_class(&mut self) -> &mut u8 {
        self.mask.as_mut().unwrap_or(&mut self.owning_group)
    }

    /// Takes away what the mode of a new inode does not grant.
    fn restrict(&mut self, mode: u32) {
        self.owner &= bits(mode, 6);
        *self.group_class() &= bits(mode, 3);
        self.other &= bits(mode, 0);
    }
}

/// Three permission bits of a mode.
fn bits(mode: u32, shift: u32) -> u8 {
    (mode >> shift & 7) as u8
}

/// What an inode gets that is created in a directory with this default ACL. `mode` is what the creating call asks
/// for, with the type; the umask counts only if there is no default ACL. Not for symbolic links.
pub(crate) fn inherit(parent_default: Option<&Acl>, mode: u32, umask: u32, is_directory: bool) -> Inherited {
    let Some(default) = parent_default else {
        return Inherited { mode: mode & !(umask & MODE_BITS), access: None, default: None };
    };
    let mut access = default.clone();
    access.restrict(mode);
    let mode = access.mode(mode);
    Inherited {
        mode,
        access: (!access.is_mode_only()).then_some(access),
        default: is_directory.then(|| default.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REGULAR: u32 = 0o100_000;
    const DIRECTORY: u32 = 0o040_000;

    /// The bytes of an ACL in the notation of getfacl, for instance `u::rw- u:7:r-- g::r-- m::r-- o::---`.
    fn bytes(text: &str) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in text.split_whitespace() {
            let [kind, id, permissions] = entry.split(':').collect::<Vec<_>>()[..] else { panic!("{entry}") };
            let tag = match (kind, id) {
                ("u", "") => TAG_OWNER,
                ("u", _) => TAG_USER,
                ("g", "") => TAG_OWNING_GROUP,
                ("g", _) => TAG_GROUP,
                ("m", _) => TAG_MASK,
                ("o", _) => TAG_OTHER,
                _ => panic!("{entry}"),
            };
            let granted = permissions.chars().zip([4, 2, 1]).filter(|(c, _)| *c != '-').map(|(_, bit)| bit);
            bytes.extend(tag.to_le_bytes());
            bytes.extend(granted.sum::<u16>().to_le_bytes());
            bytes.extend(id.parse().unwrap_or(NO_ID).to_le_bytes());
        }
        bytes
    }

    fn acl(text: &str) -> Acl {
        Acl::parse(&bytes(text)).unwrap().unwrap()
    }

    #[test]
    fn bytes_come_back_as_they_were() {
        for text in [
            "u::rwx g::r-x o::---",
            "u::rwx g::r-x m::rwx o::---",
            "u::rw- u:1000:r-- u:5:rwx g::r-- g:0:--- g:7:--x m::r-x o::r--",
        ] {
            assert_eq!(acl(text).to_bytes(), bytes(text), "{text}");
        }
    }

    #[test]
    fn an_empty_list_removes() {
        assert_eq!(Acl::parse(&bytes("")), Ok(None));
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        for (text, error) in [
            ("u::rwx", AclError::Incomplete),
            ("u::rwx g::r-x", AclError::Incomplete),
            ("g::r-x o::r--", AclError::Entry(0)),
            ("u::rwx o::r--", AclError::Entry(1)),
            ("u::rwx u::rwx g::r-x o::r--", AclError::Entry(1)),
            ("u::rwx g::r-x u:1:rwx m::rwx o::r--", AclError::Entry(2)),
            ("u::rwx g::r-x m::rwx g:1:rwx o::r--", AclError::Entry(3)),
            ("u::rwx g::r-x m::rwx m::rwx o::r--", AclError::Entry(3)),
            ("u::rwx g::r-x o::r-- o::r--", AclError::Entry(3)),
            ("u::rwx g::r-x o::r-- m::rwx", AclError::Entry(3)),
            ("u::rwx u:1:r-- g::r-x o::r--", AclError::Incomplete),
            ("u::rwx g::r-x g:1:r-- o::r--", AclError::Incomplete),
            ("u::rwx u:4294967295:r-- g::r-x m::r-x o::r--", AclError::Entry(1)),
            ("u::rwx g::r-x g:4294967295:r-- m::r-x o::r--", AclError::Entry(2)),
        ] {
            assert_eq!(Acl::parse(&bytes(text)), Err(error), "{text}");
        }
    }

    #[test]
    fn sizes_versions_tags_and_permissions_are_checked() {
        let good = bytes("u::rwx g::r-x o::---");
        assert_eq!(Acl::parse(&good[..3]), Err(AclError::Size(3)));
        assert_eq!(Acl::parse(&good[..good.len() - 1]), Err(AclError::Size(good.len() - 1)));
        let mut changed = good.clone();
        changed[0] = 1;
        assert_eq!(Acl::parse(&changed), Err(AclError::Version(1)));
        for (at, value) in [(4, 0x40), (5, 1), (6, 8), (7, 1)] {
            let mut changed = good.clone();
            changed[at] = value;
            assert_eq!(Acl::parse(&changed), Err(AclError::Entry(0)), "byte {at}");
        }
    }

    #[test]
    fn the_mode_shows_the_mask_in_place_of_the_group() {
        assert_eq!(acl("u::rw- g::r-- o::---").mode(DIRECTORY | 0o4777), DIRECTORY | 0o4640);
        assert_eq!(acl("u::rw- u:1:rwx g::r-- m::rw- o::---").mode(REGULAR), REGULAR | 0o660);
        assert!(acl("u::rw- g::r-- o::---").is_mode_only());
        assert!(!acl("u::rw- g::r-- m::r-- o::---").is_mode_only());
    }

    #[test]
    fn chmod_changes_the_mask_if_there_is_one() {
        let mut with_mask = acl("u::rwx u:1:rwx g::rwx m::rwx o::rwx");
        with_mask.chmod(REGULAR | 0o640);
        assert_eq!(with_mask, acl("u::rw- u:1:rwx g::rwx m::r-- o::---"));
        let mut without = acl("u::rwx g::rwx o::rwx");
        without.chmod(REGULAR | 0o640);
        assert_eq!(without, acl("u::rw- g::r-- o::---"));
    }

    #[test]
    fn without_a_default_acl_the_umask_counts() {
        let inherited = inherit(None, REGULAR | 0o2666, 0o7027, false);
        assert_eq!(inherited, Inherited { mode: REGULAR | 0o2640, access: None, default: None });
    }

    #[test]
    fn a_default_acl_is_inherited_and_the_umask_does_not_count() {
        let default = acl("u::rwx u:1:rwx g::r-x m::rwx o::r-x");
        let file = inherit(Some(&default), REGULAR | 0o640, 0o777, false);
        assert_eq!(file.mode, REGULAR | 0o640);
        assert_eq!(file.access, Some(acl("u::rw- u:1:rwx g::r-x m::r-- o::---")));
        assert_eq!(file.default, None);
        let directory = inherit(Some(&default), DIRECTORY | 0o777, 0o777, true);
        assert_eq!(directory.mode, DIRECTORY | 0o775);
        assert_eq!((directory.access, directory.default), (Some(default.clone()), Some(default)));
    }

    #[test]
    fn a_default_acl_that_is_a_mode_only_limits_the_mode() {
        let default = acl("u::rwx g::r-x o::---");
        let file = inherit(Some(&default), REGULAR | 0o666, 0, false);
        assert_eq!(file, Inherited { mode: REGULAR | 0o640, access: None, default: None });
        assert_eq!(inherit(Some(&default), DIRECTORY | 0o700, 0, true).default, Some(default));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_mean_something(tail in prop::collection::vec(0..34_u8, 0..60)) {
            let bytes = [&VERSION.to_le_bytes()[..], &tail].concat();
            if let Ok(Some(acl)) = Acl::parse(&bytes) {
                prop_assert_eq!(Acl::parse(&acl.to_bytes()), Ok(Some(acl)));
            }
        }
    }
}
