//! What is on a volume, as a text to be read and compared: the volume, what fsck says of it, and each inode with its
//! names, attributes and content.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use lodefs_core::fsck::{self, Options};
use lodefs_core::{Attr, Fs, Kind, Node, OpenOptions, Result, SeekTarget, Time};
use lodefs_pmem::{Access, Domain, Medium};
use rustix::io::Errno;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::hostile::image::Image;

/// Names and values up to this size are given in full.
const SHOWN_MAX: usize = 100;
/// Names of one inode that are given one by one.
const NAMES_MAX: usize = 20;
/// Bytes by which content is hashed; those that are all zeros do not count, be they a hole or not.
const PAGE: u64 = 4096;

/// Describes the volume in an image, as found in this boot of the host. Nothing is changed.
pub fn describe(image: &Image, boot: [u8; 16]) -> Result<String> {
    let medium = || Medium::from_image(image.bytes(), Domain::Volatile, Access::ReadOnly);
    let mut text = volume_of(&medium()?.with_boot_id(boot))?;
    text.push_str(&findings_of(medium()?.with_boot_id(boot))?);
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    for inode in inodes_of(&Fs::open(medium()?.with_boot_id(boot), &options)?)?.values() {
        text.push('\n');
        text.push_str(inode);
    }
    Ok(text)
}

fn volume_of(medium: &Medium) -> Result<String> {
    let info = Fs::probe(medium)?;
    let uuid = u128::from_be_bytes(info.uuid);
    let mut text = String::new();
    line(&mut text, format_args!("volume {:?} {uuid:032x}", info.label));
    line(&mut text, format_args!("format {}, made at {}", info.format_version, time(info.created)));
    line(&mut text, format_args!("features {:#x} {:#x} {:#x}", info.compat, info.ro_compat, info.incompat));
    line(
        &mut text,
        format_args!(
            "{} blocks, {} of journal in {} lanes",
            info.total_blocks, info.journal_blocks, info.lanes
        ),
    );
    Ok(text)
}

fn findings_of(medium: Medium) -> Result<String> {
    let report = fsck::check(medium, &Options::default(), &mut |_| ())?;
    let mut text = String::new();
    let closed = if report.was_clean { "closed" } else { "not closed" };
    line(&mut text, format_args!("{closed}, {} journal records to replay", report.records_replayed));
    line(
        &mut text,
        format_args!(
            "{} inodes, {} directories, {} blocks in use",
            report.inodes, report.directories, report.blocks_used
        ),
    );
    for finding in &report.findings {
        line(&mut text, format_args!("{}: {}", finding.code, finding.object));
    }
    Ok(text)
}

/// A text for each inode that a name leads to, by number.
pub fn inodes_of(fs: &Arc<Fs>) -> Result<BTreeMap<u64, String>> {
    let mut seen = BTreeMap::new();
    visit(fs, &fs.root()?, b"", &mut seen)?;
    let texts = seen.into_iter().map(|(ino, Seen { mut names, text })| {
        names.sort();
        (ino, format!("inode {ino}\n{}{text}", list_of(&names)))
    });
    Ok(texts.collect())
}

struct Seen {
    names: Vec<Vec<u8>>,
    text: String,
}

fn visit(fs: &Arc<Fs>, node: &Node, path: &[u8], seen: &mut BTreeMap<u64, Seen>) -> Result<()> {
    if let Some(known) = seen.get_mut(&node.ino().0) {
        known.names.push(path.to_vec());
        return Ok(());
    }
    let text = text_of(fs, node)?;
    seen.insert(node.ino().0, Seen { names: vec![path.to_vec()], text });
    if node.kind() != Kind::Directory {
        return Ok(());
    }
    let mut names = Vec::new();
    fs.read_dir(node, 0, &mut |entry| {
        names.push((entry.name.clone(), entry.ino, entry.kind));
        true
    })?;
    for (name, ino, kind) in names.iter().filter(|(name, ..)| name != b"." && name != b"..") {
        let child = fs.lookup(node, name)?;
        // What is listed is what is found.
        if (child.ino(), child.kind()) != (*ino, *kind) {
            return Err(Errno::IO.into());
        }
        visit(fs, &child, &[path, b"/", name].concat(), seen)?;
    }
    Ok(())
}

fn text_of(fs: &Fs, node: &Node) -> Result<String> {
    let mut text = attributes(&fs.attr(node)?);
    let names = fs.list_xattr(node)?;
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = fs.get_xattr(node, name)?;
        line(&mut text, format_args!("  attribute {} = {}", name.escape_ascii(), shown(&value)));
    }
    match node.kind() {
        Kind::File => text.push_str(&content_of(fs, node)?),
        Kind::Symlink => line(&mut text, format_args!("  target {}", shown(&fs.read_link(node)?))),
        _ => {}
    }
    Ok(text)
}

fn attributes(attr: &Attr) -> String {
    let mut text = String::new();
    line(
        &mut text,
        format_args!(
            "  mode {:06o}, owner {}, group {}, links {}, size {}, sectors {}",
            attr.kind.mode_bits() | attr.perm,
            attr.uid,
            attr.gid,
            attr.links,
            attr.size,
            attr.sectors
        ),
    );
    line(
        &mut text,
        format_args!(
            "  generation {}, device {:#x}, flags {:#x}, project {}",
            attr.generation,
            attr.rdev,
            attr.flags.bits(),
            attr.project
        ),
    );
    let [accessed, modified, changed, made] = [attr.atime, attr.mtime, attr.ctime, attr.btime].map(time);
    line(
        &mut text,
        format_args!("  accessed {accessed}, modified {modified}, changed {changed}, made {made}"),
    );
    text
}

/// Where a file has data, and a hash of it.
fn content_of(fs: &Fs, node: &Node) -> Result<String> {
    let mut text = String::new();
    let mut hash = Xxh3::new();
    let mut at = 0;
    loop {
        let start = match fs.seek(node, at, SeekTarget::Data) {
            Err(lodefs_core::Error::Refused(Errno::NXIO)) => break,
            start => start?,
        };
        at = fs.seek(node, start, SeekTarget::Hole)?;
        line(&mut text, format_args!("  data from {start} to {at}"));
        hash_range(fs, node, start, at, &mut hash)?;
    }
    line(&mut text, format_args!("  content {:016x}", hash.digest()));
    Ok(text)
}

fn hash_range(fs: &Fs, node: &Node, start: u64, end: u64, hash: &mut Xxh3) -> Result<()> {
    let mut page = vec![0; PAGE as usize];
    for at in (start..end).step_by(PAGE as usize) {
        let wanted = &mut page[..(end - at).min(PAGE) as usize];
        if fs.read(node, at, wanted)? != wanted.len() {
            return Err(Errno::IO.into());
        }
        if wanted.iter().any(|byte| *byte != 0) {
            hash.update(&at.to_le_bytes());
            hash.update(wanted);
        }
    }
    Ok(())
}

/// The names of an inode; if there are many, what they amount to.
fn list_of(names: &[Vec<u8>]) -> String {
    let mut text = String::new();
    if names.len() > NAMES_MAX {
        let hash = xxh3_64(&names.join(&b'\n'));
        line(&mut text, format_args!("  {} names {hash:016x}", names.len()));
        return text;
    }
    for name in names {
        match name.as_slice() {
            b"" => line(&mut text, format_args!("  name /")),
            long if long.len() > SHOWN_MAX => {
                let start = long[..SHOWN_MAX / 4].escape_ascii();
                line(
                    &mut text,
                    format_args!("  name {start}... {} bytes {:016x}", long.len(), xxh3_64(long)),
                );
            }
            name => line(&mut text, format_args!("  name {}", name.escape_ascii())),
        }
    }
    text
}

fn shown(value: &[u8]) -> String {
    if value.len() <= SHOWN_MAX {
        format!("\"{}\"", value.escape_ascii())
    } else {
        format!("{} bytes {:016x}", value.len(), xxh3_64(value))
    }
}

fn time(time: Time) -> String {
    format!("{}s {}ns", time.s, time.ns)
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes everything");
}
