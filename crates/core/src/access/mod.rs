//! Which files are direct now, who keeps them so, and why.
//!
//! A file has a *flag*, which is stored, and an *effect*: whether programs reach the medium itself or a buffer. The flag, the
//! mount option and the medium say what the effect should be ([`Rules::wanted`]). The effect changes only while nobody
//! holds the file: whoever opens, maps, reads or writes it takes a [`Hold`] first, gets the present effect with it, and
//! can rely on it until the hold is dropped. So at no time do two holders of one file reach different copies of it, and
//! what somebody has mapped never changes its kind; a switch that is asked for meanwhile is *pending* until the last
//! holder goes.
//!
//! There is no state of a switch under way: a file that nobody holds has no entry in [`Holders`], and its effect is what
//! is wanted. What a front end has to do between the last holder of one kind and the first of the other (drop a cache) it does
//! when it gives the first hold to a program.
//!
//! Lock order: the inode, then a shard of the holders.

mod holders;
mod switch;

use std::fmt;

use rustix::io::Errno;

use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::Node;
use crate::ops::flags::has_flags;
use crate::types::{Flags, Kind};
use lodefs_pmem::Domain;
use lodefs_sync::{Arc, Ordering};

pub(crate) use holders::Holders;
pub use holders::{Holder, HolderKind};
pub use switch::Switch;

/// How programs reach the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Loads and stores reach the medium, with no cache in between.
    Direct,
    /// There may be a copy in a cache, which is written back.
    Buffered,
}

/// Which files are to be direct: the mount option `dax`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DaxPolicy {
    /// Those with the flag.
    #[default]
    Inode,
    /// All.
    Always,
    /// None.
    Never,
}

impl fmt::Display for DaxPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inode => "inode",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

/// What decided about the effect of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaxReason {
    /// Its flag, set or not.
    Flag,
    /// The mount option.
    Policy,
    /// The medium: behind a page cache nothing is direct.
    Medium,
    /// Holders of the other kind: the switch is pending until the last one goes.
    Holders,
}

/// What is to be known about the access to a file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaxStatus {
    /// Whether the flag is set.
    pub flag: bool,
    /// How the file is reached now. A directory has no content that programs could reach: `None`.
    pub effect: Option<Effect>,
    /// What decided about the effect.
    pub reason: DaxReason,
    /// Who holds the file, in the order in which they came. All with the present effect.
    pub holders: Vec<Holder>,
}

impl DaxStatus {
    /// Whether the effect is about to change, once the last holder goes.
    pub fn is_pending(&self) -> bool {
        self.reason == DaxReason::Holders
    }
}

/// What decides about the effect beside the flag, for all files of an open volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    policy: DaxPolicy,
    /// The medium can be reached directly.
    is_able: bool,
}

impl Rules {
    pub(crate) fn new(policy: DaxPolicy, domain: Domain) -> Self {
        Self { policy, is_able: domain != Domain::Page }
    }

    /// What the effect should be, and what says so.
    pub(crate) fn wanted(self, flags: Flags) -> (Effect, DaxReason) {
        let flag = flags.contains(Flags::DAX);
        let (asked, reason) = match self.policy {
            DaxPolicy::Inode => (flag, DaxReason::Flag),
            // What the option and the flag agree upon, the flag says.
            DaxPolicy::Always if flag => (true, DaxReason::Flag),
            DaxPolicy::Never if !flag => (false, DaxReason::Flag),
            DaxPolicy::Always => (true, DaxReason::Policy),
            DaxPolicy::Never => (false, DaxReason::Policy),
        };
        match (asked, self.is_able) {
            (true, true) => (Effect::Direct, reason),
            (true, false) => (Effect::Buffered, DaxReason::Medium),
            (false, _) => (Effect::Buffered, reason),
        }
    }
}

/// A file stays as direct, or as buffered, as it is, until this is dropped.
pub struct Hold {
    fs: Arc<Fs>,
    node: Node,
    id: u64,
    effect: Effect,
    is_behind: bool,
}

impl Hold {
    /// How the file is reached, as long as it is held.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Whether the effect is not the one that was wanted when the hold was taken, because others held the file, or is just about to
    /// change unless this hold stands in the way.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Whether anybody, program or mapping, has held the file direct since it is in memory: what a cache had of it before then is out
    /// of date.
    pub fn was_direct(&self) -> bool {
        self.node.inode().was_direct.load(Ordering::Acquire)
    }

    /// The file.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What names it where it cannot be lent.
    pub fn asker(&self) -> Asker {
        Asker { id: self.id, effect: self.effect }
    }
}

/// Names a hold by which somebody asks ([`Fs::set_dax`], [`Fs::dax_status`]).
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    id: u64,
    effect: Effect,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.fs.holders.release(self.node.ino(), self.id);
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("ino", &self.node.ino())
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}

impl Fs {
    /// Keeps the effect of a regular file as it is, for a process or thread with the number `pid` (0: unknown). INVAL for
    /// other inodes.
    pub fn hold(self: &Arc<Self>, node: &Node, kind: HolderKind, pid: u32) -> Result<Hold> {
        let state = node.inode().read()?;
        ensure(state.kind() == Kind::File, Errno::INVAL)?;
        // The flag cannot change before the hold counts.
        let (wanted, _) = self.dax_rules.wanted(state.flags());
        let (id, effect) = self.holders.add(node.ino(), wanted, Holder { kind, pid });
        if effect == Effect::Direct {
            node.inode().was_direct.store(true, Ordering::Release);
        }
        let is_behind = effect != wanted || state.is_switching;
        drop(state);
        Ok(Hold { fs: Arc::clone(self), node: node.clone(), id, effect, is_behind })
    }

    /// Flag, effect and holders of a file or directory, at one moment; `asker`, by which it is asked for, is not among them.
    /// INVAL for other inodes.
    pub fn dax_status(&self, node: &Node, asker: Option<Asker>) -> Result<DaxStatus> {
        let state = node.inode().read()?;
        ensure(has_flags(state.kind()), Errno::INVAL)?;
        let flag = state.flags().contains(Flags::DAX);
        if state.kind() == Kind::Directory {
            return Ok(DaxStatus { flag, effect: None, reason: DaxReason::Flag, holders: Vec::new() });
        }
        let (wanted, reason) = self.dax_rules.wanted(state.flags());
        let (effect, holders) = self.holders.of(node.ino(), asker).unwrap_or((wanted, Vec::new()));
        let reason = if effect == wanted { reason } else { DaxReason::Holders };
        Ok(DaxStatus { flag, effect: Some(effect), reason, holders })
    }
}
