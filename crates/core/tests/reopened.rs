//! Volumes that are closed and opened again.

use std::path::Path;

use lodefs_core::{FormatOptions, Fs, NewInode, NewKind, OpenOptions, fsck};
use lodefs_pmem::{Access, Domain, Medium, Reserve};

fn medium(path: &Path, access: Access) -> Medium {
    let options = lodefs_pmem::OpenOptions { access, force_domain: Some(Domain::Volatile) };
    Medium::open(path, &options).unwrap()
}

/// Opens the volume, makes files with these numbers, and closes it; `remove` names one that is removed.
fn session(path: &Path, numbers: std::ops::Range<u32>, remove: Option<u32>) {
    let fs = Fs::open(medium(path, Access::ReadWrite), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    for number in numbers {
        let new = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
        fs.create(&root, number.to_string().as_bytes(), &new).unwrap();
    }
    if let Some(number) = remove {
        fs.unlink(&root, number.to_string().as_bytes()).unwrap();
    }
    drop(root);
    fs.close().unwrap();
}

#[test]
fn a_volume_is_clean_however_full_its_chunks_of_inodes_are() {
    for count in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vol");
        lodefs_pmem::create_file(&path, 2 << 20, Reserve::Full).unwrap();
        Fs::format(&medium(&path, Access::ReadWrite), &FormatOptions::default()).unwrap();
        // The next one starts with a chunk that soon is full, and then comes to the last one.
        session(&path, 0..20, Some(0));
        session(&path, 20..20 + count, None);
        let report =
            fsck::check(medium(&path, Access::ReadOnly), &fsck::Options::default(), &mut |_| ()).unwrap();
        assert!(report.is_clean(), "{count} files: {:?}", report.findings);
        session(&path, 100..140, None);
    }
}
