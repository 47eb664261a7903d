//! HTTP-date (RFC 9110 section 5.6.7): three forms read, one written.
//!
//! Strict but for the case of letters: a date that does not follow the grammar is no date, and the
//! caller then takes the response for stale. A cache should match without regard to case, and take
//! any zone but GMT for invalid (RFC 9111 section 4.2). The name of the weekday must be one, but is
//! not compared with the date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;
const SHORT_DAYS: [&[u8]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const LONG_DAYS: [&[u8]; 7] = [
    b"Thursday",
    b"Friday",
    b"Saturday",
    b"Sunday",
    b"Monday",
    b"Tuesday",
    b"Wednesday",
];
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Reads an HTTP-date. `now` decides the century of the obsolete form with a two-digit year: more
/// than 50 years ahead means the past.
pub fn parse(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b' ').collect();
    match parts.as_slice() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [day, date, month, year, time, zone] if is_gmt(zone) => {
            known(day.strip_suffix(b",")?, &SHORT_DAYS)?;
            instant(
                fixed(year, 4)?,
                month_number(month)?,
                fixed(date, 2)?,
                clock(time)?,
            )
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        [day, date, time, zone] if is_gmt(zone) => {
            known(day.strip_suffix(b",")?, &LONG_DAYS)?;
            let mut parts = date.split(|byte| *byte == b'-');
            let (date, month, year) = (parts.next()?, parts.next()?, parts.next()?);
            if parts.next().is_some() {
                return None;
            }
            let year = full_year(fixed(year, 2)?, now);
            instant(year, month_number(month)?, fixed(date, 2)?, clock(time)?)
        }
        // Sun Nov  6 08:49:37 1994
        [day, month, b"", date, time, year] => {
            known(day, &SHORT_DAYS)?;
            instant(
                fixed(year, 4)?,
                month_number(month)?,
                fixed(date, 1)?,
                clock(time)?,
            )
        }
        [day, month, date, time, year] => {
            known(day, &SHORT_DAYS)?;
            instant(
                fixed(year, 4)?,
                month_number(month)?,
                fixed(date, 2)?,
                clock(time)?,
            )
        }
        _ => None,
    }
}

/// Writes the preferred form, always 29 bytes: `Sun, 06 Nov 1994 08:49:37 GMT`. Times before 1970
/// are written as 1970, later than the year 9999 as its end.
pub fn format(time: SystemTime) -> [u8; 29] {
    const LAST: u64 = 253_402_300_799;
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
        .min(LAST);
    let days = seconds / 86_400;
    let second = seconds % 86_400;
    let (year, month, date) = civil(i64::try_from(days).unwrap_or(0));
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(SHORT_DAYS[usize::try_from(days % 7).unwrap_or(0)]);
    two(&mut out[5..7], date);
    out[8..11].copy_from_slice(MONTHS[usize::try_from(month - 1).unwrap_or(0) % 12]);
    two(&mut out[12..14], year / 100);
    two(&mut out[14..16], year % 100);
    two(&mut out[17..19], i64::try_from(second / 3600).unwrap_or(0));
    two(
        &mut out[20..22],
        i64::try_from(second / 60 % 60).unwrap_or(0),
    );
    two(&mut out[23..25], i64::try_from(second % 60).unwrap_or(0));
    out
}

fn two(out: &mut [u8], number: i64) {
    let number = u8::try_from(number.rem_euclid(100)).unwrap_or(0);
    out[0] = b'0' + number / 10;
    out[1] = b'0' + number % 10;
}

fn is_gmt(zone: &[u8]) -> bool {
    zone.eq_ignore_ascii_case(b"GMT")
}

fn known(name: &[u8], names: &[&[u8]]) -> Option<i64> {
    names
        .iter()
        .position(|known| known.eq_ignore_ascii_case(name))
        .and_then(|at| i64::try_from(at).ok())
}

fn month_number(name: &[u8]) -> Option<i64> {
    Some(known(name, &MONTHS)? + 1)
}

/// A number of exactly `width` digits.
fn fixed(text: &[u8], width: usize) -> Option<i64> {
    if text.len() != width {
        return None;
    }
    i64::try_from(crate::fields::digits(text)?).ok()
}

/// Seconds of the day. A leap second counts as the second before it ends.
fn clock(text: &[u8]) -> Option<i64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = text else {
        return None;
    };
    let (hour, minute) = (fixed(&[*h1, *h2], 2)?, fixed(&[*m1, *m2], 2)?);
    let second = fixed(&[*s1, *s2], 2)?;
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second.min(59))
}

/// "more than 50 years in the future" means the most recent such year in the past.
fn full_year(two_digits: i64, now: SystemTime) -> i64 {
    let days = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() / 86_400);
    let (this_year, _, _) = civil(i64::try_from(days).unwrap_or(0));
    let year = this_year - this_year.rem_euclid(100) + two_digits;
    if year > this_year + 50 {
        year - 100
    } else {
        year
    }
}

fn instant(year: i64, month: i64, date: i64, second: i64) -> Option<SystemTime> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if date < 1 || date > length {
        return None;
    }
    let seconds = days_since_1970(year, month, date) * DAY + second;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar. Years begin in March, so that the leap
/// day is the last of its year.
fn days_since_1970(year: i64, month: i64, date: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + date - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// The inverse: (year, month, date).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (era * 400 + year_of_era + i64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use proptest::prelude::*;

    #[test]
    fn the_three_forms_name_the_same_second() {
        for text in [
            &b"Sun, 06 Nov 1994 08:49:37 GMT"[..],
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(
                parse(text, at(0)),
                Some(UNIX_EPOCH + Duration::from_secs(784_111_777))
            );
        }
    }

    #[test]
    fn the_case_of_a_date_does_not_count() {
        for text in [
            "sun, 06 NOV 1994 08:49:37 gmt",
            "SUNDAY, 06-nov-94 08:49:37 Gmt",
            "sUN nOV  6 08:49:37 1994",
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
            assert_eq!(parse(text.as_bytes(), at(0)), Some(time), "{text}");
        }
    }

    #[test]
    fn what_does_not_follow_the_grammar_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "1994",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06-Nov-94-1 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  16 08:49:37 1994",
            "Xxx, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes(), at(0)), None, "{text}");
        }
    }

    #[test]
    fn a_two_digit_year_far_ahead_means_the_past() {
        let now = parse(b"Mon, 01 Jan 2024 00:00:00 GMT", at(0)).unwrap();
        let year = |text: &[u8]| {
            let written = format(parse(text, now).unwrap());
            String::from_utf8(written[12..16].to_vec()).unwrap()
        };
        assert_eq!(year(b"Sunday, 06-Nov-74 08:49:37 GMT"), "2074");
        assert_eq!(year(b"Sunday, 06-Nov-75 08:49:37 GMT"), "1975");
    }

    #[test]
    fn a_date_before_1970_is_a_date() {
        assert!(parse(b"Wed, 01 Jan 1969 00:00:00 GMT", at(0)).unwrap() < UNIX_EPOCH);
    }

    #[test]
    fn a_leap_second_is_accepted() {
        assert!(parse(b"Sat, 31 Dec 2016 23:59:60 GMT", at(0)).is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0u64..253_402_300_800) {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            prop_assert_eq!(parse(&format(time), time), Some(time));
        }

        #[test]
        fn reading_is_total(text: Vec<u8>) {
            let _ = parse(&text, at(0));
        }
    }
}
