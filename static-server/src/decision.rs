//! What a GET or HEAD of a representation gets: one pure function of the request's head and
//! of what is known of the representation (RFC 9110, sections 13 and 14).
//!
//! Conditions come before ranges, and `If-Range` is looked at only where a range is asked for
//! (13.2.2). Files, cached pages and pages made on the fly are all answered by it.

use http::Method;

use crate::conditions::{self, Precondition, Validators};
use crate::fields::Fields;
use crate::range::{self, ByteRange, Limits, RangeOutcome};

/// What the request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// 200 with all of it.
    Whole,
    /// 206 with one range.
    Single(ByteRange),
    /// 206 with several, as `multipart/byteranges`.
    Multiple(Vec<ByteRange>),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    RangeUnsatisfiable,
}

/// Decides for a representation of `len` bytes.
pub fn decide(
    method: &Method,
    fields: &dyn Fields,
    len: u64,
    validators: &Validators<'_>,
    limits: Limits,
) -> Decision {
    match conditions::evaluate(method, fields, validators) {
        Precondition::Proceed => {}
        Precondition::NotModified => return Decision::NotModified,
        Precondition::Failed => return Decision::PreconditionFailed,
    }
    match range::evaluate(method, fields, len, validators, limits) {
        RangeOutcome::Whole => Decision::Whole,
        RangeOutcome::Single(range) => Decision::Single(range),
        RangeOutcome::Multiple(ranges) => Decision::Multiple(ranges),
        RangeOutcome::Unsatisfiable => Decision::RangeUnsatisfiable,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::etag::EntityTag;

    const LEN: u64 = 100;
    const OTHER: &str = "\"other\"";
    const OWN: &str = "\"own\"";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators() -> Validators<'static> {
        Validators {
            etag: EntityTag::parse(OWN.as_bytes()),
            last_modified: Some(UNIX_EPOCH + Duration::from_secs(784_111_777)),
            date_is_strong: true,
        }
    }

    /// The five fields, each absent, true or false, as the RFC's own steps go through them.
    #[derive(Clone, Debug)]
    struct Asked {
        get: bool,
        matches: Option<bool>,
        unmodified: Option<bool>,
        none: Option<bool>,
        modified: Option<bool>,
        range: bool,
        if_range: Option<bool>,
    }

    fn asked() -> impl Strategy<Value = Asked> {
        let three = || prop::option::of(any::<bool>());
        (
            any::<bool>(),
            three(),
            three(),
            three(),
            three(),
            any::<bool>(),
            three(),
        )
            .prop_map(
                |(get, matches, unmodified, none, modified, range, if_range)| Asked {
                    get,
                    matches,
                    unmodified,
                    none,
                    modified,
                    range,
                    if_range,
                },
            )
    }

    impl Asked {
        fn fields(&self) -> HeaderMap {
            let mut map = HeaderMap::new();
            let mut put =
                |name: &'static str, holds: Option<bool>, yes: &'static str, no: &'static str| {
                    if let Some(holds) = holds {
                        let value = HeaderValue::from_static(if holds { yes } else { no });
                        map.insert(HeaderName::from_static(name), value);
                    }
                };
            put("if-match", self.matches, OWN, OTHER);
            put("if-unmodified-since", self.unmodified, AT, BEFORE);
            put("if-none-match", self.none, OTHER, OWN);
            put("if-modified-since", self.modified, BEFORE, AFTER);
            put("if-range", self.if_range, OWN, "W/\"own\"");
            put("range", self.range.then_some(true), "bytes=10-19", "");
            map
        }

        /// RFC 9110, 13.2.2, step by step.
        fn by_the_book(&self) -> Decision {
            // 1 and 2
            let precondition = self.matches.or(self.unmodified);
            if precondition == Some(false) {
                return Decision::PreconditionFailed;
            }
            // 3 and 4
            if self.none.or(self.modified) == Some(false) {
                return Decision::NotModified;
            }
            // 5
            if self.get && self.range && self.if_range != Some(false) {
                return ByteRange::new(10, 19).map_or(Decision::Whole, Decision::Single);
            }
            // 6
            Decision::Whole
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn the_fields_are_judged_in_the_order_of_the_rfc(asked in asked()) {
            let method = if asked.get { Method::GET } else { Method::HEAD };
            let limits = Limits::default();
            let decision = decide(&method, &asked.fields(), LEN, &validators(), limits);
            prop_assert_eq!(decision, asked.by_the_book());
        }

        #[test]
        fn what_is_sent_lies_inside_and_is_no_longer_than_the_whole(
            range in "bytes=[0-9, -]{0,24}",
            len in 0_u64..200,
        ) {
            let mut map = HeaderMap::new();
            map.insert(http::header::RANGE, HeaderValue::from_str(&range).unwrap());
            let limits = Limits::default();
            match decide(&Method::GET, &map, len, &validators(), limits) {
                Decision::Single(range) => prop_assert!(range.last() < len),
                Decision::Multiple(ranges) => {
                    prop_assert!(ranges.len() > 1 && ranges.len() <= limits.max_ranges);
                    prop_assert!(ranges.iter().all(|range| range.last() < len));
                    prop_assert!(ranges.iter().map(|range| range.len()).sum::<u64>() <= len);
                }
                Decision::Whole | Decision::RangeUnsatisfiable => {}
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
