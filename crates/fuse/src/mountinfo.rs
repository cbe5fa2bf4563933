//! What is mounted where: `/proc/PID/mountinfo`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::FILE_SYSTEM_TYPE;

/// One mount in this process's view of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Major and minor number of the file system: what `st_dev` shows. Two mounts with the same are one file system.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub target: PathBuf,
    /// Options of the mount, with commas between them.
    pub options: String,
    /// Type of the file system.
    pub kind: String,
    /// What was mounted.
    pub source: OsString,
    /// Options of the file system, with commas between them.
    pub super_options: String,
}

impl Mount {
    /// Whether a lodefs server is behind it.
    pub fn is_lodefs(&self) -> bool {
        self.kind == FILE_SYSTEM_TYPE
    }

    /// Whether nothing can be written through it.
    pub fn is_read_only(&self) -> bool {
        [&self.options, &self.super_options].iter().any(|list| list.split(',').any(|option| option == "ro"))
    }
}

/// All mounts, in the order in which they were made.
pub fn mounts() -> io::Result<Vec<Mount>> {
    mounts_seen_by("self")
}

/// The same, as another process sees the tree: its number, or `self`.
pub fn mounts_seen_by(process: &str) -> io::Result<Vec<Mount>> {
    let text = fs::read(format!("/proc/{process}/mountinfo"))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The mount that is seen at exactly `target`: the last one made there.
pub fn mount_at(target: &Path) -> io::Result<Option<Mount>> {
    Ok(mounts()?.into_iter().rfind(|mount| mount.target == target))
}

/// `ID PARENT MAJOR:MINOR ROOT TARGET OPTIONS [TAG...] - TYPE SOURCE SUPER-OPTIONS`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let target = fields.nth(1)?;
    let options = fields.next()?;
    let mut behind_tags = fields.skip_while(|field| *field != b"-").skip(1);
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        target: unescape(target).into(),
        options: String::from_utf8_lossy(options).into_owned(),
        kind: String::from_utf8_lossy(behind_tags.next()?).into_owned(),
        source: unescape(behind_tags.next()?),
        super_options: String::from_utf8_lossy(behind_tags.next()?).into_owned(),
    })
}

/// Undoes the kernel's escapes: blanks, backslashes and the like are `\ooo`.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        if let Some(escaped) = escape(rest) {
            plain.push(escaped);
            rest = &rest[4..];
        } else {
            plain.push(byte);
            rest = behind;
        }
    }
    OsString::from_vec(plain)
}

/// The byte that an escape at the start of `text` stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\")?.get(..3)?;
    digits.iter().try_fold(0u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] =
        b"61 28 0:54 / /mnt/a\\040b ro,nosuid shared:12 master:3 - fuse.lodefs l\\134o.vol rw,user_id=0";

    #[test]
    fn a_line_is_taken_apart() {
        let mount = parse(LINE).unwrap();
        assert_eq!(mount.device, (0, 54));
        assert_eq!(mount.target, Path::new("/mnt/a b"));
        assert_eq!(mount.source, "l\\o.vol");
        assert_eq!(mount.super_options, "rw,user_id=0");
        assert!(mount.is_lodefs());
        assert!(mount.is_read_only());
    }

    #[test]
    fn a_line_without_tags_is_read_too() {
        let mount = parse(b"1 0 8:1 / / rw - ext4 /dev/sda1 rw,errors=ro").unwrap();
        assert_eq!((mount.kind.as_str(), mount.is_read_only()), ("ext4", false));
    }

    #[test]
    fn nonsense_is_passed_over() {
        for line in ["", "1 2", "1 2 x:y / / rw - ext4 a b", "1 2 0:1 / / rw ext4 a b"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn only_whole_octal_escapes_are_undone() {
        assert_eq!(unescape(b"\\101\\9\\777\\01"), OsString::from("A\\9\\777\\01"));
    }

    #[test]
    fn this_system_has_a_root() {
        assert!(mount_at(Path::new("/")).unwrap().is_some());
    }
}
