//! What is kept of one request, for the access log and the metrics.
//!
//! A plain struct that the carriers fill as they learn things. Listener, route,
//! upstream and endpoints are indexes into the configuration that the request
//! runs on ([`super::Names`] of its [`super::Table`]), so that recording them
//! costs nothing. Text that a client sent is captured only when a log wants it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::attempts::Attempts;
use super::labels::{Hedge, Refused, labels};
use super::metrics::Shown;
use super::text::Captured;
use crate::exchange::proxy_header::Via;
use crate::listen::ClientCert;

/// One request, from its first byte to the last byte of its answer.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// When its first byte was read (monotonic).
    pub(crate) start: Instant,
    /// The same moment as wall time; the log line's `ts`.
    pub(crate) wall: SystemTime,
    /// First byte read to answer sent; set by [`Record::end`].
    pub(crate) duration: Duration,
    /// Names the request in the log, upstream and to the client. Written as 32 hex digits.
    pub(crate) id: u128,
    /// Index of the listener.
    pub(crate) listener: u16,
    /// Index of the route; `None` while none matched.
    pub(crate) route: Option<u16>,
    /// The client's address, after PROXY header and trusted proxies.
    pub(crate) client: IpAddr,
    /// What it spoke.
    pub(crate) protocol: Protocol,
    /// TLS version as OpenSSL names it (`TLSv1.3`); `None` on a plain connection.
    pub(crate) tls: Option<&'static str>,
    /// Status sent to the client; 0 when none was.
    pub(crate) status: u16,
    /// Bytes of the request body that arrived, framing not counted.
    pub(crate) bytes_in: u64,
    /// Bytes of the response body that were sent, framing not counted.
    pub(crate) bytes_out: u64,
    /// Index of the upstream that was asked; `None` when none was.
    pub(crate) upstream: Option<u16>,
    /// The endpoints that it had when it was asked: what the attempts' indexes mean.
    pub(crate) endpoints: Option<Arc<Shown>>,
    /// Endpoints tried, in order.
    pub(crate) attempts: Attempts,
    /// Wait in the upstream's queue; `None` without one.
    pub(crate) queued: Option<Duration>,
    /// What became of a second attempt beside a late one.
    pub(crate) hedge: Option<Hedge>,
    /// Why the upstream took no attempt, or no further one.
    pub(crate) refused: Option<Refused>,
    /// TCP and TLS connect of the last attempt; `None` on a kept connection.
    pub(crate) connect: Option<Duration>,
    /// Last attempt: from the request's head sent to the first byte of the answer.
    pub(crate) first_byte: Option<Duration>,
    /// What the cache had to do with it.
    pub(crate) cache: CacheResult,
    /// The client was sent early hints.
    pub(crate) hinted: bool,
    /// Why the answer is what it is, where it is not what was asked for:
    /// `connect_timeout`, `client_gone`, `no_endpoint`, `header_timeout`, ...
    pub(crate) why: Option<&'static str>,
    /// What a load balancer said of the connection.
    pub(crate) via: Option<Arc<Via>>,
    /// The client's certificate.
    pub(crate) client_cert: Option<Arc<ClientCert>>,
    /// What the client sent; empty unless an access log is on.
    pub(crate) captured: Captured,
}

impl Record {
    /// A request that has just begun.
    #[must_use]
    pub(crate) fn new(
        start: Instant,
        wall: SystemTime,
        id: u128,
        listener: u16,
        client: IpAddr,
    ) -> Self {
        Self {
            start,
            wall,
            duration: Duration::ZERO,
            id,
            listener,
            route: None,
            client,
            protocol: Protocol::Http11,
            tls: None,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            upstream: None,
            endpoints: None,
            attempts: Attempts::default(),
            queued: None,
            hedge: None,
            refused: None,
            connect: None,
            first_byte: None,
            cache: CacheResult::None,
            hinted: false,
            why: None,
            via: None,
            client_cert: None,
            captured: Captured::default(),
        }
    }

    /// Fixes the duration. Called once, when the last byte went out or the client was given up.
    pub(crate) fn end(&mut self, now: Instant) {
        self.duration = now.saturating_duration_since(self.start);
    }

    /// Status class of the answer.
    #[must_use]
    pub(crate) fn class(&self) -> Class {
        Class::of(self.status)
    }
}

/// What a client spoke, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1 (RFC 9112)
    Http11,
    /// HTTP/2 (RFC 9113)
    Http2,
    /// HTTP/3 (RFC 9114)
    Http3,
    /// None: the connection was passed on as it was.
    Tcp,
}

impl Protocol {
    /// As it stands in a log line.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
            Self::Http3 => "HTTP/3.0",
            Self::Tcp => "TCP",
        }
    }
}

/// First digit of a status (RFC 9110 section 15), a label of few values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// No answer was given.
    None,
    /// 100 to 199: in effect 101.
    Informational,
    /// 200 to 299.
    Success,
    /// 300 to 399.
    Redirection,
    /// 400 to 499.
    ClientError,
    /// 500 to 599.
    ServerError,
}

impl Class {
    /// Every class; [`Class::index`] is the place in it.
    pub(crate) const ALL: [Self; 6] = [
        Self::None,
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
    ];

    /// The class of a status; whatever is no status is [`Class::None`].
    #[must_use]
    pub(crate) fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::None,
        }
    }

    /// Place in [`Class::ALL`].
    #[must_use]
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Label value.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

labels! {
    /// What the cache had to do with a request.
    pub(crate) enum CacheResult {
        /// The route has no cache, or the method is never cached.
        None = "none",
        /// Answered from the store, fresh.
        Hit = "hit",
        /// Nothing usable was stored; the upstream was asked.
        Miss = "miss",
        /// Answered from the store past its lifetime (RFC 5861).
        Stale = "stale",
        /// The upstream confirmed what was stored (304).
        Revalidated = "revalidated",
        /// The store was not asked, or must not be: the request or the page forbids it.
        Bypass = "bypass",
        /// Answered from another request's fetch of the same page.
        Collapsed = "collapsed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_classes_is_in_the_order_of_its_indexes() {
        for (place, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), place);
        }
    }

    #[test]
    fn a_clock_that_went_back_makes_no_duration() {
        let start = crate::clock::now();
        let client = IpAddr::from([127, 0, 0, 1]);
        let mut record = Record::new(start, SystemTime::UNIX_EPOCH, 1, 0, client);
        record.end(start - Duration::from_millis(1));
        assert_eq!(record.duration, Duration::ZERO);
    }
}
