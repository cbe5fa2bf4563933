//! The model against the file system that temporary files are on. Much longer runs are what `modelcheck` is for.

use lodefs_testkit::check::Strictness;
use lodefs_testkit::{Generator, HostTarget, Profile, check};

#[test]
fn the_model_agrees_with_the_file_system_of_this_machine() {
    // Owners, devices and trusted attributes are for root alone.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let profile = Profile::of_directory(&std::env::temp_dir()).unwrap();
    // Others (an overlay, for one) may rightly do other things.
    if ![Profile::XFS, Profile::EXT4, Profile::TMPFS].contains(&profile) {
        return;
    }
    let strictness = Strictness { times: profile.times, leniency: profile.leniency, ..Strictness::default() };
    for seed in 0..50 {
        let directory = tempfile::tempdir().unwrap();
        let mut target = HostTarget::new(directory.path()).unwrap();
        let operations: Vec<_> = Generator::new(seed, profile).take(100).collect();
        let result = check(&mut target, &operations, strictness);
        target.clear().unwrap();
        assert_eq!(result, Ok(()), "seed {seed}");
    }
}
