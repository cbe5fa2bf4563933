//! Content that somebody keeps outside of the engine is dropped before a program may change it.

use std::sync::Arc;

use lodefs_core::{DataAnswer, Lease, LeaseOptions, Lessee, Touched};

use super::data::{answer, data_lease, take};
use super::{BLOCK, Program, Volume, WRITABLE, lease, touch, touch_of};

fn touched(lease: &Lease, write: bool) -> Touched {
    let mut touched = None;
    lease.touch(&touch_of(1, write), |answer| touched = Some(answer)).unwrap();
    touched.unwrap()
}

#[test]
fn what_may_be_stored_to_is_taken_back_and_not_granted_before_the_cache_is_dropped() {
    let volume = Volume::new();
    let file = volume.hole("f", 8);
    volume.fs.write(&file, 0, &vec![1; 8 * BLOCK as usize], false).unwrap();
    let program = Arc::new(Program::default());
    let stores = lease(&file, &program);
    let reads = volume
        .fs
        .lease(&file, Arc::clone(&program) as Arc<dyn Lessee>, LeaseOptions { writable: false, ..WRITABLE })
        .unwrap();
    touch(&stores, 1, true);
    touch(&reads, 1, false);
    let mut page = [0; BLOCK as usize];
    volume.fs.read_to_cache(&file, BLOCK, &mut page).unwrap();
    assert_eq!(page, [1; BLOCK as usize]);
    assert_eq!(program.recalls(), [(1, 1, 2)], "of what cannot be stored to, nothing");
    touch(&reads, 1, false);
    for write in [false, true] {
        assert_eq!(touched(&stores, write), Touched::Cached);
    }
    // What is read while it is dropped may be kept.
    volume.fs.drop_cached(&file, || drop(volume.fs.read_to_cache(&file, 0, &mut [0; 8]))).unwrap();
    assert_eq!(touched(&stores, true), Touched::Cached);
    volume.fs.drop_cached(&file, || {}).unwrap();
    assert!(matches!(touched(&stores, true), Touched::Granted(_)));
}

#[test]
fn the_same_goes_for_what_programs_write_by_themselves() {
    let volume = Volume::new();
    let file = volume.hole("f", 8);
    volume.fs.write(&file, 0, &[1; BLOCK as usize], false).unwrap();
    let program = Arc::new(Program::default());
    let data = data_lease(&file, &program);
    take(&data, true);
    volume.fs.read_to_cache(&file, 0, &mut [0; 8]).unwrap();
    assert_eq!(program.recalls().len(), 1);
    assert_eq!(answer(&data, 0, true).unwrap(), DataAnswer::Cached);
    assert!(matches!(answer(&data, 0, false).unwrap(), DataAnswer::Granted(_)));
    volume.fs.drop_cached(&file, || {}).unwrap();
    take(&data, true);
}
