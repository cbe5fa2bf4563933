//! Builds the library that `lodefs run` preloads, which is a part of the program: so it is there wherever the program is installed.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// What it is made of.
const SOURCES: [&str; 9] =
    ["preload", "direct", "mapping", "mmap", "pmem", "proto", "sync", "../Cargo.lock", "../Cargo.toml"];

fn main() {
    let crates = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("..");
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", crates.join(source).display());
    }
    let target = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("preload");
    let (profile, directory) = match env::var("PROFILE").as_deref() {
        Ok("release") => ("release", "release"),
        _ => ("dev", "debug"),
    };
    // For the machine that the program is for, whatever cargo would take.
    let machine = env::var("TARGET").expect("set by cargo");
    let mut cargo = Command::new(env::var_os("CARGO").expect("set by cargo"));
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "lodefs-preload",
        "--profile",
        profile,
        "--target",
        &machine,
    ]);
    cargo.args(["--config", &format!("profile.{profile}.strip='debuginfo'"), "--target-dir"]).arg(&target);
    // A lint looks at it by itself.
    let status =
        cargo.current_dir(&crates).env_remove("RUSTC_WORKSPACE_WRAPPER").status().expect("cargo runs");
    assert!(status.success(), "the library for `lodefs run` cannot be built");
    let built = target.join(machine).join(directory).join("liblodefs_preload.so");
    println!("cargo:rustc-env=LODEFS_PRELOAD={}", built.display());
}
