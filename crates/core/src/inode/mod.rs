//! Inodes in memory.
//!
//! [`table`] finds slots on the volume and gives out numbers, [`cache`] holds the inodes in use and hands out
//! [`Node`]s, [`glimpse`] guards the state of one, [`check`] decides whether a stored slot makes sense.

pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod glimpse;
pub(crate) mod table;

use lodefs_layout::inode::InodeSlot;
use rustix::io::Errno;

pub use cache::Node;

use self::glimpse::{StateCell, StateWriteGuard};
use crate::dir::NodeCache;
use crate::error::{Result, ensure};
use crate::extents::{ExtentMap, store};
use crate::fs::Fs;
use crate::lease::{Cached, Leased};
use crate::ops::tail::Tail;
use crate::types::{Attr, Flags, Ino, Kind, S_PERM, Time};
use crate::volume::Volume;
use lodefs_sync::{AtomicBool, AtomicU64, Ordering, RwLockReadGuard};

/// An inode in memory.
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    /// Where its slot is, in bytes from the start of the volume.
    pub(crate) slot_offset: u64,
    pub(crate) generation: u32,
    /// As long as the inode lives, it stays of one kind.
    pub(crate) kind: Kind,
    /// [`Node`]s that point here. While there is one, the inode stays, even without links.
    pub(crate) references: AtomicU64,
    /// Somebody has seen its times since they last changed: the next change has to show.
    pub(crate) times_seen: AtomicBool,
    /// Somebody has held it direct since it is in memory: what a cache had of it is out of date.
    pub(crate) was_direct: AtomicBool,
    /// Lock order: inodes in ascending order of their numbers.
    pub(crate) state: StateCell,
}

impl Inode {
    /// An inode in memory, with this many references.
    pub(crate) fn new(ino: Ino, slot_offset: u64, state: InodeState, references: u64) -> Self {
        Self {
            ino,
            slot_offset,
            generation: state.slot.generation.get(),
            kind: state.kind(),
            references: AtomicU64::new(references),
            times_seen: AtomicBool::new(true),
            was_direct: AtomicBool::new(false),
            state: StateCell::new(state),
        }
    }

    /// Notes that somebody has seen its times.
    pub(crate) fn note_times_seen(&self) {
        if !self.times_seen.load(Ordering::Relaxed) {
            self.times_seen.store(true, Ordering::Relaxed);
        }
    }

    /// Locks the inode for reading; STALE if it has been reclaimed.
    #[cfg_attr(lodefs_shuttle, track_caller)]
    pub(crate) fn read(&self) -> Result<RwLockReadGuard<'_, InodeState>> {
        let state = self.state.read();
        ensure(!state.dead, Errno::STALE)?;
        Ok(state)
    }

    /// Locks the inode for writing; STALE if it has been reclaimed.
    #[cfg_attr(lodefs_shuttle, track_caller)]
    pub(crate) fn write(&self) -> Result<StateWriteGuard<'_>> {
        let state = self.state.write();
        ensure(!state.dead, Errno::STALE)?;
        Ok(state)
    }

    /// The time for a change of this inode.
    pub(crate) fn now(&self, fs: &Fs) -> Time {
        let seen = self.times_seen.load(Ordering::Relaxed);
        if seen { fs.clock.fine() } else { fs.clock.tick() }
    }
}

/// What the lock of an inode guards.
pub(crate) struct InodeState {
    /// The slot as it was last committed.
    pub(crate) slot: InodeSlot,
    /// Extents of a regular file, once they were needed.
    pub(crate) extents: Option<ExtentMap>,
    /// Interior blocks of a directory, once they were checked.
    pub(crate) nodes: NodeCache,
    /// Mappings by programs of this, which is direct then.
    pub(crate) leases: Vec<Leased>,
    /// Whether the attributes have file capabilities, once that was needed.
    pub(crate) has_capability: Option<bool>,
    /// A program appends to it by itself: the size is elsewhere.
    pub(crate) tail: Option<Tail>,
    /// What the kernel keeps of its content, though it is direct.
    pub(crate) cached: Cached,
    /// Mappings are just being taken back so that it can become direct, or buffered.
    pub(crate) is_switching: bool,
    /// It never had a name, and may get one ([`crate::Fs::tmpfile`]).
    pub(crate) awaits_name: bool,
    /// It has been reclaimed: nothing may be done with it any more.
    pub(crate) dead: bool,
}

impl InodeState {
    pub(crate) fn new(slot: InodeSlot) -> Self {
        Self {
            slot,
            extents: None,
            nodes: NodeCache::default(),
            leases: Vec::new(),
            has_capability: None,
            tail: None,
            cached: Cached::default(),
            is_switching: false,
            awaits_name: false,
            dead: false,
        }
    }

    /// The kind, which was checked when the slot was loaded.
    pub(crate) fn kind(&self) -> Kind {
        kind_of(&self.slot)
    }

    pub(crate) fn flags(&self) -> Flags {
        Flags::from_bits_retain(self.slot.xflags.get())
    }

    /// The extents, read from the volume if they are not in memory.
    pub(crate) fn extents(&mut self, volume: &Volume, ino: Ino) -> Result<&mut ExtentMap> {
        let map = match self.extents.take() {
            Some(map) => map,
            None => store::load(volume, ino, &self.slot)?,
        };
        Ok(self.extents.insert(map))
    }
}

/// The kind of a checked slot.
pub(crate) fn kind_of(slot: &InodeSlot) -> Kind {
    Kind::from_mode(slot.mode.get()).expect("the mode was checked when the slot was loaded")
}

/// The attributes that a slot holds.
pub(crate) fn attr_of(slot: &InodeSlot) -> Attr {
    let kind = kind_of(slot);
    let time = |s: i64, which: usize| Time { s, ns: slot.times_ns[which].get() };
    let size =
        if kind == Kind::Directory { slot.blocks.get() * lodefs_layout::BLOCK_SIZE } else { slot.size.get() };
    Attr {
        ino: Ino(slot.ino.get()),
        generation: slot.generation.get(),
        kind,
        perm: slot.mode.get() & S_PERM,
        links: slot.links.get(),
        uid: slot.uid.get(),
        gid: slot.gid.get(),
        size,
        sectors: slot.blocks.get() * (lodefs_layout::BLOCK_SIZE / 512),
        rdev: slot.rdev.get() as u32,
        atime: time(slot.atime_s.get(), 0),
        mtime: time(slot.mtime_s.get(), 1),
        ctime: time(slot.ctime_s.get(), 2),
        btime: time(slot.btime_s.get(), 3),
        flags: Flags::from_bits_retain(slot.xflags.get()),
        project: slot.project.get(),
    }
}

/// Setting the times of a slot.
pub(crate) trait SetTimes {
    fn set_atime(&mut self, time: Time);
    fn set_mtime(&mut self, time: Time);
    fn set_ctime(&mut self, time: Time);
    fn set_btime(&mut self, time: Time);
}

impl SetTimes for InodeSlot {
    fn set_atime(&mut self, time: Time) {
        self.atime_s = time.s.into();
        self.times_ns[0] = time.ns.into();
    }

    fn set_mtime(&mut self, time: Time) {
        self.mtime_s = time.s.into();
        self.times_ns[1] = time.ns.into();
    }

    fn set_ctime(&mut self, time: Time) {
        self.ctime_s = time.s.into();
        self.times_ns[2] = time.ns.into();
    }

    fn set_btime(&mut self, time: Time) {
        self.btime_s = time.s.into();
        self.times_ns[3] = time.ns.into();
    }
}
