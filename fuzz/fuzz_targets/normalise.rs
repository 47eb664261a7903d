//! See `tidegate_fuzz::normalise_target`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::normalise_target(data));
