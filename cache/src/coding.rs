//! Compressed variants of stored objects: which coding a client gets, what is worth compressing, and
//! the head of what comes out.
//!
//! An object is compressed once, after it was stored whole, and then served many times. That is why
//! the levels are higher than those of a proxy that compresses as it sends, why Content-Length stays
//! known, and why the entity tag stays strong: the bytes are kept, not made anew for each reply. What
//! is stored for all holds no client's secrets, so the attacks that read them off the length of a
//! compressed body (BREACH) have nothing to read.
//!
//! Not here: when to compress and where the results are kept. Two things to mind there. A request
//! with Range is best answered from the object as it is, since the compressed head has no
//! Accept-Ranges and Last-Modified, which it shares with the base, cannot tell the two apart in
//! If-Range. And the tags made here are unknown to the origin: a condition sent there must state the
//! tag of the base.

mod compress;
mod media;

use std::borrow::Cow;

use http::HeaderName;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, VARY,
};

use crate::control::ResponseControl;
use crate::fields::{self, Fields, is_token_byte};
use crate::head::Head;
use crate::weight::{Choice, IDENTITY, MOST_CODINGS, choose_coding};

pub use compress::{LEAST_SAVING, PIECE, compress};

/// The smallest body worth compressing, where none is configured: below it the saving is less than
/// the fields that it costs.
pub const MIN_LENGTH: u64 = 256;

/// The largest body that is compressed: what takes longer than a fraction of a second should lie
/// compressed at the origin.
pub const MAX_LENGTH: u64 = 8 << 20;

/// A content coding that we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coding {
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878).
    Zstd,
    /// Gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// Every coding, the one that packs best first.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// The name in Content-Encoding and Accept-Encoding.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// Reads a name, whatever its case; `x-gzip` is `gzip` (RFC 9110 section 8.4.1.3).
    pub fn from_name(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL
            .into_iter()
            .find(|coding| name.eq_ignore_ascii_case(coding.as_str().as_bytes()))
    }
}

/// The coding in which a request gets an object that is there in all of `offered`, which stand in the
/// operator's order of preference; `None` for the object as it is (RFC 9110 section 12.5.3).
///
/// The higher weight wins, then the operator's order. Identity also answers a request without
/// Accept-Encoding, which leaves the choice to us, and one that refuses everything, identity
/// included: a page that may be of no use is better than none.
pub fn choose(request: &dyn Fields, offered: &[Coding]) -> Option<Coding> {
    let mut names = [IDENTITY; MOST_CODINGS];
    for (name, coding) in names.iter_mut().zip(offered) {
        *name = coding.as_str().as_bytes();
    }
    match choose_coding(request, &names[..offered.len().min(MOST_CODINGS)]) {
        Choice::Coding(at) => offered.get(at).copied(),
        Choice::Identity | Choice::Nothing => None,
    }
}

/// Whether a stored body of `length` bytes may be compressed and is likely to gain by it. `min` is
/// the operator's smallest length, [`MIN_LENGTH`] where there is none.
pub fn is_compressible(head: &Head, length: u64, min: u64) -> bool {
    head.status() == http::StatusCode::OK
        && (min..=MAX_LENGTH).contains(&length)
        && head.first(&CONTENT_TYPE).is_some_and(media::pays)
        && is_bare(head)
        && !head.has(&CONTENT_RANGE)
        && !forbids_transformation(head)
        // A signature may cover what has to change (RFC 9421 section 7.2.8).
        && !head.has(&HeaderName::from_static("signature"))
}

/// Whether no coding is applied yet.
fn is_bare(head: &Head) -> bool {
    let mut bare = true;
    fields::each_member(head, &CONTENT_ENCODING, &mut |name| {
        bare &= name.eq_ignore_ascii_case(IDENTITY);
    });
    bare
}

/// `no-transform` (RFC 9110 section 7.7, RFC 9111 section 5.2.2.6). Where a targeted field governs
/// the caching, Cache-Control is still what all others on the way go by, so both count.
fn forbids_transformation(head: &Head) -> bool {
    let mut forbidden = ResponseControl::read(head).no_transform;
    fields::each_member(head, &CACHE_CONTROL, &mut |directive| {
        let named = directive.iter().take_while(|byte| is_token_byte(**byte));
        forbidden |= directive[..named.count()].eq_ignore_ascii_case(b"no-transform");
    });
    forbidden
}

/// The fields that are wrong once the bytes are others: the checksums of content or representation,
/// which a coding is part of (RFC 9530 sections 2 and 3, RFC 3230), and Accept-Ranges, which was said
/// of the bytes that the origin has.
const UNTRUE_WHEN_CODED: [HeaderName; 6] = [
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    CONTENT_ENCODING,
];

/// The head of `base`'s body once it is compressed to `length` bytes.
///
/// It keeps the variant of the base, for the store's look-up is the same: the coding is chosen
/// afterwards.
pub fn coded_head(base: &Head, coding: Coding, length: u64) -> Head {
    let mut lines = with_vary(base);
    lines.retain(|(name, _)| {
        !UNTRUE_WHEN_CODED
            .iter()
            .any(|untrue| untrue.as_str().as_bytes() == *name)
    });
    lines.retain_mut(|(name, value)| {
        if *name != ETAG.as_str().as_bytes() {
            return true;
        }
        let tag = coded_tag(value, coding);
        let is_tag = tag.is_some();
        *value = Cow::Owned(tag.unwrap_or_default());
        is_tag
    });
    lines.push((
        CONTENT_ENCODING.as_str().as_bytes(),
        Cow::Borrowed(coding.as_str().as_bytes()),
    ));
    with_lines(base, &lines).with_length(Some(length))
}

/// The head of the object as it is, when it is offered compressed as well: caches behind us must not
/// give it to everybody (RFC 9110 section 12.5.5). `None` when the base says so already.
pub fn identity_head(base: &Head) -> Option<Head> {
    (!varies_by_coding(base)).then(|| with_lines(base, &with_vary(base)))
}

type Lines<'a> = Vec<(&'a [u8], Cow<'a, [u8]>)>;

fn with_lines(base: &Head, lines: &Lines<'_>) -> Head {
    base.with_lines(lines.iter().map(|(name, value)| (*name, value.as_ref())))
}

/// The lines of `base` and Accept-Encoding in its Vary. In the line that is there, if any, because
/// some caches read no second one.
fn with_vary(base: &Head) -> Lines<'_> {
    let mut lines: Lines<'_> = base
        .iter()
        .map(|(name, value)| (name, Cow::Borrowed(value)))
        .collect();
    if varies_by_coding(base) {
        return lines;
    }
    let name = VARY.as_str().as_bytes();
    let added = ACCEPT_ENCODING.as_str().as_bytes();
    match lines.iter_mut().find(|(one, _)| *one == name) {
        Some((_, value)) if !value.is_empty() => {
            *value = Cow::Owned([value.as_ref(), b", ", added].concat());
        }
        Some((_, value)) => *value = Cow::Borrowed(added),
        None => lines.push((name, Cow::Borrowed(added))),
    }
    lines
}

fn varies_by_coding(base: &Head) -> bool {
    let mut varies = false;
    fields::each_member(base, &VARY, &mut |name| {
        varies |= name == b"*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str().as_bytes());
    });
    varies
}

/// The tag of the compressed representation: another for each coding, as strong or weak as the
/// base's (RFC 9110 section 8.8.3.3). `None` when the base's is no entity tag; unchanged it would be
/// the same for all.
fn coded_tag(tag: &[u8], coding: Coding) -> Option<Vec<u8>> {
    let opaque = tag.strip_prefix(b"W/").unwrap_or(tag);
    let inner = opaque.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    // etagc: no quote, space or control (section 8.8.3).
    if inner
        .iter()
        .any(|byte| *byte <= b' ' || *byte == b'"' || *byte == 0x7f)
    {
        return None;
    }
    let stem = &tag[..tag.len() - 1];
    Some([stem, b"-", coding.as_str().as_bytes(), b"\""].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{self, Condition};
    use crate::testing::{at, fields, head_for, head_of};
    use proptest::prelude::*;

    fn pick(lines: &[&str], offered: &[Coding]) -> Option<Coding> {
        choose(&fields(lines), offered)
    }

    fn of_all(accept: &str) -> &'static str {
        let line = format!("accept-encoding: {accept}");
        pick(&[&line], &Coding::ALL).map_or("identity", Coding::as_str)
    }

    #[test]
    fn browsers_get_the_operators_favourite() {
        let line = "accept-encoding: gzip, deflate, br, zstd";
        for first in Coding::ALL {
            let mut offered = Coding::ALL.to_vec();
            offered.retain(|coding| *coding != first);
            offered.insert(0, first);
            assert_eq!(pick(&[line], &offered), Some(first));
        }
        assert_eq!(pick(&[line], &[]), None);
    }

    #[test]
    fn without_a_wish_it_is_identity() {
        assert_eq!(pick(&[], &Coding::ALL), None);
        for accept in ["", " , ,", "deflate", "identity", "compress;q=1"] {
            assert_eq!(of_all(accept), "identity", "{accept}");
        }
    }

    #[test]
    fn the_weight_decides_before_the_order() {
        assert_eq!(of_all("br;q=0.5, gzip;q=0.8, zstd;q=0.6"), "gzip");
        assert_eq!(of_all("br;q=0.001"), "br");
        assert_eq!(of_all("GZIP ; Q=0.9 ,bR;q=0.901"), "br");
    }

    #[test]
    fn a_weight_of_zero_refuses() {
        assert_eq!(of_all("br;q=0, zstd;q=0.000, gzip"), "gzip");
        assert_eq!(of_all("*;q=0"), "identity");
        assert_eq!(of_all("*;q=0, zstd;q=0.1"), "zstd");
        assert_eq!(of_all("gzip, x-gzip;q=0"), "identity", "one and the same");
        assert_eq!(of_all("gzip;q=0, gzip"), "identity", "whatever comes later");
    }

    #[test]
    fn a_star_stands_for_what_is_not_named() {
        assert_eq!(of_all("*"), "br");
        assert_eq!(of_all("*, br;q=0"), "zstd");
        assert_eq!(of_all("*;q=0.5, gzip"), "gzip");
        assert_eq!(
            pick(&["accept-encoding: gzip;q=0.5, *"], &[Coding::Gzip]),
            None,
            "the star stands for identity too"
        );
    }

    #[test]
    fn identity_is_the_last_choice_unless_it_has_a_weight() {
        assert_eq!(of_all("gzip;q=0.1"), "gzip");
        assert_eq!(of_all("identity;q=0.5, gzip;q=0.1"), "identity");
        assert_eq!(of_all("identity;q=0.1, gzip;q=0.1"), "gzip");
        assert_eq!(of_all("identity;q=0, gzip;q=0.1"), "gzip");
        assert_eq!(of_all("identity;q=0"), "identity", "better than no page");
    }

    #[test]
    fn a_malformed_member_is_ignored_and_the_others_count() {
        for bad in [
            "br;q=2",
            "br;q=x",
            "br;q=0.1234",
            "br;",
            "br;level=9",
            "b r",
            "\"br\"",
            "=br",
            ";q=1",
        ] {
            assert_eq!(of_all(bad), "identity", "{bad}");
            assert_eq!(of_all(&format!("{bad}, gzip;q=0.1")), "gzip", "{bad}");
        }
    }

    #[test]
    fn several_lines_are_one_list_and_x_gzip_is_gzip() {
        let lines = ["accept-encoding: br;q=0.5", "accept-encoding: X-GZip"];
        assert_eq!(pick(&lines, &Coding::ALL), Some(Coding::Gzip));
        assert_eq!(Coding::from_name(b"x-gzip"), Some(Coding::Gzip));
        assert_eq!(Coding::from_name(b"BR"), Some(Coding::Brotli));
        assert_eq!(Coding::from_name(b"deflate"), None);
    }

    const HTML: &str = "content-type: text/html";

    fn pays(lines: &[&str]) -> bool {
        is_compressible(&head_of(200, lines), 1000, MIN_LENGTH)
    }

    #[test]
    fn only_whole_uncoded_successes_of_some_length_are_compressed() {
        assert!(pays(&[HTML]) && pays(&[HTML, "content-encoding: Identity"]));
        for not in [
            "content-encoding: gzip",
            "content-encoding: identity, br",
            "content-range: bytes 0-9/10",
            "signature: sig1=:YQ==:",
        ] {
            assert!(!pays(&[HTML, not]), "{not}");
        }
        assert!(!pays(&[]), "an unknown type");
        let head = head_of(200, &[HTML]);
        for (length, expected) in [
            (255, false),
            (256, true),
            (MAX_LENGTH, true),
            (MAX_LENGTH + 1, false),
        ] {
            assert_eq!(is_compressible(&head, length, MIN_LENGTH), expected);
        }
        for status in [203, 204, 206, 301, 404, 500] {
            let head = head_of(status, &[HTML]);
            assert!(!is_compressible(&head, 1000, MIN_LENGTH), "{status}");
        }
    }

    #[test]
    fn no_transform_is_obeyed_wherever_it_stands() {
        for line in [
            "cache-control: max-age=9, No-Transform",
            "cache-control: no-transform=1",
            "cdn-cache-control: max-age=9, no-transform",
        ] {
            assert!(!pays(&[HTML, line]), "{line}");
        }
        let lines = [
            HTML,
            "cdn-cache-control: max-age=9",
            "cache-control: no-transform",
        ];
        assert!(!pays(&lines), "a targeted field does not hide it");
        assert!(pays(&[HTML, "cache-control: x=\"no-transform\""]));
    }

    fn values(head: &Head, name: &HeaderName) -> Vec<String> {
        let mut found = Vec::new();
        head.each(name, &mut |value| {
            found.push(String::from_utf8(value.to_vec()).unwrap());
        });
        found
    }

    #[test]
    fn the_coded_head_describes_the_coded_body() {
        let lines = [
            HTML,
            "etag: \"abc\"",
            "content-length: 1000",
            "accept-ranges: bytes",
            "content-md5: x",
            "digest: x",
            "content-digest: x",
            "repr-digest: x",
            "content-encoding: identity",
            "cache-control: max-age=60",
            "x-kept: 1",
            "x-kept: 2",
        ];
        let base = head_of(200, &lines);
        let head = coded_head(&base, Coding::Brotli, 99);
        let mut expected = vec![
            ("cache-control", "max-age=60"),
            ("content-encoding", "br"),
            ("content-length", "99"),
            ("content-type", "text/html"),
            (
                "date",
                std::str::from_utf8(base.first(&http::header::DATE).unwrap()).unwrap(),
            ),
            ("etag", "\"abc-br\""),
            ("vary", "accept-encoding"),
            ("x-kept", "1"),
            ("x-kept", "2"),
        ];
        expected.sort_unstable();
        let mut found: Vec<_> = head
            .iter()
            .map(|(n, v)| {
                (
                    std::str::from_utf8(n).unwrap(),
                    std::str::from_utf8(v).unwrap(),
                )
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(head.content_length(), Some(99));
        assert_eq!(
            head.etag(),
            Some(&b"\"abc-br\""[..]),
            "the index moved along"
        );
        assert_eq!((head.status(), head.date()), (base.status(), base.date()));
        assert_eq!(head.freshness(), base.freshness());
        assert!(head.as_http1().starts_with(b"HTTP/1.1 200 OK\r\n"));
    }

    #[test]
    fn a_tag_differs_by_coding_and_stays_as_strong_as_it_was() {
        for (tag, expected) in [
            ("\"abc\"", Some("\"abc-gzip\"")),
            ("W/\"abc\"", Some("W/\"abc-gzip\"")),
            ("\"\"", Some("\"-gzip\"")),
            ("\"\u{e9}\"", Some("\"\u{e9}-gzip\"")),
            ("abc", None),
            ("\"", None),
            ("w/\"abc\"", None),
            ("\"a\"b\"", None),
            ("\"a\", \"b\"", None),
            ("", None),
        ] {
            let head = coded_head(&head_of(200, &[&format!("etag: {tag}")]), Coding::Gzip, 1);
            assert_eq!(
                values(&head, &ETAG).first().map(String::as_str),
                expected,
                "{tag}"
            );
            assert_eq!(head.etag(), expected.map(str::as_bytes), "{tag}");
        }
    }

    #[test]
    fn a_client_with_the_coded_body_gets_a_304_and_one_with_another_does_not() {
        let base = head_of(200, &["etag: W/\"abc\""]);
        let asked = fields(&["if-none-match: W/\"abc-zstd\""]);
        for (coding, expected) in [
            (Coding::Zstd, Condition::NotModified),
            (Coding::Gzip, Condition::Full),
        ] {
            let head = coded_head(&base, coding, 1);
            assert_eq!(condition::evaluate(&head, &asked, at(0)), expected);
        }
        assert_eq!(condition::evaluate(&base, &asked, at(0)), Condition::Full);
    }

    #[test]
    fn vary_names_accept_encoding_once() {
        for (lines, expected) in [
            (&[][..], &["accept-encoding"][..]),
            (&["vary: origin"], &["origin, accept-encoding"]),
            (&["vary: a", "vary: b"], &["a, accept-encoding", "b"]),
            (&["vary:"], &["accept-encoding"]),
            (&["vary: a, Accept-Encoding"], &["a, Accept-Encoding"]),
            (
                &["vary: a", "vary: accept-encoding"],
                &["a", "accept-encoding"],
            ),
            (&["vary: *"], &["*"]),
        ] {
            let base = head_of(200, lines);
            let coded = coded_head(&base, Coding::Gzip, 1);
            assert_eq!(values(&coded, &VARY), expected);
            let identity = identity_head(&base);
            let unchanged = values(&base, &VARY) == expected;
            assert_eq!(identity.is_none(), unchanged, "{lines:?}");
            assert_eq!(values(&identity.unwrap_or(base), &VARY), expected);
        }
    }

    #[test]
    fn the_identity_head_differs_in_nothing_but_vary() {
        let base = head_for(
            &["x: 1"],
            200,
            &["vary: x", "etag: \"a\"", "content-length: 5"],
        );
        let head = identity_head(&base).unwrap();
        assert_eq!(head.etag(), base.etag());
        assert_eq!(head.content_length(), Some(5));
        assert_eq!(head.variant(), base.variant());
        assert_eq!(head.iter().count(), base.iter().count());
    }

    proptest! {
        #[test]
        fn the_choice_is_the_one_a_plain_count_gives(
            weights in prop::collection::vec(prop::option::of(0_u16..=1_000), 5),
            offered in prop::sample::subsequence(Coding::ALL.to_vec(), 0..=3).prop_shuffle(),
        ) {
            let names = ["br", "zstd", "gzip", "identity", "*"];
            let accept: Vec<String> = names.iter().zip(&weights)
                .filter_map(|(name, w)| w.map(|w| format!("{name};q={}.{:03}", w / 1000, w % 1000)))
                .collect();
            let weigh = |name: &str| {
                let at = names.iter().position(|one| *one == name).unwrap();
                weights[at].or(weights[4]).unwrap_or(0)
            };
            let mut expected = None;
            for weight in (1..=1_000).rev() {
                expected = offered.iter().copied().find(|one| weigh(one.as_str()) == weight);
                if expected.is_some() {
                    expected = expected.filter(|_| weigh("identity") <= weight);
                    break;
                }
            }
            let line = format!("accept-encoding: {}", accept.join(", "));
            prop_assert_eq!(pick(&[&line], &offered), expected);
        }

        #[test]
        fn a_coding_that_the_client_did_not_name_is_never_sent(accept in "[ -~]{0,40}") {
            let chosen = of_all(&accept);
            let accept = accept.to_ascii_lowercase();
            prop_assert!(chosen == "identity" || accept.contains(chosen) || accept.contains('*'));
        }
    }
}
