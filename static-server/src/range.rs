//! Byte ranges: which parts of a representation a request gets (RFC 9110, section 14, and
//! `If-Range`, 13.1.5).
//!
//! Pure arithmetic over fields, a length and validators; it serves files and cached
//! responses alike. What is malformed or asks for more than it would by asking for the whole
//! is answered with the whole, which is always right and never costs more.

use http::header::{IF_RANGE, RANGE};
use http::{HeaderValue, Method};

use crate::conditions::Validators;
use crate::date;
use crate::etag::EntityTag;
use crate::fields::{Fields, Lines, lines, trim};
use crate::value;

/// Bytes `first` to `last`, both included, as HTTP counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    first: u64,
    last: u64,
}

impl ByteRange {
    /// A range, or `None` where `last` lies before `first`.
    pub fn new(first: u64, last: u64) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Offset of the first byte.
    pub fn first(self) -> u64 {
        self.first
    }

    /// Offset of the last byte.
    pub fn last(self) -> u64 {
        self.last
    }

    /// How many bytes it spans; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// `Content-Range` of a 206 out of `total` bytes.
    pub fn content_range(self, total: u64) -> HeaderValue {
        value::visible(&format!("bytes {}-{}/{total}", self.first, self.last))
    }
}

/// `Content-Range` of a 416 (RFC 9110, 15.5.17): only the current length.
pub fn unsatisfied_range(total: u64) -> HeaderValue {
    value::visible(&format!("bytes */{total}"))
}

/// What one request may ask for at most before it gets the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many ranges one request may name.
    pub max_ranges: usize,
}

/// Media players and PDF readers name a handful; more is a way to make work.
pub const DEFAULT_MAX_RANGES: usize = 16;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_ranges: DEFAULT_MAX_RANGES,
        }
    }
}

/// Which part of the representation to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeOutcome {
    /// All of it, with 200.
    Whole,
    /// One range, with 206.
    Single(ByteRange),
    /// Two or more in the order asked for, with 206 and `multipart/byteranges`. Together they
    /// are no longer than the whole.
    Multiple(Vec<ByteRange>),
    /// 416: not one of them lies inside.
    Unsatisfiable,
}

/// Decides which ranges of `len` bytes the request gets.
pub fn evaluate(
    method: &Method,
    fields: &dyn Fields,
    len: u64,
    validators: &Validators<'_>,
    limits: Limits,
) -> RangeOutcome {
    // RFC 9110, 14.2: Range means something for GET only, and it is no list field, so that
    // a second line makes it invalid.
    if method != Method::GET {
        return RangeOutcome::Whole;
    }
    let Lines::One(value) = lines(fields, &RANGE) else {
        return RangeOutcome::Whole;
    };
    if !still_the_same(fields, validators) {
        return RangeOutcome::Whole;
    }
    select(value, len, limits)
}

/// `If-Range` (RFC 9110, 13.1.5): only a strong validator says that the parts fit together.
fn still_the_same(fields: &dyn Fields, validators: &Validators<'_>) -> bool {
    let value = match lines(fields, &IF_RANGE) {
        Lines::None => return true,
        Lines::One(value) => value,
        Lines::Several => return false,
    };
    if let Some(asked) = EntityTag::parse(value) {
        return validators
            .etag
            .is_some_and(|current| asked.strongly_equals(current));
    }
    let current = validators.last_modified.and_then(date::whole_seconds);
    match (date::parse(value), current) {
        (Some(asked), Some(current)) => validators.date_is_strong && asked == current,
        _ => false,
    }
}

/// Reads `ranges-specifier` (RFC 9110, 14.1.1) and cuts it to `len`.
fn select(value: &[u8], len: u64, limits: Limits) -> RangeOutcome {
    let Some(set) = byte_set(value) else {
        return RangeOutcome::Whole;
    };
    let mut specs = 0_usize;
    let mut ranges: Vec<ByteRange> = Vec::new();
    let mut total = 0_u64;
    for spec in set.split(|&byte| byte == b',').map(trim) {
        if spec.is_empty() {
            continue;
        }
        specs += 1;
        let Some(spec) = Spec::parse(spec) else {
            return RangeOutcome::Whole;
        };
        if specs > limits.max_ranges {
            return RangeOutcome::Whole;
        }
        match spec.within(len) {
            Part::Range(range) => {
                total = total.saturating_add(range.len());
                ranges.push(range);
            }
            Part::Nothing => {}
            Part::Everything => return RangeOutcome::Whole,
        }
    }
    match (specs, ranges.as_slice()) {
        (0, _) => RangeOutcome::Whole,
        (_, []) => RangeOutcome::Unsatisfiable,
        (_, [one]) => RangeOutcome::Single(*one),
        _ if total > len => RangeOutcome::Whole,
        _ => RangeOutcome::Multiple(ranges),
    }
}

/// What follows `bytes=`; range units are case-insensitive (RFC 9110, 14.1).
fn byte_set(value: &[u8]) -> Option<&[u8]> {
    let (unit, set) = value.split_at_checked(b"bytes=".len())?;
    unit.eq_ignore_ascii_case(b"bytes=").then_some(set)
}

/// One member of a range set, before the length is known.
enum Spec {
    From(u64),
    Between(ByteRange),
    Last(u64),
}

/// What a member comes to once the length is known.
enum Part {
    Range(ByteRange),
    Nothing,
    Everything,
}

impl Spec {
    fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|&byte| byte == b'-')?;
        let (first, rest) = text.split_at(dash);
        let last = rest.get(1..)?;
        match (first, last) {
            ([], last) => Some(Self::Last(number(last)?)),
            (first, []) => Some(Self::From(number(first)?)),
            (first, last) => ByteRange::new(number(first)?, number(last)?).map(Self::Between),
        }
    }

    fn within(&self, len: u64) -> Part {
        let (first, last) = match *self {
            Self::From(first) => (first, u64::MAX),
            Self::Between(range) => (range.first, range.last),
            Self::Last(0) => return Part::Nothing,
            // The last bytes of nothing are satisfiable, but no Content-Range can say so.
            Self::Last(_) if len == 0 => return Part::Everything,
            Self::Last(count) => (len.saturating_sub(count), u64::MAX),
        };
        match len
            .checked_sub(1)
            .and_then(|end| ByteRange::new(first, last.min(end)))
        {
            Some(range) => Part::Range(range),
            None => Part::Nothing,
        }
    }
}

/// Digits only. A number too large for us is larger than any file: it saturates.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &byte| {
        byte.is_ascii_digit().then(|| {
            number
                .saturating_mul(10)
                .saturating_add(u64::from(byte - b'0'))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn validators() -> Validators<'static> {
        Validators {
            etag: EntityTag::parse(b"\"a\""),
            last_modified: Some(UNIX_EPOCH + Duration::from_secs(784_111_777)),
            date_is_strong: true,
        }
    }

    fn ask(fields: &[(&'static str, &str)], len: u64) -> RangeOutcome {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        evaluate(&Method::GET, &map, len, &validators(), Limits::default())
    }

    fn of(range: &str, len: u64) -> RangeOutcome {
        ask(&[("range", range)], len)
    }

    fn single(first: u64, last: u64) -> RangeOutcome {
        RangeOutcome::Single(ByteRange::new(first, last).unwrap())
    }

    #[test]
    fn the_examples_of_the_rfc_come_out_as_it_says() {
        assert_eq!(of("bytes=0-499", 10_000), single(0, 499));
        assert_eq!(of("bytes=500-999", 10_000), single(500, 999));
        assert_eq!(of("bytes=-500", 10_000), single(9_500, 9_999));
        assert_eq!(of("bytes=9500-", 10_000), single(9_500, 9_999));
        assert!(
            matches!(of("bytes=0-0,-1", 10_000), RangeOutcome::Multiple(r)
            if r == [ByteRange::new(0, 0).unwrap(), ByteRange::new(9_999, 9_999).unwrap()])
        );
    }

    #[test]
    fn ranges_are_cut_to_the_length() {
        assert_eq!(of("bytes=5-99", 10), single(5, 9));
        assert_eq!(of("bytes=-99", 10), single(0, 9));
        assert_eq!(of("BYTES=0-", 10), single(0, 9));
        assert_eq!(of("bytes= 0-1 ", 10), single(0, 1));
    }

    #[test]
    fn what_lies_outside_is_unsatisfiable() {
        for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=10-,99-"] {
            assert_eq!(of(range, 10), RangeOutcome::Unsatisfiable, "{range}");
        }
        assert_eq!(of("bytes=0-", 0), RangeOutcome::Unsatisfiable);
        assert_eq!(of("bytes=-5", 0), RangeOutcome::Whole, "the end of nothing");
        assert_eq!(
            of("bytes=99-,2-3", 10),
            single(2, 3),
            "one of two lies inside"
        );
    }

    #[test]
    fn what_is_malformed_gets_the_whole() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes =0-1",
            "bytes=0 -1",
            "items=0-1",
            "bytes=0-1;q=1",
            "bytes=0-1,x",
        ] {
            assert_eq!(of(range, 10), RangeOutcome::Whole, "{range}");
        }
        let twice = [("range", "bytes=0-1"), ("range", "bytes=0-1")];
        assert_eq!(ask(&twice, 10), RangeOutcome::Whole);
    }

    #[test]
    fn numbers_beyond_64_bits_do_not_overflow() {
        let huge = "99999999999999999999999999";
        assert_eq!(of(&format!("bytes=2-{huge}"), 10), single(2, 9));
        assert_eq!(
            of(&format!("bytes={huge}-"), 10),
            RangeOutcome::Unsatisfiable
        );
        assert_eq!(of(&format!("bytes=-{huge}"), 10), single(0, 9));
        assert_eq!(of("bytes=0-", u64::MAX), single(0, u64::MAX - 1));
    }

    #[test]
    fn nobody_gets_more_than_the_whole() {
        assert_eq!(of("bytes=0-9,0-9", 10), RangeOutcome::Whole);
        assert!(
            matches!(of("bytes=0-4,2-6", 10), RangeOutcome::Multiple(_)),
            "just the whole"
        );
        assert_eq!(of("bytes=0-5,2-6", 10), RangeOutcome::Whole);
        let many = |n: usize| format!("bytes={}", vec!["0-0"; n].join(","));
        assert!(matches!(of(&many(16), 1_000), RangeOutcome::Multiple(r) if r.len() == 16));
        assert_eq!(of(&many(17), 1_000), RangeOutcome::Whole);
    }

    #[test]
    fn a_range_is_for_get_only() {
        let mut map = HeaderMap::new();
        map.insert("range", HeaderValue::from_static("bytes=0-1"));
        let outcome = evaluate(&Method::HEAD, &map, 10, &validators(), Limits::default());
        assert_eq!(outcome, RangeOutcome::Whole);
    }

    #[test]
    fn if_range_wants_a_strong_match() {
        let with = |value: &str| ask(&[("range", "bytes=0-1"), ("if-range", value)], 10);
        assert_eq!(with("\"a\""), single(0, 1));
        assert_eq!(with("W/\"a\""), RangeOutcome::Whole);
        assert_eq!(with("\"b\""), RangeOutcome::Whole);
        assert_eq!(with(DATE), single(0, 1));
        assert_eq!(
            with("Sun, 06 Nov 1994 08:49:38 GMT"),
            RangeOutcome::Whole,
            "a later date is no match: it must be the very same"
        );
        assert_eq!(with("nonsense"), RangeOutcome::Whole);
        assert_eq!(with("*"), RangeOutcome::Whole);
    }

    #[test]
    fn a_weak_date_is_no_if_range() {
        let mut map = HeaderMap::new();
        map.insert("range", HeaderValue::from_static("bytes=0-1"));
        map.insert("if-range", HeaderValue::from_static(DATE));
        let weak = Validators {
            date_is_strong: false,
            ..validators()
        };
        let outcome = evaluate(&Method::GET, &map, 10, &weak, Limits::default());
        assert_eq!(outcome, RangeOutcome::Whole);
    }

    #[test]
    fn content_range_counts_as_http_does() {
        let range = ByteRange::new(0, 499).unwrap();
        assert_eq!(range.content_range(1_234), "bytes 0-499/1234");
        assert_eq!(unsatisfied_range(47), "bytes */47");
    }

    /// The bytes a specifier selects, counted one by one.
    fn slow(specs: &[(Option<u64>, Option<u64>)], len: u64) -> Vec<Vec<u64>> {
        let mut parts = Vec::new();
        for spec in specs {
            let part: Vec<u64> = match *spec {
                (Some(a), Some(b)) => (0..len).filter(|i| (a..=b).contains(i)).collect(),
                (Some(a), None) => (0..len).filter(|i| *i >= a).collect(),
                (None, Some(n)) => (0..len).filter(|i| i + n >= len).collect(),
                (None, None) => Vec::new(),
            };
            if !part.is_empty() {
                parts.push(part);
            }
        }
        parts
    }

    proptest! {
        #[test]
        fn selected_bytes_are_those_counted_one_by_one(
            len in 1_u64..40,
            specs in prop::collection::vec(
                prop_oneof![
                    (0_u64..50, 0_u64..50).prop_map(|(a, b)| (Some(a.min(b)), Some(a.max(b)))),
                    (0_u64..50).prop_map(|a| (Some(a), None)),
                    (0_u64..50).prop_map(|n| (None, Some(n))),
                ],
                1..6,
            ),
        ) {
            let text: Vec<String> = specs.iter().map(|(a, b)| {
                let show = |n: &Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
                format!("{}-{}", show(a), show(b))
            }).collect();
            let parts = slow(&specs, len);
            let total: usize = parts.iter().map(Vec::len).sum();
            let got: Vec<Vec<u64>> = match of(&format!("bytes={}", text.join(",")), len) {
                RangeOutcome::Whole => {
                    prop_assert!(parts.len() > 1 && total as u64 > len);
                    return Ok(());
                }
                RangeOutcome::Unsatisfiable => Vec::new(),
                RangeOutcome::Single(r) => vec![(r.first()..=r.last()).collect()],
                RangeOutcome::Multiple(rs) => {
                    rs.iter().map(|r| (r.first()..=r.last()).collect()).collect()
                }
            };
            prop_assert_eq!(got, parts);
        }

        #[test]
        fn no_text_reaches_past_the_end(text in "bytes=[-0-9, ]{0,40}", len in any::<u64>()) {
            let ranges = match of(&text, len) {
                RangeOutcome::Single(r) => vec![r],
                RangeOutcome::Multiple(rs) => rs,
                _ => Vec::new(),
            };
            let mut total = 0_u64;
            for range in ranges {
                prop_assert!(range.first() <= range.last() && range.last() < len);
                total = total.saturating_add(range.len());
            }
            prop_assert!(total <= len);
        }
    }
}
