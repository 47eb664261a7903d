//! The signature of an answer, found in its octets (RFC 8945 section 4.2). They come from the network;
//! no name in them is followed or believed, since the key that is to have signed is known.

const TSIG: u16 = 250;
const ANY: u16 = 255;
const HEAD: usize = 12;

/// A signed answer in parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed<'a> {
    /// The message without its signature, but for its identity and the count of additional records,
    /// which are others when it is signed.
    pub(super) flags_and_counts: &'a [u8],
    /// Additional records without the signature.
    pub(super) additional: u16,
    pub(super) records: &'a [u8],
    /// Seconds since 1970, six octets.
    pub(super) time: &'a [u8],
    pub(super) fudge: u16,
    pub(super) mac: &'a [u8],
    pub(super) original_id: u16,
    pub(super) error: u16,
    pub(super) other: &'a [u8],
}

/// `None`: the message is cut, or its last record is no signature.
pub(super) fn signed(answer: &[u8]) -> Option<Signed<'_>> {
    let mut rest = Rest(answer);
    let head = rest.take(HEAD)?;
    let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let additional = count(10).checked_sub(1)?;
    for _ in 0..count(4) {
        rest.skip_name()?;
        rest.take(4)?;
    }
    let records = u32::from(count(6)) + u32::from(count(8)) + u32::from(additional);
    for _ in 0..records {
        rest.skip_name()?;
        rest.take(8)?;
        let length = rest.number()?;
        rest.take(usize::from(length))?;
    }
    let end = answer.len() - rest.0.len();
    rest.skip_name()?;
    let (kind, class) = (rest.number()?, rest.number()?);
    rest.take(4)?;
    let length = rest.number()?;
    let mut data = Rest(rest.take(usize::from(length))?);
    if kind != TSIG || class != ANY || !rest.0.is_empty() {
        return None;
    }
    data.skip_name()?;
    let time = data.take(6)?;
    let fudge = data.number()?;
    let length = data.number()?;
    let mac = data.take(usize::from(length))?;
    let (original_id, error) = (data.number()?, data.number()?);
    let length = data.number()?;
    let other = data.take(usize::from(length))?;
    data.0.is_empty().then_some(Signed {
        flags_and_counts: &head[2..10],
        additional,
        records: &answer[HEAD..end],
        time,
        fudge,
        mac,
        original_id,
        error,
        other,
    })
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let octets = self.take(2)?;
        Some(u16::from_be_bytes([octets[0], octets[1]]))
    }

    /// RFC 1035 section 4.1.4; where a pointer leads does not matter.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.take(1)?[0] {
                0 => return Some(()),
                length @ 1..=63 => drop(self.take(usize::from(length))?),
                0xc0.. => return self.take(1).map(drop),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_signature_is_found_behind_all_records() {
        let mut answer = vec![0, 7, 0xa8, 0, 0, 1, 0, 1, 0, 0, 0, 1];
        answer.extend_from_slice(b"\x04shop\x00\x00\x06\x00\x01");
        answer.extend_from_slice(b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x02\x01v");
        let end = answer.len();
        answer.extend_from_slice(b"\x01k\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x16\x01h\x00");
        answer.extend_from_slice(
            b"\x00\x00\x01\x02\x03\x04\x01\x2c\x00\x02mm\x00\x07\x00\x12\x00\x01o",
        );
        let found = signed(&answer).expect("signed");
        assert_eq!(found.records, &answer[HEAD..end]);
        assert_eq!(found.flags_and_counts, &answer[2..10]);
        assert_eq!((found.mac, found.other), (&b"mm"[..], &b"o"[..]));
        assert_eq!((found.original_id, found.error, found.fudge), (7, 18, 300));
        for length in 0..answer.len() {
            assert_eq!(signed(&answer[..length]), None, "cut at {length}");
        }
        answer.push(0);
        assert_eq!(signed(&answer), None, "something behind it");
    }

    proptest! {
        #[test]
        fn any_octets_can_be_looked_at(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(found) = signed(&octets) {
                prop_assert!(found.records.len() + found.mac.len() < octets.len());
            }
        }
    }
}
