//! How is it shown what is mapped?

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use lodefs_direct::maps::{DurableBy, File, FileId, Pages};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Kind, Mapped, Process, device_text};
use crate::size::format_size;
use crate::text::{self, shown};

/// Bytes of pages.
const BASE_PAGE: u64 = 4096;
const HUGE_PAGE: u64 = 2 << 20;

pub(super) fn as_json(processes: &[Process], unseen: usize) -> anyhow::Result<()> {
    let mut output = io::BufWriter::new(io::stdout());
    serde_json::to_writer_pretty(&mut output, &Listing { processes, unseen })?;
    writeln!(output)?;
    output.flush()?;
    Ok(())
}

/// All of it, of which a part at a time becomes JSON: a process may have mapped a file in a million ranges.
struct Listing<'a> {
    processes: &'a [Process],
    unseen: usize,
}

impl Serialize for Listing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_map(Some(2))?;
        all.serialize_entry("processes", self.processes)?;
        all.serialize_entry("processes_unseen", &self.unseen)?;
        all.end()
    }
}

impl Serialize for Process {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut process = serializer.serialize_map(Some(3))?;
        process.serialize_entry("pid", &self.pid)?;
        process.serialize_entry("answers", &self.fault.is_none())?;
        process.serialize_entry("mappings", &self.mapped)?;
        process.end()
    }
}

impl Serialize for Mapped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_json().serialize(serializer)
    }
}

pub(super) fn as_table(processes: &[Process]) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["PID", "ADDRESS", "SIZE", "OFFSET", "KIND", "ACCESS", "PAGES", "DURABLE BY", "FILE"]);
    for process in processes {
        for mapped in &process.mapped {
            table.add_row(mapped.row(process.pid));
        }
    }
    for column in [0, 2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if table.row_count() > 0 {
        writeln!(text::output(), "{}", table.trim_fmt())?;
    }
    Ok(())
}

impl Mapped {
    fn as_json(&self) -> Value {
        let (name, id) = (self.file.name.as_deref().map(String::from_utf8_lossy), self.file.id);
        let file = match id {
            FileId::Host { device, inode } => {
                json!({ "path": name, "device": device_text(device), "inode": inode })
            }
            FileId::Volume { volume, inode } => {
                json!({ "path": name, "volume": Uuid::from_bytes(volume), "inode": inode })
            }
        };
        let pages = self
            .pages
            .map(|Pages { base, huge }| json!({ BASE_PAGE.to_string(): base, HUGE_PAGE.to_string(): huge }));
        json!({
            "start": format!("{:#x}", self.start),
            "end": format!("{:#x}", self.end),
            "size": self.end - self.start,
            "offset": self.offset,
            "file": file,
            "kind": self.kind.name(),
            "writable": self.writable,
            "sync": self.sync,
            "serves_system_calls": self.serves_system_calls,
            "durable_by": name_of(self.durable_by),
            "bytes_by_page_size": pages,
        })
    }

    fn row(&self, pid: u32) -> [String; 9] {
        let access = if self.writable { "rw" } else { "r" };
        [
            pid.to_string(),
            format!("{:x}-{:x}", self.start, self.end),
            format_size(self.end - self.start),
            self.offset.to_string(),
            self.kind.name().into(),
            if self.sync { format!("{access}, sync") } else { access.into() },
            self.pages.map_or_else(|| "unknown".into(), pages_text),
            name_of(self.durable_by).into(),
            file_text(&self.file),
        ]
    }
}

/// Numbers of pages by their size.
fn pages_text(Pages { base, huge }: Pages) -> String {
    let counts = [(huge / HUGE_PAGE, "2 MiB"), (base / BASE_PAGE, "4 KiB")];
    let texts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, size)| format!("{count} of {size}"))
        .collect();
    if texts.is_empty() { "none yet".into() } else { texts.join(", ") }
}

fn file_text(file: &File) -> String {
    match (&file.name, file.id) {
        (Some(name), _) => shown(OsStr::from_bytes(name)).to_string(),
        (None, FileId::Host { device, inode }) => format!("inode {inode} of device {}", device_text(device)),
        (None, FileId::Volume { volume, inode }) => {
            format!("inode {inode} of volume {}", Uuid::from_bytes(volume))
        }
    }
}

fn name_of(durable_by: DurableBy) -> &'static str {
    match durable_by {
        DurableBy::Nothing => "nothing",
        DurableBy::Fence => "fence",
        DurableBy::Flush => "flush",
        DurableBy::Msync => "msync",
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Hole => "hole",
            Self::Buffered => "buffered",
            Self::Untouched => "untouched",
            Self::Failing => "failing",
            Self::Private => "private",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_by_their_size() {
        assert_eq!(pages_text(Pages::default()), "none yet");
        assert_eq!(pages_text(Pages { base: 3 * 4096, huge: 4 << 20 }), "2 of 2 MiB, 3 of 4 KiB");
    }

    #[test]
    fn a_name_does_not_reach_the_terminal_as_it_is() {
        let id = FileId::Host { device: 0, inode: 1 };
        let file = File { id, name: Some(b"/mnt/\x1b[2J\xff".to_vec()) };
        assert!(!file_text(&file).contains('\x1b'));
        assert_eq!(file_text(&File { id, name: None }), "inode 1 of device 0:0");
    }
}
