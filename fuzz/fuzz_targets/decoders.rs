//! Gives any bytes to every decoder.

#![no_main]

use lodefs_testkit::hostile::Target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodefs_fuzz::run(Target::Decoders, data));
