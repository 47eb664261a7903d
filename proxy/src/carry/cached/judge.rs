//! What the cache asks an upstream, and what the head of the reply means for it.

use std::sync::Arc;

use cache::storable::{NotStored, storable};
use cache::validate::{self, Freshened};
use cache::{Head, Policy, RequestControl, Response, Storable, Stored, Times, reuse, surrogate};
use http::{HeaderValue, Method, StatusCode};

use pingora::http::ResponseHeader;

use crate::carry::failure::Failure;
use crate::carry::upstream::Outgoing;

/// Makes a client's request the cache's own.
pub(super) fn make_question(outgoing: &mut Outgoing, base: Option<&Stored>) -> Result<(), Failure> {
    outgoing.head.set_method(Method::GET);
    for name in &validate::NOT_FORWARDED {
        outgoing.head.remove_header(name);
    }
    let able = HeaderValue::from_static(surrogate::CAPABILITIES);
    outgoing
        .head
        .append_header(surrogate::CAPABILITY, able)
        .map_err(|_| Failure::BadReply)?;
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

/// What a reply's head means for the cache.
pub(super) enum Judged {
    Store(Arc<Head>),
    /// What is stored holds; the reason why it must not be kept, if there is one.
    Renewed(Arc<Head>, Option<NotStored>),
    /// The 304 was about something else.
    AskAgain,
    /// The upstream failed, and what is stored may stand in.
    ServeStored,
    Pass(NotStored),
}

pub(super) fn judge(
    asked: &http::HeaderMap,
    head: &ResponseHeader,
    base: Option<&Stored>,
    policy: &Policy,
    control: &RequestControl,
    times: Times,
) -> Judged {
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
                Freshened::Updated(head) => Judged::Renewed(head, None),
                Freshened::Once(head, reason) => Judged::Renewed(head, Some(reason)),
                Freshened::Mismatch => Judged::AskAgain,
            };
        }
        if reuse::is_failure(reply.status)
            && reuse::may_serve_on_error(base.head().freshness(), control, times.received)
        {
            return Judged::ServeStored;
        }
    }
    match storable(request, reply, policy, times) {
        Storable::Store(freshness) => {
            Judged::Store(Arc::new(Head::new(request, reply, freshness, policy)))
        }
        Storable::No(reason) => Judged::Pass(reason),
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
