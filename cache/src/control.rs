//! Cache-Control of requests and responses (RFC 9111 section 5.2), and the fields that take its
//! place: Pragma in requests, CDN-Cache-Control (RFC 9213) and [Surrogate-Control](crate::surrogate)
//! in responses.
//!
//! What is odd is read on the safe side. A number that is none counts as zero, so the response is
//! stale. Of conflicting directives the more restrictive one wins: the smallest number, the
//! unqualified form. A directive that restricts counts with whatever argument it has, one that
//! permits only in its exact form. After a quote that is never closed, restrictions still count and
//! permissions no more.
//!
//! Nothing is decided here; see [`crate::storable`] and [`crate::reuse`].

use std::time::Duration;

use http::HeaderName;
use http::header::{CACHE_CONTROL, PRAGMA};

use crate::fields::{self, Fields, Members, is_token, is_token_byte, quoted_end};
use crate::surrogate;

/// The largest number of seconds that is told apart: 2^31 (RFC 9111 section 1.2.2).
pub const MAX_DELTA: Duration = Duration::from_secs(1 << 31);

/// Takes the place of Cache-Control and Expires where it is valid (the target list of RFC 9213
/// section 2.2 has this one member), unless [`crate::surrogate::CONTROL`] does already: that stands
/// closer to the origin.
pub const TARGETED: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The directives of a response (RFC 9111 section 5.2.2, RFC 5861, RFC 8246).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseControl {
    /// `public`: may be stored though the method or status would not say so.
    pub public: bool,
    /// `private`: not for a shared cache, or these fields are not.
    pub private: Scope,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`: to be validated before each use, or these fields are.
    pub no_cache: Scope,
    /// `must-revalidate`: never served stale.
    pub must_revalidate: bool,
    /// `proxy-revalidate`: the same, for shared caches.
    pub proxy_revalidate: bool,
    /// `must-understand`: stored only by a cache that knows the status, and then in spite of
    /// `no-store`.
    pub must_understand: bool,
    /// `no-transform`: the body stays as it is.
    pub no_transform: bool,
    /// `immutable`: a reload needs no validation while it is fresh.
    pub immutable: bool,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`: the lifetime in shared caches.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate`: how long past its lifetime it may be served while it is refreshed.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error`: how long past its lifetime it may stand in for a failing origin.
    pub stale_if_error: Option<Duration>,
    /// Whether a targeted field was read; Cache-Control and Expires then have no say.
    pub targeted: bool,
}

/// How much of a response a directive concerns that may name fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    /// The directive is not there.
    #[default]
    Absent,
    /// Only these fields (the qualified form).
    Fields(Vec<HeaderName>),
    /// The whole response.
    Whole,
}

/// The directives of a request (RFC 9111 section 5.2.1). The default says nothing, which is also
/// what to pass where clients are not to have a say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestControl {
    /// `no-cache`, or `Pragma: no-cache` without any Cache-Control (section 5.4).
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`: the highest age wanted.
    pub max_age: Option<Duration>,
    /// `min-fresh`: how much longer it must stay fresh.
    pub min_fresh: Option<Duration>,
    /// `max-stale`: how far past its lifetime is still welcome; [`Duration::MAX`] for any.
    pub max_stale: Option<Duration>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
}

impl ResponseControl {
    /// The directives that govern this response: those of Surrogate-Control or [`TARGETED`], the
    /// first of them that is valid, else those of Cache-Control.
    pub fn read(fields: &dyn Fields) -> Self {
        Self::read_surrogate(fields)
            .or_else(|| Self::read_targeted(fields, &TARGETED))
            .unwrap_or_else(|| {
                let mut control = Self::default();
                fields.each(&CACHE_CONTROL, &mut |line| {
                    each_directive(line, &mut |name, argument| control.apply(name, argument));
                });
                control
            })
    }

    fn read_surrogate(fields: &dyn Fields) -> Option<Self> {
        let mut control = Self {
            targeted: true,
            ..Self::default()
        };
        for one in surrogate::directives(fields)? {
            control.apply(&one.name, argument(&one.tail));
        }
        Some(control)
    }

    /// A targeted field is a structured dictionary; when it is empty or does not parse, it is as if
    /// it were not there (RFC 9213 section 2.1).
    fn read_targeted(fields: &dyn Fields, name: &HeaderName) -> Option<Self> {
        let mut text = Vec::new();
        fields.each(name, &mut |line| {
            if !text.is_empty() {
                text.extend_from_slice(b", ");
            }
            text.extend_from_slice(line);
        });
        if text.is_empty() {
            return None;
        }
        let dictionary: sfv::Dictionary = sfv::Parser::new(&text).parse().ok()?;
        if dictionary.is_empty() {
            return None;
        }
        let mut control = Self {
            targeted: true,
            ..Self::default()
        };
        for (name, entry) in &dictionary {
            let name = name.as_str().as_bytes();
            match entry {
                sfv::ListEntry::Item(item) => match &item.bare_item {
                    sfv::BareItem::Boolean(true) => control.apply(name, Argument::None),
                    sfv::BareItem::Boolean(false) => {}
                    sfv::BareItem::Integer(number) => {
                        control.apply(name, Argument::Value(number.to_string().as_bytes()));
                    }
                    sfv::BareItem::String(text) => {
                        control.apply(name, Argument::Value(text.as_str().as_bytes()));
                    }
                    sfv::BareItem::Token(text) => {
                        control.apply(name, Argument::Value(text.as_str().as_bytes()));
                    }
                    _ => control.apply(name, Argument::Malformed),
                },
                sfv::ListEntry::InnerList(_) => control.apply(name, Argument::Malformed),
            }
        }
        Some(control)
    }

    fn apply(&mut self, name: &[u8], argument: Argument<'_>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let exact = argument == Argument::None;
        if is("max-age") {
            lower(&mut self.max_age, argument.seconds());
        } else if is("s-maxage") {
            lower(&mut self.s_maxage, argument.seconds());
        } else if is("stale-while-revalidate") {
            lower(&mut self.stale_while_revalidate, argument.seconds());
        } else if is("stale-if-error") {
            lower(&mut self.stale_if_error, argument.seconds());
        } else if is("private") {
            self.private.widen(argument);
        } else if is("no-cache") {
            self.no_cache.widen(argument);
        } else if is("no-store") {
            self.no_store = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("no-transform") {
            self.no_transform = true;
        } else if is("must-understand") {
            self.must_understand |= exact;
        } else if is("public") {
            self.public |= exact;
        } else if is("immutable") {
            self.immutable |= exact;
        }
    }

    /// The fields that must not be kept: what `private="..."` names (RFC 9111 section 5.2.2.7), and
    /// what `no-cache="..."` names (section 5.2.2.4), which then cannot be reused unvalidated.
    pub fn withheld(&self) -> impl Iterator<Item = &HeaderName> {
        self.private.names().iter().chain(self.no_cache.names())
    }
}

impl RequestControl {
    /// The directives of a request.
    pub fn read(fields: &dyn Fields) -> Self {
        let mut control = Self::default();
        let mut present = false;
        fields.each(&CACHE_CONTROL, &mut |line| {
            present = true;
            each_directive(line, &mut |name, argument| control.apply(name, argument));
        });
        if !present {
            fields::each_member(fields, &PRAGMA, &mut |member| {
                control.no_cache |= member.eq_ignore_ascii_case(b"no-cache");
            });
        }
        control
    }

    fn apply(&mut self, name: &[u8], argument: Argument<'_>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            lower(&mut self.max_age, argument.seconds());
        } else if is("min-fresh") {
            // Here the larger number restricts, and one that does not parse asks for nothing.
            if let Some(seconds) = argument.number() {
                self.min_fresh = Some(self.min_fresh.unwrap_or_default().max(seconds));
            }
        } else if is("max-stale") {
            let any = (argument == Argument::None).then_some(Duration::MAX);
            lower(
                &mut self.max_stale,
                any.unwrap_or_else(|| argument.seconds()),
            );
        } else if is("stale-if-error") {
            lower(&mut self.stale_if_error, argument.seconds());
        }
    }
}

impl Scope {
    fn widen(&mut self, argument: Argument<'_>) {
        let named = match argument {
            Argument::Value(list) => header_names(list),
            Argument::None | Argument::Malformed => None,
        };
        *self = match (std::mem::take(self), named) {
            (Self::Whole, _) | (_, None) => Self::Whole,
            (Self::Absent, Some(names)) => Self::Fields(names),
            (Self::Fields(mut known), Some(names)) => {
                known.extend(names);
                Self::Fields(known)
            }
        };
    }

    fn names(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Absent | Self::Whole => &[],
        }
    }
}

/// The field names of a qualified form; `None` when there are none or one is no name.
fn header_names(list: &[u8]) -> Option<Vec<HeaderName>> {
    let mut names = Some(Vec::new());
    fields::split_list(list, &mut |name| match HeaderName::from_bytes(name) {
        Ok(name) => {
            if let Some(names) = &mut names {
                names.push(name);
            }
        }
        Err(_) => names = None,
    });
    names.filter(|names| !names.is_empty())
}

fn lower(slot: &mut Option<Duration>, seconds: Duration) {
    *slot = Some(slot.map_or(seconds, |known| known.min(seconds)));
}

/// What follows the name of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Argument<'a> {
    None,
    /// A token, or the text within the quotes (RFC 9111 section 5.2: both are to be read).
    Value(&'a [u8]),
    /// Something that the grammar does not know.
    Malformed,
}

impl Argument<'_> {
    /// delta-seconds (RFC 9111 section 1.2.2), at most [`MAX_DELTA`].
    fn number(self) -> Option<Duration> {
        match self {
            Argument::Value(text) => {
                fields::digits(text).map(|seconds| Duration::from_secs(seconds).min(MAX_DELTA))
            }
            Argument::None | Argument::Malformed => None,
        }
    }

    /// The same, where what is no number counts as zero: stale (RFC 9111 section 4.2.1).
    fn seconds(self) -> Duration {
        self.number().unwrap_or_default()
    }
}

/// Calls `f` with name and argument of each directive of one line.
fn each_directive(line: &[u8], f: &mut dyn FnMut(&[u8], Argument<'_>)) {
    let mut unclosed = false;
    for member in Members::of(line) {
        let length = member
            .iter()
            .take_while(|byte| is_token_byte(**byte))
            .count();
        let (name, tail) = member.split_at(length);
        unclosed |= has_unclosed_quote(tail);
        if !name.is_empty() {
            f(
                name,
                if unclosed {
                    Argument::Malformed
                } else {
                    argument(tail)
                },
            );
        }
    }
}

fn argument(tail: &[u8]) -> Argument<'_> {
    match tail {
        [] => Argument::None,
        [b'=', b'"', text @ .., b'"'] if quoted_end(tail, 1) == Some(tail.len()) => {
            // An escape within a number or a field name makes it neither.
            if text.contains(&b'\\') {
                Argument::Malformed
            } else {
                Argument::Value(text)
            }
        }
        [b'=', text @ ..] if is_token(text) => Argument::Value(text),
        _ => Argument::Malformed,
    }
}

fn has_unclosed_quote(text: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() {
        at = match text[at] {
            b'"' => match quoted_end(text, at) {
                Some(end) => end,
                None => return true,
            },
            _ => at + 1,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{fields, secs};
    use proptest::prelude::*;

    fn response(value: &str) -> ResponseControl {
        ResponseControl::read(&fields(&[&format!("cache-control: {value}")]))
    }

    fn request(value: &str) -> RequestControl {
        RequestControl::read(&fields(&[&format!("cache-control: {value}")]))
    }

    #[test]
    fn directives_are_read_whatever_their_case_and_form() {
        let control = response("PUBLIC, Max-Age=\"60\" ,s-MAXAGE=5,, must-revalidate, x-unknown=1");
        assert!(control.public && control.must_revalidate && !control.no_store);
        assert_eq!(
            (control.max_age, control.s_maxage),
            (Some(secs(60)), Some(secs(5)))
        );
    }

    #[test]
    fn a_number_that_is_none_makes_the_response_stale() {
        for bad in [
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-age=+1",
            "max-age=1.5",
            "max-age='60'",
            "max-age =60",
            "max-age= 60",
            "max-age=60;x",
            "max-age=\"60",
            "max-age=\"6\\0\"",
            "max-age=60 60",
            "max-age=0x3c",
        ] {
            assert_eq!(response(bad).max_age, Some(Duration::ZERO), "{bad}");
        }
    }

    #[test]
    fn a_number_too_large_is_two_to_the_31() {
        assert_eq!(response("max-age=2147483649").max_age, Some(MAX_DELTA));
        assert_eq!(
            response("max-age=99999999999999999999999").max_age,
            Some(MAX_DELTA)
        );
        assert_eq!(response("max-age=0000060").max_age, Some(secs(60)));
    }

    #[test]
    fn of_repeated_directives_the_most_restrictive_wins() {
        assert_eq!(
            response("max-age=60, max-age=1, max-age=30").max_age,
            Some(secs(1))
        );
        assert_eq!(
            response("max-age=60, max-age=x").max_age,
            Some(Duration::ZERO)
        );
        let control = ResponseControl::read(&fields(&[
            "cache-control: max-age=60",
            "cache-control: no-store, max-age=50",
        ]));
        assert!(control.no_store, "lines are one list");
        assert_eq!(control.max_age, Some(secs(50)));
    }

    #[test]
    fn a_directive_inside_a_quoted_string_is_none() {
        let control = response("x=\"no-store, max-age=1\", max-age=60");
        assert!(!control.no_store);
        assert_eq!(control.max_age, Some(secs(60)));
    }

    #[test]
    fn an_unclosed_quote_hides_no_restriction_and_permits_nothing() {
        let control = response("x=\"a, no-store, public, max-age=60");
        assert!(control.no_store && !control.public);
        assert_eq!(control.max_age, Some(Duration::ZERO));
    }

    #[test]
    fn a_restriction_counts_with_any_argument_and_a_permission_only_without() {
        let control = response("no-store=1, must-revalidate=x, public=1, immutable=1");
        assert!(control.no_store && control.must_revalidate);
        assert!(!control.public && !control.immutable);
    }

    #[test]
    fn the_qualified_forms_name_fields() {
        let control = response("private=\"X-User, x-cart\", no-cache=set-cookie, max-age=9");
        let names: Vec<&str> = control.withheld().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-user", "x-cart", "set-cookie"]);
        assert_eq!(
            control.no_cache,
            Scope::Fields(vec![http::header::SET_COOKIE])
        );
    }

    #[test]
    fn a_qualified_form_that_names_no_field_means_the_whole() {
        for value in [
            "private=\"\"",
            "private=\"a b\"",
            "private=\"x\", private",
            "private, private=x",
        ] {
            assert_eq!(response(value).private, Scope::Whole, "{value}");
        }
    }

    #[test]
    fn a_targeted_field_takes_the_place_of_cache_control() {
        let control = ResponseControl::read(&fields(&[
            "cache-control: no-store",
            "cdn-cache-control: max-age=60, stale-if-error=5;x=1",
        ]));
        assert!(control.targeted && !control.no_store);
        assert_eq!(control.max_age, Some(secs(60)));
        assert_eq!(control.stale_if_error, Some(secs(5)));
        let control = ResponseControl::read(&fields(&[
            "cdn-cache-control: max-age=60",
            "surrogate-control: Max-Age=10, max-age=20;other",
        ]));
        assert!(control.targeted);
        assert_eq!(control.max_age, Some(secs(10)));
    }

    #[test]
    fn a_targeted_field_that_is_empty_or_does_not_parse_is_not_there() {
        for bad in [
            "",
            "max-age=60,",
            "max-age=60&",
            "Max-Age=60",
            "max-age=60+30",
        ] {
            let control = ResponseControl::read(&fields(&[
                "cache-control: no-store",
                &format!("cdn-cache-control: {bad}"),
            ]));
            assert!(control.no_store && !control.targeted, "{bad}");
        }
    }

    #[test]
    fn a_targeted_number_of_another_type_is_stale() {
        for bad in [
            "max-age=1.5",
            "max-age=?1",
            "max-age=(60)",
            "max-age=-1",
            "max-age=:AA==:",
        ] {
            let control = ResponseControl::read(&fields(&[&format!("cdn-cache-control: {bad}")]));
            assert_eq!(control.max_age, Some(Duration::ZERO), "{bad}");
        }
    }

    #[test]
    fn a_request_says_what_it_wants() {
        let control = request("max-age=5, min-fresh=2, max-stale, only-if-cached, no-store");
        assert!(control.only_if_cached && control.no_store && !control.no_cache);
        assert_eq!(control.max_age, Some(secs(5)));
        assert_eq!(control.min_fresh, Some(secs(2)));
        assert_eq!(control.max_stale, Some(Duration::MAX));
        assert_eq!(request("max-stale=7, max-stale").max_stale, Some(secs(7)));
        assert_eq!(request("max-stale=x").max_stale, Some(Duration::ZERO));
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let control = RequestControl::read(&fields(&["pragma: x, No-Cache"]));
        assert!(control.no_cache);
        let control =
            RequestControl::read(&fields(&["pragma: no-cache", "cache-control: max-age=5"]));
        assert!(!control.no_cache);
    }

    proptest! {
        #[test]
        fn reading_is_total(line: Vec<u8>) {
            each_directive(&line, &mut |name, _| assert!(is_token(name)));
        }

        #[test]
        fn no_store_after_anything_printable_is_seen(before in "[ -~]{0,40}") {
            // A closed quoted string may swallow nothing that follows the next comma.
            let quotes = before.bytes().filter(|byte| *byte == b'"').count();
            prop_assume!(quotes == 0);
            let line = format!("{before},no-store");
            prop_assert!(response(line.trim()).no_store);
        }
    }
}
