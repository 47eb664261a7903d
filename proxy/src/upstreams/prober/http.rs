//! A request whose status, and body where that is asked for, must be the
//! expected ones.

use http::{HeaderValue, Method, header};
use pingora::http::RequestHeader;

use super::Reason;
use super::check::{USER_AGENT, host};
use crate::upstreams::Target;
use crate::upstreams::dial::Dialer;
use crate::upstreams::link::{Session, first_stream, multiplex, name_authority};

/// So much of a body is looked at.
const BODY: usize = 64 * 1024;

/// Interim replies that are passed over (RFC 9110 section 15.2).
const INTERIM: usize = 16;

/// See the module's text.
pub(super) async fn run(
    dialer: &Dialer,
    target: &Target,
    check: &conf::HttpCheck,
) -> Result<(), Reason> {
    let host = host(check.host.as_deref(), dialer, target);
    let connection = dialer.dial(target, None).await?;
    let mut session = match dialer.protocol() {
        conf::UpstreamProtocol::H1 => Session::h1(connection),
        conf::UpstreamProtocol::H2 => {
            let connection = multiplex(connection, 1).await?;
            Session::H2(first_stream(&connection).await?)
        }
    };
    let head = head(check, &host, !session.is_h2());
    let mut head = head.map_err(|error| Reason::sending(&error))?;
    if session.is_h2() {
        name_authority(&mut head, dialer.encrypts());
    }
    let sent = session.write_request_header(head, true).await;
    sent.map_err(|error| Reason::sending(&error))?;
    let status = status(&mut session).await?;
    let expected = match check.statuses.is_empty() {
        true => status.is_success(),
        false => check.statuses.contains(&status),
    };
    if !expected {
        return Err(Reason::status(status));
    }
    match &check.body {
        None => Ok(()),
        Some(conf::BodyPattern(pattern)) => {
            let body = body(&mut session).await?;
            let fits = pattern.is_match(&body);
            fits.then_some(()).ok_or(Reason::new("body does not match"))
        }
    }
}

fn head(check: &conf::HttpCheck, host: &str, h1: bool) -> pingora::Result<Box<RequestHeader>> {
    let path = check.path.as_bytes();
    let mut head = RequestHeader::build_no_case(check.method.clone(), path, None)?;
    head.insert_header(header::HOST, host)?;
    head.insert_header(header::USER_AGENT, USER_AGENT)?;
    if h1 {
        head.insert_header(header::CONNECTION, "close")?;
    }
    // RFC 9110 section 8.6: said where the method lets one expect a body.
    if [Method::POST, Method::PUT, Method::PATCH].contains(&check.method) {
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from_static("0"))?;
    }
    for (name, value) in &check.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    Ok(Box::new(head))
}

async fn status(session: &mut Session) -> Result<http::StatusCode, Reason> {
    for _ in 0..INTERIM {
        let read = session.read_response_header().await;
        read.map_err(|error| Reason::reading(&error))?;
        match session.response_header() {
            None => break,
            Some(head) if head.status.is_informational() => {}
            Some(head) => return Ok(head.status),
        }
    }
    Err(Reason::new("no final reply"))
}

/// At most [`BODY`] bytes of it.
async fn body(session: &mut Session) -> Result<Vec<u8>, Reason> {
    let mut body = Vec::new();
    while body.len() < BODY {
        let piece = session.read_response_body().await;
        let Some(piece) = piece.map_err(|error| Reason::reading(&error))? else {
            break;
        };
        let room = BODY - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    Ok(body)
}
