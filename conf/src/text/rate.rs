//! Rates: so much a second.

use std::num::NonZeroU64;

use super::{Wrong, percent, quoted, size};
use crate::config::MemoryMark;

/// What may stand behind the number for a second.
const SECONDS: &[&str] = &["s", "sec", "second"];

/// `"100/s"`; never zero.
pub(crate) fn rate(text: &str) -> Result<NonZeroU64, Wrong> {
    let parsed = text.strip_suffix("/s").map(str::parse::<u32>);
    match parsed {
        Some(Ok(number)) => NonZeroU64::new(number.into()).ok_or_else(|| none(text)),
        _ => {
            let fix = better(text, |number| {
                let number: u32 = number.parse().ok()?;
                Some(number.to_string())
            });
            Err(Wrong::new(
                format!("{} is not a rate", quoted(text)),
                fix.unwrap_or_else(|| "a rate is a whole number a second: \"100/s\"".into()),
            ))
        }
    }
}

/// `"500B/s"`, `"4KiB/s"`, in bytes; never zero.
pub(crate) fn byte_rate(text: &str) -> Result<NonZeroU64, Wrong> {
    if let Some(Ok(bytes)) = text.strip_suffix("/s").map(size) {
        return NonZeroU64::new(bytes).ok_or_else(|| none(text));
    }
    let fix = better(text, |amount| {
        let bytes = || amount.parse::<u32>().ok().map(|bytes| format!("{bytes}B"));
        match size(amount) {
            Ok(_) => Some(amount.to_owned()),
            Err(_) => bytes(),
        }
    });
    Err(Wrong::new(
        format!("{} is not a rate", quoted(text)),
        fix.unwrap_or_else(|| "a rate is a size a second: \"500B/s\"".into()),
    ))
}

/// `"80%"`, or a size.
pub(crate) fn memory_mark(text: &str) -> Result<MemoryMark, Wrong> {
    if text.contains('%') {
        let share = percent(text, 1, 99)?;
        return Ok(MemoryMark::Share(u8::try_from(share).unwrap_or(99)));
    }
    match size(text) {
        Ok(0) => Err(Wrong::new(
            "without any memory there is no edge",
            "a share such as \"80%\", or a size",
        )),
        Ok(bytes) => Ok(MemoryMark::Bytes(bytes)),
        Err(wrong) => Err(Wrong::new(
            wrong.what,
            format!(
                "a share such as \"80%\", or a size; for a size, {}",
                wrong.fix
            ),
        )),
    }
}

fn none(text: &str) -> Wrong {
    Wrong::new(
        format!("{} is nothing at all", quoted(text)),
        "write a higher rate, or false for no such limit",
    )
}

/// What was probably meant: `100`, `100/sec`, `100 / s`, `100ps`.
fn better(text: &str, amount: impl Fn(&str) -> Option<String>) -> Option<String> {
    let text: String = text.split_whitespace().collect();
    let stem = match text.split_once('/') {
        Some((stem, unit)) if SECONDS.contains(&unit.to_lowercase().as_str()) => stem,
        Some(_) => return None,
        None => text.strip_suffix("ps").unwrap_or(&text),
    };
    Some(format!("write \"{}/s\"", amount(stem)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fix<T: std::fmt::Debug>(result: Result<T, Wrong>) -> String {
        result.expect_err("wrong").fix
    }

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!(rate("100/s").map(NonZeroU64::get), Ok(100));
        assert_eq!(fix(rate("100")), "write \"100/s\"");
        assert_eq!(fix(rate("100 / sec")), "write \"100/s\"");
        assert!(fix(rate("6000/m")).starts_with("a rate is"));
        assert!(fix(rate("0/s")).contains("false"));
    }

    #[test]
    fn a_rate_of_bytes_has_a_unit() {
        assert_eq!(byte_rate("500B/s").map(NonZeroU64::get), Ok(500));
        assert_eq!(byte_rate("4KiB/s").map(NonZeroU64::get), Ok(4096));
        assert_eq!(fix(byte_rate("500/s")), "write \"500B/s\"");
        assert_eq!(fix(byte_rate("500B")), "write \"500B/s\"");
        assert!(fix(byte_rate("0B/s")).contains("false"));
        assert!(fix(byte_rate("fast")).starts_with("a rate is"));
    }

    #[test]
    fn a_mark_is_a_share_or_a_size() {
        assert_eq!(memory_mark("80%"), Ok(MemoryMark::Share(80)));
        assert_eq!(memory_mark("1GiB"), Ok(MemoryMark::Bytes(1 << 30)));
        assert!(memory_mark("100%").is_err());
        assert!(memory_mark("0B").is_err());
        assert!(fix(memory_mark("80")).contains("80%"));
    }
}
