//! Gives any bytes to those who read messages.

#![no_main]

use lodefs_testkit::hostile::Target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodefs_fuzz::run(Target::Messages, data));
