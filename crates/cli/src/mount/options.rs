//! The list behind `-o`.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use anyhow::bail;
use lodefs_core::DaxPolicy;
use lodefs_fuse::Allow;
use rustix::mount::MountFlags;

use crate::Usage;

/// How long work on a `page` volume may stay undurable, unless it is said otherwise.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// Who may map the memory of the volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Attach {
    /// The user who mounted it.
    #[default]
    Owner,
    /// That user's group.
    Group,
    /// Nobody.
    Nobody,
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Group => "group",
            Self::Nobody => "none",
        })
    }
}

/// How a volume is to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Flags of the mount that are asked for.
    pub(crate) set: MountFlags,
    /// Flags of the mount that are asked not to be.
    pub(crate) cleared: MountFlags,
    /// Change the flags of an existing mount.
    pub(crate) remount: bool,
    pub(crate) dax: DaxPolicy,
    pub(crate) attach: Attach,
    pub(crate) writeback: bool,
    pub(crate) commit: Duration,
    /// `None`: as suits the user.
    pub(crate) allow: Option<Allow>,
    /// `None`: the volume's path as given.
    pub(crate) source: Option<OsString>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            set: MountFlags::empty(),
            cleared: MountFlags::empty(),
            remount: false,
            dax: DaxPolicy::default(),
            attach: Attach::default(),
            writeback: false,
            commit: COMMIT_INTERVAL,
            allow: None,
            source: None,
        }
    }
}

/// Flags of mounts: the option that sets each, and its opposite.
const FLAGS: [(&str, &str, MountFlags); 9] = [
    ("ro", "rw", MountFlags::RDONLY),
    ("nosuid", "suid", MountFlags::NOSUID),
    ("nodev", "dev", MountFlags::NODEV),
    ("noexec", "exec", MountFlags::NOEXEC),
    ("noatime", "atime", MountFlags::NOATIME),
    ("nodiratime", "diratime", MountFlags::NODIRATIME),
    ("relatime", "norelatime", MountFlags::RELATIME),
    ("sync", "async", MountFlags::SYNCHRONOUS),
    ("dirsync", "nodirsync", MountFlags::DIRSYNC),
];

/// Options that concern mount(8), or whoever reads /etc/fstab, or say what is so anyway.
const IGNORED: [&str; 16] = [
    "defaults",
    "nostrictatime",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "default_permissions",
    "lazytime",
    "nolazytime",
    "loud",
    "silent",
];

/// Beginnings of further options of that kind. From `user_id=` on they are what the kernel shows of a mount, which
/// mount(8) repeats when it remounts.
const IGNORED_PREFIXES: [&str; 11] = [
    "x-",
    "X-",
    "comment=",
    "uhelper=",
    "helper=",
    "user=",
    "user_id=",
    "group_id=",
    "subtype=",
    "max_read=",
    "blksize=",
];

impl Options {
    /// Reads lists, later options before earlier ones. An unknown option is an error that names it, unless `sloppy`.
    pub(crate) fn parse<'a>(lists: impl IntoIterator<Item = &'a str>, sloppy: bool) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut says_who_attaches = false;
        let all = lists.into_iter().flat_map(|list| list.split(','));
        for option in all.filter(|option| !option.is_empty()) {
            let is_known = options.take_flag(option) || is_ignored(option) || options.take(option)?;
            if !is_known && !sloppy {
                bail!(Usage(format!("-o {option}: no such option; see `lodefs mount --help`")));
            }
            says_who_attaches |= option.starts_with("attach=");
        }
        if options.writeback && options.attach != Attach::Nobody {
            // Of files that it may write back the kernel knows sizes and times better than the server, which tells of those who attach.
            if says_who_attaches {
                bail!(Usage(
                    "-o writeback: nobody may attach then; choose attach=none, or leave it out".to_owned()
                ));
            }
            options.attach = Attach::Nobody;
        }
        Ok(options)
    }

    fn take_flag(&mut self, option: &str) -> bool {
        for (set, clear, flag) in FLAGS {
            if option == set {
                self.set |= flag;
                self.cleared -= flag;
                return true;
            }
            if option == clear {
                self.set -= flag;
                self.cleared |= flag;
                return true;
            }
        }
        false
    }

    /// Takes an option of lodefs; false if it is none.
    fn take(&mut self, option: &str) -> anyhow::Result<bool> {
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("remount", None) => self.remount = true,
            ("strictatime", None) => bail!(Usage(
                "-o strictatime: the kernel answers reads from its cache without the server, so not every read can move \
                 an access time; leave it out for relatime"
                    .to_owned()
            )),
            ("writeback", None) => self.writeback = true,
            ("allow_other", None) => self.allow = Some(Allow::Everybody),
            ("allow_root", None) => self.allow = Some(Allow::OwnerAndRoot),
            ("dax", None | Some("always")) => self.dax = DaxPolicy::Always,
            ("dax", Some("inode")) => self.dax = DaxPolicy::Inode,
            ("dax", Some("never")) => self.dax = DaxPolicy::Never,
            ("dax", Some(_)) => bail!(Usage(format!("-o {option}: dax is inode, always or never"))),
            ("attach", Some("owner")) => self.attach = Attach::Owner,
            ("attach", Some("group")) => self.attach = Attach::Group,
            ("attach", Some("none")) => self.attach = Attach::Nobody,
            ("attach", _) => bail!(Usage(format!("-o {option}: attach is owner, group or none"))),
            ("commit", value) => self.commit = parse_commit(option, value)?,
            ("fsname", Some(name)) if !name.is_empty() => self.source = Some(name.into()),
            ("fsname", _) => bail!(Usage(format!("-o {option}: a name must follow"))),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Which access times are kept.
    pub(crate) fn atime(&self) -> &'static str {
        if self.set.contains(MountFlags::NOATIME) {
            "noatime"
        } else if self.set.contains(MountFlags::NODIRATIME) {
            "nodiratime"
        } else {
            "relatime"
        }
    }

    /// Whether the volume is only to be read.
    pub(crate) fn read_only(&self) -> bool {
        self.set.contains(MountFlags::RDONLY)
    }
}

fn is_ignored(option: &str) -> bool {
    IGNORED.contains(&option) || IGNORED_PREFIXES.iter().any(|prefix| option.starts_with(prefix))
}

/// Seconds; 0 means the default, as for ext4.
fn parse_commit(option: &str, value: Option<&str>) -> anyhow::Result<Duration> {
    let seconds: Option<u32> = value.and_then(|value| value.parse().ok());
    match seconds {
        None => bail!(Usage(format!("-o {option}: a number of seconds must follow, like commit=5"))),
        Some(0) => Ok(COMMIT_INTERVAL),
        Some(seconds) => Ok(Duration::from_secs(seconds.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Options {
        Options::parse([list], false).unwrap()
    }

    #[test]
    fn an_empty_list_is_the_default() {
        assert_eq!(parse(""), Options::default());
        assert_eq!(parse(",,defaults,"), Options::default());
    }

    #[test]
    fn the_last_of_opposites_holds() {
        let options = parse("ro,nosuid,rw,noexec");
        assert_eq!(options.set, MountFlags::NOSUID | MountFlags::NOEXEC);
        assert_eq!(options.cleared, MountFlags::RDONLY);
        let lists = Options::parse(["dax=always", "dax=never,rw", "ro"], false).unwrap();
        assert_eq!((lists.dax, lists.read_only()), (DaxPolicy::Never, true));
    }

    #[test]
    fn own_options_are_understood() {
        let options = parse("dax,attach=none,commit=30,writeback,allow_root,fsname=a=b,remount");
        assert_eq!(options.dax, DaxPolicy::Always);
        assert_eq!(options.attach, Attach::Nobody);
        assert_eq!(options.commit, Duration::from_secs(30));
        assert_eq!(options.allow, Some(Allow::OwnerAndRoot));
        assert_eq!(options.source, Some("a=b".into()));
        assert!(options.writeback && options.remount);
        assert_eq!(parse("commit=0").commit, COMMIT_INTERVAL);
    }

    #[test]
    fn nobody_attaches_where_the_kernel_writes_back() {
        for list in ["writeback", "writeback,attach=none", "attach=owner,attach=none,writeback"] {
            let options = parse(list);
            assert_eq!((options.writeback, options.attach), (true, Attach::Nobody), "{list}");
        }
    }

    #[test]
    fn what_concerns_others_is_passed_over() {
        let list = "nofail,_netdev,x-systemd.automount,X-mount.mkdir,user,noauto,comment=x,user_id=0";
        assert_eq!(parse(list), Options::default());
    }

    #[test]
    fn faults_are_named() {
        for list in [
            "rw,frobnicate",
            "attach=owner,writeback",
            "dax=maybe",
            "attach",
            "attach=all",
            "commit",
            "commit=soon",
            "fsname=",
            "ro=1",
            "rw,strictatime",
        ] {
            let fault = list.rsplit(',').next().unwrap();
            let message = Options::parse([list], false).unwrap_err().to_string();
            assert!(message.starts_with(&format!("-o {fault}:")), "{message}");
        }
    }

    #[test]
    fn sloppiness_forgives_unknown_options_only() {
        assert_eq!(Options::parse(["frobnicate,ro"], true).unwrap().set, MountFlags::RDONLY);
        assert!(Options::parse(["dax=maybe"], true).is_err());
    }
}
