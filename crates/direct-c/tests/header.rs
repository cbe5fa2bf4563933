//! The header that is checked in is what the source says. `LODEFS_HEADER=overwrite cargo test -p lodefs-direct-c` makes it anew.

use std::fs;
use std::path::Path;

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};

const NOTICE: &str = "/* Made of the Rust source by tests/header.rs: do not edit. SPDX-License-Identifier: MIT OR Apache-2.0 */";

const INTRODUCTION: &str = "/*
 * Direct access to the files of a mounted lodefs volume.
 *
 * A function returns 0, or minus an errno, unless it says otherwise. Where a file is direct and the process may attach to the mount,
 * loads and stores to a mapping reach the medium itself, and lodefs_persist makes them durable without a system call; reads and writes
 * of a lodefs_file copy from and to the medium.
 *
 * Threads: the library has some of its own. fork: the child's mappings stay good.
 */";

fn generated() -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let names = [
        ("MapOptions", "lodefs_map_options"),
        ("Mapping", "lodefs_mapping"),
        ("File", "lodefs_file"),
        ("DaxStatus", "lodefs_dax_status"),
        ("RangeStatus", "lodefs_range_status"),
    ];
    let mut config = Config {
        language: Language::C,
        style: Style::Tag,
        header: Some(format!("{NOTICE}\n{INTRODUCTION}")),
        include_guard: Some("LODEFS_DIRECT_H".into()),
        cpp_compat: true,
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::C99,
        ..Config::default()
    };
    config.export.rename = names.map(|(from, to)| (from.to_owned(), to.to_owned())).into_iter().collect();
    let builder = Builder::new().with_config(config);
    let builder = ["mapping.rs", "file.rs", "dax.rs", "maps.rs"]
        .into_iter()
        .fold(builder, |b, name| b.with_src(source.join(name)));
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap().replace("// # Safety\n", "// Safety:\n")
}

#[test]
fn the_header_is_what_the_source_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/lodefs_direct.h");
    let generated = generated();
    if std::env::var_os("LODEFS_HEADER").is_some_and(|value| value == "overwrite") {
        fs::write(&path, &generated).unwrap();
    }
    let present = fs::read_to_string(&path).unwrap();
    assert!(present == generated, "LODEFS_HEADER=overwrite cargo test -p lodefs-direct-c makes it anew");
}
