//! Bytes from a client made safe for a log line.
//!
//! Whatever a client sends, a line stays one line, a field stays one field, and
//! a terminal that shows the file gets no control sequence.

/// Appends `field` as the inside of a JSON string (RFC 8259 section 7).
///
/// Quotes, backslashes and control characters (C0, DEL and C1) are escaped;
/// each sequence that is not UTF-8 becomes U+FFFD, since JSON has no bytes.
pub(super) fn json(out: &mut Vec<u8>, field: &[u8]) {
    if is_all_plain(field) {
        return out.extend_from_slice(field);
    }
    for chunk in field.utf8_chunks() {
        json_str(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(br"\ufffd");
        }
    }
}

fn json_str(out: &mut Vec<u8>, text: &str) {
    let mut done = 0;
    for (at, character) in text.char_indices() {
        if character != '"' && character != '\\' && !character.is_control() {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[done..at]);
        done = at + character.len_utf8();
        match character {
            '"' => out.extend_from_slice(br#"\""#),
            '\\' => out.extend_from_slice(br"\\"),
            '\n' => out.extend_from_slice(br"\n"),
            '\r' => out.extend_from_slice(br"\r"),
            '\t' => out.extend_from_slice(br"\t"),
            // `char::is_control` is U+0000 to U+001F and U+007F to U+009F: two digits are enough.
            _ => {
                out.extend_from_slice(br"\u00");
                hex_byte(
                    out,
                    u8::try_from(u32::from(character)).unwrap_or(b'?'),
                    LOWER,
                );
            }
        }
    }
    out.extend_from_slice(&text.as_bytes()[done..]);
}

/// Appends `field` for between the quotes of a combined line, as nginx writes it:
/// quote, backslash and whatever is not printable ASCII become `\xHH`. An absent
/// field is `-`.
pub(super) fn combined(out: &mut Vec<u8>, field: &[u8]) {
    if field.is_empty() {
        out.push(b'-');
        return;
    }
    if is_all_plain(field) {
        return out.extend_from_slice(field);
    }
    for &byte in field {
        if is_plain(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(br"\x");
            hex_byte(out, byte, UPPER);
        }
    }
}

/// Appends a number as 32 lower-case hex digits.
pub(super) fn hex_id(out: &mut Vec<u8>, id: u128) {
    for byte in id.to_be_bytes() {
        hex_byte(out, byte, LOWER);
    }
}

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn hex_byte(out: &mut Vec<u8>, byte: u8, alphabet: &[u8; 16]) {
    out.extend_from_slice(&[
        alphabet[usize::from(byte >> 4)],
        alphabet[usize::from(byte & 15)],
    ]);
}

/// Printable ASCII without quote and backslash.
fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

/// Whether nothing needs an escape, which is so of nearly every field. Looks at eight bytes at a time,
/// the last of which overlap those before them.
fn is_all_plain(field: &[u8]) -> bool {
    let is_plain_word = |word: &[u8; 8]| !any_special(u64::from_ne_bytes(*word));
    match field.last_chunk::<8>() {
        None => field.iter().all(|&byte| is_plain(byte)),
        Some(last) => is_plain_word(last) && field.as_chunks().0.iter().all(is_plain_word),
    }
}

/// Whether any of eight bytes is not plain. Subtracting borrows through a byte's
/// high bit exactly when the byte was smaller, which tells whether there is such
/// a byte, though not which.
fn any_special(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    let equals = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let special = word | below(word, 0x20) | equals(b'"') | equals(b'\\') | equals(0x7f);
    special & HIGH != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn as_json(field: &[u8]) -> String {
        let mut out = Vec::new();
        json(&mut out, field);
        String::from_utf8(out).expect("a JSON string is UTF-8")
    }

    fn as_combined(field: &[u8]) -> String {
        let mut out = Vec::new();
        combined(&mut out, field);
        String::from_utf8(out).expect("a combined line is ASCII")
    }

    #[test]
    fn a_json_field_cannot_end_its_string_or_its_line() {
        assert_eq!(
            as_json(b"x\",\"status\":200}\n{\"a\":\"\\"),
            r#"x\",\"status\":200}\n{\"a\":\"\\"#
        );
    }

    #[test]
    fn control_characters_of_both_sets_are_escaped_in_json() {
        assert_eq!(
            as_json("\0\t\r\u{1b}[2J\u{7f}\u{9b}31m".as_bytes()),
            r"\u0000\t\r\u001b[2J\u007f\u009b31m"
        );
    }

    #[test]
    fn what_is_not_utf_8_becomes_the_replacement_character() {
        assert_eq!(
            as_json(b"a\xff\xfeb\xc3\xa9\xe2\x82"),
            "a\\ufffd\\ufffdb\u{e9}\\ufffd"
        );
    }

    #[test]
    fn a_combined_field_cannot_end_its_quotes_or_its_line() {
        assert_eq!(
            as_combined(b"x\" 200 5\n127.0.0.1 - - \\ \x1b\x7f\xe9"),
            r"x\x22 200 5\x0A127.0.0.1 - - \x5C \x1B\x7F\xE9"
        );
        assert_eq!(as_combined(b""), "-");
    }

    #[test]
    fn every_byte_is_judged_alike_alone_and_within_a_word() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                let mut word = *b"abcdefgh";
                word[place] = byte;
                assert_eq!(
                    any_special(u64::from_ne_bytes(word)),
                    !is_plain(byte),
                    "byte {byte:#04x} at {place}"
                );
            }
        }
    }

    #[test]
    fn an_id_is_always_32_digits() {
        let mut out = Vec::new();
        hex_id(&mut out, 0xab);
        assert_eq!(out, b"000000000000000000000000000000ab");
    }

    proptest! {
        #[test]
        fn a_json_reader_gets_back_what_was_sent(field in any::<Vec<u8>>()) {
            let text = format!("\"{}\"", as_json(&field));
            let back: String = serde_json::from_str(&text).expect("valid JSON");
            prop_assert_eq!(back, String::from_utf8_lossy(&field));
            prop_assert!(!text.chars().any(char::is_control));
        }

        #[test]
        fn a_combined_field_is_printable_and_can_be_told_apart(field in any::<Vec<u8>>()) {
            let text = as_combined(&field);
            prop_assert!(text.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'"'));
        }
    }
}
