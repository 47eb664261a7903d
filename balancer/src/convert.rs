//! Conversions that clamp instead of cutting bits off.

#![expect(
    clippy::cast_possible_truncation,
    reason = "from a float, `as` clamps to the range of the integer and makes nothing of NaN; \
              a mask says which bits of an integer are meant"
)]

/// The nearest whole number below, within `u32`.
pub(crate) fn floor_u32(value: f64) -> u32 {
    value as u32
}

/// The nearest whole number below, within `u64`.
pub(crate) fn floor_u64(value: f64) -> u64 {
    value as u64
}

/// The nearest `f32`.
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

/// The lower half.
pub(crate) fn low_half(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// The upper half.
pub(crate) fn high_half(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Two halves as one word.
pub(crate) fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
