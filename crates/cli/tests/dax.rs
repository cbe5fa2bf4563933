//! The DAX flag through a mount, and `lodefs dax`: flag, effect, holders, switches. Among them are the scenarios of fstests
//! generic/605 to 608, which were written for DAX in the kernel.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::catch_unwind;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Mounted, Workbench, can_mount, fail, lodefs, on_memory, succeed};
use lodefs_direct::dax::{Effect, How, set, status as ask};
use rustix::fs::{IFlags, OFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use serde_json::{Value, json};

/// `FS_DAX_FL`, as chattr(1) and lsattr(1) know it.
const DAX: IFlags = IFlags::from_bits_retain(0x0200_0000);

fn mount(bench: &Workbench, options: &str) -> Mounted {
    succeed(on_memory(&mut bench.mount_command(&["-o", options])));
    Mounted { directory: bench.directory() }
}

fn has_flag(path: &Path) -> bool {
    ioctl_getflags(File::open(path).unwrap()).unwrap().contains(DAX)
}

/// Sets or clears the flag as chattr(1) does.
fn set_flag(path: &Path, on: bool) {
    let file = File::open(path).unwrap();
    let mut flags = ioctl_getflags(&file).unwrap();
    flags.set(DAX, on);
    ioctl_setflags(&file, flags).unwrap();
}

fn status(path: &Path) -> Value {
    let text = succeed(lodefs(["dax", "status", "--json"]).arg(path));
    let mut all: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn effect(path: &Path) -> String {
    status(path)["effect"].as_str().unwrap().to_owned()
}

fn dax(action: &str, further: &[&str], path: &Path) -> Command {
    let mut command = lodefs(["dax", action]);
    command.args(further).arg(path);
    command
}

#[test]
fn flag_effect_and_holders_before_during_and_after() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let path = mounted.path("f");
    fs::write(&path, "some content").unwrap();
    let expected = |flag, effect, reason: &str, holders: Value| {
        json!({
            "path": path.to_str().unwrap(), "flag": flag, "effect": effect, "pending": reason == "holders",
            "reason": reason, "holders_count": holders.as_array().unwrap().len(), "holders": holders,
        })
    };
    let nobody = || json!([]);
    let me = || json!([{ "pid": std::process::id(), "kind": "open-file" }]);
    assert_eq!(status(&path), expected(false, "buffered", "flag", nobody()));
    let buffered = File::open(&path).unwrap();
    set_flag(&path, true);
    assert_eq!(status(&path), expected(true, "buffered", "holders", me()));
    let said = succeed(lodefs(["dax", "status"]).arg(&path));
    let pending = format!(
        "{}: buffered, flag set: pending until it is let go of by process {} (open file)\n",
        path.display(),
        std::process::id()
    );
    assert_eq!(said, pending);
    drop(buffered);
    assert_eq!(status(&path), expected(true, "direct", "flag", nobody()));
    let direct = File::open(&path).unwrap();
    set_flag(&path, false);
    assert_eq!(status(&path), expected(false, "direct", "holders", me()));
    drop(direct);
    assert_eq!(status(&path), expected(false, "buffered", "flag", nobody()));
    mounted.unmount();
}

#[test]
fn at_once_or_not_at_all() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let path = mounted.path("f");
    let file = File::create(&path).unwrap();
    let message = fail(1, &mut dax("on", &["--now"], &path));
    let me = format!("held by process {} (open file); nothing was changed", std::process::id());
    assert!(message.contains(&me), "{message}");
    assert_eq!((has_flag(&path), effect(&path).as_str()), (false, "buffered"));
    drop(file);
    assert_eq!(succeed(&mut dax("on", &["--now"], &path)), "", "what has worked says nothing");
    assert_eq!((has_flag(&path), effect(&path).as_str()), (true, "direct"));
    mounted.unmount();
    // Where it never takes effect, it does not take effect at once.
    let mounted = mount(&bench, "dax=never");
    for how in ["--now", "--wait", "--revoke"] {
        let message = fail(1, &mut dax("off", &[how], &mounted.path("none")));
        assert_eq!(message.matches("none").count(), 1, "{message}");
        assert_eq!(succeed(&mut dax("off", &[how], &path)), "", "it is buffered already");
        let message = fail(1, &mut dax("on", &[how], &path));
        assert!(message.contains("no effect now") && !has_flag(&path), "{message}");
    }
    mounted.unmount();
}

/// Whether a process has ended, if it is given some time to be wrong.
fn ends_early(child: &mut Child) -> bool {
    std::thread::sleep(Duration::from_millis(100));
    child.try_wait().unwrap().is_some()
}

#[test]
fn who_waits_returns_when_the_last_holder_has_gone() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let path = mounted.path("f");
    let (first, second) = (File::create(&path).unwrap(), File::open(&path).unwrap());
    let mut waiting = dax("on", &["--wait"], &path).stdout(Stdio::null()).spawn().unwrap();
    assert!(!ends_early(&mut waiting));
    assert!(has_flag(&path));
    drop(first);
    assert!(!ends_early(&mut waiting));
    drop(second);
    assert!(waiting.wait().unwrap().success());
    assert_eq!(effect(&path), "direct");
    mounted.unmount();
}

#[test]
fn a_file_that_a_switch_was_asked_through_reaches_no_data_any_more() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let path = mounted.path("f");
    fs::write(&path, "content").unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let answer = set(&file, true, How::Now).unwrap();
    assert_eq!(answer.effect, Effect::Direct);
    // Of a page that could not be read, newer kernels (7.2) say EIO, whatever the server has said.
    let stale = |outcome: std::io::Result<usize>| {
        let errno = outcome.unwrap_err().raw_os_error();
        assert!(
            [Errno::STALE, Errno::IO].map(|errno| Some(errno.raw_os_error())).contains(&errno),
            "{errno:?}"
        );
    };
    stale(file.write_at(b"x", 0));
    let direct = File::open(&path).unwrap();
    stale(file.read_at(&mut [0; 4], 0));
    assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    drop((file, direct));
    mounted.unmount();
}

/// The kernel tells the server only after close(2) has returned.
#[test]
fn what_was_just_closed_does_not_stand_in_the_way() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let path = mounted.path("f");
    File::create(&path).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // So that the server's threads are in each other's way.
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    fs::metadata(mounted.path("missing")).unwrap_err();
                    drop(File::open(&mounted.directory).unwrap());
                    drop(File::create(mounted.path("other")).unwrap());
                }
            });
        }
        let rounds = catch_unwind(|| (0..500).for_each(|round| switch_at_once(&path, round)));
        is_over.store(true, Ordering::Relaxed);
        rounds.unwrap();
    });
    mounted.unmount();
}

/// Switches a file that was just closed, in one way and in the other.
fn switch_at_once(path: &Path, round: u32) {
    let on = round.is_multiple_of(2);
    let effects = if on { [Effect::Direct, Effect::Buffered] } else { [Effect::Buffered, Effect::Direct] };
    drop(File::open(path).unwrap());
    let asker = File::open(path).unwrap();
    assert_eq!(set(&asker, on, How::Now).map(|answer| answer.effect), Ok(effects[0]), "round {round}");
    // And pending: who opens it next finds it switched.
    let users = [File::open(path).unwrap(), File::open(path).unwrap()];
    set_flag(path, !on);
    drop((asker, users));
    assert_eq!(ask(File::open(path).unwrap()).unwrap().effect, effects[1], "round {round}");
    set_flag(path, on);
}

/// fstests generic/606.
#[test]
fn the_option_decides_about_the_effect() {
    if !can_mount() {
        return;
    }
    let table = [
        ("dax=inode", [("buffered", "flag"), ("direct", "flag")]),
        ("dax=always", [("direct", "option"), ("direct", "flag")]),
        ("dax", [("direct", "option"), ("direct", "flag")]),
        ("dax=never", [("buffered", "flag"), ("buffered", "option")]),
    ];
    let bench = Workbench::new();
    for (option, effects) in table {
        let mounted = mount(&bench, option);
        let path = mounted.path("f");
        File::create(&path).unwrap();
        for on in [false, true, false] {
            set_flag(&path, on);
            let (effect, reason) = effects[usize::from(on)];
            let found = status(&path);
            assert_eq!(
                (&found["effect"], &found["reason"]),
                (&json!(effect), &json!(reason)),
                "{option}, {on}"
            );
            assert_eq!(found["flag"], json!(on), "{option}: the flag is what was set");
        }
        mounted.unmount();
    }
}

#[test]
fn behind_a_page_cache_nothing_is_direct_and_asking_for_it_is_refused() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let page = |options| {
        let mut command = bench.mount_command(&["-o", options]);
        command.env("LODEFS_FORCE_DOMAIN", "page");
        command
    };
    succeed(&mut page("rw"));
    let mounted = Mounted { directory: bench.directory() };
    let path = mounted.path("f");
    File::create(&path).unwrap();
    let said = succeed(&mut dax("on", &[], &path));
    assert!(said.contains("buffered, flag set: the volume's medium has a page cache in between"), "{said}");
    mounted.unmount();
    assert!(fail(1, &mut page("dax=always")).contains("dax=always is impossible"));
}

/// fstests generic/607.
#[test]
fn the_flag_is_inherited_when_something_is_made_and_kept_when_it_is_moved() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    for option in ["dax=inode", "dax=always", "dax=never"] {
        let mounted = mount(&bench, option);
        let path = |name: &str| mounted.path(name);
        for name in ["on", "off"] {
            fs::create_dir(path(name)).unwrap();
        }
        set_flag(&path("on"), true);
        let run = |program: &str, from: &str, to: &str| {
            succeed(Command::new(program).args([
                "--",
                &path(from).to_string_lossy(),
                &path(to).to_string_lossy(),
            ]));
        };
        for (directory, flag) in [("on", true), ("off", false)] {
            let other = if flag { "off" } else { "on" };
            let below = |name: &str| path(&format!("{directory}/{name}"));
            File::create(below("f")).unwrap();
            fs::create_dir(below("d")).unwrap();
            File::create(below("d/f")).unwrap();
            for name in ["f", "d", "d/f"] {
                assert_eq!(has_flag(&below(name)), flag, "{option}: {directory}/{name}");
            }
            run("cp", &format!("{directory}/f"), &format!("{other}/copied"));
            assert_eq!(has_flag(&path(&format!("{other}/copied"))), !flag, "a copy takes the new parent's");
            run("mv", &format!("{directory}/f"), &format!("{other}/moved"));
            assert_eq!(has_flag(&path(&format!("{other}/moved"))), flag, "what is moved keeps it");
            fs::hard_link(below("d/f"), path(&format!("{other}/linked"))).unwrap();
            assert_eq!(has_flag(&below("d/f")), flag, "a link changes nothing");
            // What is there already stays as it is.
            set_flag(&path(directory), !flag);
            assert_eq!(has_flag(&below("d")), flag);
            set_flag(&path(directory), flag);
        }
        for name in ["on", "off"] {
            fs::remove_dir_all(path(name)).unwrap();
        }
        mounted.unmount();
    }
}

/// fstests generic/608, and what it leaves out: names of one file that are cached by the kernel.
#[test]
fn a_switch_takes_effect_when_the_last_user_closes_the_file() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "dax=inode");
    let (path, other_name) = (mounted.path("f"), mounted.path("g"));
    fs::write(&path, "content").unwrap();
    fs::hard_link(&path, &other_name).unwrap();
    for on in [true, false] {
        let (before, after) = if on { ("buffered", "direct") } else { ("direct", "buffered") };
        for name in [&path, &other_name] {
            assert_eq!(fs::read(name).unwrap(), b"content");
            assert_eq!(effect(name), before);
        }
        let users: Vec<File> = [&path, &other_name].map(|name| File::open(name).unwrap()).into();
        set_flag(&path, on);
        for user in users {
            assert_eq!(effect(&path), before);
            drop(user);
        }
        for name in [&other_name, &path] {
            assert_eq!(effect(name), after, "no cache was dropped, no name forgotten");
            assert_eq!(has_flag(name), on);
        }
    }
    mounted.unmount();
}

/// How many bytes of each file fstests generic/605 moves.
const MOVED: usize = 1 << 20;

/// A private mapping of a file's first bytes, which stands for what a program sees there.
fn seen_in_a_map(file: &File) -> Vec<u8> {
    // SAFETY: a new mapping, at an address that the kernel chooses, is read once and taken away; the file is large enough.
    unsafe {
        let map = mmap(std::ptr::null_mut(), MOVED, ProtFlags::READ, MapFlags::PRIVATE, file, 0).unwrap();
        let mut bytes = vec![0; MOVED];
        std::ptr::copy_nonoverlapping(map.cast::<u8>(), bytes.as_mut_ptr(), MOVED);
        munmap(map, MOVED).unwrap();
        bytes
    }
}

/// Stores bytes by way of a shared mapping.
fn store_in_a_map(file: &File, bytes: &[u8]) -> Result<(), Errno> {
    let writable = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: as above; what is stored is as long as what is mapped.
    unsafe {
        let map = mmap(std::ptr::null_mut(), MOVED, writable, MapFlags::SHARED, file, 0)?;
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.cast::<u8>(), MOVED);
        msync(map, MOVED, MsyncFlags::SYNC)?;
        munmap(map, MOVED)
    }
}

/// fstests generic/605: data goes from file to file, direct and buffered, by mapping, by reading and writing, with and without
/// `O_DIRECT`. A shared mapping of a direct file, which would be a second copy, is refused.
#[test]
fn data_moves_between_direct_and_buffered_files() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let mut expected: Vec<u8> = (0..MOVED).map(|at| (at * 7 + at / 4096) as u8).collect();
    let open = |name: &str, flags: OFlags| {
        let flags = flags.bits().cast_signed();
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags)
            .open(mounted.path(name))
            .unwrap()
    };
    for flags in [OFlags::empty(), OFlags::DIRECT] {
        for (from, to) in [("direct", "buffered"), ("buffered", "direct"), ("direct", "direct2")] {
            for name in [from, to] {
                drop(open(name, flags));
                set_flag(&mounted.path(name), name.starts_with("direct"));
            }
            expected.rotate_left(4099);
            let (from, target) = (open(from, flags), open(to, flags));
            from.write_all_at(&expected, 0).unwrap();
            assert_eq!(seen_in_a_map(&from), expected);
            target.set_len(MOVED as u64).unwrap();
            let stored = store_in_a_map(&target, &seen_in_a_map(&from));
            if to == "buffered" {
                stored.unwrap();
            } else {
                assert_eq!(stored, Err(Errno::NODEV));
                target.write_all_at(&seen_in_a_map(&from), 0).unwrap();
            }
            let mut found = vec![0; MOVED];
            target.read_exact_at(&mut found, 0).unwrap();
            assert!(found == expected && seen_in_a_map(&target) == expected, "{to}, {flags:?}");
        }
    }
    mounted.unmount();
}

#[test]
fn content_survives_switches_in_either_direction() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    let path = mounted.path("f");
    let mut expected = vec![0; MOVED];
    File::create(&path).unwrap().set_len(MOVED as u64).unwrap();
    for round in 0..20_u8 {
        let on = round % 2 == 1;
        succeed(&mut dax(if on { "on" } else { "off" }, &["--now"], &path));
        let file = File::options().read(true).write(true).open(&path).unwrap();
        // What is in the kernel's cache by now must not be there after the next switch.
        assert!(seen_in_a_map(&file) == expected, "round {round}");
        expected[usize::from(round) * 5000..][..6000].fill(round + 1);
        if on {
            file.write_all_at(&expected, 0).unwrap();
        } else {
            store_in_a_map(&file, &expected).unwrap();
        }
        // Whatever was read before by way of a private mapping is old, and may be cached.
        drop(file);
        assert!(fs::read(&path).unwrap() == expected, "round {round}");
    }
    mounted.unmount();
}

#[test]
fn who_may() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "allow_other");
    let path = mounted.path("f");
    fs::write(&path, "readable").unwrap();
    std::os::unix::fs::chown(&path, Some(1000), Some(1000)).unwrap();
    let scratch = bench.path("");
    // A way for others to the program and the mount.
    for directory in [scratch.as_path(), &mounted.directory] {
        fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let program = bench.path("lodefs");
    fs::copy(env!("CARGO_BIN_EXE_lodefs"), &program).unwrap();
    let run_as = |user: u32, action: &str| {
        let mut command = Command::new(&program);
        std::os::unix::process::CommandExt::uid(&mut command, user);
        std::os::unix::process::CommandExt::gid(&mut command, user);
        command.args(["dax", action]).arg(&path);
        command
    };
    assert!(fail(1, &mut run_as(1001, "on")).contains("only the owner and root"));
    assert!(succeed(&mut run_as(1001, "status")).contains("flag not set"));
    assert_eq!(succeed(&mut run_as(1000, "on")), "");
    assert!(has_flag(&path));
    mounted.unmount();
}

#[test]
fn trees_are_walked_and_what_has_no_flag_is_passed_over() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = mount(&bench, "rw");
    fs::create_dir_all(mounted.path("a/b")).unwrap();
    for name in ["a/f", "a/b/f"] {
        File::create(mounted.path(name)).unwrap();
    }
    std::os::unix::fs::symlink("nowhere", mounted.path("a/s")).unwrap();
    succeed(Command::new("mkfifo").arg(mounted.path("a/p")));
    succeed(&mut dax("on", &["--recursive"], &mounted.path("a")));
    for name in ["a", "a/f", "a/b", "a/b/f"] {
        assert!(has_flag(&mounted.path(name)), "{name}");
    }
    let listed = succeed(&mut dax("status", &["-r"], &mounted.path("a")));
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(
        fail(1, &mut dax("on", &[], &mounted.path("a/p"))).contains("neither a regular file nor a directory")
    );
    assert!(fail(1, &mut dax("status", &[], &bench.path("log"))).contains("not on a mounted lodefs volume"));
    assert!(fail(1, &mut dax("status", &[], &mounted.path("missing"))).contains("No such file"));
    mounted.unmount();
}
