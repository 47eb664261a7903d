//! What the cache asks an upstream, and what the head of the reply means for it.

use std::sync::Arc;

use cache::storable::{NotStored, storable};
use cache::validate::{self, Freshened};
use cache::{
    Fields, Head, KeyBuf, KeyRef, Policy, RequestControl, Response, Storable, Stored, Times,
    coding, reuse, surrogate, tags,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use pingora::http::ResponseHeader;

use super::parts;
use crate::carry::failure::Failure;
use crate::carry::upstream::Outgoing;
use crate::exchange::caching::Caching;
use crate::snapshot::Cache;

/// Makes a client's request the cache's own.
pub(super) fn make_question(
    outgoing: &mut Outgoing,
    asked: &HeaderMap,
    caching: &Caching,
    base: Option<&Stored>,
) -> Result<(), Failure> {
    outgoing.head.set_method(Method::GET);
    for name in &validate::NOT_FORWARDED {
        outgoing.head.remove_header(name);
    }
    let (name, able) = capability();
    outgoing
        .head
        .append_header(name, able)
        .map_err(|_| Failure::BadReply)?;
    normalise(outgoing, asked, caching)?;
    if let Some(base) = base {
        for (name, value) in validate::conditions(base.head()) {
            outgoing
                .head
                .insert_header(name, value)
                .map_err(|_| Failure::BadReply)?;
        }
    }
    Ok(())
}

/// What the cache says of itself when it asks.
pub(super) fn capability() -> (HeaderName, HeaderValue) {
    let able = HeaderValue::from_static(surrogate::CAPABILITIES);
    (surrogate::CAPABILITY, able)
}

/// What of a request the origin is to see differently ([`cache::Normalised::changes`]): of what tells the
/// variants apart so much as does, and no more. One visitor's own request stays as it is: its reply is
/// neither stored nor compressed here.
pub(super) fn changes(
    caching: &Caching,
    asked: &dyn Fields,
) -> Vec<(HeaderName, Option<HeaderValue>)> {
    match caching.policy.is_personal(asked) {
        true => Vec::new(),
        false => caching.normal.apply(asked).changes().collect(),
    }
}

/// Makes the [`changes`].
pub(super) fn normalise(
    outgoing: &mut Outgoing,
    asked: &HeaderMap,
    caching: &Caching,
) -> Result<(), Failure> {
    for (name, value) in changes(caching, asked) {
        match value {
            Some(value) => outgoing
                .head
                .insert_header(name, value)
                .map_err(|_| Failure::BadReply)?,
            None => drop(outgoing.head.remove_header(&name)),
        }
    }
    Ok(())
}

/// What a reply's head means for the cache.
pub(super) enum Judged {
    /// To be stored, under these tags.
    Store(Arc<Head>, Vec<Box<[u8]>>),
    /// What is stored holds; its tags, where the 304 states them; the reason why it must not be kept,
    /// if there is one.
    Renewed(Arc<Head>, Option<Vec<Box<[u8]>>>, Option<NotStored>),
    /// The 304 was about something else.
    AskAgain,
    /// The upstream failed, and what is stored may stand in.
    ServeStored,
    Pass(NotStored),
}

pub(super) fn judge(
    asked: &dyn Fields,
    head: &ResponseHeader,
    base: Option<&Stored>,
    caching: &Caching,
    control: &RequestControl,
    times: Times,
) -> Judged {
    let policy = &caching.policy;
    let request = cache::Request {
        method: &Method::GET,
        fields: asked,
    };
    let reply = Response {
        status: head.status,
        fields: &head.headers,
    };
    if let Some(base) = base {
        if reply.status == StatusCode::NOT_MODIFIED {
            return match validate::freshen(base.head(), request, reply.fields, policy, times) {
                Freshened::Updated(head) => {
                    let head = negotiated(head, caching);
                    Judged::Renewed(head, restated(reply, policy), None)
                }
                Freshened::Once(head, reason) => Judged::Renewed(head, None, Some(reason)),
                Freshened::Mismatch => Judged::AskAgain,
            };
        }
        if reuse::is_failure(reply.status)
            && reuse::may_serve_on_error(&base.freshness(), control, times.received)
        {
            return Judged::ServeStored;
        }
    }
    match storable(request, reply, policy, times) {
        Storable::Store(freshness) => {
            let head = Head::new(request, reply, freshness, policy);
            // Too many of them are no reply to store.
            let tags = tags::read(reply.fields, &policy.tags).unwrap_or_default();
            Judged::Store(negotiated(Arc::new(head), caching), tags)
        }
        Storable::No(reason) => Judged::Pass(reason),
    }
}

/// The head of what is offered compressed too: caches behind this one have to tell the two apart.
fn negotiated(head: Arc<Head>, caching: &Caching) -> Arc<Head> {
    // A length that is not known yet may well be enough.
    let length = head.content_length().unwrap_or(coding::MIN_LENGTH);
    if caching.compress.is_empty() || !coding::is_compressible(&head, length, coding::MIN_LENGTH) {
        return head;
    }
    coding::identity_head(&head).map_or(head, Arc::new)
}

/// The tags that a 304 brings; `None` where it has none of the fields that carry them.
fn restated(reply: Response<'_>, policy: &Policy) -> Option<Vec<Box<[u8]>>> {
    let stated = policy.tags.iter().any(|name| reply.fields.has(name));
    stated.then(|| tags::read(reply.fields, &policy.tags).unwrap_or_default())
}

/// Takes out what was validated and is another page by now, where the new one would not take its
/// place: an application that changes its Vary would be asked for ever, as what has one goes first.
pub(super) fn supersede(cache: &Cache, key: KeyRef<'_>, base: Option<&Arc<Stored>>, new: &Head) {
    if let Some(old) = base.filter(|old| old.head().variant() != new.variant()) {
        cache.store.remove(key, old);
    }
}

/// A reply is not stored: counts it, and remembers of the page what others must know.
pub(super) fn not_kept(cache: &Cache, key: &KeyBuf, reason: NotStored) {
    cache.counts.not_stored(reason);
    if reason == NotStored::TooLarge {
        parts::let_pass(cache, key, parts::PASS_FOR);
    }
}

/// Whether a reply that is not stored means that what is stored is no longer true. One request
/// must not be able to take a page away from all: neither by what it asks for itself, nor by
/// making the upstream refuse it.
pub(super) fn replaces(reason: NotStored, status: StatusCode) -> bool {
    let gone = matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
    let refused = status.is_client_error() || status.is_server_error();
    reason.is_of_the_response() && (gone || !refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reply_that_speaks_for_all_replaces_what_is_stored() {
        assert!(replaces(NotStored::NoStore, StatusCode::OK));
        assert!(replaces(NotStored::NoStore, StatusCode::NOT_FOUND));
        assert!(!replaces(NotStored::Authorization, StatusCode::OK));
        assert!(!replaces(NotStored::RequestNoStore, StatusCode::OK));
        assert!(!replaces(NotStored::NoLifetime, StatusCode::BAD_REQUEST));
        assert!(!replaces(NotStored::NoStore, StatusCode::BAD_GATEWAY));
    }
}
