//! HTTP/3 as octets (RFC 9114, RFC 9204): frames, field sections, and the head that they make.
//!
//! Nothing in here waits or sends. What the peer decides the size of is bounded here: a head, a
//! frame of the control stream, a field.

pub(super) mod code;
pub(super) mod frames;
pub(super) mod head;
pub(super) mod qpack;
pub(super) mod settings;

use bytes::{BufMut, BytesMut};

/// Longest variable-length integer, in octets.
pub(super) const MOST_VARINT: usize = 8;

/// Reads a variable-length integer (RFC 9000 section 16): its value, and its octets. `None`: more
/// are needed.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let start = u64::from(first & 0x3f);
    let value = rest
        .iter()
        .fold(start, |value, &byte| (value << 8) | u64::from(byte));
    Some((value, length))
}

/// Writes one, in as few octets as it takes. Larger values than 2^62 - 1 do not exist.
pub(super) fn put_varint(out: &mut BytesMut, value: u64) {
    match value {
        0..0x40 => out.put_uint(value, 1),
        0x40..0x4000 => out.put_uint(value | 0x4000, 2),
        0x4000..0x4000_0000 => out.put_uint(value | 0x8000_0000, 4),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 9000 appendix A.1.
        for (bytes, value) in [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            assert_eq!(varint(bytes), Some((value, bytes.len())));
            assert_eq!(varint(&bytes[..bytes.len() - 1]), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0_u64..1 << 62) {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            prop_assert_eq!(varint(&out), Some((value, out.len())));
        }
    }
}
