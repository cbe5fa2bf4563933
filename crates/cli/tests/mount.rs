//! `lodefs mount` and `umount`: a real volume, mounted by the kernel.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{Workbench, can_mount, fail, info, lodefs, mount_line, succeed, wait_for_end};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn what_was_written_is_there_after_the_next_mount() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    fs::create_dir(mounted.path("d")).unwrap();
    fs::write(mounted.path("d/f"), "content").unwrap();
    symlink("d/f", mounted.path("s")).unwrap();
    fs::hard_link(mounted.path("d/f"), mounted.path("h")).unwrap();
    fs::set_permissions(mounted.path("h"), fs::Permissions::from_mode(0o640)).unwrap();
    rustix::fs::setxattr(mounted.path("h"), "user.k", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    mounted.unmount();
    assert_eq!(info(&bench.volume())["state"], "clean");

    let mounted = bench.mount(&[]);
    assert_eq!(fs::read_to_string(mounted.path("s")).unwrap(), "content");
    let metadata = fs::metadata(mounted.path("d/f")).unwrap();
    assert_eq!((metadata.nlink(), metadata.mode() & 0o7777), (2, 0o640));
    let mut value = [0; 16];
    let size = rustix::fs::getxattr(mounted.path("d/f"), "user.k", &mut value).unwrap();
    assert_eq!(&value[..size], b"value");
    mounted.unmount();
}

#[test]
fn the_mount_table_shows_what_was_given() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let relative = |further: &[&str]| {
        let mut command = lodefs(["mount", "--create", "16M"]);
        succeed(command.args(further).args(["lode.vol", "mnt"]).current_dir(bench.path("")));
        mount_line(&bench.directory()).unwrap()
    };
    let line = relative(&[]);
    let mounted = common::Mounted { directory: bench.directory() };
    assert_eq!((line[0].as_str(), line[2].as_str()), ("lode.vol", "fuse.lodefs"));
    assert!(line[3].contains("default_permissions,allow_other"), "{}", line[3]);
    mounted.unmount();
    assert!(mount_line(&bench.directory()).is_none());

    let line = relative(&["-o", "fsname=other\u{20}name,nosuid,nodev,ro"]);
    let mounted = common::Mounted { directory: bench.directory() };
    assert_eq!(line[0], "other\\040name");
    assert!(line[3].starts_with("ro,nosuid,nodev,"), "{}", line[3]);
    mounted.unmount();
}

#[test]
fn a_second_mount_is_refused_and_names_the_first() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    fs::create_dir(bench.path("other")).unwrap();
    let message = fail(1, lodefs(["mount"]).arg(bench.volume()).arg(bench.path("other")));
    assert!(message.contains("mounted on") && message.contains("umount"), "{message}");
    assert!(fail(1, lodefs(["mkfs", "--force"]).arg(bench.volume())).contains("in use"));
    assert_eq!(info(&bench.volume())["state"], "mounted");
    mounted.unmount();
}

#[test]
fn a_signal_unmounts_and_leaves_the_volume_clean() {
    if !can_mount() {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let bench = Workbench::new();
        let mounted = bench.mount(&[]);
        fs::write(mounted.path("f"), "x").unwrap();
        let server = mounted.server();
        kill_process(server, signal).unwrap();
        wait_for_end(server);
        assert!(mount_line(&bench.directory()).is_none());
        assert_eq!(info(&bench.volume())["state"], "clean");
    }
}

#[test]
fn a_second_signal_cuts_users_off_and_leaves_the_volume_clean() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    let mut file = File::create(mounted.path("f")).unwrap();
    fs::remove_file(mounted.path("f")).unwrap();
    file.write_all(b"x").unwrap();
    let server = mounted.server();
    kill_process(server, Signal::TERM).unwrap();
    // The mount has left the tree of names before the second signal comes.
    while mount_line(&bench.directory()).is_some() {
        std::thread::yield_now();
    }
    file.write_all(b"still served").unwrap();
    kill_process(server, Signal::TERM).unwrap();
    wait_for_end(server);
    assert!(file.write_all(b"y").is_err());
    assert_eq!(info(&bench.volume())["state"], "clean");
}

#[test]
fn a_killed_server_loses_nothing_that_had_returned() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    for number in 0..100 {
        fs::write(mounted.path(&format!("f{number}")), number.to_string()).unwrap();
    }
    let server = mounted.server();
    kill_process(server, Signal::KILL).unwrap();
    wait_for_end(server);
    assert!(
        fail(1, lodefs(["mount"]).arg(bench.volume()).arg(bench.directory())).contains("server has died")
    );
    mounted.unmount();
    assert_eq!(info(&bench.volume())["state"], "needs-recovery");

    let mounted = bench.mount(&[]);
    for number in 0..100 {
        let content = fs::read_to_string(mounted.path(&format!("f{number}"))).unwrap();
        assert_eq!(content, number.to_string());
    }
    mounted.unmount();
}

#[test]
fn a_busy_mount_names_its_users_and_can_be_left_lazily() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    let file = File::create(mounted.path("f")).unwrap();
    let message = fail(1, lodefs(["umount"]).arg(&mounted.directory));
    assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
    let server = mounted.server();
    succeed(lodefs(["umount", "--lazy"]).arg(&mounted.directory));
    assert!(mount_line(&bench.directory()).is_none());
    file.write_all_at(b"still served", 0).unwrap();
    drop(file);
    wait_for_end(server);
    assert_eq!(info(&bench.volume())["state"], "clean");
}

#[test]
fn a_volume_can_be_mounted_again_at_once_after_umount_of_the_system() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    for round in 0..5 {
        let mounted = bench.mount(&[]);
        fs::write(mounted.path(&format!("f{round}")), vec![0; 1 << 20]).unwrap();
        succeed(Command::new("umount").arg(&mounted.directory));
    }
    let mounted = bench.mount(&[]);
    assert_eq!(fs::read_dir(&mounted.directory).unwrap().count(), 5);
    mounted.unmount();
}

/// A process that stands still as long as this lives.
struct Stopped(Pid);

impl Stopped {
    fn new(process: Pid) -> Self {
        kill_process(process, Signal::STOP).unwrap();
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill_process(self.0, Signal::CONT).unwrap();
    }
}

#[test]
fn a_mount_waits_for_the_server_that_still_closes_the_volume() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    let server = mounted.server();
    let stopped = Stopped::new(server);
    rustix::mount::unmount(&mounted.directory, rustix::mount::UnmountFlags::empty()).unwrap();
    let mut next = bench.mount_command(&[]).spawn().unwrap();
    // Time for the mistake of not waiting.
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(next.try_wait().unwrap().is_none(), "mounted a volume that somebody else has");
    drop(stopped);
    assert!(next.wait().unwrap().success());
    mounted.unmount();
}

#[test]
fn a_read_only_mount_changes_nothing() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    bench.mount(&[]).unmount();
    let before = fs::read(bench.volume()).unwrap();
    fs::set_permissions(bench.volume(), fs::Permissions::from_mode(0o400)).unwrap();
    let mounted = bench.mount(&["-o", "ro"]);
    let error = File::create(mounted.path("f")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
    let message = fail(1, lodefs(["mount", "-o", "remount,rw"]).arg(&mounted.directory));
    assert!(message.contains("mounted read-only"), "{message}");
    mounted.unmount();
    assert!(fs::read(bench.volume()).unwrap() == before);
}

#[test]
fn a_remount_changes_flags_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&["-o", "nodev"]);
    let remount = |options: &str| {
        let mut command = lodefs(["mount", "-o", options]);
        command.arg(&mounted.directory);
        command
    };
    succeed(&mut remount("remount,ro,noexec"));
    assert!(File::create(mounted.path("f")).is_err());
    assert!(mount_line(&mounted.directory).unwrap()[3].starts_with("ro,nodev,noexec,"));
    for path in [&mounted.directory, &bench.volume()] {
        assert_eq!(info(path)["mount"]["read_only"], true);
        assert!(succeed(lodefs(["info"]).arg(path)).contains("options      read-only"));
    }
    succeed(&mut remount("remount,rw"));
    assert_eq!(info(&mounted.directory)["mount"]["read_only"], false);
    File::create(mounted.path("f")).unwrap();
    assert!(mount_line(&mounted.directory).unwrap()[3].starts_with("rw,nodev,noexec,"));
    assert!(fail(1, &mut remount("remount,dax=never")).contains("dax"));
    assert!(fail(1, &mut remount("remount,noatime")).contains("noatime"));
    mounted.unmount();
}

#[test]
fn access_times_are_kept_as_it_is_said_or_the_option_is_refused() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let message = fail(2, &mut bench.mount_command(&["-o", "strictatime"]));
    assert!(message.contains("strictatime"), "{message}");
    for (options, of_file, of_directory) in
        [("rw", true, true), ("nodiratime", true, false), ("noatime", false, false)]
    {
        let mounted = bench.mount(&["-o", options]);
        let place = mounted.path(options);
        fs::create_dir(&place).unwrap();
        fs::write(place.join("f"), "x").unwrap();
        succeed(lodefs(["dax", "on"]).arg(place.join("f")));
        let long_ago = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: long_ago, last_modification: long_ago };
        let moves = |path: &std::path::Path, read: &dyn Fn()| {
            rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
            read();
            fs::metadata(path).unwrap().atime() != 1
        };
        let file = place.join("f");
        // A file that is read past the cache.
        assert_eq!(moves(&file, &|| drop(fs::read(&file).unwrap())), of_file, "{options}");
        assert_eq!(
            moves(&place, &|| assert_eq!(fs::read_dir(&place).unwrap().count(), 1)),
            of_directory,
            "{options}"
        );
        mounted.unmount();
    }
}

#[test]
fn mount_of_the_system_finds_what_it_expects_in_the_helper() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    bench.mount(&[]).unmount();
    let helper = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lodefs"));
        command.arg0("/sbin/mount.lodefs").arg(bench.volume()).arg(bench.directory()).args(arguments);
        command
    };
    succeed(&mut helper(&["-o", "rw,noatime,x-test=1", "-t", "lodefs"]));
    let mounted = common::Mounted { directory: bench.directory() };
    assert!(mount_line(&bench.directory()).unwrap()[3].starts_with("rw,noatime,"));
    // What mount(8) repeats from the mount table.
    succeed(&mut helper(&["-o", "remount,ro,noatime,user_id=0,group_id=0,default_permissions,allow_other"]));
    assert!(mount_line(&bench.directory()).unwrap()[3].starts_with("ro,noatime,"));
    mounted.unmount();
    fail(1, &mut helper(&["-o", "bogus"]));
    succeed(&mut helper(&["-f"]));
    assert!(mount_line(&bench.directory()).is_none());
    fs::remove_file(bench.volume()).unwrap();
    fail(32, &mut helper(&[]));
}

#[test]
fn bad_use_is_answered_in_one_line() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let volume = bench.volume();
    succeed(lodefs(["mkfs", "--size", "16M"]).arg(&volume));
    fs::create_dir(bench.directory()).unwrap();
    let mount = |status, further: &[&str], volume: &str, directory: &str| {
        let mut command = lodefs(["mount"]);
        fail(status, command.args(further).arg(bench.path(volume)).arg(bench.path(directory)))
    };
    fs::write(bench.path("text"), "no volume").unwrap();
    for (message, words) in [
        (mount(1, &[], "none", "mnt"), "no such file"),
        (mount(1, &[], "text", "mnt"), "not a lodefs volume"),
        (mount(1, &[], "lode.vol", "none"), "no such directory"),
        (mount(1, &[], "lode.vol", "text"), "not a directory"),
        (mount(2, &["-o", "ro,bogus"], "lode.vol", "mnt"), "-o bogus"),
        (mount(1, &["--create", "64M"], "text", "mnt"), "not a lodefs volume"),
        (fail(2, lodefs(["mount"]).arg(&volume)), "no directory"),
        (fail(1, lodefs(["umount"]).arg(bench.directory())), "nothing is mounted"),
        (fail(1, &mut lodefs(["umount", "/proc"])), "not of lodefs"),
        (fail(1, lodefs(["info"]).arg(bench.directory())), "nothing is mounted"),
    ] {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn dax_for_everything_is_refused_behind_a_page_cache() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let message = fail(1, bench.mount_command(&["-o", "dax=always"]).env("LODEFS_FORCE_DOMAIN", "page"));
    assert!(message.contains("dax=always") && message.contains("page cache"), "{message}");
    succeed(bench.mount_command(&["-o", "dax=always"]).env("LODEFS_FORCE_DOMAIN", "cpu-cache"));
    let mounted = common::Mounted { directory: bench.directory() };
    let report = info(&mounted.directory);
    assert_eq!((&report["mount"]["dax"], &report["medium"]["forced"]), (&"always".into(), &true.into()));
    mounted.unmount();
}

#[test]
fn the_foreground_serves_until_it_is_unmounted() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mut command = lodefs(["mount", "--create", Workbench::SIZE, "--foreground"]);
    command.arg(bench.volume()).arg(bench.directory());
    let mut server = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut messages = server.stderr.take().unwrap();
    while mount_line_if_any(&bench).is_none() {
        assert!(server.try_wait().unwrap().is_none(), "ended at once");
        std::thread::yield_now();
    }
    let mounted = common::Mounted { directory: bench.directory() };
    fs::write(mounted.path("f"), "x").unwrap();
    mounted.unmount();
    assert!(server.wait().unwrap().success());
    let mut text = String::new();
    messages.read_to_string(&mut text).unwrap();
    assert!(text.contains("mounted") && text.contains("closed"), "{text}");
}

fn mount_line_if_any(bench: &Workbench) -> Option<Vec<String>> {
    bench.directory().exists().then(|| mount_line(&bench.directory())).flatten()
}

#[test]
fn an_ordinary_user_can_mount() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    fs::set_permissions(bench.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    // In a mount namespace of its own, where the device is open to everybody, as it is outside of containers.
    let script = r#"
        mknod -m 666 "$2/fuse" c 10 229 && mount --bind "$2/fuse" /dev/fuse && cp "$1" "$2/lodefs" && chmod 755 "$2/lodefs" && cd "$2" &&
        ./lodefs mount --create 16M roots.vol r
        setpriv --reuid=65534 --regid=65534 --clear-groups sh -ec '
            ./lodefs mount --create 16M own.vol m
            echo content > m/file
            stat -c "%u %a" m
            grep " $PWD/m " /proc/mounts
            ! ./lodefs mount own.vol m -o allow_other,dax=bogus 2>/dev/null
            ./lodefs umount m
            ./lodefs mount -o ro own.vol m
            cat m/file
            fusermount3 -u m
            ./lodefs info own.vol
            ./lodefs umount r 2>&1 || true
        '
        ./lodefs umount r"#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-ec", script, "sh", env!("CARGO_BIN_EXE_lodefs")])
        .arg(bench.path(""))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for part in [
        "65534 755",
        "own.vol ",
        "fuse.lodefs rw,nosuid,nodev,",
        "user_id=65534",
        "content",
        "clean",
        "by another user",
    ] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
}

#[test]
fn programs_see_a_posix_file_system() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    // Appending from two descriptors interleaves, and does not overwrite.
    let open = || OpenOptions::new().append(true).create(true).open(mounted.path("log")).unwrap();
    let (mut one, mut other) = (open(), open());
    for _ in 0..10 {
        one.write_all(b"a").unwrap();
        other.write_all(b"b").unwrap();
    }
    assert_eq!(fs::read_to_string(mounted.path("log")).unwrap(), "ab".repeat(10));
    // An unlinked file lives as long as it is open.
    let mut orphan =
        OpenOptions::new().read(true).write(true).create_new(true).open(mounted.path("o")).unwrap();
    fs::remove_file(mounted.path("o")).unwrap();
    orphan.write_all(b"still").unwrap();
    orphan.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    orphan.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), orphan.metadata().unwrap().nlink()), ("still", 0));
    // A hole is found.
    let sparse = File::create(mounted.path("sparse")).unwrap();
    sparse.write_all_at(b"x", 1 << 20).unwrap();
    assert_eq!(rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Data(0)), Ok(1 << 20));
    // O_TRUNC empties, and the size is known at once.
    OpenOptions::new().write(true).truncate(true).custom_flags(0).open(mounted.path("log")).unwrap();
    assert_eq!(fs::metadata(mounted.path("log")).unwrap().len(), 0);
    drop(orphan);
    drop(sparse);
    drop((one, other));
    mounted.unmount();
}

#[test]
fn a_program_that_runs_is_not_emptied() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    let program = mounted.path("sleep");
    fs::copy("/bin/sleep", &program).unwrap();
    let size = fs::metadata(&program).unwrap().len();
    let mut running = Command::new(&program).arg("1000").spawn().unwrap();
    let refused = rustix::fs::open(&program, OFlags::RDONLY | OFlags::TRUNC, Mode::empty()).unwrap_err();
    assert_eq!((refused, fs::metadata(&program).unwrap().len()), (Errno::TXTBSY, size));
    running.kill().unwrap();
    running.wait().unwrap();
    mounted.unmount();
}

#[test]
fn flags_reach_the_engine_by_both_interfaces() {
    if !can_mount() {
        return;
    }
    let bench = Workbench::new();
    let mounted = bench.mount(&[]);
    fs::create_dir(mounted.path("d")).unwrap();
    let chattr = |flags: &str, name: &str| {
        let status = Command::new("chattr").arg(flags).arg(mounted.path(name)).status().unwrap();
        assert!(status.success());
    };
    let lsattr = |name: &str| {
        let text = succeed(Command::new("lsattr").arg("-d").arg(mounted.path(name)));
        text.split(' ').next().unwrap().replace('-', "")
    };
    chattr("+x", "d");
    fs::write(mounted.path("d/f"), "x").unwrap();
    assert_eq!((lsattr("d").as_str(), lsattr("d/f").as_str()), ("x", "x"));
    // The kernel has the attributes in its cache, and must be told that the time of change moved.
    let before = fs::metadata(mounted.path("d/f")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2));
    chattr("+i", "d/f");
    let after = fs::metadata(mounted.path("d/f")).unwrap();
    assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    assert!(OpenOptions::new().write(true).open(mounted.path("d/f")).is_err());
    assert!(fs::remove_file(mounted.path("d/f")).is_err());
    chattr("-i", "d/f");
    fs::remove_file(mounted.path("d/f")).unwrap();
    mounted.unmount();
}
