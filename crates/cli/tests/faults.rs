//! The host fails under a mounted volume: its file is cut, the host is full, the server gets no memory. The server says so
//! once, nothing that had returned is lost, and what is shown is right or an error.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Mounted, can_mount, lodefs, succeed, wait_for_end};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, kill_process, prlimit, test_kill_process};
use tempfile::TempDir;

/// Where the host keeps the volume.
#[derive(Clone, Copy, Debug)]
enum Place {
    Tmpfs,
    Ext4,
}

/// Each kind of volume: where it lies, and the domain that is forced.
const KINDS: [(Place, Option<&str>); 4] = [
    (Place::Ext4, None),
    (Place::Tmpfs, None),
    (Place::Tmpfs, Some("memory-controller")),
    (Place::Tmpfs, Some("page")),
];

/// A file system of its own, of [`Host::SIZE`] bytes, with a volume in it.
struct Host {
    scratch: TempDir,
    domain: Option<&'static str>,
}

impl Host {
    const SIZE: u64 = 40 << 20;

    fn new((place, domain): (Place, Option<&'static str>)) -> Self {
        let host = Self { scratch: tempfile::tempdir().unwrap(), domain };
        fs::create_dir(host.root()).unwrap();
        let mut mount = Command::new("mount");
        match place {
            Place::Tmpfs => mount.args(["-t", "tmpfs", "-o", &format!("size={}", Self::SIZE), "tmpfs"]),
            Place::Ext4 => {
                let image = host.scratch.path().join("image");
                File::create(&image).unwrap().set_len(Self::SIZE).unwrap();
                succeed(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
                // The loop device goes with the mount.
                mount.args(["-o", "loop"]).arg(image)
            }
        };
        succeed(mount.arg(host.root()));
        host
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("host")
    }

    fn volume(&self) -> PathBuf {
        self.root().join("volume")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap()
    }

    fn make(&self, size: &str, further: &[&str]) {
        succeed(self.command(&["mkfs", "--size", size]).args(further).arg(self.volume()));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = lodefs(arguments);
        if let Some(domain) = self.domain {
            command.env("LODEFS_FORCE_DOMAIN", domain);
        }
        command
    }

    fn mount(&self) -> Mounted {
        let directory = self.scratch.path().join("mnt");
        fs::create_dir_all(&directory).unwrap();
        let log = self.scratch.path().join("log");
        succeed(self.command(&["mount", "--log"]).arg(log).arg(self.volume()).arg(&directory));
        Mounted { directory }
    }

    /// Ends the server, which cannot close the volume properly.
    fn give_up(mounted: &Mounted) {
        let server = mounted.server();
        kill_process(server, Signal::TERM).unwrap();
        wait_for_end(server);
    }

    /// Mounts again: everything is there, and new files can be made. Then the volume is clean.
    fn verify(&self, expected: &Expected) {
        let mounted = self.mount();
        expected.verify(&mounted);
        fs::write(mounted.path("new"), "new").unwrap();
        mounted.unmount();
        succeed(self.command(&["fsck"]).arg(self.volume()));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // If a test failed, the server may still use it.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.root()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Files whose writing had returned, and the byte that fills each.
#[derive(Default)]
struct Expected(BTreeMap<String, (u8, usize)>);

impl Expected {
    /// Writes one more file.
    fn write(&mut self, mounted: &Mounted, size: usize) -> io::Result<()> {
        let number = self.0.len();
        let (name, fill) = (format!("f{number}"), (number % 250 + 1) as u8);
        fs::write(mounted.path(&name), vec![fill; size])?;
        self.0.insert(name, (fill, size));
        Ok(())
    }

    fn verify(&self, mounted: &Mounted) {
        for (name, content) in self.0.iter().map(|(name, (fill, size))| (name, vec![*fill; *size])) {
            assert!(read(&mounted.path(name)).unwrap() == content, "{name}");
        }
    }
}

/// Reads a file past the kernel's cache.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file =
        OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content).map(|_| content)
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

/// The lines of the log that say that something failed.
fn complaints(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("ERROR")).collect()
}

/// The volume has failed: it takes no changes, and has said so in one message with these words.
fn assert_latched(host: &Host, mounted: &Mounted, words: &[&str]) {
    for _ in 0..3 {
        assert_eq!(errno(fs::create_dir(mounted.path("refused"))), Some(Errno::ROFS));
        assert_eq!(errno(fs::remove_file(mounted.path("f0"))), Some(Errno::ROFS));
        let fsync = File::open(mounted.path("f0")).and_then(|file| file.sync_all());
        assert_eq!(errno(fsync), Some(Errno::ROFS));
        let report = common::info(&mounted.directory);
        assert_eq!(report["mount"]["read_only"], true);
        assert!(report["mount"]["fault"].is_string(), "{report}");
    }
    let log = host.log();
    let complaints = complaints(&log);
    let [message] = complaints[..] else { panic!("not one message: {log}") };
    let volume = host.volume();
    for word in words.iter().copied().chain([volume.to_str().unwrap(), "read-only"]) {
        assert!(message.contains(word), "no '{word}' in {message}");
    }
}

#[test]
fn a_volume_that_is_cut_shows_the_rest_and_is_whole_when_it_is_put_back() {
    const CUT: u64 = 8 << 20;
    if !can_mount() {
        return;
    }
    // Found out by an access, or, where it does something, by a sync.
    let cases = KINDS.map(|kind| (kind, false)).into_iter().chain([(KINDS[0], true)]);
    for (kind, sync) in cases {
        let host = Host::new(kind);
        host.make("16M", &[]);
        let mut expected = Expected::default();
        let mounted = host.mount();
        for _ in 0..100 {
            expected.write(&mounted, 100_000).unwrap();
        }
        mounted.unmount();
        let mounted = host.mount();
        expected.write(&mounted, 5000).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(host.volume()).unwrap();
        let mut rest = Vec::new();
        (&file).seek(SeekFrom::Start(CUT)).unwrap();
        (&file).read_to_end(&mut rest).unwrap();
        file.set_len(CUT).unwrap();
        if sync {
            let synced = File::open(mounted.path("f0")).unwrap().sync_all();
            assert_eq!(errno(synced), Some(Errno::IO));
        }

        let (mut right, mut lost) = (0, 0);
        for (name, (fill, size)) in &expected.0 {
            match read(&mounted.path(name)) {
                Ok(content) => {
                    assert!(content == vec![*fill; *size], "{kind:?}: {name}");
                    right += 1;
                }
                Err(error) => {
                    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
                    lost += 1;
                }
            }
        }
        assert!(right > 0 && lost > 0, "{kind:?}: {right} right, {lost} lost");
        assert_latched(&host, &mounted, &["was cut from 16777216 to 8388608 bytes", "fsck"]);
        Host::give_up(&mounted);

        file.write_all_at(&rest, CUT).unwrap();
        drop(mounted);
        host.verify(&expected);
    }
}

#[test]
fn a_sparse_volume_on_a_full_host_keeps_what_had_returned() {
    if !can_mount() {
        return;
    }
    for kind in KINDS {
        // So that data is stored to pages of its own, and beside metadata.
        for size in [200_000, 3000] {
            let host = Host::new(kind);
            host.make("64M", &["--sparse"]);
            let ballast = host.root().join("ballast");
            fs::write(&ballast, vec![1; 16 << 20]).unwrap();
            let mut expected = Expected::default();
            let mounted = host.mount();
            let error = loop {
                if let Err(error) = expected.write(&mounted, size) {
                    break error;
                }
            };
            assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{kind:?}");
            expected.verify(&mounted);
            assert_latched(&host, &mounted, &["room", "mount"]);
            Host::give_up(&mounted);
            drop(mounted);
            fs::remove_file(ballast).unwrap();
            host.verify(&expected);
        }
    }
}

/// Bytes that a process has taken for its data.
fn data_size(process: rustix::process::Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A container may keep even root from asking for it.
fn may_ask_to_be_spared() -> bool {
    let asked = Command::new("sh").args(["-c", "echo -999 > /proc/self/oom_score_adj"]).output();
    asked.is_ok_and(|output| output.status.success())
}

#[test]
fn a_server_is_the_last_that_lack_of_memory_ends() {
    if !can_mount() {
        return;
    }
    let host = Host::new((Place::Tmpfs, None));
    host.make("8M", &[]);
    let mounted = host.mount();
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let expected = if may_ask_to_be_spared() { "-999\n" } else { &own };
    let found = fs::read_to_string(format!("/proc/{}/oom_score_adj", mounted.server())).unwrap();
    assert_eq!(found, expected);
    mounted.unmount();
}

#[test]
fn a_server_without_memory_loses_nothing_that_had_returned() {
    if !can_mount() {
        return;
    }
    for kind in KINDS {
        let host = Host::new(kind);
        host.make("24M", &[]);
        let mut expected = Expected::default();
        let mounted = host.mount();
        let server = mounted.server();
        expected.write(&mounted, 1000).unwrap();
        let limit = Some(data_size(server) + (1 << 20));
        prlimit(Some(server), Resource::Data, Rlimit { current: limit, maximum: limit }).unwrap();
        while expected.0.len() < 5000 && expected.write(&mounted, 3000).is_ok() {}
        assert!(expected.0.len() < 5000, "{kind:?}: the server did not miss the memory");
        if test_kill_process(server).is_ok() {
            kill_process(server, Signal::KILL).unwrap();
            wait_for_end(server);
        }
        drop(mounted);
        host.verify(&expected);
    }
}
