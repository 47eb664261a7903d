//! The request as the origin is to see it, and by which variants are told apart: with as few
//! different values as the origin has answers.
//!
//! Clients say the same in a thousand ways. A response with `Vary: accept-language` would be kept
//! once for each of them, though the origin speaks three languages. So the operator names what the
//! origin has, the request is made to say the one of them that the client prefers, and it is that
//! request that goes upstream: only then do those who share a variant get what they asked for.
//!
//! - Accept-Encoding: the best of the configured codings by RFC 9110 section 12.5.3.
//! - Accept-Language: the best of the configured tags by RFC 4647.
//! - Fields to drop are as if the client had not sent them.
//!
//! Where nothing of the list is wanted, the field goes and the origin does what it does by default.
//! [`Normalised`] is a view; nothing is copied, and what is not configured is not looked at.

mod language;

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE};
use http::{HeaderName, HeaderValue};

use crate::coding::Coding;
use crate::fields::{Fields, is_token, trim};
use crate::weight::{Choice, IDENTITY, MOST_CODINGS, choose_coding};

/// What the operator configured for a route. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Normal {
    encodings: Option<Vec<HeaderValue>>,
    languages: Option<Vec<HeaderValue>>,
    dropped: Vec<HeaderName>,
}

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNormal {
    /// Not the name of a coding.
    #[error("{0:?} is not the name of a content coding, such as `br` or `gzip`")]
    Coding(String),
    /// More codings than can be weighed.
    #[error("at most {MOST_CODINGS} codings can be told apart")]
    TooManyCodings,
    /// Not a language tag.
    #[error("{0:?} is not a language tag, such as `de` or `en-GB`")]
    Language(String),
    /// More tags than are compared for each request.
    #[error("at most {} languages can be told apart", language::MOST_TAGS)]
    TooManyLanguages,
}

impl Normal {
    /// Shows of Accept-Encoding the best of these codings, the operator's favourite first.
    ///
    /// `identity` may stand among them: a client that sent the field and wants none of the others is
    /// then shown with it, for origins that compress unasked.
    pub fn with_encodings<'a>(
        mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, BadNormal> {
        let mut values: Vec<HeaderValue> = Vec::new();
        for name in names {
            let bad = || BadNormal::Coding(name.to_owned());
            if !is_token(name.as_bytes()) || name == "*" {
                return Err(bad());
            }
            // The one spelling, where we know it: `x-gzip` is `gzip`.
            let known = Coding::from_name(name.as_bytes()).map(Coding::as_str);
            let name = known.map_or_else(|| name.to_ascii_lowercase(), str::to_owned);
            let value = HeaderValue::try_from(name).map_err(|_| bad())?;
            if !values.contains(&value) {
                values.push(value);
            }
        }
        if values.len() > MOST_CODINGS {
            return Err(BadNormal::TooManyCodings);
        }
        self.encodings = Some(values);
        Ok(self)
    }

    /// Shows of Accept-Language the best of these tags, the operator's favourite first.
    pub fn with_languages<'a>(
        mut self,
        tags: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, BadNormal> {
        let mut values: Vec<HeaderValue> = Vec::new();
        for tag in tags {
            let bad = || BadNormal::Language(tag.to_owned());
            if !language::is_tag(tag.as_bytes()) {
                return Err(bad());
            }
            let is_there = |one: &HeaderValue| one.as_bytes().eq_ignore_ascii_case(tag.as_bytes());
            if !values.iter().any(is_there) {
                values.push(HeaderValue::try_from(tag).map_err(|_| bad())?);
            }
        }
        if values.len() > language::MOST_TAGS {
            return Err(BadNormal::TooManyLanguages);
        }
        self.languages = Some(values);
        Ok(self)
    }

    /// Hides these fields.
    #[must_use]
    pub fn without(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.dropped.extend(names);
        self
    }

    /// Whether every request stays as it is.
    pub fn is_identity(&self) -> bool {
        self.encodings.is_none() && self.languages.is_none() && self.dropped.is_empty()
    }

    /// The request as the origin is to see it.
    pub fn apply<'a>(&'a self, request: &'a dyn Fields) -> Normalised<'a> {
        Normalised {
            request,
            encoding: match &self.encodings {
                Some(offered) => Shown::Only(best_encoding(request, offered)),
                None => Shown::AsIs,
            },
            language: match &self.languages {
                Some(offered) => Shown::Only(language::best(request, offered)),
                None => Shown::AsIs,
            },
            dropped: &self.dropped,
        }
    }
}

/// A client that sent no field is shown without one, whatever is offered: applied to its own result,
/// this must change nothing.
fn best_encoding<'a>(request: &dyn Fields, offered: &'a [HeaderValue]) -> Option<&'a HeaderValue> {
    if !request.has(&ACCEPT_ENCODING) {
        return None;
    }
    // Identity is no coding, and has rules of its own.
    let is_identity = |value: &&HeaderValue| value.as_bytes() == IDENTITY;
    let mut codings = [None; MOST_CODINGS];
    let mut names = [&b""[..]; MOST_CODINGS];
    let mut count = 0;
    for value in offered.iter().filter(|value| !is_identity(value)) {
        if let (Some(slot), Some(name)) = (codings.get_mut(count), names.get_mut(count)) {
            (*slot, *name) = (Some(value), value.as_bytes());
            count += 1;
        }
    }
    match choose_coding(request, &names[..count]) {
        Choice::Coding(at) => codings.get(at).copied().flatten(),
        Choice::Identity => offered.iter().find(is_identity),
        Choice::Nothing => None,
    }
}

/// A request behind a [`Normal`].
#[derive(Clone, Copy)]
pub struct Normalised<'a> {
    request: &'a dyn Fields,
    encoding: Shown<'a>,
    language: Shown<'a>,
    dropped: &'a [HeaderName],
}

/// What is shown of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown<'a> {
    /// What the client sent.
    AsIs,
    /// This one value, or nothing.
    Only(Option<&'a HeaderValue>),
}

impl<'a> Normalised<'a> {
    /// What has to change in the request before it goes upstream: each field with the one value that
    /// it is to have, or `None` where it is to go. A field that is not there may be named; one that
    /// is not named stays as it is.
    pub fn changes(&self) -> impl Iterator<Item = (HeaderName, Option<HeaderValue>)> + 'a {
        let dropped = self.dropped;
        let shown = [
            (ACCEPT_ENCODING, self.encoding),
            (ACCEPT_LANGUAGE, self.language),
        ];
        let shown = shown
            .into_iter()
            .filter_map(move |(name, shown)| match shown {
                Shown::Only(value) if !dropped.contains(&name) => Some((name, value.cloned())),
                Shown::Only(_) | Shown::AsIs => None,
            });
        shown.chain(dropped.iter().map(|name| (name.clone(), None)))
    }

    /// What is shown of the field with this name.
    fn shown(&self, name: &[u8]) -> Shown<'a> {
        let is = |one: &HeaderName| one.as_str().as_bytes().eq_ignore_ascii_case(name);
        if self.dropped.iter().any(is) {
            Shown::Only(None)
        } else if self.encoding != Shown::AsIs && is(&ACCEPT_ENCODING) {
            self.encoding
        } else if self.language != Shown::AsIs && is(&ACCEPT_LANGUAGE) {
            self.language
        } else {
            Shown::AsIs
        }
    }
}

impl Fields for Normalised<'_> {
    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        match self.shown(name.as_str().as_bytes()) {
            Shown::AsIs => self.request.first(name),
            Shown::Only(value) => value.map(|value| trim(value.as_bytes())),
        }
    }

    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8])) {
        match self.shown(name.as_str().as_bytes()) {
            Shown::AsIs => self.request.each(name, f),
            Shown::Only(value) => value.into_iter().for_each(|value| f(value.as_bytes())),
        }
    }

    fn all(&self, f: &mut dyn FnMut(&[u8], &[u8])) {
        self.request.all(&mut |name, value| {
            if self.shown(name) == Shown::AsIs {
                f(name, value);
            }
        });
        for (name, shown) in [
            (ACCEPT_ENCODING, self.encoding),
            (ACCEPT_LANGUAGE, self.language),
        ] {
            let name = name.as_str().as_bytes();
            if let (Shown::Only(_), Shown::Only(Some(value))) = (shown, self.shown(name)) {
                f(name, value.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;
    use crate::vary::{Spec, Variant};
    use http::HeaderMap;
    use http::header::{COOKIE, USER_AGENT};
    use proptest::prelude::*;

    fn normal() -> Normal {
        Normal::default()
            .with_encodings(["br", "gzip"])
            .unwrap()
            .with_languages(["de", "en", "fr"])
            .unwrap()
    }

    fn encoding(offered: &[&str], accept: &str) -> Option<String> {
        let normal = Normal::default()
            .with_encodings(offered.iter().copied())
            .unwrap();
        let request = fields(&[&format!("accept-encoding: {accept}")]);
        let shown = normal.apply(&request);
        shown
            .first(&ACCEPT_ENCODING)
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    fn lines(fields: &dyn Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut lines = Vec::new();
        fields.all(&mut |name, value| lines.push((name.to_vec(), value.to_vec())));
        lines.sort();
        lines
    }

    /// The request after the changes, as the origin gets it.
    fn sent(request: &HeaderMap, normal: &Normal) -> HeaderMap {
        let mut map = request.clone();
        for (name, value) in normal.apply(request).changes() {
            match value {
                Some(value) => drop(map.insert(name, value)),
                None => drop(map.remove(name)),
            }
        }
        map
    }

    #[test]
    fn the_best_coding_of_the_list_is_shown_alone() {
        let offered = ["br", "gzip", "zstd"];
        for (accept, expected) in [
            ("gzip, deflate, br", Some("br")),
            ("gzip;q=1, br;q=0.5", Some("gzip")),
            ("*", Some("br")),
            ("br;q=0, *;q=0.1", Some("gzip")),
            ("X-GZIP", Some("gzip")),
            ("deflate", None),
            ("identity, br;q=0.5", None),
            ("identity;q=0", None),
            ("", None),
        ] {
            assert_eq!(encoding(&offered, accept).as_deref(), expected, "{accept}");
        }
        assert_eq!(encoding(&[], "br"), None);
    }

    #[test]
    fn identity_is_shown_to_origins_that_would_compress_unasked() {
        let offered = ["identity", "br"];
        assert_eq!(encoding(&offered, "br").as_deref(), Some("br"));
        assert_eq!(encoding(&offered, "deflate").as_deref(), Some("identity"));
        assert_eq!(encoding(&offered, "").as_deref(), Some("identity"));
        assert_eq!(encoding(&offered, "deflate, *;q=0"), None);
        let normal = Normal::default().with_encodings(offered).unwrap();
        assert!(!normal.apply(&HeaderMap::new()).has(&ACCEPT_ENCODING));
    }

    #[test]
    fn clients_that_normalise_alike_share_a_variant() {
        let normal = normal();
        let response = fields(&["vary: accept-encoding, accept-language, x"]);
        let one = fields(&[
            "accept-encoding: gzip, deflate, br",
            "accept-language: de-CH, de;q=0.9",
            "x: 1",
        ]);
        let same = fields(&["accept-language: de", "accept-encoding: br;q=0.2", "x: 1"]);
        let other = fields(&["accept-encoding: br", "accept-language: en", "x: 1"]);
        let spec = Spec::new(&response, &[]);
        let variant = Variant::new(spec, &normal.apply(&one), true);
        assert!(variant.matches(&normal.apply(&same)));
        assert!(!variant.matches(&normal.apply(&other)));
        assert!(
            !variant
                .matches(&normal.apply(&fields(&["accept-encoding: br", "accept-language: de"])))
        );
    }

    #[test]
    fn dropped_fields_are_gone_whatever_else_is_configured() {
        let request = fields(&[
            "cookie: a=b",
            "user-agent: x",
            "accept-encoding: br",
            "x: 1",
        ]);
        let normal = normal().without([COOKIE, ACCEPT_ENCODING]);
        let shown = normal.apply(&request);
        assert!(!shown.has(&COOKIE) && !shown.has(&ACCEPT_ENCODING) && shown.has(&USER_AGENT));
        assert_eq!(lines(&shown).len(), 2);
        assert_eq!(lines(&sent(&request, &normal)), lines(&shown));
    }

    #[test]
    fn without_configuration_the_request_is_as_it_was() {
        let request = fields(&[
            "accept-encoding: x",
            "accept-encoding: y",
            "accept-language: z",
        ]);
        assert!(!normal().is_identity());
        let normal = Normal::default();
        assert!(normal.is_identity());
        let shown = normal.apply(&request);
        assert_eq!(lines(&shown), lines(&request));
        assert_eq!(shown.changes().count(), 0);
        assert_eq!(shown.first(&ACCEPT_ENCODING), Some(&b"x"[..]));
    }

    #[test]
    fn a_name_of_any_case_is_replaced() {
        struct Raw;
        impl Fields for Raw {
            fn first(&self, _: &HeaderName) -> Option<&[u8]> {
                Some(b"BR")
            }
            fn each(&self, _: &HeaderName, f: &mut dyn FnMut(&[u8])) {
                f(b"BR");
            }
            fn all(&self, f: &mut dyn FnMut(&[u8], &[u8])) {
                f(b"Accept-Encoding", b"BR");
            }
        }
        let normal = Normal::default().with_encodings(["br"]).unwrap();
        let expected = [(b"accept-encoding".to_vec(), b"br".to_vec())];
        assert_eq!(lines(&normal.apply(&Raw)), expected);
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_refused() {
        let encodings = |names: &[&str]| Normal::default().with_encodings(names.iter().copied());
        for bad in ["", "*", "b r", "br;q=1", "br,gzip", "\u{e9}"] {
            assert_eq!(encodings(&[bad]), Err(BadNormal::Coding(bad.into())));
        }
        assert_eq!(
            encodings(&["a", "b", "c", "d", "e", "f", "g", "h", "i"]),
            Err(BadNormal::TooManyCodings)
        );
        assert_eq!(
            encodings(&["GZIP", "x-gzip"]),
            encodings(&["gzip"]),
            "once is enough"
        );
        let languages = |tags: &[&str]| Normal::default().with_languages(tags.iter().copied());
        for bad in ["", "*", "de_CH", "de-", "-de", "d1", "abcdefghi", "de CH"] {
            assert_eq!(languages(&[bad]), Err(BadNormal::Language(bad.into())));
        }
        assert_eq!(languages(&["en-GB", "EN-gb"]), languages(&["en-GB"]));
        let many: Vec<String> = (0..=language::MOST_TAGS)
            .map(|n| format!("de-{n}"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(languages(&many), Err(BadNormal::TooManyLanguages));
    }

    fn accept(names: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, u16)>> {
        let weight = prop_oneof![Just(0_u16), Just(1000), 0_u16..=1000];
        prop::collection::vec((prop::sample::select(names), weight), 0..6)
    }

    fn written(list: &[(&str, u16)]) -> String {
        let members = list
            .iter()
            .map(|(name, w)| format!("{name};q={}.{:03}", w / 1000, w % 1000));
        members.collect::<Vec<_>>().join(", ")
    }

    const CODINGS: &[&str] = &[
        "br", "gzip", "zstd", "deflate", "identity", "*", "x-gzip", "BR",
    ];
    const TAGS: &[&str] = &[
        "de",
        "de-CH",
        "DE-ch-1996",
        "en",
        "en-GB",
        "fr",
        "zh-Hant-TW",
        "zh",
        "*",
    ];

    fn some_normal() -> impl Strategy<Value = Normal> {
        let codings =
            prop::sample::subsequence(vec!["br", "gzip", "zstd", "identity"], 0..=4).prop_shuffle();
        let tags = prop::sample::subsequence(
            vec!["de", "de-CH", "en", "en-GB", "fr", "zh-Hant", "zh"],
            0..=7,
        )
        .prop_shuffle();
        (codings, tags).prop_map(|(codings, tags)| {
            Normal::default()
                .with_encodings(codings)
                .unwrap()
                .with_languages(tags)
                .unwrap()
        })
    }

    proptest! {
        #[test]
        fn normalising_twice_is_the_same_as_once(
            normal in some_normal(), codings in accept(CODINGS), tags in accept(TAGS),
        ) {
            let (codings, tags) = (written(&codings), written(&tags));
            let request = fields(&[&format!("accept-encoding: {codings}"), &format!("accept-language: {tags}"), "x: 1"]);
            let once = normal.apply(&request);
            let twice = normal.apply(&once);
            prop_assert_eq!(lines(&twice), lines(&once));
            prop_assert_eq!(lines(&sent(&request, &normal)), lines(&once), "upstream sees the same");
        }

        #[test]
        fn what_the_client_refuses_is_never_chosen(
            normal in some_normal(), codings in accept(CODINGS), tags in accept(TAGS),
        ) {
            let request = fields(&[
                &format!("accept-encoding: {}", written(&codings)),
                &format!("accept-language: {}", written(&tags)),
            ]);
            let shown = normal.apply(&request);
            for (name, list) in [(ACCEPT_ENCODING, codings), (ACCEPT_LANGUAGE, tags)] {
                let Some(chosen) = shown.first(&name) else { continue };
                for (refused, _) in list.iter().filter(|(_, weight)| *weight == 0) {
                    prop_assert!(!chosen.eq_ignore_ascii_case(refused.as_bytes()), "{refused}");
                }
            }
        }

        #[test]
        fn any_value_is_read(encoding in "[!-~ ]{0,40}", language in "[!-~ ]{0,40}") {
            let request = fields(&[&format!("accept-encoding: {encoding}"), &format!("accept-language: {language}")]);
            let normal = normal();
            let once = normal.apply(&request);
            prop_assert_eq!(lines(&normal.apply(&once)), lines(&once));
        }
    }
}
