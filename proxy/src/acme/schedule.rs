//! When a certificate is renewed, and when a failed order is tried again. Pure: times and
//! randomness are arguments.

use std::time::{Duration, SystemTime};

use super::failure::Outcome;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// An authority may ask for more patience than we have ourselves, up to here.
const MOST_PATIENCE: Duration = Duration::from_secs(8 * 86_400);

/// When the authority would like a certificate to be renewed (RFC 9773 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
}

/// When to renew a certificate with this life. `share` in `[0, 1)` is its own: so that many do not
/// come at once, and one does not move with every look.
///
/// In the authority's window where there is one, else at two thirds of its life or a little later;
/// and not before a while after it was `written`, whatever the authority says, so that one that
/// says "now" of every certificate is not asked for one after another.
pub(crate) fn renewal(
    (not_before, not_after): (SystemTime, SystemTime),
    written: SystemTime,
    window: Option<Window>,
    share: f64,
) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let wanted = match window {
        Some(Window { start, end }) => {
            start + end.duration_since(start).unwrap_or_default().mul_f64(share)
        }
        None => not_before + life * 2 / 3 + (life / 30).mul_f64(share),
    };
    // Whatever the authority says, before it is too late.
    let wanted = wanted.min(not_after - (life / 10).mul_f64(1.0 - share));
    wanted.max(written + (life / 4).min(HOUR))
}

/// How long to wait after the `failures`th failure in a row (from one).
///
/// A directory that cannot be reached counts nothing, so it is asked again soon. An order that
/// failed does count: authorities allow some five failed validations of a name in an hour, and these
/// pauses make four of them.
pub(crate) fn pause(
    failures: u32,
    outcome: Outcome,
    retry_after: Option<Duration>,
    share: f64,
) -> Duration {
    let (first, most) = match outcome {
        Outcome::Unreachable => (MINUTE, HOUR),
        Outcome::RateLimited => (HOUR, DAY),
        _ => (5 * MINUTE, 12 * HOUR),
    };
    let doublings = failures.saturating_sub(1).min(16);
    let pause = first.saturating_mul(1 << doublings).min(most);
    let pause = pause + (pause / 4).mul_f64(share);
    pause.max(retry_after.unwrap_or_default().min(MOST_PATIENCE))
}

/// How long what an authority said of a renewal holds (RFC 9773 section 4.3.2).
pub(crate) fn window_holds(retry_after: Duration) -> Duration {
    retry_after.clamp(MINUTE, DAY)
}

/// A share of its own for each certificate, from its serial number.
pub(crate) fn share_of(serial: &[u8]) -> f64 {
    // FNV-1a, and the mixing of SplitMix64 behind it: alone its upper bits hardly differ.
    let mut hash = serial.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let share = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    share
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    fn day(day: u64) -> SystemTime {
        UNIX_EPOCH + DAY * u32::try_from(day).expect("a small number")
    }

    #[test]
    fn without_a_window_it_is_renewed_at_two_thirds_or_a_little_later() {
        let life = (day(0), day(90));
        assert_eq!(renewal(life, day(0), None, 0.0), day(60));
        assert!(renewal(life, day(0), None, 0.999) < day(63));
    }

    #[test]
    fn a_window_decides_also_when_it_is_over() {
        let life = (day(100), day(190));
        let window = |start, end| {
            Some(Window {
                start: day(start),
                end: day(end),
            })
        };
        assert_eq!(renewal(life, day(100), window(150, 160), 0.5), day(155));
        let over = renewal(life, day(100), window(110, 111), 0.9);
        assert!(over < day(112), "at once, on any day after that");
    }

    #[test]
    fn a_window_behind_the_end_does_not_let_it_run_out() {
        let window = Some(Window {
            start: day(300),
            end: day(400),
        });
        let at = renewal((day(100), day(190)), day(100), window, 0.5);
        assert!(at > day(180) && at < day(190), "{at:?}");
    }

    #[test]
    fn a_new_certificate_is_not_renewed_at_once_whatever_is_said() {
        let life = (day(100), day(190));
        let window = Some(Window {
            start: day(1),
            end: day(2),
        });
        assert_eq!(renewal(life, day(100), window, 0.0), day(100) + HOUR);
        let short = (day(100), day(100) + 20 * MINUTE);
        assert_eq!(renewal(short, day(100), window, 0.0), day(100) + 5 * MINUTE);
    }

    #[test]
    fn an_authoritys_patience_counts_and_has_an_end() {
        let wanted = Some(Duration::from_secs(7200));
        assert_eq!(
            pause(1, Outcome::RateLimited, wanted, 0.0),
            Duration::from_secs(7200)
        );
        let for_ever = Some(Duration::from_secs(u64::MAX));
        assert_eq!(pause(1, Outcome::Unreachable, for_ever, 0.0), MOST_PATIENCE);
        assert_eq!(window_holds(Duration::ZERO), MINUTE);
        assert_eq!(window_holds(9 * DAY), DAY);
    }

    #[test]
    fn serial_numbers_give_different_shares() {
        let shares: Vec<f64> = (0..100_u8).map(|n| share_of(&[n, 7])).collect();
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
        assert!(shares.iter().filter(|share| **share < 0.5).count() > 20);
        assert!(shares.iter().filter(|share| **share >= 0.5).count() > 20);
    }

    proptest! {
        #[test]
        fn no_hour_has_more_than_four_failed_orders(shares in prop::collection::vec(0.0..1.0_f64, 12)) {
            let mut at = Duration::ZERO;
            let mut times = vec![at];
            for (failures, share) in (1..).zip(shares) {
                at += pause(failures, Outcome::Challenge, None, share);
                times.push(at);
            }
            for (first, start) in times.iter().enumerate() {
                let within = times[first..].iter().filter(|time| **time - *start < HOUR).count();
                prop_assert!(within <= 4, "{within} orders from {start:?}");
            }
        }

        #[test]
        fn pauses_grow_to_a_bound(failures in 1..1000_u32, share in 0.0..1.0_f64) {
            for outcome in Outcome::ALL {
                let pause = pause(failures, outcome, None, share);
                prop_assert!(pause >= MINUTE && pause <= DAY * 5 / 4);
                prop_assert!(super::pause(failures + 1, outcome, None, share) >= pause);
            }
        }
    }
}
