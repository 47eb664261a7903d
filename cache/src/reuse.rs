//! May this stored response answer this request? RFC 9111 sections 4 and 5.2.1, RFC 5861.
//!
//! The response was found by key and variant; here only time and directives count. Whether the
//! client's conditions are met comes after, in [`crate::condition`].
//!
//! The order is the one of the RFC's "unless": what the response forbids, what the request forbids,
//! freshness, then what either allows beyond it.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use crate::control::RequestControl;
use crate::freshness::Freshness;

/// What to do with a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Answer with it.
    Fresh,
    /// Answer with it, and refresh it in the background (RFC 5861 section 3).
    StaleWhileRevalidate,
    /// Answer with it: the client takes it stale (`max-stale`).
    StaleByRequest,
    /// Validate it first.
    Revalidate(Why),
    /// The client wants no request upstream: answer 504 (RFC 9111 section 5.2.1.7).
    GatewayTimeout,
}

/// Why a stored response must be validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The response says `no-cache`.
    NoCache,
    /// The request says so, or wants it fresher than it is.
    Request,
    /// It is past its lifetime.
    Stale,
}

impl Use {
    /// The name for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::StaleWhileRevalidate => "stale-while-revalidate",
            Self::StaleByRequest => "stale-by-request",
            Self::Revalidate(Why::NoCache) => "revalidate-no-cache",
            Self::Revalidate(Why::Request) => "revalidate-request",
            Self::Revalidate(Why::Stale) => "revalidate-stale",
            Self::GatewayTimeout => "gateway-timeout",
        }
    }

    /// Whether the stored response is the answer.
    pub fn is_hit(self) -> bool {
        matches!(
            self,
            Self::Fresh | Self::StaleWhileRevalidate | Self::StaleByRequest
        )
    }
}

/// What to do when the origin cannot be reached or answers with a [`failure`](is_failure).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Answer with what is stored.
    ServeStored,
    /// It must not be used without the origin's word: 504 where the origin said nothing at all; its
    /// own 5xx may be passed on (RFC 9111 sections 4.3.3 and 5.2.2.2).
    GatewayTimeout,
    /// Pass the failure on.
    PassOn,
}

/// Decides on a stored response that matches a request.
pub fn usable(freshness: &Freshness, request: &RequestControl, now: SystemTime) -> Use {
    let decision = judge(freshness, request, now);
    match decision {
        Use::Revalidate(_) if request.only_if_cached => Use::GatewayTimeout,
        decision => decision,
    }
}

/// Whether a request for which nothing is stored may go upstream; if not, the answer is 504.
pub fn may_fetch(request: &RequestControl) -> bool {
    !request.only_if_cached
}

fn judge(freshness: &Freshness, request: &RequestControl, now: SystemTime) -> Use {
    if freshness.no_cache {
        return Use::Revalidate(Why::NoCache);
    }
    if request.no_cache {
        return Use::Revalidate(Why::Request);
    }
    let fresh = freshness.is_fresh(now);
    // RFC 8246 section 2.1: what does not change needs no validation for an ordinary reload.
    let unchanging = fresh && freshness.immutable;
    let too_old = request
        .max_age
        .is_some_and(|limit| freshness.age(now) > limit);
    let too_short = request
        .min_fresh
        .is_some_and(|wanted| freshness.remaining(now) < wanted);
    if too_short || (too_old && !unchanging) {
        return Use::Revalidate(Why::Request);
    }
    if fresh {
        return Use::Fresh;
    }
    let staleness = freshness.staleness(now);
    // Section 5.2.1.1: who asks for a highest age and no max-stale wants nothing stale.
    let strict = request.max_age.is_some() && request.max_stale.is_none();
    if staleness < freshness.stale_while_revalidate && !strict {
        return Use::StaleWhileRevalidate;
    }
    if !freshness.no_stale && request.max_stale.is_some_and(|limit| staleness <= limit) {
        return Use::StaleByRequest;
    }
    Use::Revalidate(Why::Stale)
}

/// Decides when validation failed (RFC 5861 section 4, RFC 9111 sections 4.2.4 and 4.3.3).
/// `disconnected`: the operator wants what is stored served, however old, and nobody answered
/// (section 4.2.4: a cache that is disconnected may, unless a directive forbids it).
pub fn on_error(
    freshness: &Freshness,
    request: &RequestControl,
    now: SystemTime,
    disconnected: bool,
) -> OnError {
    if freshness.no_cache {
        return OnError::GatewayTimeout;
    }
    let staleness = freshness.staleness(now);
    let asked = request.stale_if_error.unwrap_or_default();
    let by_request = if freshness.no_stale {
        Duration::ZERO
    } else {
        asked
    };
    let covered = staleness < freshness.stale_if_error.max(by_request);
    if freshness.is_fresh(now) || covered || (disconnected && !freshness.no_stale) {
        return OnError::ServeStored;
    }
    if freshness.no_stale {
        OnError::GatewayTimeout
    } else {
        OnError::PassOn
    }
}

/// Whether a stored response may stand in for a failing origin.
pub fn may_serve_on_error(
    freshness: &Freshness,
    request: &RequestControl,
    now: SystemTime,
) -> bool {
    on_error(freshness, request, now, false) == OnError::ServeStored
}

/// Whether a fresh response should be fetched anew while it is served, so that it never grows stale
/// while it is in demand. `draw` is a random number in `[0, 1)`.
///
/// Within `window` before its end a request does so with a probability that grows exponentially to
/// certainty (after Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede
/// Prevention", VLDB 2015): one in a hundred where the window begins, so that a page in demand is
/// refreshed early in it, and one that is asked for rarely late or not at all.
pub fn is_due_early(freshness: &Freshness, window: Duration, now: SystemTime, draw: f64) -> bool {
    let left = freshness.remaining(now);
    if left.is_zero() || left > window {
        return false;
    }
    let share = left.as_secs_f64() / window.as_secs_f64();
    draw < (-share * EARLY_DECAY).exp()
}

/// `ln(100)`: the probability falls to a hundredth over the window.
const EARLY_DECAY: f64 = 4.605;

/// The statuses for which `stale-if-error` is meant (RFC 5861 section 4).
pub fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Whether a response that just arrives may answer others who asked for the same meanwhile; if not,
/// each of them has to ask for itself.
pub fn is_shareable(freshness: &Freshness, now: SystemTime) -> bool {
    usable(freshness, &RequestControl::default(), now).is_hit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, fields, head_of};
    use proptest::prelude::*;

    fn decide(response: &str, request: &str, age: u64) -> Use {
        let head = head_of(200, &[&format!("cache-control: {response}")]);
        usable(&head.freshness(), &asked(request), at(age))
    }

    fn asked(request: &str) -> RequestControl {
        if request.is_empty() {
            return RequestControl::default();
        }
        RequestControl::read(&fields(&[&format!("cache-control: {request}")]))
    }

    const BY_REQUEST: Use = Use::Revalidate(Why::Request);
    const STALE: Use = Use::Revalidate(Why::Stale);

    #[test]
    fn it_is_used_until_its_lifetime_ends() {
        assert_eq!(decide("max-age=10", "", 9), Use::Fresh);
        assert_eq!(decide("max-age=10", "", 10), STALE);
    }

    #[test]
    fn no_cache_is_validated_even_while_fresh() {
        assert_eq!(
            decide("max-age=10, no-cache", "", 1),
            Use::Revalidate(Why::NoCache)
        );
        assert_eq!(
            decide("max-age=10, no-cache=\"x\"", "", 1),
            Use::Fresh,
            "that field is withheld"
        );
    }

    #[test]
    fn a_request_may_ask_for_more() {
        assert_eq!(decide("max-age=10", "no-cache", 1), BY_REQUEST);
        assert_eq!(decide("max-age=10", "max-age=5", 5), Use::Fresh);
        assert_eq!(decide("max-age=10", "max-age=5", 6), BY_REQUEST);
        assert_eq!(decide("max-age=10", "min-fresh=4", 6), Use::Fresh);
        assert_eq!(decide("max-age=10", "min-fresh=5", 6), BY_REQUEST);
    }

    #[test]
    fn a_reload_of_what_is_immutable_needs_no_validation() {
        assert_eq!(decide("max-age=10, immutable", "max-age=0", 5), Use::Fresh);
        assert_eq!(decide("max-age=10, immutable", "no-cache", 5), BY_REQUEST);
        assert_eq!(
            decide("max-age=10, immutable", "", 10),
            STALE,
            "only while fresh"
        );
    }

    #[test]
    fn stale_while_revalidate_lasts_as_long_as_it_says() {
        let response = "max-age=10, stale-while-revalidate=5";
        assert_eq!(decide(response, "", 14), Use::StaleWhileRevalidate);
        assert_eq!(decide(response, "", 15), STALE);
        assert_eq!(
            decide(response, "max-age=100", 14),
            STALE,
            "no stale for who gives a highest age"
        );
    }

    #[test]
    fn a_client_may_take_it_stale_unless_the_origin_forbids_it() {
        assert_eq!(decide("max-age=10", "max-stale", 999), Use::StaleByRequest);
        assert_eq!(decide("max-age=10", "max-stale=5", 15), Use::StaleByRequest);
        assert_eq!(decide("max-age=10", "max-stale=5", 16), STALE);
        for forbids in ["must-revalidate", "proxy-revalidate", "s-maxage=10"] {
            assert_eq!(
                decide(&format!("max-age=10, {forbids}"), "max-stale", 15),
                STALE,
                "{forbids}"
            );
        }
    }

    #[test]
    fn only_if_cached_never_goes_upstream() {
        assert_eq!(decide("max-age=10", "only-if-cached", 5), Use::Fresh);
        assert_eq!(
            decide("max-age=10", "only-if-cached", 15),
            Use::GatewayTimeout
        );
        assert!(!may_fetch(&asked("only-if-cached")));
    }

    #[test]
    fn a_failing_origin_is_covered_for_as_long_as_allowed() {
        let decide = |response: &str, request: &str, age: u64| {
            let head = head_of(200, &[&format!("cache-control: {response}")]);
            on_error(&head.freshness(), &asked(request), at(age), false)
        };
        assert_eq!(
            decide("max-age=10", "no-cache", 5),
            OnError::ServeStored,
            "it is still fresh"
        );
        assert_eq!(decide("max-age=10", "", 15), OnError::PassOn);
        assert_eq!(
            decide("max-age=10, stale-if-error=9", "", 15),
            OnError::ServeStored
        );
        assert_eq!(
            decide("max-age=10, stale-if-error=5", "", 15),
            OnError::PassOn
        );
        assert_eq!(
            decide("max-age=10", "stale-if-error=9", 15),
            OnError::ServeStored
        );
        assert_eq!(
            decide("max-age=10, must-revalidate", "stale-if-error=9", 15),
            OnError::GatewayTimeout
        );
        assert_eq!(
            decide("max-age=10, no-cache", "", 5),
            OnError::GatewayTimeout
        );
    }

    #[test]
    fn offline_everything_is_served_that_the_origin_does_not_forbid() {
        let decide = |response: &str| {
            let head = head_of(200, &[&format!("cache-control: {response}")]);
            on_error(&head.freshness(), &asked(""), at(99_999), true)
        };
        assert_eq!(decide("max-age=10"), OnError::ServeStored);
        for forbids in [
            "must-revalidate",
            "proxy-revalidate",
            "s-maxage=10",
            "no-cache",
        ] {
            let response = format!("max-age=10, {forbids}");
            assert_eq!(decide(&response), OnError::GatewayTimeout, "{forbids}");
        }
    }

    #[test]
    fn an_early_refresh_is_the_likelier_the_nearer_the_end() {
        let head = head_of(200, &["cache-control: max-age=100"]);
        let freshness = &head.freshness();
        let window = Duration::from_secs(10);
        let share = |age: u64| {
            let draws = (0..1000).map(|draw| f64::from(draw) / 1000.0);
            let refreshed = draws.filter(|draw| is_due_early(freshness, window, at(age), *draw));
            refreshed.count()
        };
        assert_eq!(share(89), 0, "not before the window");
        let (begin, middle, end) = (share(90), share(95), share(99));
        assert!(
            begin < 20 && begin < middle && middle < end && end > 500,
            "{begin} {middle} {end}"
        );
        assert_eq!(share(100), 0, "what is stale is for others to decide");
        assert!(!is_due_early(freshness, Duration::ZERO, at(99), 0.0));
    }

    #[test]
    fn followers_share_only_what_needs_no_validation() {
        let shareable = |value: &str| {
            let head = head_of(200, &[&format!("cache-control: {value}"), "etag: \"a\""]);
            is_shareable(&head.freshness(), at(0))
        };
        assert!(shareable("max-age=1") && shareable("max-age=0, stale-while-revalidate=1"));
        assert!(!shareable("max-age=0") && !shareable("no-cache, max-age=9"));
    }

    fn directives() -> impl Strategy<Value = String> {
        let one = prop_oneof![
            Just("public".into()),
            Just("immutable".into()),
            Just("must-revalidate".into()),
            Just("no-cache".into()),
            Just("proxy-revalidate".into()),
            "(max-age|s-maxage|stale-while-revalidate|stale-if-error)=[0-9]{1,3}",
        ];
        prop::collection::vec(one, 0..5).prop_map(|all: Vec<String>| all.join(","))
    }

    fn wishes() -> impl Strategy<Value = String> {
        let one = prop_oneof![
            Just("no-cache".into()),
            Just("max-stale".into()),
            Just("only-if-cached".into()),
            "(max-age|min-fresh|max-stale|stale-if-error)=[0-9]{1,3}",
        ];
        prop::collection::vec(one, 0..4).prop_map(|all: Vec<String>| all.join(","))
    }

    proptest! {
        #[test]
        fn fresh_means_younger_than_the_lifetime(response in directives(), request in wishes(), age in 0u64..2000) {
            let head = head_of(200, &[&format!("cache-control: {response}")]);
            let freshness = &head.freshness();
            if usable(freshness, &asked(&request), at(age)) == Use::Fresh {
                prop_assert!(freshness.age(at(age)) < freshness.lifetime);
            }
        }

        #[test]
        fn what_forbids_stale_use_is_never_used_stale(response in directives(), request in wishes(), age in 0u64..2000) {
            let response = format!("{response},must-revalidate");
            let head = head_of(200, &[&format!("cache-control: {response}")]);
            let freshness = &head.freshness();
            let decision = usable(freshness, &asked(&request), at(age));
            prop_assert!(!decision.is_hit() || freshness.is_fresh(at(age)));
            let stored = may_serve_on_error(freshness, &asked(&request), at(age));
            prop_assert!(!stored || freshness.is_fresh(at(age)));
        }

        #[test]
        fn no_cache_is_never_used_unvalidated(response in directives(), request in wishes(), age in 0u64..2000) {
            let head = head_of(200, &[&format!("cache-control: {response},no-cache")]);
            let request = asked(&request);
            prop_assert!(!usable(&head.freshness(), &request, at(age)).is_hit());
            prop_assert!(!may_serve_on_error(&head.freshness(), &request, at(age)));
        }
    }
}
