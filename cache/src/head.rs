//! The head of what is stored. It does not change any more.
//!
//! It is kept as the bytes that an HTTP/1.1 reply begins with, status line and field lines.
//! A hit then copies one block instead of formatting a map, and the block is a third of a map's
//! size. For other carriers it can be read as [`Fields`] or made a `HeaderMap` without copying the
//! values.
//!
//! Not in it: what belongs to a connection, Age and Cache-Status (they differ for each reply), and
//! the blank line, so that these can follow. Content-Length is in it once the length is known.

pub(crate) mod codec;
mod packed;

use std::ops::Range;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::header::{
    AGE, CONNECTION, CONTENT_LENGTH, DATE, ETAG, LAST_MODIFIED, PROXY_AUTHENTICATE, SET_COOKIE, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use self::packed::{Moment, Packed};
use crate::control::ResponseControl;
use crate::date;
use crate::fields::{self, Fields, is_token, trim};
use crate::freshness::{Freshness, date_field};
use crate::storable::{Policy, Request, Response};
use crate::vary::{Spec, Variant};

/// Fields that are never kept: those of one connection (RFC 9110 section 7.6.1, RFC 9111 section
/// 3.1), Age, which is computed anew for each reply, and Set-Cookie, which a 304 may bring.
const NEVER_KEPT: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    AGE,
    SET_COOKIE,
];

/// Status, fields and judgement of a response that may be stored.
#[derive(Debug, Clone)]
pub struct Head {
    status: StatusCode,
    /// Status line and field lines, each with its CRLF.
    block: Bytes,
    /// Where the field lines begin.
    lines: u32,
    /// Where its value stands in the block; nowhere when that is empty.
    etag: Range<u32>,
    last_modified: Moment,
    date: Moment,
    /// `u64::MAX`: not known.
    content_length: u64,
    freshness: Packed,
    variant: Variant,
}

impl Head {
    /// The head of a response that [`crate::storable::storable`] allows to store.
    pub fn new(
        request: Request<'_>,
        response: Response<'_>,
        freshness: Freshness,
        policy: &Policy,
    ) -> Self {
        let fields = response.fields;
        let dropped = dropped_names(fields, policy);
        let mut block = BytesMut::with_capacity(512);
        write_status_line(response.status, &mut block);
        let lines = block.len();
        fields.all(&mut |name, value| {
            let kept = !dropped
                .iter()
                .any(|one| one.as_str().as_bytes().eq_ignore_ascii_case(name));
            if kept && is_token(name) && is_value(value) {
                write_line(name, value, &mut block);
            }
        });
        // RFC 9110 section 6.6.1: who keeps a response without Date gives it the time of arrival.
        let stated = date_field(fields, &DATE, freshness.received);
        if stated.is_none() {
            write_line(b"date", &date::format(freshness.received), &mut block);
        }
        let framed = fields.has(&TRANSFER_ENCODING);
        let length = fields
            .first(&CONTENT_LENGTH)
            .and_then(fields::digits)
            .filter(|_| !framed);
        let by_origin = !Spec::new(fields, &[]).names().is_empty();
        let variant = Variant::new(Spec::new(fields, &policy.vary), request.fields, by_origin);
        let last_modified = date_field(fields, &LAST_MODIFIED, freshness.received);
        let head = Self {
            status: response.status,
            block: exact(&block),
            lines: place(lines),
            etag: 0..0,
            last_modified: Moment::new(last_modified),
            date: Moment::new(Some(stated.unwrap_or(freshness.received))),
            content_length: u64::MAX,
            freshness: Packed::new(&freshness),
            variant,
        };
        head.with_length(length).indexed()
    }

    /// The same head with this length in place of the one it may have had.
    #[must_use]
    pub fn with_length(&self, length: Option<u64>) -> Self {
        let mut block = BytesMut::with_capacity(self.block.len() + 40);
        block.extend_from_slice(&self.block[..self.lines()]);
        self.all(&mut |name, value| {
            if name != CONTENT_LENGTH.as_str().as_bytes() {
                write_line(name, value, &mut block);
            }
        });
        if let Some(length) = length {
            write_line(b"content-length", length.to_string().as_bytes(), &mut block);
        }
        Self {
            block: exact(&block),
            content_length: length.unwrap_or(u64::MAX),
            ..self.clone()
        }
        .indexed()
    }

    /// The same head for the requests of another variant.
    pub(crate) fn with_variant(self, variant: Variant) -> Self {
        Self { variant, ..self }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// How long it holds.
    pub fn freshness(&self) -> Freshness {
        self.freshness.unpack()
    }

    /// For which requests it is.
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    /// ETag as stated, `W/` and quotes included.
    pub fn etag(&self) -> Option<&[u8]> {
        let (start, end) = (self.etag.start as usize, self.etag.end as usize);
        (start < end).then(|| &self.block[start..end])
    }

    /// Last-Modified, where it is a date.
    pub fn last_modified(&self) -> Option<SystemTime> {
        self.last_modified.get()
    }

    /// Date, or the time of arrival.
    pub fn date(&self) -> SystemTime {
        self.date.get().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Bytes of body: as declared while it arrives, as counted once it is stored.
    pub fn content_length(&self) -> Option<u64> {
        Some(self.content_length).filter(|length| *length != u64::MAX)
    }

    /// Whether a response of this status to GET has a body (RFC 9110 section 6.4.1).
    pub fn may_have_body(&self) -> bool {
        self.status != StatusCode::NO_CONTENT && self.status != StatusCode::RESET_CONTENT
    }

    /// Status line and field lines of an HTTP/1.1 reply, names in lower case, each line with its
    /// CRLF. Age, Cache-Status, Connection and the blank line are to follow.
    pub fn as_http1(&self) -> &Bytes {
        &self.block
    }

    /// The field lines alone.
    pub fn field_lines(&self) -> &[u8] {
        &self.block[self.lines()..]
    }

    /// Names and values, for carriers that want them one by one.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans()
            .map(|(name, value)| (&self.block[name], &self.block[value]))
    }

    /// A map of the fields. The values share the block.
    pub fn to_header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in self.spans() {
            let name = HeaderName::from_bytes(&self.block[name]);
            let value = HeaderValue::from_maybe_shared(self.block.slice(value));
            if let (Ok(name), Ok(value)) = (name, value) {
                map.append(name, value);
            }
        }
        map
    }

    /// Whether a field belongs into a 304 (RFC 9110 section 15.4.5): what guides the client's cache,
    /// and no other description of the body, which does not come.
    pub fn belongs_in_not_modified(name: &[u8]) -> bool {
        !(name.starts_with(b"content-") && name != b"content-location")
    }

    /// Bytes that the head takes in memory, roughly, what it points to included.
    pub fn weight(&self) -> usize {
        // Two allocations beside the struct: the block, and the names of the variant (shared).
        size_of::<Self>() + self.block.len() + self.variant.values().len() + 96
    }

    /// The same status and judgement over these field lines, names and values, in place of its own.
    /// For fields that neither the judgement nor the variant was read from; a changed
    /// Content-Length is the business of [`Head::with_length`].
    #[must_use]
    pub(crate) fn with_lines<'a>(
        &self,
        lines: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self {
        let mut block = BytesMut::with_capacity(self.block.len() + 64);
        block.extend_from_slice(&self.block[..self.lines()]);
        for (name, value) in lines {
            if is_token(name) && is_value(value) {
                write_line(name, value, &mut block);
            }
        }
        Self {
            block: exact(&block),
            ..self.clone()
        }
        .indexed()
    }

    fn lines(&self) -> usize {
        self.lines as usize
    }

    fn indexed(mut self) -> Self {
        let tag = self
            .spans()
            .find(|(name, _)| self.block[name.clone()] == *ETAG.as_str().as_bytes());
        self.etag = tag.map_or(0..0, |(_, value)| place(value.start)..place(value.end));
        self
    }

    /// Where name and value of each line stand in the block. [`write_line`] wrote them.
    fn spans(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let mut at = self.lines();
        std::iter::from_fn(move || {
            let end = at + memchr::memchr(b'\r', self.block.get(at..)?)?;
            let colon = at + memchr::memchr(b':', &self.block[at..end])?;
            let spans = (at..colon, colon + 2..end);
            at = end + 2;
            Some(spans)
        })
    }
}

impl Fields for Head {
    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.iter()
            .find(|(one, _)| *one == name.as_str().as_bytes())
            .map(|(_, value)| value)
    }

    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8])) {
        self.iter()
            .filter(|(one, _)| *one == name.as_str().as_bytes())
            .for_each(|(_, value)| f(value));
    }

    fn all(&self, f: &mut dyn FnMut(&[u8], &[u8])) {
        self.iter().for_each(|(name, value)| f(name, value));
    }
}

/// A place in a block; a head is bounded at a few hundred kilobytes.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The names that are not kept of this response: [`NEVER_KEPT`], those that Connection nominates,
/// those that `private` and `no-cache` withhold, those of tags. Content-Length is added again by whoever knows it.
fn dropped_names(fields: &dyn Fields, policy: &Policy) -> Vec<HeaderName> {
    let mut names = NEVER_KEPT.to_vec();
    names.push(CONTENT_LENGTH);
    names.extend_from_slice(&policy.tags);
    fields::each_member(fields, &CONNECTION, &mut |name| {
        names.extend(HeaderName::from_bytes(name).ok());
    });
    names.extend(ResponseControl::read(fields).withheld().cloned());
    if date_field(fields, &DATE, SystemTime::UNIX_EPOCH).is_none() {
        names.push(DATE);
    }
    names
}

/// Whether a field of a 304 stays out of the stored head: what is never kept, and what describes the
/// stored body, which a 304 cannot change (RFC 9111 section 3.2).
pub(crate) fn is_untouched_by_304(name: &HeaderName) -> bool {
    let described = [
        "content-encoding",
        "content-length",
        "content-md5",
        "content-range",
    ];
    NEVER_KEPT.contains(name) || described.contains(&name.as_str())
}

fn write_status_line(status: StatusCode, out: &mut BytesMut) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_line(name: &[u8], value: &[u8], out: &mut BytesMut) {
    let start = out.len();
    out.extend_from_slice(name);
    out[start..].make_ascii_lowercase();
    out.extend_from_slice(b": ");
    out.extend_from_slice(trim(value));
    out.extend_from_slice(b"\r\n");
}

/// A field value that can stand in a line (RFC 9110 section 5.5). Any carrier has checked that; what
/// a client sees from here on must not depend on it.
fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// The bytes in an allocation of their own length.
fn exact(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, date, head_of};

    fn text(head: &Head) -> String {
        String::from_utf8(head.as_http1().to_vec()).unwrap()
    }

    #[test]
    fn a_head_begins_an_http1_reply() {
        let date = format!("date: {}", date(0));
        let head = head_of(
            200,
            &[
                "Content-Type: text/css",
                &date,
                "ETag: \"a\"",
                "content-length: 5",
            ],
        );
        let expected = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/css\r\n{date}\r\netag: \"a\"\r\ncontent-length: 5\r\n"
        );
        let mut sorted: Vec<_> = text(&head).lines().map(str::to_owned).collect();
        let mut wanted: Vec<_> = expected.lines().map(str::to_owned).collect();
        sorted.sort();
        wanted.sort();
        assert_eq!(sorted, wanted);
        assert_eq!(head.etag(), Some(&b"\"a\""[..]));
        assert_eq!(head.content_length(), Some(5));
        assert_eq!(head.date(), at(0));
    }

    #[test]
    fn what_belongs_to_the_connection_is_not_kept() {
        let head = head_of(
            200,
            &[
                "connection: close, X-Hop",
                "x-hop: 1",
                "keep-alive: timeout=5",
                "proxy-connection: x",
                "te: trailers",
                "transfer-encoding: chunked",
                "upgrade: h2c",
                "proxy-authenticate: Basic",
                "age: 7",
                "x-end: 2",
                "content-length: 3",
            ],
        );
        let mut names: Vec<&[u8]> = head.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(names, [&b"date"[..], b"x-end"]);
        assert_eq!(
            head.content_length(),
            None,
            "the chunked framing says nothing of the length"
        );
    }

    #[test]
    fn withheld_fields_are_not_kept_and_others_are() {
        let head = head_of(
            200,
            &[
                "cache-control: private=\"x-user\", no-cache=\"x-cart\", max-age=9",
                "x-user: u",
                "x-cart: c",
                "x-other: o",
                "x-other: p",
                "surrogate-control: x y",
            ],
        );
        assert!(!head.has(&HeaderName::from_static("x-user")));
        assert!(!head.has(&HeaderName::from_static("x-cart")));
        let mut others = Vec::new();
        head.each(&HeaderName::from_static("x-other"), &mut |value| {
            others.push(value.to_vec());
        });
        assert_eq!(others, [b"o", b"p"], "repeated fields keep lines and order");
    }

    #[test]
    fn a_missing_or_broken_date_is_the_time_of_arrival() {
        for lines in [&[][..], &["date: yesterday"][..]] {
            let head = head_of(200, lines);
            assert_eq!(head.first(&DATE), Some(date(0).as_bytes()));
        }
    }

    #[test]
    fn the_map_holds_the_same_fields() {
        let head = head_of(404, &["x-a: 1", "x-a: 2", "x-b: \u{e9}"]);
        let map = head.to_header_map();
        assert_eq!(map.get_all("x-a").iter().count(), 2);
        assert_eq!(map["x-b"].as_bytes(), "\u{e9}".as_bytes());
        assert_eq!(map.len(), head.iter().count());
    }

    #[test]
    fn a_304_describes_no_body() {
        assert!(Head::belongs_in_not_modified(b"etag") && Head::belongs_in_not_modified(b"vary"));
        assert!(Head::belongs_in_not_modified(b"content-location"));
        assert!(!Head::belongs_in_not_modified(b"content-type"));
        assert!(!Head::belongs_in_not_modified(b"content-length"));
    }
}
