//! Field sections (RFC 9204) without a dynamic table: none is offered, so a client may refer to
//! the static one alone, and no section waits for another stream.

mod huffman;
mod table;

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::HeaderMap;

use table::Place;

/// What each field counts beside its name and its value (RFC 9114 section 4.2.2).
const OVERHEAD: usize = 32;

/// Why a field section is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::listen::quic) enum Refused {
    /// It is larger than it may be; the connection is none the worse for it.
    TooLarge,
    /// It cannot be read: a connection error (RFC 9204 section 2.2).
    Malformed,
}

/// The fields of a section, in their order.
#[derive(Debug, Default)]
pub(in crate::listen::quic) struct Section {
    text: Bytes,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Section {
    /// Names and values.
    pub(in crate::listen::quic) fn fields(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        let of = |range: &Range<usize>| self.text.slice(range.clone());
        self.fields
            .iter()
            .map(move |(name, value)| (of(name), of(value)))
    }
}

/// Reads a section. `most`: octets of its fields, each with 32 more.
pub(in crate::listen::quic) fn decode(block: &[u8], most: usize) -> Result<Section, Refused> {
    let mut reader = Reader {
        rest: block,
        text: Vec::with_capacity(block.len() + block.len() / 2),
        most,
    };
    // Required Insert Count and Base: both speak of the table that is not there.
    if reader.number(8)?.1 != 0 {
        return Err(Refused::Malformed);
    }
    reader.number(7)?;
    let mut fields = Vec::new();
    let mut size = 0_usize;
    while let Some(&first) = reader.rest.first() {
        let start = reader.text.len();
        let (name, value) = reader.field(first)?;
        size += reader.text.len() - start + OVERHEAD;
        if size > most {
            return Err(Refused::TooLarge);
        }
        fields.push((name, value));
    }
    Ok(Section {
        text: reader.text.into(),
        fields,
    })
}

struct Reader<'a> {
    rest: &'a [u8],
    text: Vec<u8>,
    most: usize,
}

impl Reader<'_> {
    /// One field line (RFC 9204 section 4.5).
    fn field(&mut self, first: u8) -> Result<(Range<usize>, Range<usize>), Refused> {
        const STATIC: u8 = 0b0100_0000;
        const STATIC_NAME: u8 = 0b0001_0000;
        if first & 0b1000_0000 != 0 {
            // Indexed.
            let (flags, index) = self.number(6)?;
            let known = known(flags & STATIC != 0, index)?;
            return Ok((self.put(known.0), self.put(known.1)));
        }
        let name = if first & 0b0100_0000 != 0 {
            // A literal with the name of another.
            let (flags, index) = self.number(4)?;
            let known = known(flags & STATIC_NAME != 0, index)?;
            self.put(known.0)
        } else if first & 0b0010_0000 != 0 {
            self.string(3)?
        } else {
            // What is left refers to the dynamic table.
            return Err(Refused::Malformed);
        };
        Ok((name, self.string(7)?))
    }

    fn put(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.extend_from_slice(text.as_bytes());
        start..self.text.len()
    }

    /// An integer with a prefix of so many bits (RFC 7541 section 5.1), and the bits before it.
    fn number(&mut self, bits: u32) -> Result<(u8, usize), Refused> {
        let (&first, rest) = self.rest.split_first().ok_or(Refused::Malformed)?;
        self.rest = rest;
        let mask = u8::try_from((1_u32 << bits) - 1).unwrap_or(u8::MAX);
        let (flags, start) = (first & !mask, first & mask);
        if start < mask {
            return Ok((flags, usize::from(start)));
        }
        let mut number = usize::from(start);
        for shift in [0, 7, 14, 21] {
            let (&next, rest) = self.rest.split_first().ok_or(Refused::Malformed)?;
            self.rest = rest;
            number += usize::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                return Ok((flags, number));
            }
        }
        // Beyond every length and index that there is.
        Err(Refused::Malformed)
    }

    /// A string whose length has a prefix of so many bits, with the Huffman bit before them.
    fn string(&mut self, bits: u32) -> Result<Range<usize>, Refused> {
        let (flags, length) = self.number(bits)?;
        let (coded, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Refused::Malformed)?;
        self.rest = rest;
        let start = self.text.len();
        if flags >> bits & 1 == 0 {
            self.text.extend_from_slice(coded);
        } else {
            // The shortest code has five bits: the section's bound holds for what comes out, too.
            if length > self.most {
                return Err(Refused::TooLarge);
            }
            huffman::decode(coded, &mut self.text).map_err(|_| Refused::Malformed)?;
        }
        Ok(start..self.text.len())
    }
}

fn known(is_static: bool, index: usize) -> Result<(&'static str, &'static str), Refused> {
    match is_static {
        true => table::field(index).ok_or(Refused::Malformed),
        false => Err(Refused::Malformed),
    }
}

/// A section under way. Strings are sent as they are: it costs a reply some 50 octets more, and
/// half as much work.
pub(in crate::listen::quic) struct Encoder(BytesMut);

impl Encoder {
    /// With no field yet.
    pub(in crate::listen::quic) fn new() -> Self {
        let mut out = BytesMut::with_capacity(512);
        // Required Insert Count and Base.
        out.put_slice(&[0, 0]);
        Self(out)
    }

    /// One more field. Pseudo-fields come first.
    pub(in crate::listen::quic) fn field(&mut self, name: &str, value: &[u8]) {
        match table::find(name, value) {
            Some(Place::Whole(index)) => return self.number(0b1100_0000, 6, index),
            Some(Place::Name(index)) => self.number(0b0101_0000, 4, index),
            None => {
                self.number(0b0010_0000, 3, name.len());
                self.0.put_slice(name.as_bytes());
            }
        }
        self.number(0, 7, value.len());
        self.0.put_slice(value);
    }

    /// Every field of `fields`.
    pub(in crate::listen::quic) fn fields(&mut self, fields: &HeaderMap) {
        for (name, value) in fields {
            self.field(name.as_str(), value.as_bytes());
        }
    }

    /// The section.
    pub(in crate::listen::quic) fn finish(self) -> Bytes {
        self.0.freeze()
    }

    fn number(&mut self, flags: u8, bits: u32, number: usize) {
        let mask = (1_usize << bits) - 1;
        let small = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        if number < mask {
            return self.0.put_u8(flags | small(number));
        }
        self.0.put_u8(flags | small(mask));
        let mut rest = number - mask;
        while rest >= 0x80 {
            self.0.put_u8(small(rest & 0x7f) | 0x80);
            rest >>= 7;
        }
        self.0.put_u8(small(rest));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(section: &Section) -> Vec<(String, String)> {
        let string = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let fields = section.fields();
        fields
            .map(|(name, value)| (string(name), string(value)))
            .collect()
    }

    fn own(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        fields.iter().map(own).collect()
    }

    #[test]
    fn a_section_of_the_rfc_is_read() {
        // RFC 9204 appendix B.1.
        let block = b"\x00\x00\x51\x0b/index.html";
        let section = decode(block, 100).unwrap();
        assert_eq!(text(&section), own(&[(":path", "/index.html")]));
    }

    #[test]
    fn what_is_written_is_read_and_known_fields_are_short() {
        let long = "v".repeat(300);
        let fields = [
            (":status", "200"),
            ("content-type", "text/html; charset=utf-8"),
            ("vary", "accept-language"),
            ("x-own", &long),
            (&long, ""),
        ];
        let mut encoder = Encoder::new();
        encoder.field(":status", b"200");
        assert_eq!(encoder.0[..], [0, 0, 0xd9]);
        for (name, value) in &fields[1..] {
            encoder.field(name, value.as_bytes());
        }
        let section = decode(&encoder.finish(), 2000).unwrap();
        assert_eq!(text(&section), own(&fields));
    }

    #[test]
    fn what_refers_to_a_table_that_is_not_there_is_refused() {
        for block in [
            &[1, 0][..],
            &[0, 0, 0b1000_0001],
            &[0, 0, 0b0100_0001, 0],
            &[0, 0, 0b0001_0000],
            &[0, 0, 0b0000_0000, 0],
            // Beyond the static one.
            &[0, 0, 0xff, 99 - 63],
            &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
            // Cut.
            &[],
            &[0],
            &[0, 0, 0xff],
            &[0, 0, 0x51, 3, b'a'],
        ] {
            assert_eq!(
                decode(block, 1000).unwrap_err(),
                Refused::Malformed,
                "{block:?}"
            );
        }
    }

    #[test]
    fn each_field_counts_32_more_than_it_has() {
        let mut encoder = Encoder::new();
        encoder.field("ab", b"cd");
        encoder.field("e", b"f");
        let block = encoder.finish();
        assert!(decode(&block, 70).is_ok());
        assert_eq!(decode(&block, 69).unwrap_err(), Refused::TooLarge);
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic_or_grow_beyond_its_bound(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(section) = decode(&block, 300) {
                prop_assert!(section.text.len() <= 300);
            }
        }

        #[test]
        fn every_field_comes_back(fields in proptest::collection::vec(("[a-z:-]{1,30}", "[ -~]{0,200}"), 0..8)) {
            let mut encoder = Encoder::new();
            for (name, value) in &fields {
                encoder.field(name, value.as_bytes());
            }
            let section = decode(&encoder.finish(), usize::MAX).unwrap();
            prop_assert_eq!(text(&section), fields);
        }
    }
}
