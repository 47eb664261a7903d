//! The two time stamps of log lines, rendered once a second.
//!
//! UTC only: a log that jumps an hour twice a year cannot be sorted.

use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: u64 = 86_400;
/// 9999-12-31T23:59:59Z: four digits are all that a line has room for.
const LAST_SECOND: u64 = 253_402_300_799;
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Remembers the last second's text.
#[derive(Debug)]
pub(super) struct Dates {
    second: Option<u64>,
    rfc3339: [u8; 19],
    common: [u8; 26],
}

impl Default for Dates {
    fn default() -> Self {
        Self {
            second: None,
            rfc3339: *b"0000-00-00T00:00:00",
            common: *b"00/Jan/0000:00:00:00 +0000",
        }
    }
}

impl Dates {
    /// `2026-07-01T12:00:00.123Z` (RFC 3339). A clock before 1970 shows as 1970.
    pub(super) fn rfc3339(&mut self, out: &mut Vec<u8>, at: SystemTime) {
        let millis = self.seek(at);
        out.extend_from_slice(&self.rfc3339);
        let mut tail = *b".000Z";
        digits(&mut tail[1..4], u64::from(millis));
        out.extend_from_slice(&tail);
    }

    /// `01/Jul/2026:12:00:00 +0000`, as the Common Log Format has it.
    pub(super) fn common(&mut self, out: &mut Vec<u8>, at: SystemTime) {
        self.seek(at);
        out.extend_from_slice(&self.common);
    }

    /// Renders the second of `at` unless it is the remembered one; gives its milliseconds.
    fn seek(&mut self, at: SystemTime) -> u32 {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(LAST_SECOND);
        if self.second != Some(second) {
            self.render(second);
            self.second = Some(second);
        }
        since.subsec_millis()
    }

    fn render(&mut self, second: u64) {
        let (year, month, day) = civil(second / SECONDS_PER_DAY);
        let of_day = second % SECONDS_PER_DAY;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);

        digits(&mut self.rfc3339[0..4], year);
        digits(&mut self.rfc3339[5..7], month);
        digits(&mut self.rfc3339[8..10], day);
        digits(&mut self.rfc3339[11..13], hour);
        digits(&mut self.rfc3339[14..16], minute);
        digits(&mut self.rfc3339[17..19], second);

        digits(&mut self.common[0..2], day);
        let name = usize::try_from(month - 1)
            .ok()
            .and_then(|index| MONTHS.get(index));
        self.common[3..6].copy_from_slice(*name.unwrap_or(&MONTHS[0]));
        digits(&mut self.common[7..11], year);
        digits(&mut self.common[12..14], hour);
        digits(&mut self.common[15..17], minute);
        digits(&mut self.common[18..20], second);
    }
}

/// Year, month (1 to 12) and day (1 to 31) of a day counted from 1970-01-01.
///
/// Counts years from March, so that the leap day is the last of its year and
/// month lengths follow one line: 153 days every five months.
fn civil(day: u64) -> (u64, u64, u64) {
    const DAYS_TO_MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let day = day + DAYS_TO_MARCH_OF_YEAR_0;
    let (era, of_era) = (day / DAYS_PER_400_YEARS, day % DAYS_PER_400_YEARS);
    let leap_days = of_era / 1_460 - of_era / 36_524 + of_era / 146_096;
    let year_of_era = (of_era - leap_days) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day_of_month)
}

/// Fills `out` with the last digits of `value`, zeros in front.
fn digits(out: &mut [u8], mut value: u64) {
    for place in out.iter_mut().rev() {
        *place = b"0123456789"[(value % 10) as usize];
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn both(dates: &mut Dates, millis: u64) -> (String, String) {
        let at = UNIX_EPOCH + Duration::from_millis(millis);
        let (mut json, mut common) = (Vec::new(), Vec::new());
        dates.rfc3339(&mut json, at);
        dates.common(&mut common, at);
        (
            String::from_utf8(json).unwrap(),
            String::from_utf8(common).unwrap(),
        )
    }

    #[test]
    fn known_moments_are_rendered_as_the_calendar_has_them() {
        // Each of these is what `date -u -d @SECONDS` says.
        let known = [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (
                951_782_400_007,
                "2000-02-29T00:00:00.007Z",
                "29/Feb/2000:00:00:00 +0000",
            ),
            (
                1_782_907_199_999,
                "2026-07-01T11:59:59.999Z",
                "01/Jul/2026:11:59:59 +0000",
            ),
            (
                4_107_542_399_000,
                "2100-02-28T23:59:59.000Z",
                "28/Feb/2100:23:59:59 +0000",
            ),
            (
                4_107_542_400_000,
                "2100-03-01T00:00:00.000Z",
                "01/Mar/2100:00:00:00 +0000",
            ),
        ];
        let mut dates = Dates::default();
        for (millis, json, common) in known {
            assert_eq!(
                both(&mut dates, millis),
                (json.to_owned(), common.to_owned())
            );
        }
    }

    #[test]
    fn days_follow_one_another_without_gap_or_repeat() {
        let mut last = civil(0);
        for day in 1..200_000 {
            let this = civil(day);
            assert!(this > last, "day {day}: {this:?} after {last:?}");
            assert!((1..=12).contains(&this.1) && (1..=31).contains(&this.2));
            last = this;
        }
    }

    #[test]
    fn a_clock_out_of_all_bounds_still_gives_a_line() {
        let mut dates = Dates::default();
        let mut out = Vec::new();
        dates.rfc3339(&mut out, UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(out, b"1970-01-01T00:00:00.000Z");
        out.clear();
        dates.rfc3339(&mut out, UNIX_EPOCH + Duration::from_secs(LAST_SECOND * 2));
        assert_eq!(out, b"9999-12-31T23:59:59.000Z");
    }
}
