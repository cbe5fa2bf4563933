//! Where do programs run, and how are they started there?

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;

use super::super::arena::Arena;
use super::super::attached::mount_for_attaching;
use super::super::loop_device::{self, Kind};
use super::super::mounted::{Mounted, make_target};

/// Bytes in the volume, and in each file system on a loop device: XFS is not made any smaller than 300 MiB.
const SIZE: u64 = 1 << 30;

/// A kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Direct files of a volume, under `lodefs run`.
    Run,
    Tmpfs,
    Ext4,
    Xfs,
}

impl Place {
    /// In the order of the report; each one's number is its index.
    pub(crate) const ALL: [Self; 4] = [Self::Run, Self::Tmpfs, Self::Ext4, Self::Xfs];

    /// What it is called in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Run => "lodefs run",
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "XFS",
        }
    }
}

/// A place where programs can run.
pub(crate) struct Site {
    pub(crate) place: Place,
    pub(crate) directory: PathBuf,
}

impl Site {
    /// A program, to run in a directory of this place.
    pub(crate) fn command(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = if self.place == Place::Run {
            let mut command = Command::new(env::current_exe().context("nobody knows what is running here")?);
            command.args(["run", "--", program]);
            command
        } else {
            Command::new(program)
        };
        command.stdin(Stdio::null()).env("LC_ALL", "C");
        Ok(command)
    }
}

/// All of them.
pub(crate) struct Places {
    pub(crate) sites: Vec<Site>,
    /// Those that cannot be had here, and why.
    pub(crate) missing: Vec<(Place, String)>,
    _mounted: Mounted,
}

impl Places {
    /// Makes them in the arena, which removes them.
    pub(crate) fn new(arena: &Arena) -> anyhow::Result<Self> {
        let root = arena.root();
        let mounted = mount_for_attaching(root, "run", SIZE)?;
        let run = Site { place: Place::Run, directory: mounted.target().to_owned() };
        let tmpfs = Site { place: Place::Tmpfs, directory: make_target(root, "tmpfs")? };
        let mut places = Self { sites: vec![run, tmpfs], missing: Vec::new(), _mounted: mounted };
        for (place, kind) in [(Place::Ext4, Kind::Ext4), (Place::Xfs, Kind::Xfs)] {
            match loop_device::mount(root, kind, SIZE) {
                Ok(directory) => places.sites.push(Site { place, directory }),
                Err(error) => places.missing.push((place, format!("{error:#}"))),
            }
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_where_its_number_says() {
        for (index, place) in Place::ALL.into_iter().enumerate() {
            assert_eq!(place as usize, index);
        }
    }
}
