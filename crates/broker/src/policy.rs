//! Who may attach: whoever may is trusted with the whole medium.

use rustix::process::{Gid, Uid};

/// Who may attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// This user, who has mounted the volume, and root.
    Owner(Uid),
    /// Beside them, the members of this group.
    Group(Uid, Gid),
    /// Nobody.
    Nobody,
}

/// Who asks to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process.
    pub pid: u32,
    /// Its user.
    pub uid: Uid,
    /// Whether it belongs to the group of the policy.
    pub is_member: bool,
}

impl Policy {
    /// Whether a process of this kind may attach.
    pub fn allows(self, caller: &Caller) -> bool {
        match self {
            Self::Owner(_) => self.owns(caller),
            Self::Group(..) => self.owns(caller) || caller.is_member,
            Self::Nobody => false,
        }
    }

    /// Whether a process is of the user who has mounted the volume, or root: whoever that is may read all of it in any case.
    pub(crate) fn owns(self, caller: &Caller) -> bool {
        match self {
            Self::Owner(owner) | Self::Group(owner, _) => caller.uid == owner || caller.uid.is_root(),
            Self::Nobody => false,
        }
    }

    /// The group whose members may attach.
    pub fn group(self) -> Option<Gid> {
        match self {
            Self::Group(_, group) => Some(group),
            Self::Owner(_) | Self::Nobody => None,
        }
    }
}

impl Caller {
    /// A process, whose groups matter if the policy names one.
    pub(crate) fn of_process(pid: u32, uid: Uid, gid: Gid, policy: Policy) -> Self {
        let is_member = policy.group().is_some_and(|group| gid == group || has_group(pid, group));
        Self { pid, uid, is_member }
    }
}

/// Whether a process belongs to a group beside its own.
fn has_group(pid: u32, group: Gid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_ascii_whitespace().any(|one| one.parse() == Ok(group.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_meant_may() {
        let caller = |uid: u32, is_member| Caller { pid: 1, uid: Uid::from_raw(uid), is_member };
        let owner = Policy::Owner(Uid::from_raw(1000));
        let group = Policy::Group(Uid::from_raw(1000), Gid::from_raw(5));
        for (caller, by_owner, by_group) in [
            (caller(1000, false), true, true),
            (caller(0, false), true, true),
            (caller(1001, true), false, true),
            (caller(1001, false), false, false),
        ] {
            assert_eq!(owner.allows(&caller), by_owner, "{caller:?}");
            assert_eq!(group.allows(&caller), by_group, "{caller:?}");
            assert!(!Policy::Nobody.allows(&caller) && !Policy::Nobody.owns(&caller));
            // Members of the group are not shown what they may not read.
            assert_eq!((owner.owns(&caller), group.owns(&caller)), (by_owner, by_owner));
        }
    }
}
