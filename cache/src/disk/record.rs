//! How a record looks on disk.
//!
//! A header of [`HEADER`] bytes, then the key, the meta block and the body, with nothing between:
//!
//! | at | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | `TGr1` |
//! | 4 | 4 | kind |
//! | 8 | 4 | bytes of the key |
//! | 12 | 4 | bytes of the meta block |
//! | 16 | 8 | bytes of the body |
//! | 24 | 8 | where in the file the record begins |
//! | 32 | 8 | checksum of key and meta block |
//! | 40 | 8 | checksum of the body |
//! | 48 | 8 | checksum of the header up to here |
//!
//! Numbers are little-endian. The header's checksum is seeded with the random id of its segment and
//! covers the place, so a record counts only in the file and at the place where it was written: not
//! a block of an older file that a crash left in a new one, not the copy of a record in a body. The
//! other two checksums stand in the header and need no seed.
//!
//! Pure: bytes in, bytes or [`Damage`] out. The lengths are only believed after the checksum held.

use std::hash::Hasher;

use thiserror::Error;
use twox_hash::XxHash3_64;

/// Bytes of a header.
pub(crate) const HEADER: usize = 56;
/// Bytes of header, key and meta block together, at most. It bounds what is read in one piece when
/// a log is opened.
pub(crate) const MAX_FRONT: usize = 1 << 20;

/// What every record begins with.
pub(crate) const MAGIC: [u8; 4] = *b"TGr1";
/// Where the header's own checksum stands.
const SUM_AT: usize = HEADER - 8;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Key, meta block and body.
    Object,
    /// A mark, which stands in the meta block.
    Note,
}

/// What is wrong with bytes that should have been a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Damage {
    /// The file ends before the record does.
    #[error("the file ends within the record")]
    Short,
    /// There is no record at this place, or its header has changed.
    #[error("no header of a record is there")]
    Header,
    /// Key or meta block have changed.
    #[error("key or meta block differ from their checksum")]
    Front,
    /// The body has changed.
    #[error("the body differs from its checksum")]
    Body,
    /// It is a record, but not the one that the address was given for.
    #[error("another record is there")]
    Other,
}

/// The header of a record: lengths in bytes, and checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) key: u32,
    pub(crate) meta: u32,
    pub(crate) body: u64,
    /// Where in the file the record begins.
    pub(crate) offset: u64,
    pub(crate) front_sum: u64,
    pub(crate) body_sum: u64,
}

impl Header {
    /// The bytes on disk, for the segment with this id.
    pub(crate) fn encode(&self, segment: u64) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let kind = match self.kind {
            Kind::Object => 1_u32,
            Kind::Note => 2,
        };
        for (at, number) in [
            (0, u32::from_le_bytes(MAGIC)),
            (4, kind),
            (8, self.key),
            (12, self.meta),
        ] {
            out[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let wide = [self.body, self.offset, self.front_sum, self.body_sum];
        for (at, number) in (16..).step_by(8).zip(wide) {
            out[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = header_sum(&out, segment);
        out[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the header that begins `bytes`, which were found at `offset` of the segment with the id
    /// `segment`. [`Damage::Header`] for anything that [`Self::encode`] did not write for that place.
    pub(crate) fn decode(bytes: &[u8], segment: u64, offset: u64) -> Result<Self, Damage> {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else {
            return Err(Damage::Short);
        };
        let narrow = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let wide = |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[at + i]));
        if bytes[..4] != MAGIC || wide(SUM_AT) != header_sum(bytes, segment) {
            return Err(Damage::Header);
        }
        let kind = match narrow(4) {
            1 => Kind::Object,
            2 => Kind::Note,
            _ => return Err(Damage::Header),
        };
        let header = Self {
            kind,
            key: narrow(8),
            meta: narrow(12),
            body: wide(16),
            offset: wide(24),
            front_sum: wide(32),
            body_sum: wide(40),
        };
        let fits = header.front_len() <= MAX_FRONT as u64
            && header.offset.checked_add(header.len()).is_some()
            && header.len() < u64::MAX;
        if header.offset == offset && fits {
            Ok(header)
        } else {
            Err(Damage::Header)
        }
    }

    /// Bytes of header, key and meta block.
    pub(crate) fn front_len(&self) -> u64 {
        HEADER as u64 + u64::from(self.key) + u64::from(self.meta)
    }

    /// Bytes of the whole record.
    pub(crate) fn len(&self) -> u64 {
        self.front_len().saturating_add(self.body)
    }

    /// Key and meta block out of the first [`Self::front_len`] bytes of the record, if they are as
    /// they were written.
    pub(crate) fn front<'a>(&self, record: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Damage> {
        let front = record.get(HEADER..).ok_or(Damage::Short)?;
        let (key, rest) = split(front, self.key).ok_or(Damage::Short)?;
        let (meta, rest) = split(rest, self.meta).ok_or(Damage::Short)?;
        let front = &front[..front.len() - rest.len()];
        if XxHash3_64::oneshot(front) == self.front_sum {
            Ok((key, meta))
        } else {
            Err(Damage::Front)
        }
    }
}

/// The checksum of bytes that come in pieces; how they are cut does not matter.
pub(crate) fn sum<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = XxHash3_64::new();
    pieces.into_iter().for_each(|piece| hasher.write(piece));
    hasher.finish()
}

/// The checksum of the bytes of a header before its own, in the segment with this id.
pub(crate) fn header_sum(header: &[u8; HEADER], segment: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(segment, &header[..SUM_AT])
}

fn split(bytes: &[u8], length: u32) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 0x1234_5678_9abc_def0;

    fn record() -> (Header, Vec<u8>) {
        let (key, meta, body) = (&b"key"[..], &b"meta block"[..], &b"the body"[..]);
        let header = Header {
            kind: Kind::Object,
            key: 3,
            meta: 10,
            body: 8,
            offset: 40,
            front_sum: sum([key, meta]),
            body_sum: sum([body]),
        };
        let bytes = [&header.encode(SEGMENT)[..], key, meta, body].concat();
        (header, bytes)
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        let (header, bytes) = record();
        assert_eq!(Header::decode(&bytes, SEGMENT, 40), Ok(header));
        assert_eq!(header.len(), bytes.len() as u64);
        assert_eq!(
            header.front(&bytes),
            Ok((&b"key"[..], &b"meta block"[..])),
            "what follows the front does not matter"
        );
    }

    /// The form is a promise between one run of the program and the next.
    #[test]
    fn the_bytes_on_disk_do_not_change_unnoticed() {
        let (_, bytes) = record();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex[..2 * HEADER],
            [
                "54477231",
                "01000000",
                "03000000",
                "0a000000",
                "0800000000000000",
                "2800000000000000",
                "761d8b70304701a7",
                "2128fb1d83569e18",
                "980bdd02811df2f9",
            ]
            .concat()
        );
        assert_eq!(sum([&b"the body"[..]]), XxHash3_64::oneshot(b"the body"));
        assert_eq!(
            XxHash3_64::oneshot(b""),
            0x2d06_8005_38d3_94c2,
            "the value that the specification of XXH3 gives for no input"
        );
    }

    #[test]
    fn a_record_counts_only_at_its_place() {
        let (_, bytes) = record();
        assert_eq!(
            Header::decode(&bytes, SEGMENT + 1, 40),
            Err(Damage::Header),
            "another segment"
        );
        assert_eq!(
            Header::decode(&bytes, SEGMENT, 41),
            Err(Damage::Header),
            "another place"
        );
    }

    #[test]
    fn no_changed_bit_passes_for_the_header_or_the_front() {
        let (header, bytes) = record();
        for bit in 0..(HEADER + 13) * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let read = Header::decode(&changed, SEGMENT, 40);
            if bit / 8 < HEADER {
                assert_eq!(read, Err(Damage::Header), "bit {bit}");
            } else {
                assert_eq!(read, Ok(header));
                assert_eq!(header.front(&changed), Err(Damage::Front), "bit {bit}");
            }
        }
    }

    #[test]
    fn too_few_bytes_are_an_error() {
        let (header, bytes) = record();
        for length in 0..HEADER {
            assert_eq!(
                Header::decode(&bytes[..length], SEGMENT, 40),
                Err(Damage::Short)
            );
        }
        for length in 0..HEADER + 13 {
            assert_eq!(header.front(&bytes[..length]), Err(Damage::Short));
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_even_under_a_right_checksum() {
        let (header, _) = record();
        let long_front = Header {
            meta: u32::MAX,
            ..header
        };
        let long_body = Header {
            body: u64::MAX - 1,
            ..header
        };
        for wrong in [long_front, long_body] {
            assert_eq!(
                Header::decode(&wrong.encode(SEGMENT), SEGMENT, 40),
                Err(Damage::Header)
            );
        }
    }
}
