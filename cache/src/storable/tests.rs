//! What may be stored and what never.

use super::*;
use crate::testing::{at, date, fields, secs};
use proptest::prelude::*;

fn decide(method: &Method, asked: &[&str], status: u16, replied: &[&str]) -> Storable {
    decide_by(&Policy::default(), method, asked, status, replied)
}

fn decide_by(
    policy: &Policy,
    method: &Method,
    asked: &[&str],
    status: u16,
    replied: &[&str],
) -> Storable {
    let (asked, replied) = (fields(asked), fields(replied));
    let request = Request {
        method,
        fields: &asked,
    };
    let status = StatusCode::from_u16(status).unwrap();
    let times = Times {
        sent: at(0),
        received: at(0),
    };
    storable(
        request,
        Response {
            status,
            fields: &replied,
        },
        policy,
        times,
    )
}

fn get(status: u16, replied: &[&str]) -> Storable {
    decide(&Method::GET, &[], status, replied)
}

fn is_kept(decision: Storable) -> bool {
    matches!(decision, Storable::Store(_))
}

const FRESH: &str = "cache-control: max-age=60";

#[test]
fn only_answers_to_get_are_kept() {
    assert!(is_kept(get(200, &[FRESH])));
    for method in [Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS] {
        let decision = decide(&method, &[], 200, &[FRESH]);
        assert_eq!(decision, Storable::No(NotStored::Method));
    }
}

#[test]
fn any_final_status_is_kept_with_a_stated_lifetime() {
    for status in [200, 201, 204, 302, 307, 400, 404, 499, 500, 503, 599] {
        assert!(is_kept(get(status, &[FRESH])), "{status}");
    }
    for status in [100, 206, 304] {
        assert_eq!(
            get(status, &[FRESH]),
            Storable::No(NotStored::Status),
            "{status}"
        );
    }
    let stray = ["content-range: bytes 0-1/2", FRESH];
    assert!(is_kept(get(200, &stray)), "it means nothing under a 200");
}

#[test]
fn a_guessed_lifetime_is_only_for_the_statuses_that_allow_it_or_public() {
    let modified = format!("last-modified: {}", date(0));
    let now = format!("date: {}", date(1000));
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        assert!(is_kept(get(status, &[&modified, &now])), "{status}");
    }
    for status in [201, 202, 302, 303, 307, 400, 403, 500, 503] {
        let decision = get(status, &[&modified, &now]);
        assert_eq!(decision, Storable::No(NotStored::NoLifetime), "{status}");
        assert!(
            is_kept(get(status, &[&modified, &now, "cache-control: public"])),
            "{status}"
        );
    }
}

#[test]
fn what_says_nothing_about_caching_is_not_kept() {
    assert_eq!(get(200, &[]), Storable::No(NotStored::NoLifetime));
    assert_eq!(
        get(200, &["etag: \"a\""]),
        Storable::No(NotStored::NoLifetime)
    );
    let policy = Policy {
        ttl: Some(secs(60)),
        ..Policy::default()
    };
    assert!(is_kept(decide_by(&policy, &Method::GET, &[], 200, &[])));
    let created = decide_by(&policy, &Method::GET, &[], 201, &[]);
    assert_eq!(
        created,
        Storable::No(NotStored::NoLifetime),
        "201 allows no guess"
    );
}

#[test]
fn what_must_be_validated_is_kept_if_it_can_be() {
    assert!(is_kept(get(
        200,
        &["cache-control: no-cache", "etag: \"a\""]
    )));
    assert!(is_kept(get(
        200,
        &["cache-control: max-age=0", "last-modified: x"]
    )));
    let useless = Storable::No(NotStored::Useless);
    assert_eq!(get(200, &["cache-control: no-cache"]), useless);
    assert_eq!(get(200, &["cache-control: max-age=0"]), useless);
    assert_eq!(get(200, &["cache-control: max-age=5", "age: 5"]), useless);
    assert!(is_kept(get(
        200,
        &["cache-control: max-age=0, stale-while-revalidate=9"]
    )));
}

#[test]
fn no_store_and_private_are_not_kept() {
    assert_eq!(
        get(200, &["cache-control: no-store, max-age=60"]),
        Storable::No(NotStored::NoStore)
    );
    assert_eq!(
        get(200, &["cache-control: private, max-age=60"]),
        Storable::No(NotStored::Private)
    );
    assert!(is_kept(get(
        200,
        &["cache-control: private=\"x-user\", max-age=60"]
    )));
    let asked = decide(&Method::GET, &["cache-control: no-store"], 200, &[FRESH]);
    assert_eq!(asked, Storable::No(NotStored::RequestNoStore));
}

#[test]
fn a_response_that_sets_a_cookie_is_never_kept() {
    let decision = get(
        200,
        &["cache-control: public, max-age=60", "set-cookie: a=b"],
    );
    assert_eq!(decision, Storable::No(NotStored::SetCookie));
}

#[test]
fn with_authorization_only_what_says_so_is_kept() {
    let policy = |share_authorized| Policy {
        share_authorized,
        ..Policy::default()
    };
    let decide_by = |policy: &Policy, value: &str| {
        let line = format!("cache-control: {value}");
        let asked = ["authorization: Basic eA=="];
        decide_by(policy, &Method::GET, &asked, 200, &[&line])
    };
    let never = decide_by(&policy(false), "public, max-age=60");
    assert_eq!(never, Storable::No(NotStored::Authorization));
    let decide = |value| decide_by(&policy(true), value);
    assert_eq!(decide("max-age=60"), Storable::No(NotStored::Authorization));
    assert_eq!(
        decide("max-age=60, public=1"),
        Storable::No(NotStored::Authorization)
    );
    for value in [
        "public, max-age=60",
        "s-maxage=60",
        "max-age=60, must-revalidate",
    ] {
        assert!(is_kept(decide(value)), "{value}");
    }
}

#[test]
fn every_reason_stands_at_its_index() {
    for (index, reason) in NotStored::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), index, "{reason:?}");
    }
}

#[test]
fn with_a_session_cookie_nothing_is_kept_unless_sessions_are_shared() {
    let asked = ["cookie: theme=dark; sid=1"];
    let by = |names: &[&str]| {
        let policy = Policy {
            session_cookies: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Policy::default()
        };
        decide_by(&policy, &Method::GET, &asked, 200, &[FRESH])
    };
    assert_eq!(by(&["sid"]), Storable::No(NotStored::Session));
    assert!(is_kept(by(&["basket"])) && is_kept(by(&[])));
}

#[test]
fn what_a_reply_to_one_visitor_forbids_is_not_said_of_the_page() {
    let policy = Policy {
        session_cookies: vec!["sid".to_owned()],
        ..Policy::default()
    };
    for asked in ["cookie: sid=1", "authorization: Basic eA=="] {
        for said in ["cache-control: private", "set-cookie: sid=2"] {
            let decision = decide_by(&policy, &Method::GET, &[asked], 200, &[said]);
            let Storable::No(reason) = decision else {
                panic!("{asked}, {said}: {decision:?}");
            };
            assert!(!reason.is_of_the_response(), "{asked}, {said}: {reason:?}");
        }
    }
}

#[test]
fn a_response_with_too_many_tags_is_not_kept() {
    let policy = Policy {
        tags: tags::FIELDS.to_vec(),
        ..Policy::default()
    };
    let tagged = |count: usize| {
        let tags: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        let line = format!("cache-tag: {}", tags.join(","));
        decide_by(&policy, &Method::GET, &[], 200, &[FRESH, &line])
    };
    assert!(is_kept(tagged(1000)));
    assert_eq!(tagged(10_000), Storable::No(NotStored::Tags));
}

#[test]
fn what_varies_by_more_than_clients_say_is_never_kept() {
    // The origin hears of the last two what the proxy says, not what the client does.
    for value in [
        "*",
        "accept, *",
        "a b",
        "accept;q=1",
        "X-Forwarded-For",
        "accept, Forwarded",
    ] {
        let decision = get(200, &[FRESH, &format!("vary: {value}")]);
        assert_eq!(decision, Storable::No(NotStored::Vary), "{value}");
    }
    assert!(is_kept(get(200, &[FRESH, "vary: accept, Cookie"])));
}

#[test]
fn must_understand_wants_a_known_status_and_then_overrules_no_store() {
    let line = "cache-control: must-understand, no-store, max-age=60";
    assert!(is_kept(get(200, &[line])));
    assert_eq!(get(299, &[line]), Storable::No(NotStored::Status));
}

#[test]
fn what_declares_more_than_the_limit_is_not_kept() {
    let policy = Policy {
        max_object_size: 10,
        ..Policy::default()
    };
    let decide = |length: &str| {
        let line = format!("content-length: {length}");
        decide_by(&policy, &Method::GET, &[], 200, &[FRESH, &line])
    };
    assert!(is_kept(decide("10")));
    assert_eq!(decide("11"), Storable::No(NotStored::TooLarge));
}

fn directive() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("public".into()),
        Just("must-revalidate".into()),
        Just("immutable".into()),
        Just("must-understand".into()),
        Just("no-transform".into()),
        "(max-age|s-maxage|stale-while-revalidate|stale-if-error)=[0-9]{1,11}",
        "[a-z]{1,6}(=[a-z0-9]{1,4})?",
        "x=\"[ -!#-\\[\\]-~]{0,9}\"",
    ]
}

proptest! {
    #[test]
    fn private_is_never_kept_whatever_stands_beside_it(
        before in prop::collection::vec(directive(), 0..5),
        after in prop::collection::vec(directive(), 0..5),
        word in prop_oneof![Just("private"), Just("PRIVATE"), Just("private=x;y")],
        status in 200u16..600,
    ) {
        let line = [before, vec![word.to_owned()], after].concat().join(",");
        let line = format!("cache-control: {line}");
        prop_assert!(!is_kept(get(status, &[&line, "etag: \"a\""])));
    }

    #[test]
    fn no_store_is_never_kept_unless_it_must_be_understood(
        before in prop::collection::vec(directive(), 0..5),
        after in prop::collection::vec(directive(), 0..5),
        status in 200u16..600,
    ) {
        let all = [before, vec!["No-Store".to_owned()], after].concat();
        prop_assume!(!all.iter().any(|one| one == "must-understand"));
        let line = format!("cache-control: {}", all.join(","));
        prop_assert!(!is_kept(get(status, &[&line, "etag: \"a\""])));
    }

    #[test]
    fn a_cookie_is_never_kept(all in prop::collection::vec(directive(), 0..5), status in 200u16..600) {
        let line = format!("cache-control: {}", all.join(","));
        prop_assert!(!is_kept(get(status, &[&line, "set-cookie: a=b"])));
    }
}
