//! File systems of the kernel, on loop devices on what is measured on.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    /// The program that makes one, and its package.
    fn maker(self) -> (Command, &'static str) {
        match self {
            Self::Ext4 => {
                let mut command = Command::new("mkfs.ext4");
                // The kernel would otherwise go on with it while others are measured.
                command.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]);
                (command, "e2fsprogs")
            }
            Self::Xfs => {
                let mut command = Command::new("mkfs.xfs");
                command.args(["-q", "-f"]);
                (command, "xfsprogs")
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        })
    }
}

/// Makes one of this size in `root`, unless it is there, and mounts it. The kernel gives the device back when it is unmounted, which is
/// up to whoever removes `root`.
pub(crate) fn mount(root: &Path, kind: Kind, size: u64) -> anyhow::Result<PathBuf> {
    let (image, target) = (root.join(format!("{kind}.img")), root.join(kind.to_string()));
    if target.exists() {
        return Ok(target);
    }
    File::create(&image)?.set_len(size)?;
    let (mut maker, package) = kind.maker();
    run(maker.arg(&image), kind, package)?;
    fs::create_dir(&target)?;
    let mut mount = Command::new("mount");
    mount.args(["-t", &kind.to_string(), "-o", "loop"]).arg(&image).arg(&target);
    run(&mut mount, kind, "mount").inspect_err(|_| {
        // The next one who asks must not take it for what is mounted. It is empty, and goes with the root in any case.
        let _ = fs::remove_dir(&target);
    })?;
    Ok(target)
}

fn run(command: &mut Command, kind: Kind, package: &str) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{name}: cannot be run; install it (Debian: {package})"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}; {kind} on a loop device takes root", message.trim());
    }
    Ok(())
}
