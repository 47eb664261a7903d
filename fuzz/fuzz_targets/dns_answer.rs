//! See `tidegate_fuzz::dns_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::dns_answer(data));
