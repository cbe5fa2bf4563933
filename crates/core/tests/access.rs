//! The DAX flag of a file, and its effect: whoever holds a file finds it as it was.

use std::sync::Arc;

use lodefs_core::{
    DaxPolicy, DaxReason, Effect, Flags, FormatOptions, Fs, Holder, HolderKind, NewInode, NewKind, Node,
    OpenOptions, Switch,
};
use lodefs_pmem::{Access, Domain, Medium};
use rustix::io::Errno;

const OPEN: HolderKind = HolderKind::OpenFile;

struct Volume {
    fs: Arc<Fs>,
}

impl Volume {
    fn new(policy: DaxPolicy, domain: Domain) -> Self {
        let medium = |bytes: &[u8]| Medium::from_image(bytes, domain, Access::ReadWrite).unwrap();
        let formatted = Medium::from_image(&vec![0; 4 << 20], domain, Access::ReadWrite).unwrap();
        Fs::format(&formatted, &FormatOptions::default()).unwrap();
        let mut bytes = vec![0; 4 << 20];
        formatted.read(0, &mut bytes).unwrap();
        let options = OpenOptions { dax: policy, ..OpenOptions::default() };
        Self { fs: Fs::open(medium(&bytes), &options).unwrap() }
    }

    fn make(&self, parent: &Node, name: &str, kind: NewKind<'_>) -> Node {
        let new = NewInode { kind, perm: 0o755, umask: 0, uid: 0, gid: 0 };
        self.fs.create(parent, name.as_bytes(), &new).unwrap()
    }

    fn file(&self, name: &str) -> Node {
        self.make(&self.fs.root().unwrap(), name, NewKind::File)
    }

    fn set(&self, node: &Node, on: bool) {
        let flags = if on { Flags::DAX } else { Flags::empty() };
        self.fs.set_flags(node, flags, None).unwrap();
    }

    fn effect(&self, node: &Node) -> (Option<Effect>, DaxReason) {
        let status = self.fs.dax_status(node, None).unwrap();
        (status.effect, status.reason)
    }
}

const DIRECT: Option<Effect> = Some(Effect::Direct);
const BUFFERED: Option<Effect> = Some(Effect::Buffered);

#[test]
fn the_flag_takes_effect_at_once_if_nobody_holds_the_file() {
    let volume = Volume::new(DaxPolicy::Inode, Domain::MemoryController);
    let file = volume.file("f");
    assert_eq!(volume.effect(&file), (BUFFERED, DaxReason::Flag));
    volume.set(&file, true);
    assert_eq!(volume.effect(&file), (DIRECT, DaxReason::Flag));
    volume.set(&file, false);
    assert_eq!(volume.effect(&file), (BUFFERED, DaxReason::Flag));
}

#[test]
fn a_switch_is_pending_until_the_last_holder_goes() {
    let volume = Volume::new(DaxPolicy::Inode, Domain::Volatile);
    let file = volume.file("f");
    for on in [true, false] {
        let (before, after) = if on { (BUFFERED, DIRECT) } else { (DIRECT, BUFFERED) };
        let first = volume.fs.hold(&file, OPEN, 11).unwrap();
        let mapping = HolderKind::Mapping { sync: false };
        let second = volume.fs.hold(&file, mapping, 12).unwrap();
        volume.set(&file, on);
        assert_eq!(volume.effect(&file), (before, DaxReason::Holders));
        let status = volume.fs.dax_status(&file, None).unwrap();
        assert!(status.is_pending());
        assert_eq!(status.flag, on, "the flag itself is set at once");
        let [holder_of_open, holder_of_map] =
            [Holder { kind: OPEN, pid: 11 }, Holder { kind: mapping, pid: 12 }];
        assert_eq!(status.holders, [holder_of_open, holder_of_map]);
        drop(first);
        // Who comes now meets those who are there.
        let third = volume.fs.hold(&file, HolderKind::Io, 13).unwrap();
        assert_eq!((Some(third.effect()), third.is_behind()), (before, true));
        drop(second);
        assert_eq!(volume.effect(&file), (before, DaxReason::Holders));
        drop(third);
        assert_eq!(volume.effect(&file), (after, DaxReason::Flag));
        assert_eq!(Some(volume.fs.hold(&file, OPEN, 0).unwrap().effect()), after);
    }
}

#[test]
fn a_flag_that_is_set_and_cleared_again_leaves_no_trace() {
    let volume = Volume::new(DaxPolicy::Inode, Domain::Volatile);
    let file = volume.file("f");
    let hold = volume.fs.hold(&file, OPEN, 1).unwrap();
    volume.set(&file, true);
    volume.set(&file, false);
    assert_eq!(volume.effect(&file), (BUFFERED, DaxReason::Flag));
    drop(hold);
    assert_eq!(volume.effect(&file), (BUFFERED, DaxReason::Flag));
}

#[test]
fn now_is_now_or_never() {
    let volume = Volume::new(DaxPolicy::Inode, Domain::Volatile);
    let file = volume.file("f");
    let other = volume.fs.hold(&file, OPEN, 1).unwrap();
    let asker = volume.fs.hold(&file, OPEN, 2).unwrap();
    let before = volume.fs.attr(&file).unwrap();
    let refused = volume.fs.set_dax(&file, true, Switch::Now, None).unwrap_err();
    assert_eq!(refused.errno(), Errno::BUSY);
    assert_eq!(volume.fs.attr(&file).unwrap(), before, "nothing has changed, not even the time");
    // What is so already needs no switch.
    volume.fs.set_dax(&file, false, Switch::Now, None).unwrap();
    drop(other);
    let is_spent = volume.fs.set_dax(&file, true, Switch::Now, Some(asker.asker())).unwrap();
    assert!(is_spent, "the asker does not count, and has lost its hold");
    assert_eq!(volume.effect(&file), (DIRECT, DaxReason::Flag));
    assert_eq!(volume.fs.dax_status(&file, None).unwrap().holders, []);
}

#[test]
fn an_asker_keeps_its_hold_where_others_keep_theirs() {
    let volume = Volume::new(DaxPolicy::Inode, Domain::Volatile);
    let file = volume.file("f");
    let (other, asker) = (volume.fs.hold(&file, OPEN, 1).unwrap(), volume.fs.hold(&file, OPEN, 2).unwrap());
    let is_spent = volume.fs.set_dax(&file, true, Switch::Pending, Some(asker.asker())).unwrap();
    assert!(!is_spent);
    assert!(volume.fs.dax_status(&file, None).unwrap().is_pending());
    assert_eq!(volume.fs.dax_status(&file, None).unwrap().holders.len(), 2);
    let others = volume.fs.dax_status(&file, Some(asker.asker())).unwrap().holders;
    assert_eq!(others, [Holder { kind: OPEN, pid: 1 }]);
    drop(other);
    assert!(volume.fs.dax_status(&file, None).unwrap().is_pending());
    drop(asker);
    assert_eq!(volume.effect(&file), (DIRECT, DaxReason::Flag));
}

#[test]
fn the_option_decides_about_the_effect_and_never_about_the_flag() {
    let table = [
        (DaxPolicy::Always, false, DIRECT, DaxReason::Policy),
        (DaxPolicy::Always, true, DIRECT, DaxReason::Flag),
        (DaxPolicy::Never, false, BUFFERED, DaxReason::Flag),
        (DaxPolicy::Never, true, BUFFERED, DaxReason::Policy),
    ];
    for (policy, on, effect, reason) in table {
        let volume = Volume::new(policy, Domain::CpuCache);
        let file = volume.file("f");
        volume.set(&file, on);
        assert_eq!(volume.effect(&file), (effect, reason), "{policy:?}, flag {on}");
        assert_eq!(volume.fs.dax_status(&file, None).unwrap().flag, on);
        let hold = volume.fs.hold(&file, OPEN, 1).unwrap();
        volume.set(&file, !on);
        assert!(
            !volume.fs.dax_status(&file, None).unwrap().is_pending(),
            "{policy:?}: nothing is to be switched"
        );
        drop(hold);
    }
}

#[test]
fn behind_a_page_cache_nothing_is_direct() {
    for policy in [DaxPolicy::Inode, DaxPolicy::Always] {
        let volume = Volume::new(policy, Domain::Page);
        let file = volume.file("f");
        volume.set(&file, true);
        assert_eq!(volume.effect(&file), (BUFFERED, DaxReason::Medium));
        assert_eq!(Some(volume.fs.hold(&file, OPEN, 1).unwrap().effect()), BUFFERED);
    }
}

#[test]
fn directories_pass_the_flag_on_and_have_no_effect() {
    let volume = Volume::new(DaxPolicy::Inode, Domain::Volatile);
    let directory = volume.make(&volume.fs.root().unwrap(), "d", NewKind::Directory);
    let older = volume.make(&directory, "older", NewKind::File);
    volume.set(&directory, true);
    assert_eq!(volume.effect(&directory), (None, DaxReason::Flag));
    let file = volume.make(&directory, "f", NewKind::File);
    let below = volume.make(&directory, "below", NewKind::Directory);
    let deeper = volume.make(&below, "f", NewKind::File);
    for inherited in [&file, &deeper] {
        assert_eq!(volume.effect(inherited), (DIRECT, DaxReason::Flag));
    }
    assert_eq!(volume.effect(&older), (BUFFERED, DaxReason::Flag));
    assert_eq!(volume.fs.hold(&directory, OPEN, 1).unwrap_err().errno(), Errno::INVAL);
    let fifo = volume.make(&directory, "p", NewKind::Fifo);
    assert_eq!(volume.fs.dax_status(&fifo, None).unwrap_err().errno(), Errno::INVAL);
    assert_eq!(volume.fs.set_dax(&fifo, true, Switch::Pending, None).unwrap_err().errno(), Errno::INVAL);
}

#[test]
fn an_immutable_file_keeps_its_flag() {
    let volume = Volume::new(DaxPolicy::Inode, Domain::Volatile);
    let file = volume.file("f");
    volume.fs.set_flags(&file, Flags::IMMUTABLE, None).unwrap();
    let both = Flags::IMMUTABLE | Flags::DAX;
    assert_eq!(volume.fs.set_flags(&file, both, None).unwrap_err().errno(), Errno::PERM);
    assert_eq!(volume.fs.set_dax(&file, true, Switch::Pending, None).unwrap_err().errno(), Errno::PERM);
    volume.fs.set_flags(&file, Flags::DAX, None).unwrap();
    volume.fs.set_flags(&file, both, None).unwrap();
    volume.fs.set_dax(&file, true, Switch::Now, None).unwrap();
}

/// What D5 says in full: setting other attributes never fails because of holders, whatever is pending.
#[test]
fn other_flags_can_be_set_while_a_switch_is_pending() {
    let volume = Volume::new(DaxPolicy::Inode, Domain::Volatile);
    let file = volume.file("f");
    let hold = volume.fs.hold(&file, OPEN, 1).unwrap();
    volume.set(&file, true);
    volume.fs.set_flags(&file, Flags::DAX | Flags::NODUMP, Some(7)).unwrap();
    assert_eq!(volume.effect(&file), (BUFFERED, DaxReason::Holders));
    drop(hold);
    assert_eq!(volume.effect(&file), (DIRECT, DaxReason::Flag));
}
