//! The level of overload: decided from signs and marks, without a clock of its own.
//!
//! It rises by one step a sample at the most, as soon as a sign asks for it, and falls by one step
//! after a while in which all signs were well below what asks for it: so it does not flap, and one
//! sample that is off does little.

use std::time::{Duration, Instant};

use crate::exchange::shedding::Level;

/// What is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// Bytes in use.
    pub(crate) memory: u64,
    /// How late the latest event loop is.
    pub(crate) lag: Duration,
}

/// What asks for a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Memory,
    Lag,
}

impl Sign {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Lag => "lag",
        }
    }
}

/// From where on signs ask for a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Bytes from which on memory asks for the first level, and all that there is.
    pub(crate) memory: Option<(u64, u64)>,
    /// Lag from which on that does.
    pub(crate) lag: Option<Duration>,
}

/// A sign is well below what asks for a level at this share of it.
const WELL_BELOW: f64 = 0.9;
/// Lag falls off steeply once it falls.
const LAG_WELL_BELOW: f64 = 0.5;

/// How long all must have been well before the level falls by one.
pub(super) const HOLD: Duration = Duration::from_secs(5);

impl Marks {
    /// The bytes that ask for a level: the last third before the end is for the last level.
    fn memory(&self, level: Level) -> Option<f64> {
        let (mark, end) = self.memory?;
        let steps = f64::from(level as u8) - 1.0;
        Some(mark as f64 + (end.saturating_sub(mark)) as f64 / 3.0 * steps)
    }

    /// Each level wants twice the lag of the one before.
    fn lag(&self, level: Level) -> Option<f64> {
        let doubled = 1_u32 << (level as u32).saturating_sub(1);
        Some(self.lag?.as_secs_f64() * f64::from(doubled))
    }

    /// The sign that asks for this level, if one does. `still`: it is there already, and stays until all
    /// are well below.
    fn asks(&self, signs: &Signs, level: Level, still: bool) -> Option<Sign> {
        let (memory, lag) = match still {
            true => (WELL_BELOW, LAG_WELL_BELOW),
            false => (1.0, 1.0),
        };
        let over = |value: f64, mark: Option<f64>, share: f64| {
            mark.is_some_and(|mark| value >= mark * share)
        };
        if over(signs.memory as f64, self.memory(level), memory) {
            return Some(Sign::Memory);
        }
        over(signs.lag.as_secs_f64(), self.lag(level), lag).then_some(Sign::Lag)
    }

    /// Why there is this level.
    pub(crate) fn why(&self, signs: &Signs, level: Level) -> Option<Sign> {
        self.asks(signs, level, false)
            .or_else(|| self.asks(signs, level, true))
    }
}

/// The level, and since when it could be lower.
#[derive(Debug)]
pub(super) struct Ladder {
    level: Level,
    well_since: Instant,
}

impl Ladder {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            level: Level::Calm,
            well_since: now,
        }
    }

    /// The level after this sample.
    pub(super) fn step(&mut self, signs: &Signs, marks: &Marks, now: Instant) -> Level {
        let next = self.level.above();
        if next > self.level && marks.asks(signs, next, false).is_some() {
            self.level = next;
            self.well_since = now;
        } else if self.level > Level::Calm && marks.asks(signs, self.level, true).is_some() {
            self.well_since = now;
        } else if self.level > Level::Calm && now.saturating_duration_since(self.well_since) >= HOLD
        {
            self.level = self.level.below();
            self.well_since = now;
        }
        self.level
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const MARKS: Marks = Marks {
        memory: Some((700, 1000)),
        lag: Some(Duration::from_millis(100)),
    };
    const SAMPLE: Duration = Duration::from_millis(500);

    struct Run {
        ladder: Ladder,
        now: Instant,
    }

    impl Run {
        fn new() -> Self {
            let now = clock::now();
            Self {
                ladder: Ladder::new(now),
                now,
            }
        }

        fn sample(&mut self, memory: u64, lag_millis: u64) -> Level {
            self.now += SAMPLE;
            let signs = Signs {
                memory,
                lag: Duration::from_millis(lag_millis),
            };
            self.ladder.step(&signs, &MARKS, self.now)
        }

        fn samples(&mut self, count: usize, memory: u64, lag: u64) -> Vec<u8> {
            (0..count).map(|_| self.sample(memory, lag) as u8).collect()
        }
    }

    #[test]
    fn each_third_of_what_is_left_of_the_memory_is_a_level() {
        for (memory, level) in [
            (699, 0),
            (700, 1),
            (799, 1),
            (800, 2),
            (899, 2),
            (900, 3),
            (2000, 3),
        ] {
            let reached = Run::new().samples(5, memory, 0);
            assert_eq!(reached.last(), Some(&level), "{memory} bytes");
        }
    }

    #[test]
    fn lag_doubles_from_level_to_level() {
        for (lag, level) in [(99, 0), (100, 1), (199, 1), (200, 2), (399, 2), (400, 3)] {
            assert_eq!(
                Run::new().samples(5, 0, lag).last(),
                Some(&level),
                "{lag} ms"
            );
        }
    }

    #[test]
    fn it_rises_a_level_a_sample_and_falls_one_in_five_seconds() {
        let mut run = Run::new();
        assert_eq!(run.samples(3, 1000, 0), [1, 2, 3]);
        let falls = run.samples(40, 0, 0);
        let at = |level| falls.iter().position(|&found| found == level);
        assert_eq!((at(2), at(1), at(0)), (Some(9), Some(19), Some(29)));
    }

    #[test]
    fn what_hovers_about_a_mark_does_not_flap() {
        let mut run = Run::new();
        run.samples(1, 705, 0);
        for round in 0..100 {
            let memory = if round % 2 == 0 { 690 } else { 705 };
            assert_eq!(run.sample(memory, 0), Level::Connections, "round {round}");
        }
        assert_eq!(run.samples(11, 629, 0).last(), Some(&0));
    }

    #[test]
    fn a_sign_without_a_mark_asks_for_nothing() {
        let none = Marks {
            memory: None,
            lag: None,
        };
        let signs = Signs {
            memory: u64::MAX,
            lag: Duration::from_secs(100),
        };
        let now = clock::now();
        assert_eq!(Ladder::new(now).step(&signs, &none, now), Level::Calm);
    }

    proptest! {
        /// One step at a time, up only when asked, down only after the hold.
        #[test]
        fn it_is_calm(samples in prop::collection::vec((0..1200_u64, 0..500_u64), 1..200)) {
            let mut run = Run::new();
            let mut before = Level::Calm;
            let mut changed = run.now;
            for (memory, lag) in samples {
                let level = run.sample(memory, lag);
                prop_assert!((level as i8 - before as i8).abs() <= 1);
                if level > before {
                    let signs = Signs { memory, lag: Duration::from_millis(lag) };
                    prop_assert!(MARKS.why(&signs, level).is_some());
                }
                if level < before {
                    prop_assert!(run.now - changed >= HOLD);
                }
                if level != before {
                    changed = run.now;
                }
                before = level;
            }
        }
    }
}
