//! Surrogate-Control and Surrogate-Capability (Edge Architecture Specification, W3C Note of 2001).
//!
//! The ancestor of RFC 9213's fields, and written otherwise: names without regard to case, as in
//! Cache-Control, and behind a semicolon the one surrogate that a directive is meant for. How a
//! surrogate is called the origin learns from Surrogate-Capability in the request.
//!
//! One mistake, and the field is as if it were not there, as with RFC 9213. `max-age=60+30` of the
//! Note counts as one: stale-while-revalidate and stale-if-error say what it means by it.

use http::HeaderName;

use crate::fields::{self, Fields, is_token, trim};

/// `Surrogate-Control`.
pub const CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// `Surrogate-Capability`.
pub const CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");

/// What this cache says of itself in [`CAPABILITY`]: it heeds [`CONTROL`], and assembles no pages.
pub const CAPABILITIES: &str = "tidegate=\"Surrogate/1.0\"";

/// The name that CAPABILITIES gives.
const OWN_NAME: &[u8] = b"tidegate";

/// A directive that is meant for this cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directive {
    /// Its name as written.
    pub(crate) name: Vec<u8>,
    /// Its argument, with the equals sign before it; empty where there is none.
    pub(crate) tail: Vec<u8>,
}

/// The directives of Surrogate-Control for this cache; `None` when there is no such field or it
/// does not parse. What is meant for this cache alone goes before what is meant for all.
pub(crate) fn directives(fields: &dyn Fields) -> Option<Vec<Directive>> {
    let (mut own, mut general) = (Vec::new(), Vec::new());
    let mut valid = true;
    fields::each_member(fields, &CONTROL, &mut |member| match parse(member) {
        Some((directive, None)) => general.push(directive),
        Some((directive, Some(target))) if target.eq_ignore_ascii_case(OWN_NAME) => {
            own.push(directive);
        }
        Some(_) => {}
        None => valid = false,
    });
    general.retain(|one: &Directive| !own.iter().any(|own| one.is_called(&own.name)));
    own.append(&mut general);
    Some(own).filter(|all| valid && !all.is_empty())
}

impl Directive {
    fn is_called(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// `name`, `name=token` or `name="text"`, and the target behind a semicolon.
fn parse(member: &[u8]) -> Option<(Directive, Option<&[u8]>)> {
    let quoted = memchr::memchr(b'"', member).and_then(|open| fields::quoted_end(member, open));
    let from = quoted.unwrap_or(0);
    let semicolon = memchr::memchr(b';', &member[from..]).map(|at| from + at);
    let (directive, target) = match semicolon {
        Some(at) => (&member[..at], Some(trim(&member[at + 1..]))),
        None => (member, None),
    };
    let directive = trim(directive);
    let equals = memchr::memchr(b'=', directive).unwrap_or(directive.len());
    let (name, tail) = directive.split_at(equals);
    let value = tail.get(1..);
    let well_formed = is_token(name)
        && value.is_none_or(|value| {
            is_token(value) && !value.contains(&b'+')
                || value.first() == Some(&b'"') && quoted == Some(directive.len())
        });
    (well_formed && target.is_none_or(is_token)).then(|| {
        let directive = Directive {
            name: name.to_vec(),
            tail: tail.to_vec(),
        };
        (directive, target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    fn read(value: &str) -> Option<Vec<String>> {
        let found = directives(&fields(&[&format!("surrogate-control: {value}")]))?;
        let text = |one: &Directive| {
            String::from_utf8([one.name.as_slice(), one.tail.as_slice()].concat()).unwrap()
        };
        Some(found.iter().map(text).collect())
    }

    #[test]
    fn a_directive_may_be_for_one_surrogate_only() {
        let own = ["max-age=60", "no-store"];
        assert_eq!(
            read("max-age=5, max-age=60;Tidegate, max-age=7;other, no-store").unwrap(),
            own
        );
        assert_eq!(read("max-age=60 ; tidegate").unwrap(), ["max-age=60"]);
        assert_eq!(read("max-age=60;other"), None, "nothing for us");
    }

    #[test]
    fn a_quoted_argument_may_hold_what_separates() {
        let value = r#"content="ESI/1.0; x, y";tidegate, MAX-AGE=3"#;
        assert_eq!(
            read(value).unwrap(),
            [r#"content="ESI/1.0; x, y""#, "MAX-AGE=3"]
        );
    }

    #[test]
    fn one_mistake_and_the_field_is_not_there() {
        for bad in [
            "",
            "max-age =5",
            "max-age= 5",
            "max-age=60+30",
            "x y",
            "max-age=5;",
            "max-age=5;a b",
            "max-age=\"5",
            "max-age=\"5\"6",
            "max-age=60, =5",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_is_total(member: Vec<u8>) {
            if let Some((directive, _)) = parse(&member) {
                assert!(is_token(&directive.name));
            }
        }
    }
}
