//! May this response be kept? RFC 9111 section 3, and where a shop wants more care than that.
//!
//! Stricter than the RFC: a response with Set-Cookie is never kept, though the RFC would allow it;
//! nor is one that says nothing at all about caching, unless the operator gave a lifetime for such
//! or Last-Modified allows a guess. `Vary: *` is not kept either, as nothing could ever match it.
//!
//! Only whole answers to GET are kept. Partial ones pass through.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, SET_COOKIE, VARY};
use http::{HeaderName, Method, StatusCode};

use crate::control::{RequestControl, ResponseControl, Scope};
use crate::fields::{self, Fields};
use crate::freshness::{Freshness, Source, Times};
use crate::tags;

/// The largest object that a [`Policy`] may allow; the store counts in 32 bits.
pub const LARGEST_OBJECT: u64 = 1 << 31;

/// What the operator decided for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The lifetime of responses that state none, where their status allows it. `None` leaves it to
    /// Last-Modified.
    pub ttl: Option<Duration>,
    /// Used where the origin states no `stale-while-revalidate`.
    pub stale_while_revalidate: Duration,
    /// Used where the origin states no `stale-if-error`.
    pub stale_if_error: Duration,
    /// Bytes of body; larger objects are not kept. At most [`LARGEST_OBJECT`].
    pub max_object_size: u64,
    /// Request fields that select a variant, in addition to the origin's Vary.
    pub vary: Vec<HeaderName>,
    /// Response fields that carry [tags]; they are not kept among the fields.
    pub tags: Vec<HeaderName>,
    /// Whether a response to a request with Authorization is kept where it allows that itself
    /// (RFC 9111 section 3.5); if not, never.
    pub share_authorized: bool,
    /// Cookies of one visitor: a response to a request with one of them is not kept.
    pub session_cookies: Vec<String>,
}

impl Policy {
    /// The size limit where none is configured: 8 MiB.
    pub const MAX_OBJECT_SIZE: u64 = 8 << 20;

    /// Whether a request is one visitor's own, so that its reply is not for others.
    pub fn is_personal(&self, request: &dyn Fields) -> bool {
        (request.has(&AUTHORIZATION) && !self.share_authorized) || self.has_session(request)
    }

    fn has_session(&self, request: &dyn Fields) -> bool {
        self.session_cookies
            .iter()
            .any(|name| fields::cookie(request, name).is_some())
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: None,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            max_object_size: Self::MAX_OBJECT_SIZE,
            vary: Vec::new(),
            tags: Vec::new(),
            share_authorized: false,
            session_cookies: Vec::new(),
        }
    }
}

/// The head of a request, as the client sent it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The fields.
    pub fields: &'a dyn Fields,
}

/// The head of a response, as the upstream sent it.
#[derive(Clone, Copy)]
pub struct Response<'a> {
    /// The status, a final one.
    pub status: StatusCode,
    /// The fields.
    pub fields: &'a dyn Fields,
}

/// Whether a response may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storable {
    /// Yes, and this is how long it holds.
    Store(Freshness),
    /// No.
    No(NotStored),
}

/// Why a response is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStored {
    /// Only answers to GET are kept.
    Method,
    /// A part (206), a 304, an interim status, or one that `must-understand` wants
    /// understood and is not.
    Status,
    /// The request said `no-store` (RFC 9111 section 5.2.1.5).
    RequestNoStore,
    /// The response said `no-store` (section 5.2.2.5).
    NoStore,
    /// The response said `private` (section 5.2.2.7).
    Private,
    /// The response sets a cookie.
    SetCookie,
    /// The request carried Authorization, and the operator, or the response (section 3.5), does not
    /// allow it.
    Authorization,
    /// The request carried a cookie of one visitor.
    Session,
    /// The response has more tags than can be kept track of.
    Tags,
    /// It was not asked for often enough yet.
    MinUses,
    /// `Vary: *`, or a Vary that is no list of names (section 4.1).
    Vary,
    /// Nothing says how long it holds, nor that it may be kept.
    NoLifetime,
    /// It is stale already, cannot be validated, and may not be served stale: of no use.
    Useless,
    /// The body is, or says it is, larger than the limit.
    TooLarge,
}

impl NotStored {
    /// Every reason, in the order of [`index`](Self::index).
    pub const ALL: [Self; 14] = [
        Self::Method,
        Self::Status,
        Self::RequestNoStore,
        Self::NoStore,
        Self::Private,
        Self::SetCookie,
        Self::Authorization,
        Self::Session,
        Self::Tags,
        Self::MinUses,
        Self::Vary,
        Self::NoLifetime,
        Self::Useless,
        Self::TooLarge,
    ];

    /// The place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether the response itself forbids it. The other reasons lie in one request, and say
    /// nothing about what is stored or what others would get.
    pub fn is_of_the_response(self) -> bool {
        !matches!(
            self,
            Self::RequestNoStore
                | Self::Authorization
                | Self::Session
                | Self::Method
                | Self::MinUses
        )
    }

    /// The name for logs and for `detail` of Cache-Status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::RequestNoStore => "request-no-store",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::SetCookie => "set-cookie",
            Self::Authorization => "authorization",
            Self::Session => "session",
            Self::Tags => "tags",
            Self::MinUses => "min-uses",
            Self::Vary => "vary",
            Self::NoLifetime => "no-lifetime",
            Self::Useless => "useless",
            Self::TooLarge => "too-large",
        }
    }
}

/// What of a request decides whether its response may be kept: for carriers that do not have its head
/// any more when the response comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    is_get: bool,
    has_session: bool,
    is_authorized: bool,
    no_store: bool,
}

impl Asker {
    /// Reads a request.
    pub fn new(request: Request<'_>, policy: &Policy) -> Self {
        Self {
            is_get: request.method == Method::GET,
            has_session: policy.has_session(request.fields),
            is_authorized: request.fields.has(&AUTHORIZATION),
            no_store: RequestControl::read(request.fields).no_store,
        }
    }
}

/// Decides on the response to a request, when its head came in.
pub fn storable(
    request: Request<'_>,
    response: Response<'_>,
    policy: &Policy,
    times: Times,
) -> Storable {
    storable_for(Asker::new(request, policy), response, policy, times)
}

/// [`storable`], of a request that was read before.
pub fn storable_for(
    asker: Asker,
    response: Response<'_>,
    policy: &Policy,
    times: Times,
) -> Storable {
    let control = ResponseControl::read(response.fields);
    match refusal(asker, response, &control, policy) {
        Some(why) => Storable::No(why),
        None => judge(response, &control, policy, times),
    }
}

/// What forbids storing, whatever the lifetime.
fn refusal(
    asker: Asker,
    response: Response<'_>,
    control: &ResponseControl,
    policy: &Policy,
) -> Option<NotStored> {
    let status = response.status;
    if !asker.is_get {
        return Some(NotStored::Method);
    }
    // Content-Range under any other status has no meaning (RFC 9110 section 14.4).
    let partial = status == StatusCode::PARTIAL_CONTENT;
    if status.is_informational() || status == StatusCode::NOT_MODIFIED || partial {
        return Some(NotStored::Status);
    }
    if control.must_understand && !is_understood(status) {
        return Some(NotStored::Status);
    }
    // Before anything that the response says: an application that answers one visitor `private` says
    // it of him, and not of the page that is for all.
    if asker.has_session {
        return Some(NotStored::Session);
    }
    if asker.is_authorized && !policy.share_authorized {
        return Some(NotStored::Authorization);
    }
    if asker.no_store {
        return Some(NotStored::RequestNoStore);
    }
    // Section 5.2.2.3: a status that is understood puts the no-store beside must-understand aside.
    if control.no_store && !control.must_understand {
        return Some(NotStored::NoStore);
    }
    if control.private == Scope::Whole {
        return Some(NotStored::Private);
    }
    if response.fields.has(&SET_COOKIE) {
        return Some(NotStored::SetCookie);
    }
    let allows = control.public || control.s_maxage.is_some() || control.must_revalidate;
    if asker.is_authorized && !allows {
        return Some(NotStored::Authorization);
    }
    if tags::read(response.fields, &policy.tags).is_err() {
        return Some(NotStored::Tags);
    }
    if !has_usable_vary(response.fields) {
        return Some(NotStored::Vary);
    }
    let length = response
        .fields
        .first(&CONTENT_LENGTH)
        .and_then(fields::digits);
    let limit = policy.max_object_size.min(LARGEST_OBJECT);
    length
        .is_some_and(|length| length > limit)
        .then_some(NotStored::TooLarge)
}

/// The last condition of section 3: something says that it may be kept; and it must be of use.
fn judge(
    response: Response<'_>,
    control: &ResponseControl,
    policy: &Policy,
    times: Times,
) -> Storable {
    // Section 4.2.2: without a stated lifetime, only these may be given one.
    let heuristics = is_heuristically_cacheable(response.status) || control.public;
    let freshness = Freshness::new(control, response.fields, heuristics, policy, times);
    let stated = control.public || control.no_cache != Scope::Absent;
    if freshness.source == Source::Nowhere && !(heuristics && stated) {
        return Storable::No(NotStored::NoLifetime);
    }
    let reusable = freshness.is_fresh(times.received) && !freshness.no_cache;
    let windows = freshness
        .stale_while_revalidate
        .max(freshness.stale_if_error);
    let stretches = windows > freshness.staleness(times.received) && !freshness.no_cache;
    let validates = response.fields.has(&http::header::ETAG)
        || response.fields.has(&http::header::LAST_MODIFIED);
    if reusable || stretches || validates {
        Storable::Store(freshness)
    } else {
        Storable::No(NotStored::Useless)
    }
}

/// Request fields that a proxy writes anew for the origin: what a client says in them is not what the
/// response was chosen by. X-Forwarded-Proto is not one of them: what it says is the scheme, which is part
/// of the key.
const WRITTEN_ANEW: [&str; 5] = [
    "forwarded",
    "te",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-request-id",
];

/// Whether variants can be told apart by what clients say.
fn has_usable_vary(fields: &dyn Fields) -> bool {
    let mut usable = true;
    fields::each_member(fields, &VARY, &mut |name| {
        usable &= name != b"*"
            && HeaderName::from_bytes(name)
                .is_ok_and(|name| !WRITTEN_ANEW.contains(&name.as_str()));
    });
    usable
}

/// The statuses for which a lifetime may be guessed (RFC 9110 section 15.1), but for 206.
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// The final statuses whose meaning for a cache is known here: those that RFC 9110 section 15
/// defines, and a few that others do.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421..=424 | 426 | 428 | 429 | 431
            | 451 | 500..=505 | 507 | 508 | 511
    )
}

#[cfg(test)]
mod tests;
