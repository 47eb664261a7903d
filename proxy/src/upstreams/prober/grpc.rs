//! The gRPC health checking protocol: `grpc.health.v1.Health/Check`.
//!
//! Sources: grpc/grpc, doc/health-checking.md (the service), doc/PROTOCOL-HTTP2.md
//! (framing, status), doc/statuscodes.md; protobuf.dev, "Encoding". The two
//! messages have one field each, so they are written and read by hand:
//!
//! ```text
//! HealthCheckRequest  { string service = 1; }
//! HealthCheckResponse { ServingStatus status = 1; }  // 0 UNKNOWN, 1 SERVING, 2 NOT_SERVING, 3 SERVICE_UNKNOWN
//! ```

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use pingora::http::RequestHeader;

use super::Reason;
use super::check::{USER_AGENT, host};
use crate::upstreams::Target;
use crate::upstreams::dial::Dialer;
use crate::upstreams::link::{H2Stream, first_stream, multiplex, name_authority};

const PATH: &[u8] = b"/grpc.health.v1.Health/Check";

/// A compressed flag and a length in front of each message.
const PREFIX: usize = 5;

/// The reply is a few bytes; what is larger is none.
const MOST: usize = 4096;

/// Asks for `service`; an empty one is the server as a whole. Speaks HTTP/2 whatever the
/// upstream's protocol is.
pub(super) async fn run(dialer: &Dialer, target: &Target, service: &str) -> Result<(), Reason> {
    let connection = dialer
        .dial_for(conf::UpstreamProtocol::H2, target, None)
        .await?;
    let connection = multiplex(connection, 1).await?;
    let mut h2 = first_stream(&connection).await?;
    let mut head = head(&host(None, dialer, target)).map_err(|error| Reason::sending(&error))?;
    name_authority(&mut head, dialer.encrypts());
    h2.write_request_header(head, false)
        .map_err(|error| Reason::sending(&error))?;
    h2.write_request_body(request(service), true)
        .await
        .map_err(|error| Reason::sending(&error))?;
    h2.read_response_header()
        .await
        .map_err(|error| Reason::reading(&error))?;
    if let Some(head) = h2.response_header() {
        if head.status != StatusCode::OK {
            return Err(Reason::status(head.status));
        }
        // A reply without a message has its trailers in its head.
        outcome(&head.headers)?;
    }
    let message = message(&mut h2).await?;
    let trailers = h2.read_trailers().await;
    if let Some(trailers) = trailers.map_err(|error| Reason::reading(&error))? {
        outcome(&trailers)?;
    }
    match serving(&message) {
        Some(1) => Ok(()),
        Some(0) => Err(Reason::new("grpc: UNKNOWN")),
        Some(2) => Err(Reason::new("grpc: NOT_SERVING")),
        Some(3) => Err(Reason::new("grpc: SERVICE_UNKNOWN")),
        Some(other) => Err(Reason::new(format!("grpc: serving status {other}"))),
        None => Err(Reason::new("grpc: the reply is no HealthCheckResponse")),
    }
}

fn head(host: &str) -> pingora::Result<Box<RequestHeader>> {
    let mut head = RequestHeader::build_no_case(Method::POST, PATH, Some(4))?;
    head.insert_header(header::HOST, host)?;
    head.insert_header(header::CONTENT_TYPE, "application/grpc")?;
    head.insert_header(header::TE, "trailers")?;
    head.insert_header(header::USER_AGENT, USER_AGENT)?;
    Ok(Box::new(head))
}

/// A HealthCheckRequest in its frame.
fn request(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        // Field 1, length-delimited.
        message.push(0x0A);
        write_varint(service.len(), &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = Vec::with_capacity(PREFIX + message.len());
    framed.push(0);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

fn write_varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7F).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// What `grpc-status` says, if it is there: 0 is success.
fn outcome(fields: &HeaderMap) -> Result<(), Reason> {
    let Some(status) = fields.get("grpc-status") else {
        return Ok(());
    };
    match status.as_bytes() {
        b"0" => Ok(()),
        b"5" => Err(Reason::new(
            "grpc status 5: the server does not know the service",
        )),
        b"12" => Err(Reason::new(
            "grpc status 12: the server has no health service",
        )),
        other => {
            let number = String::from_utf8_lossy(other);
            Err(Reason::new(format!("grpc status {number}")))
        }
    }
}

/// Everything up to the trailers.
async fn message(h2: &mut H2Stream) -> Result<Vec<u8>, Reason> {
    let mut message = Vec::new();
    loop {
        let piece = h2.read_response_body().await;
        match piece.map_err(|error| Reason::reading(&error))? {
            None => return Ok(message),
            Some(piece) if message.len() + piece.len() <= MOST => {
                message.extend_from_slice(&piece);
            }
            Some(_) => return Err(Reason::new("grpc: the reply is too large")),
        }
    }
}

/// The status in a framed HealthCheckResponse; `None` if it is something else.
fn serving(framed: &[u8]) -> Option<u64> {
    // Compression was not offered.
    let (&[0, a, b, c, d], rest) = framed.split_first_chunk::<PREFIX>()? else {
        return None;
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    let mut message = rest.get(..length)?;
    // Protobuf leaves out what has its default.
    let mut status = 0;
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                let value = read_varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(read_varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn read_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_service() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(
            &request("shop")[..],
            [&[0, 0, 0, 0, 6, 0x0A, 4][..], b"shop"].concat()
        );
        let long = "s".repeat(300);
        assert_eq!(&request(&long)[..8], [0, 0, 0, 1, 47, 0x0A, 0xAC, 2]);
    }

    #[test]
    fn the_status_is_found_among_fields_that_are_not_known() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        // Field 2 as text, field 3 as fixed32, field 4 as fixed64.
        let others = [
            0x12, 2, b'h', b'i', 0x1D, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1,
        ];
        let framed = [&[0, 0, 0, 0, 20][..], &others].concat();
        assert_eq!(serving(&framed), Some(1));
    }

    #[test]
    fn what_is_no_response_has_no_status() {
        for wrong in [
            &b""[..],
            b"hello",
            &[0, 0, 0, 0],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 9, 8, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 2, 0x12, 9],
            &[0, 0, 0, 0, 1, 0x0B],
            &[
                0, 0, 0, 0, 12, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
            ],
        ] {
            assert_eq!(serving(wrong), None, "{wrong:?}");
        }
    }
}
