//! Into the background.
//!
//! The server is this program, started again with `--server`: a fresh process with one thread, whatever this one has
//! done before, and visible in ps(1) with its volume and directory. It says [`READY`] on its standard output once the
//! mount is usable, and then lets go of the terminal. If it fails before, it says why on the standard error that it
//! inherits, and its exit status becomes ours.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, anyhow};
use rustix::io::Errno;
use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::Request;
use crate::arguments::MountArguments;
use crate::log;
use crate::text::shown;
use crate::umount;

/// What the server says when it is.
const READY: &str = "ready";

/// Starts the server and waits for it.
pub(crate) fn run(arguments: &MountArguments, request: &Request) -> anyhow::Result<ExitCode> {
    // If this file has been replaced since it was started, the old one is still there under this name.
    let program = std::env::current_exe().ok().filter(|path| path.exists());
    let mut server = Command::new(program.as_deref().unwrap_or(Path::new("/proc/self/exe")))
        .arg0("lodefs")
        .args(server_arguments(arguments, request))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("the server cannot be started")?;
    if !is_ready(&mut server).context("the server cannot be heard")? {
        return failure(&mut server, &request.directory);
    }
    // One request goes all the way, so that whoever comes next finds it answered.
    if let Err(error) = rustix::fs::statvfs(&request.directory) {
        remove_dead_mount(&request.directory);
        let context = format!("{}: mounted, but does not answer; see the log", shown(&request.directory));
        return Err(anyhow::Error::from(error).context(context));
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes away what a server has left behind that was ended: a mount that answers every call with an error.
fn remove_dead_mount(directory: &Path) {
    let is_dead = || matches!(rustix::fs::statvfs(directory), Err(Errno::NOTCONN | Errno::CONNABORTED));
    let target = umount::resolve(directory).ok().filter(|_| is_dead());
    if let Some(target) = target.filter(|target| umount::lodefs_mount_at(target).is_ok())
        && let Err(error) = lodefs_fuse::unmount(&target, true)
    {
        crate::complain(&error.into());
    }
}

fn server_arguments(arguments: &MountArguments, request: &Request) -> Vec<OsString> {
    let mut list: Vec<OsString> = vec!["mount".into(), "--server".into()];
    if arguments.sloppy {
        list.push("--sloppy".into());
    }
    let mut add = |name: &str, value: &OsStr| {
        let mut argument = OsString::from(name);
        argument.push("=");
        argument.push(value);
        list.push(argument);
    };
    if let Some(size) = request.create {
        add("--create", size.to_string().as_ref());
    }
    if let Some(log) = &arguments.log {
        add("--log", log.as_os_str());
    }
    for options in &arguments.options {
        add("--options", options.as_ref());
    }
    list.extend(["--".into(), request.volume.clone().into(), request.directory.clone().into()]);
    list
}

fn is_ready(server: &mut Child) -> io::Result<bool> {
    let Some(output) = server.stdout.take() else { return Ok(false) };
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok(line.trim_end() == READY)
}

fn failure(server: &mut Child, directory: &Path) -> anyhow::Result<ExitCode> {
    let status = server.wait().context("the server is lost")?;
    match (status.code(), status.signal()) {
        // It has said why.
        (Some(code), _) if code != 0 => Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)),
        (_, Some(signal)) => {
            remove_dead_mount(directory);
            Err(anyhow!("the server was ended by signal {signal} before the mount was usable"))
        }
        _ => Err(anyhow!("the server ended before the mount was usable; see the log")),
    }
}

/// In the server: tells who started it that the mount is usable, and lets go of the terminal.
pub(crate) fn announce() -> anyhow::Result<()> {
    log::warn_if_lost();
    let mut output = io::stdout();
    writeln!(output, "{READY}")
        .and_then(|()| output.flush())
        .context("whoever started the server does not wait for it any more")?;
    // Until here a signal from the terminal was meant for the server too; from now on it has no terminal.
    setsid().context("the terminal does not let go")?;
    let nothing = OpenOptions::new().read(true).write(true).open("/dev/null").context("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    Ok(())
}
