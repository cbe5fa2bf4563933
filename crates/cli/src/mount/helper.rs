//! How mount(8) calls this program: as `mount.lodefs` or `mount.fuse.lodefs`.
//!
//! `mount.TYPE SOURCE TARGET [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`, with the exit statuses of mount(8). Where
//! those links are not installed, the helper of libfuse calls `lodefs SOURCE TARGET -o OPTIONS` for the type
//! `fuse.lodefs`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::options::Options;
use crate::arguments::{Arguments, MountArguments};

/// Exit status of mount(8): wrong usage.
const USAGE: u8 = 1;
/// Exit status of mount(8): the mount failed.
const MOUNT_FAILED: u8 = 32;

/// The names under which mount(8) looks for a helper.
const NAMES: [&str; 2] = ["mount.lodefs", "mount.fuse.lodefs"];

/// What mount(8) passes.
#[expect(clippy::struct_excessive_bools, reason = "they are mount(8)'s flags, each for itself")]
#[derive(Debug, Parser)]
#[command(name = "mount.lodefs", about = "Mount a lodefs volume (called by mount(8))", version)]
struct HelperArguments {
    /// The volume
    source: PathBuf,
    /// The directory to mount it on
    target: PathBuf,
    /// Pass over unknown options
    #[arg(short)]
    sloppy: bool,
    /// Check the options only
    #[arg(short)]
    fake: bool,
    /// Ignored: nothing is written to /etc/mtab
    #[arg(short)]
    no_mtab: bool,
    /// Ignored: there is nothing more to say
    #[arg(short)]
    verbose: bool,
    /// Mount options
    #[arg(short)]
    options: Vec<String>,
    /// Ignored: the type is known
    #[arg(short)]
    r#type: Option<String>,
}

/// Whether the program is called as a helper: by its name, or by arguments that only libfuse's helper gives.
pub(crate) fn is_helper(name: &OsStr, arguments: &[OsString]) -> bool {
    let is_path = |argument: &OsString| !argument.as_encoded_bytes().starts_with(b"-");
    NAMES.iter().any(|helper| name == *helper)
        || matches!(arguments, [source, target, option, _]
            if is_path(source) && is_path(target) && option == "-o" && !is_command(source))
}

fn is_command(name: &OsStr) -> bool {
    Arguments::command().find_subcommand(name).is_some()
}

/// Mounts as mount(8) wants it, and returns the status that it expects.
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    let parsed = match HelperArguments::try_parse_from([NAMES[0].into()].into_iter().chain(arguments)) {
        Ok(parsed) => parsed,
        Err(error) => {
            let is_fault = error.use_stderr();
            // Nobody to tell if even this fails.
            let _ = error.print();
            return if is_fault { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    if let Err(error) = Options::parse(parsed.options.iter().map(String::as_str), parsed.sloppy) {
        crate::complain(&error);
        return ExitCode::from(USAGE);
    }
    if parsed.fake {
        return ExitCode::SUCCESS;
    }
    match super::run(&as_command(parsed)) {
        Ok(status) if status == ExitCode::SUCCESS => status,
        Ok(_) => ExitCode::from(MOUNT_FAILED),
        Err(error) => {
            crate::complain(&error);
            ExitCode::from(MOUNT_FAILED)
        }
    }
}

fn as_command(parsed: HelperArguments) -> MountArguments {
    MountArguments {
        volume: parsed.source,
        directory: Some(parsed.target),
        create: None,
        options: parsed.options,
        sloppy: parsed.sloppy,
        foreground: false,
        log: None,
        server: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        HelperArguments::command().debug_assert();
    }

    #[test]
    fn a_helper_is_known_by_its_name_or_its_arguments() {
        let is = |name: &str, line: &str| {
            let arguments: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
            is_helper(OsStr::new(name), &arguments)
        };
        assert!(is("mount.lodefs", "") && is("mount.fuse.lodefs", "v /m"));
        assert!(is("lodefs", "lode.vol /m -o rw,nosuid"));
        for line in ["", "mount v", "mount v -o ro", "mount v m -o ro", "info v -o x", "v /m", "v /m -t x"] {
            assert!(!is("lodefs", line), "{line}");
        }
    }

    #[test]
    fn options_may_stand_behind_or_before() {
        for line in [
            ["mount.lodefs", "v", "/m", "-o", "rw,dax=never", "-t", "fuse.lodefs", "-sn"],
            ["mount.lodefs", "-sn", "-t", "lodefs", "-o", "rw,dax=never", "v", "/m"],
        ] {
            let parsed = HelperArguments::try_parse_from(line).unwrap();
            assert_eq!((parsed.source, parsed.target), ("v".into(), "/m".into()));
            assert_eq!(parsed.options, ["rw,dax=never"]);
            assert!(parsed.sloppy && parsed.no_mtab && !parsed.fake);
        }
    }
}
