//! What operators change while the edge runs: which endpoints take nothing new, and weights.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use balancer::Mode;

/// How one endpoint was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByHand {
    /// Whether it takes requests.
    pub(crate) mode: Mode,
    /// Instead of its own weight.
    pub(crate) weight: Option<NonZeroU32>,
    /// Whether it stays so over a reload.
    pub(crate) keep: bool,
}

/// A change that is asked for; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Whether it takes requests.
    pub(crate) mode: Option<Mode>,
    /// `Some(None)`: its own again.
    pub(crate) weight: Option<Option<NonZeroU32>>,
    /// Whether it stays over a reload.
    pub(crate) keep: bool,
}

/// Changes of one upstream, by endpoint id. Those of endpoints that are gone stay for when they come
/// back.
#[derive(Debug, Clone, Default)]
pub(super) struct Hands(BTreeMap<String, ByHand>);

/// Endpoints remembered beyond those that are there.
const MOST: usize = 20_000;

impl Hands {
    pub(super) fn of(&self, id: &str) -> Option<ByHand> {
        self.0.get(id).copied()
    }

    /// What a reload takes over.
    pub(super) fn kept(&self) -> Self {
        let kept = self.0.iter().filter(|(_, hand)| hand.keep);
        Self(kept.map(|(id, hand)| (id.clone(), *hand)).collect())
    }

    /// Applies `change`. What is as configured again is forgotten.
    pub(super) fn change(&mut self, id: &str, change: Change) {
        let before = self.of(id).unwrap_or(ByHand {
            mode: Mode::Enabled,
            weight: None,
            keep: false,
        });
        let after = ByHand {
            mode: change.mode.unwrap_or(before.mode),
            weight: change.weight.unwrap_or(before.weight),
            keep: change.keep,
        };
        if after.mode == Mode::Enabled && after.weight.is_none() {
            self.0.remove(id);
        } else if self.0.len() < MOST || self.0.contains_key(id) {
            self.0.insert(id.to_owned(), after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(keep: bool) -> Change {
        Change {
            mode: Some(Mode::Drain),
            weight: None,
            keep,
        }
    }

    #[test]
    fn changes_add_up_and_what_is_as_configured_is_forgotten() {
        let mut hands = Hands::default();
        hands.change("a", drained(false));
        let weight = NonZeroU32::new(5);
        hands.change(
            "a",
            Change {
                weight: Some(weight),
                ..Change::default()
            },
        );
        let hand = hands.of("a").expect("changed");
        assert_eq!((hand.mode, hand.weight), (Mode::Drain, weight));
        hands.change(
            "a",
            Change {
                mode: Some(Mode::Enabled),
                weight: Some(None),
                keep: false,
            },
        );
        assert_eq!(hands.of("a"), None);
    }

    #[test]
    fn a_reload_keeps_what_was_asked_to_stay() {
        let mut hands = Hands::default();
        hands.change("a", drained(false));
        hands.change("b", drained(true));
        let kept = hands.kept();
        assert_eq!(kept.of("a"), None);
        assert!(kept.of("b").is_some_and(|hand| hand.mode == Mode::Drain));
    }
}
