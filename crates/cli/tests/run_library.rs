//! Where `lodefs run` puts its library: where no other user can put one, and every program can start with it.
//!
//! Each test has a `/run` of its own, in a mount namespace, with a home directory for user 65534 in it. No script removes
//! a directory.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Workbench, can_mount};

/// What scripts begin with. `user COMMAND...` runs a command as user 65534, `stranger` as another. `library` prints where
/// the library of a program is.
const PRELUDE: &str = r#"
    mount -t tmpfs -o mode=755 none /run
    mkdir -p -m 755 /run/home /run/user
    mkdir -m 700 /run/home/user
    chown 65534:65534 /run/home/user
    cp "$1" /run/program
    export LODEFS=/run/program HOME=/run/home/user
    unset XDG_RUNTIME_DIR XDG_CACHE_HOME LD_PRELOAD
    user() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
    stranger() { setpriv --reuid=1234 --regid=1234 --clear-groups "$@"; }
    library='case $LD_PRELOAD in *preload-*) echo "${LD_PRELOAD%/*}";; esac'
"#;

/// What a script prints, which must succeed and print no errors.
fn script(text: &str) -> Option<String> {
    if !can_mount() {
        return None;
    }
    let bench = Workbench::new();
    let output = Command::new("unshare")
        .args(["-m", "sh", "-euc", &format!("{PRELUDE}{text}"), "sh", env!("CARGO_BIN_EXE_lodefs")])
        .arg(bench.path(""))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}{output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_squatter_stops_no_run() {
    let Some(said) = script(
        r#"
        for place in "$2/lodefs-65534" /run/user/65534; do
            mkdir "$place"
            chown 1234:1234 "$place"
        done
        export TMPDIR="$2" XDG_RUNTIME_DIR=/run/user/65534
        chmod 1777 "$2"
        user $LODEFS run sh -c "$library"
        "#,
    ) else {
        return;
    };
    assert_eq!(said, "/run/home/user/.cache/lodefs\n");
}

/// A cleaner may remove the library and any directory on the way to it. Another user can put something there only by
/// making a name in the directory above, so it is enough that no other user can make names in any of them.
#[test]
fn whatever_a_cleaner_removes_no_other_user_can_replace() {
    let Some(said) = script(
        r#"
        for runtime in '' /run/user/65534; do
            [ -z "$runtime" ] || install -d -m 700 -o 65534 -g 65534 "$runtime"
            place=$(XDG_RUNTIME_DIR=$runtime user $LODEFS run sh -c "$library")
            echo "$place"
            directory=$place
            while [ -n "$directory" ]; do
                ! stranger test -w "$directory" || echo "others can write to $directory"
                directory=${directory%/*}
            done
            ! stranger test -w / || echo "others can write to /"
        done
        # Below a directory that all may write to, none is used.
        mkdir -m 1777 /run/open
        HOME=/run/open/user XDG_RUNTIME_DIR=/run/open/user stranger $LODEFS run true 2>&1 || echo $?
        "#,
    ) else {
        return;
    };
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["/run/home/user/.cache/lodefs", "/run/user/65534/lodefs"], "{said}");
    assert!(
        lines[2].contains("other users may write to it") && lines[2].contains("XDG_CACHE_HOME"),
        "{said}"
    );
    assert_eq!(lines[3..], ["125"]);
}

#[test]
fn programs_of_other_users_that_root_starts_have_the_library() {
    let Some(said) = script(
        r#"
        umask 077
        $LODEFS run setpriv --reuid=65534 --regid=65534 --clear-groups grep -c -m1 preload- /proc/self/maps
        # And users who have no place of their own use root's.
        HOME=/nowhere user $LODEFS run sh -c "$library"
        "#,
    ) else {
        return;
    };
    assert_eq!(said, "1\n/run/lodefs\n");
}

#[test]
fn places_that_the_dynamic_linker_would_misread_are_passed_over() {
    let Some(said) = script(
        r#"
        for name in 'a b' 'a:b' 'a$LIB'; do
            install -d -m 700 -o 65534 -g 65534 "/run/$name"
            XDG_RUNTIME_DIR=/run/$name user $LODEFS run sh -c "$library"
            HOME=/run/$name user $LODEFS run true 2>/dev/null || echo $?
            user ln -sfn "/run/$name" /run/home/user/link
            HOME=/run/home/user/link user $LODEFS run true 2>/dev/null || echo $?
        done
        "#,
    ) else {
        return;
    };
    assert_eq!(said, "/run/home/user/.cache/lodefs\n125\n125\n".repeat(3));
}

#[test]
fn a_library_that_is_not_what_it_should_be_is_replaced() {
    let Some(said) = script(
        r#"
        $LODEFS run true
        cd /run/lodefs
        sums() { sha256sum preload-*; stat -c %A preload-*; }
        before=$(sums)
        [ $(echo "$before" | wc -l) = 14 ]
        for file in preload-*; do
            mv "$file" ../moved
            $LODEFS run true
            [ "$(sums)" = "$before" ] || echo "$file is gone"
            printf 'something else' >file
            mv file "$file"
            $LODEFS run true
            [ "$(sums)" = "$before" ] || echo "$file was left"
            ln -sf /run/program "$file"
            $LODEFS run true
            [ "$(sums)" = "$before" ] || echo "$file was left as a link"
            chmod a+w "$file"
            $LODEFS run true
            [ "$(sums)" = "$before" ] || echo "$file can be written"
        done
        ls -A | grep -v ^preload- || true
        "#,
    ) else {
        return;
    };
    assert_eq!(said, "");
}

/// Builds a program with this compiler, if it is there. Without it this test is of no use; in CI that is a failure.
fn built(bench: &Workbench, name: &str, compiler: &[&str]) -> Option<PathBuf> {
    let (source, program) = (bench.path("hello.c"), bench.path(name));
    std::fs::write(&source, "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }\n").unwrap();
    let mut command = Command::new(compiler[0]);
    command.args(&compiler[1..]).arg("-o").arg(&program).arg(&source);
    let is_built = command.output().is_ok_and(|output| output.status.success());
    if !is_built {
        assert!(std::env::var_os("CI").is_none(), "CI needs {compiler:?}");
        eprintln!("NOTICE: not tested, because this needs {compiler:?}");
    }
    is_built.then_some(program)
}

fn says_hello(command: &mut Command) {
    let output = command.output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {output:?}");
    assert_eq!((&*said, &*errors), ("hello\n", ""), "{command:?}");
}

/// A program starts under `lodefs run` without errors, also as a child of a shell.
fn starts(compiler: &[&str]) {
    let bench = Workbench::new();
    let Some(program) = built(&bench, "program", compiler) else { return };
    let run = |command: &[&Path]| {
        let mut run = common::lodefs(["run", "--"]);
        run.args(command);
        run
    };
    says_hello(&mut Command::new(&program));
    says_hello(&mut run(&[&program]));
    says_hello(&mut run(&[Path::new("sh"), Path::new("-c"), Path::new("\"$0\"; exit $?"), &program]));
}

#[test]
fn programs_with_the_usual_c_library_start() {
    starts(&["gcc"]);
    starts(&["gcc", "-static"]);
}

#[test]
fn programs_with_musl_start() {
    starts(&["musl-gcc"]);
}

#[test]
fn programs_of_32_bits_start() {
    starts(&["gcc", "-m32"]);
}

#[test]
fn programs_with_sanitizers_start() {
    for sanitizer in ["address", "thread", "undefined", "leak"] {
        starts(&["gcc", &format!("-fsanitize={sanitizer}")]);
    }
}
