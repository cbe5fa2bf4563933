//! The examples do what they say. (Here they are modules; `cargo test` builds them as programs, too.)

#![allow(dead_code, reason = "each example is a program, of which this calls all but `main`")]
#![allow(unreachable_pub, reason = "so that this file can call them")]

#[path = "../examples/append_log.rs"]
mod append_log;
#[path = "../examples/checkpoint.rs"]
mod checkpoint;
#[path = "../examples/hello.rs"]
mod hello;
#[path = "../examples/key_value.rs"]
mod key_value;

use std::io::ErrorKind;
use std::sync::Barrier;

use lodefs::{OpenOptions, Volume};

/// A path for a volume, and the words of a command line that starts with it.
struct Scratch {
    _dir: tempfile::TempDir,
    path: String,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vol").to_str().unwrap().to_owned();
        Self { _dir: dir, path }
    }

    fn arguments(&self, rest: &[&str]) -> Vec<String> {
        std::iter::once(self.path.as_str()).chain(rest.iter().copied()).map(str::to_owned).collect()
    }
}

#[test]
fn hello_says_hello_twice() {
    let scratch = Scratch::new();
    for _ in 0..2 {
        assert!(hello::run(&scratch.arguments(&[])).unwrap().starts_with("hello, world\n"));
    }
}

#[test]
fn the_log_grows_from_run_to_run() {
    let scratch = Scratch::new();
    assert_eq!(append_log::run(&scratch.arguments(&["a", "b"])).unwrap(), "a\nb\n");
    assert_eq!(append_log::run(&scratch.arguments(&[])).unwrap(), "a\nb\n");
    assert_eq!(append_log::run(&scratch.arguments(&["", "c"])).unwrap(), "a\nb\n\nc\n");
    assert_eq!(append_log::run(&[]).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn threads_that_append_to_a_log_do_not_mix() {
    let volume = Volume::in_memory(64 << 20).unwrap();
    let log = append_log::Log::open(&volume, "log").unwrap();
    let ready = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (log, ready) = (&log, &ready);
            scope.spawn(move || {
                ready.wait();
                for i in 0..500 {
                    log.append(&vec![thread; i]).unwrap();
                }
            });
        }
    });
    let records = log.records().unwrap();
    for thread in 0..4 {
        let of_thread = records.iter().filter(|record| record.first() == Some(&thread));
        assert!(of_thread.map(Vec::len).eq(1..500), "thread {thread}");
    }
    let file = OpenOptions::new().write(true).open(&volume, "log").unwrap();
    file.write_all_at(&[0xff], file.metadata().unwrap().len() - 1).unwrap();
    assert_eq!(log.records().unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn the_store_keeps_the_last_value_of_each_key() {
    let scratch = Scratch::new();
    let run = |words: &[&str]| key_value::run(&scratch.arguments(words));
    assert_eq!(run(&["set", "k", "1"]).unwrap(), "version 1\n");
    assert_eq!(run(&["set", "k", "2"]).unwrap(), "version 2\n");
    assert_eq!(run(&["set", "other key", "3"]).unwrap(), "version 1\n");
    assert_eq!(run(&["get", "k"]).unwrap(), "2\n");
    assert_eq!(run(&["list"]).unwrap(), "k\nother key\n");
    assert_eq!(run(&["remove", "k"]).unwrap(), "removed\n");
    assert_eq!(run(&["remove", "k"]).unwrap(), "not there\n");
    assert_eq!(run(&["get", "k"]).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(run(&["frobnicate"]).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_a_store_had_begun_is_gone() {
    let volume = Volume::in_memory(16 << 20).unwrap();
    key_value::Store::open(&volume, "s").unwrap();
    volume.write("s/new/7", "left by a crash").unwrap();
    let store = key_value::Store::open(&volume, "s").unwrap();
    assert_eq!(store.keys().unwrap(), Vec::<Vec<u8>>::new());
    store.set(b"new", b"x").unwrap();
    assert_eq!(store.keys().unwrap(), [b"new"]);
    assert_eq!(store.version(b"new").unwrap(), 1);
}

#[test]
fn checkpoints_go_on_from_the_last() {
    let scratch = Scratch::new();
    let sum_of_one_step = 100_000u64 * 99_999 / 2;
    assert_eq!(checkpoint::run(&scratch.arguments(&["2"])).unwrap(), format!("{}\n", 2 * sum_of_one_step));
    let volume = Volume::open(&scratch.path).unwrap();
    volume.write("checkpoint.new", "left by a crash").unwrap();
    volume.close().unwrap();
    assert_eq!(checkpoint::run(&scratch.arguments(&["3"])).unwrap(), format!("{}\n", 5 * sum_of_one_step));
}
