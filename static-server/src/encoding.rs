//! Which content coding a client gets (RFC 9110, 12.5.3), by real weights.
//!
//! Pure: `Accept-Encoding` in, one of the available codings out. Identity is the answer
//! wherever the client did not ask for a coding, cannot be understood, or refuses everything
//! we have: then RFC 9110 lets a server send it anyway, and a page beats a 406.

use http::header::ACCEPT_ENCODING;

use crate::fields::{Fields, trim};

/// A content coding that a file may lie precompressed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Brotli (RFC 7932), `name.br`.
    Brotli,
    /// Zstandard (RFC 8878), `name.zst`.
    Zstd,
    /// Gzip (RFC 1952), `name.gz`.
    Gzip,
}

impl Encoding {
    /// Every coding, the one that packs best first.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// The name in `Content-Encoding` and `Accept-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// The file name's ending, with its dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }

    /// Reads a coding's name; case does not matter, and `x-gzip` is `gzip` (8.4.1.3).
    pub fn from_token(token: &[u8]) -> Option<Self> {
        if token.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL
            .into_iter()
            .find(|coding| token.eq_ignore_ascii_case(coding.as_str().as_bytes()))
    }

    fn index(self) -> usize {
        match self {
            Self::Brotli => 0,
            Self::Zstd => 1,
            Self::Gzip => 2,
        }
    }
}

/// Picks one of `available`, which stand in the server's order of preference. `None` is
/// identity.
///
/// The highest weight wins, the server's order decides between equals, and any coding that
/// the client takes wins over an identity that it did not weigh higher.
pub fn negotiate(
    fields: &dyn Fields,
    available: impl IntoIterator<Item = Encoding>,
) -> Option<Encoding> {
    fields.first(&ACCEPT_ENCODING)?;
    let mut weights = Weights::default();
    fields.each(&ACCEPT_ENCODING, &mut |line| weights.read(line));

    let mut best: Option<(Encoding, u16)> = None;
    for coding in available {
        let weight = weights.of(coding);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((coding, weight));
        }
    }
    best.filter(|(_, weight)| *weight >= weights.identity())
        .map(|(coding, _)| coding)
}

/// The weights a client gave, in thousandths; `None` where it did not name the coding.
#[derive(Default)]
struct Weights {
    named: [Option<u16>; 3],
    identity: Option<u16>,
    rest: Option<u16>,
}

impl Weights {
    fn read(&mut self, line: &[u8]) {
        for member in line.split(|&byte| byte == b',').map(trim) {
            let Some((coding, weight)) = weighted(member) else {
                continue;
            };
            let slot = if coding == b"*" {
                &mut self.rest
            } else if coding.eq_ignore_ascii_case(b"identity") {
                &mut self.identity
            } else if let Some(slot) =
                Encoding::from_token(coding).and_then(|coding| self.named.get_mut(coding.index()))
            {
                slot
            } else {
                continue;
            };
            // Said twice: the lower holds, for a refusal must not be overheard.
            *slot = Some(slot.map_or(weight, |before| before.min(weight)));
        }
    }

    /// What is not named takes the weight of `*`, and is refused without one.
    fn of(&self, coding: Encoding) -> u16 {
        let named = self.named.get(coding.index()).copied().flatten();
        named.or(self.rest).unwrap_or(0)
    }

    /// Identity needs no mention to be acceptable, but then it comes last.
    fn identity(&self) -> u16 {
        self.identity.or(self.rest).unwrap_or(0)
    }
}

/// Reads `coding [ ; q=weight ]`. A member that is anything else is not understood and so
/// not heard.
pub(crate) fn weighted(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.splitn(2, |&byte| byte == b';').map(trim);
    let coding = parts.next().filter(|coding| !coding.is_empty())?;
    let Some(parameter) = parts.next() else {
        return Some((coding, 1_000));
    };
    let (name, weight) = parameter.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    Some((coding, thousandths(weight)?))
}

/// `qvalue` of RFC 9110, 12.4.2: 0 to 1 with at most three digits after the point.
pub(crate) fn thousandths(text: &[u8]) -> Option<u16> {
    let (&whole, rest) = text.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut fraction = 0_u16;
    for place in 0..3 {
        let digit = digits.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        fraction = fraction * 10 + u16::from(digit - b'0');
    }
    match (whole, fraction) {
        (b'0', fraction) => Some(fraction),
        (b'1', 0) => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn pick(accept: &str, available: &[Encoding]) -> Option<Encoding> {
        let mut map = HeaderMap::new();
        map.insert(ACCEPT_ENCODING, HeaderValue::from_str(accept).unwrap());
        negotiate(&map, available.iter().copied())
    }

    fn all(accept: &str) -> &'static str {
        pick(accept, &Encoding::ALL).map_or("identity", Encoding::as_str)
    }

    #[test]
    fn what_browsers_send_gets_the_servers_favourite() {
        assert_eq!(all("gzip, deflate, br, zstd"), "br");
        assert_eq!(all("gzip, deflate"), "gzip");
        assert_eq!(all("zstd"), "zstd");
    }

    #[test]
    fn without_the_field_or_with_an_empty_one_it_is_identity() {
        assert_eq!(negotiate(&HeaderMap::new(), Encoding::ALL), None);
        assert_eq!(all(""), "identity");
        assert_eq!(all("deflate"), "identity");
    }

    #[test]
    fn weights_decide_before_our_own_order() {
        assert_eq!(all("br;q=0.5, gzip;q=0.8"), "gzip");
        assert_eq!(all("br;q=0.001, gzip;q=0"), "br");
        assert_eq!(all("br ; q=0.5 ,gzip"), "gzip");
    }

    #[test]
    fn a_weight_of_zero_refuses() {
        assert_eq!(all("gzip;q=0"), "identity");
        assert_eq!(all("br;q=0.0, gzip;q=0.000, zstd;q=0"), "identity");
        assert_eq!(all("*;q=0"), "identity");
        assert_eq!(all("*;q=0, gzip"), "gzip");
        assert_eq!(all("gzip;q=0, gzip"), "identity", "a refusal holds");
    }

    #[test]
    fn a_star_stands_for_what_is_not_named() {
        assert_eq!(all("*"), "br");
        assert_eq!(all("br;q=0, *"), "zstd");
        assert_eq!(all("*;q=0.1, gzip;q=0.2"), "gzip");
    }

    #[test]
    fn identity_can_be_preferred_or_refused() {
        assert_eq!(all("identity, gzip;q=0.5"), "identity");
        assert_eq!(all("identity;q=0.5, gzip"), "gzip");
        assert_eq!(all("identity;q=0, gzip;q=0.1"), "gzip");
        assert_eq!(all("identity;q=0"), "identity", "better than no answer");
    }

    #[test]
    fn a_member_that_is_malformed_is_not_heard() {
        for accept in [
            "br;q=2",
            "br;q=abc",
            "br;q=0.1234",
            "br;q=-1",
            "br;q=",
            "br;level=3",
            ";q=1",
        ] {
            assert_eq!(all(accept), "identity", "{accept}");
        }
        assert_eq!(all("br;q=2, gzip"), "gzip", "the others are still heard");
    }

    #[test]
    fn names_are_case_insensitive_and_x_gzip_is_gzip() {
        assert_eq!(all("GZIP;Q=1"), "gzip");
        assert_eq!(all("x-gzip"), "gzip");
    }

    #[test]
    fn only_what_is_there_is_picked() {
        assert_eq!(
            pick("br, gzip;q=0.1", &[Encoding::Gzip]),
            Some(Encoding::Gzip)
        );
        assert_eq!(pick("br, gzip", &[]), None);
    }

    #[test]
    fn several_lines_are_one_list() {
        let mut map = HeaderMap::new();
        map.append(ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0.5"));
        map.append(ACCEPT_ENCODING, HeaderValue::from_static("zstd"));
        assert_eq!(negotiate(&map, Encoding::ALL), Some(Encoding::Zstd));
    }

    proptest! {
        #[test]
        fn the_pick_is_the_one_a_plain_count_gives(
            weights in prop::collection::vec(prop::option::of(0_u16..=1_000), 5),
            shown in prop::collection::vec(any::<bool>(), 3),
        ) {
            let names = ["br", "zstd", "gzip", "identity", "*"];
            let accept: Vec<String> = names.iter().zip(&weights)
                .filter_map(|(name, w)| w.map(|w| format!("{name};q={}.{:03}", w / 1000, w % 1000)))
                .collect();
            let available: Vec<Encoding> = Encoding::ALL.into_iter().zip(&shown)
                .filter_map(|(coding, there)| there.then_some(coding)).collect();

            let star = weights[4];
            let weigh = |i: usize| weights[i].or(star).unwrap_or(0);
            let mut expected = None;
            for w in (1..=1_000).rev() {
                expected = available.iter().copied().find(|c| weigh(c.index()) == w);
                if expected.is_some() {
                    if weigh(3) > w { expected = None; }
                    break;
                }
            }
            prop_assert_eq!(pick(&accept.join(", "), &available), expected);
        }

        #[test]
        fn a_coding_that_was_not_offered_is_never_sent(accept in "[ -~]{0,40}") {
            let lower = accept.to_ascii_lowercase();
            if let Some(coding) = pick(&accept, &Encoding::ALL) {
                prop_assert!(lower.contains(coding.as_str()) || lower.contains('*'));
            }
        }
    }
}
