//! Conditional requests: which of `If-Match`, `If-Unmodified-Since`, `If-None-Match` and
//! `If-Modified-Since` decides, and how (RFC 9110, section 13).
//!
//! Pure: a method, fields and validators in, one of three outcomes out. It serves files and
//! cached responses alike. `If-Range` belongs to [`crate::range`]. Ask only where the answer
//! would otherwise be a 2xx (RFC 9110, 13.2.1).

use std::time::SystemTime;

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::{HeaderName, Method};

use crate::date;
use crate::etag::{Comparison, EntityTag, listed};
use crate::fields::{Fields, Lines, lines};

/// What identifies the state of the selected representation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validators<'a> {
    /// The entity tag that the response carries.
    pub etag: Option<EntityTag<'a>>,
    /// The modification time; fractions of a second do not count.
    pub last_modified: Option<SystemTime>,
    /// Whether the modification time is a strong validator (RFC 9110, 8.8.2.2): for a stored
    /// response, its `Date` lies at least one second after its `Last-Modified`; for a file,
    /// it was seen unchanged that long after it was written.
    pub date_is_strong: bool,
}

/// What the conditions of a request ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Answer as if there had been no condition.
    Proceed,
    /// 304: the client's copy is the current one.
    NotModified,
    /// 412: the state is not the one the client requires.
    Failed,
}

impl Precondition {
    /// The outcome's name, for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proceed => "proceed",
            Self::NotModified => "not_modified",
            Self::Failed => "precondition_failed",
        }
    }
}

/// Applies the conditions in the order of RFC 9110, 13.2.2.
pub fn evaluate(method: &Method, fields: &dyn Fields, validators: &Validators<'_>) -> Precondition {
    let reads = method == Method::GET || method == Method::HEAD;
    let present = |name: &HeaderName| fields.first(name).is_some();

    // Steps 1 and 2: If-Unmodified-Since is looked at only where If-Match is absent.
    if present(&IF_MATCH) {
        if !listed(fields, &IF_MATCH, validators.etag, Comparison::Strong) {
            return Precondition::Failed;
        }
    } else if let Some(false) = unmodified_since(fields, validators) {
        return Precondition::Failed;
    }

    // Steps 3 and 4: If-Modified-Since is looked at only where If-None-Match is absent.
    if present(&IF_NONE_MATCH) {
        if listed(fields, &IF_NONE_MATCH, validators.etag, Comparison::Weak) {
            return if reads {
                Precondition::NotModified
            } else {
                Precondition::Failed
            };
        }
    } else if reads && modified_since(fields, validators) == Some(false) {
        return Precondition::NotModified;
    }
    Precondition::Proceed
}

/// RFC 9110, 13.1.4. `None` where the field is absent or must be ignored.
fn unmodified_since(fields: &dyn Fields, validators: &Validators<'_>) -> Option<bool> {
    let (asked, current) = dates(fields, &IF_UNMODIFIED_SINCE, validators)?;
    Some(current <= asked)
}

/// RFC 9110, 13.1.3. `None` where the field is absent or must be ignored.
fn modified_since(fields: &dyn Fields, validators: &Validators<'_>) -> Option<bool> {
    let (asked, current) = dates(fields, &IF_MODIFIED_SINCE, validators)?;
    Some(current > asked)
}

/// The date a client names and the one we have. Anything but one valid date is ignored.
fn dates(
    fields: &dyn Fields,
    name: &HeaderName,
    validators: &Validators<'_>,
) -> Option<(SystemTime, SystemTime)> {
    let Lines::One(value) = lines(fields, name) else {
        return None;
    };
    let asked = date::parse(value)?;
    let current = date::whole_seconds(validators.last_modified?)?;
    Some((asked, current))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators() -> Validators<'static> {
        Validators {
            etag: EntityTag::parse(b"\"a\""),
            last_modified: Some(UNIX_EPOCH + Duration::from_millis(784_111_777_900)),
            date_is_strong: true,
        }
    }

    fn ask(method: &Method, fields: &[(&'static str, &str)]) -> Precondition {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        evaluate(method, &map, &validators())
    }

    fn get(fields: &[(&'static str, &str)]) -> Precondition {
        ask(&Method::GET, fields)
    }

    #[test]
    fn without_conditions_the_request_proceeds() {
        assert_eq!(get(&[]), Precondition::Proceed);
    }

    #[test]
    fn if_match_wants_the_current_tag_and_compares_strongly() {
        assert_eq!(get(&[("if-match", "\"a\"")]), Precondition::Proceed);
        assert_eq!(get(&[("if-match", "*")]), Precondition::Proceed);
        assert_eq!(get(&[("if-match", "\"b\"")]), Precondition::Failed);
        assert_eq!(get(&[("if-match", "W/\"a\"")]), Precondition::Failed);
        assert_eq!(get(&[("if-match", "a")]), Precondition::Failed, "malformed");
    }

    #[test]
    fn if_none_match_compares_weakly() {
        assert_eq!(
            get(&[("if-none-match", "W/\"a\"")]),
            Precondition::NotModified
        );
        assert_eq!(get(&[("if-none-match", "*")]), Precondition::NotModified);
        assert_eq!(get(&[("if-none-match", "\"b\"")]), Precondition::Proceed);
        assert_eq!(
            get(&[("if-none-match", "a")]),
            Precondition::Proceed,
            "malformed"
        );
    }

    #[test]
    fn a_matching_if_none_match_refuses_what_is_no_read() {
        let fields = [("if-none-match", "*")];
        assert_eq!(ask(&Method::PUT, &fields), Precondition::Failed);
        assert_eq!(ask(&Method::HEAD, &fields), Precondition::NotModified);
    }

    #[test]
    fn dates_compare_in_whole_seconds() {
        assert_eq!(get(&[("if-modified-since", OLD)]), Precondition::Proceed);
        assert_eq!(
            get(&[("if-modified-since", SAME)]),
            Precondition::NotModified
        );
        assert_eq!(
            get(&[("if-modified-since", NEW)]),
            Precondition::NotModified
        );
        assert_eq!(get(&[("if-unmodified-since", OLD)]), Precondition::Failed);
        assert_eq!(get(&[("if-unmodified-since", SAME)]), Precondition::Proceed);
        assert_eq!(get(&[("if-unmodified-since", NEW)]), Precondition::Proceed);
    }

    #[test]
    fn what_is_not_one_valid_date_is_ignored() {
        for name in ["if-modified-since", "if-unmodified-since"] {
            assert_eq!(get(&[(name, "soon")]), Precondition::Proceed);
            assert_eq!(get(&[(name, OLD), (name, OLD)]), Precondition::Proceed);
        }
        let since = [("if-modified-since", NEW)];
        assert_eq!(
            ask(&Method::POST, &since),
            Precondition::Proceed,
            "reads only"
        );
    }

    #[test]
    fn tags_take_precedence_over_dates() {
        assert_eq!(
            get(&[("if-match", "\"a\""), ("if-unmodified-since", OLD)]),
            Precondition::Proceed
        );
        assert_eq!(
            get(&[("if-none-match", "\"b\""), ("if-modified-since", NEW)]),
            Precondition::Proceed
        );
    }

    #[test]
    fn a_failed_requirement_wins_over_not_modified() {
        assert_eq!(
            get(&[("if-match", "\"b\""), ("if-none-match", "\"a\"")]),
            Precondition::Failed
        );
        assert_eq!(
            get(&[("if-match", "\"a\""), ("if-none-match", "\"a\"")]),
            Precondition::NotModified
        );
        assert_eq!(
            get(&[("if-unmodified-since", OLD), ("if-modified-since", SAME)]),
            Precondition::Failed
        );
    }

    #[test]
    fn without_validators_only_a_star_matches() {
        let mut map = HeaderMap::new();
        map.insert("if-modified-since", HeaderValue::from_static(NEW));
        map.insert("if-unmodified-since", HeaderValue::from_static(OLD));
        let none = Validators::default();
        assert_eq!(evaluate(&Method::GET, &map, &none), Precondition::Proceed);
        map.insert("if-match", HeaderValue::from_static("\"a\""));
        assert_eq!(evaluate(&Method::GET, &map, &none), Precondition::Failed);
        map.insert("if-match", HeaderValue::from_static("*"));
        assert_eq!(evaluate(&Method::GET, &map, &none), Precondition::Proceed);
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_outcome(a in "[ -~]{0,24}", b in "[ -~]{0,24}", c in "[ -~]{0,24}") {
            let mut map = HeaderMap::new();
            for (name, value) in [("if-match", a), ("if-none-match", b), ("if-modified-since", c)] {
                map.append(name, HeaderValue::from_str(&value).unwrap());
            }
            evaluate(&Method::GET, &map, &validators());
        }
    }
}
