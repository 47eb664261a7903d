//! Which octets may stand where, as one table, and the search for control
//! characters and small letters eight octets at a time.
//!
//! The guard looks at each octet of each request once, so this is where its
//! time goes. It knows octets, not grammar.

/// tchar: methods, field names, chunk extensions (RFC 9110 section 5.6.2).
pub(crate) const TOKEN: u8 = 1;
/// An octet accepted in the path of a target. Wider than RFC 3986 by what
/// browsers send unescaped; the normaliser escapes those.
pub(crate) const PATH: u8 = 1 << 1;
/// An octet accepted in the query of a target; wider than [`PATH`] by `?`, `\` and the grave accent.
pub(crate) const QUERY: u8 = 1 << 2;
/// pchar without `%`: what a path carries unescaped (RFC 3986 section 3.3).
pub(crate) const PCHAR: u8 = 1 << 3;
/// What an escape never needs to stand for (RFC 3986 section 2.3).
pub(crate) const UNRESERVED: u8 = 1 << 4;
/// A host name's letters, digits, `-` and `_`.
pub(crate) const LABEL: u8 = 1 << 5;

/// Whether `byte` belongs to one of the classes in `class`.
#[inline]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASS[usize::from(byte)] & class != 0
}

static CLASS: [u8; 256] = build();

const fn build() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        table[byte as usize] = classes(byte);
        byte += 1;
    }
    table
}

const fn classes(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        return TOKEN | PATH | QUERY | PCHAR | UNRESERVED | LABEL;
    }
    match byte {
        b'-' | b'_' => TOKEN | PATH | QUERY | PCHAR | UNRESERVED | LABEL,
        b'.' | b'~' => TOKEN | PATH | QUERY | PCHAR | UNRESERVED,
        b'!' | b'$' | b'&' | b'\'' | b'*' | b'+' => TOKEN | PATH | QUERY | PCHAR,
        b'(' | b')' | b',' | b';' | b'=' | b':' | b'@' => PATH | QUERY | PCHAR,
        b'%' | b'^' | b'|' => TOKEN | PATH | QUERY,
        b'/' | b'[' | b']' | b'{' | b'}' => PATH | QUERY,
        b'`' => TOKEN | QUERY,
        b'?' | b'\\' => QUERY,
        b'#' => TOKEN,
        _ => 0,
    }
}

/// Where the first control character other than HTAB stands, from `from` on.
#[inline]
pub(crate) fn next_control(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let found = at + first_control_or_tab(bytes.get(at..)?)?;
        if bytes.get(found) != Some(&b'\t') {
            return Some(found);
        }
        at = found + 1;
    }
}

fn first_control_or_tab(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let flags = control_flags(u64::from_le_bytes(*word));
        if flags != 0 {
            return Some(index * 8 + flags.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|&b| is_control(b))?;
    Some(words.len() * 8 + found)
}

const fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// The high bit of each octet below 0x20 or equal to 0x7f. A borrow can only
/// set a wrong bit above the first right one, and only the lowest is used.
const fn control_flags(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let deletes = word ^ (ONES * 0x7f);
    let is_delete = deletes.wrapping_sub(ONES) & !deletes;
    (below_space | is_delete) & HIGH
}

/// Makes the letters among the first `count` octets of `bytes` small.
#[inline]
pub(crate) fn lower(bytes: &mut [u8], count: usize) {
    if let Some(count) = count.checked_sub(8) {
        let mut at = 0;
        while at < count {
            lower_word(bytes, at, u64::MAX);
            at += 8;
        }
        // The last word may begin within the one before: small letters stay.
        lower_word(bytes, count, u64::MAX);
    } else if bytes.len() >= 8 {
        lower_word(bytes, 0, !(u64::MAX << (8 * count)));
    } else {
        bytes[..count].make_ascii_lowercase();
    }
}

/// Of the eight octets from `at` on, those under `mask`.
#[inline]
fn lower_word(bytes: &mut [u8], at: usize, mask: u64) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<8>) else {
        return;
    };
    let word = u64::from_le_bytes(*place);
    let low = word & !HIGH;
    // The high bit of each octet from `A` on, and of each behind `Z`.
    let from_a = low + ONES * u64::from(0x80 - b'A');
    let behind_z = low + ONES * u64::from(0x7f - b'Z');
    let capitals = from_a & !behind_z & !word & HIGH & mask;
    *place = (word | capitals >> 2).to_le_bytes();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{is_control, lower, next_control};

    proptest! {
        #[test]
        fn letters_become_small_and_nothing_else_changes(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            count in 0_usize..41,
        ) {
            let count = count.min(bytes.len());
            let mut wanted = bytes.clone();
            wanted[..count].make_ascii_lowercase();
            let mut bytes = bytes;
            lower(&mut bytes, count);
            prop_assert_eq!(bytes, wanted);
        }

        #[test]
        fn the_word_search_finds_what_a_plain_search_finds(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'a'), Just(b'\t')], 0..80),
            from in 0_usize..90,
        ) {
            let plain = bytes.iter().enumerate().skip(from).find(|(_, b)| is_control(**b) && **b != b'\t');
            prop_assert_eq!(next_control(&bytes, from), plain.map(|(i, _)| i));
        }
    }
}
