//! The extended attributes of an inode, and the blob that holds them.
//!
//! The blob is a sequence of attributes in ascending order of their names, each a `XattrHead`, the name and the
//! value, unpadded. Bytes from a volume are untrusted: whatever decodes follows every rule that [`XattrSet::set`]
//! enforces, so it can be listed and encoded again.

use std::ops::Range;

use lodefs_layout::blob::{BLOB_SIZE_MAX, XattrHead};
use rustix::io::Errno;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use crate::types::XattrMode;

/// Longest name of an attribute in bytes, namespace included.
pub(crate) const XATTR_NAME_MAX: usize = 255;
/// Largest value of an attribute, in bytes.
pub(crate) const XATTR_VALUE_MAX: usize = 64 << 10;

/// Why bytes are not a set of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// There are more bytes than a blob holds.
    #[error("{0} bytes of attributes are more than a blob holds")]
    TooLarge(usize),
    /// The attribute at this offset reaches beyond the end.
    #[error("the attribute at offset {0} is cut off")]
    Truncated(usize),
    /// The name at this offset is empty, too long, or contains a zero byte.
    #[error("the attribute at offset {0} has an impossible name")]
    Name(usize),
    /// The value at this offset is too large.
    #[error("the attribute at offset {0} has a value that is too large")]
    Value(usize),
    /// The name at this offset does not come behind the one before it.
    #[error("the attribute at offset {0} is out of order or there twice")]
    Order(usize),
}

/// Why an attribute cannot be set or removed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum XattrError {
    /// It exists already and was to be created (`EEXIST`).
    #[error("the attribute exists already")]
    Exists,
    /// It does not exist (`ENODATA`).
    #[error("there is no such attribute")]
    NoData,
    /// The name is empty, longer than [`XATTR_NAME_MAX`], or contains a zero byte (`ERANGE`).
    #[error("an attribute cannot have this name")]
    Name,
    /// The value is larger than [`XATTR_VALUE_MAX`] (`E2BIG`).
    #[error("the value of the attribute is too large")]
    Value,
    /// All attributes of the inode together would be larger than a blob (`ENOSPC`).
    #[error("the attributes of the inode are too large together")]
    NoSpace,
}

impl XattrError {
    /// The errno that says so.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::Exists => Errno::EXIST,
            Self::NoData => Errno::NODATA,
            Self::Name => Errno::RANGE,
            Self::Value => Errno::TOOBIG,
            Self::NoSpace => Errno::NOSPC,
        }
    }
}

/// The attributes of an inode, as they are stored: changing one moves the bytes behind it, and allocates nothing for the
/// others. What a change costs is bounded by `BLOB_SIZE_MAX`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct XattrSet {
    /// Checked: every rule holds.
    bytes: Vec<u8>,
}

/// An attribute in a blob: name and value.
type Attribute<'a> = (&'a [u8], &'a [u8]);

/// Walks over the attributes in a blob and checks each.
struct Attributes<'a> {
    bytes: &'a [u8],
    offset: usize,
    last_name: &'a [u8],
}

impl<'a> Attributes<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > BLOB_SIZE_MAX {
            return Err(Malformed::TooLarge(bytes.len()));
        }
        // No name is empty, so every name comes behind this.
        Ok(Self { bytes, offset: 0, last_name: b"" })
    }

    fn next(&mut self) -> Result<Option<Attribute<'a>>, Malformed> {
        let start = self.offset;
        let rest = &self.bytes[start..];
        if rest.is_empty() {
            return Ok(None);
        }
        let (head, rest) = XattrHead::read_from_prefix(rest).map_err(|_| Malformed::Truncated(start))?;
        let cut_off = Malformed::Truncated(start);
        let (name, rest) = rest.split_at_checked(head.name_size.get() as usize).ok_or(cut_off)?;
        let (value, rest) = rest.split_at_checked(head.value_size.get() as usize).ok_or(cut_off)?;
        if !is_name(name) {
            return Err(Malformed::Name(start));
        }
        if value.len() > XATTR_VALUE_MAX {
            return Err(Malformed::Value(start));
        }
        if name <= self.last_name {
            return Err(Malformed::Order(start));
        }
        self.last_name = name;
        self.offset = self.bytes.len() - rest.len();
        Ok(Some((name, value)))
    }
}

/// Where an attribute is in the encoded set, or where it belongs.
struct Place<'s> {
    bytes: Range<usize>,
    value: Option<&'s [u8]>,
}

impl XattrSet {
    /// Interprets the content of a blob.
    pub(crate) fn decode(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let mut attributes = Attributes::new(&bytes)?;
        while attributes.next()?.is_some() {}
        Ok(Self { bytes })
    }

    /// The content of the blob.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// All attributes, in ascending order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Attribute<'_>> {
        let mut attributes = Attributes { bytes: &self.bytes, offset: 0, last_name: b"" };
        std::iter::from_fn(move || attributes.next().expect("checked when it was decoded"))
    }

    fn place(&self, name: &[u8]) -> Place<'_> {
        let mut at = 0;
        for (found, value) in self.iter() {
            let end = at + encoded_size(found, value);
            if found == name {
                return Place { bytes: at..end, value: Some(value) };
            }
            if found > name {
                break;
            }
            at = end;
        }
        Place { bytes: at..at, value: None }
    }

    /// The value of an attribute.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.place(name).value
    }

    /// Sets an attribute.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), XattrError> {
        if !is_name(name) {
            return Err(XattrError::Name);
        }
        if value.len() > XATTR_VALUE_MAX {
            return Err(XattrError::Value);
        }
        let place = self.place(name);
        match (place.value, mode) {
            (Some(_), XattrMode::Create) => return Err(XattrError::Exists),
            (None, XattrMode::Replace) => return Err(XattrError::NoData),
            _ => {}
        }
        let replaced = place.bytes;
        if self.bytes.len() - replaced.len() + encoded_size(name, value) > BLOB_SIZE_MAX {
            return Err(XattrError::NoSpace);
        }
        let head =
            XattrHead { name_size: U32::new(name.len() as u32), value_size: U32::new(value.len() as u32) };
        let encoded = [head.as_bytes(), name, value].concat();
        self.bytes.splice(replaced, encoded);
        Ok(())
    }

    /// Removes an attribute.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Result<(), XattrError> {
        let place = self.place(name);
        if place.value.is_none() {
            return Err(XattrError::NoData);
        }
        let removed = place.bytes;
        self.bytes.drain(removed);
        Ok(())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The names, each with a zero byte behind it, as listxattr(2) returns them.
    pub(crate) fn list(&self) -> Vec<u8> {
        self.iter().flat_map(|(name, _)| name.iter().copied().chain([0])).collect()
    }
}

/// The value of an attribute in the content of a blob; cheaper than decoding all of it. What comes behind the place
/// of the name is not checked.
pub(crate) fn find<'a>(bytes: &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let mut attributes = Attributes::new(bytes)?;
    while let Some((found, value)) = attributes.next()? {
        if found >= name {
            return Ok((found == name).then_some(value));
        }
    }
    Ok(None)
}

fn is_name(name: &[u8]) -> bool {
    (1..=XATTR_NAME_MAX).contains(&name.len()) && !name.contains(&0)
}

fn encoded_size(name: &[u8], value: &[u8]) -> usize {
    size_of::<XattrHead>() + name.len() + value.len()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    /// One attribute as it is stored.
    fn stored(name: &[u8], value: &[u8]) -> Vec<u8> {
        let sizes = [name.len() as u32, value.len() as u32].map(u32::to_le_bytes).concat();
        [&sizes, name, value].concat()
    }

    #[test]
    fn create_and_replace_are_told_apart() {
        let mut set = XattrSet::default();
        assert_eq!(set.set(b"user.a", b"1", XattrMode::Replace), Err(XattrError::NoData));
        assert_eq!(set.set(b"user.a", b"1", XattrMode::Create), Ok(()));
        assert_eq!(set.set(b"user.a", b"2", XattrMode::Create), Err(XattrError::Exists));
        assert_eq!(set.get(b"user.a"), Some(&b"1"[..]));
        assert_eq!(set.set(b"user.a", b"22", XattrMode::Replace), Ok(()));
        assert_eq!(set.set(b"user.b", b"", XattrMode::Set), Ok(()));
        assert_eq!(set.list(), b"user.a\0user.b\0");
        assert_eq!(set.encoded(), [stored(b"user.a", b"22"), stored(b"user.b", b"")].concat());
        assert_eq!((set.remove(b"user.a"), set.remove(b"user.a")), (Ok(()), Err(XattrError::NoData)));
        assert_eq!((set.get(b"user.a"), set.get(b"user.b")), (None, Some(&b""[..])));
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let mut set = XattrSet::default();
        assert_eq!(set.set(&[b'n'; XATTR_NAME_MAX + 1], b"", XattrMode::Set), Err(XattrError::Name));
        assert_eq!(set.set(b"", b"", XattrMode::Set), Err(XattrError::Name));
        assert_eq!(set.set(b"a\0b", b"", XattrMode::Set), Err(XattrError::Name));
        let large = vec![7; XATTR_VALUE_MAX + 1];
        assert_eq!(set.set(b"user.a", &large, XattrMode::Set), Err(XattrError::Value));
        assert_eq!(set.set(&[b'n'; XATTR_NAME_MAX], &large[1..], XattrMode::Set), Ok(()));
        let mut number = 0_u8;
        while set.encoded().len() + encoded_size(b"n0", &large[1..]) <= BLOB_SIZE_MAX {
            set.set(&[b'n', number + 1], &large[1..], XattrMode::Set).unwrap();
            number += 1;
        }
        let rest = BLOB_SIZE_MAX - set.encoded().len() - encoded_size(b"last", b"");
        assert_eq!(set.set(b"last", &large[..=rest], XattrMode::Set), Err(XattrError::NoSpace));
        assert_eq!(set.set(b"last", &large[..rest], XattrMode::Set), Ok(()));
        assert_eq!(set.set(b"last", &large[..rest], XattrMode::Set), Ok(()), "replacing needs no more");
        assert_eq!(XattrSet::decode(set.encoded().to_vec()), Ok(set));
    }

    #[test]
    fn what_is_malformed_is_named() {
        let a = stored(b"user.a", b"1");
        let b = stored(b"user.b", b"2");
        let decode = |parts: &[&[u8]]| XattrSet::decode(parts.concat()).map(|set| set.list());
        assert_eq!(decode(&[&a, &b]), Ok(b"user.a\0user.b\0".to_vec()));
        assert_eq!(decode(&[&b, &a]), Err(Malformed::Order(b.len())));
        assert_eq!(decode(&[&a, &a]), Err(Malformed::Order(a.len())));
        assert_eq!(decode(&[&a, &b[..5]]), Err(Malformed::Truncated(a.len())));
        assert_eq!(decode(&[&a, &b[..b.len() - 1]]), Err(Malformed::Truncated(a.len())));
        assert_eq!(decode(&[&stored(b"", b"1")]), Err(Malformed::Name(0)));
        assert_eq!(decode(&[&stored(b"a\0", b"1")]), Err(Malformed::Name(0)));
        assert_eq!(decode(&[&stored(&[b'n'; 256], b"1")]), Err(Malformed::Name(0)));
        assert_eq!(decode(&[&stored(b"n", &vec![0; XATTR_VALUE_MAX + 1])]), Err(Malformed::Value(0)));
        assert_eq!(decode(&[&vec![0; BLOB_SIZE_MAX + 1]]), Err(Malformed::TooLarge(BLOB_SIZE_MAX + 1)));
        assert_eq!(decode(&[&[255; 8]]), Err(Malformed::Truncated(0)));
    }

    #[test]
    fn finding_looks_no_further_than_it_must() {
        let bytes = [stored(b"user.b", b"1"), stored(b"user.d", b"2"), vec![1]].concat();
        let damaged = Err(Malformed::Truncated(bytes.len() - 1));
        assert_eq!(find(&bytes, b"user.b"), Ok(Some(&b"1"[..])));
        assert_eq!(find(&bytes, b"user.c"), Ok(None));
        assert_eq!(find(&bytes, b"user.e"), damaged);
    }

    fn names() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof!["[a-c]{1,2}".prop_map(String::into_bytes), prop::collection::vec(1..=255_u8, 1..9)]
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_come_back(
            parts in prop::collection::vec((names(), prop::collection::vec(any::<u8>(), 0..20)), 0..6),
            sorted in any::<bool>(),
            change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut parts = parts;
            if sorted {
                parts.sort();
            }
            let mut bytes: Vec<u8> = parts.iter().flat_map(|(name, value)| stored(name, value)).collect();
            if let Some((at, value)) = change.filter(|_| !bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(set) = XattrSet::decode(bytes.clone()) {
                prop_assert_eq!(set.encoded().len(), bytes.len());
                prop_assert_eq!(set.encoded(), bytes.as_slice());
            }
            for (name, _) in &parts {
                if let (Ok(set), found) = (XattrSet::decode(bytes.clone()), find(&bytes, name)) {
                    prop_assert_eq!(found, Ok(set.get(name)));
                }
            }
        }

        #[test]
        fn behaves_like_a_map(
            steps in prop::collection::vec((names(), prop::option::of(prop::collection::vec(any::<u8>(), 0..20))), 0..40),
        ) {
            let mut set = XattrSet::default();
            let mut model = BTreeMap::new();
            for (name, value) in steps {
                if let Some(value) = value {
                    set.set(&name, &value, XattrMode::Set).unwrap();
                    model.insert(name, value);
                } else {
                    prop_assert_eq!(set.remove(&name).is_ok(), model.remove(&name).is_some());
                }
            }
            for (name, value) in &model {
                prop_assert_eq!(set.get(name), Some(&value[..]));
            }
            let again = XattrSet::decode(set.encoded().to_vec()).unwrap();
            prop_assert_eq!(&again, &set);
            prop_assert_eq!(again.iter().count(), model.len());
        }
    }
}
