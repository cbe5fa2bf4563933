//! Opening, making and closing volumes, and what is said when that is refused.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use lodefs::{
    Credentials, Dir, DirEntry, Domain, Error, File, MediumError, MediumKind, OpenOptions, ReadDir, Volume,
    Walk, engine_error, errno,
};

const SIZE: u64 = 4 << 20;

/// Threads may share everything.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<(Volume, Dir, File, ReadDir, Walk, DirEntry)>();
};

struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("vol")
    }
}

#[test]
fn what_was_closed_is_there_again_in_every_domain() {
    for domain in Domain::ALL {
        let scratch = Scratch::new();
        let options = Volume::options().size(SIZE).label("a label").force_domain(domain);
        let volume = options.create(scratch.path()).unwrap();
        volume.write("f", domain.name()).unwrap();
        let (space, info) = (volume.space(), volume.info());
        volume.close().unwrap();
        let volume = Volume::options().force_domain(domain).open(scratch.path()).unwrap();
        assert_eq!(volume.read_to_string("f").unwrap(), domain.name());
        assert_eq!((volume.space(), volume.info()), (space, info));
        assert_eq!((volume.domain().domain, volume.domain().forced), (domain, true));
        assert!(volume.recovery().was_clean);
        assert_eq!(volume.info().label, "a label");
    }
}

#[test]
fn dropping_closes_once_the_last_handle_is_gone() {
    let scratch = Scratch::new();
    let volume = Volume::create(scratch.path(), SIZE).unwrap();
    let file = File::create(&volume, "f").unwrap();
    let dir = volume.open_dir("/").unwrap();
    drop(volume);
    file.append(b"still open").unwrap();
    dir.create_dir("d").unwrap();
    assert_eq!(Volume::open(scratch.path()).unwrap_err().kind(), ErrorKind::ResourceBusy);
    drop((file, dir));
    let volume = Volume::open(scratch.path()).unwrap();
    assert!(volume.recovery().was_clean && volume.exists("d").unwrap());
    assert_eq!(volume.read("f").unwrap(), b"still open");
}

#[test]
fn after_closing_open_files_can_only_be_read() {
    let scratch = Scratch::new();
    let volume = Volume::create(scratch.path(), SIZE).unwrap();
    let file = File::create_new(&volume, "f").unwrap();
    let orphan = volume.tmpfile().unwrap();
    file.append(b"x").unwrap();
    volume.close().unwrap();
    assert_eq!(file.append(b"y").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(&byte, b"x");
    drop((file, orphan));
    let volume = Volume::open(scratch.path()).unwrap();
    assert!(!volume.recovery().was_clean, "the orphan had to be found");
    assert_eq!(volume.recovery().orphans_reclaimed, 1);
}

#[test]
fn a_volume_is_open_once() {
    let scratch = Scratch::new();
    let volume = Volume::create(scratch.path(), SIZE).unwrap();
    for read_only in [false, true] {
        let error = Volume::options().read_only(read_only).open(scratch.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        assert_eq!(errno(&error), Some(16));
        assert!(matches!(engine_error(&error), Some(Error::Medium(MediumError::InUse { .. }))));
    }
    volume.close().unwrap();
    let reader = || Volume::options().read_only(true).open(scratch.path()).unwrap();
    let _readers_share = (reader(), reader());
}

#[test]
fn a_read_only_volume_does_not_change_its_file() {
    let scratch = Scratch::new();
    let volume = Volume::create(scratch.path(), SIZE).unwrap();
    volume.create_dir("d").unwrap();
    volume.write("f", "x").unwrap();
    volume.close().unwrap();
    let before = fs::read(scratch.path()).unwrap();
    let volume = Volume::options().read_only(true).open(scratch.path()).unwrap();
    assert!(volume.is_read_only());
    assert_eq!(volume.read("f").unwrap(), b"x");
    for refused in [
        volume.write("f", "y"),
        volume.create_dir("e"),
        volume.remove_file("f"),
        volume.rename("f", "g"),
        volume.set_xattr("f", "user.x", "y"),
        OpenOptions::new().append(true).open(&volume, "f").map(drop),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
    volume.sync().unwrap();
    volume.close().unwrap();
    assert!(fs::read(scratch.path()).unwrap() == before);
}

#[test]
fn what_is_no_volume_is_refused_with_the_reason() {
    let scratch = Scratch::new();
    let open = || Volume::open(scratch.path()).unwrap_err();
    assert_eq!(open().kind(), ErrorKind::NotFound);
    fs::write(scratch.path(), vec![7; 1 << 20]).unwrap();
    assert_eq!(open().kind(), ErrorKind::InvalidData);
    assert!(matches!(engine_error(&open()), Some(Error::NotAVolume)));
    fs::write(scratch.path(), "").unwrap();
    assert_eq!(open().kind(), ErrorKind::InvalidInput);

    let volume = Volume::create(scratch.path(), SIZE).unwrap();
    volume.close().unwrap();
    fs::File::options().write(true).open(scratch.path()).unwrap().set_len(SIZE / 2).unwrap();
    let error = open();
    assert!(matches!(engine_error(&error), Some(Error::Truncated { expected: SIZE, .. })), "{error}");
    assert!(error.to_string().contains("truncated"), "{error}");
}

#[test]
fn making_a_volume_spares_what_is_there() {
    let scratch = Scratch::new();
    fs::write(scratch.path(), "precious").unwrap();
    let error = Volume::create(scratch.path(), SIZE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(scratch.path()).unwrap(), b"precious");

    fs::write(scratch.path(), vec![7; SIZE as usize]).unwrap();
    let volume = Volume::options().overwrite(true).create(scratch.path()).unwrap();
    assert_eq!(volume.info().total_blocks * 4096, SIZE);
}

#[test]
fn a_volume_that_cannot_be_made_leaves_no_file() {
    let scratch = Scratch::new();
    for size in [0, 4096, 1 << 60] {
        let error = Volume::create(scratch.path(), size).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&size.to_string()), "{error}");
        assert!(Volume::in_memory(size).is_err());
    }
    let label = "x".repeat(65);
    assert!(Volume::options().size(SIZE).label(label).create(scratch.path()).is_err());
    let read_only = Volume::options().size(SIZE).read_only(true).create(scratch.path());
    assert_eq!(read_only.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(!scratch.path().exists());
    assert!(Volume::options().in_memory().is_err(), "it has no size");
}

#[test]
fn a_sparse_volume_takes_space_as_it_is_used() {
    use std::os::unix::fs::MetadataExt;

    let scratch = Scratch::new();
    let volume = Volume::options().size(1 << 30).sparse(true).create(scratch.path()).unwrap();
    assert_ne!(volume.domain().kind, MediumKind::Anonymous);
    assert!(fs::metadata(scratch.path()).unwrap().blocks() * 512 < 1 << 28);
}

#[test]
fn new_files_belong_to_whom_the_program_acts_for() {
    let mut volume = Volume::options()
        .size(SIZE)
        .credentials(Credentials { uid: 1, gid: 2, umask: 0o077 })
        .in_memory()
        .unwrap();
    volume.create_dir("d").unwrap();
    volume.set_credentials(Credentials { uid: 3, gid: 4, umask: 0 });
    volume.write("d/f", "").unwrap();
    let owner = |path| {
        let metadata = volume.metadata(path).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
    };
    assert_eq!(owner("/"), (1, 2, 0o755));
    assert_eq!(owner("d"), (1, 2, 0o700));
    assert_eq!(owner("d/f"), (3, 4, 0o666));
    assert_eq!(volume.open_dir("d").unwrap().credentials().uid, 3);
}

#[test]
fn a_page_volume_is_durable_by_itself_after_the_commit_interval() {
    let scratch = Scratch::new();
    let options = Volume::options().size(SIZE).force_domain(Domain::Page);
    let volume = options.commit_interval(Some(Duration::from_millis(1))).create(scratch.path()).unwrap();
    // A commit leaves its mark in one of the two blocks of the state, behind the superblock.
    let state = || fs::read(scratch.path()).unwrap()[4096..3 * 4096].to_vec();
    let before = state();
    volume.write("f", "x").unwrap();
    let committed = (0..60_000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        state() != before
    });
    assert!(committed, "nobody has committed it for a minute");
}
