//! `lodefs run`: runs a program as it is, with direct access to direct files.

mod library;
mod place;
mod stats;
mod stub;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, anyhow};
use lodefs_direct::run::{DOMAIN_VARIABLE, MOUNTS_VARIABLE, STATS_VARIABLE};
use lodefs_fuse::mountinfo;

use crate::arguments::RunArguments;
use crate::complain;
use crate::text::shown;

/// Exit statuses as env(1) has them: this program has failed, the other one cannot be run, or there is none.
const FAILED: u8 = 125;
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Becomes the program; or, if it is to be said what was done, runs it.
pub(crate) fn run(arguments: &RunArguments) -> ExitCode {
    let (program, rest) = (&arguments.command[0], &arguments.command[1..]);
    let mut command = Command::new(program);
    command.args(rest);
    let ended = prepare(&mut command, arguments).and_then(|directory| {
        if arguments.stats {
            return stats::run(&mut command, directory.as_deref());
        }
        Ok(Err(command.exec()))
    });
    match ended {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            complain(&anyhow!("{}: {error}", shown(program)));
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN })
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// Sets what the library needs. A directory in which only this user can put files, if there is one.
fn prepare(command: &mut Command, arguments: &RunArguments) -> anyhow::Result<Option<PathBuf>> {
    let library = library::library().context("the library for programs cannot be put anywhere")?;
    let mut preloaded = library.name;
    if let Some(others) = variable("LD_PRELOAD") {
        preloaded.push(" ");
        preloaded.push(others);
    }
    command.env("LD_PRELOAD", preloaded).env(MOUNTS_VARIABLE, mounts()?).env_remove(STATS_VARIABLE);
    let mut sanitizer = OsString::from(NOT_FIRST);
    if let Some(options) = variable(SANITIZER_VARIABLE) {
        sanitizer.push(":");
        sanitizer.push(options);
    }
    command.env(SANITIZER_VARIABLE, sanitizer);
    match arguments.force_domain {
        Some(domain) => command.env(DOMAIN_VARIABLE, domain.name()),
        None => command.env_remove(DOMAIN_VARIABLE),
    };
    Ok(library.directory)
}

/// A program with gcc's `AddressSanitizer` ends at once if another library comes before that one, unless it is told not
/// to. What the user says comes behind, and counts.
const SANITIZER_VARIABLE: &str = "ASAN_OPTIONS";
const NOT_FIRST: &str = "verify_asan_link_order=0";

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Where volumes are mounted, one on each line. (A name with an end of a line in it cannot be said, and is left out.)
fn mounts() -> io::Result<OsString> {
    let mounts = mountinfo::mounts_seen_by("self")?;
    let targets = mounts.iter().filter(|mount| mount.is_lodefs()).map(|mount| mount.target.as_os_str());
    let targets: Vec<&OsStr> = targets.filter(|target| !target.as_bytes().contains(&b'\n')).collect();
    Ok(targets.join(OsStr::new("\n")))
}
