//! Pages that the host cannot provide: the access ends, nothing is believed of it, and the rest stays readable.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use lodefs_pmem::{Access, DirtyRanges, Domain, Medium, MediumError, OpenOptions as MediumOptions};
use tempfile::TempDir;

const SIZE: u64 = 4 << 20;
const DOMAINS: [Domain; 4] = [Domain::Page, Domain::Volatile, Domain::CpuCache, Domain::MemoryController];

/// A file of [`SIZE`] bytes that are all 7, as a medium.
struct Bench {
    _scratch: TempDir,
    path: PathBuf,
    medium: Medium,
}

impl Bench {
    fn new(domain: Domain, access: Access) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("medium");
        fs::write(&path, vec![7; SIZE as usize]).unwrap();
        let medium = Medium::open(&path, &MediumOptions { access, force_domain: Some(domain) }).unwrap();
        Self { _scratch: scratch, path, medium }
    }

    fn cut(&self, size: u64) {
        OpenOptions::new().write(true).open(&self.path).unwrap().set_len(size).unwrap();
    }

    fn read(&self, at: u64) -> Result<u8, MediumError> {
        let mut byte = [0];
        // A byte that nobody looked at would not be read.
        self.medium.read(at, std::hint::black_box(&mut byte)).map(|()| byte[0])
    }
}

#[test]
fn what_is_read_from_a_lost_page_is_refused_and_the_rest_is_not() {
    for domain in DOMAINS {
        let bench = Bench::new(domain, Access::ReadWrite);
        bench.cut(SIZE / 2 + 100);
        bench.medium.check_whole().unwrap();
        let error = bench.read(SIZE - 1).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(&format!("from {SIZE} to {} bytes", SIZE / 2 + 100)) && message.contains("fsck"),
            "{message}"
        );
        assert!(bench.read(SIZE - 1).is_err(), "the second time there is an empty page");
        assert_eq!(bench.read(0).unwrap(), 7);
        assert!(bench.read(SIZE / 2 + 100).is_err(), "the rest of the last page reads as zeroes");
        let mut across = vec![0; SIZE as usize / 2];
        assert!(bench.medium.read(SIZE / 2 - 4096, &mut across).is_err());
        let mut meta = [0; 8];
        assert!(bench.medium.read_meta(SIZE - 8, &mut meta).is_err());
    }
}

#[test]
fn nothing_stored_to_a_lost_page_is_ordered_or_durable() {
    for domain in DOMAINS {
        let bench = Bench::new(domain, Access::ReadWrite);
        bench.cut(SIZE / 2);
        for size in [8, 4096, 100_000] {
            let flushed = bench.medium.write(SIZE - 200_000, &vec![1; size]).unwrap();
            assert!(bench.medium.fence(flushed).is_err(), "{domain}");
        }
        assert!(bench.medium.fence(Medium::nothing_flushed()).is_err(), "nothing is believed any more");
        assert!(bench.medium.sync(Medium::nothing_flushed()).is_err());
        assert_eq!(fs::metadata(&bench.path).unwrap().len(), SIZE / 2);
    }
}

#[test]
fn metadata_is_not_settled_from_or_to_a_lost_page() {
    for domain in DOMAINS {
        let bench = Bench::new(domain, Access::ReadWrite);
        let medium = &bench.medium;
        let ordered = medium.fence(Medium::nothing_flushed()).unwrap();
        let mut dirty = DirtyRanges::default();
        dirty.push(medium.store_meta(SIZE - 64, &[1; 64], &ordered).unwrap());
        dirty.push(medium.store_meta(0, &[1; 64], &ordered).unwrap());
        let durable = medium.sync(Medium::nothing_flushed()).unwrap();
        bench.cut(SIZE / 2);
        if domain == Domain::Page {
            // Private copies of what is cut off are gone, too: an empty page is staged.
            let staged = medium.stage(dirty);
            assert!(medium.settle(staged, &durable).is_err());
            assert_eq!(fs::read(&bench.path).unwrap()[0], 7, "nothing is stored once a page is lost");
        } else {
            let _lost = medium.store_meta(SIZE - 64, &[2; 64], &ordered).unwrap();
            assert!(medium.settle(medium.stage(dirty), &durable).is_err(), "{domain}");
        }
    }
}

#[test]
fn read_only_media_lose_pages_too() {
    let bench = Bench::new(Domain::Page, Access::ReadOnly);
    bench.cut(4096);
    assert!(bench.read(4096).is_err());
    assert_eq!(bench.read(4095).unwrap(), 7);
}

#[test]
fn a_reader_never_believes_a_page_that_another_thread_has_lost() {
    for _ in 0..20 {
        let bench = Bench::new(Domain::Volatile, Access::ReadWrite);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut page = vec![0; 4096];
                    while !stop.load(Ordering::Relaxed) {
                        for at in (0..SIZE).rev().step_by(4096).map(|end| end / 4096 * 4096) {
                            if bench.medium.read(at, &mut page).is_ok() {
                                assert!(page.iter().all(|byte| *byte == 7), "an empty page was believed");
                            }
                        }
                    }
                });
            }
            bench.cut(0);
            while bench.medium.check_whole().is_ok() {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn a_cut_that_raises_no_signal_is_noticed_before_anything_is_durable() {
    for domain in DOMAINS {
        let bench = Bench::new(domain, Access::ReadWrite);
        // What is left of the last page can be stored to.
        bench.cut(SIZE - 100);
        let flushed = bench.medium.write(SIZE - 50, &[1; 50]).unwrap();
        let error = bench.medium.sync(flushed).unwrap_err();
        assert!(matches!(error, MediumError::TruncatedWhileMapped { .. }), "{domain}: {error}");
        assert!(
            bench.medium.fence(Medium::nothing_flushed()).is_err(),
            "{domain}: nothing is believed any more"
        );
        assert!(bench.read(SIZE - 1).is_err());
    }
    let bench = Bench::new(Domain::Page, Access::ReadWrite);
    bench.cut(SIZE / 2);
    // The host zeroes what is not there.
    assert!(bench.medium.zero(SIZE / 2, SIZE / 2).is_err());
    assert!(bench.medium.fence(Medium::nothing_flushed()).is_err());
}

#[test]
fn however_much_is_cut_off_the_process_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("medium");
    let size: u64 = 1 << 30;
    File::create(&path).unwrap().set_len(size).unwrap();
    let options = MediumOptions { access: Access::ReadWrite, force_domain: Some(Domain::Volatile) };
    let medium = Medium::open(&path, &options).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    // A process may have 65,530 mappings; each page of its own would make two.
    for at in (4096..size).step_by(6 * 4096) {
        let mut byte = [0];
        assert!(medium.read(at, std::hint::black_box(&mut byte)).is_err());
    }
    medium.read(0, &mut [0; 8]).unwrap();
}

#[test]
fn media_that_come_and_go_in_other_threads_are_not_mistaken_for_one_another() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..30 {
                    let (cut, whole) = (
                        Bench::new(Domain::Volatile, Access::ReadWrite),
                        Medium::anonymous(SIZE, Domain::Volatile).unwrap(),
                    );
                    cut.cut(0);
                    assert!(cut.read(SIZE - 1).is_err());
                    whole.check_whole().unwrap();
                }
            });
        }
    });
}

#[test]
fn other_media_are_not_concerned() {
    let lost = Bench::new(Domain::Page, Access::ReadWrite);
    // Entries of media that are gone are used again.
    for _ in 0..100 {
        drop(Medium::anonymous(4096, Domain::Page).unwrap());
    }
    let whole = Bench::new(Domain::Page, Access::ReadWrite);
    lost.cut(0);
    assert!(lost.read(0).is_err());
    whole.medium.check_whole().unwrap();
    assert_eq!(whole.read(0).unwrap(), 7);
}

/// Runs a test of this program that must not survive, in a process of its own.
fn in_a_process(name: &str) -> std::process::ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

#[test]
fn other_faults_end_the_process_as_ever() {
    for name in ["a_fault_elsewhere", "a_signal_that_was_sent"] {
        assert_eq!(in_a_process(name).signal(), Some(rustix::process::Signal::BUS.as_raw()), "{name}");
    }
}

#[test]
#[ignore = "a process of its own"]
fn a_fault_elsewhere() {
    let _bench = Bench::new(Domain::Page, Access::ReadWrite);
    let file: File = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    // SAFETY: a new mapping, which nothing else uses. Reading it faults, which is the point.
    let byte = unsafe {
        let flags = rustix::mm::MapFlags::SHARED;
        let start =
            rustix::mm::mmap(std::ptr::null_mut(), 4096, rustix::mm::ProtFlags::READ, flags, &file, 0);
        let start = start.unwrap().cast::<u8>();
        file.set_len(0).unwrap();
        start.read_volatile()
    };
    unreachable!("read {byte} from nowhere");
}

#[test]
#[ignore = "a process of its own"]
fn a_signal_that_was_sent() {
    let _bench = Bench::new(Domain::Page, Access::ReadWrite);
    // It goes to Rust's own handler, which takes it for a fault that will happen again.
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).unwrap();
    unreachable!("the process goes on, without a handler");
}

/// A file system of a megabyte, in memory.
struct SmallHost(TempDir);

impl SmallHost {
    /// `None` where nothing may be mounted.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1M", "tmpfs"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        assert!(mounted || std::env::var_os("CI").is_none(), "in CI, a tmpfs can be mounted");
        mounted.then(|| Self(directory))
    }
}

impl Drop for SmallHost {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "nothing of it is in use");
    }
}

#[test]
fn a_host_without_room_is_told_from_a_file_that_was_cut() {
    let Some(host) = SmallHost::mount() else {
        eprintln!("left out: nothing can be mounted here");
        return;
    };
    let path = host.0.path().join("medium");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    let options = MediumOptions { access: Access::ReadWrite, force_domain: Some(Domain::Page) };
    let medium = Medium::open(&path, &options).unwrap();
    let flushed = medium.write(0, &vec![1; SIZE as usize / 2]).unwrap();
    let error = medium.fence(flushed).unwrap_err();
    assert!(matches!(error, MediumError::HostFull { .. }), "{error}");
}
