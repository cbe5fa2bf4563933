//! Every kind of medium, decided from made-up facts and from a made-up /sys.

use std::os::unix::fs::symlink;

use super::*;

fn decided(object: Object, persistence: Option<Persistence>) -> (MediumKind, Domain) {
    let (kind, domain, reason) = decide(Facts { object, persistence, can_write_back: true });
    assert!(!reason.is_empty() && !reason.ends_with('.'));
    (kind, domain)
}

fn file(on: Filesystem, is_synchronous: bool) -> Object {
    Object::File { on, is_synchronous }
}

#[test]
fn files_by_their_file_system() {
    for (on, expected) in [
        (Filesystem::Tmpfs, (MediumKind::Tmpfs, Domain::Volatile)),
        (Filesystem::Ramfs, (MediumKind::Tmpfs, Domain::Volatile)),
        (Filesystem::Hugetlbfs, (MediumKind::Hugetlbfs, Domain::Volatile)),
        (Filesystem::Fuse, (MediumKind::File, Domain::Page)),
        (Filesystem::Other, (MediumKind::File, Domain::Page)),
    ] {
        assert_eq!(decided(file(on, false), None), expected, "{on:?}");
    }
}

#[test]
fn synchronous_mapping_means_dax_except_where_it_means_nothing() {
    for (persistence, domain) in [
        (None, Domain::MemoryController),
        (Some(Persistence::Unstated), Domain::MemoryController),
        (Some(Persistence::MemoryController), Domain::MemoryController),
        (Some(Persistence::CpuCache), Domain::CpuCache),
    ] {
        assert_eq!(decided(file(Filesystem::Other, true), persistence), (MediumKind::FsDax, domain));
    }
    assert_eq!(decided(file(Filesystem::Fuse, true), None), (MediumKind::File, Domain::Page));
    assert_eq!(decided(file(Filesystem::Tmpfs, true), None), (MediumKind::Tmpfs, Domain::Volatile));
}

#[test]
fn a_file_that_could_be_mapped_directly_is_told_how() {
    for (persistence, expected) in [(None, false), (Some(Persistence::Unstated), true)] {
        let object = file(Filesystem::Other, false);
        let (kind, domain, reason) = decide(Facts { object, persistence, can_write_back: true });
        assert_eq!((kind, domain), (MediumKind::File, Domain::Page));
        assert_eq!(reason.contains("chattr +x"), expected, "{reason}");
    }
}

#[test]
fn dax_devices_by_their_region() {
    for (persistence, domain) in [
        (None, Domain::Volatile),
        (Some(Persistence::Unstated), Domain::MemoryController),
        (Some(Persistence::MemoryController), Domain::MemoryController),
        (Some(Persistence::CpuCache), Domain::CpuCache),
    ] {
        assert_eq!(decided(Object::DaxDevice, persistence), (MediumKind::DeviceDax, domain));
    }
}

#[test]
fn block_devices_have_a_page_cache_even_on_persistent_memory() {
    let persistence = Some(Persistence::CpuCache);
    assert_eq!(decided(Object::BlockDevice, persistence), (MediumKind::BlockDevice, Domain::Page));
    assert_eq!(decided(Object::Memfd, None), (MediumKind::Memfd, Domain::Volatile));
}

#[test]
fn a_processor_without_write_back_claims_no_domain_that_needs_it() {
    for persistence in [None, Some(Persistence::Unstated), Some(Persistence::MemoryController)] {
        for object in [Object::DaxDevice, file(Filesystem::Other, true)] {
            let (_, domain, _) = decide(Facts { object, persistence, can_write_back: false });
            assert!(!domain.is_durable_on_fence(), "{object:?} {persistence:?}");
        }
    }
}

/// A /sys with one region, one disk on it with a partition, and devices mapped onto others.
fn made_up_sys(said: &str) -> tempfile::TempDir {
    let sys = tempfile::tempdir().unwrap();
    let region = sys.path().join("devices/ndbus0/region0");
    let partition = region.join("namespace0.0/block/pmem0/pmem0p1");
    let stacked = sys.path().join("devices/virtual/block/dm-0");
    let plain = sys.path().join("devices/pci0/block/sda");
    for directory in
        [&partition, &stacked.join("slaves"), &plain.join("slaves"), &sys.path().join("dev/block")]
    {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(region.join("persistence_domain"), format!("{said}\n")).unwrap();
    symlink(&partition, stacked.join("slaves/pmem0p1")).unwrap();
    symlink(&stacked, stacked.join("slaves/itself")).unwrap();
    for (name, target) in [("259:1", &partition), ("253:0", &stacked), ("8:0", &plain)] {
        symlink(target, sys.path().join("dev/block").join(name)).unwrap();
    }
    sys
}

#[test]
fn the_region_is_found_from_a_partition_and_through_mapped_devices() {
    for (said, expected) in [
        ("cpu_cache", Persistence::CpuCache),
        ("memory_controller", Persistence::MemoryController),
        ("", Persistence::Unstated),
        ("something new", Persistence::Unstated),
    ] {
        let sys = made_up_sys(said);
        let found = |major, minor| persistence_under(sys.path(), "block", rustix::fs::makedev(major, minor));
        assert_eq!(found(259, 1), Some(expected));
        assert_eq!(found(253, 0), Some(expected));
        assert_eq!(found(8, 0), None);
        assert_eq!(found(9, 9), None);
    }
}

#[test]
fn a_device_over_several_regions_is_as_weak_as_the_weakest() {
    for (first, second) in [("cpu_cache", "memory_controller"), ("memory_controller", "cpu_cache")] {
        let sys = made_up_sys(first);
        let region = sys.path().join("devices/ndbus0/region1");
        let disk = region.join("block/pmem1");
        fs::create_dir_all(&disk).unwrap();
        fs::write(region.join("persistence_domain"), second).unwrap();
        symlink(&disk, sys.path().join("devices/virtual/block/dm-0/slaves/pmem1")).unwrap();
        let found = persistence_under(sys.path(), "block", rustix::fs::makedev(253, 0));
        assert_eq!(found, Some(Persistence::MemoryController));
    }
}

#[test]
fn a_temporary_file_is_probed_as_what_it_is() {
    let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    file.as_file().set_len(8192).unwrap();
    let probed = probe(file.path(), file.as_file(), Access::ReadWrite).unwrap();
    assert_eq!(probed.size, 8192);
    assert_eq!(probed.facts.object, Object::File { on: Filesystem::Tmpfs, is_synchronous: false });
}

#[test]
fn other_character_devices_and_directories_hold_no_volume() {
    for path in ["/dev/null", "/"] {
        let file = File::open(path).unwrap();
        let error = probe(Path::new(path), &file, Access::ReadOnly).err().unwrap();
        assert!(matches!(error, MediumError::NotAMedium { .. }), "{error}");
    }
}
