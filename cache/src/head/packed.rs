//! What a head knows, in as few bytes as it takes: there is one for each stored object.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::freshness::{Freshness, Source};

/// A [`Freshness`] in nanoseconds: half as large, and good for 584 years.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    received: u64,
    initial_age: u64,
    lifetime: u64,
    stale_while_revalidate: u64,
    stale_if_error: u64,
    source: Source,
    no_cache: bool,
    no_stale: bool,
    immutable: bool,
}

impl Packed {
    pub(super) fn new(freshness: &Freshness) -> Self {
        let received = freshness.received.duration_since(UNIX_EPOCH);
        Self {
            received: nanos(received.unwrap_or_default()),
            initial_age: nanos(freshness.initial_age),
            lifetime: nanos(freshness.lifetime),
            stale_while_revalidate: nanos(freshness.stale_while_revalidate),
            stale_if_error: nanos(freshness.stale_if_error),
            source: freshness.source,
            no_cache: freshness.no_cache,
            no_stale: freshness.no_stale,
            immutable: freshness.immutable,
        }
    }

    pub(super) fn unpack(&self) -> Freshness {
        Freshness {
            received: UNIX_EPOCH + Duration::from_nanos(self.received),
            initial_age: Duration::from_nanos(self.initial_age),
            lifetime: Duration::from_nanos(self.lifetime),
            source: self.source,
            stale_while_revalidate: Duration::from_nanos(self.stale_while_revalidate),
            stale_if_error: Duration::from_nanos(self.stale_if_error),
            no_cache: self.no_cache,
            no_stale: self.no_stale,
            immutable: self.immutable,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The time of an HTTP-date, which has whole seconds, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(i64);

impl Moment {
    const NONE: Self = Self(i64::MIN);

    pub(super) fn new(time: Option<SystemTime>) -> Self {
        let Some(time) = time else { return Self::NONE };
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self(match time.duration_since(UNIX_EPOCH) {
            Ok(since) => seconds(since),
            Err(before) => -seconds(before.duration()),
        })
    }

    pub(super) fn get(self) -> Option<SystemTime> {
        let distance = Duration::from_secs(self.0.unsigned_abs());
        match self {
            Self::NONE => None,
            Self(0..) => UNIX_EPOCH.checked_add(distance),
            Self(_) => UNIX_EPOCH.checked_sub(distance),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, head_of};

    #[test]
    fn a_freshness_comes_back_as_it_was() {
        for value in [
            "max-age=60, stale-if-error=9",
            "no-cache",
            "max-age=2147483648, immutable",
        ] {
            let line = format!("cache-control: {value}");
            let freshness = head_of(200, &[&line, "age: 7"]).freshness();
            assert_eq!(Packed::new(&freshness).unpack(), freshness);
        }
        let odd = Freshness {
            lifetime: Duration::from_millis(250),
            ..head_of(200, &[]).freshness()
        };
        assert_eq!(Packed::new(&odd).unpack(), odd);
    }

    #[test]
    fn a_moment_is_a_second_before_or_after_1970_or_none() {
        let before = UNIX_EPOCH - Duration::from_secs(99);
        for time in [None, Some(UNIX_EPOCH), Some(at(3)), Some(before)] {
            assert_eq!(Moment::new(time).get(), time);
        }
        let within = at(3) + Duration::from_millis(999);
        assert_eq!(Moment::new(Some(within)).get(), Some(at(3)));
    }
}
