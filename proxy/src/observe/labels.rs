//! Enums whose values label metrics and log lines.
//!
//! Each value has its word and a place, by which counters are kept. The place is the one in `ALL`,
//! so a scrape shows every value from the start.

/// Declares such an enum: `Variant = "word"`.
macro_rules! labels {
    (
        $(#[$of_all:meta])*
        $visible:vis enum $name:ident {
            $( $(#[$of_one:meta])* $value:ident = $word:literal, )+
        }
    ) => {
        $(#[$of_all])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visible enum $name {
            $( $(#[$of_one])* $value, )+
        }

        impl $name {
            /// Every value, in the order of [`Self::index`].
            $visible const ALL: [Self; [$($word),+].len()] = [$(Self::$value),+];

            /// Place in [`Self::ALL`].
            #[must_use]
            $visible fn index(self) -> usize {
                self as usize
            }

            /// Label and log value.
            #[must_use]
            $visible fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
}

pub(crate) use labels;

labels! {
    /// Why outlier detection ejected an endpoint: the key that decided.
    pub(crate) enum EjectionCause {
        /// Errors in a row.
        ConsecutiveErrors = "consecutive_errors",
        /// Too many of its recent requests failed.
        ErrorRate = "error_rate",
        /// Much slower than the others.
        Latency = "latency_factor",
    }
}

labels! {
    /// What became of a second attempt beside a late one.
    pub(crate) enum Hedge {
        /// It answered first.
        Won = "won",
        /// The late one did, or both failed.
        Lost = "lost",
    }
}

labels! {
    /// Why an upstream took no attempt, or no further one.
    pub(crate) enum Refused {
        /// No endpoint is in service.
        NoEndpoint = "no_endpoint",
        /// A limit is reached and there is no queue.
        Limit = "limit",
        /// The queue is full.
        QueueFull = "queue_full",
        /// The wait in the queue was too long.
        QueueTimeout = "queue_timeout",
        /// The retry budget is spent.
        RetryBudget = "retry_budget",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_that_in_the_list_of_all() {
        for (place, refused) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(refused.index(), place);
        }
        assert_eq!(Refused::ALL.len(), 5);
        assert_eq!(Hedge::Lost.as_str(), "lost");
    }
}
