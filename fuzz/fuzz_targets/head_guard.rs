//! See `tidegate_fuzz::head_guard`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::head_guard(data));
