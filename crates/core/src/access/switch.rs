//! Setting or clearing the DAX flag, and what of it takes effect.
//!
//! With [`Switch::Pending`] and [`Switch::Now`] nobody is asked for anything. To revoke is more: mappings by programs are recalled,
//! the switch is made, and the next touch maps what the file is then. Meanwhile touches have to be made again, and nothing else is
//! held up: a program that has mapped the file as the host does gives it back by unmapping it, whereupon the host writes its cache
//! to the file, which needs the lock of the inode.

use rustix::io::Errno;

use super::{Asker, Effect};
use crate::error::{Result, ensure};
use crate::fs::Fs;
use crate::inode::Node;
use crate::lease::Recalled;
use crate::ops::flags::{check_immutable, has_flags};
use crate::ops::locked::LockedInode;
use crate::tx::Tx;
use crate::types::{Flags, Kind};

/// What to do about a flag that cannot take effect at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Let it be pending.
    Pending,
    /// Change nothing.
    Now,
}

/// What stands in the way of a switch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// Nothing: the flag changes, and what follows from it comes later.
    Pending,
    /// Whoever holds the file otherwise.
    Now,
    /// The same, but for mappings by programs: they have all been given back.
    GivenBack,
}

impl Fs {
    /// Sets or clears the DAX flag alone. With [`Switch::Now`], BUSY if others hold the file in the way that it would no
    /// longer be reached, OPNOTSUPP if the policy or the medium decides otherwise than the flag; then nothing has changed. INVAL unless
    /// it is a regular file or a directory; PERM if it is immutable.
    ///
    /// `asker`, by which it is asked for, does not count; whether it does not hold the file any more, and is to be dropped.
    pub fn set_dax(&self, node: &Node, on: bool, switch: Switch, asker: Option<Asker>) -> Result<bool> {
        let attempt = match switch {
            Switch::Pending => Attempt::Pending,
            Switch::Now => Attempt::Now,
        };
        Ok(self.try_switch(node, on, attempt, asker)?.ok_or(Errno::BUSY)?)
    }

    /// Sets or clears the DAX flag, and takes mappings by programs back so that it takes effect at once. BUSY, and nothing has changed,
    /// if somebody holds the file otherwise, has mapped it synchronously, or does not give it back; OPNOTSUPP, INVAL, PERM as for
    /// [`Self::set_dax`].
    ///
    /// `asker`, by which it is asked for, does not count; whether it does not hold the file any more, and is to be dropped.
    /// `patience` is called while others may be about to let go of the file; it waits a moment, and returns `false` when it has
    /// waited long enough.
    pub fn revoke_dax(
        &self,
        node: &Node,
        on: bool,
        asker: Option<Asker>,
        patience: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        let Some(recalled) = self.begin_switch(node, on)? else {
            return self.set_dax(node, on, Switch::Now, asker);
        };
        let lagging = recalled.wait();
        // The programs cannot do that any more: what they reach next may be elsewhere.
        let flushed = self.flush_mapped(node, |_| true);
        let outcome = match lagging {
            None => flushed.and_then(|()| self.finish_switch(node, on, asker, patience)),
            // It may reach the medium, or a cache, for as long as it likes.
            Some(_) => Err(Errno::BUSY.into()),
        };
        node.inode().state.write().is_switching = false;
        outcome
    }

    /// Asks for all mappings back; `None` if the file stays as it is, or nobody has any.
    fn begin_switch(&self, node: &Node, on: bool) -> Result<Option<Recalled>> {
        self.check_writable()?;
        let mut locked = LockedInode::lock_beside_data(node.inode())?;
        let (effect, _) = self.dax_rules.wanted(flags_with(&locked, on)?);
        ensure_follows(&locked, on, effect)?;
        let changes = self.holders.of(node.ino(), None).is_none_or(|(present, _)| present != effect);
        if locked.state.leases.is_empty() || !changes {
            return Ok(None);
        }
        // Another one is at it, or a mapping is never to become anything weaker.
        let stays = locked.state.is_switching || locked.state.leases.iter().any(|leased| leased.sync);
        ensure(!stays, Errno::BUSY)?;
        locked.state.is_switching = true;
        Ok(Some(Recalled::everything(&mut locked.state)))
    }

    /// All mappings have been given back.
    fn finish_switch(
        &self,
        node: &Node,
        on: bool,
        asker: Option<Asker>,
        patience: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        loop {
            if let Some(is_spent) = self.try_switch(node, on, Attempt::GivenBack, asker)? {
                return Ok(is_spent);
            }
            ensure(patience(), Errno::BUSY)?;
        }
    }

    /// Sets or clears the flag, and lets go of the file for those who do not stand in the way. Gives whether the asker does not hold it
    /// any more; `None`: somebody stands in the way, and nothing has changed.
    fn try_switch(
        &self,
        node: &Node,
        on: bool,
        attempt: Attempt,
        asker: Option<Asker>,
    ) -> Result<Option<bool>> {
        let tx = Tx::begin(self)?;
        let mut locked = LockedInode::lock_beside_data(node.inode())?;
        let flags = flags_with(&locked, on)?;
        let (effect, _) = self.dax_rules.wanted(flags);
        if attempt != Attempt::Pending {
            ensure_follows(&locked, on, effect)?;
        }
        let given_back = attempt == Attempt::GivenBack;
        // One may have come while the others were being taken back.
        ensure(!given_back || !locked.state.leases.iter().any(|leased| leased.sync), Errno::BUSY)?;
        let leased = locked.state.leases.iter().filter(|_| given_back);
        let leased: Vec<u64> = leased.filter_map(|leased| leased.holder).collect();
        let besides: Vec<u64> = leased.iter().copied().chain(asker.map(|asker| asker.id)).collect();
        let stays = self.holders.is_held_otherwise(node.ino(), effect, &besides);
        if stays && attempt != Attempt::Pending {
            return Ok(None);
        }
        if flags != locked.flags() {
            self.commit_flags(tx, &mut locked, flags)?;
        }
        if stays {
            return Ok(Some(false));
        }
        // Nobody can come to hold the file before the inode is unlocked.
        for holder in leased {
            self.holders.release(node.ino(), holder);
        }
        if given_back {
            locked.state.leases.iter_mut().for_each(|leased| leased.holder = None);
        }
        let spent = asker.filter(|asker| asker.effect != effect);
        if let Some(asker) = spent {
            self.holders.release(node.ino(), asker.id);
        }
        Ok(Some(spent.is_some()))
    }
}

/// A switch that is to take effect at once has an effect.
fn ensure_follows(locked: &LockedInode<'_>, on: bool, effect: Effect) -> Result<()> {
    let wanted = if on { Effect::Direct } else { Effect::Buffered };
    ensure(locked.state.kind() == Kind::Directory || effect == wanted, Errno::OPNOTSUPP)
}

/// The flags of a locked inode with the DAX flag set or cleared, if that may be.
fn flags_with(locked: &LockedInode<'_>, on: bool) -> Result<Flags> {
    ensure(has_flags(locked.kind()), Errno::INVAL)?;
    let mut flags = locked.flags();
    flags.set(Flags::DAX, on);
    check_immutable(locked.flags(), flags)?;
    Ok(flags)
}
