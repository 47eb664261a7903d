//! See `tidegate_fuzz::static_range`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::static_range(data));
