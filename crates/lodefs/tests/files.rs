//! Files: content, holes, positions.

use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use lodefs::{File, FileCursor, FileTimes, Flags, OpenOptions, Volume, errno};

const EBADF: Option<i32> = Some(9);
const ENODATA: Option<i32> = Some(61);

fn volume() -> Volume {
    Volume::in_memory(32 << 20).unwrap()
}

#[test]
fn how_a_file_was_opened_decides_what_it_does() {
    let volume = volume();
    volume.write("f", "12345").unwrap();
    let mut buffer = [0; 8];

    let reader = File::open(&volume, "f").unwrap();
    assert_eq!(reader.read_at(&mut buffer, 3).unwrap(), 2);
    for refused in [reader.write_all_at(b"x", 0), reader.set_len(0), reader.allocate(0, 1)] {
        assert_eq!(errno(&refused.unwrap_err()), EBADF);
    }
    assert_eq!(errno(&reader.append(b"x").unwrap_err()), EBADF);

    let writer = OpenOptions::new().write(true).open(&volume, "f").unwrap();
    assert_eq!(errno(&writer.read_at(&mut buffer, 0).unwrap_err()), EBADF);
    writer.write_all_at(b"x", 0).unwrap();

    let appender = OpenOptions::new().append(true).open(&volume, "f").unwrap();
    appender.write_all_at(b"6", 0).unwrap();
    assert_eq!(appender.append(b"7").unwrap(), 6);
    assert_eq!(volume.read("f").unwrap(), b"x234567");

    File::create(&volume, "f").unwrap();
    assert_eq!(volume.read("f").unwrap(), b"");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let volume = volume();
    let open = |set: &dyn Fn(&mut OpenOptions) -> &mut OpenOptions| {
        set(&mut OpenOptions::new()).open(&volume, "new").map(drop).map_err(|error| error.kind())
    };
    for refused in [
        open(&|options| options),
        open(&|options| options.read(true).create(true)),
        open(&|options| options.read(true).create_new(true)),
        open(&|options| options.read(true).truncate(true)),
        open(&|options| options.append(true).truncate(true).create(true)),
    ] {
        assert_eq!(refused, Err(ErrorKind::InvalidInput));
    }
    assert!(!volume.exists("new").unwrap());
    assert_eq!(open(&|options| options.append(true).create_new(true)), Ok(()));
    assert_eq!(open(&|options| options.write(true).create_new(true)), Err(ErrorKind::AlreadyExists));
}

#[test]
fn only_regular_files_are_opened_as_files() {
    let volume = volume();
    volume.create_dir("d").unwrap();
    volume.create_node("pipe", lodefs::NewKind::Fifo, 0o600).unwrap();
    assert_eq!(File::open(&volume, "d").unwrap_err().kind(), ErrorKind::IsADirectory);
    assert_eq!(errno(&File::open(&volume, "pipe").unwrap_err()), Some(6));
    volume.write("f", "").unwrap();
    assert_eq!(volume.open_dir("f").unwrap_err().kind(), ErrorKind::NotADirectory);
}

#[test]
fn reading_stops_at_the_end() {
    let volume = volume();
    volume.write("f", "12345").unwrap();
    let file = File::open(&volume, "f").unwrap();
    let mut buffer = [9; 4];
    assert_eq!(file.read_at(&mut buffer, 5).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, u64::MAX).unwrap(), 0);
    assert_eq!(file.read_exact_at(&mut buffer, 2).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    file.read_exact_at(&mut buffer, 1).unwrap();
    assert_eq!(&buffer, b"2345");
}

#[test]
fn offsets_up_to_the_largest_file_work_and_no_further() {
    let volume = volume();
    let file = File::create_new(&volume, "f").unwrap();
    let last = i64::MAX as u64 - 1;
    assert_eq!(file.write_at(b"xy", last).unwrap(), 1, "there is room for one byte");
    assert_eq!(file.metadata().unwrap().len(), last + 1);
    assert_eq!(file.write_all_at(b"xy", last).unwrap_err().kind(), ErrorKind::FileTooLarge);
    for offset in [last + 1, u64::MAX - 1, u64::MAX] {
        assert_eq!(file.write_at(b"x", offset).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(file.allocate(offset, u64::MAX).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(file.seek_data(offset).unwrap(), None);
    }
    assert_eq!(file.set_len(u64::MAX).unwrap_err().kind(), ErrorKind::FileTooLarge);
    let mut byte = [0];
    file.read_exact_at(&mut byte, last).unwrap();
    assert_eq!(&byte, b"x");
    let mut content = Vec::new();
    assert_eq!(file.cursor().read_to_end(&mut content).unwrap_err().kind(), ErrorKind::OutOfMemory);
}

#[test]
fn holes_read_as_zeros_and_take_no_space() {
    let volume = volume();
    let file = File::create_new(&volume, "f").unwrap();
    file.write_all_at(b"end", 10_000_000).unwrap();
    assert!(file.metadata().unwrap().blocks() <= 8);
    assert_eq!(file.seek_data(0).unwrap(), Some(10_000_000 / 4096 * 4096));
    assert_eq!(file.seek_hole(0).unwrap(), Some(0));
    assert_eq!(file.seek_hole(10_000_001).unwrap(), Some(10_000_003));
    assert_eq!(file.seek_data(10_000_003).unwrap(), None);

    file.allocate(0, 8192).unwrap();
    assert_eq!(file.seek_hole(0).unwrap(), Some(8192));
    file.write_all_at(&[7; 8192], 0).unwrap();
    file.punch_hole(100, 8000).unwrap();
    let mut start = [9; 8192];
    file.read_exact_at(&mut start, 0).unwrap();
    assert!(start.iter().enumerate().all(|(i, byte)| (*byte == 0) == (100..8100).contains(&i)));
    file.zero_range(8100, 10_000).unwrap();
    file.read_exact_at(&mut start, 0).unwrap();
    assert!(start[8100..].iter().all(|byte| *byte == 0));
    assert_eq!(file.seek_hole(0).unwrap(), Some(18_100_u64.next_multiple_of(4096)));

    file.set_len(5).unwrap();
    file.reserve(0, 1 << 20).unwrap();
    assert_eq!((file.metadata().unwrap().len(), file.metadata().unwrap().blocks()), (5, (1 << 20) / 512));
    file.allocate(0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
}

#[test]
fn a_full_volume_refuses_and_recovers() {
    let volume = Volume::in_memory(4 << 20).unwrap();
    let before = volume.space();
    let file = File::create_new(&volume, "f").unwrap();
    let error = file.allocate(0, 4 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.metadata().unwrap().len(), 0, "nothing was changed");
    let mut written = 0;
    let error = loop {
        match file.append(&[7; 10_000]) {
            Ok(offset) => written = offset + 10_000,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(file.metadata().unwrap().len() >= written);
    drop(file);
    volume.remove_file("f").unwrap();
    assert_eq!(volume.space(), before, "to the byte");
}

#[test]
fn ranges_are_copied_within_a_volume() {
    let volume = volume();
    volume.write("from", vec![7; 100_000]).unwrap();
    let from = OpenOptions::new().read(true).write(true).open(&volume, "from").unwrap();
    let to = File::create_new(&volume, "to").unwrap();
    assert_eq!(from.copy_range(50_000, &to, 10, 80_000).unwrap(), 50_000);
    let copied = volume.read("to").unwrap();
    assert_eq!(copied.len(), 50_010);
    assert!(copied[..10] == [0; 10] && copied[10..] == vec![7; 50_000]);
    assert_eq!(from.copy_range(0, &from, 10, 100).unwrap_err().kind(), ErrorKind::InvalidInput);
    let appender = OpenOptions::new().write(true).append(true).open(&volume, "to").unwrap();
    assert_eq!(errno(&from.copy_range(0, &appender, 0, 1).unwrap_err()), EBADF);
    let elsewhere = self::volume();
    let other = File::create(&elsewhere, "f").unwrap();
    assert_eq!(from.copy_range(0, &other, 0, 1).unwrap_err().kind(), ErrorKind::CrossesDevices);
    assert_eq!(elsewhere.link_file(&from, "g").unwrap_err().kind(), ErrorKind::CrossesDevices);
}

#[test]
fn whole_files_are_copied_with_their_permissions_and_holes() {
    use std::os::unix::fs::PermissionsExt;

    let volume = volume();
    volume.write("from", "start").unwrap();
    let from = OpenOptions::new().write(true).open(&volume, "from").unwrap();
    from.set_len(20_000_000).unwrap();
    from.set_permissions(PermissionsExt::from_mode(0o640)).unwrap();
    volume.write("to", vec![1; 100_000]).unwrap();
    assert_eq!(volume.copy("from", "to").unwrap(), 20_000_000);
    let to = volume.metadata("to").unwrap();
    assert_eq!((to.len(), to.mode() & 0o777), (20_000_000, 0o640));
    assert!(to.blocks() <= 8);
    volume.hard_link("from", "same").unwrap();
    assert_eq!(volume.copy("from", "same").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(volume.metadata("from").unwrap().len(), 20_000_000, "it was not emptied");
}

#[test]
fn a_cursor_reads_writes_and_seeks() {
    let volume = volume();
    let mut cursor = File::create_new(&volume, "f").unwrap().into_cursor();
    cursor.write_all(b"hello world").unwrap();
    assert_eq!(cursor.seek(SeekFrom::End(-5)).unwrap(), 6);
    let mut text = String::new();
    cursor.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), cursor.position()), ("world", 11));
    cursor.set_position(0);
    let mut start = [0; 5];
    cursor.read_exact(&mut start).unwrap();
    assert_eq!(cursor.seek(SeekFrom::Current(-5)).unwrap(), 0);
    assert_eq!(cursor.seek(SeekFrom::Current(-1)).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(cursor.seek(SeekFrom::Start(u64::MAX)).unwrap(), u64::MAX);
    assert_eq!(cursor.read(&mut start).unwrap(), 0);
    assert_eq!(cursor.into_file().metadata().unwrap().len(), 11);

    let appender = OpenOptions::new().append(true).open(&volume, "f").unwrap();
    let mut cursor = FileCursor::new(Arc::new(appender));
    cursor.write_all(b"!").unwrap();
    assert_eq!(cursor.position(), 12);
}

#[test]
fn a_file_without_a_name_gets_one_or_goes() {
    let volume = volume();
    volume.create_dir("d").unwrap();
    let before = volume.space();
    let dir = volume.open_dir("d").unwrap();
    let file = dir.tmpfile().unwrap();
    file.write_all_at(&[1; 10_000], 0).unwrap();
    drop(file);
    assert_eq!(volume.space(), before);
    let file = dir.tmpfile().unwrap();
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    volume.link_file(&file, "named").unwrap();
    assert_eq!(volume.link_file(&file, "named").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(volume.read("named").unwrap(), b"x");
}

#[test]
fn an_open_file_outlives_its_name() {
    let volume = volume();
    volume.write("f", "x").unwrap();
    let file = File::open(&volume, "f").unwrap();
    volume.remove_file("f").unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
}

#[test]
fn attributes_through_an_open_file() {
    use std::os::unix::fs::PermissionsExt;

    let volume = volume();
    let file = File::create_new(&volume, "f").unwrap();
    file.set_owner(Some(5), None).unwrap();
    file.set_permissions(PermissionsExt::from_mode(0o4711)).unwrap();
    let time = std::time::UNIX_EPOCH - std::time::Duration::from_millis(1500);
    file.set_times(FileTimes::new().set_accessed(time).set_modified(time)).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.mode()), (5, 0o104_711));
    assert_eq!((metadata.accessed(), metadata.modified()), (time, time));
    file.set_xattr("user.a", "1").unwrap();
    file.set_xattr("user.b", "").unwrap();
    assert_eq!(file.xattr_names().unwrap(), ["user.a", "user.b"]);
    file.remove_xattr("user.a").unwrap();
    assert_eq!(file.xattr("user.a").unwrap(), None);
    assert_eq!(file.xattr("user.b").unwrap(), Some(Vec::new()));
    assert_eq!(errno(&file.remove_xattr("user.a").unwrap_err()), ENODATA);
    file.set_flags(Flags::IMMUTABLE).unwrap();
    file.set_len(5).unwrap();
    file.write_all_at(b"was open before", 0).unwrap();
    assert_eq!(file.set_owner(Some(6), None).unwrap_err().kind(), ErrorKind::PermissionDenied);
    let refused = OpenOptions::new().write(true).open(&volume, "f").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn whoever_is_not_root_takes_privileges_from_what_it_changes() {
    use lodefs::Credentials;
    use std::os::unix::fs::PermissionsExt;

    let mode_after = |uid, change: &dyn Fn(&File)| {
        let volume = volume();
        let dir = volume.with_credentials(Credentials { uid, gid: 0, umask: 0 });
        dir.write("f", "x").unwrap();
        dir.set_permissions("f", PermissionsExt::from_mode(0o6755)).unwrap();
        change(&OpenOptions::new().read(true).write(true).open(&dir, "f").unwrap());
        volume.metadata("f").unwrap().mode() & 0o7777
    };
    let changes: [&dyn Fn(&File); 3] =
        [&|file| file.write_all_at(b"y", 0).unwrap(), &|file| assert!(file.append(b"y").is_ok()), &|file| {
            file.set_len(0).unwrap();
        }];
    for change in changes {
        assert_eq!(mode_after(0, change), 0o6755);
        assert_eq!(mode_after(1000, change), 0o755);
    }
    assert_eq!(mode_after(0, &|file| file.set_owner(Some(7), None).unwrap()), 0o755, "another owner");
}

#[test]
fn who_is_not_in_the_group_takes_its_bit_from_what_it_may_not_execute() {
    use lodefs::Credentials;
    use std::os::unix::fs::PermissionsExt;

    let mode_after = |gid, change: &dyn Fn(&File)| {
        let volume = volume();
        let owner = volume.with_credentials(Credentials { uid: 1000, gid: 1000, umask: 0 });
        owner.write("f", "x").unwrap();
        owner.set_permissions("f", PermissionsExt::from_mode(0o6666)).unwrap();
        let other = volume.with_credentials(Credentials { uid: 1001, gid, umask: 0 });
        change(&OpenOptions::new().read(true).write(true).open(&other, "f").unwrap());
        volume.metadata("f").unwrap().mode() & 0o7777
    };
    let changes: [&dyn Fn(&File); 5] = [
        &|file| file.write_all_at(b"y", 0).unwrap(),
        &|file| assert!(file.append(b"y").is_ok()),
        &|file| file.set_len(0).unwrap(),
        &|file| file.allocate(0, 8192).unwrap(),
        &|file| assert_eq!(file.copy_range(0, file, 4096, 1).unwrap(), 1),
    ];
    for change in changes {
        assert_eq!(mode_after(1000, change), 0o2666, "a member");
        assert_eq!(mode_after(1001, change), 0o666, "a stranger");
    }
}

#[test]
fn threads_share_a_file_without_taking_turns() {
    let volume = volume();
    let file = File::create_new(&volume, "f").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let file = &file;
            scope.spawn(move || {
                for i in 0..200 {
                    file.write_all_at(&[thread + 1; 1000], (i * 4 + u64::from(thread)) * 1000).unwrap();
                }
            });
        }
    });
    let content = volume.read("f").unwrap();
    assert_eq!(content.len(), 800_000);
    for (i, part) in content.chunks(1000).enumerate() {
        assert!(part.iter().all(|byte| usize::from(*byte) == i % 4 + 1), "part {i}");
    }
}
