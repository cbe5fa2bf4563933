//! A program in C that reaches the files of a mount directly: the example of `lodefs-direct-c`.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Mounted, Workbench, can_mount, succeed};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crates").join("direct-c")
}

/// Installs the library as its script does, and says where the shared one is. (It is nobody's dependency, so that cargo has not
/// built it.)
fn install(prefix: &Path) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_lodefs"));
    let target = program.ancestors().nth(2).expect("the target directory");
    let mut script = Command::new(sources().join("install.sh"));
    succeed(script.arg(prefix).arg("dev").env("CARGO_TARGET_DIR", target));
    prefix.join("lib")
}

/// What `pkg-config` says to a compiler.
fn flags(libraries: &Path, question: &[&str]) -> Vec<String> {
    let mut pkg_config = Command::new("pkg-config");
    pkg_config.env("PKG_CONFIG_PATH", libraries.join("pkgconfig"));
    let answer = succeed(pkg_config.args(question).arg("lodefs_direct"));
    answer.split_whitespace().map(str::to_owned).collect()
}

/// Compiles the example, with so many warnings that the header must be good C.
fn compile(program: &Path, standard: &str, flags: &[String]) {
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"]).arg(standard);
    succeed(cc.arg(sources().join("examples/notes.c")).args(flags).arg("-o").arg(program));
}

/// Runs it.
fn notes(program: &Path, libraries: &Path, file: &Path, text: &str) -> String {
    succeed(Command::new(program).env("LD_LIBRARY_PATH", libraries).arg(file).arg(text))
}

#[test]
fn the_example_in_c_keeps_notes_in_a_mount() {
    let bench = Workbench::new();
    let libraries = install(&bench.path("installed"));
    let program = bench.path("notes");
    compile(&program, "-std=c11", &flags(&libraries, &["--cflags", "--libs"]));
    let ordinary = bench.path("ordinary");
    assert_eq!(
        notes(&program, &libraries, &ordinary, "one"),
        "buffered, not on a lodefs volume\nbefore: \nafter: one\n"
    );
    assert_eq!(
        notes(&program, &libraries, &ordinary, "two"),
        "buffered, not on a lodefs volume\nbefore: one\nafter: two\n"
    );
    if !can_mount() {
        return;
    }
    let mut mount = bench.mount_command(&["-o", "dax=always"]);
    succeed(mount.env("LODEFS_FORCE_DOMAIN", "memory-controller"));
    let mounted = Mounted { directory: bench.directory() };
    let file = mounted.path("f");
    // Direct, by the mount option; the file has no flag.
    assert_eq!(notes(&program, &libraries, &file, "one"), "direct, flag 0, reason 1\nbefore: \nafter: one\n");
    assert_eq!(
        notes(&program, &libraries, &file, "two"),
        "direct, flag 0, reason 1\nbefore: one\nafter: two\n"
    );
    assert_eq!(fs::read(&file).expect("the file")[..4], *b"two\0");
    mounted.unmount();
}

#[test]
fn it_can_be_linked_statically() {
    let bench = Workbench::new();
    let libraries = install(&bench.path("installed"));
    let program = bench.path("notes");
    let mut with = flags(&libraries, &["--cflags", "--libs", "--static"]);
    let dynamic = with.iter().position(|flag| flag == "-llodefs_direct").expect("the library");
    with[dynamic] = libraries.join("liblodefs_direct.a").to_str().expect("text").to_owned();
    compile(&program, "-std=c99", &with);
    let none = Path::new("/nonexistent");
    assert!(notes(&program, none, &bench.path("f"), "one").starts_with("buffered"));
}

/// `program` under valgrind, whose auxiliary vector is not the kernel's. Its errors are not asked for: the C library of the
/// host may have some of its own.
fn under_valgrind(program: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--trace-children=yes"]).arg(program);
    valgrind
}

fn has_valgrind() -> bool {
    let found = Command::new("valgrind").arg("--version").output();
    if found.is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI needs valgrind to test programs under valgrind");
        println!("valgrind is missing: not tested");
    }
    found.is_ok()
}

#[test]
fn a_program_in_c_runs_under_valgrind() {
    if !has_valgrind() {
        return;
    }
    let bench = Workbench::new();
    let libraries = install(&bench.path("installed"));
    let program = bench.path("notes");
    compile(&program, "-std=c11", &flags(&libraries, &["--cflags", "--libs"]));
    let keep = |file: &Path, text: &str| {
        succeed(under_valgrind(&program).env("LD_LIBRARY_PATH", &libraries).arg(file).arg(text))
    };
    assert!(keep(&bench.path("ordinary"), "one").ends_with("after: one\n"));
    if !can_mount() {
        return;
    }
    let mut mount = bench.mount_command(&["-o", "dax=always"]);
    succeed(mount.env("LODEFS_FORCE_DOMAIN", "memory-controller"));
    let mounted = Mounted { directory: bench.directory() };
    // valgrind may not know the system calls of a mapping in a mount (userfaultfd): then there is none, which is said.
    let file = mounted.path("f");
    let mut notes = under_valgrind(&program);
    let output = notes.env("LD_LIBRARY_PATH", &libraries).arg(&file).arg("two").output().expect("it starts");
    assert!(output.status.code().is_some_and(|code| code <= 1), "{output:?}");
    fs::write(&file, "two\0").expect("the file");
    let mut run = Command::new(env!("CARGO_BIN_EXE_lodefs"));
    run.args(["run", "--", "valgrind", "--quiet", "--trace-children=yes", "cat"]);
    assert_eq!(succeed(run.arg(&file)), "two\0");
    mounted.unmount();
}
