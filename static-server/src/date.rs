//! HTTP dates (RFC 9110, 5.6.7): whole seconds from 1970 to 9999, nothing else.
//!
//! A file's modification time may lie outside that span (a broken clock, an archive with
//! odd dates), so formatting can fail where the library underneath would panic.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// The first second that an HTTP date cannot name: 10000-01-01.
const END: u64 = 253_402_300_800;

/// Reads any of the three forms that a recipient must understand.
pub fn parse(value: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(value).ok()?;
    httpdate::parse_http_date(text).ok()
}

/// Writes `time` as an IMF-fixdate, or `None` where no such date exists.
pub fn format(time: SystemTime) -> Option<HeaderValue> {
    let time = whole_seconds(time)?;
    HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
}

/// `time` cut to the precision of an HTTP date, `None` outside the years 1970 to 9999.
pub fn whole_seconds(time: SystemTime) -> Option<SystemTime> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (seconds < END).then(|| UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_name_one_moment() {
        let expected = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for form in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(form.as_bytes()), Some(expected), "{form}");
        }
        assert_eq!(
            format(expected).unwrap(),
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "written in the preferred form"
        );
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "yesterday",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "784111777",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(&[0xff, 0xfe]), None);
    }

    #[test]
    fn times_that_no_http_date_can_name_do_not_panic() {
        assert!(format(UNIX_EPOCH - Duration::from_secs(1)).is_none());
        assert!(format(UNIX_EPOCH + Duration::from_secs(END)).is_none());
        assert!(format(UNIX_EPOCH + Duration::from_secs(END - 1)).is_some());
    }

    #[test]
    fn fractions_are_cut() {
        let time = UNIX_EPOCH + Duration::from_millis(1_999);
        assert_eq!(
            whole_seconds(time),
            Some(UNIX_EPOCH + Duration::from_secs(1))
        );
    }
}
