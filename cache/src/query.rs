//! The query as the key sees it: without what the operator knows to be of no account.
//!
//! What goes upstream stays as the client sent it; only which requests share an object changes. So
//! every rule here is a promise of the operator's about the origin, and what no rule names stays
//! apart. Without rules the key holds the query as it is.
//!
//! A query is a list of parameters, split at `&`, and no query is the empty list. That goes both
//! ways, `""` being the list of one empty parameter, so the result tells lists apart:
//!
//! - `drop` says: these parameters do not matter. They go, each with one `&`.
//! - `keep` says: only these matter. All others go, empty ones (`a=1&&b=2`) too.
//! - `sort` says: the order of parameters of different names does not matter. Parameters of one name
//!   keep theirs, since `a=1&a=2` and `a=2&a=1` are different lists to an origin.
//!
//! Two requests share a key when what is left is equal, byte for byte. No query results from no
//! query, and from one of which the rules left nothing: with `utm_*` dropped, `/x?utm_source=a` is
//! `/x`. `/x?` is not, unless `keep` says that nothing but its names counts.
//!
//! Names are compared decoded (`%61` and `a` are one name, `+` is a space), because origins do. The
//! bytes that are kept are not decoded: `a=%62` and `a=b` stay apart, as do `a` and `a=`.
//!
//! A parameter with `;` in it is never left out. Some frameworks split there as well and would find
//! a parameter behind it that no rule names: `utm_x=1;user=2` would be served to others.

use std::cmp::Ordering;
use std::str::FromStr;

/// Which parameters count. The default says: all, as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryRules {
    /// Whether the order of parameters of different names is of no account.
    pub sort: bool,
    /// The names that count, decoded; `None` is all of them.
    pub keep: Option<Vec<String>>,
    /// The names that do not count. Stands above `keep`.
    pub drop: Vec<Pattern>,
}

/// Names of parameters, decoded. Case counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// This name.
    Exact(String),
    /// Every name that begins so.
    Prefix(String),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// It is empty.
    #[error("a pattern is the name of a parameter, such as `fbclid` or `utm_*`")]
    Empty,
    /// It is a star alone, which would drop everything.
    #[error("`*` would drop every parameter; an empty list of names to keep says so more clearly")]
    Everything,
    /// A star that is not at its end.
    #[error("`*` stands only at the end of a pattern, as in `utm_*`")]
    InnerStar,
}

impl FromStr for Pattern {
    type Err = BadPattern;

    /// Reads `name` or `prefix*`.
    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let (stem, is_prefix) = match text.strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (text, false),
        };
        match (stem, is_prefix) {
            ("", true) => Err(BadPattern::Everything),
            ("", false) => Err(BadPattern::Empty),
            _ if stem.contains('*') => Err(BadPattern::InnerStar),
            (_, true) => Ok(Self::Prefix(stem.to_owned())),
            (_, false) => Ok(Self::Exact(stem.to_owned())),
        }
    }
}

impl Pattern {
    /// Whether the parameter with this name, as it stands in a query, is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => decoded(name).eq(text.bytes()),
            Self::Prefix(text) => {
                let mut name = decoded(name);
                text.bytes().all(|byte| name.next() == Some(byte))
            }
        }
    }
}

impl QueryRules {
    /// Whether every query stays as it is.
    pub fn is_identity(&self) -> bool {
        !self.sort && self.keep.is_none() && self.drop.is_empty()
    }

    /// The query that goes into the key. `out` is a buffer to keep and give again; it is not touched
    /// where the query stays as it is.
    pub fn apply<'a>(&self, query: Option<&'a str>, out: &'a mut String) -> Option<&'a str> {
        let query = query?;
        if self.is_identity() {
            return Some(query);
        }
        out.clear();
        let kept = query.split('&').filter(|parameter| self.counts(parameter));
        let any = if self.sort {
            let mut kept: Vec<&str> = kept.collect();
            kept.sort_by(|one, other| by_name(one, other));
            join(kept, out)
        } else {
            join(kept, out)
        };
        any.then_some(out)
    }

    fn counts(&self, parameter: &str) -> bool {
        let name = name(parameter);
        let dropped = || self.drop.iter().any(|pattern| pattern.matches(name));
        let kept = || match &self.keep {
            Some(names) => names.iter().any(|one| decoded(name).eq(one.bytes())),
            None => true,
        };
        parameter.contains(';') || (kept() && !dropped())
    }
}

/// Writes the parameters with `&` between them; whether there was one.
fn join<'a>(parameters: impl IntoIterator<Item = &'a str>, out: &mut String) -> bool {
    let mut any = false;
    for parameter in parameters {
        if any {
            out.push('&');
        }
        out.push_str(parameter);
        any = true;
    }
    any
}

fn by_name(one: &str, other: &str) -> Ordering {
    decoded(name(one)).cmp(decoded(name(other)))
}

fn name(parameter: &str) -> &str {
    parameter.split('=').next().unwrap_or(parameter)
}

/// The bytes that `text` stands for: `+` is a space, `%` with two hexadecimal digits a byte, and
/// anything else itself, as in the URL standard's application/x-www-form-urlencoded.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (byte, tail) = match *rest {
            [] => return None,
            [b'+', ref tail @ ..] => (b' ', tail),
            [b'%', high, low, ref tail @ ..] => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => (high << 4 | low, tail),
                _ => (b'%', &rest[1..]),
            },
            [byte, ref tail @ ..] => (byte, tail),
        };
        rest = tail;
        Some(byte)
    })
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(sort: bool, keep: Option<&[&str]>, drop: &[&str]) -> QueryRules {
        QueryRules {
            sort,
            keep: keep.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            drop: drop.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn apply(rules: &QueryRules, query: Option<&str>) -> Option<String> {
        let mut out = String::from("what was there before");
        rules.apply(query, &mut out).map(str::to_owned)
    }

    #[track_caller]
    fn gives(rules: &QueryRules, query: &str, expected: Option<&str>) {
        assert_eq!(apply(rules, Some(query)).as_deref(), expected, "{query}");
    }

    #[test]
    fn what_is_dropped_goes_and_the_rest_stays_byte_for_byte() {
        let rules = rules(false, None, &["utm_*", "fbclid"]);
        gives(
            &rules,
            "b=%62&utm_source=x&a=+&fbclid=1&a",
            Some("b=%62&a=+&a"),
        );
        gives(&rules, "fbclid", None);
        gives(&rules, "utm_a&utm_b=&utm_=1", None);
        gives(
            &rules,
            "fbclid2=1&utm=1&UTM_x=1",
            Some("fbclid2=1&utm=1&UTM_x=1"),
        );
    }

    #[test]
    fn names_are_compared_decoded() {
        let rules = rules(false, None, &["utm_*", "a b"]);
        for dropped in ["u%74m_x=1", "utm%5Fx=1", "utm%5fx", "a+b=1", "a%20b", "a b"] {
            gives(&rules, dropped, None);
        }
        for kept in [
            "a%2Bb=1",
            "utm%255Fx",
            "u%7m_x",
            "utm%_x",
            "%",
            "%u",
            "a+b+",
        ] {
            gives(&rules, kept, Some(kept));
        }
    }

    #[test]
    fn only_the_names_to_keep_count() {
        let rules = rules(false, Some(&["id", "page"]), &[]);
        gives(
            &rules,
            "x=1&page=2&id=3&id=4&ID=5",
            Some("page=2&id=3&id=4"),
        );
        gives(&rules, "%69d=1", Some("%69d=1"));
        gives(&rules, "id[]=1", None);
        gives(
            &QueryRules {
                keep: Some(Vec::new()),
                ..rules
            },
            "id=1",
            None,
        );
    }

    #[test]
    fn dropping_stands_above_keeping() {
        gives(
            &rules(false, Some(&["a", "b"]), &["a"]),
            "a=1&b=2",
            Some("b=2"),
        );
    }

    #[test]
    fn sorting_is_by_name_and_leaves_those_of_one_name_in_order() {
        let rules = rules(true, None, &[]);
        gives(&rules, "b=1&a=2&c", Some("a=2&b=1&c"));
        gives(&rules, "a=2&b=1&a=1", Some("a=2&a=1&b=1"));
        gives(&rules, "a=2&%61=1&b", Some("a=2&%61=1&b"));
        gives(&rules, "%61=1&a=2", Some("%61=1&a=2"));
        gives(&rules, "a-b=1&a=2", Some("a=2&a-b=1"));
    }

    #[test]
    fn an_empty_query_is_not_none_unless_a_rule_says_so() {
        assert_eq!(apply(&QueryRules::default(), None), None);
        gives(&QueryRules::default(), "", Some(""));
        let dropping = rules(true, None, &["utm_*"]);
        assert_eq!(apply(&dropping, None), None);
        gives(&dropping, "", Some(""));
        gives(&dropping, "utm_x=1", None);
        gives(&dropping, "utm_x=1&", Some(""));
        gives(&rules(false, Some(&["a"]), &[]), "", None);
        gives(&rules(false, Some(&["a"]), &[]), "&a=1&", Some("a=1"));
    }

    #[test]
    fn what_differs_in_no_rule_stays_apart() {
        let rules = rules(true, None, &["utm_*"]);
        for (one, other) in [
            ("a", "a="),
            ("a=1&a=2", "a=2&a=1"),
            ("a=b", "a=%62"),
            ("a=1&b=2", "a=1&&b=2"),
            ("a=1", "a=1&"),
            ("a=1", "%61=1"),
            ("a==1", "a=1"),
        ] {
            assert_ne!(
                apply(&rules, Some(one)),
                apply(&rules, Some(other)),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn a_parameter_that_others_split_at_a_semicolon_is_not_left_out() {
        for rules in [
            rules(false, None, &["utm_*"]),
            rules(false, Some(&["a"]), &[]),
        ] {
            gives(&rules, "utm_x=1;user=2", Some("utm_x=1;user=2"));
            gives(&rules, "utm_x=1%3Buser=2", None);
        }
    }

    #[test]
    fn a_pattern_is_a_name_with_a_star_at_most_at_its_end() {
        assert_eq!("utm_*".parse(), Ok(Pattern::Prefix("utm_".into())));
        assert_eq!("gclid".parse(), Ok(Pattern::Exact("gclid".into())));
        assert_eq!("".parse::<Pattern>(), Err(BadPattern::Empty));
        assert_eq!("*".parse::<Pattern>(), Err(BadPattern::Everything));
        for text in ["*_id", "a*b", "a**"] {
            assert_eq!(text.parse::<Pattern>(), Err(BadPattern::InnerStar));
        }
    }

    /// Some rules over the names that [`query`] makes.
    fn some_rules() -> impl Strategy<Value = QueryRules> {
        let names = prop::sample::subsequence(vec!["a", "b", "ab", "", " "], 0..=4);
        let patterns = prop::sample::subsequence(vec!["a", "b*", "%", "a *"], 0..=3);
        (any::<bool>(), prop::option::of(names), patterns)
            .prop_map(|(sort, keep, drop)| rules(sort, keep.as_deref(), &drop))
    }

    fn query() -> impl Strategy<Value = Option<String>> {
        prop::option::of("((a|b|%61|%6|\\+|=|&|1|;){0,12}|.{0,20})")
    }

    /// What counts of a query, told again without the code above: for each decoded name, in the order
    /// of names if that does not matter, its parameters.
    fn left(rules: &QueryRules, query: Option<&str>) -> Vec<(Vec<u8>, String)> {
        let decode = |text: &str| {
            let text = text.replace('+', " ").into_bytes();
            let (mut out, mut at) = (Vec::new(), 0);
            while at < text.len() {
                let digits = text
                    .get(at + 1..at + 3)
                    .filter(|two| two.iter().all(u8::is_ascii_hexdigit));
                match digits.filter(|_| text[at] == b'%') {
                    Some(two) => {
                        out.push(
                            u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap(),
                        );
                        at += 3;
                    }
                    None => {
                        out.push(text[at]);
                        at += 1;
                    }
                }
            }
            out
        };
        let mut left: Vec<(Vec<u8>, String)> = query
            .into_iter()
            .flat_map(|query| query.split('&'))
            .map(|one| {
                (
                    decode(one.split_once('=').map_or(one, |(name, _)| name)),
                    one.to_owned(),
                )
            })
            .filter(|(name, one)| {
                let keep = rules
                    .keep
                    .as_ref()
                    .is_none_or(|names| names.iter().any(|n| n.as_bytes() == name));
                let drop = rules.drop.iter().any(|pattern| match pattern {
                    Pattern::Exact(text) => text.as_bytes() == name,
                    Pattern::Prefix(text) => name.starts_with(text.as_bytes()),
                });
                one.contains(';') || (keep && !drop)
            })
            .collect();
        if rules.sort {
            left.sort_by(|one, other| one.0.cmp(&other.0));
        }
        left
    }

    proptest! {
        #[test]
        fn without_rules_nothing_changes(query: Option<String>) {
            prop_assert_eq!(apply(&QueryRules::default(), query.as_deref()), query);
        }

        #[test]
        fn applying_twice_is_the_same_as_once(rules in some_rules(), query in query()) {
            let once = apply(&rules, query.as_deref());
            prop_assert_eq!(apply(&rules, once.as_deref()), once);
        }

        #[test]
        fn two_queries_share_a_result_only_when_what_counts_is_the_same(
            rules in some_rules(), one in query(), other in query(),
        ) {
            prop_assert_eq!(
                apply(&rules, one.as_deref()) == apply(&rules, other.as_deref()),
                left(&rules, one.as_deref()) == left(&rules, other.as_deref())
            );
        }

        #[test]
        fn a_shuffled_query_shares_a_result_only_when_order_within_names_is_the_same(
            rules in some_rules(),
            (one, other) in prop::collection::vec("(a|b|%61)(=[12]?)?", 0..5)
                .prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        ) {
            let (one, other) = (one.join("&"), other.join("&"));
            prop_assert_eq!(
                apply(&rules, Some(&one)) == apply(&rules, Some(&other)),
                left(&rules, Some(&one)) == left(&rules, Some(&other))
            );
        }

        #[test]
        fn what_is_left_are_parameters_of_the_query(rules in some_rules(), query in query()) {
            if let (Some(query), Some(result)) = (&query, apply(&rules, query.as_deref())) {
                let mut there: Vec<&str> = query.split('&').collect();
                for parameter in result.split('&') {
                    let at = there.iter().position(|one| *one == parameter);
                    prop_assert!(at.is_some(), "{parameter:?} was not in {query:?}");
                    there.remove(at.unwrap());
                }
            }
        }

        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, rules in some_rules()) {
            apply(&rules, Some(&String::from_utf8_lossy(&bytes)));
        }
    }
}
