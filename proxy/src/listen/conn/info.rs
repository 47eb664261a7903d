//! What is known of a connection while it lives, and how a request gets at it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;

use super::date::KeptDate;
use super::trailers::Trailers;
use crate::clock;
use crate::exchange::onward::AddressText;
use crate::exchange::proxy_header::Via;
use crate::listen::room::Paces;
use crate::listen::{ClientCert, ListenerState, Slot};

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
    /// Made when a stream of HTTP/2 or HTTP/3 first waits; other connections have accounts of their own.
    paces: OnceLock<Arc<Paces>>,
    /// Of the reply whose head is written next.
    pub(crate) date: KeptDate,
    /// Of the HTTP/1.1 request that is being served, and of its reply.
    pub(crate) trailers: Trailers,
}

impl ConnInfo {
    /// Of the connection that `slot` counts. `local`: where it came to, unless a balancer says it.
    pub(crate) fn new(
        slot: &Slot,
        local: SocketAddr,
        tls: Option<&'static str>,
        client_cert: Option<Arc<ClientCert>>,
    ) -> Self {
        Self {
            listener: slot.listener().clone(),
            peer: slot.peer(),
            peer_text: AddressText::new(slot.peer().ip()),
            local: slot.via().and_then(|via| via.local).unwrap_or(local),
            via: slot.via().cloned(),
            tls,
            client_cert,
            bad_chunk: AtomicBool::new(false),
            malformed: AtomicU32::new(0),
            broke_off: AtomicBool::new(false),
            flooded: AtomicBool::new(false),
            paces: OnceLock::new(),
            date: KeptDate::default(),
            trailers: Trailers::default(),
        }
    }

    /// The same connection, whose client goes on from another port: what it did before counts on.
    pub(crate) fn moved(&self, peer: SocketAddr) -> Self {
        Self {
            listener: self.listener.clone(),
            peer,
            peer_text: AddressText::new(peer.ip()),
            local: self.local,
            via: self.via.clone(),
            tls: self.tls,
            client_cert: self.client_cert.clone(),
            bad_chunk: AtomicBool::new(false),
            malformed: AtomicU32::new(self.malformed.load(Ordering::Relaxed)),
            broke_off: AtomicBool::new(false),
            flooded: AtomicBool::new(false),
            paces: OnceLock::from(self.paces().clone()),
            date: KeptDate::default(),
            trailers: Trailers::default(),
        }
    }

    /// What its streams give together, and take.
    pub(crate) fn paces(&self) -> &Arc<Paces> {
        self.paces.get_or_init(|| {
            let limits = &self.listener.settings.load().limits;
            Arc::new(Paces::new(limits, clock::now()))
        })
    }

    /// As Pingora carries it along with a session.
    pub(crate) fn digest(self: Arc<Self>) -> Option<Arc<ProxyDigest>> {
        let head = ResponseHeader::build_no_case(200, Some(0)).ok()?;
        let info = Box::new(self);
        Some(Arc::new(ProxyDigest::new(Box::new(head), Some(info))))
    }
}

/// The connection's facts, from what Pingora carries along with a session.
pub(crate) fn conn_info(digest: &ProxyDigest) -> Option<&Arc<ConnInfo>> {
    digest.user_data.as_ref()?.downcast_ref()
}
