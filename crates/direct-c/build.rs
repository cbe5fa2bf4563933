//! Gives the shared library the name that programs remember: with the version of its interface.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liblodefs_direct.so.0");
}
