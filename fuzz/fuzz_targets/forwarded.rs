//! See `tidegate_fuzz::forwarded`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::forwarded(data));
