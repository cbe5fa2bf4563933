//! What if a file is switched between direct and buffered while programs have it mapped?

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use lodefs_direct::MappingKind;
use lodefs_direct::dax::{self, How};

use crate::coherence;
use crate::common::lodefs;
use crate::program::Program;
use crate::stage::{Stage, byte, map, open};
use std::path::Path;

fn switch(path: &Path, on: bool) -> bool {
    let action = if on { "on" } else { "off" };
    let output = lodefs(["dax", action, "--revoke"]).arg(path).output().unwrap();
    // Why not, if it should have been.
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

#[test]
fn a_mapped_file_is_switched_on_demand_and_back() {
    let Some(stage) = Stage::set_up("dax=inode") else { return };
    let (path, file) = stage.hole(8);
    drop(file);
    assert!(switch(&path, true));
    let mut program = Program::start(&path, 8 * 4096, MappingKind::Direct);
    program.write(0, 1);
    for round in 0..4 {
        assert!(switch(&path, false));
        assert_eq!(program.tell("kind"), "Direct", "until it touches it");
        program.write(4096, 2 + round);
        assert_eq!((program.tell("kind").as_str(), program.read(0)), ("Buffered", 1 + round));
        assert!(switch(&path, true));
        assert_eq!((program.read(4096), program.tell("kind").as_str()), (2 + round, "Direct"));
        program.write(0, 2 + round);
    }
    // An open file of the program is not known to be one that it can do without.
    let open = open(&path);
    assert!(!switch(&path, false), "somebody else has it open");
    program.write(0, 9);
    assert_eq!(byte(&open, 0), 9);
    drop((open, program));
    stage.tear_down();
}

#[test]
fn no_store_is_lost_while_a_file_is_switched() {
    let Some(stage) = Stage::set_up("dax=inode") else { return };
    let (path, file) = stage.hole(16);
    drop(file);
    assert!(switch(&path, true));
    let mut program = Program::start(&path, 16 * 4096, MappingKind::Direct);
    let rounds = 3_000_000_u32;
    program.begin(&format!("count 16 {rounds}"));
    let mut switches = 0;
    // The program stores all the time, so its threads are in faults when the file is taken from them.
    for round in 0..60 {
        switches += u32::from(switch(&path, round % 2 == 1));
    }
    assert_eq!(program.answer(), "done");
    assert_eq!(switches, 60, "switches that were made");
    let content = fs::read(&path).unwrap();
    let expected = (rounds % 256) as u8;
    assert_eq!(content.iter().step_by(4096).copied().collect::<Vec<_>>(), [expected; 16]);
    drop(program);
    stage.tear_down();
}

#[test]
fn what_the_kernel_had_cached_before_is_not_shown_after() {
    let Some(stage) = Stage::set_up("dax=inode") else { return };
    let (path, asker) = stage.hole(8);
    let mut program = Program::start(&path, 8 * 4096, MappingKind::Buffered);
    program.write(0, 1);
    for round in 2..6 {
        assert_eq!(fs::read(&path).unwrap()[0], round - 1, "it is in the cache now");
        // One descriptor for both, so that nobody opens the file while it is direct.
        dax::set(&asker, true, How::Revoke).unwrap();
        program.write(0, round);
        dax::set(&asker, false, How::Revoke).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap()[0], 5);
    drop((asker, program));
    stage.tear_down();
}

#[test]
fn mappings_come_and_go_while_a_file_is_switched() {
    let Some(stage) = Stage::set_up("dax=inode") else { return };
    let (path, asker) = stage.hole(8);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let switching = scope.spawn(|| {
            let mut on = true;
            let mut made = 0;
            while !is_over.load(Ordering::Relaxed) {
                if dax::set(&asker, on, How::Revoke).is_ok() {
                    on = !on;
                    made += 1;
                }
            }
            made
        });
        for round in 0..400_usize {
            let file = open(&path);
            let mapping = map(&file, 8 * 4096).unwrap();
            drop(file);
            let at = round % 8 * 4096;
            mapping.write(at, &[round as u8]).unwrap();
            let mut byte = [0];
            mapping.read(at, &mut byte).unwrap();
            assert_eq!(byte[0], round as u8);
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(switching.join().unwrap() > 0);
    });
    drop(asker);
    stage.tear_down();
}

/// With `LODEFS_TEST_OPERATIONS=10000000`, as long as one likes.
#[test]
fn all_processes_see_one_file_whatever_it_is() {
    let operations = std::env::var(coherence::OPERATIONS).map_or(12_000, |number| number.parse().unwrap());
    let Some(stage) = Stage::set_up("dax=inode") else { return };
    let [made, refused] =
        coherence::let_loose(&stage.mounted.path("f"), &stage.bench.path("model"), operations);
    println!("{operations} operations; {made} switches, {refused} refused");
    assert!(made > 0);
    stage.tear_down();
}
