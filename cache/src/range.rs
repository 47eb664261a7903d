//! Which part of a stored whole a client asks for (RFC 9110 section 14, RFC 9111 section 4).
//!
//! Every range of a whole can be answered; what a stored [part](crate::part) answers is decided
//! there. What cannot be read, is no GET or asks for too much is answered with the whole, as the RFC
//! allows for any range.
//!
//! A range of what is not stored is best answered from the whole, fetched for all, unless the whole
//! is too much: [`is_asked`], [`wants_own_fetch`].

use std::ops::Range;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{IF_RANGE, RANGE};
use http::{Method, StatusCode};

use crate::condition::is_strongly_equal;
use crate::date;
use crate::fields::{Fields, digits, trim};
use crate::head::Head;
use crate::storable::Request;

/// More ranges than this in one request are answered with the whole.
pub const MAX_RANGES: usize = 16;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The whole, with the stored status.
    Whole,
    /// 206 with this part.
    Part(Range<u64>),
    /// 206 as multipart/byteranges with these parts, in the order asked for.
    Parts(Vec<Range<u64>>),
    /// 416: nothing of what is asked for exists.
    Unsatisfiable,
}

/// Selects from a stored response with a body of `length` bytes.
pub fn select(head: &Head, request: Request<'_>, length: u64, now: SystemTime) -> Selection {
    if head.status() == StatusCode::OK {
        select_from(head, request, length, now)
    } else {
        Selection::Whole
    }
}

/// The same whatever the status: `length` is that of the whole.
pub(crate) fn select_from(
    head: &Head,
    request: Request<'_>,
    length: u64,
    now: SystemTime,
) -> Selection {
    let Some(line) = request.fields.first(&RANGE) else {
        return Selection::Whole;
    };
    // Section 14.2: a range is defined for GET alone.
    if request.method != Method::GET || !if_range_holds(head, request.fields, now) {
        return Selection::Whole;
    }
    parse(line, length).unwrap_or(Selection::Whole)
}

/// Whether a request asks for a part, as far as that can be told before the length is known.
pub fn is_asked(request: Request<'_>) -> bool {
    // Of the largest length there is, every range that can be read has a part.
    let line = request
        .fields
        .first(&RANGE)
        .filter(|_| request.method == Method::GET);
    line.and_then(|line| parse(line, u64::MAX)).is_some()
}

/// Whether a fetch of the whole, made for a client that asked for a part, is to be given up for one
/// of that part: the whole will not be stored, or nobody knows how long it is. `kept` is its head,
/// if it would be stored, `status` the one it came with.
pub fn wants_own_fetch(kept: Option<&Head>, status: StatusCode) -> bool {
    match (kept, status) {
        (Some(head), StatusCode::OK) => head.content_length().is_none(),
        // A part that nobody asked for need not be the one that the client did ask for.
        (None, StatusCode::OK | StatusCode::PARTIAL_CONTENT) => true,
        // Other statuses have no parts.
        _ => false,
    }
}

/// Cuts a part out of a body that comes piece by piece.
#[derive(Debug, Clone)]
pub struct Cut {
    skip: u64,
    left: u64,
}

impl Cut {
    /// For these bytes of the body.
    pub fn new(part: Range<u64>) -> Self {
        Self {
            skip: part.start,
            left: part.end.saturating_sub(part.start),
        }
    }

    /// What of the next piece belongs to the part.
    pub fn take(&mut self, mut piece: Bytes) -> Bytes {
        let bounded = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let skipped = bounded(self.skip).min(piece.len());
        self.skip -= skipped as u64;
        let mut piece = piece.split_off(skipped);
        piece.truncate(bounded(self.left));
        self.left -= piece.len() as u64;
        piece
    }

    /// Whether the part is complete.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }
}

/// If-Range holds only for the very same representation: a strong tag, or a date that is exactly
/// Last-Modified and old enough to be a strong validator (RFC 9110 sections 13.1.5 and 8.8.2.2).
fn if_range_holds(head: &Head, request: &dyn Fields, now: SystemTime) -> bool {
    let Some(line) = request.first(&IF_RANGE) else {
        return true;
    };
    if line.ends_with(b"\"") {
        return head
            .etag()
            .is_some_and(|etag| is_strongly_equal(etag, line));
    }
    let settled = |modified: SystemTime| {
        head.date()
            .duration_since(modified)
            .is_ok_and(|since| since >= Duration::from_secs(1))
    };
    let asked = date::parse(line, now);
    asked.is_some() && asked == head.last_modified().filter(|modified| settled(*modified))
}

/// The ranges of one Range field; `None` when it is not understood or asks for too much.
fn parse(line: &[u8], length: u64) -> Option<Selection> {
    let (unit, set) = line.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut parts = Vec::new();
    let mut count = 0;
    for spec in set
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|spec| !spec.is_empty())
    {
        count += 1;
        if count > MAX_RANGES {
            return None;
        }
        parts.extend(one(spec, length)?);
    }
    // Overlapping parts would send more than the whole (RFC 9110 section 14.2).
    let total = parts
        .iter()
        .map(|part: &Range<u64>| part.end - part.start)
        .fold(0, u64::saturating_add);
    match parts.len() {
        0 if count == 0 => None,
        0 => Some(Selection::Unsatisfiable),
        1 => parts.pop().map(Selection::Part),
        _ if total > length => None,
        _ => Some(Selection::Parts(parts)),
    }
}

/// One range: `None` when it is no range, `Some(None)` when nothing of it exists.
fn one(spec: &[u8], length: u64) -> Option<Option<Range<u64>>> {
    let dash = memchr::memchr(b'-', spec)?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    let part = if first.is_empty() {
        length.saturating_sub(digits(last)?)..length
    } else {
        let first = digits(first)?;
        let end = if last.is_empty() {
            length
        } else {
            let last = digits(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(length)
        };
        first..end
    };
    Some((part.start < part.end).then_some(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, date, fields, head_of};

    fn ask(lines: &[&str]) -> Selection {
        let dated = format!("date: {}", date(100));
        let modified = format!("last-modified: {}", date(50));
        let head = head_of(200, &["etag: \"a\"", &dated, &modified]);
        let asked = fields(lines);
        select(
            &head,
            Request {
                method: &Method::GET,
                fields: &asked,
            },
            10,
            at(200),
        )
    }

    #[test]
    fn single_ranges_are_cut_to_what_is_there() {
        for (range, expected) in [
            ("0-0", 0..1),
            ("2-5", 2..6),
            ("5-", 5..10),
            ("-3", 7..10),
            ("-99", 0..10),
            ("8-99", 8..10),
        ] {
            assert_eq!(
                ask(&[&format!("range: bytes={range}")]),
                Selection::Part(expected),
                "{range}"
            );
        }
    }

    #[test]
    fn what_does_not_exist_is_unsatisfiable() {
        for range in ["10-", "99-100", "-0"] {
            assert_eq!(
                ask(&[&format!("range: bytes={range}")]),
                Selection::Unsatisfiable,
                "{range}"
            );
        }
    }

    #[test]
    fn what_is_not_understood_is_the_whole() {
        for range in [
            "bytes=",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=1",
            "lines=0-1",
            "bytes 0-1",
            "bytes=--1",
        ] {
            assert_eq!(
                ask(&[&format!("range: {range}")]),
                Selection::Whole,
                "{range}"
            );
        }
    }

    #[test]
    fn several_ranges_come_in_the_order_asked_but_never_more_than_the_whole() {
        assert_eq!(
            ask(&["range: bytes=8-9, 0-1,99-"]),
            Selection::Parts(vec![8..10, 0..2])
        );
        assert_eq!(ask(&["range: bytes=0-9, 0-9"]), Selection::Whole);
        let many = vec!["0-0"; MAX_RANGES + 1].join(",");
        assert_eq!(ask(&[&format!("range: bytes={many}")]), Selection::Whole);
    }

    #[test]
    fn if_range_wants_the_very_same() {
        let part = Selection::Part(0..1);
        let with = |condition: &str| ask(&["range: bytes=0-0", &format!("if-range: {condition}")]);
        assert_eq!(with("\"a\""), part);
        assert_eq!(with("W/\"a\""), Selection::Whole);
        assert_eq!(with("\"b\""), Selection::Whole);
        assert_eq!(with(&date(50)), part);
        assert_eq!(with(&date(51)), Selection::Whole);
    }

    #[test]
    fn a_range_is_asked_for_by_get_in_bytes() {
        let asks = |method: &Method, line: &str| {
            let asked = fields(&[&format!("range: {line}")]);
            is_asked(Request {
                method,
                fields: &asked,
            })
        };
        for line in ["bytes=0-0", "bytes=5-", "bytes=-5", "BYTES=0-1, 5-7"] {
            assert!(asks(&Method::GET, line), "{line}");
            assert!(!asks(&Method::HEAD, line), "{line}");
        }
        for line in ["lines=0-0", "bytes=", "bytes=5-2", "0-1", "bytes=a-"] {
            assert!(!asks(&Method::GET, line), "{line}");
        }
    }

    #[test]
    fn the_whole_is_given_up_where_it_is_too_much_for_a_part() {
        let known = head_of(200, &["content-length: 5"]);
        let unknown = head_of(200, &[]);
        let missing = head_of(404, &[]);
        assert!(!wants_own_fetch(Some(&known), StatusCode::OK));
        assert!(wants_own_fetch(Some(&unknown), StatusCode::OK));
        assert!(wants_own_fetch(None, StatusCode::OK));
        assert!(wants_own_fetch(None, StatusCode::PARTIAL_CONTENT));
        assert!(!wants_own_fetch(Some(&missing), StatusCode::NOT_FOUND));
        assert!(!wants_own_fetch(None, StatusCode::FORBIDDEN));
    }

    proptest::proptest! {
        #[test]
        fn what_is_cut_piece_by_piece_is_the_part(
            body in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..60),
            size in 1usize..9, start in 0usize..60, end in 0usize..60,
        ) {
            let (start, end) = (start.min(body.len()), end.min(body.len()).max(start.min(body.len())));
            let mut cut = Cut::new(start as u64..end as u64);
            let pieces = body.chunks(size).map(Bytes::copy_from_slice);
            let out: Vec<u8> = pieces.flat_map(|piece| cut.take(piece).to_vec()).collect();
            assert_eq!(out, body[start..end]);
            assert!(cut.is_done());
        }

        #[test]
        fn parts_are_never_empty_nor_out_of_bounds(line in "bytes=[-0-9, ]{0,30}", length in 0u64..50) {
            let parts = match parse(line.as_bytes(), length) {
                Some(Selection::Part(part)) => vec![part],
                Some(Selection::Parts(parts)) => parts,
                _ => Vec::new(),
            };
            assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
        }
    }
}
