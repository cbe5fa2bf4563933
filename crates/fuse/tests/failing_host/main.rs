//! A volume on a device that fails: msync and reads of pages end in real errors of the kernel. The volume says so, becomes
//! read-only, and is found as it was when it was last made durable.

mod server;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use lodefs_core::{Error, FormatOptions, Fs, NewInode, NewKind, OpenOptions as FsOptions, fsck};
use lodefs_pmem::{Access, Medium, OpenOptions as MediumOptions};
use rustix::io::Errno;

use server::{Device, Host};

const SIZE: u64 = 64 << 20;
const FILE: NewInode<'static> = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };

/// Whether this machine can mount. If not, says so; in CI, where nobody reads, that is a failure.
fn can_mount() -> bool {
    let is_able = rustix::process::geteuid().is_root()
        && OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    if !is_able {
        assert!(std::env::var_os("CI").is_none(), "CI needs /dev/fuse and root to test failing hosts");
        eprintln!("NOTICE: not tested, because this needs /dev/fuse and root");
    }
    is_able
}

#[test]
#[ignore = "a process of its own"]
fn serve() {
    server::serve();
}

fn medium(path: &Path, access: Access) -> Medium {
    Medium::open(path, &MediumOptions { access, ..MediumOptions::default() }).unwrap()
}

fn open(host: &Host) -> Arc<Fs> {
    Fs::open(medium(&host.path(), Access::ReadWrite), &FsOptions::default()).unwrap()
}

fn new_volume() -> (Host, Arc<Fs>) {
    let host = Host::new(SIZE);
    Fs::format(&medium(&host.path(), Access::ReadWrite), &FormatOptions::default()).unwrap();
    let fs = open(&host);
    assert_eq!(fs.domain().domain, lodefs_pmem::Domain::Page);
    (host, fs)
}

/// Makes files with these numbers; from several threads, so that their records lie in several places.
fn make(fs: &Arc<Fs>, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let make = || {
            let file = fs.create(&fs.root().unwrap(), number.to_string().as_bytes(), &FILE).unwrap();
            fs.write(&file, 0, &content(number), false).unwrap();
        };
        std::thread::scope(|scope| scope.spawn(make).join().unwrap());
    }
}

fn content(number: u64) -> Vec<u8> {
    vec![number as u8 + 1; 5000]
}

fn read(fs: &Arc<Fs>, name: &[u8]) -> Result<Vec<u8>, Error> {
    let file = fs.lookup(&fs.root()?, name)?;
    let mut bytes = vec![0; 6000];
    let count = fs.read(&file, 0, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

fn files(fs: &Arc<Fs>) -> BTreeMap<u64, Vec<u8>> {
    let mut names = Vec::new();
    let mut visit = |entry: &lodefs_core::DirEntry| {
        names.extend(std::str::from_utf8(&entry.name).unwrap().parse::<u64>().ok());
        true
    };
    fs.read_dir(&fs.root().unwrap(), 0, &mut visit).unwrap();
    names.into_iter().map(|number| (number, read(fs, number.to_string().as_bytes()).unwrap())).collect()
}

fn assert_latched(fs: &Arc<Fs>) {
    let refused = fs.create(&fs.root().unwrap(), b"refused", &FILE).map(drop).unwrap_err();
    assert!(matches!(refused, Error::Latched(_)) && refused.errno() == Errno::ROFS, "{refused}");
    assert_eq!(fs.sync().unwrap_err().errno(), Errno::ROFS);
}

/// The volume is exactly as of the last sync, when 20 files had been made, and in order.
fn assert_as_synced(host: &Host) {
    let report = fsck::check(medium(&host.path(), Access::ReadOnly), &fsck::Options::default(), &mut |_| ());
    let report = report.unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let fs = open(host);
    let found = files(&fs);
    let expected: BTreeMap<u64, Vec<u8>> = (0..20).map(|number| (number, content(number))).collect();
    assert!(found == expected, "{:?}", found.keys());
    fs.close().unwrap();
}

#[test]
fn a_write_back_that_fails_is_told_and_leaves_what_was_durable() {
    if !can_mount() {
        return;
    }
    for device in [Device::RefusesWrites, Device::RefusesEven, Device::RefusesOdd] {
        for checkpoint in [false, true] {
            let (host, fs) = new_volume();
            make(&fs, 0..20);
            fs.sync().unwrap();
            host.set(device);
            make(&fs, 20..40);
            let failed = if checkpoint { fs.close() } else { fs.sync() };
            assert_eq!(failed.unwrap_err().errno(), Errno::IO, "{device:?}");
            if !checkpoint {
                assert_latched(&fs);
                assert_eq!(files(&fs).len(), 40, "what is in memory can be read");
                assert!(fs.close().is_err());
            }
            host.set(Device::Works);
            drop(fs);
            host.drop_cache();
            assert_as_synced(&host);
        }
    }
}

#[test]
fn a_write_back_that_fails_at_recovery_is_told_and_leaves_what_was_durable() {
    if !can_mount() {
        return;
    }
    for device in [Device::RefusesWrites, Device::RefusesEven, Device::RefusesOdd] {
        let (host, fs) = new_volume();
        make(&fs, 0..20);
        fs.sync().unwrap();
        make(&fs, 20..40);
        host.set(device);
        assert_eq!(fs.sync().unwrap_err().errno(), Errno::IO);
        drop(fs);
        let open = || Fs::open(medium(&host.path(), Access::ReadWrite), &FsOptions::default()).map(drop);
        // What the next open writes may all lie on pages that can be written.
        assert!(open().is_err() || !matches!(device, Device::RefusesWrites));
        host.set(Device::Works);
        host.drop_cache();
        // An error that the kernel has told nobody yet, it tells now.
        if let Err(error) = open() {
            assert_eq!(error.errno(), Errno::IO);
        }
        assert_as_synced(&host);
    }
}

#[test]
fn a_page_that_cannot_be_read_is_told_and_damages_nothing() {
    if !can_mount() {
        return;
    }
    let (host, fs) = new_volume();
    make(&fs, 0..20);
    fs.close().unwrap();
    drop(fs);
    host.drop_cache();
    let fs = open(&host);
    host.set(Device::RefusesReads);
    let errors = (0..20_u64).filter_map(|number| read(&fs, number.to_string().as_bytes()).err());
    let errors: Vec<Error> = errors.collect();
    assert!(!errors.is_empty());
    for error in errors {
        assert!(matches!(error, Error::Medium(_)) && error.errno() == Errno::IO, "{error}");
    }
    assert_latched(&fs);
    host.set(Device::Works);
    drop(fs);
    assert_as_synced(&host);
}
