//! What is given up when there is more to do than can be done.
//!
//! How far that has gone is decided elsewhere, off the request's way; a request reads one number.

use std::sync::atomic::{AtomicU32, Ordering};

/// How far it has gone, and with that what is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Level {
    /// Nothing.
    Calm = 0,
    /// Connections that wait for their next request.
    Connections = 1,
    /// And requests of routes with `priority = "sheddable"`.
    Sheddable = 2,
    /// And those with `priority = "normal"`.
    Normal = 3,
}

impl From<u8> for Level {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Calm,
            1 => Self::Connections,
            2 => Self::Sheddable,
            _ => Self::Normal,
        }
    }
}

impl Level {
    /// For the log and the admin server.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Connections => "connections",
            Self::Sheddable => "sheddable",
            Self::Normal => "normal",
        }
    }

    /// Whether a request of this priority is given up.
    pub(crate) fn sheds(self, priority: conf::Priority) -> bool {
        match priority {
            conf::Priority::Critical => false,
            conf::Priority::Normal => self >= Self::Normal,
            conf::Priority::Sheddable => self >= Self::Sheddable,
        }
    }

    pub(crate) fn below(self) -> Self {
        Self::from((self as u8).saturating_sub(1))
    }

    pub(crate) fn above(self) -> Self {
        Self::from(self as u8 + 1)
    }
}

/// The level in force, for all who ask.
#[derive(Debug, Default)]
pub(crate) struct Shedding {
    /// The level in the lowest octet, and above it how often it left [`Level::Calm`].
    state: AtomicU32,
}

impl Shedding {
    /// How far it has gone.
    pub(crate) fn level(&self) -> Level {
        let [.., level] = self.state.load(Ordering::Relaxed).to_be_bytes();
        Level::from(level)
    }

    /// Whether connections end with what is under way on them.
    pub(crate) fn ends_connections(&self) -> bool {
        self.level() > Level::Calm
    }

    /// How often idle connections were to be closed.
    pub(crate) fn called(&self) -> u32 {
        self.state.load(Ordering::Relaxed) >> 8
    }

    /// Puts a level in force; whether idle connections are to be closed for it. For one thread.
    pub(crate) fn set(&self, level: Level) -> bool {
        let begins = self.level() == Level::Calm && level > Level::Calm;
        let calls = self.called() + u32::from(begins);
        self.state
            .store((calls << 8) | u32::from(level as u8), Ordering::Relaxed);
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_go_in_their_order_and_critical_never() {
        use conf::Priority::{Critical, Normal, Sheddable};
        let shed = |level: u8| [Sheddable, Normal, Critical].map(|p| Level::from(level).sheds(p));
        assert_eq!(shed(0), [false, false, false]);
        assert_eq!(shed(1), [false, false, false]);
        assert_eq!(shed(2), [true, false, false]);
        assert_eq!(shed(3), [true, true, false]);
    }

    #[test]
    fn connections_are_called_each_time_that_it_begins() {
        let shedding = Shedding::default();
        assert!(!shedding.ends_connections());
        assert!(shedding.set(Level::Connections));
        assert!(!shedding.set(Level::Sheddable));
        assert!(shedding.ends_connections());
        assert!(!shedding.set(Level::Calm));
        assert!(shedding.set(Level::Connections));
        assert_eq!(
            (shedding.called(), shedding.level()),
            (2, Level::Connections)
        );
    }
}
