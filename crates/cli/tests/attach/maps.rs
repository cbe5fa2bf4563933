//! What is said of what programs have mapped?

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use lodefs_direct::MappingKind;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::common::{Mounted, Workbench, can_mount, fail, lodefs, succeed};
use crate::program::Program;
use crate::stage::{PAGE, Stage, open};

pub(crate) const HUGE: u64 = 2 << 20;

/// A range, as `lodefs maps` says.
pub(crate) struct Told {
    pub(crate) addresses: Range<u64>,
    pub(crate) offset: u64,
    pub(crate) kind: String,
    pub(crate) base: u64,
    pub(crate) huge: u64,
    pub(crate) all: Value,
}

fn told(subject: &str) -> Vec<Value> {
    let text = succeed(&mut lodefs(["maps", "--json", subject]));
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["processes"].as_array().unwrap().clone()
}

/// What a process has mapped.
fn ranges(process: &Value) -> Vec<Told> {
    let hexadecimal =
        |value: &Value| u64::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap();
    let range = |range: &Value| Told {
        addresses: hexadecimal(&range["start"])..hexadecimal(&range["end"]),
        offset: range["offset"].as_u64().unwrap(),
        kind: range["kind"].as_str().unwrap().into(),
        base: range["bytes_by_page_size"]["4096"].as_u64().unwrap_or(0),
        huge: range["bytes_by_page_size"]["2097152"].as_u64().unwrap_or(0),
        all: range.clone(),
    };
    process["mappings"].as_array().unwrap().iter().map(range).collect()
}

pub(crate) fn of_program(program: &Program) -> Vec<Told> {
    ranges(&told(&program.pid().as_raw_nonzero().to_string())[0])
}

/// What the kernel says, by addresses: bytes in memory, and bytes of those in huge pages.
pub(crate) fn smaps(pid: Pid) -> BTreeMap<u64, (u64, u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{}/smaps", pid.as_raw_nonzero())).unwrap();
    let mut all = BTreeMap::new();
    let mut start = 0;
    for line in text.lines() {
        let addresses = line.split(' ').next().unwrap().split_once('-');
        if let Some((first, end)) = addresses {
            start = u64::from_str_radix(first, 16).unwrap();
            all.insert(start, (u64::from_str_radix(end, 16).unwrap(), 0, 0));
            continue;
        }
        let (name, value) = line.split_once(':').unwrap();
        let bytes = || value.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024;
        let entry = all.get_mut(&start).unwrap();
        match name {
            "Rss" => entry.1 += bytes(),
            "ShmemPmdMapped" | "FilePmdMapped" | "AnonHugePages" => entry.2 += bytes(),
            _ => {}
        }
    }
    all
}

/// A mount of a volume that lies where huge pages are.
struct Huge {
    mounted: Option<Mounted>,
    bench: Workbench,
}

impl Huge {
    fn set_up() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let bench = Workbench::new();
        let place = bench.path("huge");
        fs::create_dir(&place).unwrap();
        mount("none", &place, "tmpfs", MountFlags::empty(), c"size=128M,huge=always").unwrap();
        let mut command = lodefs(["mount", "--create", "64M", "-o", "dax=always"]);
        command.arg(place.join("lode.vol")).arg(bench.directory());
        succeed(command.env("LODEFS_FORCE_DOMAIN", "memory-controller"));
        Some(Self { mounted: Some(Mounted { directory: bench.directory() }), bench })
    }
}

impl Drop for Huge {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount();
        }
        unmount(self.bench.path("huge"), UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn what_is_mapped_agrees_with_the_kernel() {
    let Some(huge) = Huge::set_up() else { return };
    let path = huge.bench.directory().join("f");
    let file = open(&path);
    let size = 8 * HUGE;
    file.set_len(size).unwrap();
    // Huge pages, small ones here and there, and a hole.
    fallocate(&file, FallocateFlags::empty(), 0, 2 * HUGE).unwrap();
    for page in [0, 1, 7, 8, 20] {
        file.write_all_at(b"small", 2 * HUGE + page * PAGE).unwrap();
    }
    drop(file);
    let mut program = Program::start(&path, size as usize, MappingKind::Direct);
    assert!(of_program(&program).iter().all(|range| range.kind == "untouched"));
    for offset in [0, 1, 20 * PAGE] {
        program.read(offset);
        program.read(HUGE + offset);
        program.read(2 * HUGE + offset);
    }
    program.write(2 * HUGE + 8 * PAGE, 3);
    program.read(5 * HUGE);
    program.write(6 * HUGE, 1);

    let ranges = of_program(&program);
    let kind = |offset: u64| {
        let range = ranges.iter().rfind(|range| range.offset <= offset).unwrap();
        range.kind.as_str()
    };
    for (offset, expected) in [
        (0, "direct"),
        (HUGE, "direct"),
        (2 * HUGE, "direct"),
        (2 * HUGE + 8 * PAGE, "direct"),
        (5 * HUGE, "hole"),
        (6 * HUGE, "direct"),
        (size - PAGE, "untouched"),
    ] {
        assert_eq!(kind(offset), expected, "{offset:#x}");
    }
    // Everything is told, once.
    assert_eq!(ranges.iter().map(|range| range.addresses.end - range.addresses.start).sum::<u64>(), size);
    let steps = ranges.windows(2);
    assert!(steps.into_iter().all(|two| two[0].addresses.end == two[1].addresses.start));
    // As many pages of each size as the kernel says, in each of its mappings.
    let (first, last) = (ranges[0].addresses.start, ranges[ranges.len() - 1].addresses.end);
    let mut kernels = 0;
    for (start, (end, resident, in_huge)) in smaps(program.pid()) {
        if start < first || end > last {
            continue;
        }
        let inside =
            ranges.iter().filter(|range| range.addresses.start >= start && range.addresses.end <= end);
        let (base, huge) = inside.fold((0, 0), |(base, huge), range| (base + range.base, huge + range.huge));
        assert_eq!((base + huge, huge), (resident, in_huge), "{start:x}-{end:x}");
        kernels += 1;
    }
    assert!(kernels > 3);
    assert_eq!(ranges[0].huge, 2 * HUGE);
    assert!(ranges.iter().any(|range| range.kind == "direct" && range.base > 0 && range.huge == 0));
    assert!(ranges.iter().all(|range| range.all["durable_by"] == "flush" && range.all["sync"] == false));
}

#[test]
fn a_file_is_told_of_with_all_who_have_it_mapped() {
    let Some(stage) = Stage::set_up("dax=inode") else { return };
    let (path, file) = stage.hole(8);
    succeed(lodefs(["dax", "on"]).arg(&path).arg(&stage.mounted.directory));
    drop(file);
    let other = stage.mounted.path("other");
    open(&other).set_len(PAGE).unwrap();
    let mut mapping = Program::start(&path, 4 * PAGE as usize, MappingKind::Direct);
    let elsewhere = Program::start(&other, PAGE as usize, MappingKind::Direct);
    mapping.write(0, 1);
    // A copy, which is the kernel's.
    let file = open(&path);
    let (anywhere, flags) = (std::ptr::null_mut(), MapFlags::PRIVATE);
    // SAFETY: the kernel chooses the address, so nothing that is there is replaced.
    let own = unsafe { mmap(anywhere, 4096, ProtFlags::READ, flags, &file, 0).unwrap() };
    let renamed = stage.mounted.path("of another name");
    fs::rename(&path, &renamed).unwrap();

    let processes = told(renamed.to_str().unwrap());
    let pids: Vec<u64> = processes.iter().map(|process| process["pid"].as_u64().unwrap()).collect();
    let number = |pid: Pid| u64::from(pid.as_raw_nonzero().get().cast_unsigned());
    let mut expected = [number(mapping.pid()), u64::from(std::process::id())];
    expected.sort_unstable();
    assert_eq!(pids, expected);
    for process in &processes {
        for range in ranges(process) {
            assert_eq!(Path::new(range.all["file"]["path"].as_str().unwrap()), renamed);
            let is_own = process["pid"] == std::process::id();
            assert_eq!(range.kind == "private", is_own);
        }
    }
    let text = succeed(lodefs(["maps"]).arg(&renamed));
    assert!(text.lines().count() >= 4 && text.contains("direct") && text.contains("1 of 4 KiB"), "{text}");
    // SAFETY: nobody uses it.
    unsafe { munmap(own, 4096).unwrap() };
    drop((mapping, elsewhere));
    assert!(told(renamed.to_str().unwrap()).is_empty());
    fs::remove_file(other).unwrap();
    drop(file);
    stage.tear_down();
}

#[test]
fn a_mapping_by_way_of_the_kernel_is_buffered() {
    let Some(stage) = Stage::set_up("dax=never") else { return };
    let (path, file) = stage.hole(4);
    drop(file);
    let mut program = Program::start(&path, 4 * PAGE as usize, MappingKind::Buffered);
    program.write(PAGE, 1);
    let ranges = of_program(&program);
    assert_eq!(ranges.len(), 1);
    let range = &ranges[0];
    assert_eq!((range.kind.as_str(), range.base), ("buffered", PAGE));
    assert_eq!(range.all["durable_by"], "msync");
    drop(program);
    stage.tear_down();
}

#[test]
fn a_child_tells_of_its_own() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(4);
    drop(file);
    let mut program = Program::start(&path, 4 * PAGE as usize, MappingKind::Direct);
    program.write(0, 1);
    let child: i32 = program.tell("child").parse().unwrap();
    let kinds = |ranges: Vec<Told>| ranges.into_iter().map(|range| range.kind).collect::<Vec<_>>();
    assert_eq!(kinds(ranges(&told(&child.to_string())[0])), ["untouched"]);
    assert_eq!(kinds(of_program(&program)), ["direct", "untouched"]);
    drop(program);
    stage.tear_down();
}

#[test]
fn who_is_stopped_does_not_tell_and_that_is_said() {
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(4);
    drop(file);
    let program = Program::start(&path, 4 * PAGE as usize, MappingKind::Direct);
    program.stop();
    let pid = program.pid().as_raw_nonzero().to_string();
    let message = fail(1, &mut lodefs(["maps", &pid]));
    assert!(message.contains(&format!("process {pid}: ")), "{message}");
    program.signal(Signal::CONT);
    assert_eq!(of_program(&program).len(), 1);
    drop(program);
    stage.tear_down();
}

#[test]
fn what_changes_all_the_time_is_told_as_it_was_at_one_moment() {
    const PAGES: u64 = 32;
    let Some(stage) = Stage::set_up("rw") else { return };
    let (path, file) = stage.hole(PAGES);
    drop(file);
    let mut program = Program::start(&path, PAGES as usize * PAGE as usize, MappingKind::Direct);
    assert_eq!(program.tell(&format!("churn {}", PAGES * PAGE)), "done");
    let mut coming_and_going = 0;
    for _ in 0..500 {
        let ranges = of_program(&program);
        let size: u64 = ranges.iter().map(|range| range.addresses.end - range.addresses.start).sum();
        // The one that stays, and perhaps the other, each as a whole.
        assert!(size == PAGES * PAGE || size == 2 * PAGES * PAGE, "{size}");
        coming_and_going += usize::from(size > PAGES * PAGE);
        // Looked at after it was touched, it would have pages.
        assert!(ranges.iter().all(|range| range.kind != "untouched" || range.base + range.huge == 0));
        for mapping in
            ranges.chunk_by(|one, next| one.offset + (one.addresses.end - one.addresses.start) == next.offset)
        {
            assert_eq!(mapping[0].offset, 0);
            assert!(mapping.windows(2).all(|two| two[0].addresses.end == two[1].addresses.start));
        }
    }
    assert!(coming_and_going > 0);
    drop(program);
    stage.tear_down();
}

#[test]
fn what_makes_no_sense_is_said_to() {
    let Some(stage) = Stage::set_up("rw") else { return };
    for (subject, part) in [
        ("999999999".as_ref(), "there is none"),
        ("99999999999999".as_ref(), "not a process's number"),
        ("/nowhere".as_ref(), "No such file"),
        ("/etc/passwd".as_ref(), "not on a mounted lodefs volume"),
        (stage.mounted.directory.as_path(), "not a regular file"),
    ] {
        let message = fail(1, lodefs(["maps"]).arg(subject));
        assert!(message.contains(part), "{message}");
    }
    assert!(succeed(&mut lodefs(["maps", &std::process::id().to_string()])).is_empty());
    stage.tear_down();
}
