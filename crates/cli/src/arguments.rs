//! What can be asked for on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use lodefs_pmem::Domain;
use uuid::Uuid;

use crate::bench::plan::{Row, Way};
use crate::bench::programs::plan::Program;
use crate::size::parse_size;

/// A file system for byte-addressable storage, in user space
#[derive(Debug, Parser)]
#[command(name = "lodefs", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a volume
    Mkfs(MkfsArguments),
    /// Mount a volume
    ///
    /// Returns once the mount is usable; a server in the background keeps it until it is unmounted.
    Mount(MountArguments),
    /// Unmount a volume, and wait until it is closed
    Umount(UmountArguments),
    /// Show what a volume is and how it is used
    Info(InfoArguments),
    /// Make files of a mounted volume direct or buffered, or show what they are
    ///
    /// A direct file is reached without a cache in between. The flag is stored with the file, and new files take it over from
    /// their directory. It takes effect once nobody holds the file open or mapped in the other way.
    Dax(DaxArguments),
    /// Show what programs have mapped of the files of volumes, and how
    ///
    /// For each range of addresses: whether it is the medium itself, a hole, or the kernel's page cache; with what pages the kernel
    /// has mapped it; and what makes stores to it durable.
    #[command(after_help = MAPS_HELP)]
    Maps(MapsArguments),
    /// Run a program as it is, with direct access to the direct files of mounted volumes
    ///
    /// Its reads and writes of these files need no system call, where this user may attach to the mount. What cannot be done without
    /// the kernel goes to the kernel, and finds the same bytes.
    #[command(after_help = RUN_HELP)]
    Run(RunArguments),
    /// Check a volume, and repair it if asked to
    ///
    /// The volume must not be mounted for writing. Without --repair nothing is changed, whatever is found.
    #[command(after_help = FSCK_STATUS)]
    Fsck(FsckArguments),
    /// Measure speed on this machine, against what is as fast as can be
    ///
    /// Every figure is measured in turns with its yardstick: raw copies, tmpfs with huge pages, a FUSE server that does
    /// nothing. Only ratios mean something; other work on the machine disturbs both sides.
    Bench(BenchArguments),
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages
    Man {
        /// Where to
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MkfsArguments {
    /// The file (made if there is none) or device to make the volume in
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) volume: PathBuf,
    /// Size of the file: bytes, or with K, M, G, T for powers of 1024
    #[arg(long, value_parser = parse_size)]
    pub(crate) size: Option<u64>,
    /// Name of the volume, at most 64 bytes
    #[arg(long, default_value = "")]
    pub(crate) label: String,
    /// Identity of the volume, instead of a random one
    #[arg(long)]
    pub(crate) uuid: Option<Uuid>,
    /// Overwrite what is there (never a volume in use)
    #[arg(long)]
    pub(crate) force: bool,
    /// Take room from the host only as it is needed: if the host is full by then, the volume becomes read-only
    #[arg(long)]
    pub(crate) sparse: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MountArguments {
    /// The volume; with `-o remount` it may be left out
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) volume: PathBuf,
    /// The directory to mount it on
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
    /// Make the volume, of this size, and the directory, if they do not exist
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) create: Option<u64>,
    /// Mount options, separated by commas
    #[arg(short, long, value_name = "LIST", long_help = OPTIONS_HELP)]
    pub(crate) options: Vec<String>,
    /// Stay in the foreground, with messages on standard error
    #[arg(long, short)]
    pub(crate) foreground: bool,
    /// Append the server's messages to this file, instead of the system's log
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) log: Option<PathBuf>,
    /// Pass over unknown mount options
    #[arg(long, hide = true)]
    pub(crate) sloppy: bool,
    /// Serve; say "ready" on standard output once the mount is usable, and let go of the terminal
    #[arg(long, hide = true, conflicts_with = "foreground")]
    pub(crate) server: bool,
}

const OPTIONS_HELP: &str = "\
Mount options, separated by commas:
  ro, rw               forbid or allow changes
  dax=inode            files whose DAX flag is set are direct (default)
  dax=always|never     all files are, or none
  writeback            let the kernel hold back written data: faster, but lost if the server dies, and
                       nobody can attach
  commit=SECONDS       on `page` volumes, what is done is durable after this time (0: the default, 5)
  attach=WHO           whose programs may map files of the volume's memory, and read and write them
                       without system calls: owner (default), group, none
  allow_other          everybody may use the mount (default for root)
  allow_root           root may, beside the owner
  fsname=NAME          what /proc/mounts shows as source (default: VOLUME as given)
  nosuid, nodev, noexec, noatime, sync, dirsync and their opposites, as in mount(8)
  remount              as root: change the options of the line before, and make a volume read-only, or
                       writable again that was mounted so";

#[derive(Debug, Args)]
pub(crate) struct UmountArguments {
    /// Where the volume is mounted
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) directory: PathBuf,
    /// Unmount although it is in use: it ends when the last file is closed. Does not wait for that
    #[arg(long, short)]
    pub(crate) lazy: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArguments {
    /// A volume, or a directory where one is mounted
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
    /// As one JSON object, sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
}

const FSCK_STATUS: &str = "\
Exit status: 0 nothing was wrong, 1 everything was repaired, 4 something is wrong, 8 the check failed, 16 wrong usage";

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own on the command line")]
pub(crate) struct DaxArguments {
    /// What to do
    pub(crate) action: DaxAction,
    /// Files and directories
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Fail, and change nothing, where it cannot take effect at once
    #[arg(long, conflicts_with = "wait")]
    pub(crate) now: bool,
    /// Wait until it has taken effect
    #[arg(long)]
    pub(crate) wait: bool,
    /// Take mappings by attached programs back so that it takes effect at once; fail, and change nothing, where that is not enough
    #[arg(long, conflicts_with_all = ["now", "wait"])]
    pub(crate) revoke: bool,
    /// All files and directories below, too
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// As JSON: a list with an object for each file
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do about direct access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DaxAction {
    /// Set the flag
    On,
    /// Clear it
    Off,
    /// Show flag, effect and holders
    Status,
}

const RUN_HELP: &str = "\
Exit status: that of the program; 127 if there is none of that name, 126 if it cannot be run, 125 if it cannot be prepared. Volumes that \
are mounted later are not seen. Programs that are linked statically, or run with other rights than their caller's, go on as they are.";

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Say at the end, on standard error, what was done without the kernel, and what not, and why
    #[arg(long)]
    pub(crate) stats: bool,
    /// Treat media as of this durability domain (cpu-cache, memory-controller, volatile), whatever they are: to try a program that asks for `MAP_SYNC`
    #[arg(long, value_name = "DOMAIN", value_parser = domain_of_programs)]
    pub(crate) force_domain: Option<Domain>,
    /// The program, and what it is given
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

const MAPS_HELP: &str = "\
Kinds: direct (loads and stores reach the medium), hole (its zeroes), untouched (the first access decides), buffered (the \
page cache), private (a copy), failing (SIGBUS). An attached program tells by itself; one that is stopped cannot.";

#[derive(Debug, Args)]
pub(crate) struct MapsArguments {
    /// A process by its number, or a file of a mounted volume: all processes that have it mapped (./123 is a file)
    #[arg(value_name = "PID|FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) subject: PathBuf,
    /// As one JSON object, sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FsckArguments {
    /// The volume
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) volume: PathBuf,
    /// Repair what is found; asks before anything is lost
    #[arg(long)]
    pub(crate) repair: bool,
    /// Agree to everything that --repair would ask
    #[arg(long, short, requires = "repair")]
    pub(crate) yes: bool,
    /// As one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// Compare with system calls in this directory too (may be given more than once)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) against: Vec<PathBuf>,
    /// Only this way of using a volume (may be given more than once)
    #[arg(long)]
    pub(crate) way: Vec<Way>,
    /// Only this row (may be given more than once)
    #[arg(long)]
    pub(crate) row: Vec<Row>,
    /// Where volumes and yardsticks lie, instead of on a private tmpfs with huge pages (which takes root)
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// Fewer rounds and smaller files: for a first look
    #[arg(long)]
    pub(crate) quick: bool,
    /// As a JSON list of objects: times in nanoseconds, or operations a second of programs
    #[arg(long)]
    pub(crate) json: bool,
    /// Real programs instead of rows, all or those that are named, with commas between: operations a second under `lodefs run`, on tmpfs with huge pages, and on
    /// ext4 and XFS on loop devices on such a tmpfs (takes root)
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..,
        require_equals = true,
        value_delimiter = ',',
        conflicts_with_all = ["against", "way", "row", "dir"],
    )]
    pub(crate) programs: Option<Vec<Program>>,
    /// Draw the programs' speed, relative to tmpfs, into this file as SVG, too
    #[arg(long, value_name = "FILE", requires = "programs", value_hint = ValueHint::FilePath)]
    pub(crate) svg: Option<PathBuf>,
}

/// A domain of media that programs can attach to.
fn domain_of_programs(name: &str) -> Result<Domain, String> {
    match name.parse::<Domain>() {
        Ok(Domain::Page) => Err("nobody reaches a medium of the domain 'page' directly".to_owned()),
        Ok(domain) => Ok(domain),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn programs_are_all_or_those_that_are_named() {
        let parse = |further: &[&str]| {
            let Command::Bench(bench) =
                Arguments::try_parse_from([&["lodefs", "bench"], further].concat())?.command
            else {
                panic!("not bench")
            };
            Ok::<_, clap::Error>(bench.programs)
        };
        assert_eq!(parse(&["--quick"]).unwrap(), None);
        assert_eq!(parse(&["--programs", "--quick"]).unwrap(), Some(vec![]));
        let named = Some(vec![Program::SqliteWal, Program::FioRead]);
        assert_eq!(parse(&["--programs=sqlite-wal,fio-read-4k"]).unwrap(), named);
        assert!(parse(&["--programs", "--row", "open"]).is_err());
        assert!(parse(&["--svg", "file"]).is_err());
    }

    #[test]
    fn options_may_be_given_more_than_once() {
        let parsed = Arguments::parse_from(["lodefs", "mount", "-o", "ro", "v", "d", "-o", "dax=never"]);
        let Command::Mount(mount) = parsed.command else { panic!("not mount") };
        assert_eq!(mount.options, ["ro", "dax=never"]);
    }
}
