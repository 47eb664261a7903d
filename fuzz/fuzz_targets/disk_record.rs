//! See `tidegate_fuzz::disk_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::disk_record(data));
