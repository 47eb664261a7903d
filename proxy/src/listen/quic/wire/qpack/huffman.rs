//! The Huffman code of strings (RFC 7541 appendix B).
//!
//! The code is canonical: it follows from the length of each symbol's code alone. So the table here
//! is that of the lengths, and the rest is computed from it when it is compiled.

/// Why a string cannot be read: its padding is none, or the end-of-string symbol is in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Appends what `coded` stands for to `out`.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut bits: u64 = 0;
    let mut count: usize = 0;
    for &byte in coded {
        bits = (bits << 8) | u64::from(byte);
        count += 8;
        while let Some((symbol, length)) = first(bits, count) {
            if symbol == END {
                return Err(Malformed);
            }
            out.push(u8::try_from(symbol).map_err(|_| Malformed)?);
            count -= length;
        }
        bits &= (1 << count) - 1;
    }
    // The rest is the beginning of the end-of-string symbol, shorter than an octet (section 5.2).
    match count < 8 && bits == (1 << count) - 1 {
        true => Ok(()),
        false => Err(Malformed),
    }
}

const LONGEST: usize = 30;
const SYMBOLS: usize = 257;
/// Marks the end, and stands in no string.
const END: u16 = 256;

/// The symbol that the last `count` bits of `bits` begin with, and its length.
fn first(bits: u64, count: usize) -> Option<(u16, usize)> {
    let mut length = 5;
    while length <= LONGEST && length <= count {
        let code = (bits >> (count - length)) & ((1 << length) - 1);
        let of_length = &CODE.lengths[length];
        let place = code.wrapping_sub(of_length.first);
        if place < of_length.count {
            let at = of_length.start + usize::try_from(place).ok()?;
            return Some((*CODE.symbols.get(at)?, length));
        }
        length += 1;
    }
    None
}

/// The codes of one length: they are neighbours.
#[derive(Clone, Copy)]
struct OfLength {
    /// The least of them.
    first: u64,
    count: u64,
    /// Where their symbols begin.
    start: usize,
}

struct Code {
    lengths: [OfLength; LONGEST + 1],
    /// By the length of their codes, then by number.
    symbols: [u16; SYMBOLS],
}

static CODE: Code = code();

const fn code() -> Code {
    let none = OfLength {
        first: 0,
        count: 0,
        start: 0,
    };
    let mut lengths = [none; LONGEST + 1];
    let mut symbols = [0; SYMBOLS];
    let (mut next, mut placed) = (0_u64, 0);
    let mut length = 1;
    while length <= LONGEST {
        next <<= 1;
        lengths[length].first = next;
        lengths[length].start = placed;
        let mut symbol: u16 = 0;
        while (symbol as usize) < SYMBOLS {
            if LENGTHS[symbol as usize] as usize == length {
                symbols[placed] = symbol;
                placed += 1;
                next += 1;
                lengths[length].count += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    Code { lengths, symbols }
}

/// Bits of each symbol's code.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for &byte in text {
            let length = usize::from(LENGTHS[usize::from(byte)]);
            let of_length = CODE.lengths[length];
            let symbols = &CODE.symbols[of_length.start..];
            let place = symbols.iter().position(|symbol| *symbol == u16::from(byte));
            let code = of_length.first + place.unwrap() as u64;
            bits.push_str(&format!("{code:0length$b}"));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let octets = bits.as_bytes().chunks(8);
        octets
            .map(|bits| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn the_code_is_complete() {
        let last = CODE.lengths[LONGEST];
        assert_eq!(last.first + last.count, 1 << LONGEST);
        assert_eq!(CODE.symbols[SYMBOLS - 1], END);
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541 appendices C.4 and C.6.
        for (coded, text) in [
            (
                &[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ][..],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
            (&[0xae, 0xc3, 0x77, 0x1a, 0x4b], "private"),
        ] {
            assert_eq!(decoded(coded).unwrap(), text.as_bytes());
            assert_eq!(encoded(text.as_bytes()), coded);
        }
    }

    #[test]
    fn padding_is_ones_and_short_and_the_end_is_no_symbol() {
        assert_eq!(decoded(&[]), Ok(Vec::new()));
        // "0" is five bits of nought; behind it three bits of padding.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0110]), Err(Malformed));
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(Malformed));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decoded(&encoded(&text)), Ok(text));
        }

        #[test]
        fn no_octets_make_it_panic(coded in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decoded(&coded);
        }
    }
}
