//! Which of the configured languages a client gets (RFC 9110 section 12.5.4), by RFC 4647.
//!
//! A range fits a tag in three ways, the closer one first: it is the tag; it is wider, as `de` for
//! `de-CH` (basic filtering, section 3.3.1); or it is narrower, as `de-CH` for `de` (lookup, section
//! 3.4). The last is what most clients mean, for browsers list `de-CH` before `de` only by habit.
//!
//! A refusal, `de;q=0`, holds for the tag and those below it, unless a longer range says otherwise.
//! It is not widened: who refuses `de-CH` may get `de`.
//!
//! `*` chooses nothing. It fits everything and so says nothing of which; section 3.4 leaves that to
//! the default, and so the field goes and the origin decides.

use std::cmp::Reverse;

use http::HeaderValue;
use http::header::ACCEPT_LANGUAGE;

use crate::fields::{self, Fields};
use crate::weight::{Weight, lower, weighted};

/// How many tags can be configured; each is compared with each range of the request.
pub(super) const MOST_TAGS: usize = 64;

/// How many ranges a request may list. More is no person's choice, and the field counts as absent,
/// so that no refusal at its end is overheard and no time is spent on it.
const MOST_RANGES: usize = 64;

/// Whether `text` looks like a language tag (RFC 5646 section 2.1) that a range could name (RFC 4647
/// section 2.1).
pub(super) fn is_tag(text: &[u8]) -> bool {
    let mut parts = text.split(|byte| *byte == b'-');
    let is_part = |part: &[u8]| (1..=8).contains(&part.len());
    let primary = |part: &[u8]| is_part(part) && part.iter().all(u8::is_ascii_alphabetic);
    parts.next().is_some_and(primary)
        && parts.all(|part| is_part(part) && part.iter().all(u8::is_ascii_alphanumeric))
}

/// The tag of `offered`, which stand in the operator's order, that suits the client best.
pub(super) fn best<'a>(
    request: &dyn Fields,
    offered: &'a [HeaderValue],
) -> Option<&'a HeaderValue> {
    let mut count = 0;
    fields::each_member(request, &ACCEPT_LANGUAGE, &mut |_| count += 1);
    if count == 0 || count > MOST_RANGES {
        return None;
    }
    let mut best: Option<(Suits, &HeaderValue)> = None;
    for tag in offered {
        let suits = suits(request, tag.as_bytes());
        // Of equals the first stays: the operator's order.
        if let Some(suits) = suits.filter(|new| best.is_none_or(|(old, _)| *new > old)) {
            best = Some((suits, tag));
        }
    }
    best.map(|(_, tag)| tag)
}

/// How well a tag suits; greater is better. The client's weight, then its order, then how close the
/// range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Suits {
    weight: Weight,
    place: Reverse<usize>,
    fit: Fit,
}

/// How a range fits a tag; greater is closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The range is narrower, cut down to a tag of this length.
    Narrower(usize),
    /// The range is wider.
    Wider,
    /// The range is the tag.
    Same,
}

/// How well `tag` suits; `None` when it is refused or nothing fits.
fn suits(request: &dyn Fields, tag: &[u8]) -> Option<Suits> {
    // The longest range that is the tag or wider has the say on it, and can refuse it.
    let mut within: Option<(usize, Suits)> = None;
    let mut narrower: Option<Suits> = None;
    let mut place = 0;
    fields::each_member(request, &ACCEPT_LANGUAGE, &mut |member| {
        place += 1;
        let Some((range, weight)) = weighted(member) else {
            return;
        };
        let Some(fit) = fit(range, tag) else {
            return;
        };
        let new = Suits {
            weight,
            place: Reverse(place),
            fit,
        };
        match (fit, &mut within) {
            (Fit::Narrower(_), _) => narrower = narrower.max(Some(new).filter(|_| weight > 0)),
            (_, Some((length, known))) if *length == range.len() => {
                known.weight = lower(known.weight, weight);
            }
            (_, Some((length, _))) if *length > range.len() => {}
            _ => within = Some((range.len(), new)),
        }
    });
    match within {
        Some((_, within)) if within.weight == 0 => None,
        Some((_, within)) => narrower.max(Some(within)),
        None => narrower,
    }
}

fn fit(range: &[u8], tag: &[u8]) -> Option<Fit> {
    let begins = |long: &[u8], short: &[u8]| {
        // A cut only between subtags: `de` is no `den`.
        long.split_at_checked(short.len())
            .is_some_and(|(head, tail)| {
                !short.is_empty() && tail.first() == Some(&b'-') && head.eq_ignore_ascii_case(short)
            })
    };
    if range.eq_ignore_ascii_case(tag) {
        Some(Fit::Same)
    } else if begins(tag, range) {
        Some(Fit::Wider)
    } else if begins(range, tag) {
        Some(Fit::Narrower(tag.len()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    fn pick(offered: &[&str], accept: &str) -> Option<String> {
        let offered: Vec<HeaderValue> = offered.iter().map(|tag| tag.parse().unwrap()).collect();
        let request = fields(&[&format!("accept-language: {accept}")]);
        best(&request, &offered).map(|tag| tag.to_str().unwrap().to_owned())
    }

    #[track_caller]
    fn gives(offered: &[&str], accept: &str, expected: Option<&str>) {
        assert_eq!(pick(offered, accept).as_deref(), expected, "{accept}");
    }

    #[test]
    fn what_browsers_send_gets_the_language_they_put_first() {
        let offered = ["de", "en", "fr"];
        gives(&offered, "de-CH, de;q=0.9, en;q=0.8", Some("de"));
        gives(&offered, "en-US,en;q=0.5", Some("en"));
        gives(&offered, "it, fr-CA;q=0.3, EN;q=0.2", Some("fr"));
        gives(&offered, "en, de", Some("en"));
        gives(&offered, "it-IT, it;q=0.9", None);
        gives(&offered, "", None);
        gives(&[], "de", None);
    }

    #[test]
    fn the_closest_tag_wins_for_one_range() {
        gives(&["de", "de-CH"], "de-CH, de;q=0.9", Some("de-CH"));
        gives(&["zh", "zh-Hant"], "zh-Hant-TW", Some("zh-Hant"));
        gives(&["de", "de-AT"], "de", Some("de"));
        gives(&["de-AT", "de-DE"], "de", Some("de-AT"));
        gives(&["en-US"], "en-GB, en;q=0.5", Some("en-US"));
        gives(&["en-US"], "en-GB", None);
    }

    #[test]
    fn the_weight_counts_before_the_order_of_either() {
        gives(&["de", "en"], "de;q=0.1, en;q=0.2", Some("en"));
        gives(&["de", "en"], "de-CH, en;q=0.8, de;q=0.1", Some("de"));
        gives(
            &["de-CH", "fr"],
            "de;q=0.9, fr;q=0.5, de-CH;q=0.1",
            Some("fr"),
        );
    }

    #[test]
    fn a_refusal_holds_for_the_tag_and_those_below() {
        gives(&["de", "en"], "de;q=0, en;q=0.1", Some("en"));
        gives(&["de"], "de, de;q=0", None);
        gives(&["de"], "de;q=0, de-CH", None);
        gives(&["de-CH"], "de;q=0", None);
        gives(&["de-CH"], "de;q=0, de-CH;q=0.1", Some("de-CH"));
        gives(&["de-CH", "de"], "de, de-CH;q=0", Some("de"));
        gives(&["de"], "de-CH;q=0, de;q=0.1", Some("de"));
        gives(&["de"], "de-CH;q=0", None);
    }

    #[test]
    fn a_star_leaves_it_to_the_origin() {
        gives(&["de", "en"], "*", None);
        gives(&["de", "en"], "it, *;q=0.5", None);
        gives(&["de", "en"], "*, en;q=0.1", Some("en"));
    }

    #[test]
    fn subtags_are_compared_whole_and_what_is_malformed_is_ignored() {
        gives(&["de"], "den, de-;q=x, d", None);
        gives(&["den"], "de", None);
        gives(&["de"], "de;q=1.5, de_CH, ;q=1, -", None);
        gives(&["de"], ", ,de ; q=0.001", Some("de"));
    }

    #[test]
    fn a_field_of_endless_ranges_counts_as_absent() {
        let many = "xx, ".repeat(MOST_RANGES - 1);
        gives(&["de"], &format!("{many}de"), Some("de"));
        gives(&["de"], &format!("{many}de, de;q=0"), None);
        gives(&["de"], &format!("{many}xx, de"), None);
    }
}
