//! Opening, locking, forcing and creating media.

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use lodefs_pmem::{
    Access, Domain, FORCE_DOMAIN_VARIABLE, Medium, MediumError, MediumKind, OpenOptions, Reserve, create_file,
};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

fn open(path: &Path, access: Access) -> Result<Medium, MediumError> {
    Medium::open(path, &OpenOptions { access, force_domain: None })
}

#[test]
fn writers_exclude_everybody_and_readers_share() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(8192).unwrap();
    let in_use = |access| matches!(open(file.path(), access), Err(MediumError::InUse { .. }));

    let writer = open(file.path(), Access::ReadWrite).unwrap();
    assert!(in_use(Access::ReadWrite) && in_use(Access::ReadOnly));
    drop(writer);

    let reader = open(file.path(), Access::ReadOnly).unwrap();
    let another = open(file.path(), Access::ReadOnly).unwrap();
    assert!(in_use(Access::ReadWrite));
    drop((reader, another));
    assert!(!in_use(Access::ReadWrite));
}

#[test]
fn what_may_only_be_read_is_not_shared_to_be_written() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(8192).unwrap();
    let reader = open(file.path(), Access::ReadOnly).unwrap();
    assert!(matches!(reader.share(true), Err(MediumError::ReadOnly { .. })));
    reader.share(false).unwrap();
    drop(reader);
    open(file.path(), Access::ReadWrite).unwrap().share(true).unwrap();
}

/// As a process has it that is just being started by another thread.
#[test]
fn another_descriptor_of_the_same_file_does_not_keep_the_lock() {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    let file = tempfile::NamedTempFile::new().unwrap();
    let descriptors = || {
        let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let of_file = all.filter(|entry| fs::read_link(entry.path()).is_ok_and(|path| path == file.path()));
        of_file.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect::<Vec<i32>>()
    };
    let before = descriptors();
    file.as_file().set_len(8192).unwrap();
    let medium = open(file.path(), Access::ReadWrite).unwrap();
    let of_medium = descriptors().into_iter().find(|fd| !before.contains(fd)).unwrap();
    let this_process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let same = pidfd_getfd(&this_process, of_medium, PidfdGetfdFlags::empty()).unwrap();
    assert!(matches!(open(file.path(), Access::ReadWrite), Err(MediumError::InUse { .. })));
    drop(medium);
    open(file.path(), Access::ReadWrite).unwrap();
    drop(same);
}

#[test]
fn what_cannot_be_opened_is_named_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = open(&missing, Access::ReadWrite).unwrap_err();
    assert!(matches!(error, MediumError::NotFound { .. }));
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");

    for access in [Access::ReadOnly, Access::ReadWrite] {
        assert!(matches!(open(directory.path(), access), Err(MediumError::NotAMedium { .. })));
        assert!(matches!(open(Path::new("/dev/null"), access), Err(MediumError::NotAMedium { .. })));
    }

    let empty = directory.path().join("empty");
    fs::write(&empty, "").unwrap();
    assert!(matches!(open(&empty, Access::ReadWrite), Err(MediumError::Empty { .. })));
}

#[test]
fn an_ordinary_file_is_a_page_medium_and_tmpfs_is_volatile() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.as_file().set_len(8192).unwrap();
    let medium = open(file.path(), Access::ReadWrite).unwrap();
    let report = medium.report();
    assert_eq!((report.kind, report.domain, report.forced), (MediumKind::File, Domain::Page, false));
    assert_eq!(medium.path(), Some(file.path()));

    let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    file.as_file().set_len(8192).unwrap();
    let report = open(file.path(), Access::ReadWrite).unwrap().report().clone();
    assert_eq!((report.kind, report.domain, report.forced), (MediumKind::Tmpfs, Domain::Volatile, false));
}

#[test]
fn a_forced_domain_is_obeyed_and_reported() {
    let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    file.as_file().set_len(8192).unwrap();
    for domain in Domain::ALL {
        let options = OpenOptions { access: Access::ReadWrite, force_domain: Some(domain) };
        let report = Medium::open(file.path(), &options).unwrap().report().clone();
        assert_eq!((report.domain, report.detected, report.forced), (domain, Domain::Volatile, true));
    }
}

/// Run by the next test in a process of its own, since the environment belongs to the whole process.
#[test]
fn report_a_medium() {
    let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    file.as_file().set_len(8192).unwrap();
    match open(file.path(), Access::ReadWrite) {
        Ok(medium) => println!("report: {}", medium.report()),
        Err(error) => println!("error: {error}"),
    }
}

#[test]
fn the_environment_forces_a_domain() {
    let reported_under = |value: &str| {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "report_a_medium", "--nocapture"]).env(FORCE_DOMAIN_VARIABLE, value);
        String::from_utf8(child.output().unwrap().stdout).unwrap()
    };
    assert!(reported_under("cpu-cache").contains("report: cpu-cache (forced; detected volatile: "));
    assert!(reported_under("").contains("report: volatile ("), "an empty value is none");
    let refused = reported_under("eadr");
    assert!(refused.contains("error: LODEFS_FORCE_DOMAIN: 'eadr' is not"), "{refused}");
    assert!(Domain::ALL.iter().all(|domain| refused.contains(domain.name())), "{refused}");
}

#[test]
fn a_created_file_has_its_size_and_belongs_to_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    for (name, reserve) in [("full", Reserve::Full), ("sparse", Reserve::Sparse)] {
        let path = directory.path().join(name);
        create_file(&path, 1 << 20, reserve).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (1 << 20, 0o600));
        assert_eq!(metadata.blocks() * 512 >= 1 << 20, reserve == Reserve::Full);
        assert!(matches!(create_file(&path, 1 << 20, reserve), Err(MediumError::NotEmpty { .. })));
    }
}

#[test]
fn what_a_created_file_has_inherited_it_keeps() {
    const DAX: IFlags = IFlags::from_bits_retain(0x0200_0000);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let is_marked =
        |path: &Path| ioctl_getflags(fs::File::open(path).unwrap()).is_ok_and(|flags| flags.contains(DAX));
    create_file(&path("unmarked"), 4096, Reserve::Full).unwrap();
    fs::write(path("usual"), "").unwrap();
    assert_eq!(is_marked(&path("unmarked")), is_marked(&path("usual")));
    // Where there is no such flag, both have none.
    let opened = fs::File::open(directory.path()).unwrap();
    let _ = ioctl_getflags(&opened).and_then(|flags| ioctl_setflags(&opened, flags | DAX));
    create_file(&path("marked"), 4096, Reserve::Full).unwrap();
    fs::write(path("usual too"), "").unwrap();
    assert_eq!(is_marked(&path("marked")), is_marked(&path("usual too")));
}

#[test]
fn an_empty_file_is_given_the_size() {
    let file = tempfile::NamedTempFile::new().unwrap();
    create_file(file.path(), 8192, Reserve::Full).unwrap();
    assert_eq!(fs::metadata(file.path()).unwrap().len(), 8192);
}

#[test]
fn a_file_that_does_not_fit_is_not_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("huge");
    let refused = |reserve| {
        let error = create_file(&path, i64::MAX as u64, reserve).unwrap_err();
        assert!(!path.exists());
        error
    };
    assert!(matches!(refused(Reserve::Full), MediumError::NoSpace { .. }));
    assert!(matches!(refused(Reserve::Sparse), MediumError::TooLarge { .. }));
    fs::write(&path, "").unwrap();
    create_file(&path, i64::MAX as u64, Reserve::Full).unwrap_err();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "a file that was there stays, empty");
}
