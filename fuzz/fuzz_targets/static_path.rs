//! See `tidegate_fuzz::static_path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::static_path(data));
