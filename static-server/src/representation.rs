//! One representation of a file, ready to be sent: its bytes or descriptor, its validators,
//! and the header lists that its answers share.
//!
//! A file has one representation for each coding it lies in. All that can be known before a
//! request comes is worked out here, once; what is left for a request is to compare.

use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_LOCATION,
    CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY,
};
use http::{HeaderName, HeaderValue, Method};

use crate::answer::{Answer, Body, FilePart, Headers, Origin, Outcome, Part, SharedHeaders, plain};
use crate::conditions::Validators;
use crate::date;
use crate::decision::{Decision, decide};
use crate::dictionary::USE_AS_DICTIONARY;
use crate::etag::EntityTag;
use crate::fields::Fields;
use crate::files::{Age, Facts};
use crate::frozen::{Allowance, Frozen};
use crate::hash::Hash;
use crate::multipart::{self, Boundary, Piece};
use crate::range::{self, ByteRange, Limits};
use crate::value;

/// From this size on, sending without copying is worth a second copy of what is in memory:
/// below, a copy costs less than the call that it spares (equal at 8 KiB; at 16 a quarter more).
pub(crate) const TWIN: u64 = 16 * 1_024;

/// How often a representation is sent before a copy is made that can be sent without copying.
pub(crate) const OFTEN: u32 = 8;

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Content {
    Memory(Held),
    /// On the disk.
    File(Arc<File>),
    /// In a copy that never changes.
    Frozen(Arc<Frozen>),
}

/// Bytes in memory, and a copy of them that the kernel can send by itself.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Bytes,
    twin: OnceLock<Arc<Frozen>>,
    /// How often there was none to send from.
    missed: AtomicU32,
    allowance: Arc<Allowance>,
}

impl Held {
    /// The copy, if it was worth making by now. Where there is no room for it, that is tried again
    /// from time to time.
    fn twin(&self) -> Option<Arc<Frozen>> {
        if (self.bytes.len() as u64) < TWIN {
            return None;
        }
        if let Some(twin) = self.twin.get() {
            return Some(Arc::clone(twin));
        }
        let missed = self.missed.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if !missed.is_multiple_of(OFTEN) {
            return None;
        }
        let len = self.bytes.len() as u64;
        let made = self.allowance.copy(len, [&self.bytes[..]]).ok()?;
        Some(Arc::clone(self.twin.get_or_init(|| Arc::new(made))))
    }
}

impl Content {
    /// `allowance`: for a copy that the kernel can send by itself.
    pub(crate) fn memory(bytes: Bytes, allowance: Arc<Allowance>) -> Self {
        Self::Memory(Held {
            bytes,
            twin: OnceLock::new(),
            missed: AtomicU32::new(0),
            allowance,
        })
    }

    /// What it counts for in the cache, in bytes; a file's descriptor for its share of those that
    /// there can be.
    pub(crate) fn weight(&self, len: u64) -> u64 {
        /// There are far fewer descriptors than bytes.
        const DESCRIPTOR: u64 = 64 * 1_024;
        match self {
            Self::Memory(_) => len,
            Self::File(_) => DESCRIPTOR,
            Self::Frozen(_) => len.max(DESCRIPTOR),
        }
    }
}

/// How the carrier of an answer can send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sending {
    /// Through its own memory, because of TLS or streams.
    #[default]
    Copied,
    /// Straight from a file: bytes may be handed to it as a stretch of one.
    FromFile,
}

/// What a representation is made of.
pub(crate) struct Source {
    pub(crate) content: Content,
    pub(crate) facts: Facts,
    /// The type of the file itself, not of its packed form.
    pub(crate) content_type: HeaderValue,
    /// The name of the coding.
    pub(crate) encoding: Option<&'static str>,
    /// When the file itself was modified; a packed form is as old as what it packs.
    pub(crate) modified: Facts,
    /// The first half of the content's SHA-256, where it is known. What is in memory is hashed here.
    pub(crate) hash: Option<Hash>,
    pub(crate) heading: Heading,
}

/// Header fields that do not follow from the content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heading {
    /// What the choice of the representation depended on.
    pub(crate) vary: Option<HeaderValue>,
    pub(crate) cache_control: Option<HeaderValue>,
    /// The name of what was chosen, where the request named something else (RFC 9110, 8.7).
    pub(crate) location: Option<HeaderValue>,
    /// What else the content is a dictionary for.
    pub(crate) dictionary: Option<HeaderValue>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Representation {
    content: Content,
    facts: Facts,
    content_type: HeaderValue,
    /// `None` as long as the hash of a large file is not known: a tag that another node would not
    /// give, or that this one would give only for a while, is worse than none.
    etag: Option<HeaderValue>,
    last_modified: Option<SystemTime>,
    date_is_strong: bool,
    boundary: Boundary,
    /// How often it was sent, up to [`OFTEN`].
    sent: AtomicU32,
    /// All headers of a 200. Those of other answers are chosen from it: they are fewer, and
    /// more rarely sent than they would be held.
    full: Arc<SharedHeaders>,
}

impl Representation {
    pub(crate) fn new(source: Source) -> Self {
        let hash = match &source.content {
            Content::Memory(held) => Some(Hash::of(&held.bytes)),
            Content::File(_) | Content::Frozen(_) => source.hash,
        };
        let etag = hash.map(|hash| entity_tag(hash, source.encoding));
        // RFC 9110, 8.8.2.1: a time that is yet to come must not be sent.
        let last_modified = (source.modified.age != Age::Future)
            .then_some(source.modified.modified)
            .and_then(date::whole_seconds);
        let full = headers(&source, etag.as_ref(), last_modified);
        Self {
            boundary: boundary(hash, &source.facts),
            sent: AtomicU32::new(0),
            date_is_strong: source.modified.age == Age::Settled,
            last_modified,
            etag,
            content: source.content,
            facts: source.facts,
            content_type: source.content_type,
            full: Arc::new(full.into()),
        }
    }

    /// The same with handles that no other thread counts, if it is in memory and of less than `most`
    /// bytes.
    pub(crate) fn of_a_thread(&self, most: u64) -> Option<Self> {
        let Content::Memory(held) = &self.content else {
            return None;
        };
        // From there on there may be a twin, which is all threads' in any case.
        if held.bytes.len() as u64 >= most.min(TWIN) {
            return None;
        }
        let bytes = Bytes::from_owner(held.bytes.clone());
        Some(Self {
            content: Content::memory(bytes, Arc::clone(&held.allowance)),
            facts: self.facts,
            content_type: self.content_type.clone(),
            etag: self.etag.clone(),
            last_modified: self.last_modified,
            date_is_strong: self.date_is_strong,
            boundary: self.boundary,
            sent: AtomicU32::new(self.sent.load(Ordering::Relaxed)),
            full: Arc::new(self.full.copied()),
        })
    }

    /// Whether the hash of the content is known.
    pub(crate) fn is_tagged(&self) -> bool {
        self.etag.is_some()
    }

    /// Counts one more sending; true once, when it has been sent often.
    pub(crate) fn becomes_popular(&self) -> bool {
        self.sent.load(Ordering::Relaxed) < OFTEN
            && self.sent.fetch_add(1, Ordering::Relaxed) + 1 == OFTEN
    }

    pub(crate) fn weight(&self) -> u64 {
        self.content.weight(self.facts.len)
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Answers a GET or HEAD: conditions first, then ranges (RFC 9110, 13.2.2).
    pub(crate) fn answer(&self, method: &Method, fields: &dyn Fields, sending: Sending) -> Answer {
        let head = method == Method::HEAD;
        let (len, limits) = (self.facts.len, Limits::default());
        match decide(method, fields, len, &self.validators(), limits) {
            Decision::Whole => {
                let body = if head {
                    Body::Empty
                } else {
                    self.whole(sending)
                };
                let headers = Headers {
                    shared: Arc::clone(&self.full),
                    own: Vec::new(),
                };
                with(Outcome::Full, headers, body)
            }
            Decision::Single(range) => self.single(range),
            Decision::Multiple(ranges) => self.multiple(&ranges),
            Decision::NotModified => {
                with(Outcome::NotModified, self.some(belongs_to_304), Body::Empty)
            }
            Decision::PreconditionFailed => plain(Outcome::PreconditionFailed, head),
            Decision::RangeUnsatisfiable => {
                let mut answer = plain(Outcome::RangeUnsatisfiable, head);
                let range = range::unsatisfied_range(len);
                answer.headers.own.push((CONTENT_RANGE, range));
                answer
            }
        }
    }

    fn validators(&self) -> Validators<'_> {
        let etag = self.etag.as_ref();
        Validators {
            etag: etag.and_then(|etag| EntityTag::parse(etag.as_bytes())),
            last_modified: self.last_modified,
            date_is_strong: self.date_is_strong,
        }
    }

    fn single(&self, range: ByteRange) -> Answer {
        let mut headers = self.some(belongs_to_206);
        headers.own.extend([
            (CONTENT_TYPE, self.content_type.clone()),
            (CONTENT_LENGTH, HeaderValue::from(range.len())),
            (CONTENT_RANGE, range.content_range(self.facts.len)),
        ]);
        let body = match self.slice(range) {
            Part::Memory(bytes) => Body::Memory(bytes),
            Part::File(part) => Body::File(part),
        };
        with(Outcome::Partial, headers, body)
    }

    fn multiple(&self, ranges: &[ByteRange]) -> Answer {
        let total = self.facts.len;
        let plan = multipart::plan(ranges, total, Some(&self.content_type), self.boundary);
        let mut headers = self.some(belongs_to_206);
        headers.own.extend([
            (CONTENT_TYPE, plan.content_type),
            (CONTENT_LENGTH, HeaderValue::from(plan.len)),
        ]);
        let parts = plan.pieces.into_iter().map(|piece| match piece {
            Piece::Text(text) => Part::Memory(text),
            Piece::Slice(range) => self.slice(range),
        });
        with(Outcome::Partial, headers, Body::Parts(parts.collect()))
    }

    fn whole(&self, sending: Sending) -> Body {
        let len = self.facts.len;
        let origin = match &self.content {
            Content::Memory(held) => {
                let twin = (sending == Sending::FromFile).then(|| held.twin());
                match twin.flatten() {
                    Some(twin) => Origin::Frozen(twin),
                    None => return Body::Memory(held.bytes.clone()),
                }
            }
            _ if len == 0 => return Body::Empty,
            Content::File(file) => Origin::Disk(Arc::clone(file)),
            Content::Frozen(frozen) => Origin::Frozen(Arc::clone(frozen)),
        };
        Body::File(self.stretch(origin, 0, len))
    }

    fn slice(&self, range: ByteRange) -> Part {
        let origin = match &self.content {
            Content::Memory(held) => {
                let bytes = &held.bytes;
                let bounds = usize::try_from(range.first()).and_then(|first| {
                    usize::try_from(range.last()).map(|last| first..last.saturating_add(1))
                });
                // A range was cut to this length before, so that neither can fail.
                let inside = bounds.ok().filter(|bounds| bounds.end <= bytes.len());
                let bytes = inside.map_or_else(Bytes::new, |bounds| bytes.slice(bounds));
                return Part::Memory(bytes);
            }
            Content::File(file) => Origin::Disk(Arc::clone(file)),
            Content::Frozen(frozen) => Origin::Frozen(Arc::clone(frozen)),
        };
        Part::File(self.stretch(origin, range.first(), range.len()))
    }

    fn stretch(&self, origin: Origin, offset: u64, len: u64) -> FilePart {
        FilePart {
            origin,
            facts: self.facts,
            offset,
            len,
        }
    }

    /// Those headers of a 200 that `belong` to another answer as well.
    fn some(&self, belong: fn(&HeaderName) -> bool) -> Headers {
        let fields = self.full.fields().iter();
        Headers {
            shared: Arc::default(),
            own: fields.filter(|(name, _)| belong(name)).cloned().collect(),
        }
    }
}

fn with(outcome: Outcome, headers: Headers, body: Body) -> Answer {
    Answer {
        outcome,
        status: outcome.status(),
        headers,
        body,
    }
}

/// The tag of a representation; those of different codings differ (RFC 9110, 8.8.3.3). A hash of
/// the content is strong by nature.
pub(crate) fn entity_tag(hash: Hash, encoding: Option<&'static str>) -> HeaderValue {
    value::visible(&match encoding {
        Some(encoding) => format!("\"{hash}-{encoding}\""),
        None => format!("\"{hash}\""),
    })
}

/// A boundary that the content cannot hold by chance: it is a hash of it, or of its stamp.
fn boundary(hash: Option<Hash>, facts: &Facts) -> Boundary {
    let seed = match hash {
        Some(hash) => Hash::of(&hash.0),
        None => {
            let since = facts.modified.duration_since(UNIX_EPOCH);
            let time = since.unwrap_or(Duration::ZERO).as_nanos();
            Hash::of(&[&time.to_be_bytes()[..], &facts.len.to_be_bytes()].concat())
        }
    };
    Boundary::new(u128::from_be_bytes(seed.0))
}

/// All headers of a 200.
fn headers(
    source: &Source,
    etag: Option<&HeaderValue>,
    last_modified: Option<SystemTime>,
) -> Vec<(HeaderName, HeaderValue)> {
    let heading = &source.heading;
    let coding = source.encoding.map(HeaderValue::from_static);
    [
        (CONTENT_TYPE, Some(source.content_type.clone())),
        (CONTENT_LENGTH, Some(HeaderValue::from(source.facts.len))),
        (CONTENT_ENCODING, coding),
        (LAST_MODIFIED, last_modified.and_then(date::format)),
        (ACCEPT_RANGES, Some(HeaderValue::from_static("bytes"))),
        (USE_AS_DICTIONARY, heading.dictionary.clone()),
        (ETAG, etag.cloned()),
        (VARY, heading.vary.clone()),
        (CACHE_CONTROL, heading.cache_control.clone()),
        (CONTENT_LOCATION, heading.location.clone()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// Whether a 304 carries the header (RFC 9110, 15.4.5).
fn belongs_to_304(name: &HeaderName) -> bool {
    [ETAG, VARY, CACHE_CONTROL, CONTENT_LOCATION].contains(name)
}

/// Whether a 206 has it from the 200: what it says of the whole does not hold for a part, and a
/// part is no dictionary.
fn belongs_to_206(name: &HeaderName) -> bool {
    ![CONTENT_TYPE, CONTENT_LENGTH, USE_AS_DICTIONARY].contains(name)
}
