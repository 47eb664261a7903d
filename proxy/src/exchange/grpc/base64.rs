//! Base64 in pieces, for gRPC-Web's text form (RFC 4648 section 4; grpc/grpc, doc/PROTOCOL-WEB.md).
//!
//! Whoever sends may end any message with padding and go on behind it, so a body is a row of base64
//! texts, cut anywhere on the wire. Replies go out as such a row, too: each piece is whole in itself,
//! so that a message can be read as soon as it is there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// What came is not base64, or ends within a group of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotBase64;

/// Decodes a body piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The start of a group of four.
    held: [u8; 4],
    len: usize,
}

impl Decoder {
    /// What the next octets of the body stand for, as far as they complete groups.
    ///
    /// # Errors
    /// They are not base64.
    pub(crate) fn decode(&mut self, piece: &[u8]) -> Result<Bytes, NotBase64> {
        let mut out = Vec::with_capacity((self.len + piece.len()) / 4 * 3);
        for &byte in piece {
            self.held[self.len] = byte;
            self.len += 1;
            if self.len == 4 {
                self.len = 0;
                STANDARD
                    .decode_vec(self.held, &mut out)
                    .map_err(|_| NotBase64)?;
            }
        }
        Ok(out.into())
    }

    /// The body ends here.
    ///
    /// # Errors
    /// It ends within a group.
    pub(crate) fn finish(&self) -> Result<(), NotBase64> {
        match self.len {
            0 => Ok(()),
            _ => Err(NotBase64),
        }
    }
}

/// A piece of a body in base64, whole in itself.
#[must_use]
pub(crate) fn encode(piece: &[u8]) -> Bytes {
    STANDARD.encode(piece).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &[u8], size: usize) -> Result<Vec<u8>, NotBase64> {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for piece in text.chunks(size.max(1)) {
            all.extend_from_slice(&decoder.decode(piece)?);
        }
        decoder.finish().map(|()| all)
    }

    #[test]
    fn padding_may_stand_between_messages() {
        for size in 1..12 {
            assert_eq!(decoded(b"YQ==YWI=YWJj", size), Ok(b"aababc".to_vec()));
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for wrong in [
            &b"YQ"[..],
            b"YQ=",
            b"====",
            b"Y\n==",
            b"Y-_=",
            b"YR==",
            b"=YQ=",
        ] {
            assert_eq!(decoded(wrong, 3), Err(NotBase64), "{wrong:?}");
        }
        assert_eq!(decoded(b"", 1), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn pieces_come_back_wherever_they_are_cut(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            size in 1_usize..50,
        ) {
            let text: Vec<u8> = pieces.iter().flat_map(|piece| encode(piece)).collect();
            prop_assert_eq!(decoded(&text, size), Ok(pieces.concat()));
        }

        #[test]
        fn nothing_makes_it_panic(text in proptest::collection::vec(any::<u8>(), 0..64), size in 1_usize..9) {
            let _ = decoded(&text, size);
        }
    }
}
