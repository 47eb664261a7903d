//! One representation of a file, ready to be sent: its bytes or descriptor, its validators,
//! and the header lists that its answers share.
//!
//! A file has one representation for each coding it lies in. All that can be known before a
//! request comes is worked out here, once; what is left for a request is to compare.

use std::fmt::Write as _;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY,
};
use http::{HeaderName, HeaderValue, Method};
use sha2::{Digest, Sha256};

use crate::answer::{Answer, Body, FilePart, Headers, List, Outcome, Part, plain};
use crate::conditions::{self, Precondition, Validators};
use crate::date;
use crate::encoding::Encoding;
use crate::etag::EntityTag;
use crate::fields::Fields;
use crate::files::{Age, Facts};
use crate::multipart::{self, Boundary, Piece};
use crate::range::{self, ByteRange, Limits, RangeOutcome};
use crate::value;

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Content {
    Memory(Bytes),
    File(Arc<File>),
}

/// What a representation is made of.
pub(crate) struct Source {
    pub(crate) content: Content,
    pub(crate) facts: Facts,
    /// The type of the file itself, not of its packed form.
    pub(crate) content_type: HeaderValue,
    pub(crate) encoding: Option<Encoding>,
    /// When the file itself was modified; a packed form is as old as what it packs.
    pub(crate) modified: Facts,
    /// Whether the file lies in several codings.
    pub(crate) negotiable: bool,
    pub(crate) cache_control: Option<HeaderValue>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Representation {
    content: Content,
    facts: Facts,
    content_type: HeaderValue,
    etag: HeaderValue,
    last_modified: Option<SystemTime>,
    date_is_strong: bool,
    boundary: Boundary,
    /// All headers of a 200.
    full: List,
    /// Those of a 206 but for type, length and range.
    partial: List,
    /// Those that a 304 may carry (RFC 9110, 15.4.5).
    not_modified: List,
}

impl Representation {
    pub(crate) fn new(source: Source) -> Self {
        let fingerprint = fingerprint(&source);
        let etag = entity_tag(&source, &fingerprint);
        // RFC 9110, 8.8.2.1: a time that is yet to come must not be sent.
        let last_modified = (source.modified.age != Age::Future)
            .then_some(source.modified.modified)
            .and_then(date::whole_seconds);
        let lists = Lists::new(&source, &etag, last_modified);
        Self {
            boundary: boundary(&fingerprint),
            date_is_strong: source.modified.age == Age::Settled,
            last_modified,
            etag,
            content: source.content,
            facts: source.facts,
            content_type: source.content_type,
            full: lists.full.into(),
            partial: lists.partial.into(),
            not_modified: lists.not_modified.into(),
        }
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Answers a GET or HEAD: conditions first, then ranges (RFC 9110, 13.2.2).
    pub(crate) fn answer(&self, method: &Method, fields: &dyn Fields) -> Answer {
        let head = method == Method::HEAD;
        let validators = self.validators();
        match conditions::evaluate(method, fields, &validators) {
            Precondition::Proceed => {}
            Precondition::NotModified => {
                return self.with(
                    Outcome::NotModified,
                    &self.not_modified,
                    Vec::new(),
                    Body::Empty,
                );
            }
            Precondition::Failed => return plain(Outcome::PreconditionFailed, head),
        }
        match range::evaluate(
            method,
            fields,
            self.facts.len,
            &validators,
            Limits::default(),
        ) {
            RangeOutcome::Whole => {
                let body = if head { Body::Empty } else { self.whole() };
                self.with(Outcome::Full, &self.full, Vec::new(), body)
            }
            RangeOutcome::Single(range) => self.single(range),
            RangeOutcome::Multiple(ranges) => self.multiple(&ranges),
            RangeOutcome::Unsatisfiable => {
                let mut answer = plain(Outcome::RangeUnsatisfiable, head);
                let range = range::unsatisfied_range(self.facts.len);
                answer.headers.own.push((CONTENT_RANGE, range));
                answer
            }
        }
    }

    fn validators(&self) -> Validators<'_> {
        Validators {
            etag: EntityTag::parse(self.etag.as_bytes()),
            last_modified: self.last_modified,
            date_is_strong: self.date_is_strong,
        }
    }

    fn single(&self, range: ByteRange) -> Answer {
        let own = vec![
            (CONTENT_TYPE, self.content_type.clone()),
            (CONTENT_LENGTH, HeaderValue::from(range.len())),
            (CONTENT_RANGE, range.content_range(self.facts.len)),
        ];
        let body = match self.slice(range) {
            Part::Memory(bytes) => Body::Memory(bytes),
            Part::File(part) => Body::File(part),
        };
        self.with(Outcome::Partial, &self.partial, own, body)
    }

    fn multiple(&self, ranges: &[ByteRange]) -> Answer {
        let total = self.facts.len;
        let plan = multipart::plan(ranges, total, Some(&self.content_type), self.boundary);
        let own = vec![
            (CONTENT_TYPE, plan.content_type),
            (CONTENT_LENGTH, HeaderValue::from(plan.len)),
        ];
        let parts = plan.pieces.into_iter().map(|piece| match piece {
            Piece::Text(text) => Part::Memory(text),
            Piece::Slice(range) => self.slice(range),
        });
        self.with(
            Outcome::Partial,
            &self.partial,
            own,
            Body::Parts(parts.collect()),
        )
    }

    fn whole(&self) -> Body {
        match &self.content {
            Content::Memory(bytes) => Body::Memory(bytes.clone()),
            Content::File(_) if self.facts.len == 0 => Body::Empty,
            Content::File(file) => Body::File(self.stretch(file, 0, self.facts.len)),
        }
    }

    fn slice(&self, range: ByteRange) -> Part {
        match &self.content {
            Content::Memory(bytes) => {
                let bounds = usize::try_from(range.first()).and_then(|first| {
                    usize::try_from(range.last()).map(|last| first..last.saturating_add(1))
                });
                // A range was cut to this length before, so that neither can fail.
                let inside = bounds.ok().filter(|bounds| bounds.end <= bytes.len());
                Part::Memory(inside.map_or_else(Bytes::new, |bounds| bytes.slice(bounds)))
            }
            Content::File(file) => Part::File(self.stretch(file, range.first(), range.len())),
        }
    }

    fn stretch(&self, file: &Arc<File>, offset: u64, len: u64) -> FilePart {
        FilePart {
            file: Arc::clone(file),
            facts: self.facts,
            offset,
            len,
        }
    }

    fn with(
        &self,
        outcome: Outcome,
        shared: &List,
        own: Vec<(HeaderName, HeaderValue)>,
        body: Body,
    ) -> Answer {
        Answer {
            outcome,
            status: outcome.status(),
            headers: Headers {
                shared: Arc::clone(shared),
                own,
            },
            body,
        }
    }
}

/// What tells one content from another, without the coding.
enum Fingerprint {
    /// The first half of SHA-256 over the bytes: the same on every machine.
    Content([u8; 16]),
    /// Modification time in nanoseconds and length.
    Stamp(u128, u64),
}

fn fingerprint(source: &Source) -> Fingerprint {
    match &source.content {
        Content::Memory(bytes) => Fingerprint::Content(half_hash(bytes)),
        Content::File(_) => {
            let since = source.facts.modified.duration_since(UNIX_EPOCH);
            Fingerprint::Stamp(since.unwrap_or(Duration::ZERO).as_nanos(), source.facts.len)
        }
    }
}

fn half_hash(bytes: &[u8]) -> [u8; 16] {
    let hash = Sha256::digest(bytes);
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(hash) {
        *to = from;
    }
    half
}

/// The tag of a representation; those of different codings differ (RFC 9110, 8.8.3.3).
///
/// A hash of the content is strong by nature. A time stamp is strong only where the file can
/// no longer change without another stamp (8.8.1); until then the tag is weak.
fn entity_tag(source: &Source, fingerprint: &Fingerprint) -> HeaderValue {
    let mut text = String::with_capacity(48);
    match fingerprint {
        Fingerprint::Content(hash) => {
            text.push('"');
            for byte in hash {
                let _ = write!(text, "{byte:02x}");
            }
        }
        Fingerprint::Stamp(time, len) => {
            let weak = source.facts.age == Age::Fresh;
            let _ = write!(text, "{}\"{time:x}-{len:x}", if weak { "W/" } else { "" });
        }
    }
    if let Some(encoding) = source.encoding {
        text.push('-');
        text.push_str(encoding.as_str());
    }
    text.push('"');
    value::visible(&text)
}

/// A boundary that the content cannot hold by chance: it is a hash of it, or of its stamp.
fn boundary(fingerprint: &Fingerprint) -> Boundary {
    let seed = match fingerprint {
        Fingerprint::Content(hash) => half_hash(hash),
        Fingerprint::Stamp(time, len) => {
            half_hash(&[&time.to_be_bytes()[..], &len.to_be_bytes()].concat())
        }
    };
    Boundary::new(u128::from_be_bytes(seed))
}

/// The header lists under construction.
#[derive(Default)]
struct Lists {
    full: Vec<(HeaderName, HeaderValue)>,
    partial: Vec<(HeaderName, HeaderValue)>,
    not_modified: Vec<(HeaderName, HeaderValue)>,
}

impl Lists {
    fn new(source: &Source, etag: &HeaderValue, last_modified: Option<SystemTime>) -> Self {
        let mut lists = Self::default();
        lists.full.push((CONTENT_TYPE, source.content_type.clone()));
        lists
            .full
            .push((CONTENT_LENGTH, HeaderValue::from(source.facts.len)));
        if let Some(encoding) = source.encoding {
            lists.content(
                CONTENT_ENCODING,
                HeaderValue::from_static(encoding.as_str()),
            );
        }
        if let Some(date) = last_modified.and_then(date::format) {
            lists.content(LAST_MODIFIED, date);
        }
        lists.content(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        lists.always(ETAG, etag.clone());
        if source.negotiable {
            lists.always(VARY, HeaderValue::from(ACCEPT_ENCODING));
        }
        if let Some(cache_control) = &source.cache_control {
            lists.always(CACHE_CONTROL, cache_control.clone());
        }
        lists
    }

    /// A header of what has content.
    fn content(&mut self, name: HeaderName, value: HeaderValue) {
        self.full.push((name.clone(), value.clone()));
        self.partial.push((name, value));
    }

    /// A header of a 304 too (RFC 9110, 15.4.5).
    fn always(&mut self, name: HeaderName, value: HeaderValue) {
        self.content(name.clone(), value.clone());
        self.not_modified.push((name, value));
    }
}
