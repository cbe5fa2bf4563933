//! `lodefs mount`: starts a server and returns once the mount is usable, or tells why not.
//!
//! | module | question |
//! |---|---|
//! | `options` | what does the list behind `-o` mean? |
//! | `launch` | how does the server get into the background, and how is it known to be ready? |
//! | `serve` | what does the server do from its start to its end? |
//! | `ending` | what ends it? |
//! | `limits` | are there enough descriptors and addresses? |
//! | `memory` | and if the host runs out of memory? |
//! | `remount` | how are the options of a mount changed? |
//! | `helper` | how does mount(8) call this program? |

mod ending;
pub(crate) mod helper;
mod launch;
mod limits;
mod memory;
mod options;
mod remount;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::arguments::MountArguments;
use crate::{Usage, log};
use options::Options;

/// What is to be mounted, where and how.
pub(crate) struct Request {
    pub(crate) volume: PathBuf,
    pub(crate) directory: PathBuf,
    /// Size of the volume to make if there is none.
    pub(crate) create: Option<u64>,
    pub(crate) options: Options,
}

/// Mounts, and in the foreground serves until it is unmounted.
pub(crate) fn run(arguments: &MountArguments) -> anyhow::Result<ExitCode> {
    let options = Options::parse(arguments.options.iter().map(String::as_str), arguments.sloppy)?;
    if options.remount {
        remount::run(arguments.directory.as_deref().unwrap_or(&arguments.volume), &options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let directory = arguments
        .directory
        .clone()
        .ok_or_else(|| Usage("no directory given; write `lodefs mount VOLUME DIRECTORY`".into()))?;
    let request = Request { volume: arguments.volume.clone(), directory, create: arguments.create, options };
    if arguments.server {
        log::to_background(arguments.log.as_deref())?;
        serve::run(&request, launch::announce).inspect_err(|error| tracing::error!("{error:#}"))?;
    } else if arguments.foreground {
        match &arguments.log {
            Some(file) => log::to_background(Some(file))?,
            None => log::to_terminal(),
        }
        serve::run(&request, || Ok(()))?;
    } else {
        return launch::run(arguments, &request);
    }
    Ok(ExitCode::SUCCESS)
}
