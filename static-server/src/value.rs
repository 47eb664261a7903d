//! Header values that this crate writes itself.
//!
//! `HeaderValue` can be made from text only fallibly. The texts here are numbers, hex digits
//! and escaped paths, always visible ASCII, so the failure has no caller who could use it.

use http::HeaderValue;

/// A value of visible ASCII. Anything else, which no caller passes, becomes an empty value
/// rather than a panic.
pub(crate) fn visible(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
