//! Log lines about limits that hold: few, however often one does.
//!
//! Under an attack each of a million refused connections is an event, and a log with a million lines
//! is a second attack. So there is at most one line a minute for each reason, with how many there
//! were since the last one and who was the latest. Each is counted (metrics), whether it is in a line
//! or not.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of one reason.
const EVERY: Duration = Duration::from_secs(60);

/// What happened on one listener. Reasons are words in the program's text, so there are few.
#[derive(Debug, Default)]
pub(crate) struct Notices(Mutex<Vec<Notice>>);

#[derive(Debug)]
struct Notice {
    reason: &'static str,
    /// When there was a line.
    at: Instant,
    /// How often it happened since.
    count: u64,
    client: IpAddr,
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Which limit.
    pub(crate) reason: &'static str,
    /// How often since the last line.
    pub(crate) count: u64,
    /// Whom it held up last.
    pub(crate) client: IpAddr,
}

impl Notices {
    /// It happened once more; gives the line that is due.
    pub(crate) fn note(&self, reason: &'static str, client: IpAddr, now: Instant) -> Option<Line> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.iter_mut().find(|notice| notice.reason == reason) {
            Some(notice) => {
                notice.count += 1;
                notice.client = client;
                notice.due(now)
            }
            None => {
                all.push(Notice {
                    reason,
                    at: now,
                    count: 0,
                    client,
                });
                Some(Line {
                    reason,
                    count: 1,
                    client,
                })
            }
        }
    }

    /// The lines that are due for what happened and was in none.
    pub(crate) fn due(&self, now: Instant) -> Vec<Line> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = all.iter_mut().filter_map(|notice| notice.due(now));
        due.collect()
    }
}

impl Notice {
    fn due(&mut self, now: Instant) -> Option<Line> {
        if self.count == 0 || now.saturating_duration_since(self.at) < EVERY {
            return None;
        }
        self.at = now;
        Some(Line {
            reason: self.reason,
            count: std::mem::take(&mut self.count),
            client: self.client,
        })
    }
}

impl Line {
    pub(crate) fn write(&self, listener: &str) {
        let Self {
            reason,
            count,
            client,
        } = self;
        tracing::warn!(listener, reason, count, latest = %client, "clients were held to a limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn there_is_a_line_at_once_and_then_one_a_minute() {
        let notices = Notices::default();
        let start = clock::now();
        let client = |last| IpAddr::from([192, 0, 2, last]);
        let line = |count, last| {
            Some(Line {
                reason: "a",
                count,
                client: client(last),
            })
        };
        assert_eq!(notices.note("a", client(1), start), line(1, 1));
        let mut now = start;
        for _ in 0..59 {
            now += Duration::from_secs(1);
            assert_eq!(notices.note("a", client(2), now), None);
        }
        assert!(notices.note("b", client(9), now).is_some(), "another one");
        now += Duration::from_secs(1);
        assert_eq!(notices.note("a", client(3), now), line(60, 3));
        assert_eq!(notices.due(now + EVERY * 2), [], "all are told");
        assert_eq!(notices.note("a", client(4), now), None);
        assert_eq!(notices.due(now), []);
        let due = notices.due(now + EVERY);
        assert_eq!(due, [line(1, 4).unwrap()], "even if no more comes");
    }
}
