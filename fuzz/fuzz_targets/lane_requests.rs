//! See `tidegate_fuzz::lane_requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: tidegate_fuzz::serve_if_asked(),
    |data: &[u8]| tidegate_fuzz::lane_requests(data)
);
