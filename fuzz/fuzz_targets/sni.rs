//! See `tidegate_fuzz::sni`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::sni(data));
