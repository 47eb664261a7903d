//! Names, sizes and times as text that is safe where it stands.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends `name` as text of an HTML element or of a quoted attribute. What would turn the
/// line around or hide is shown as a sign of its own: a name must not look like another.
pub(super) fn escape(out: &mut String, name: &str) {
    for character in name.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            character if deceives(character) => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
}

/// Whether a character cannot be seen, or changes how its neighbours are: controls, marks of
/// direction (Unicode TR 36, 3.2), joiners and tags.
pub(super) fn deceives(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Appends `name` as one segment of a relative reference (RFC 3986). Only unreserved
/// characters stay, so that neither a scheme, a query nor a parent can come of it.
pub(super) fn reference(out: &mut String, name: &str) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A size for people: `17 B`, `1.5 KiB`, `940 MiB`.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let wide = u128::from(bytes);
    let mut unit = 1_u128;
    for name in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        unit *= 1_024;
        let (tenths, whole) = ((wide * 10 + unit / 2) / unit, (wide + unit / 2) / unit);
        if tenths < 1_000 {
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        // What would be written as 1024 of a unit is 1.0 of the next.
        if whole < 1_024 {
            return format!("{whole} {name}");
        }
    }
    unit *= 1_024;
    let tenths = (wide * 10 + unit / 2) / unit;
    format!("{}.{} EiB", tenths / 10, tenths % 10)
}

/// A count with commas: `1,258,291`.
pub(super) fn exact(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `2024-01-02T03:04:05Z` (RFC 3339), or `None` outside the years 0 to 9999.
pub(super) fn moment(time: SystemTime) -> Option<String> {
    const DAY: i64 = 86_400;
    let seconds = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).ok()?,
        Err(before) => {
            let before = before.duration();
            let part = i64::from(before.subsec_nanos() > 0);
            i64::try_from(before.as_secs())
                .ok()?
                .checked_add(part)?
                .checked_neg()?
        }
    };
    let (year, month, day) = date(seconds.div_euclid(DAY))?;
    let second = seconds.rem_euclid(DAY);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    let second = second % 60;
    (0..=9_999)
        .contains(&year)
        .then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

/// Year, month and day of the Gregorian calendar, from days since 1970. Years are taken to
/// begin in March, so that the leap day is the last one.
fn date(days: i64) -> Option<(i64, i64, i64)> {
    // 0000-03-01 lies so many days before 1970-01-01; 400 years have so many days.
    const TO_MARCH_0: i64 = 719_468;
    const ERA: i64 = 146_097;
    let days = days.checked_add(TO_MARCH_0)?;
    let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // Months from March have 31, 30, 31, 30, 31 days, and so on: 153 in each five.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    Some((year, month, day))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_short_and_never_1024_of_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (1_258_291, "1.2 MiB"),
            (102_400, "100 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_048_064, "1.0 MiB"),
            (1_047_000, "1022 KiB"),
            (985_661_440, "940 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn exact_sizes_have_commas() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_258_291, "1,258,291"),
        ] {
            assert_eq!(exact(number), text);
        }
    }

    #[test]
    fn moments_are_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_164_645, "2024-01-02T03:04:05Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(moment(time).as_deref(), Some(text), "{seconds}");
        }
        let before = UNIX_EPOCH - Duration::from_millis(500);
        assert_eq!(moment(before).as_deref(), Some("1969-12-31T23:59:59Z"));
        let late = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        assert_eq!(moment(late), None, "five digits");
    }

    proptest! {
        #[test]
        fn moments_agree_with_http_dates(seconds in 0_u64..253_402_300_800) {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let ours = moment(time).unwrap();
            let theirs = httpdate::fmt_http_date(time);
            let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
            let month = months.iter().position(|name| *name == &theirs[8..11]).unwrap() + 1;
            let expected = format!("{}-{month:02}-{}T{}Z", &theirs[12..16], &theirs[5..7], &theirs[17..25]);
            prop_assert_eq!(ours, expected);
        }

        #[test]
        fn any_time_and_size_is_written(seconds in any::<u32>(), nanos in 0_u32..1_000_000_000, bytes in any::<u64>()) {
            let span = Duration::new(u64::from(seconds) * 100, nanos);
            let _ = UNIX_EPOCH.checked_sub(span).map(moment);
            let _ = UNIX_EPOCH.checked_add(span).map(moment);
            let short = size(bytes);
            prop_assert!(short.len() <= 8, "{}", short);
            prop_assert_eq!(exact(bytes).replace(',', ""), bytes.to_string());
        }
    }
}
