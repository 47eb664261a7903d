//! One request and the head of its reply on one connection.

use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession;
use pingora::{Error, ErrorType};
use tokio::time::timeout;

use super::{Client, GoesOn, Outgoing, Upload};
use crate::carry::failure::{ClientFault, Failure, client_fault, read_failure};
use crate::carry::respond;
use crate::clock;
use crate::listen::is_h2;
use crate::upstreams::name_authority;

/// Interim responses that one reply may have.
const MOST_INTERIM: u32 = 16;

/// One request and the head of its reply on one connection.
pub(super) struct Exchange<'a> {
    pub(super) session: HttpSession<()>,
    pub(super) settings: &'a conf::Upstream,
    pub(super) goes_on: GoesOn<'a>,
    /// When the head must be there, unless a body is going up.
    pub(super) until: Instant,
    /// The request body was cut short: the connection cannot be used again.
    pub(super) tainted: bool,
    /// Something of the reply arrived.
    pub(super) seen: bool,
}

impl Exchange<'_> {
    pub(super) async fn run(
        &mut self,
        outgoing: &mut Outgoing,
        client: Client<'_>,
    ) -> Result<Box<ResponseHeader>, Failure> {
        if !matches!(outgoing.upload, Upload::Done) {
            let patience = self.settings.read_timeout;
            self.session.set_write_timeout(Some(patience));
        }
        let mut head = Box::new(outgoing.head.clone());
        if matches!(self.session, HttpSession::H2(_)) {
            name_authority(&mut head, self.settings.tls.is_some());
        }
        match &mut self.session {
            // Without a body the stream is ended with its head: no empty frame behind it.
            HttpSession::H2(h2) if matches!(outgoing.upload, Upload::Done) => {
                h2.write_request_header(head, true)
            }
            session => session.write_request_header(head).await,
        }
        .map_err(|error| send_failure(&error))?;
        if let Upload::Buffered(body) = &outgoing.upload {
            let body = body.clone();
            self.session
                .write_request_body(body, true)
                .await
                .map_err(|error| send_failure(&error))?;
            self.finish_upload().await;
        }
        self.read_head(outgoing, client).await
    }

    /// Reads the head of the reply while the body, if there is one, goes up.
    async fn read_head(
        &mut self,
        outgoing: &mut Outgoing,
        mut client: Client<'_>,
    ) -> Result<Box<ResponseHeader>, Failure> {
        let mut interim = 0;
        loop {
            let uploading = matches!(outgoing.upload, Upload::Streamed { .. });
            let left = self.until.saturating_duration_since(clock::now());
            if left.is_zero() && !uploading {
                return Err(Failure::FirstByteTimeout);
            }
            self.session.set_read_timeout((!uploading).then_some(left));
            // Where the endpoint did not take all of the body, the rest of it would be read as
            // something that comes after the request, and the client blamed for it.
            let watched = client.as_deref_mut().filter(|_| !self.tainted);
            let step = {
                let head = self.session.read_response_header();
                match watched {
                    None => Step::Head(head.await),
                    Some(client) => tokio::select! {
                        biased;
                        head = head => Step::Head(head),
                        body = read_client(client, &outgoing.upload) => Step::Body(body),
                    },
                }
            };
            match step {
                Step::Head(Ok(())) => {
                    self.seen = true;
                    if let Some(head) = self.head(outgoing, client.as_deref_mut()).await? {
                        return Ok(head);
                    }
                    interim += 1;
                    if interim > MOST_INTERIM {
                        return Err(Failure::BadReply);
                    }
                }
                Step::Head(Err(error)) => return Err(read_failure(&error)),
                // The client left, and others wait for the same reply.
                Step::Body(Err(_)) if !uploading && (self.goes_on)() => client = None,
                Step::Body(body) => {
                    outgoing.taken = true;
                    self.take_body(&mut outgoing.upload, body).await?;
                }
            }
        }
    }

    /// The head that was read, unless it is an interim one (RFC 9110 section 15.2).
    async fn head(
        &self,
        outgoing: &Outgoing,
        client: Client<'_>,
    ) -> Result<Option<Box<ResponseHeader>>, Failure> {
        let Some(head) = self.session.response_header() else {
            return Err(Failure::BadReply);
        };
        match head.status {
            StatusCode::SWITCHING_PROTOCOLS if outgoing.upgrade => {}
            // Nobody asked for it, so nobody would understand what follows.
            StatusCode::SWITCHING_PROTOCOLS => return Err(Failure::BadReply),
            StatusCode::EARLY_HINTS => {
                if let Some(client) = client.filter(|client| takes_interim(client)) {
                    let mut hints = Box::new(ResponseHeader::from(head.as_owned_parts()));
                    // Its own, whatever the endpoint speaks (RFC 9110 section 2.5).
                    hints.set_version(http::Version::HTTP_11);
                    respond::strip_connection_fields(&mut hints);
                    client
                        .write_response_header(hints)
                        .await
                        .map_err(|_| Failure::Client(ClientFault::Gone))?;
                }
                return Ok(None);
            }
            status if status.is_informational() => return Ok(None),
            _ if has_foreign_coding(head) => return Err(Failure::BadReply),
            _ => {}
        }
        // Without the case of the names: nobody may depend on it, and each change would keep two maps.
        Ok(Some(Box::new(ResponseHeader::from(head.as_owned_parts()))))
    }

    async fn take_body(
        &mut self,
        upload: &mut Upload,
        body: pingora::Result<Option<Bytes>>,
    ) -> Result<(), Failure> {
        if let Sent::Refused = send_body(&mut self.session, upload, body).await? {
            // It may have answered before it stopped reading: its reply counts.
            self.tainted = true;
            *upload = Upload::Done;
        }
        Ok(())
    }

    async fn finish_upload(&mut self) {
        if self.session.finish_request_body().await.is_err() {
            self.tainted = true;
        }
    }
}

enum Step {
    Head(pingora::Result<()>),
    Body(pingora::Result<Option<Bytes>>),
}

/// The next piece of what the client sends up. Without anything left to send this never ends
/// but by the client going away.
pub(super) async fn read_client(
    client: &mut ServerSession,
    upload: &Upload,
) -> pingora::Result<Option<Bytes>> {
    match upload {
        Upload::Done | Upload::Buffered(_) => client.read_body_or_idle(true).await,
        // Asked for more, Pingora would wait for the client to go away.
        Upload::Streamed { .. } if client.is_body_done() => Ok(None),
        // Pingora knows no read timeout for HTTP/2 bodies.
        Upload::Streamed { patience, .. } => {
            match timeout(*patience, client.read_body_or_idle(false)).await {
                Ok(body) => body,
                Err(_) => Err(Error::new_down(ErrorType::ReadTimedout)),
            }
        }
    }
}

pub(super) enum Sent {
    Yes,
    Refused,
}

/// One piece of the client's body to the endpoint.
pub(super) async fn send_body(
    session: &mut HttpSession<()>,
    upload: &mut Upload,
    body: pingora::Result<Option<Bytes>>,
) -> Result<Sent, Failure> {
    let body = body.map_err(|error| Failure::Client(client_fault(&error)))?;
    let sent = match body {
        None => {
            *upload = Upload::Done;
            session.finish_request_body().await
        }
        // An empty piece would end a chunked body; an HTTP/2 client's empty DATA frame
        // at the end of its stream arrives as one.
        Some(bytes) if bytes.is_empty() => return Ok(Sent::Yes),
        Some(bytes) => {
            if let Upload::Streamed { left, .. } = upload {
                *left = left
                    .checked_sub(bytes.len() as u64)
                    .ok_or(Failure::Client(ClientFault::BodyTooLarge))?;
            }
            session.write_request_body(bytes, false).await
        }
    };
    Ok(if sent.is_ok() {
        Sent::Yes
    } else {
        Sent::Refused
    })
}

/// A transfer coding other than `chunked`: what comes cannot be told apart from what it means
/// (RFC 9112 section 6.1).
fn has_foreign_coding(head: &ResponseHeader) -> bool {
    let mut lines = head.headers.get_all(http::header::TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => false,
        (Some(coding), None) => !coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

/// HTTP/1.0 has no interim responses.
fn takes_interim(client: &ServerSession) -> bool {
    is_h2(client) || client.req_header().version == http::Version::HTTP_11
}

fn send_failure(error: &Error) -> Failure {
    match read_failure(error) {
        known @ (Failure::Unprocessed | Failure::Tls) => known,
        _ => Failure::Reset,
    }
}
