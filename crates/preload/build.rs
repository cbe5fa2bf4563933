//! Has the library bring its own unwinder: to load another library for that is most of what it costs to start a program with this one.

use std::env;
use std::path::Path;
use std::process::Command;

/// The unwinder, which comes with the C compiler.
const UNWINDER: &str = "libgcc_eh.a";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CC");
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let Ok(said) = Command::new(compiler).arg(format!("-print-file-name={UNWINDER}")).output() else {
        return;
    };
    let found = String::from_utf8_lossy(&said.stdout);
    // A compiler that has none says its name only. Then it is loaded.
    if let Some(directory) = Path::new(found.trim()).parent().filter(|directory| directory.is_absolute()) {
        println!("cargo:rustc-link-search=native={}", directory.display());
        println!("cargo:rustc-link-lib=static:+whole-archive=gcc_eh");
    }
}
