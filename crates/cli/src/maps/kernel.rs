//! What does the kernel tell that it has mapped?

use std::fs;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use lodefs_direct::maps::{DurableBy, File, FileId};
use lodefs_direct::pages::Pagemap;
use rustix::fs::makedev;

use super::{Kind, Mapped};

/// How often a list is read until it is the same twice.
const READINGS_MAX: usize = 100;

/// The numbers of all processes.
pub(super) fn processes() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// What a process has mapped of files that are meant.
pub(super) fn ranges(pid: u32, is_meant: impl Fn(FileId) -> bool) -> io::Result<Vec<Mapped>> {
    let text = steady(|| fs::read(format!("/proc/{pid}/maps")))?;
    let lines = text.split(|byte| *byte == b'\n');
    let mut ranges: Vec<Mapped> = lines.filter_map(parse).filter(|mapped| is_meant(mapped.file.id)).collect();
    if !ranges.is_empty() {
        let pagemap = Pagemap::of(pid)?;
        for mapped in &mut ranges {
            mapped.pages = pagemap.pages(mapped.start..mapped.end).ok();
        }
    }
    Ok(ranges)
}

/// The kernel writes such a list page by page, while it may change: what is the same twice has not.
fn steady(read: impl Fn() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    let mut last = read()?;
    for _ in 0..READINGS_MAX {
        let next = read()?;
        if next == last {
            return Ok(next);
        }
        last = next;
    }
    Err(io::Error::other("it changes its mappings all the time; try again"))
}

/// `START-END ACCESS OFFSET MAJOR:MINOR INODE [NAME]`
fn parse(line: &[u8]) -> Option<Mapped> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let Range { start, end } = pair(text()?, '-')?;
    let access = text()?;
    let offset = u64::from_str_radix(text()?, 16).ok()?;
    let device = pair(text()?, ':')?;
    let inode = text()?.parse().ok()?;
    let name = fields.next().map(<[u8]>::trim_ascii_start).map(|name| unescape(name, b"\\012"));
    let is_shared = access.ends_with('s');
    let device = makedev(u32::try_from(device.start).ok()?, u32::try_from(device.end).ok()?);
    Some(Mapped {
        start,
        end,
        offset,
        file: Arc::new(File { id: FileId::Host { device, inode }, name }),
        kind: if is_shared { Kind::Buffered } else { Kind::Private },
        writable: access.as_bytes().get(1) == Some(&b'w'),
        sync: false,
        serves_system_calls: true,
        durable_by: if is_shared { DurableBy::Msync } else { DurableBy::Nothing },
        pages: None,
    })
}

/// Two hexadecimal numbers.
fn pair(text: &str, between: char) -> Option<Range<u64>> {
    let (start, end) = text.split_once(between)?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

/// The one thing that the kernel replaces in these names is the end of a line.
fn unescape(name: &[u8], escape: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(escape) {
            plain.push(b'\n');
            rest = behind;
        } else {
            plain.push(byte);
            rest = behind;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = b"7f1200000000-7f1200003000 rw-s 00005000 00:3a 77                         /mnt/a b\\012c";
        let mapped = parse(line).unwrap();
        assert_eq!((mapped.start, mapped.end, mapped.offset), (0x7f12_0000_0000, 0x7f12_0000_3000, 0x5000));
        let device = makedev(0, 0x3a);
        let file = File { id: FileId::Host { device, inode: 77 }, name: Some(b"/mnt/a b\nc".to_vec()) };
        assert_eq!((&*mapped.file, mapped.kind, mapped.writable), (&file, Kind::Buffered, true));
        let private = parse(b"1000-2000 r--p 00000000 fe:01 12 /bin/true").unwrap();
        assert_eq!((private.kind, private.durable_by), (Kind::Private, DurableBy::Nothing));
        assert!(!private.writable);
    }

    #[test]
    fn lines_without_a_file_and_nonsense_are_no_harm() {
        assert_eq!(
            parse(b"1000-2000 rw-p 00000000 00:00 0 ").unwrap().file.id,
            FileId::Host { device: 0, inode: 0 }
        );
        for line in ["", "1000 rw-p 0 0:0 0", "1000-2000", "1000-2000 rw-p x 00:00 0"] {
            assert!(parse(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn a_list_that_changes_is_read_again() {
        let readings = Cell::new(0u8);
        let read = || {
            readings.set(readings.get() + 1);
            Ok(vec![readings.get().min(5)])
        };
        assert_eq!((steady(read).unwrap(), readings.get()), (vec![5], 6));
        readings.set(0);
        let never = || {
            readings.set(readings.get().wrapping_add(1));
            Ok(vec![readings.get()])
        };
        assert!(steady(never).is_err());
    }
}
