//! SETTINGS (RFC 9114 section 7.2.4) and GOAWAY (section 5.2).

use bytes::BytesMut;

use super::code::Code;
use super::frames::{GOAWAY, SETTINGS, put_header};
use super::{put_varint, varint};

/// The type of a control stream (section 6.2.1).
pub(in crate::listen::quic) const CONTROL_STREAM: u64 = 0x00;
/// The type of a push stream (section 6.2.2).
pub(in crate::listen::quic) const PUSH_STREAM: u64 = 0x01;
/// RFC 9204 section 4.2.
pub(in crate::listen::quic) const ENCODER_STREAM: u64 = 0x02;
/// RFC 9204 section 4.2.
pub(in crate::listen::quic) const DECODER_STREAM: u64 = 0x03;

const MAX_FIELD_SECTION_SIZE: u64 = 0x06;

/// The extended CONNECT is taken, for WebSockets (RFC 9220 section 3).
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;

/// A frame type that every peer skips (section 7.2.8).
const RESERVED: u64 = 0x21;

/// The first octets of our control stream. Without a word about QPACK there is no dynamic table:
/// what a client could make us hold, and wait for, it cannot.
pub(in crate::listen::quic) fn greeting(max_field_section_size: usize) -> BytesMut {
    let mut payload = BytesMut::new();
    put_varint(&mut payload, MAX_FIELD_SECTION_SIZE);
    put_varint(&mut payload, max_field_section_size as u64);
    put_varint(&mut payload, ENABLE_CONNECT_PROTOCOL);
    put_varint(&mut payload, 1);
    let mut out = BytesMut::new();
    put_varint(&mut out, CONTROL_STREAM);
    put_header(&mut out, SETTINGS, payload.len());
    out.extend_from_slice(&payload);
    out
}

/// Requests on streams from `id` on are not processed.
pub(in crate::listen::quic) fn goaway(id: u64) -> BytesMut {
    let mut payload = BytesMut::new();
    put_varint(&mut payload, id);
    let mut out = BytesMut::new();
    put_header(&mut out, GOAWAY, payload.len());
    out.extend_from_slice(&payload);
    out
}

/// What the peer acknowledges, and else ignores.
pub(in crate::listen::quic) fn sign_of_life() -> BytesMut {
    let mut out = BytesMut::new();
    put_header(&mut out, RESERVED, 0);
    out
}

/// Checks a client's settings. None of them changes what is done here: heads that are sent hold
/// nothing that needs a table, and a client that takes only small heads refuses larger ones itself.
///
/// # Errors
/// One stands there twice, is one of HTTP/2's, has a value that it cannot have, or is cut.
pub(in crate::listen::quic) fn check(mut payload: &[u8]) -> Result<(), Code> {
    let mut seen = Vec::new();
    while !payload.is_empty() {
        let (id, octets) = varint(payload).ok_or(Code::Frame)?;
        payload = payload.get(octets..).unwrap_or_default();
        let (value, octets) = varint(payload).ok_or(Code::Frame)?;
        payload = payload.get(octets..).unwrap_or_default();
        // RFC 8441 section 3.
        let is_odd = id == ENABLE_CONNECT_PROTOCOL && value > 1;
        if (0x02..=0x05).contains(&id) || seen.contains(&id) || is_odd {
            return Err(Code::Settings);
        }
        // Each takes two octets of a frame that is bounded; far fewer than that are in use.
        if seen.len() >= 64 {
            return Err(Code::ExcessiveLoad);
        }
        seen.push(id);
    }
    Ok(())
}

/// The one number that GOAWAY, MAX_PUSH_ID and CANCEL_PUSH hold.
pub(in crate::listen::quic) fn number(payload: &[u8]) -> Result<u64, Code> {
    match varint(payload) {
        Some((number, octets)) if octets == payload.len() => Ok(number),
        _ => Err(Code::Frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_say_the_size_of_a_head_and_nothing_of_tables() {
        assert_eq!(
            greeting(32 * 1024)[..],
            [0x00, 0x04, 0x07, 0x06, 0x80, 0, 0x80, 0, 0x08, 0x01]
        );
        assert_eq!(goaway(8)[..], [0x07, 0x01, 0x08]);
    }

    #[test]
    fn settings_of_http2_doubles_and_cut_ones_are_refused() {
        assert_eq!(check(&[0x06, 0x40, 0x64, 0x01, 0x00, 0x33, 0x01]), Ok(()));
        assert_eq!(check(&[0x02, 0x00]), Err(Code::Settings));
        assert_eq!(check(&[0x06, 0x01, 0x06, 0x01]), Err(Code::Settings));
        assert_eq!(check(&[0x08, 0x01]), Ok(()));
        assert_eq!(check(&[0x08, 0x02]), Err(Code::Settings));
        assert_eq!(check(&[0x06]), Err(Code::Frame));
        assert_eq!(check(&[0x06, 0x40]), Err(Code::Frame));
        assert_eq!(number(&[0x04]), Ok(4));
        assert_eq!(number(&[0x04, 0x00]), Err(Code::Frame));
        assert_eq!(number(&[]), Err(Code::Frame));
    }
}
