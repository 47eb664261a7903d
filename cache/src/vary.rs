//! Which stored response fits this request (RFC 9111 section 4.1).
//!
//! The names are those of the response's Vary and those that the route adds. Two requests fit the
//! same response when each named field says the same in both: present or absent in both, and
//! equal after repeated lines are joined as they are on the way to the origin. In Accept and its kin,
//! which are lists, the whitespace around commas is dropped, and where case does not matter it is made
//! lower. Nothing else is normalised: what a comma means elsewhere, and that two languages would get
//! the same page, is the origin's secret.

use std::cell::RefCell;
use std::sync::Arc;

use http::HeaderName;
use http::header::{ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, COOKIE, VARY};

use crate::fields::{self, Fields};

/// The names by which the variants of a response are told apart: lower case, sorted, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Spec(Arc<[HeaderName]>);

/// A spec and what one request said to it: the address of a stored response among those of its URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Variant {
    spec: Spec,
    values: Box<[u8]>,
    by_origin: bool,
}

impl Spec {
    /// The names of the response's Vary and `extra`. Names that are none are left out, as is `*`:
    /// a response with those is not kept ([`crate::storable`]).
    pub fn new(response: &dyn Fields, extra: &[HeaderName]) -> Self {
        let mut names = extra.to_vec();
        fields::each_member(response, &VARY, &mut |name| {
            names.extend(HeaderName::from_bytes(name).ok());
        });
        names.retain(|name| name.as_str() != "*");
        Self::of(names)
    }

    /// The spec of these names.
    pub(crate) fn of(mut names: Vec<HeaderName>) -> Self {
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        shared(names)
    }

    /// The names.
    pub fn names(&self) -> &[HeaderName] {
        &self.0
    }

    /// Whether every name of `others` is among these.
    pub fn covers(&self, others: &[HeaderName]) -> bool {
        others.iter().all(|name| self.0.contains(name))
    }

    /// Writes what `request` says to these names, so that equal bytes mean the same variant.
    pub fn write_values(&self, request: &dyn Fields, out: &mut Vec<u8>) {
        for name in self.names() {
            write_value(name, request, out);
        }
    }
}

impl Variant {
    /// The variant that `request` selects by `spec`, for a response whose own Vary is not empty if
    /// `by_origin`.
    pub fn new(spec: Spec, request: &dyn Fields, by_origin: bool) -> Self {
        let mut values = Vec::new();
        spec.write_values(request, &mut values);
        Self {
            spec,
            values: values.into(),
            by_origin,
        }
    }

    /// The variant of which [`values`](Self::values) are known.
    pub(crate) fn of(spec: Spec, values: &[u8], by_origin: bool) -> Self {
        Self {
            spec,
            values: values.into(),
            by_origin,
        }
    }

    /// The names.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What the request said to them, as [`Spec::write_values`] writes it.
    pub fn values(&self) -> &[u8] {
        &self.values
    }

    /// Names and values, for people: a value that is not there, and its normalised text.
    pub fn readable(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        let mut rest = &self.values[..];
        self.spec.names().iter().map_while(move |name| {
            let (head, tail) = rest.split_at_checked(5)?;
            let length = u32::from_le_bytes(head[1..].try_into().ok()?);
            let (value, tail) = tail.split_at_checked(usize::try_from(length).ok()?)?;
            rest = tail;
            Some((name, (head[0] == PRESENT).then_some(value)))
        })
    }

    /// Whether the origin itself named a field. A response without Vary steps back behind one with
    /// it (RFC 9111 section 4.1).
    pub fn is_by_origin(&self) -> bool {
        self.by_origin
    }

    /// Whether `request` selects this variant.
    pub fn matches(&self, request: &dyn Fields) -> bool {
        if self.spec.names().is_empty() {
            return true;
        }
        let mut values = Vec::with_capacity(self.values.len());
        self.spec.write_values(request, &mut values);
        *values == *self.values
    }
}

/// Different specs that a thread remembers. A shop has a few; who has more pays for each.
const REMEMBERED: usize = 32;

thread_local! {
    static RECENT: RefCell<Vec<Spec>> = const { RefCell::new(Vec::new()) };
}

/// The spec of these names: the same one for all objects that have it, as far as this thread remembers.
fn shared(names: Vec<HeaderName>) -> Spec {
    RECENT.with_borrow_mut(|recent| {
        if let Some(known) = recent.iter().find(|known| *known.0 == *names) {
            return known.clone();
        }
        let spec = Spec(names.into());
        if recent.len() == REMEMBERED {
            recent.remove(0);
        }
        recent.push(spec.clone());
        spec
    })
}

const ABSENT: u8 = 0;
const PRESENT: u8 = 1;

/// One value: absent, or its length and its normalised text.
fn write_value(name: &HeaderName, request: &dyn Fields, out: &mut Vec<u8>) {
    let without_case =
        *name == ACCEPT_ENCODING || *name == ACCEPT_LANGUAGE || *name == ACCEPT_CHARSET;
    let is_list = without_case || *name == ACCEPT;
    let between: &[u8] = if *name == COOKIE { b"; " } else { b", " };
    let mark = out.len();
    out.extend_from_slice(&[ABSENT, 0, 0, 0, 0]);
    let start = out.len();
    request.each(name, &mut |line| {
        if !is_list {
            if out[mark] == PRESENT {
                out.extend_from_slice(between);
            }
            out[mark] = PRESENT;
            out.extend_from_slice(line.trim_ascii());
            return;
        }
        out[mark] = PRESENT;
        fields::split_list(line, &mut |member| {
            if out.len() > start {
                out.push(b',');
            }
            let from = out.len();
            out.extend_from_slice(member);
            if without_case {
                out[from..].make_ascii_lowercase();
            }
        });
    });
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[mark + 1..start].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;
    use proptest::prelude::*;

    fn same(vary: &str, one: &[&str], other: &[&str]) -> bool {
        let response = fields(&[&format!("vary: {vary}")]);
        let variant = Variant::new(Spec::new(&response, &[]), &fields(one), true);
        variant.matches(&fields(other))
    }

    #[test]
    fn names_are_lower_case_sorted_and_once() {
        let response = fields(&["vary: X-b, accept", "vary: ACCEPT"]);
        let spec = Spec::new(&response, &[HeaderName::from_static("x-a")]);
        let names: Vec<&str> = spec.names().iter().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept", "x-a", "x-b"]);
        assert!(spec.covers(&[HeaderName::from_static("x-a")]));
        assert!(!spec.covers(&[HeaderName::from_static("x-c")]));
    }

    #[test]
    fn a_variant_is_for_requests_that_say_the_same() {
        assert!(same("x", &["x: 1"], &["x: 1", "y: 2"]));
        assert!(!same("x", &["x: 1"], &["x: 2"]));
        assert!(same("x", &[], &["y: 1"]), "absent in both");
        assert!(!same("x", &[], &["x:"]), "absent is not empty");
        assert!(!same("x, y", &["x: 1"], &["y: 1"]));
    }

    #[test]
    fn a_variant_can_be_read_by_people() {
        let response = fields(&["vary: b, a"]);
        let asked = fields(&["b: x,  y"]);
        let variant = Variant::new(Spec::new(&response, &[]), &asked, true);
        let readable: Vec<_> = variant.readable().collect();
        assert_eq!(readable[0], (&HeaderName::from_static("a"), None));
        assert_eq!(
            readable[1],
            (&HeaderName::from_static("b"), Some(&b"x,  y"[..]))
        );
    }

    #[test]
    fn whitespace_and_lines_make_no_difference() {
        assert!(same("accept", &["accept: a,b"], &["accept: a ,  b"]));
        assert!(same(
            "accept",
            &["accept: a, b"],
            &["accept: a", "accept: b"]
        ));
        assert!(!same("accept", &["accept: a, b"], &["accept: b, a"]));
        assert!(
            !same(
                "accept",
                &["accept: a;b=\"c, d\""],
                &["accept: a;b=\"c,d\""]
            ),
            "a quoted string is one value"
        );
        assert!(same("x", &["x: a, b"], &["x: a", "x: b"]));
        assert!(same("x", &["x: a"], &["x:  a "]));
    }

    #[test]
    fn what_is_no_list_is_not_taken_for_one() {
        assert!(!same("x", &["x: a,b"], &["x: a ,  b"]));
        assert!(!same("cookie", &["cookie: f=a,,b"], &["cookie: f=a,b"]));
        let crumbs = ["cookie: a=1", "cookie: b=2"];
        assert!(same("cookie", &crumbs, &["cookie: a=1; b=2"]));
        assert!(!same("cookie", &crumbs, &["cookie: a=1,b=2"]));
    }

    #[test]
    fn case_counts_but_for_the_fields_defined_without() {
        assert!(same(
            "accept-language",
            &["accept-language: DE-de"],
            &["accept-language: de-DE"]
        ));
        assert!(!same("cookie", &["cookie: A=b"], &["cookie: a=b"]));
    }

    proptest! {
        #[test]
        fn different_values_never_share_a_variant(
            one in "[a-z]{0,6}", two in "[a-z]{0,6}", three in "[a-z]{0,6}", four in "[a-z]{0,6}",
        ) {
            let left = [format!("x: {one}"), format!("y: {two}")];
            let right = [format!("x: {three}"), format!("y: {four}")];
            let equal = same("x, y", &[&left[0], &left[1]], &[&right[0], &right[1]]);
            prop_assert_eq!(equal, one == three && two == four);
        }
    }
}
