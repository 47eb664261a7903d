//! Asking the origin whether what is stored still holds, and taking in the answer (RFC 9111
//! sections 4.3 and 3.2).
//!
//! The question carries the validators of the stored response and not those of the client, whose
//! own conditions are judged afterwards on the result ([`crate::condition`]). The answer comes back
//! as a new head; the stored one is never changed in place.

use std::sync::Arc;

use http::header::{
    CONTENT_LENGTH, DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::condition::{is_strongly_equal, is_weak, is_weakly_equal};
use crate::fields::{Fields, digits};
use crate::freshness::{Times, date_field};
use crate::head::{Head, is_untouched_by_304};
use crate::storable::{NotStored, Policy, Request, Response, Storable, storable};
use crate::{ResponseControl, date, freshness::Freshness};

/// The client's fields that a request on the cache's own behalf leaves out: conditions and ranges
/// would bring an answer that cannot be stored or shared.
pub const NOT_FORWARDED: [HeaderName; 6] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
    RANGE,
];

/// The fields that make a request a validation of what is stored (RFC 9111 section 4.3.1): none when
/// it has no validator and must be fetched anew.
pub fn conditions(stored: &Head) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let tag = stored.etag().map(|tag| (IF_NONE_MATCH, tag));
    let modified = stored
        .last_modified()
        .and_then(|_| stored.first(&LAST_MODIFIED))
        .map(|value| (IF_MODIFIED_SINCE, value));
    tag.into_iter()
        .chain(modified)
        .filter_map(|(name, value)| Some((name, HeaderValue::from_bytes(value).ok()?)))
}

/// Whether it has a validator to ask with.
pub fn is_validatable(stored: &Head) -> bool {
    stored.etag().is_some() || stored.last_modified().is_some()
}

/// What a 304 makes of a stored response.
#[derive(Debug)]
pub enum Freshened {
    /// It holds; put this head in its place.
    Updated(Arc<Head>),
    /// It holds for this request: answer with this head and the stored body. It may not be kept any
    /// more: remove it, unless the reason is [`NotStored::RequestNoStore`], which leaves the store
    /// as it is.
    Once(Arc<Head>, NotStored),
    /// The 304 is about another representation (RFC 9111 section 4.3.4): ask again, unconditionally.
    Mismatch,
}

/// Takes in a 304 that answers a validation. `request` is the one that the validation was made for,
/// with the fields that select the variant.
pub fn freshen(
    stored: &Head,
    request: Request<'_>,
    reply: &dyn Fields,
    policy: &Policy,
    times: Times,
) -> Freshened {
    if !is_about(stored, reply) {
        return Freshened::Mismatch;
    }
    updated(stored, request, reply, policy, times)
}

/// What the answer to a HEAD that went upstream means for the stored answer to GET (RFC 9111 section
/// 4.3.5).
#[derive(Debug)]
pub enum HeadEffect {
    /// It is the same: put this head in its place.
    Update(Arc<Head>),
    /// It is another by now: remove it.
    Invalidate,
    /// The answer says nothing about it.
    Nothing,
}

/// Compares the answer to a HEAD with what is stored for GET.
pub fn head_effect(
    stored: &Head,
    request: Request<'_>,
    reply: Response<'_>,
    policy: &Policy,
    times: Times,
) -> HeadEffect {
    if reply.status != StatusCode::OK || stored.status() != StatusCode::OK {
        return HeadEffect::Nothing;
    }
    let get = Request {
        method: &Method::GET,
        fields: request.fields,
    };
    if let Storable::No(why) = storable(get, reply, policy, times)
        && !why.is_of_the_response()
    {
        // What one visitor gets says nothing of what is stored for all.
        return HeadEffect::Nothing;
    }
    let fields = reply.fields;
    let same = |name: &HeaderName| {
        fields
            .first(name)
            .is_none_or(|value| stored.first(name) == Some(value))
    };
    let length = fields.first(&CONTENT_LENGTH).and_then(digits);
    let same_length = length.is_none_or(|length| stored.content_length() == Some(length));
    if !(same(&ETAG) && same(&LAST_MODIFIED) && same_length) {
        return HeadEffect::Invalidate;
    }
    match updated(stored, request, fields, policy, times) {
        Freshened::Updated(head) => HeadEffect::Update(head),
        Freshened::Mismatch => HeadEffect::Nothing,
        Freshened::Once(..) => HeadEffect::Invalidate,
    }
}

/// Whether a 304 is about this stored response (RFC 9111 section 4.3.4). One without any validator
/// answers the validators that we sent, and those were this response's.
fn is_about(stored: &Head, reply: &dyn Fields) -> bool {
    let modified = reply.first(&LAST_MODIFIED);
    let same_time = modified.is_some() && modified == stored.first(&LAST_MODIFIED);
    match (reply.first(&ETAG), stored.etag()) {
        (Some(tag), Some(known)) if is_weak(tag) || is_weak(known) => is_weakly_equal(tag, known),
        (Some(tag), Some(known)) => is_strongly_equal(tag, known),
        (Some(_), None) => same_time,
        (None, _) => modified.is_none() || same_time,
    }
}

/// Stored fields and those of the reply, the latter in the former's place (RFC 9111 section 3.2).
fn updated(
    stored: &Head,
    request: Request<'_>,
    reply: &dyn Fields,
    policy: &Policy,
    times: Times,
) -> Freshened {
    let merged = merge(stored, reply, times);
    let get = Request {
        method: &Method::GET,
        fields: request.fields,
    };
    let response = Response {
        status: stored.status(),
        fields: &merged,
    };
    let (freshness, refused) = match storable(get, response, policy, times) {
        Storable::Store(freshness) => (freshness, None),
        Storable::No(why) => {
            let control = ResponseControl::read(&merged);
            (
                Freshness::new(&control, &merged, false, policy, times),
                Some(why),
            )
        }
    };
    let head = Head::new(get, response, freshness, policy);
    // Without a Vary of its own the 304 leaves the variant what it is: the stored head may say more
    // than the origin did, for the sake of caches behind this one.
    let head = match reply.has(&VARY) {
        true => head,
        false => head.with_variant(stored.variant().clone()),
    };
    let head = Arc::new(head.with_length(stored.content_length()));
    match refused {
        None => Freshened::Updated(head),
        Some(why) => Freshened::Once(head, why),
    }
}

fn merge(stored: &Head, reply: &dyn Fields, times: Times) -> HeaderMap {
    let mut merged = stored.to_header_map();
    let mut replaced: Vec<HeaderName> = Vec::new();
    reply.all(&mut |name, value| {
        let Ok(name) = HeaderName::from_bytes(name) else {
            return;
        };
        let Ok(value) = HeaderValue::from_bytes(value) else {
            return;
        };
        // Age is of this reply and judges it, though it is not kept.
        if is_untouched_by_304(&name)
            && name != http::header::AGE
            && name != http::header::CONNECTION
        {
            return;
        }
        if !replaced.contains(&name) {
            merged.remove(&name);
            replaced.push(name.clone());
        }
        merged.append(name, value);
    });
    if date_field(reply, &DATE, times.received).is_none()
        && let Ok(value) = HeaderValue::from_bytes(&date::format(times.received))
    {
        merged.insert(DATE, value);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, date, fields, head_of, secs};

    fn take_in(stored: &[&str], reply: &[&str]) -> Freshened {
        take_in_for(&[], stored, reply)
    }

    fn take_in_for(asked: &[&str], stored: &[&str], reply: &[&str]) -> Freshened {
        let stored = head_of(200, stored);
        let (asked, reply) = (fields(asked), fields(reply));
        let request = Request {
            method: &Method::GET,
            fields: &asked,
        };
        let times = Times {
            sent: at(100),
            received: at(100),
        };
        freshen(&stored, request, &reply, &Policy::default(), times)
    }

    fn head(freshened: Freshened) -> Arc<Head> {
        match freshened {
            Freshened::Updated(head) => head,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_question_carries_the_stored_validators() {
        let modified = format!("last-modified: {}", date(0));
        let asked: Vec<_> = conditions(&head_of(200, &["etag: W/\"a\"", &modified])).collect();
        assert_eq!(
            asked[0],
            (IF_NONE_MATCH, HeaderValue::from_static("W/\"a\""))
        );
        assert_eq!(asked[1].0, IF_MODIFIED_SINCE);
        assert_eq!(asked[1].1.as_bytes(), date(0).as_bytes());
        let without = head_of(200, &["last-modified: yesterday"]);
        assert_eq!(conditions(&without).count(), 0);
        assert!(!is_validatable(&without));
    }

    #[test]
    fn a_304_replaces_fields_and_starts_a_new_life() {
        let head = head(take_in(
            &[
                "etag: \"a\"",
                "cache-control: max-age=10",
                "x-a: 1",
                "x-a: 2",
                "x-b: 1",
                "content-length: 3",
            ],
            &[
                "etag: \"a\"",
                "cache-control: max-age=60",
                "x-a: 3",
                "age: 5",
            ],
        ));
        assert_eq!(head.first(&HeaderName::from_static("x-a")), Some(&b"3"[..]));
        assert_eq!(head.iter().filter(|(name, _)| *name == b"x-a").count(), 1);
        assert_eq!(head.first(&HeaderName::from_static("x-b")), Some(&b"1"[..]));
        assert_eq!(
            head.first(&DATE),
            Some(date(100).as_bytes()),
            "no Date in the 304"
        );
        assert_eq!(head.freshness().lifetime, secs(60));
        assert_eq!(head.freshness().age(at(100)), secs(5));
        assert_eq!(head.content_length(), Some(3));
    }

    #[test]
    fn a_304_does_not_change_what_describes_the_body() {
        let head = head(take_in(
            &[
                "etag: \"a\"",
                "cache-control: max-age=10",
                "content-encoding: gzip",
                "content-length: 3",
            ],
            &[
                "content-encoding: br",
                "content-length: 0",
                "content-range: bytes 0-0/1",
                "transfer-encoding: chunked",
                "set-cookie: a=b",
                "content-language: de",
                "connection: x-hop",
                "x-hop: 1",
            ],
        ));
        let mut names: Vec<_> = head.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                &b"cache-control"[..],
                b"content-encoding",
                b"content-language",
                b"content-length",
                b"date",
                b"etag"
            ]
        );
        assert_eq!(
            head.first(&http::header::CONTENT_ENCODING),
            Some(&b"gzip"[..])
        );
        assert_eq!(head.content_length(), Some(3));
    }

    #[test]
    fn a_304_without_vary_leaves_the_variant_what_it_is() {
        let plain = head_of(200, &["etag: \"a\"", "cache-control: max-age=10"]);
        let shown = crate::coding::identity_head(&plain).expect("it says Vary from here on");
        assert!(shown.has(&VARY) && shown.variant() == plain.variant());
        let asked = fields(&["accept-encoding: br"]);
        let request = Request {
            method: &Method::GET,
            fields: &asked,
        };
        let times = Times {
            sent: at(9),
            received: at(9),
        };
        let policy = Policy::default();
        let renewed = head(freshen(&shown, request, &fields(&[]), &policy, times));
        assert_eq!(renewed.variant(), plain.variant());
        assert!(renewed.has(&VARY));
        let restated = fields(&["vary: accept-encoding"]);
        let renewed = head(freshen(&shown, request, &restated, &policy, times));
        assert_ne!(
            renewed.variant(),
            plain.variant(),
            "the origin's own counts"
        );
    }

    #[test]
    fn a_304_about_another_representation_is_a_mismatch() {
        let modified = format!("last-modified: {}", date(0));
        let other = format!("last-modified: {}", date(1));
        for (stored, reply) in [
            ("etag: \"a\"", "etag: \"b\""),
            ("etag: \"a\"", "etag: W/\"b\""),
            (modified.as_str(), other.as_str()),
            (modified.as_str(), "etag: \"a\""),
        ] {
            let freshened = take_in(&[stored, "cache-control: max-age=1"], &[reply]);
            assert!(matches!(freshened, Freshened::Mismatch), "{stored} {reply}");
        }
        for (stored, reply) in [
            ("etag: W/\"a\"", "etag: \"a\""),
            ("etag: \"a\"", "etag: \"a\""),
            (modified.as_str(), modified.as_str()),
            ("etag: \"a\"", "x-none: 1"),
        ] {
            let freshened = take_in(&[stored, "cache-control: max-age=1"], &[reply]);
            assert!(
                matches!(freshened, Freshened::Updated(_)),
                "{stored} {reply}"
            );
        }
    }

    #[test]
    fn a_304_that_forbids_storing_is_used_once() {
        let stored = ["etag: \"a\"", "cache-control: max-age=10"];
        let freshened = take_in(&stored, &["cache-control: private"]);
        assert!(matches!(freshened, Freshened::Once(_, NotStored::Private)));
        let freshened = take_in_for(&["cache-control: no-store"], &stored, &[]);
        assert!(matches!(
            freshened,
            Freshened::Once(_, NotStored::RequestNoStore)
        ));
    }

    #[test]
    fn a_head_reply_updates_or_invalidates_the_stored_get() {
        let stored = head_of(
            200,
            &[
                "etag: \"a\"",
                "cache-control: max-age=10",
                "content-length: 3",
            ],
        );
        let effect_for = |asked: &[&str], status: u16, reply: &[&str]| {
            let (asked, reply) = (fields(asked), fields(reply));
            let request = Request {
                method: &Method::HEAD,
                fields: &asked,
            };
            let status = StatusCode::from_u16(status).unwrap();
            let times = Times {
                sent: at(9),
                received: at(9),
            };
            let response = Response {
                status,
                fields: &reply,
            };
            head_effect(&stored, request, response, &Policy::default(), times)
        };
        let effect = |status, reply: &[&str]| effect_for(&[], status, reply);
        let same = effect(200, &["etag: \"a\"", "content-length: 3", "x-new: 1"]);
        assert!(
            matches!(same, HeadEffect::Update(head) if head.has(&HeaderName::from_static("x-new")))
        );
        assert!(matches!(
            effect(200, &["etag: \"b\""]),
            HeadEffect::Invalidate
        ));
        assert!(matches!(
            effect(200, &["content-length: 4"]),
            HeadEffect::Invalidate
        ));
        assert!(matches!(
            effect(200, &["last-modified: x"]),
            HeadEffect::Invalidate
        ));
        assert!(matches!(effect(503, &["etag: \"b\""]), HeadEffect::Nothing));
        for own in ["authorization: x", "cache-control: no-store"] {
            let other = effect_for(&[own], 200, &["etag: \"b\""]);
            assert!(matches!(other, HeadEffect::Nothing), "{own}");
        }
    }
}
