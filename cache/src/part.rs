//! Parts of what is not stored whole: which are kept, what they answer, and how two become one
//! (RFC 9111 sections 3.3 and 3.4, RFC 9110 sections 14 and 15.3.7).
//!
//! A part is kept as a [`Stored`] of status 206 under a key of its own ([`KeyRef::of_part`]), so no
//! request for the whole can find it. It is one piece without gaps. It has a strong entity tag:
//! without that nobody could say that two parts are of the same representation. It is never
//! validated; once stale it is of use only when a newer part proves, by the same tag, that it holds.
//!
//! [`KeyRef::of_part`]: crate::key::KeyRef::of_part

use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::Times;
use crate::condition::is_weak;
use crate::fields::{Fields, digits};
use crate::head::Head;
use crate::range::{self, Selection};
use crate::storable::{LARGEST_OBJECT, Policy, Request, Response, Storable, storable};
use crate::stored::Stored;

/// Where a part lies in the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Its bytes, never empty.
    pub bytes: Range<u64>,
    /// Bytes of the whole.
    pub complete: u64,
}

/// What answers a request from a stored part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// For Content-Range.
    pub extent: Extent,
    /// The same bytes, counted from the start of the stored body.
    pub within: Range<u64>,
}

impl Extent {
    /// The value of Content-Range (RFC 9110 section 14.4).
    pub fn to_value(&self) -> String {
        let (first, last) = (self.bytes.start, self.bytes.end.saturating_sub(1));
        format!("bytes {first}-{last}/{}", self.complete)
    }

    /// Reads Content-Range; `None` unless it is of bytes and states where they lie and how many
    /// there are in all.
    pub fn read(fields: &dyn Fields) -> Option<Self> {
        let mut lines = 0;
        fields.each(&CONTENT_RANGE, &mut |_| lines += 1);
        let line = fields.first(&CONTENT_RANGE).filter(|_| lines == 1)?;
        let (unit, rest) = line.split_at_checked(6)?;
        let slash = memchr::memchr(b'/', rest)?;
        let dash = memchr::memchr(b'-', &rest[..slash])?;
        let (first, last) = (digits(&rest[..dash])?, digits(&rest[dash + 1..slash])?);
        let complete = digits(&rest[slash + 1..])?;
        let valid = unit.eq_ignore_ascii_case(b"bytes ") && first <= last && last < complete;
        valid.then(|| Self {
            bytes: first..last + 1,
            complete,
        })
    }

    fn len(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }
}

/// The head under which the reply to a request for a part is kept; `None` when it is not.
pub fn keepable(
    request: Request<'_>,
    reply: Response<'_>,
    policy: &Policy,
    times: Times,
) -> Option<Head> {
    if reply.status != StatusCode::PARTIAL_CONTENT || is_multipart(reply.fields) {
        return None;
    }
    let extent = Extent::read(reply.fields)?;
    let strong = reply.fields.first(&ETAG).is_some_and(|tag| !is_weak(tag));
    let length = reply.fields.first(&CONTENT_LENGTH).map(digits);
    let whole = length.is_none_or(|length| length == Some(extent.len()));
    if !strong || !whole || extent.len() > limit(policy) {
        return None;
    }
    // Section 3.3: it may be stored as if it were an incomplete 200.
    let as_whole = Response {
        status: StatusCode::OK,
        fields: reply.fields,
    };
    match storable(request, as_whole, policy, times) {
        Storable::Store(freshness) => {
            let head = Head::new(request, reply, freshness, policy);
            Some(head.with_length(Some(extent.len())))
        }
        Storable::No(_) => None,
    }
}

/// What of a stored part answers a request for a range; `None` when it is not all there. Freshness
/// and the other conditions are not looked at.
pub fn select(part: &Stored, request: Request<'_>, now: SystemTime) -> Option<Found> {
    let stored = extent_of(part)?;
    let head = part.head();
    match range::select_from(head, request, stored.complete, now) {
        Selection::Part(bytes)
            if stored.bytes.start <= bytes.start && bytes.end <= stored.bytes.end =>
        {
            Some(Found {
                within: bytes.start - stored.bytes.start..bytes.end - stored.bytes.start,
                extent: Extent { bytes, ..stored },
            })
        }
        _ => None,
    }
}

/// One part of two, where they are of the same representation and leave no gap: the newer one's
/// fields and life stand in the place of the older one's (RFC 9110 section 15.3.7.3). `request` is the
/// one that brought the newer.
pub fn combine(
    older: &Stored,
    newer: &Stored,
    request: &dyn Fields,
    policy: &Policy,
) -> Option<Stored> {
    let (old, new) = (extent_of(older)?, extent_of(newer)?);
    let tag = newer.head().etag().filter(|tag| !is_weak(tag));
    let same = tag.is_some() && tag == older.head().etag() && old.complete == new.complete;
    let touch = old.bytes.start.max(new.bytes.start) <= old.bytes.end.min(new.bytes.end);
    let union = Extent {
        bytes: old.bytes.start.min(new.bytes.start)..old.bytes.end.max(new.bytes.end),
        complete: new.complete,
    };
    if !same || !touch || union.len() > limit(policy) {
        return None;
    }
    let before = new.bytes.start.saturating_sub(old.bytes.start);
    let mut segments = cut(older.segments(), 0..before);
    segments.extend(newer.segments().iter().cloned());
    if old.bytes.end > new.bytes.end {
        let from = new.bytes.end - old.bytes.start;
        segments.extend(cut(older.segments(), from..old.len()));
    }
    let fields = merge(older.head(), newer.head(), &union)?;
    let request = Request {
        method: &Method::GET,
        fields: request,
    };
    let response = Response {
        status: StatusCode::PARTIAL_CONTENT,
        fields: &fields,
    };
    let head = Head::new(request, response, newer.head().freshness(), policy);
    let combined = Stored::new(head.into(), segments, newer.life().clone());
    (combined.len() == union.len()).then_some(combined)
}

/// The extent of a stored part, if its body is as long as that says.
fn extent_of(part: &Stored) -> Option<Extent> {
    let partial = part.head().status() == StatusCode::PARTIAL_CONTENT;
    Extent::read(&**part.head()).filter(|extent| partial && extent.len() == part.len())
}

fn limit(policy: &Policy) -> u64 {
    policy.max_object_size.min(LARGEST_OBJECT)
}

fn is_multipart(fields: &dyn Fields) -> bool {
    const NAME: &[u8] = b"multipart/";
    let kind = fields.first(&CONTENT_TYPE).unwrap_or_default();
    kind.get(..NAME.len())
        .is_some_and(|kind| kind.eq_ignore_ascii_case(NAME))
}

fn merge(older: &Head, newer: &Head, union: &Extent) -> Option<HeaderMap> {
    let mut merged = older.to_header_map();
    let newer = newer.to_header_map();
    for name in newer.keys() {
        merged.remove(name);
    }
    merged.extend(newer);
    let range = HeaderValue::from_str(&union.to_value()).ok()?;
    merged.insert(CONTENT_RANGE, range);
    merged.insert(CONTENT_LENGTH, union.len().into());
    Some(merged)
}

/// The bytes of `range`. What is not all of a segment is copied, so that a few bytes do not hold on
/// to many.
fn cut(segments: &[Bytes], range: Range<u64>) -> Vec<Bytes> {
    let mut cut = range::Cut::new(range);
    segments
        .iter()
        .map(|segment| {
            let piece = cut.take(segment.clone());
            if piece.len() == segment.len() {
                piece
            } else {
                Bytes::copy_from_slice(&piece)
            }
        })
        .filter(|piece| !piece.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, fields, secs};
    use http::HeaderName;
    use proptest::prelude::*;

    const KEPT: &str = "cache-control: max-age=60";

    fn get(fields: &HeaderMap) -> Request<'_> {
        Request {
            method: &Method::GET,
            fields,
        }
    }

    fn keep(asked: &[&str], replied: &[&str]) -> Option<Head> {
        keep_at(0, asked, replied, &Policy::default())
    }

    fn keep_at(seconds: u64, asked: &[&str], replied: &[&str], policy: &Policy) -> Option<Head> {
        let (asked, replied) = (fields(asked), fields(replied));
        let reply = Response {
            status: StatusCode::PARTIAL_CONTENT,
            fields: &replied,
        };
        let times = Times {
            sent: at(seconds),
            received: at(seconds),
        };
        keepable(get(&asked), reply, policy, times)
    }

    /// A part of `whole` that came at a time.
    fn part(whole: &[u8], bytes: Range<usize>, tag: &str, seconds: u64) -> Stored {
        let extent = Extent {
            bytes: bytes.start as u64..bytes.end as u64,
            complete: whole.len() as u64,
        };
        let lines = [
            format!("content-range: {}", extent.to_value()),
            format!("etag: {tag}"),
            format!("x-number: {seconds}"),
        ];
        let lines = [KEPT, &lines[0], &lines[1], &lines[2]];
        let head = keep_at(seconds, &[], &lines, &Policy::default()).unwrap();
        let pieces: Vec<Bytes> = whole[bytes].chunks(3).map(Bytes::copy_from_slice).collect();
        Stored::new(head.into(), pieces, std::sync::Arc::default())
    }

    fn body(stored: &Stored) -> Vec<u8> {
        stored.segments().concat()
    }

    fn join(older: &Stored, newer: &Stored) -> Option<Stored> {
        combine(older, newer, &fields(&[]), &Policy::default())
    }

    #[test]
    fn a_part_is_kept_with_a_strong_tag_and_a_whole_content_range() {
        let range = "content-range: bytes 5-9/20";
        let head = keep(&[], &[KEPT, range, "etag: \"a\""]).unwrap();
        assert_eq!(head.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(head.content_length(), Some(5), "also where it was not said");
        for refused in [
            &[KEPT, range][..],
            &[KEPT, range, "etag: W/\"a\""],
            &[KEPT, "etag: \"a\""],
            &[KEPT, "content-range: bytes 5-9/*", "etag: \"a\""],
            &[KEPT, "content-range: bytes */20", "etag: \"a\""],
            &[KEPT, "content-range: bytes 9-5/20", "etag: \"a\""],
            &[KEPT, "content-range: bytes 5-20/20", "etag: \"a\""],
            &[KEPT, "content-range: lines 5-9/20", "etag: \"a\""],
            &[KEPT, range, range, "etag: \"a\""],
            &[KEPT, range, "etag: \"a\"", "content-length: 4"],
            &[
                KEPT,
                range,
                "etag: \"a\"",
                "content-type: multipart/byteranges; boundary=x",
            ],
            &[KEPT, range, "etag: \"a\"", "set-cookie: a=b"],
            &["cache-control: no-store", range, "etag: \"a\""],
            &[
                KEPT,
                "content-range: bytes 0-9999999/99999999",
                "etag: \"a\"",
            ],
        ] {
            assert!(keep(&[], refused).is_none(), "{refused:?}");
        }
        assert!(keep(&["authorization: x"], &[KEPT, range, "etag: \"a\""]).is_none());
    }

    #[test]
    fn a_part_answers_what_lies_within_it_and_nothing_else() {
        let part = part(b"0123456789", 2..7, "\"a\"", 0);
        let ask = |lines: &[&str]| select(&part, get(&fields(lines)), at(1));
        let found = ask(&["range: bytes=3-5"]).unwrap();
        assert_eq!(found.within, 1..4);
        assert_eq!(found.extent.to_value(), "bytes 3-5/10");
        assert!(ask(&["range: bytes=2-6", "if-range: \"a\""]).is_some());
        for lines in [
            &[][..],
            &["range: bytes=1-5"],
            &["range: bytes=3-7"],
            &["range: bytes=3-"],
            &["range: bytes=-1"],
            &["range: bytes=2-3, 5-6"],
            &["range: bytes=99-"],
            &["range: lines=3-5"],
            &["range: bytes=3-5", "if-range: \"b\""],
        ] {
            assert_eq!(ask(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn parts_of_two_representations_are_never_combined() {
        let (one, other) = (b"0123456789", b"ABCDEFGHIJ");
        let older = part(one, 0..5, "\"a\"", 0);
        assert!(join(&older, &part(other, 5..10, "\"b\"", 1)).is_none());
        assert!(join(&older, &part(b"0123456789a", 5..10, "\"a\"", 1)).is_none());
        assert!(
            join(&older, &part(one, 6..10, "\"a\"", 1)).is_none(),
            "a gap"
        );
        let small = Policy {
            max_object_size: 9,
            ..Policy::default()
        };
        let newer = part(one, 5..10, "\"a\"", 1);
        assert!(combine(&older, &newer, &fields(&[]), &small).is_none());
    }

    #[test]
    fn the_newer_parts_fields_and_lifetime_stand_for_both() {
        let older = part(b"0123456789", 0..5, "\"a\"", 0);
        let newer = part(b"0123456789", 4..10, "\"a\"", 30);
        let both = join(&older, &newer).unwrap();
        let first = |name| both.head().first(&HeaderName::from_static(name));
        assert_eq!(first("x-number"), Some(&b"30"[..]));
        assert_eq!(first("content-range"), Some(&b"bytes 0-9/10"[..]));
        assert_eq!(both.head().content_length(), Some(10));
        assert_eq!(both.head().freshness().received, at(30));
        assert_eq!(both.head().freshness().lifetime, secs(60));
        assert_eq!(
            both.head()
                .iter()
                .filter(|(name, _)| *name == b"etag")
                .count(),
            1
        );
    }

    fn two_ranges() -> impl Strategy<Value = (Vec<u8>, Range<usize>, Range<usize>)> {
        prop::collection::vec(any::<u8>(), 1..60).prop_flat_map(|whole| {
            let length = whole.len();
            let one = (0..length).prop_flat_map(move |from| (Just(from), from + 1..=length));
            let other = (0..length).prop_flat_map(move |from| (Just(from), from + 1..=length));
            (Just(whole), one, other)
                .prop_map(|(whole, one, other)| (whole, one.0..one.1, other.0..other.1))
        })
    }

    proptest! {
        #[test]
        fn a_combined_part_is_the_whole_byte_for_byte((whole, one, other) in two_ranges()) {
            let both = join(&part(&whole, one.clone(), "\"a\"", 0), &part(&whole, other.clone(), "\"a\"", 1));
            let touch = one.start.max(other.start) <= one.end.min(other.end);
            prop_assert_eq!(both.is_some(), touch);
            if let Some(both) = both {
                let union = one.start.min(other.start)..one.end.max(other.end);
                prop_assert_eq!(body(&both), &whole[union.clone()]);
                let extent = Extent::read(&**both.head()).unwrap();
                prop_assert_eq!(extent.bytes, union.start as u64..union.end as u64);
                prop_assert_eq!(extent.complete, whole.len() as u64);
            }
        }

        #[test]
        fn what_a_part_answers_is_what_the_whole_would((whole, held, asked) in two_ranges()) {
            let stored = part(&whole, held.clone(), "\"a\"", 0);
            let line = format!("range: bytes={}-{}", asked.start, asked.end - 1);
            let found = select(&stored, get(&fields(&[&line])), at(1));
            prop_assert_eq!(found.is_some(), held.start <= asked.start && asked.end <= held.end);
            if let Some(found) = found {
                prop_assert_eq!(cut(stored.segments(), found.within).concat(), &whole[asked]);
            }
        }
    }
}
