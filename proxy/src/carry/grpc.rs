//! Calls of gRPC: what the edge itself has to say to them, and gRPC-Web on its way to gRPC and back.
//!
//! A caller looks at `grpc-status` and not at the status of HTTP, which is 200 nearly always: an error
//! of the edge's own is put into the caller's words (grpc/grpc, doc/PROTOCOL-HTTP2.md, "Responses").

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;

use super::failure::{ClientFault, Failure};
use super::respond;
use super::turn::{Broken, Turn};
use super::upstream::{Incoming, Upload};
use crate::exchange::grpc::base64::{Decoder, encode};
use crate::exchange::grpc::{self, Dialect, GRPC_MESSAGE, GRPC_STATUS};
use crate::snapshot::Route;

/// What the request speaks; `None`: no gRPC.
pub(super) fn spoken(session: &ServerSession) -> Option<Dialect> {
    let head = session.req_header();
    Dialect::asked(&head.method, &head.headers)
}

/// What of gRPC-Web the route turns into gRPC for this request.
pub(super) fn bridged(route: &Route, session: &ServerSession) -> Option<Dialect> {
    if !route.grpc_web {
        return None;
    }
    spoken(session).filter(|dialect| *dialect != Dialect::Grpc)
}

/// A call of gRPC-Web becomes one of gRPC.
pub(super) fn go_up(
    dialect: Dialect,
    head: &mut RequestHeader,
    upload: &mut Upload,
) -> Result<(), Failure> {
    let bad_body = Failure::Client(ClientFault::BadBody);
    let kind = head.headers.get(header::CONTENT_TYPE);
    let kind = kind.map(|kind| Dialect::Grpc.translated(kind));
    let named = kind.map_or(Ok(()), |kind| {
        head.insert_header(header::CONTENT_TYPE, kind)
    });
    named
        .and_then(|()| head.insert_header(header::TE, "trailers"))
        .map_err(|_| bad_body)?;
    if dialect != Dialect::WebText {
        return Ok(());
    }
    // Its length is another one when it is decoded.
    head.remove_header(&header::CONTENT_LENGTH);
    match upload {
        Upload::Done => {}
        Upload::Buffered(body) => {
            let mut decoder = Decoder::default();
            let decoded = decoder.decode(body).map_err(|_| bad_body)?;
            decoder.finish().map_err(|_| bad_body)?;
            *body = decoded;
        }
        Upload::Streamed { text, .. } => *text = Some(Decoder::default()),
    }
    Ok(())
}

/// A reply of gRPC on its way to a caller of gRPC-Web.
pub(super) struct Down {
    dialect: Dialect,
    /// Of a reply that had them in its head.
    trailers: Option<HeaderMap>,
}

impl Down {
    /// Makes the head one of gRPC-Web; `None`: the reply is no gRPC, and passes as it is.
    pub(super) fn begin(
        dialect: Dialect,
        head: &mut ResponseHeader,
        incoming: &mut Incoming,
    ) -> Option<Self> {
        if Dialect::of(&head.headers) != Some(Dialect::Grpc) {
            return None;
        }
        let kind = dialect.translated(head.headers.get(header::CONTENT_TYPE)?);
        head.insert_header(header::CONTENT_TYPE, kind).ok()?;
        head.remove_header(&header::CONTENT_LENGTH);
        head.remove_header(&header::TRAILER);
        let trailers = incoming.is_done().then(|| {
            // They are in the head of a reply that has nothing else, where pages of other origins do
            // not see them.
            let mut trailers = HeaderMap::new();
            for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
                if let Some(value) = head.remove_header(name) {
                    trailers.insert(name, value);
                }
            }
            trailers
        });
        Some(Self { dialect, trailers })
    }

    /// A piece of the body.
    pub(super) fn piece(&self, piece: Bytes) -> Bytes {
        match self.dialect {
            Dialect::WebText => encode(&piece),
            Dialect::Grpc | Dialect::Web => piece,
        }
    }

    /// What ends the body.
    pub(super) fn end(&mut self, trailers: Option<HeaderMap>) -> Option<Bytes> {
        let trailers = trailers.or_else(|| self.trailers.take())?;
        Some(self.piece(grpc::trailer_frame(&trailers)))
    }
}

/// Makes the head of an error one of gRPC, and gives what its body is.
fn translate(dialect: Dialect, head: &mut ResponseHeader, text: &str) -> pingora::Result<Bytes> {
    let mut trailers = HeaderMap::new();
    let status = HeaderValue::from(u16::from(grpc::status_of(head.status)));
    trailers.insert(&GRPC_STATUS, status);
    trailers.insert(&GRPC_MESSAGE, grpc::message(text));
    head.set_status(StatusCode::OK)?;
    head.insert_header(
        header::CONTENT_TYPE,
        dialect.translated(&HeaderValue::from_static("application/grpc")),
    )?;
    let body = match dialect {
        Dialect::Grpc => {
            for (name, value) in &trailers {
                head.insert_header(name, value.clone())?;
            }
            Bytes::new()
        }
        Dialect::Web => grpc::trailer_frame(&trailers),
        Dialect::WebText => encode(&grpc::trailer_frame(&trailers)),
    };
    match dialect {
        // With the end of the stream, which says it better.
        Dialect::Grpc => drop(head.remove_header(&header::CONTENT_LENGTH)),
        _ => head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))?,
    }
    Ok(body)
}

impl Turn {
    /// An error of the edge's own, to a caller of gRPC.
    pub(super) async fn refuse_call(
        &mut self,
        session: &mut ServerSession,
        route: Option<&Route>,
        dialect: Dialect,
        mut head: Box<ResponseHeader>,
        explanation: &str,
    ) -> Result<(), Broken> {
        let body = translate(dialect, &mut head, explanation)?;
        if body.is_empty() && session.req_header().version != Version::HTTP_2 {
            head.insert_header(header::CONTENT_LENGTH, HeaderValue::from_static("0"))?;
        }
        if let Some(route) = route {
            route.chain.response(&mut *head);
        }
        self.write(session, head, body).await
    }

    /// Ends a reply of gRPC that broke off: its caller is told why, in place of a stream that ends.
    pub(super) async fn break_call_off(&mut self, session: &mut ServerSession, failure: Failure) {
        let dialect = session
            .response_written()
            .and_then(|head| Dialect::of(&head.headers));
        let Some(dialect) = dialect else {
            return;
        };
        let mut trailers = HeaderMap::new();
        let status = HeaderValue::from(u16::from(grpc::status_of(failure.status())));
        trailers.insert(&GRPC_STATUS, status);
        let text = respond::explanation(failure);
        trailers.insert(&GRPC_MESSAGE, grpc::message(text));
        // Who is gone is not told.
        let _ = match dialect {
            Dialect::Grpc if crate::listen::is_h2(session) => {
                session.write_response_trailers(trailers).await
            }
            Dialect::Grpc => return,
            Dialect::Web | Dialect::WebText => {
                let frame = grpc::trailer_frame(&trailers);
                let frame = match dialect {
                    Dialect::WebText => encode(&frame),
                    _ => frame,
                };
                respond::write_body(session, frame, true).await
            }
        };
    }
}
