//! `lodefs info`: what a volume is, how it is used, and what makes stores to it durable.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use anyhow::{Context, bail};
use lodefs_core::{Fs, OpenOptions, VolumeInfo};
use lodefs_layout::BLOCK_SIZE;
use lodefs_layout::features::KEYED_NAMES;
use lodefs_layout::superblock::Superblock;
use lodefs_pmem::{Access, Medium, MediumError};

use crate::arguments::InfoArguments;
use crate::report::{self, Features, Report, Space, State};
use crate::size::format_size;
use crate::text::{self, shown};
use crate::umount::{lodefs_mount_at, resolve};
use crate::volume;

/// Prints it. What can be said of a volume that cannot be opened is said before that fails.
pub(crate) fn run(arguments: &InfoArguments) -> anyhow::Result<()> {
    let path = arguments.path.as_path();
    let (report, fault) = if path.is_dir() { (of_directory(path)?, None) } else { of_volume(path)? };
    if arguments.json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(text::output(), "{}", as_text(&report))?;
    }
    fault.map_or(Ok(()), Err)
}

fn of_directory(directory: &Path) -> anyhow::Result<Report> {
    let mount = lodefs_mount_at(&resolve(directory)?)?;
    report::of_mount_now(&mount)
        .with_context(|| format!("{}: the server does not answer; see `lodefs umount`", shown(directory)))
}

/// The report about a volume, and why it cannot be opened, if so.
fn of_volume(path: &Path) -> anyhow::Result<(Report, Option<anyhow::Error>)> {
    if let Some((mount, _)) = report::mount_of(path) {
        return Ok((report::of_mount_now(&mount)?, None));
    }
    let absolute = path.canonicalize().unwrap_or_else(|_| path.into());
    let medium = match Medium::open(
        path,
        &lodefs_pmem::OpenOptions { access: Access::ReadOnly, force_domain: None },
    ) {
        Ok(medium) => medium,
        Err(MediumError::InUse { .. }) => {
            let report = Report::of_superblock(absolute, &read_superblock(path)?, State::InUse);
            return Ok((report, None));
        }
        Err(error) => bail!("{error}"),
    };
    let explain = |error| volume::explain(path, error);
    let info = Fs::probe(&medium).map_err(explain)?;
    let medium_report = medium.report().into();
    // Opened read-only, a volume is recovered in memory only.
    match Fs::open(medium, &OpenOptions { read_only: true, ..OpenOptions::default() }) {
        Ok(fs) => {
            let state = if fs.recovery().was_clean { State::Clean } else { State::NeedsRecovery };
            let report = Report::of_open(absolute, &fs, state);
            fs.close().map_err(explain)?;
            Ok((report, None))
        }
        Err(error) => {
            let report = Report::of_superblock(absolute, &info, State::Damaged);
            Ok((Report { medium: Some(medium_report), ..report }, Some(explain(error))))
        }
    }
}

/// Reads the superblock of a volume that another program has locked.
fn read_superblock(path: &Path) -> anyhow::Result<VolumeInfo> {
    let mut block = vec![0; BLOCK_SIZE as usize];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut block))
        .with_context(|| format!("{}: cannot be read", shown(path)))?;
    let Ok(found) = Superblock::parse(&block) else {
        bail!("{}: in use, and not a lodefs volume", shown(path));
    };
    let label: Vec<u8> = found.label.iter().copied().take_while(|byte| *byte != 0).collect();
    Ok(VolumeInfo {
        uuid: found.uuid,
        label: String::from_utf8_lossy(&label).into_owned(),
        created: lodefs_core::Time { s: found.created_s.get(), ns: 0 },
        format_version: found.version.get(),
        total_blocks: found.total_blocks.get(),
        compat: found.compat.get(),
        ro_compat: found.ro_compat.get(),
        incompat: found.incompat.get(),
        journal_blocks: found.journal.blocks.get(),
        lanes: found.lanes.get(),
    })
}

/// Date and time of a second since 1970, in UTC; the number if that is no date.
fn date_text(second: i64) -> String {
    jiff::Timestamp::from_second(second)
        .map_or_else(|_| format!("{second} s after 1970"), |time| time.to_string())
}

/// The report for a person.
fn as_text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("volume", &shown(&report.volume));
    // Whoever made the image chose the label; a terminal must not obey it.
    let label = shown(&report.label).to_string();
    line("label", &if label.is_empty() { "(none)".to_owned() } else { label });
    line("uuid", &report.uuid);
    line("state", &state_text(report.state));
    line("format", &format_args!("version {}{}", report.format_version, features_text(report)));
    line("created", &date_text(report.created_s));
    line("size", &bytes_text(report.size));
    line("blocks", &format_args!("of {} bytes", report.block_size));
    line("journal", &format_args!("{} in {} lanes", format_size(report.journal_size), report.journal_lanes));
    if let Some(medium) = &report.medium {
        let forced =
            if medium.forced { format!(", forced (detected: {})", medium.detected) } else { String::new() };
        line("medium", &medium.kind);
        line("domain", &format_args!("{}{forced}: {}", medium.domain, medium.reason));
    }
    if let Some(space) = &report.space {
        line("space", &space_text(space));
        line("huge pages", &format_args!("{} free in aligned pieces of 2 MiB", format_size(space.free_huge)));
        line(
            "inodes",
            &format_args!("{} used, {} free", space.inodes - space.inodes_free, space.inodes_free),
        );
    }
    if let Some(mount) = &report.mount {
        let access = if mount.read_only { "read-only" } else { "read-write" };
        let writeback = if mount.writeback { ", writeback" } else { "" };
        line("mounted", &format_args!("on {} by process {}", shown(&mount.directory), mount.pid));
        let atime = if mount.atime.is_empty() { "relatime" } else { &mount.atime };
        line(
            "options",
            &format_args!("{access}{writeback}, {atime}, dax={}, commit={}", mount.dax, mount.commit_s),
        );
        line("attach", &mount.attach);
        if let Some(fault) = &mount.fault {
            line("fault", &format_args!("{}; read-only since then", fault.escape_debug()));
        }
    }
    text
}

fn state_text(state: State) -> &'static str {
    match state {
        State::Mounted => "mounted",
        State::InUse => "in use by another program",
        State::Clean => "clean",
        State::NeedsRecovery => "not closed; will be recovered when it is opened",
        State::Damaged => "damaged; run `lodefs fsck`",
    }
}

fn features_text(report: &Report) -> String {
    let Features { compatible, read_only, incompatible } = report.features;
    if compatible | read_only | incompatible == 0 {
        return String::new();
    }
    if (compatible, read_only, incompatible) == (0, 0, KEYED_NAMES) {
        return ", features: keyed names".to_owned();
    }
    format!(", features {compatible:#x} compatible, {read_only:#x} read-only, {incompatible:#x} incompatible")
}

fn bytes_text(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", format_size(bytes))
}

fn space_text(space: &Space) -> String {
    let used = space.total.saturating_sub(space.free);
    format!(
        "{} used, {} available of {}",
        format_size(used),
        format_size(space.available),
        format_size(space.total)
    )
}
