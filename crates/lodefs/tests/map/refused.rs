//! What cannot be mapped, and what is said then.

use lodefs::{Domain, File, Flags, MapOptions, OpenOptions, Volume, errno};

use crate::bench::{PAGE, byte, file, map, volume};

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

const FIRST_PAGE: MapOptions = MapOptions { offset: 0, size: 4096, writable: true, sync: false };

fn refusal(file: &File, options: MapOptions) -> Option<i32> {
    file.map(&options).err().as_ref().and_then(errno)
}

#[test]
fn what_is_flushed_is_durable_only_on_persistent_memory() {
    for domain in Domain::ALL {
        let volume = Volume::options().size(4 << 20).force_domain(domain).in_memory().unwrap();
        let file = file(&volume, "f", 1);
        let synchronous = refusal(&file, MapOptions { sync: true, ..FIRST_PAGE });
        let plain = refusal(&file, FIRST_PAGE);
        let expected = match domain {
            Domain::CpuCache | Domain::MemoryController => (None, None),
            Domain::Volatile => (Some(EOPNOTSUPP), None),
            Domain::Page => (Some(EOPNOTSUPP), Some(EOPNOTSUPP)),
        };
        assert_eq!((synchronous, plain), expected, "{domain:?}");
    }
}

#[test]
fn a_refusal_because_of_the_medium_says_so() {
    let volume = Volume::options().size(4 << 20).force_domain(Domain::Page).in_memory().unwrap();
    let error = file(&volume, "f", 1).map(&FIRST_PAGE).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("'page'") && text.contains("read and write the file instead"), "{text}");
}

#[test]
fn the_file_must_be_open_for_it() {
    let volume = volume();
    drop(file(&volume, "f", 1));
    let read_only = MapOptions { writable: false, ..FIRST_PAGE };
    let open = |options: &mut OpenOptions| options.open(&volume, "f").unwrap();
    let reader = open(OpenOptions::new().read(true));
    assert_eq!((refusal(&reader, FIRST_PAGE), refusal(&reader, read_only)), (Some(EACCES), None));
    for writer in [open(OpenOptions::new().write(true)), open(OpenOptions::new().append(true))] {
        assert_eq!((refusal(&writer, FIRST_PAGE), refusal(&writer, read_only)), (Some(EACCES), Some(EACCES)));
    }
    assert_eq!(refusal(&open(OpenOptions::new().read(true).append(true)), FIRST_PAGE), None);
    let both = open(OpenOptions::new().read(true).write(true));
    for flag in [Flags::IMMUTABLE, Flags::APPEND] {
        both.set_flags(flag).unwrap();
        assert_eq!((refusal(&both, FIRST_PAGE), refusal(&both, read_only)), (Some(EPERM), None));
        both.set_flags(Flags::empty()).unwrap();
    }
}

#[test]
fn a_part_must_be_one_of_a_file() {
    const LAST: u64 = (1 << 63) - PAGE;
    let volume = volume();
    let file = file(&volume, "f", 1);
    for (offset, size) in [
        (1, 4096),
        (PAGE - 1, 1),
        (0, 0),
        (0, usize::MAX),
        (LAST, 4097),
        (LAST + PAGE, 1),
        (u64::MAX - 4095, 4096),
        (u64::MAX, 1),
    ] {
        let refused = refusal(&file, MapOptions { offset, size, ..FIRST_PAGE });
        assert_eq!(refused, Some(EINVAL), "{size} at {offset}");
    }
    // More than there are addresses for.
    assert!(refusal(&file, MapOptions { size: 1 << 50, ..FIRST_PAGE }).is_some());
    let mapping = map(&file, 1);
    assert_eq!(byte(&mapping, 0), 0, "it can be mapped as before");
}

#[test]
fn the_largest_file_can_be_mapped_to_its_end() {
    const LAST: u64 = (1 << 63) - PAGE;
    let volume = volume();
    let file = file(&volume, "f", 1);
    file.set_len(i64::MAX as u64).unwrap();
    let mapping = file.map(&MapOptions { offset: LAST, ..FIRST_PAGE }).unwrap();
    assert_eq!(byte(&mapping, 4094), 0);
    mapping.write(4094, &[7]).unwrap();
    mapping.sync().unwrap();
    let mut read = [0; 3];
    assert_eq!(file.read_at(&mut read, i64::MAX as u64 - 2).unwrap(), 2);
    assert_eq!(read, [0, 7, 0]);
    file.set_len(LAST).unwrap();
    file.set_len(i64::MAX as u64).unwrap();
    assert_eq!(byte(&mapping, 4094), 0);
}
