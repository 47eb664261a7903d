//! The body of a 206 with several ranges: `multipart/byteranges` (RFC 9110, 14.6).
//!
//! It plans, and does not read: the separators are bytes, the ranges stay ranges, so that a
//! carrier can take the content from memory, from a file or from a cache.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;

use crate::range::ByteRange;
use crate::value;

/// The string between the parts. It must not occur in the content: make it of a hash of the
/// content or of a random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary(u128);

impl Boundary {
    /// A boundary of 32 hex digits.
    pub fn new(seed: u128) -> Self {
        Self(seed)
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A piece of the body, in the order of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A separator with the part's header, or the end.
    Text(Bytes),
    /// A range of the representation.
    Slice(ByteRange),
}

/// A planned body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    /// The response's `Content-Type`.
    pub content_type: HeaderValue,
    /// What to send.
    pub pieces: Vec<Piece>,
    /// Length of all pieces in bytes: the response's `Content-Length`.
    pub len: u64,
}

/// Plans the body for `ranges` out of `total` bytes of type `content_type`.
pub fn plan(
    ranges: &[ByteRange],
    total: u64,
    content_type: Option<&HeaderValue>,
    boundary: Boundary,
) -> Multipart {
    let mut pieces = Vec::with_capacity(ranges.len() * 2 + 1);
    let mut len = 0_u64;
    for (index, range) in ranges.iter().enumerate() {
        let text = part_head(index, *range, total, content_type, boundary);
        len = len
            .saturating_add(text.len() as u64)
            .saturating_add(range.len());
        pieces.push(Piece::Text(text));
        pieces.push(Piece::Slice(*range));
    }
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    len = len.saturating_add(end.len() as u64);
    pieces.push(Piece::Text(end));
    Multipart {
        content_type: value::visible(&format!("multipart/byteranges; boundary={boundary}")),
        pieces,
        len,
    }
}

fn part_head(
    index: usize,
    range: ByteRange,
    total: u64,
    content_type: Option<&HeaderValue>,
    boundary: Boundary,
) -> Bytes {
    let mut text = Vec::with_capacity(160);
    if index > 0 {
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
    if let Some(content_type) = content_type {
        text.extend_from_slice(b"Content-Type: ");
        text.extend_from_slice(content_type.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"Content-Range: ");
    text.extend_from_slice(range.content_range(total).as_bytes());
    text.extend_from_slice(b"\r\n\r\n");
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(content: &[u8], plan: &Multipart) -> Vec<u8> {
        let mut body = Vec::new();
        for piece in &plan.pieces {
            match piece {
                Piece::Text(text) => body.extend_from_slice(text),
                Piece::Slice(range) => {
                    let first = usize::try_from(range.first()).unwrap();
                    let last = usize::try_from(range.last()).unwrap();
                    body.extend_from_slice(&content[first..=last]);
                }
            }
        }
        body
    }

    #[test]
    fn two_ranges_read_as_the_rfc_shows() {
        let ranges = [ByteRange::new(0, 1).unwrap(), ByteRange::new(8, 9).unwrap()];
        let kind = HeaderValue::from_static("text/plain");
        let plan = plan(&ranges, 10, Some(&kind), Boundary::new(0xab));
        let b = format!("{:032x}", 0xab);
        let expected = format!(
            "--{b}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--{b}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
             \r\n--{b}--\r\n"
        );
        let body = render(b"0123456789", &plan);
        assert_eq!(String::from_utf8(body.clone()).unwrap(), expected);
        assert_eq!(
            plan.len,
            body.len() as u64,
            "the length told is the length sent"
        );
        assert_eq!(
            plan.content_type,
            format!("multipart/byteranges; boundary={b}")
        );
    }

    #[test]
    fn a_part_without_a_type_says_none() {
        let plan = plan(&[ByteRange::new(0, 0).unwrap()], 1, None, Boundary::new(1));
        let body = String::from_utf8(render(b"x", &plan)).unwrap();
        assert!(!body.contains("Content-Type"), "{body}");
        assert_eq!(plan.len, body.len() as u64);
    }
}
