//! When a responder is asked. Pure: times and randomness are arguments.

use std::time::{Duration, SystemTime};

/// Whatever an answer says of its own life, a responder is left alone for so long.
const LEAST: Duration = Duration::from_secs(5);
/// After the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause, and the one after a certificate was found revoked.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// When to ask again after a good answer: at half of its life or a little later, so that many edges
/// do not come at once. One that is beyond its half when it comes is asked for again after a tenth of
/// what is left: authorities sign ahead, and send the same one until the next is signed. `share` is in `[0, 1)`.
pub(super) fn renewal(
    (this_update, next_update): (SystemTime, SystemTime),
    now: SystemTime,
    share: f64,
) -> SystemTime {
    let life = next_update.duration_since(this_update).unwrap_or_default();
    let half = this_update + life / 2 + (life / 10).mul_f64(share);
    let left = next_update.duration_since(now).unwrap_or_default();
    let pause = (left / 10).mul_f64(1.0 + share / 4.0).max(LEAST);
    half.max(now + pause)
}

/// How long to wait after the `failures`th failure in a row (from one).
pub(super) fn pause(failures: u32, share: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings);
    let pause = pause.min(LONGEST_PAUSE);
    pause + (pause / 4).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_is_renewed_at_half_of_its_life_or_a_little_later() {
        let life = (at(1000), at(2000));
        assert_eq!(renewal(life, at(1000), 0.0), at(1500));
        assert_eq!(renewal(life, at(1000), 0.5), at(1550));
        assert!(renewal(life, at(1000), 0.999) < at(1600));
    }

    #[test]
    fn one_that_is_old_when_it_comes_is_renewed_soon_and_not_at_once() {
        let day = 86_400;
        let week = (at(0), at(7 * day));
        assert_eq!(renewal(week, at(5 * day), 0.0), at(5 * day + day / 5));
        assert_eq!(renewal(week, at(5 * day), 1.0), at(5 * day + day / 4));
        assert_eq!(renewal((at(0), at(2000)), at(1990), 0.0), at(1995));
        assert_eq!(renewal((at(5), at(0)), at(5), 0.9), at(10), "no life");
    }

    #[test]
    fn pauses_double_up_to_an_hour() {
        let seconds = |failures| pause(failures, 0.0).as_secs();
        assert_eq!([1, 2, 3, 4].map(seconds), [5, 10, 20, 40]);
        assert_eq!([11, 12, u32::MAX].map(seconds), [3600; 3]);
        assert!(pause(u32::MAX, 0.999) < LONGEST_PAUSE * 5 / 4);
    }
}
