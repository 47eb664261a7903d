//! Compression dictionaries (RFC 9842): a new release sent as its difference from the old one.
//!
//! Pure: which file names a client may use as dictionaries and for what, which dictionary a
//! request offers, and under which name the difference lies. A file whose name carries a hash
//! is a dictionary for its other releases: `app.3f9a1c2b.js` for all `app.*.js`. Made ahead by
//! [`crate::compress`], the difference to the release with the SHA-256 `0badc0de...` lies
//! beside the file as `app.91d2c0ab.js.0badc0de01234567.dcz`.
//!
//! The name carries the beginning of the hash alone. The decoder compares the whole one, which
//! stands in the file, so that a chance meeting of two costs a failed load and never a wrong
//! file; with 64 bits it does not come about.

use std::fmt;

use http::HeaderValue;
use http::header::{ACCEPT_ENCODING, HeaderName};
use sha2::{Digest as _, Sha256};

use crate::encoding::{Encoding, weighted};
use crate::fields::{Fields, trim};
use crate::fingerprint;

/// What a client says of the dictionary it has (RFC 9842, 2.2).
pub const AVAILABLE_DICTIONARY: HeaderName = HeaderName::from_static("available-dictionary");

/// What a server says of a response that may become a dictionary (RFC 9842, 2.1).
pub const USE_AS_DICTIONARY: HeaderName = HeaderName::from_static("use-as-dictionary");

/// `Vary` of every response that there may be a difference for (RFC 9842, 6.2).
pub const VARY: HeaderValue = HeaderValue::from_static("accept-encoding, available-dictionary");

/// A content coding that needs a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delta {
    /// Dictionary-compressed Brotli (RFC 9842, 4), `name.<hash>.dcb`.
    Brotli,
    /// Dictionary-compressed Zstandard (RFC 9842, 5), `name.<hash>.dcz`.
    Zstd,
}

impl Delta {
    /// Every coding, the one that packs best first.
    pub const ALL: [Self; 2] = [Self::Brotli, Self::Zstd];

    /// The name in `Content-Encoding` and `Accept-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "dcb",
            Self::Zstd => "dcz",
        }
    }

    /// The file name's ending, with its dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".dcb",
            Self::Zstd => ".dcz",
        }
    }

    /// What stands before the dictionary's hash.
    pub fn magic(self) -> &'static [u8] {
        match self {
            Self::Brotli => &[0xff, 0x44, 0x43, 0x42],
            // A skippable frame of Zstandard.
            Self::Zstd => &[0x5e, 0x2a, 0x4d, 0x18, 0x20, 0x00, 0x00, 0x00],
        }
    }
}

/// The SHA-256 of a dictionary.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Of a dictionary's content.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The dictionary that a request offers. What is malformed or there twice is not heard.
    pub fn offered(fields: &dyn Fields) -> Option<Self> {
        let mut found = None;
        let mut lines = 0;
        fields.each(&AVAILABLE_DICTIONARY, &mut |line| {
            lines += 1;
            found = Self::parse(line);
        });
        found.filter(|_| lines == 1)
    }

    /// Reads a byte sequence of RFC 9651 (3.3.5), of 32 bytes. Parameters mean nothing here.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = trim(value).strip_prefix(b":")?;
        let end = value.iter().position(|&byte| byte == b':')?;
        let (text, rest) = value.split_at_checked(end)?;
        if !matches!(rest, [b':'] | [b':', b';' | b' ', ..]) {
            return None;
        }
        base64(text).map(Self)
    }

    /// The name of the difference to this dictionary beside the file at `path`.
    pub fn sibling(&self, path: &str, delta: Delta) -> String {
        format!("{path}.{self}{}", delta.suffix())
    }
}

/// Sixteen hexadecimal digits of it, as in names of files.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take(8)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self}..)")
    }
}

/// `Use-As-Dictionary` of the file with this name: a dictionary for its own other releases, in
/// the same folder. `None` for names without a hash, and for those that mean something else in
/// a URL pattern or must be escaped in a URL.
pub fn use_as(name: &str) -> Option<HeaderValue> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte);
    let print = fingerprint::of(name).filter(|print| print.same_file(print))?;
    if !name.bytes().all(plain) {
        return None;
    }
    HeaderValue::from_str(&format!("match=\"{}\"", print.pattern())).ok()
}

/// The original of what is named like a difference, and its coding.
pub fn original(name: &str) -> Option<(&str, Delta)> {
    let delta = Delta::ALL
        .into_iter()
        .find(|delta| name.ends_with(delta.suffix()))?;
    let (original, hash) = name.strip_suffix(delta.suffix())?.rsplit_once('.')?;
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let known = hash.len() == 16 && hash.bytes().all(hex) && !original.is_empty();
    known.then_some((original, delta))
}

/// Picks one of the differences in `available`, which stand in the server's order of
/// preference. `None` where the client takes none, or would rather have a coding that needs no
/// dictionary.
pub fn negotiate(fields: &dyn Fields, available: impl IntoIterator<Item = Delta>) -> Option<Delta> {
    let mut weights = Weights::default();
    fields.each(&ACCEPT_ENCODING, &mut |line| weights.read(line));
    let mut best = None;
    for delta in available {
        let weight = weights.of(delta);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((delta, weight));
        }
    }
    best.filter(|(_, weight)| *weight >= weights.plain)
        .map(|(delta, _)| delta)
}

/// The weights a client gave, in thousandths. A coding that needs a dictionary must be named:
/// `*` is what clients say that never heard of dictionaries.
#[derive(Default)]
struct Weights {
    brotli: Option<u16>,
    zstd: Option<u16>,
    /// The highest of those that need no dictionary.
    plain: u16,
}

impl Weights {
    fn read(&mut self, line: &[u8]) {
        for member in line.split(|&byte| byte == b',').map(trim) {
            let Some((coding, weight)) = weighted(member) else {
                continue;
            };
            let is = |delta: Delta| coding.eq_ignore_ascii_case(delta.as_str().as_bytes());
            let slot = if is(Delta::Brotli) {
                &mut self.brotli
            } else if is(Delta::Zstd) {
                &mut self.zstd
            } else {
                let identity = coding.eq_ignore_ascii_case(b"identity");
                if identity || Encoding::from_token(coding).is_some() {
                    self.plain = self.plain.max(weight);
                }
                continue;
            };
            // Said twice: the lower holds, for a refusal must not be overheard.
            *slot = Some(slot.map_or(weight, |before| before.min(weight)));
        }
    }

    fn of(&self, delta: Delta) -> u16 {
        let named = match delta {
            Delta::Brotli => self.brotli,
            Delta::Zstd => self.zstd,
        };
        named.unwrap_or(0)
    }
}

/// Decodes the base64 of exactly 32 bytes: 43 characters, and one of padding, which RFC 9651
/// lets a reader do without.
fn base64(text: &[u8]) -> Option<[u8; 32]> {
    let text = text.strip_suffix(b"=").unwrap_or(text);
    if text.len() != 43 {
        return None;
    }
    let mut decoded = [0; 32];
    let mut slots = decoded.iter_mut();
    let (mut bits, mut count) = (0_u32, 0);
    for &byte in text {
        bits = (bits << 6 | u32::from(sextet(byte)?)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            *slots.next()? = u8::try_from(bits >> count & 0xff).ok()?;
        }
    }
    Some(decoded)
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    /// SHA-256 of nothing.
    const EMPTY: &str = ":47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

    fn fields(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(name, HeaderValue::from_static(value));
        }
        map
    }

    fn pick(accept: &'static str) -> &'static str {
        let fields = fields(&ACCEPT_ENCODING, &[accept]);
        negotiate(&fields, Delta::ALL).map_or("none", Delta::as_str)
    }

    #[test]
    fn the_hash_of_a_request_is_the_one_of_the_content() {
        assert_eq!(Hash::parse(EMPTY.as_bytes()), Some(Hash::of(b"")));
        assert_eq!(Hash::of(b"").to_string(), "e3b0c44298fc1c14");
        assert_eq!(
            Hash::of(b"").sibling("js/app.3f9a1c2b.js", Delta::Zstd),
            "js/app.3f9a1c2b.js.e3b0c44298fc1c14.dcz"
        );
    }

    #[test]
    fn what_is_malformed_or_there_twice_is_not_heard() {
        let good = fields(&AVAILABLE_DICTIONARY, &[EMPTY]);
        assert_eq!(Hash::offered(&good), Some(Hash::of(b"")));
        for wrong in [
            "",
            ":",
            "::",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            ":47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            ":47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF=:",
            ":47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFUU=:",
            ":47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=:",
            ":47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:x",
            "\"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"",
        ] {
            assert_eq!(Hash::parse(wrong.as_bytes()), None, "{wrong}");
        }
        let twice = fields(&AVAILABLE_DICTIONARY, &[EMPTY, EMPTY]);
        assert_eq!(Hash::offered(&twice), None);
        let padded = format!(" {EMPTY} ");
        assert!(Hash::parse(padded.as_bytes()).is_some());
        assert!(Hash::parse(format!("{EMPTY};a=1").as_bytes()).is_some());
    }

    #[test]
    fn browsers_that_know_dictionaries_get_a_difference() {
        assert_eq!(pick("gzip, deflate, br, zstd, dcb, dcz"), "dcb");
        assert_eq!(pick("gzip, br, dcz"), "dcz");
        assert_eq!(pick("DCZ"), "dcz");
        assert_eq!(pick("gzip, deflate, br, zstd"), "none");
        assert_eq!(pick("*"), "none");
        assert_eq!(pick("dcb;q=0, dcz;q=0"), "none");
        assert_eq!(pick("dcb;q=0.5, dcz;q=0.8"), "dcz");
        assert_eq!(pick("dcb;q=0.5, br"), "none");
        assert_eq!(pick("dcb;q=0.5, dcb"), "dcb");
        assert_eq!(negotiate(&HeaderMap::new(), Delta::ALL), None);
    }

    #[test]
    fn a_file_with_a_hash_is_a_dictionary_for_its_other_releases() {
        let value = use_as("app-3f9a1c2b.js").unwrap();
        assert_eq!(value, "match=\"app-*.js\"");
        for name in [
            "app.js",
            "index.html",
            "3f9a1c2b4d5e6f70.css",
            "[id]-3f9a1c2b.js",
            "a b-3f9a1c2b.js",
        ] {
            assert_eq!(use_as(name), None, "{name}");
        }
    }

    #[test]
    fn names_of_differences_lead_to_the_file() {
        for delta in Delta::ALL {
            let name = Hash::of(b"").sibling("app.3f9a1c2b.js", delta);
            assert_eq!(original(&name), Some(("app.3f9a1c2b.js", delta)));
        }
        for name in [
            "app.js.dcz",
            "app.js.E3B0C44298FC1C14.dcz",
            ".e3b0c44298fc1c14.dcb",
            "a.dcb",
        ] {
            assert_eq!(original(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn only_the_writing_of_the_very_bytes_is_read(value in ":?[A-Za-z0-9+/]{40,45}={0,2}:?", more in "[ -~]{0,60}") {
            for value in [value, more] {
                if let Some(hash) = Hash::parse(value.as_bytes()) {
                    let encoded = encode(hash.bytes());
                    // The last character has two bits that mean nothing.
                    prop_assert_eq!(&value[1..43], &encoded[..42]);
                }
            }
        }

        #[test]
        fn what_is_written_is_read(bytes in any::<[u8; 32]>()) {
            let value = format!(":{}=:", encode(&bytes));
            prop_assert_eq!(Hash::parse(value.as_bytes()), Some(Hash(bytes)));
        }
    }

    fn encode(bytes: &[u8; 32]) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
        let digit = |at: usize| (0..6).fold(0, |sum, next| sum << 1 | bit(at * 6 + next));
        (0..43)
            .map(|at| char::from(ALPHABET[usize::from(digit(at))]))
            .collect()
    }
}
