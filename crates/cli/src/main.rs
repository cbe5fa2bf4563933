//! The command `lodefs`: make, mount, check and measure volumes.
//!
//! | module | question |
//! |---|---|
//! | `arguments` | what can be asked for? (help, completions and manual pages come from the same definition) |
//! | `size` | how many bytes is `1G`? |
//! | `volume` | how is a volume opened, and who has it if it cannot be? |
//! | `mkfs`, `mount`, `umount`, `info`, `fsck`, `dax`, `maps` | what do the commands do? |
//! | `bench` | how fast is it, compared with what is as fast as can be? |
//! | `text` | how is a text shown that others have chosen? |
//! | `report` | what does a mount tell about itself, and where is it asked? |
//! | `log` | where do messages go that have no reader at a terminal? |
//! | `generate` | completions and manual pages |
//!
//! Errors are one line that names the object, the fault and the remedy. The exit status is 0, 1 for a failure and
//! 2 for wrong usage; called as a mount helper it is mount(8)'s.

mod arguments;
mod bench;
mod dax;
mod fsck;
mod generate;
mod holder;
mod info;
mod log;
mod maps;
mod mkfs;
mod mount;
mod report;
mod run;
mod size;
mod text;
mod umount;
mod volume;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};

/// Exit status for wrong usage, as the parser of the command line has it.
const USAGE: u8 = 2;

/// Wrong usage that the parser does not see.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn main() -> ExitCode {
    let mut command_line = std::env::args_os();
    let name = command_line.next().unwrap_or_default();
    let arguments: Vec<OsString> = command_line.collect();
    if mount::helper::is_helper(Path::new(&name).file_name().unwrap_or(OsStr::new("")), &arguments) {
        return mount::helper::run(arguments);
    }
    let parsed = match Arguments::try_parse() {
        Ok(parsed) => parsed,
        Err(message) => return without_command(&message, &arguments),
    };
    match run(parsed.command) {
        Ok(status) => status,
        Err(error) => {
            complain(&error);
            if error.is::<Usage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Shows help, or what is wrong with the command line.
fn without_command(message: &clap::Error, arguments: &[OsString]) -> ExitCode {
    // If there is nobody to read it, the status still tells.
    let _ = message.print();
    match (message.use_stderr(), arguments.first()) {
        (false, _) => ExitCode::SUCCESS,
        (true, Some(command)) if command == "fsck" => ExitCode::from(fsck::USAGE),
        (true, _) => ExitCode::from(USAGE),
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Mkfs(arguments) => mkfs::run(&arguments)?,
        Command::Mount(arguments) => return mount::run(&arguments),
        Command::Umount(arguments) => umount::run(&arguments)?,
        Command::Info(arguments) => info::run(&arguments)?,
        Command::Dax(arguments) => return dax::run(&arguments),
        Command::Maps(arguments) => return maps::run(&arguments),
        Command::Run(arguments) => return Ok(run::run(&arguments)),
        Command::Fsck(arguments) => return Ok(fsck::run(&arguments)),
        Command::Bench(arguments) => bench::run(&arguments)?,
        Command::Completions { shell } => generate::completions(shell)?,
        Command::Man { directory } => generate::manual_pages(&directory)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what went wrong, in one line. Whoever reads the output only up to a point knows that.
fn complain(error: &anyhow::Error) {
    let is_closed = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    if error.chain().filter_map(|cause| cause.downcast_ref()).any(is_closed) {
        return;
    }
    eprintln!("lodefs: {}", text::line(&format!("{error:#}")));
}
