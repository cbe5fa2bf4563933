//! `lodefs dax`: makes files direct or buffered, and shows what they are.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail};
use lodefs_direct::dax::{self, Answer, Effect, Holder, HolderKind, How, Reason};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::arguments::{DaxAction, DaxArguments};
use crate::text::shown;
use crate::{Usage, complain, text};

/// How often a file is looked at that others hold: at first, and in the end.
const INTERVAL_MIN: Duration = Duration::from_millis(2);
const INTERVAL_MAX: Duration = Duration::from_millis(250);

/// A file and what was answered about it.
struct Found {
    path: PathBuf,
    answer: Answer,
}

/// Does it for all paths. What fails for one does not keep it from being done for the others.
pub(crate) fn run(arguments: &DaxArguments) -> anyhow::Result<ExitCode> {
    if arguments.action == DaxAction::Status && (arguments.now || arguments.wait || arguments.revoke) {
        bail!(Usage("dax status: --now, --wait and --revoke are for changes".into()));
    }
    let mut all = Vec::new();
    let mut status = ExitCode::SUCCESS;
    for path in paths(arguments) {
        match path.and_then(|path| of_path(arguments, path)) {
            Ok(found) if arguments.json => all.push(found.as_json()),
            Ok(found) if says_something(arguments, &found.answer) => writeln!(text::output(), "{found}")?,
            Ok(_) => {}
            Err(error) => {
                complain(&error);
                status = ExitCode::FAILURE;
            }
        }
    }
    if arguments.json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&all)?)?;
    }
    Ok(status)
}

/// What was named, and what is below it. Whatever has no flag is passed over unless it was named.
fn paths(arguments: &DaxArguments) -> impl Iterator<Item = anyhow::Result<PathBuf>> + '_ {
    arguments.paths.iter().flat_map(|path| {
        let depth = if arguments.recursive { usize::MAX } else { 0 };
        let walk = WalkDir::new(path).max_depth(depth).same_file_system(true).sort_by_file_name();
        let found = walk.into_iter().filter(|entry| {
            entry.as_ref().map_or(true, |entry| {
                let kind = entry.file_type();
                entry.depth() == 0 || kind.is_file() || kind.is_dir()
            })
        });
        found.map(|entry| entry.map(walkdir::DirEntry::into_path).map_err(|error| unreachable_path(&error)))
    })
}

fn unreachable_path(error: &walkdir::Error) -> anyhow::Error {
    match (error.path(), error.io_error()) {
        (Some(path), Some(cause)) => anyhow!("{}: {cause}", shown(path)),
        _ => anyhow!("{error}"),
    }
}

fn of_path(arguments: &DaxArguments, path: PathBuf) -> anyhow::Result<Found> {
    let answer = match arguments.action {
        DaxAction::Status => ask(&path)?,
        DaxAction::On => change(arguments, &path, true)?,
        DaxAction::Off => change(arguments, &path, false)?,
    };
    Ok(Found { path, answer })
}

fn change(arguments: &DaxArguments, path: &Path, on: bool) -> anyhow::Result<Answer> {
    // Who waits for an effect is to hear if there will be none.
    let how = match (arguments.now || arguments.wait, arguments.revoke) {
        (_, true) => How::Revoke,
        (true, false) => How::Now,
        (false, false) => How::Pending,
    };
    let mut answer = match set(path, on, how) {
        Err(Errno::BUSY) if how == How::Now && arguments.wait => {
            set(path, on, How::Pending).map_err(|errno| explained(path, errno))?
        }
        Err(Errno::BUSY) => {
            let holders = Holders(&ask(path)?.holders).to_string();
            bail!("{}: held by {holders}; nothing was changed", shown(path))
        }
        outcome => outcome.map_err(|errno| explained(path, errno))?,
    };
    let mut interval = INTERVAL_MIN;
    while arguments.wait && answer.reason == Reason::Holders {
        thread::sleep(interval);
        interval = (interval * 2).min(INTERVAL_MAX);
        answer = match set(path, on, How::Now) {
            Err(Errno::BUSY) => ask(path)?,
            outcome => outcome.map_err(|errno| explained(path, errno))?,
        };
    }
    Ok(answer)
}

/// What decides about the effect, if it is neither the flag nor holders.
fn reason_text(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Flag | Reason::Holders => None,
        Reason::Option => Some("the mount option decides"),
        Reason::Medium => Some("the volume's medium has a page cache in between"),
    }
}

/// Opens what a path names, only to ask about it: nobody waits, and no device or pipe is set going.
fn open(path: &Path) -> Result<File, Errno> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let open = File::options().read(true).custom_flags(flags.cast_signed()).open(path);
    let kind = |file: File| Ok((file.metadata()?.file_type(), file));
    let (kind, file) =
        open.and_then(kind).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if kind.is_file() || kind.is_dir() { Ok(file) } else { Err(Errno::INVAL) }
}

fn set(path: &Path, on: bool, how: How) -> Result<Answer, Errno> {
    dax::set(open(path)?, on, how)
}

fn ask(path: &Path) -> anyhow::Result<Answer> {
    let answer = open(path).and_then(dax::status);
    answer.map_err(|errno| explained(path, errno))
}

fn explained(path: &Path, errno: Errno) -> anyhow::Error {
    let path = shown(path);
    match errno {
        Errno::NOTTY => anyhow!("{path}: not on a mounted lodefs volume"),
        Errno::INVAL => anyhow!("{path}: neither a regular file nor a directory"),
        Errno::PERM => {
            anyhow!("{path}: only the owner and root may change it, and nobody if it is immutable")
        }
        Errno::OPNOTSUPP => anyhow!(
            "{path}: would have no effect now, because the mount option or the volume's medium decides otherwise; nothing was changed \
             (without --now, --wait and --revoke the flag can be)"
        ),
        errno => anyhow::Error::from(io::Error::from(errno)).context(path.to_string()),
    }
}

/// A change that did what was asked for is not worth a word.
fn says_something(arguments: &DaxArguments, answer: &Answer) -> bool {
    arguments.action == DaxAction::Status || answer.reason != Reason::Flag
}

impl Found {
    fn as_json(&self) -> Value {
        let Answer { flag, effect, reason, holders_count, holders } = &self.answer;
        let holders = holders.iter().map(|holder| {
            let kind = match holder.kind {
                HolderKind::OpenFile => "open-file",
                HolderKind::Mapping => "mapping",
                HolderKind::SyncMapping => "sync-mapping",
                HolderKind::Io => "io",
            };
            json!({ "pid": Some(holder.pid).filter(|pid| *pid != 0), "kind": kind })
        });
        json!({
            "path": self.path.to_string_lossy(),
            "flag": flag,
            "effect": match effect {
                Effect::None => None,
                Effect::Direct => Some("direct"),
                Effect::Buffered => Some("buffered"),
            },
            "pending": *reason == Reason::Holders,
            "reason": match reason {
                Reason::Flag => "flag",
                Reason::Option => "option",
                Reason::Medium => "medium",
                Reason::Holders => "holders",
            },
            "holders_count": holders_count,
            "holders": holders.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { flag, effect, reason, holders, .. } = &self.answer;
        let flag = if *flag { "flag set" } else { "flag not set" };
        let effect = match effect {
            Effect::None => "directory",
            Effect::Direct => "direct",
            Effect::Buffered => "buffered",
        };
        write!(f, "{}: {effect}, {flag}", shown(&self.path))?;
        match (reason, reason_text(*reason)) {
            (_, Some(text)) => write!(f, ": {text}"),
            (Reason::Holders, None) => write!(f, ": pending until it is let go of by {}", Holders(holders)),
            (_, None) => Ok(()),
        }
    }
}

/// Those who hold a file, each process once.
struct Holders<'a>(&'a [Holder]);

impl fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<String> = Vec::new();
        for holder in self.0 {
            let kind = match holder.kind {
                HolderKind::OpenFile => "open file",
                HolderKind::Mapping => "mapping",
                HolderKind::SyncMapping => "mapping with MAP_SYNC, which is not taken back",
                HolderKind::Io => "read or write",
            };
            let name = match holder.pid {
                0 => format!("a process that cannot be seen ({kind})"),
                pid => format!("process {pid} ({kind})"),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        f.write_str(&if names.is_empty() { "nobody any more".into() } else { names.join(", ") })
    }
}
