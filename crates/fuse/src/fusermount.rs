//! Mounting and unmounting by `fusermount3`, for users who may not do it themselves.
//!
//! The program is set-user-id root. It mounts, and passes the descriptor of `/dev/fuse` back over a socket whose number
//! it finds in the environment.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::MountFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};

use crate::attach::{MountError, SUBTYPE};
use crate::mountinfo;
use crate::options::{Allow, MountOptions};

const PROGRAM: &str = "fusermount3";
/// The environment variable with the number of the socket.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

/// Flags by the names that the program knows; `nosuid` and `nodev` it adds itself.
const FLAG_NAMES: [(MountFlags, &str); 8] = [
    (MountFlags::RDONLY, "ro"),
    (MountFlags::NOSUID, "nosuid"),
    (MountFlags::NODEV, "nodev"),
    (MountFlags::NOEXEC, "noexec"),
    (MountFlags::NOATIME, "noatime"),
    (MountFlags::NODIRATIME, "nodiratime"),
    (MountFlags::SYNCHRONOUS, "sync"),
    (MountFlags::DIRSYNC, "dirsync"),
];

/// Mounts on `target`.
pub(crate) fn attach(target: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let broken = |errno: rustix::io::Errno| MountError::FusermountBroken(errno.into());
    // Neither end is closed on exec: the program must inherit the one whose number it is told, and closing ours
    // there as well is what the next line is for.
    let (ours, its) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None).map_err(broken)?;
    fcntl_setfd(&ours, FdFlags::CLOEXEC).map_err(broken)?;
    let child = Command::new(PROGRAM)
        .arg("-o")
        .arg(option_list(options))
        .arg("--")
        .arg(target)
        .env(SOCKET_VARIABLE, its.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing_or_broken)?;
    drop(its);
    let device = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(MountError::FusermountBroken)?;
    match device {
        Ok(Some(device)) => {
            fcntl_setfd(&device, FdFlags::CLOEXEC).map_err(broken)?;
            Ok(device)
        }
        Ok(None) => Err(refusal(target, last_words(&output.stderr))),
        Err(error) => Err(MountError::FusermountBroken(error)),
    }
}

/// Unmounts `target`.
pub(crate) fn detach(target: &Path, lazy: bool) -> Result<(), MountError> {
    let output = Command::new(PROGRAM)
        .arg(if lazy { "-uz" } else { "-u" })
        .arg("--")
        .arg(target)
        .stdin(Stdio::null())
        .output()
        .map_err(missing_or_broken)?;
    if output.status.success() {
        return Ok(());
    }
    let message = last_words(&output.stderr);
    Err(if message.contains("busy") {
        MountError::Busy(target.into())
    } else if message.contains("not found") {
        // It looks only for mounts of the user who asks.
        let is_there = mountinfo::mount_at(target).is_ok_and(|mount| mount.is_some());
        if is_there { MountError::NotYours(target.into()) } else { MountError::NotMounted(target.into()) }
    } else {
        MountError::Fusermount { target: target.into(), message }
    })
}

fn missing_or_broken(error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => MountError::NoFusermount,
        _ => MountError::FusermountBroken(error),
    }
}

fn option_list(options: &MountOptions) -> OsString {
    let mut list = format!("default_permissions,subtype={SUBTYPE}");
    if options.allow != Allow::Owner {
        list.push_str(",allow_other");
    }
    for (flag, name) in FLAG_NAMES {
        if options.flags.contains(flag) {
            list.push(',');
            list.push_str(name);
        }
    }
    let mut list = OsString::from(list);
    list.push(",fsname=");
    list.push(escape(&options.source));
    list
}

/// Commas would end the option; the program takes a backslash as the cure.
fn escape(value: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    OsString::from_vec(escaped)
}

/// The descriptor that arrives at the socket, or `None` if the other end closes without one.
fn receive_descriptor(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::empty())
    })?;
    Ok(ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

/// What a complaint means.
fn refusal(target: &Path, message: String) -> MountError {
    if message.contains("device not found") {
        MountError::DeviceMissing
    } else if message.contains("failed to open /dev/fuse") {
        MountError::Device(io::ErrorKind::PermissionDenied.into())
    } else {
        MountError::Fusermount { target: target.into(), message }
    }
}

/// What the program complained about, without its name in front.
fn last_words(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let line = text
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("fusermount3 failed without a word");
    line.trim_start_matches("fusermount3:").trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_the_source_does_not_end_it() {
        let mut options = MountOptions::new("a,b\\c");
        options.flags = MountFlags::RDONLY | MountFlags::NODEV;
        options.allow = Allow::Everybody;
        assert_eq!(
            option_list(&options),
            "default_permissions,subtype=lodefs,allow_other,ro,nodev,fsname=a\\,b\\\\c"
        );
    }

    #[test]
    fn a_complaint_loses_its_prefix() {
        assert_eq!(last_words(b"x\nfusermount3: mount failed: No\n\n"), "mount failed: No");
        assert_eq!(last_words(b""), "fusermount3 failed without a word");
    }

    #[test]
    fn a_closed_socket_brings_no_descriptor() {
        let (ours, its) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        drop(its);
        assert!(receive_descriptor(&ours).unwrap().is_none());
    }
}
