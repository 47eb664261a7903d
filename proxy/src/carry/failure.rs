//! What can go wrong between a request and its reply, and what each is called:
//! towards the client, in the log, and for the endpoint that was asked.

use std::io;

use balancer::Outcome;
use http::StatusCode;
use pingora::{Error, ErrorSource, ErrorType};

use crate::exchange::pace::Slow;
use crate::observe::UpstreamFailure;
use crate::upstreams::{DialError, refused_certificate, unprocessed};

/// Why there is no (whole) reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No endpoint is in service.
    NoEndpoint,
    /// Every endpoint that could be used has as many requests as it may.
    Saturated,
    /// So many requests wait for an endpoint that no more may.
    QueueFull,
    /// The wait for an endpoint took too long.
    QueueTimeout,
    /// A connection to the endpoint would be one too many.
    ConnectionLimit,
    /// The endpoint said that it did not process the request.
    Unprocessed,
    /// The endpoint refused or did not exist.
    Connect,
    /// So did every other endpoint of the upstream.
    AllRefused,
    /// It did not answer the connect in time.
    ConnectTimeout,
    /// TLS to it failed: certificate, name, protocol.
    Tls,
    /// The connection broke before the reply was whole.
    Reset,
    /// The reply did not begin in time.
    FirstByteTimeout,
    /// The reply stopped in the middle for too long.
    ReadTimeout,
    /// What came is no HTTP.
    BadReply,
    /// The endpoint takes no WebSocket by the version of HTTP that is spoken with it.
    NoWebSocket,
    /// The client went away or broke its request's body off.
    Client(ClientFault),
}

/// What a client did wrong while its request was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientFault {
    /// It closed the connection or reset the stream.
    Gone,
    /// Its body did not go on in time.
    BodyTimeout,
    /// Its body came too slowly, or the whole of it did not come in time.
    TooSlow(Slow),
    /// Its body is larger than allowed.
    BodyTooLarge,
    /// Its body's framing is broken.
    BadBody,
}

impl Failure {
    /// What the client is told, if it can still be told.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NoEndpoint
            | Self::AllRefused
            | Self::Saturated
            | Self::ConnectionLimit
            | Self::QueueFull
            | Self::QueueTimeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::ReadTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Connect | Self::Tls | Self::Reset | Self::BadReply | Self::Unprocessed => {
                StatusCode::BAD_GATEWAY
            }
            Self::NoWebSocket => StatusCode::NOT_IMPLEMENTED,
            Self::Client(ClientFault::BodyTimeout | ClientFault::TooSlow(_)) => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::Client(ClientFault::BodyTooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Client(ClientFault::BadBody | ClientFault::Gone) => StatusCode::BAD_REQUEST,
        }
    }

    /// For the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::Saturated | Self::ConnectionLimit => "upstream_limit",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Unprocessed => "unprocessed",
            Self::Connect | Self::AllRefused => "connect_failure",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "upstream_tls",
            Self::Reset => "upstream_reset",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::ReadTimeout => "read_timeout",
            Self::BadReply => "bad_reply",
            Self::NoWebSocket => "no_websocket",
            Self::Client(ClientFault::Gone) => "client_gone",
            Self::Client(ClientFault::BodyTimeout) => "body_timeout",
            Self::Client(ClientFault::TooSlow(slow)) => slow.as_str(),
            Self::Client(ClientFault::BodyTooLarge) => "body_too_large",
            Self::Client(ClientFault::BadBody) => "bad_body",
        }
    }

    pub(super) fn outcome(self) -> Option<(Outcome, UpstreamFailure)> {
        Some(match self {
            Self::NoEndpoint
            | Self::AllRefused
            | Self::Saturated
            | Self::ConnectionLimit
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::Unprocessed
            | Self::NoWebSocket
            | Self::Client(_) => return None,
            Self::Connect => (Outcome::ConnectFailed, UpstreamFailure::Connect),
            Self::ConnectTimeout => (Outcome::ConnectFailed, UpstreamFailure::ConnectTimeout),
            Self::Tls => (Outcome::ConnectFailed, UpstreamFailure::Tls),
            Self::Reset => (Outcome::Reset, UpstreamFailure::Reset),
            Self::FirstByteTimeout => (Outcome::Timeout, UpstreamFailure::FirstByteTimeout),
            Self::ReadTimeout => (Outcome::Timeout, UpstreamFailure::ReadTimeout),
            Self::BadReply => (Outcome::Reset, UpstreamFailure::Malformed),
        })
    }

    /// Nothing of the request can have reached the endpoint.
    pub(super) fn is_unsent(self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout | Self::Tls)
    }
}

/// Pingora's name for a chunk that is none.
const INVALID_CHUNK: ErrorType = ErrorType::new("InvalidChunk");

/// What a connection that did not come about is called.
pub(super) fn dial_failure(error: &DialError) -> Failure {
    match error {
        DialError::Timeout => Failure::ConnectTimeout,
        DialError::Tls { .. } | DialError::Alpn => Failure::Tls,
        DialError::Refused | DialError::Unreachable(_) | DialError::NotHttp2 | DialError::Io(_) => {
            Failure::Connect
        }
        DialError::Limit(_) => Failure::ConnectionLimit,
    }
}

pub(super) fn read_failure(error: &Error) -> Failure {
    if unprocessed(error) {
        return Failure::Unprocessed;
    }
    if let Some(reason) = refused_certificate(error) {
        tracing::debug!(%reason, "the endpoint does not take the client certificate, or wants one");
        return Failure::Tls;
    }
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::FirstByteTimeout,
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => Failure::BadReply,
        kind if *kind == INVALID_CHUNK => Failure::BadReply,
        _ => Failure::Reset,
    }
}

pub(super) fn client_fault(error: &Error) -> ClientFault {
    if let Some(slow) = slow(error) {
        return ClientFault::TooSlow(slow);
    }
    match error.etype() {
        ErrorType::ReadTimedout => ClientFault::BodyTimeout,
        ErrorType::ConnectionClosed | ErrorType::H2Error | ErrorType::WriteError => {
            ClientFault::Gone
        }
        _ if *error.esource() == ErrorSource::Downstream => ClientFault::Gone,
        _ => ClientFault::BadBody,
    }
}

/// What the connection, or the stream, found the client to be.
fn slow(error: &Error) -> Option<Slow> {
    let cause = error.root_cause();
    if let Some(slow) = cause.downcast_ref() {
        return Some(*slow);
    }
    let error = cause.downcast_ref::<io::Error>()?;
    error.get_ref()?.downcast_ref().copied()
}
