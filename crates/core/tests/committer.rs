//! The thread that commits a `page` volume every so often.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lodefs_core::{FormatOptions, Fs, NewInode, NewKind, OpenOptions};
use lodefs_pmem::{Access, Domain, Medium, Reserve};

fn open(path: &Path) -> Medium {
    let options = lodefs_pmem::OpenOptions { access: Access::ReadWrite, force_domain: Some(Domain::Page) };
    Medium::open(path, &options).unwrap()
}

#[test]
fn closing_ends_the_thread_and_frees_the_medium() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vol");
    lodefs_pmem::create_file(&path, 2 << 20, Reserve::Full).unwrap();
    Fs::format(&open(&path), &FormatOptions::default()).unwrap();
    // So seldom that it always waits, and so often that it is nearly always at it.
    for interval in [Duration::from_hours(1), Duration::from_micros(1)] {
        let options = OpenOptions { commit_interval: Some(interval), ..OpenOptions::default() };
        for round in 0..20 {
            let fs = Fs::open(open(&path), &options).unwrap();
            let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
            let name = format!("{interval:?}-{round}");
            fs.create(&fs.root().unwrap(), name.as_bytes(), &new).unwrap();
            fs.close().unwrap();
            assert_eq!((Arc::strong_count(&fs), Arc::weak_count(&fs)), (1, 0), "the thread holds on to it");
            drop(fs);
        }
    }
}
