//! Times, sizes and percentages.

use std::time::Duration;

use super::{Wrong, quoted};

/// Nothing here lasts longer; and no deadline computed from it overflows.
const LONGEST_DAYS: u64 = 3650;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Units of time and their length in milliseconds.
const TIMES: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1000),
    ("m", 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("d", DAY_MS),
];

/// What people write for a unit of time elsewhere.
const TIME_WORDS: &[(&str, &str)] = &[
    ("msec", "ms"),
    ("millis", "ms"),
    ("milliseconds", "ms"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("hr", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
];

/// Units of size and their length in bytes.
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// nginx and others write one letter.
const SIZE_WORDS: &[(&str, &str)] = &[
    ("k", "KiB"),
    ("m", "MiB"),
    ("g", "GiB"),
    ("t", "TiB"),
    ("byte", "B"),
    ("bytes", "B"),
];

/// `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"1d"`.
pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    let (number, unit) = split(text);
    let length = unit_of(TIMES, unit);
    if let (Ok(number), Some(length)) = (number.parse::<u64>(), length) {
        return number
            .checked_mul(length)
            .filter(|ms| *ms <= LONGEST_DAYS * DAY_MS)
            .map(Duration::from_millis)
            .ok_or_else(|| {
                Wrong::new(
                    format!("{} is too long", quoted(text)),
                    format!("at most \"{LONGEST_DAYS}d\""),
                )
            });
    }
    if !number.is_empty() && unit.is_empty() {
        return Err(Wrong::new(
            format!("the time {} has no unit", quoted(text)),
            format!("write \"{number}s\" for seconds; units are ms, s, m, h and d"),
        ));
    }
    let fix = better_time(text).map_or_else(
        || "a time is a whole number and one of ms, s, m, h, d: \"30s\"".into(),
        |better| format!("write \"{better}\""),
    );
    Err(Wrong::new(format!("{} is not a time", quoted(text)), fix))
}

/// `"64KiB"`, `"10MiB"`, `"1GB"`.
pub(crate) fn size(text: &str) -> Result<u64, Wrong> {
    let (number, unit) = split(text);
    let length = unit_of(SIZES, unit);
    if let (Ok(number), Some(length)) = (number.parse::<u64>(), length) {
        return number.checked_mul(length).ok_or_else(|| {
            Wrong::new(
                format!("{} is more than can be counted", quoted(text)),
                "write a smaller size",
            )
        });
    }
    if !number.is_empty() && unit.is_empty() {
        return Err(Wrong::new(
            format!("the size {} has no unit", quoted(text)),
            format!("write \"{number}B\" for bytes, or use KiB, MiB, GiB"),
        ));
    }
    let fix = better_size(text).map_or_else(
        || "a size is a whole number and one of B, KiB, MiB, GiB, KB, MB, GB: \"16MiB\"".into(),
        |better| format!("write \"{better}\""),
    );
    Err(Wrong::new(format!("{} is not a size", quoted(text)), fix))
}

/// `"50%"`, from `min` to `max`.
pub(crate) fn percent(text: &str, min: u32, max: u32) -> Result<u32, Wrong> {
    let possible = |percent: &u32| (min..=max).contains(percent);
    let number = text.strip_suffix('%');
    match number.map(str::parse::<u32>) {
        Some(Ok(percent)) if possible(&percent) => Ok(percent),
        Some(Ok(percent)) if max == 100 && percent > max => Err(Wrong::new(
            format!("{} is more than everything", quoted(text)),
            format!("a percentage is between \"{min}%\" and \"100%\""),
        )),
        Some(Ok(_)) => Err(Wrong::new(
            format!("{} is out of range", quoted(text)),
            format!("from \"{min}%\" to \"{max}%\""),
        )),
        _ => {
            let fix = match text.trim().parse::<u32>() {
                Ok(percent) if possible(&percent) => format!("write \"{percent}%\""),
                _ if max > 100 => "a whole number and a percent sign: \"125%\"".into(),
                _ => "a whole number and a percent sign: \"50%\"".into(),
            };
            Err(Wrong::new(
                format!("{} is not a percentage", quoted(text)),
                fix,
            ))
        }
    }
}

/// Digits in front, and what follows.
fn split(text: &str) -> (&str, &str) {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(digits)
}

fn unit_of(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units
        .iter()
        .find(|(known, _)| *known == unit)
        .map(|(_, length)| *length)
}

/// What was probably meant: `5min`, `30 s`, `1.5s`, `1m30s`, `30S`.
fn better_time(text: &str) -> Option<String> {
    let text: String = text.to_lowercase().split_whitespace().collect();
    let mut rest = text.as_str();
    let mut total: u64 = 0;
    let mut parts: Vec<String> = Vec::new();
    while !rest.is_empty() {
        let (whole, after) = split(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split(after),
            None => ("", after),
        };
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (word, after) = after.split_at(end);
        let word = TIME_WORDS
            .iter()
            .find(|(other, _)| *other == word)
            .map_or(word, |(_, ours)| ours);
        let length = unit_of(TIMES, word)?;
        total = total.checked_add(scaled(whole, fraction, length)?)?;
        parts.push(format!("{whole}{word}"));
        if !fraction.is_empty() {
            parts.push(String::new());
        }
        rest = after;
    }
    let better = match parts.as_slice() {
        [] => return None,
        [only] => only.clone(),
        _ if total.is_multiple_of(1000) => format!("{}s", total / 1000),
        _ => format!("{total}ms"),
    };
    duration(&better).is_ok().then_some(better)
}

/// `whole.fraction` times `length`, if that comes out even.
fn scaled(whole: &str, fraction: &str, length: u64) -> Option<u64> {
    let whole = whole.parse::<u64>().ok()?.checked_mul(length)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let tens = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction.parse::<u64>().ok()?.checked_mul(length)?;
    (part % tens == 0).then(|| whole.checked_add(part / tens))?
}

/// What was probably meant: `10m`, `10mib`, `10 MiB`.
fn better_size(text: &str) -> Option<String> {
    let text: String = text.to_lowercase().split_whitespace().collect();
    let (number, word) = split(&text);
    if number.is_empty() {
        return None;
    }
    let listed = SIZE_WORDS
        .iter()
        .find(|(other, _)| *other == word)
        .map(|(_, ours)| *ours);
    let unit = listed.or_else(|| {
        SIZES
            .iter()
            .find(|(known, _)| known.to_lowercase() == word)
            .map(|(known, _)| *known)
    })?;
    Some(format!("{number}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fix<T: std::fmt::Debug>(result: Result<T, Wrong>) -> String {
        result.expect_err("wrong").fix
    }

    #[test]
    fn times_have_one_number_and_one_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(duration("99999999999999999999d").is_err());
        assert!(duration("4000d").is_err());
    }

    #[test]
    fn a_common_slip_in_a_time_is_answered_with_the_right_spelling() {
        assert_eq!(fix(duration("5min")), "write \"5m\"");
        assert_eq!(fix(duration("30 s")), "write \"30s\"");
        assert_eq!(fix(duration("1.5s")), "write \"1500ms\"");
        assert_eq!(fix(duration("1m30s")), "write \"90s\"");
        assert!(fix(duration("30")).starts_with("write \"30s\""));
        assert!(
            fix(duration("3650.1d")).contains("whole number"),
            "no advice that is refused"
        );
        assert!(fix(duration("soon")).contains("whole number"));
    }

    #[test]
    fn sizes_tell_binary_from_decimal() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1GB"), Ok(1_000_000_000));
        assert_eq!(fix(size("10m")), "write \"10MiB\"");
        assert_eq!(fix(size("10mb")), "write \"10MB\"");
        assert!(fix(size("1024")).starts_with("write \"1024B\""));
        assert!(size("99999999999TiB").is_err());
    }

    #[test]
    fn a_percentage_has_its_sign_and_ends_at_a_hundred() {
        assert_eq!(percent("50%", 0, 100), Ok(50));
        assert_eq!(fix(percent("50", 0, 100)), "write \"50%\"");
        assert!(percent("101%", 0, 100).is_err());
        assert!(percent("-1%", 0, 100).is_err());
    }

    #[test]
    fn a_percentage_stays_within_the_bounds_of_its_key() {
        assert_eq!(percent("125%", 101, 1000), Ok(125));
        assert_eq!(
            fix(percent("100%", 101, 1000)),
            "from \"101%\" to \"1000%\""
        );
        assert_eq!(fix(percent("150", 101, 1000)), "write \"150%\"");
        assert!(percent("99999999999%", 101, 1000).is_err());
        assert!(percent("0%", 1, 100).is_err());
    }

    proptest! {
        #[test]
        fn what_is_suggested_is_accepted(text in "[0-9]{0,4}(\\.[0-9]{1,2})? ?(ms|s|sec|S|min|m|h|hours|d|k|M|mib)?([0-9]s)?") {
            if let Some(better) = better_time(&text) {
                prop_assert!(duration(&better).is_ok(), "{better}");
            }
            if let Some(better) = better_size(&text) {
                prop_assert!(size(&better).is_ok(), "{better}");
            }
        }

        #[test]
        fn no_text_makes_them_panic(text in "\\PC{0,20}") {
            let _ = (duration(&text), size(&text), percent(&text, 0, 100));
        }
    }
}
