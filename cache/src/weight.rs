//! Weights of what a client accepts (RFC 9110 section 12.4.2), and which coding wins by them
//! (section 12.5.3).
//!
//! Shared by [`crate::coding`], which picks among what is stored, and [`crate::normal`], which picks
//! what a request says to the origin: the two must weigh alike.

use http::header::ACCEPT_ENCODING;

use crate::fields::{self, Fields, is_token, trim};

/// A weight in thousandths; 0 refuses.
pub(crate) type Weight = u16;

/// The weight of a member that states none.
const FULL: Weight = 1_000;

/// How many codings can be weighed at once. More are not registered, and the room is on the stack.
pub(crate) const MOST_CODINGS: usize = 8;

/// The name of "no coding" (RFC 9110 section 12.5.3).
pub(crate) const IDENTITY: &[u8] = b"identity";

/// What a client takes, of the codings that are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The coding at this place of the offer.
    Coding(usize),
    /// None of them, but the representation as it is.
    Identity,
    /// Nothing: it refuses identity too, by `identity;q=0` or `*;q=0`.
    Nothing,
}

/// Picks one of `offered`, names of codings in the order of preference; those past
/// [`MOST_CODINGS`] are not looked at. A request without the field takes identity.
///
/// The highest weight wins, then the order. Identity wins only where it was weighed higher: a client
/// that says nothing of it would have the coding it asked for.
pub(crate) fn choose_coding(request: &dyn Fields, offered: &[&[u8]]) -> Choice {
    let mut weights = [None; MOST_CODINGS];
    let (mut identity, mut rest) = (None, None);
    each_weighted(request, &mut |name, weight| {
        let name = canonical(name);
        let known = offered.iter().zip(&mut weights);
        let slot = if name == b"*" {
            &mut rest
        } else if name.eq_ignore_ascii_case(IDENTITY) {
            &mut identity
        } else if let Some((_, slot)) =
            { known }.find(|(offered, _)| canonical(offered).eq_ignore_ascii_case(name))
        {
            slot
        } else {
            return;
        };
        *slot = Some(slot.map_or(weight, |before| lower(before, weight)));
    });
    let mut best = None;
    let mut highest = 0;
    for (at, weight) in weights.into_iter().take(offered.len()).enumerate() {
        // `*` stands for every coding that is not named; without it those are refused.
        let weight = weight.or(rest).unwrap_or(0);
        if weight > highest {
            (best, highest) = (Some(at), weight);
        }
    }
    // Unlike a coding, identity is acceptable until it is refused, but then comes last.
    let unnamed = identity.or(rest);
    match best {
        Some(at) if highest >= unnamed.unwrap_or(0) => Choice::Coding(at),
        _ if unnamed == Some(0) => Choice::Nothing,
        _ => Choice::Identity,
    }
}

/// Of two weights for one name the lower, so that a refusal is not overheard.
pub(crate) fn lower(one: Weight, other: Weight) -> Weight {
    one.min(other)
}

/// Calls `f` with name and weight of each member of Accept-Encoding that is well formed; the others
/// say nothing.
fn each_weighted(request: &dyn Fields, f: &mut dyn FnMut(&[u8], Weight)) {
    fields::each_member(request, &ACCEPT_ENCODING, &mut |member| {
        if let Some((name, weight)) = weighted(member).filter(|(name, _)| is_token(name)) {
            f(name, weight);
        }
    });
}

/// `x-gzip` is `gzip`, and `x-compress` is `compress` (RFC 9110 sections 8.4.1.1 and 8.4.1.3).
fn canonical(name: &[u8]) -> &[u8] {
    if name.eq_ignore_ascii_case(b"x-gzip") || name.eq_ignore_ascii_case(b"x-compress") {
        &name[2..]
    } else {
        name
    }
}

/// Reads `name [ OWS ; OWS q=weight ]`; `None` when it is anything else.
pub(crate) fn weighted(member: &[u8]) -> Option<(&[u8], Weight)> {
    let Some(semicolon) = memchr::memchr(b';', member) else {
        return Some((member, FULL));
    };
    let (name, parameter) = (&member[..semicolon], trim(&member[semicolon + 1..]));
    match parameter {
        [b'q' | b'Q', b'=', value @ ..] => Some((trim(name), qvalue(value)?)),
        _ => None,
    }
}

/// `qvalue` (RFC 9110 section 12.4.2): 0 to 1, at most three digits after the point.
fn qvalue(text: &[u8]) -> Option<Weight> {
    let (whole, fraction) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let padded = fraction.iter().chain(b"000").take(3);
    let thousandths = padded.fold(0, |sum, digit| sum * 10 + Weight::from(digit - b'0'));
    match (whole, thousandths) {
        (b'0', thousandths) => Some(thousandths),
        (b'1', 0) => Some(FULL),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_read_to_the_thousandth() {
        for (text, weight) in [
            ("0", 0),
            ("0.", 0),
            ("0.5", 500),
            ("0.05", 50),
            ("0.123", 123),
            ("1", 1000),
            ("1.000", 1000),
        ] {
            assert_eq!(qvalue(text.as_bytes()), Some(weight), "{text}");
        }
        for text in [
            "", "2", "1.001", "0.1234", ".5", "-1", "+1", "0,5", "00", "0.5 ", "0.a",
        ] {
            assert_eq!(qvalue(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_member_is_a_name_and_at_most_a_weight() {
        assert_eq!(weighted(b"br"), Some((&b"br"[..], 1000)));
        assert_eq!(weighted(b"br \t;  Q=0.5"), Some((&b"br"[..], 500)));
        for bad in ["br;", "br;level=3", "br;q=0.5;x=1", "br;q =1", "br;q=x"] {
            assert_eq!(weighted(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_a_member_is_total(member: Vec<u8>) {
            if let Some((_, weight)) = weighted(&member) {
                assert!(weight <= FULL);
            }
        }
    }
}
