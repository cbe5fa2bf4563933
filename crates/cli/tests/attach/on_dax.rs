//! What there is only where the kernel maps files directly? Run by `tests/kernel-dax/run.sh`.

use lodefs_direct::MappingKind;
use rustix::fs::{FallocateFlags, fallocate};

use crate::common::{can_mount, info, is_on_dax};
use crate::maps::{HUGE, of_program};
use crate::program::Program;
use crate::stage::{PAGE, Stage};

/// A mount on such a file system.
fn set_up() -> Stage {
    assert!(is_on_dax() && can_mount(), "this is to be run by tests/kernel-dax/run.sh");
    Stage::set_up("rw").unwrap()
}

#[test]
#[ignore = "needs a file system that maps files directly: tests/kernel-dax/run.sh"]
fn the_domain_is_found_out() {
    let stage = set_up();
    let medium = &info(&stage.mounted.directory)["medium"];
    println!("\non {medium}");
    assert_eq!(medium["kind"], "fs-dax");
    assert_eq!(medium["domain"], std::env::var("LODEFS_TEST_ON_DAX").unwrap());
    assert_eq!(medium["forced"], false);
    stage.tear_down();
}

#[test]
#[ignore = "needs a file system that maps files directly: tests/kernel-dax/run.sh"]
fn pages_are_huge() {
    let stage = set_up();
    let (path, file) = stage.hole(0);
    fallocate(&file, FallocateFlags::empty(), 0, 8 * HUGE).unwrap();
    drop(file);
    let mut program = Program::start(&path, (8 * HUGE) as usize, MappingKind::Direct);
    for offset in (0..8 * HUGE).step_by(PAGE as usize) {
        program.write(offset, 1);
    }
    let huge: u64 = of_program(&program).iter().map(|range| range.huge).sum();
    println!("\non pages: {huge} bytes of {} in huge ones", 8 * HUGE);
    assert_eq!(huge, 8 * HUGE);
    drop(program);
    stage.tear_down();
}
