//! Age and lifetime of a response (RFC 9111 section 4.2).
//!
//! The clock is the caller's: every function takes `now`. A clock that steps back makes no
//! response younger than it was when it came in.

use std::time::{Duration, SystemTime};

use http::HeaderName;
use http::header::{AGE, DATE, EXPIRES, LAST_MODIFIED};

use crate::control::{MAX_DELTA, ResponseControl, Scope};
use crate::date;
use crate::fields::{self, Fields, trim};
use crate::storable::Policy;

/// The share of the time since Last-Modified for which a response that states no lifetime is taken
/// for fresh (RFC 9111 section 4.2.2 names a tenth as typical): one in this many.
pub const HEURISTIC_SHARE: u32 = 10;

/// The longest lifetime that is guessed. RFC 9111 leaves the bound open; a shop's page that nobody
/// gave a lifetime should not be an hour old.
pub const HEURISTIC_MAX: Duration = Duration::from_secs(3600);

/// When a request was sent upstream and when the head of its response came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// `request_time` of RFC 9111 section 4.2.3.
    pub sent: SystemTime,
    /// `response_time`.
    pub received: SystemTime,
}

/// Where a lifetime was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// Expires, against Date.
    Expires,
    /// [`Policy::ttl`]: the response says nothing, the operator did.
    Policy,
    /// A share of the time since Last-Modified.
    Heuristic,
    /// Nowhere; the lifetime is zero.
    Nowhere,
}

impl Source {
    /// The name for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Policy => "policy",
            Self::Heuristic => "heuristic",
            Self::Nowhere => "nowhere",
        }
    }

    /// Whether the response itself states the lifetime.
    pub fn is_explicit(self) -> bool {
        matches!(self, Self::SMaxage | Self::MaxAge | Self::Expires)
    }
}

/// All that is needed to judge a stored response later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// When the response came in.
    pub received: SystemTime,
    /// Its age at that time (`corrected_initial_age`).
    pub initial_age: Duration,
    /// How old it may get and still be fresh.
    pub lifetime: Duration,
    /// Where the lifetime comes from.
    pub source: Source,
    /// How long past its lifetime it may be served while it is refreshed.
    pub stale_while_revalidate: Duration,
    /// How long past its lifetime it may stand in for a failing origin.
    pub stale_if_error: Duration,
    /// To be validated before each use (`no-cache` without field names).
    pub no_cache: bool,
    /// Never to be used stale: `must-revalidate`, `proxy-revalidate`, or the `s-maxage` that means
    /// the same (RFC 9111 section 5.2.2.10).
    pub no_stale: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
}

impl Freshness {
    /// Judges a response that just came in. `heuristics` says whether its status, or `public`,
    /// allows a lifetime that it does not state.
    pub fn new(
        control: &ResponseControl,
        fields: &dyn Fields,
        heuristics: bool,
        policy: &Policy,
        times: Times,
    ) -> Self {
        let date = date_of(fields, times.received);
        let (lifetime, source) = explicit_lifetime(control, fields, date, times.received)
            .or_else(|| heuristics.then(|| implicit_lifetime(fields, date, policy, times))?)
            .unwrap_or((Duration::ZERO, Source::Nowhere));
        let upstream_age = upstream_age(fields);
        let lifetime = upstream_age.map_or(Duration::ZERO, |_| lifetime);
        let no_stale =
            control.must_revalidate || control.proxy_revalidate || upstream_age.is_none();
        let (stale_while_revalidate, stale_if_error) =
            stale_windows(control, no_stale, source, policy);
        Self {
            received: times.received,
            initial_age: initial_age(upstream_age.unwrap_or_default(), date, times),
            lifetime,
            source,
            stale_while_revalidate,
            stale_if_error,
            no_cache: control.no_cache == Scope::Whole,
            no_stale: no_stale || control.s_maxage.is_some(),
            immutable: control.immutable,
        }
    }

    /// The same for a response that was declared stale at `time`: what is left of its lifetime then
    /// is void.
    #[must_use]
    pub fn outdated_at(self, time: SystemTime) -> Self {
        Self {
            lifetime: self.lifetime.min(self.age(time)),
            ..self
        }
    }

    /// `current_age` (RFC 9111 section 4.2.3).
    pub fn age(&self, now: SystemTime) -> Duration {
        let resident = now.duration_since(self.received).unwrap_or_default();
        self.initial_age.saturating_add(resident)
    }

    /// The value for the Age field: whole seconds, at most 2^31 (RFC 9111 sections 1.2.2 and 5.1).
    pub fn age_seconds(&self, now: SystemTime) -> u64 {
        self.age(now).min(MAX_DELTA).as_secs()
    }

    /// Whether the lifetime is longer than the age (RFC 9111 section 4.2). Says nothing about
    /// `no-cache`; see [`crate::reuse::usable`].
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        self.lifetime > self.age(now)
    }

    /// What is left of the lifetime; zero when stale.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.lifetime.saturating_sub(self.age(now))
    }

    /// How far past its lifetime; zero when fresh.
    pub fn staleness(&self, now: SystemTime) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Seconds left, negative when stale: `ttl` of Cache-Status (RFC 9211 section 2.4).
    pub fn ttl_seconds(&self, now: SystemTime) -> i64 {
        let left = self.remaining(now);
        if left > Duration::ZERO {
            i64::try_from(left.as_secs()).unwrap_or(i64::MAX)
        } else {
            i64::try_from(self.staleness(now).as_secs()).map_or(i64::MIN, |past| -past)
        }
    }
}

/// RFC 9111 section 4.2.1, the first that is there: `s-maxage`, `max-age`, Expires minus Date.
fn explicit_lifetime(
    control: &ResponseControl,
    fields: &dyn Fields,
    date: SystemTime,
    now: SystemTime,
) -> Option<(Duration, Source)> {
    if let Some(lifetime) = control.s_maxage {
        return Some((lifetime, Source::SMaxage));
    }
    if let Some(lifetime) = control.max_age {
        return Some((lifetime, Source::MaxAge));
    }
    if control.targeted {
        return None;
    }
    let mut lifetime: Option<Duration> = None;
    fields.each(&EXPIRES, &mut |value| {
        // What is no date is a time in the past (section 5.3).
        let stated = date::parse(value, now)
            .and_then(|expires| expires.duration_since(date).ok())
            .unwrap_or_default()
            .min(MAX_DELTA);
        lifetime = Some(lifetime.map_or(stated, |known| known.min(stated)));
    });
    lifetime.map(|lifetime| (lifetime, Source::Expires))
}

/// The operator's lifetime, else a share of the time since Last-Modified (RFC 9111 section 4.2.2).
fn implicit_lifetime(
    fields: &dyn Fields,
    date: SystemTime,
    policy: &Policy,
    times: Times,
) -> Option<(Duration, Source)> {
    if let Some(ttl) = policy.ttl {
        return Some((ttl, Source::Policy));
    }
    let modified = date::parse(fields.first(&LAST_MODIFIED)?, times.received)?;
    let unchanged = date.duration_since(modified).ok()?;
    Some((
        (unchanged / HEURISTIC_SHARE).min(HEURISTIC_MAX),
        Source::Heuristic,
    ))
}

/// The times past the lifetime: what the response says, else what the operator says.
///
/// A directive that forbids stale use wins over both (RFC 9111 section 4.2.4). `s-maxage` forbids
/// it too, but only to those who would do it unasked: an origin that writes `s-maxage=60,
/// stale-while-revalidate=30` means both. Where no lifetime is stated, nothing is known that could
/// be stretched.
fn stale_windows(
    control: &ResponseControl,
    no_stale: bool,
    source: Source,
    policy: &Policy,
) -> (Duration, Duration) {
    if no_stale {
        return (Duration::ZERO, Duration::ZERO);
    }
    let unasked = control.s_maxage.is_none() && source != Source::Nowhere;
    let window = |stated: Option<Duration>, configured: Duration| {
        stated.unwrap_or(if unasked { configured } else { Duration::ZERO })
    };
    (
        window(
            control.stale_while_revalidate,
            policy.stale_while_revalidate,
        ),
        window(control.stale_if_error, policy.stale_if_error),
    )
}

/// `corrected_initial_age` (RFC 9111 section 4.2.3).
fn initial_age(upstream: Duration, date: SystemTime, times: Times) -> Duration {
    let apparent = times.received.duration_since(date).unwrap_or_default();
    let delay = times
        .received
        .duration_since(times.sent)
        .unwrap_or_default();
    let corrected = upstream.saturating_add(delay);
    apparent.max(corrected).min(MAX_DELTA)
}

/// Age as the upstream states it, zero where it states none: the first member of a list (RFC 9111
/// section 5.1). `None` when it cannot be read, or stands there several times.
///
/// Section 5.1 would have such a field ignored. But it says that the response was kept for a time
/// that nobody knows, so it is taken for stale instead, as section 4.2.1 advises for whatever
/// lifetime cannot be read.
fn upstream_age(fields: &dyn Fields) -> Option<Duration> {
    let (mut age, mut lines) = (Some(Duration::ZERO), 0);
    fields.each(&AGE, &mut |line| {
        lines += 1;
        let first = line.split(|byte| *byte == b',').next().unwrap_or_default();
        age = fields::digits(trim(first))
            .map(|seconds| Duration::from_secs(seconds).min(MAX_DELTA))
            .filter(|_| lines == 1);
    });
    age
}

/// Date, or the time of arrival where there is none or no valid one (RFC 9110 section 6.6.1).
pub fn date_of(fields: &dyn Fields, received: SystemTime) -> SystemTime {
    date_field(fields, &DATE, received).unwrap_or(received)
}

/// A field that holds one date; `None` when it is absent or not valid.
pub(crate) fn date_field(
    fields: &dyn Fields,
    name: &HeaderName,
    now: SystemTime,
) -> Option<SystemTime> {
    date::parse(fields.first(name)?, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, date, fields, secs};
    use proptest::prelude::*;

    const AT_ONCE: fn() -> Times = || Times {
        sent: at(0),
        received: at(0),
    };

    fn judge(lines: &[&str], policy: &Policy, times: Times) -> Freshness {
        let map = fields(lines);
        Freshness::new(&ResponseControl::read(&map), &map, true, policy, times)
    }

    fn lifetime(lines: &[&str]) -> (u64, Source) {
        let freshness = judge(lines, &Policy::default(), AT_ONCE());
        (freshness.lifetime.as_secs(), freshness.source)
    }

    #[test]
    fn the_lifetime_is_s_maxage_before_max_age_before_expires() {
        let expires = format!("expires: {}", date(7));
        let now = format!("date: {}", date(0));
        assert_eq!(
            lifetime(&["cache-control: max-age=5, s-maxage=3", &expires, &now]),
            (3, Source::SMaxage)
        );
        assert_eq!(
            lifetime(&["cache-control: max-age=5", &expires, &now]),
            (5, Source::MaxAge)
        );
        assert_eq!(lifetime(&[&expires, &now]), (7, Source::Expires));
        assert_eq!(
            lifetime(&["cache-control: s-maxage=x, max-age=5"]),
            (0, Source::SMaxage)
        );
    }

    #[test]
    fn expires_counts_from_date_and_from_arrival_without_one() {
        let lines = [
            format!("expires: {}", date(100)),
            format!("date: {}", date(40)),
        ];
        assert_eq!(lifetime(&[&lines[0], &lines[1]]), (60, Source::Expires));
        assert_eq!(lifetime(&[&lines[0]]), (100, Source::Expires));
        assert_eq!(
            lifetime(&[&lines[0], "date: yesterday"]),
            (100, Source::Expires)
        );
    }

    #[test]
    fn an_expires_that_is_no_date_or_conflicts_is_the_earliest() {
        assert_eq!(lifetime(&["expires: 0"]), (0, Source::Expires));
        assert_eq!(lifetime(&["expires:"]), (0, Source::Expires));
        let lines = [
            format!("expires: {}", date(100)),
            format!("expires: {}", date(9)),
        ];
        assert_eq!(lifetime(&[&lines[0], &lines[1]]), (9, Source::Expires));
    }

    #[test]
    fn a_targeted_field_puts_expires_out_of_force() {
        let expires = format!("expires: {}", date(100));
        assert_eq!(
            lifetime(&["cdn-cache-control: public", &expires]),
            (0, Source::Nowhere)
        );
    }

    #[test]
    fn without_a_stated_lifetime_it_is_a_tenth_of_the_time_unchanged_and_an_hour_at_most() {
        let modified = |ago: u64| {
            let time = at(0) - secs(ago);
            let text = String::from_utf8(date::format(time).to_vec()).unwrap();
            lifetime(&[&format!("last-modified: {text}")])
        };
        assert_eq!(modified(1000), (100, Source::Heuristic));
        assert_eq!(modified(10_000_000), (3600, Source::Heuristic));
        let future = format!("last-modified: {}", date(50));
        assert_eq!(lifetime(&[&future]), (0, Source::Nowhere));
    }

    #[test]
    fn the_operators_lifetime_stands_in_only_where_none_is_stated() {
        let policy = Policy {
            ttl: Some(secs(60)),
            ..Policy::default()
        };
        assert_eq!(judge(&[], &policy, AT_ONCE()).lifetime, secs(60));
        assert_eq!(
            judge(&["cache-control: max-age=0"], &policy, AT_ONCE()).lifetime,
            secs(0)
        );
    }

    #[test]
    fn age_is_the_larger_of_date_and_age_field_plus_delay() {
        let slow = Times {
            sent: at(10),
            received: at(14),
        };
        let initial = |lines: &[&str]| judge(lines, &Policy::default(), slow).initial_age.as_secs();
        assert_eq!(initial(&[&format!("date: {}", date(10))]), 4);
        assert_eq!(
            initial(&["age: 3"]),
            7,
            "the upstream's age plus the response delay"
        );
        assert_eq!(
            initial(&[&format!("date: {}", date(2)), "age: 3"]),
            12,
            "the apparent age"
        );
        assert_eq!(
            initial(&[&format!("date: {}", date(99))]),
            4,
            "a Date ahead is no age"
        );
        let freshness = judge(&["age: 3"], &Policy::default(), slow);
        assert_eq!(freshness.age_seconds(at(20)), 13);
        assert_eq!(
            freshness.age_seconds(at(0)),
            7,
            "a clock that steps back makes nothing younger"
        );
    }

    #[test]
    fn a_list_of_ages_is_its_first_member() {
        let initial = |line: &str| judge(&[line], &Policy::default(), AT_ONCE()).initial_age;
        assert_eq!(initial("age: 7, 9"), secs(7));
        assert_eq!(initial("age: 0,7200"), secs(0));
        assert_eq!(initial("age: 99999999999999999999"), MAX_DELTA);
    }

    #[test]
    fn an_age_that_cannot_be_read_makes_the_response_stale() {
        const FRESH: &str = "cache-control: max-age=60, stale-if-error=9, stale-while-revalidate=9";
        for bad in [
            &["age:"][..],
            &["age: -7"],
            &["age: 7.5"],
            &["age: 7s"],
            &["age: 7;a=b"],
            &["age: \"7\""],
            &["age: x, 7"],
            &["age: 0", "age: 7"],
            &["age: 0", "age: 0"],
        ] {
            let lines: Vec<&str> = bad.iter().copied().chain([FRESH]).collect();
            let freshness = judge(&lines, &Policy::default(), AT_ONCE());
            assert!(!freshness.is_fresh(at(0)), "{bad:?}");
            assert!(freshness.no_stale, "{bad:?}");
            let windows = (freshness.stale_while_revalidate, freshness.stale_if_error);
            assert_eq!(windows, (secs(0), secs(0)), "{bad:?}");
        }
    }

    #[test]
    fn the_origins_stale_windows_go_before_the_operators() {
        let policy = Policy {
            ttl: Some(secs(9)),
            stale_while_revalidate: secs(100),
            stale_if_error: secs(200),
            ..Policy::default()
        };
        let windows = |value: &str| {
            let line = format!("cache-control: {value}");
            let freshness = judge(&[&line], &policy, AT_ONCE());
            (
                freshness.stale_while_revalidate.as_secs(),
                freshness.stale_if_error.as_secs(),
            )
        };
        assert_eq!(windows("max-age=1"), (100, 200));
        assert_eq!(
            windows("max-age=1, stale-while-revalidate=3, stale-if-error=0"),
            (3, 0)
        );
        assert_eq!(
            windows("max-age=1, must-revalidate, stale-if-error=5"),
            (0, 0)
        );
        assert_eq!(windows("max-age=1, proxy-revalidate"), (0, 0));
        assert_eq!(
            windows("s-maxage=1"),
            (0, 0),
            "s-maxage forbids stale use unasked"
        );
        assert_eq!(
            windows("s-maxage=1, stale-while-revalidate=3"),
            (3, 0),
            "and the origin may ask"
        );
    }

    #[test]
    fn ttl_is_negative_when_stale() {
        let freshness = judge(
            &["cache-control: max-age=10"],
            &Policy::default(),
            AT_ONCE(),
        );
        assert_eq!(freshness.ttl_seconds(at(4)), 6);
        assert_eq!(freshness.ttl_seconds(at(10)), 0);
        assert_eq!(freshness.ttl_seconds(at(25)), -15);
    }

    proptest! {
        #[test]
        fn age_never_falls_and_fresh_is_never_older_than_the_lifetime(
            age in "[0-9]{1,12}", lifetime in 0u64..1 << 33, delay in 0u64..1000,
            earlier in 0u64..1 << 33, later in 0u64..1 << 33,
        ) {
            let (earlier, later) = (earlier.min(later), earlier.max(later));
            let times = Times { sent: at(0), received: at(delay) };
            let lines = [format!("age: {age}"), format!("cache-control: max-age={lifetime}")];
            let freshness = judge(&[&lines[0], &lines[1]], &Policy::default(), times);
            prop_assert!(freshness.age(at(earlier)) <= freshness.age(at(later)));
            if freshness.is_fresh(at(later)) {
                prop_assert!(freshness.age(at(later)) < freshness.lifetime);
                prop_assert!(freshness.is_fresh(at(earlier)), "what was stale stays stale");
            }
        }
    }
}
