//! What is known of a connection while it lives, and how a request gets at it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use pingora::protocols::raw_connect::ProxyDigest;

use super::date::KeptDate;
use super::trailers::Trailers;
use crate::exchange::onward::AddressText;
use crate::exchange::proxy_header::Via;
use crate::listen::room::SharedPace;
use crate::listen::{ClientCert, ListenerState};

/// What is known of a connection while it lives; requests refer to it.
#[derive(Debug)]
pub(crate) struct ConnInfo {
    /// Where it was accepted.
    pub(crate) listener: Arc<ListenerState>,
    /// Who connected.
    pub(crate) peer: SocketAddr,
    /// The same without the port, as text.
    pub(crate) peer_text: AddressText,
    /// Where it connected to.
    pub(crate) local: SocketAddr,
    /// What a balancer said of it.
    pub(crate) via: Option<Arc<Via>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) tls: Option<&'static str>,
    /// The client's certificate, where it was asked for one.
    pub(crate) client_cert: Option<Arc<ClientCert>>,
    /// Set when the framing of a chunked body was broken: the request is answered with 400.
    pub(crate) bad_chunk: AtomicBool,
    /// Requests that were refused as malformed.
    pub(crate) malformed: AtomicU32,
    /// Set when a reply broke off whose end is the end of the connection: a close would say that it
    /// is whole, so the connection is reset.
    pub(crate) broke_off: AtomicBool,
    /// Set when its frames of HTTP/2 gave work and had none: it is to be ended.
    pub(crate) flooded: AtomicBool,
    /// What the streams of HTTP/2 give together, and take.
    pub(crate) up: SharedPace,
    pub(crate) down: SharedPace,
    /// Of the reply whose head is written next.
    pub(crate) date: KeptDate,
    /// Of the HTTP/1.1 request that is being served, and of its reply.
    pub(crate) trailers: Trailers,
}

/// The connection's facts, from what Pingora carries along with a session.
pub(crate) fn conn_info(digest: &ProxyDigest) -> Option<&Arc<ConnInfo>> {
    digest.user_data.as_ref()?.downcast_ref()
}
