//! What a request gets: an outcome, a status, headers and a body, for any carrier to write.
//!
//! An answer holds no socket and copies no content. Its headers come in two parts, one list
//! that was made when the file was read and is shared by every answer, and the few that
//! belong to this one. `Date` is the carrier's, who knows the time.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::confine::Refusal;
use crate::files::{Facts, Trouble, pread, read_cached, read_unchanged, unchanged};
use crate::frozen::Frozen;

/// How a request ended, each kind once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200 with the whole file.
    Full,
    /// 206 with one or more ranges.
    Partial,
    /// 200 with what a directory holds.
    Listed,
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    RangeUnsatisfiable,
    /// 301 to the same name with a slash.
    Redirect,
    /// 204 with `Allow`, for OPTIONS.
    Options,
    /// 405 with `Allow`.
    MethodNotAllowed,
    /// 404: nothing there.
    NotFound,
    /// 404: the path is one that is never looked up.
    Refused(Refusal),
    /// 404: a link that leads out of the root, or no regular file.
    OffLimits,
    /// 403: this process may not read it.
    Unreadable,
    /// 503: no descriptor left, or the file keeps changing; passes.
    Unavailable,
    /// 500: the file system failed.
    Failed,
}

impl Outcome {
    /// The outcome's name, for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Listed => "listed",
            Self::NotModified => "not_modified",
            Self::PreconditionFailed => "precondition_failed",
            Self::RangeUnsatisfiable => "range_unsatisfiable",
            Self::Redirect => "redirect",
            Self::Options => "options",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound => "not_found",
            Self::Refused(_) => "refused",
            Self::OffLimits => "off_limits",
            Self::Unreadable => "unreadable",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }

    /// The one status of each outcome.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Full | Self::Listed => StatusCode::OK,
            Self::Partial => StatusCode::PARTIAL_CONTENT,
            Self::NotModified => StatusCode::NOT_MODIFIED,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::RangeUnsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Redirect => StatusCode::MOVED_PERMANENTLY,
            Self::Options => StatusCode::NO_CONTENT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound | Self::Refused(_) | Self::OffLimits => StatusCode::NOT_FOUND,
            Self::Unreadable => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<&Trouble> for Outcome {
    fn from(trouble: &Trouble) -> Self {
        match trouble {
            Trouble::Missing => Self::NotFound,
            Trouble::Escapes | Trouble::Special => Self::OffLimits,
            Trouble::Forbidden => Self::Unreadable,
            Trouble::Exhausted | Trouble::Unstable => Self::Unavailable,
            Trouble::Io(_) => Self::Failed,
        }
    }
}

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How the request ended.
    pub outcome: Outcome,
    /// The status to send; always that of the outcome.
    pub status: StatusCode,
    /// The headers to send, `Content-Length` among them where there is or would be a body.
    pub headers: Headers,
    /// The body to send; empty for HEAD.
    pub body: Body,
}

impl Answer {
    /// For the log: the outcome's name, if it is an error.
    pub fn why(&self) -> Option<&'static str> {
        (self.status.as_u16() >= 400).then(|| self.outcome.as_str())
    }

    /// Adds the request's query, if any, to the `Location` of a redirect.
    #[must_use]
    pub(crate) fn with_query(mut self, query: Option<&str>) -> Self {
        let Some(query) = query else {
            return self;
        };
        for (name, value) in &mut self.headers.own {
            if *name == LOCATION {
                let joined = [value.as_bytes(), b"?", query.as_bytes()].concat();
                if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                    *value = joined;
                }
            }
        }
        self
    }

    /// The same answer, but nobody keeps it without asking again: something better is on its way.
    #[must_use]
    pub(crate) fn for_now(mut self) -> Self {
        let shared = self.headers.shared.fields().iter();
        let mut fields: Vec<_> = shared
            .filter(|(name, _)| *name != CACHE_CONTROL)
            .cloned()
            .collect();
        let short = HeaderValue::from_static("public, max-age=0, must-revalidate");
        fields.push((CACHE_CONTROL, short));
        self.headers.shared = Arc::new(fields.into());
        self
    }
}

/// A list of headers that is made once for each file and shared by its answers.
#[derive(Debug, Default)]
pub struct SharedHeaders {
    fields: Box<[(HeaderName, HeaderValue)]>,
    lines: Box<[u8]>,
}

impl SharedHeaders {
    /// The fields.
    pub fn fields(&self) -> &[(HeaderName, HeaderValue)] {
        &self.fields
    }

    /// The same in memory of its own, as far as values go.
    pub(crate) fn copied(&self) -> Self {
        let copied = |value: &HeaderValue| {
            HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
        };
        let fields = self.fields.iter();
        Self {
            fields: fields
                .map(|(name, value)| (name.clone(), copied(value)))
                .collect(),
            lines: self.lines.clone(),
        }
    }

    /// The same as HTTP/1.1 writes them: `name: value CRLF` for each.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }
}

impl From<Vec<(HeaderName, HeaderValue)>> for SharedHeaders {
    fn from(fields: Vec<(HeaderName, HeaderValue)>) -> Self {
        let mut lines = Vec::new();
        for (name, value) in &fields {
            write_line(&mut lines, name, value);
        }
        Self {
            fields: fields.into(),
            lines: lines.into(),
        }
    }
}

fn write_line(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The headers of an answer. No name occurs twice.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// What all answers of this kind for this file have.
    pub shared: Arc<SharedHeaders>,
    /// What belongs to this answer; empty for the most common ones.
    pub own: Vec<(HeaderName, HeaderValue)>,
}

impl Headers {
    /// Every header, shared ones first.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.shared
            .fields()
            .iter()
            .chain(&self.own)
            .map(|(name, value)| (name, value))
    }

    /// Appends every header as HTTP/1.1 writes it.
    pub fn write_lines(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.shared.lines());
        for (name, value) in &self.own {
            write_line(out, name, value);
        }
    }

    /// The value of `name`.
    pub fn value(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.iter()
            .find_map(|(known, value)| (known == name).then_some(value))
    }
}

/// The body of an answer.
#[derive(Clone, Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes at hand.
    Memory(Bytes),
    /// A stretch of a file, yet to be read.
    File(FilePart),
    /// Several of these, one after the other.
    Parts(Vec<Part>),
}

/// A piece of a body that consists of several.
#[derive(Clone, Debug)]
pub enum Part {
    /// Bytes at hand.
    Memory(Bytes),
    /// A stretch of a file, yet to be read.
    File(FilePart),
}

impl Body {
    /// How many bytes are to be written.
    pub fn content_length(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(part) => part.len,
            Self::Parts(parts) => parts.iter().map(Part::len).sum(),
        }
    }
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(part) => part.len,
        }
    }
}

/// Where the bytes of a stretch are.
#[derive(Clone, Debug)]
pub enum Origin {
    /// In a file of the site; it stays readable where its name is replaced or removed, and may be
    /// written to at any time.
    Disk(Arc<File>),
    /// In a copy that never changes.
    Frozen(Arc<Frozen>),
}

/// A stretch of an open file. The descriptor is shared: read by position, never by cursor.
#[derive(Clone, Debug)]
pub struct FilePart {
    /// Where it is.
    pub origin: Origin,
    /// The state in which the stretch was promised.
    pub facts: Facts,
    /// Where the stretch begins.
    pub offset: u64,
    /// How many bytes it has; at least one.
    pub len: u64,
}

impl FilePart {
    /// Reads the next bytes, at most `max`, and moves past them. Blocks as reading a file does.
    /// `None` at the end.
    ///
    /// # Errors
    ///
    /// Where the file shrank or changed since the answer was made. The transfer must then be
    /// broken off: filling up or going on would mix two states of the file.
    pub fn read_next(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        let max = self.at_most(max);
        if max == 0 {
            return Ok(None);
        }
        let bytes = match &self.origin {
            Origin::Disk(file) => read_unchanged(file, &self.facts, self.offset, max)?,
            Origin::Frozen(frozen) => pread(frozen.file(), self.offset, max)?,
        };
        self.advance(bytes.len());
        Ok(Some(bytes))
    }

    /// As [`FilePart::read_next`], without ever waiting for a disk: `WouldBlock` where that would
    /// be needed, or the file system cannot tell. Nothing is moved past then.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_ready(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        let max = self.at_most(max);
        if max == 0 {
            return Ok(None);
        }
        let bytes = match &self.origin {
            Origin::Disk(file) => match read_cached(file, self.offset, max) {
                Ok(bytes) if unchanged(file, &self.facts) => bytes,
                // The other way finds out, and says what is the matter.
                _ => return Err(io::ErrorKind::WouldBlock.into()),
            },
            Origin::Frozen(frozen) => pread(frozen.file(), self.offset, max)?,
        };
        self.advance(bytes.len());
        Ok(Some(bytes))
    }

    /// The file, if the kernel may send from it by itself: it never changes.
    pub fn sendable(&self) -> Option<&File> {
        match &self.origin {
            Origin::Disk(_) => None,
            Origin::Frozen(frozen) => Some(frozen.file()),
        }
    }

    fn at_most(&self, max: usize) -> usize {
        usize::try_from(self.len).unwrap_or(max).min(max)
    }

    fn advance(&mut self, count: usize) {
        let count = count as u64;
        self.offset = self.offset.saturating_add(count);
        self.len = self.len.saturating_sub(count);
    }
}

/// An answer without a file: the status as a short text, and what the status asks for.
pub(crate) fn plain(outcome: Outcome, head: bool) -> Answer {
    let status = outcome.status();
    let text = text(status);
    let mut own = Vec::with_capacity(3);
    if !text.is_empty() {
        own.push((
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        ));
        own.push((CONTENT_LENGTH, HeaderValue::from(text.len())));
    }
    match outcome {
        // RFC 9110, 15.5.6: a 405 says what is allowed.
        Outcome::MethodNotAllowed | Outcome::Options => {
            own.push((ALLOW, HeaderValue::from_static("GET, HEAD")));
        }
        Outcome::Unavailable => own.push((RETRY_AFTER, HeaderValue::from_static("1"))),
        _ => {}
    }
    Answer {
        outcome,
        status,
        headers: Headers {
            shared: Arc::default(),
            own,
        },
        body: if head || text.is_empty() {
            Body::Empty
        } else {
            Body::Memory(Bytes::from_static(text.as_bytes()))
        },
    }
}

fn text(status: StatusCode) -> &'static str {
    match status {
        StatusCode::MOVED_PERMANENTLY => "301 Moved Permanently\n",
        StatusCode::FORBIDDEN => "403 Forbidden\n",
        StatusCode::NOT_FOUND => "404 Not Found\n",
        StatusCode::METHOD_NOT_ALLOWED => "405 Method Not Allowed\n",
        StatusCode::PRECONDITION_FAILED => "412 Precondition Failed\n",
        StatusCode::RANGE_NOT_SATISFIABLE => "416 Range Not Satisfiable\n",
        StatusCode::INTERNAL_SERVER_ERROR => "500 Internal Server Error\n",
        StatusCode::SERVICE_UNAVAILABLE => "503 Service Unavailable\n",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_headers_is_empty() {
        assert_eq!(Headers::default().iter().count(), 0);
    }

    #[test]
    fn a_405_says_what_is_allowed() {
        let answer = plain(Outcome::MethodNotAllowed, false);
        assert_eq!(answer.headers.value(&ALLOW).unwrap(), "GET, HEAD");
        assert_eq!(answer.body.content_length(), 23);
    }

    #[test]
    fn a_head_has_the_length_but_not_the_body() {
        let answer = plain(Outcome::NotFound, true);
        assert_eq!(answer.headers.value(&CONTENT_LENGTH).unwrap(), "14");
        assert_eq!(answer.body.content_length(), 0);
    }

    #[test]
    fn a_query_goes_into_the_location_only() {
        let mut answer = plain(Outcome::Redirect, false);
        answer
            .headers
            .own
            .push((LOCATION, HeaderValue::from_static("a/")));
        let answer = answer.with_query(Some("b=c"));
        assert_eq!(answer.headers.value(&LOCATION).unwrap(), "a/?b=c");
        let other = plain(Outcome::NotFound, false).with_query(Some("b=c"));
        assert_eq!(other.headers.value(&LOCATION), None);
    }
}
