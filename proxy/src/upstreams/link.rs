//! Connections of one worker to the endpoints of one upstream.
//!
//! A worker has links of its own, so taking a kept connection touches nothing
//! that another core writes. For HTTP/1.1 the idle connections are kept here:
//! whether one still lives is seen when it is taken, by one poll that costs no
//! system call while the kernel has no news of it. For HTTP/2 the connections,
//! and the streams on them, are Pingora's.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use balancer::EndpointIndex;
use pingora::connectors::http::Connector as HttpConnector;
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::protocols::Stream;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v1::client::HttpSession as H1Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// See the module's text.
pub(crate) enum Link {
    /// HTTP/1.1.
    H1 {
        transport: Box<TransportConnector>,
        idle: Idle,
    },
    /// HTTP/2.
    H2 {
        connector: Box<HttpConnector<()>>,
        /// Held by who connects, by endpoint: the others wait for that connection and share
        /// it, instead of making one each.
        connecting: Vec<Mutex<()>>,
    },
}

/// A session on a connection, and whether that had served before.
pub(crate) struct Connected {
    pub(crate) session: HttpSession<()>,
    pub(crate) reused: bool,
}

impl Link {
    /// `ca` is a PEM file of trust anchors; `None`: the system's, or none at all for plain upstreams.
    pub(crate) fn new(settings: &conf::Upstream, endpoints: usize) -> Self {
        let ca = match &settings.tls {
            // Nothing is verified on plain connections: no anchors are read.
            None => Some("/dev/null".to_owned()),
            Some(tls) => tls.ca.as_ref().map(|path| path.display().to_string()),
        };
        let mut options = ConnectorOptions::new(settings.keepalive.max_idle.max(1));
        options.ca_file = ca;
        match settings.protocol {
            conf::UpstreamProtocol::H1 => Self::H1 {
                transport: Box::new(TransportConnector::new(Some(options))),
                idle: Idle::new(
                    endpoints,
                    settings.keepalive.max_idle,
                    settings.keepalive.idle_timeout,
                ),
            },
            conf::UpstreamProtocol::H2 => Self::H2 {
                connector: Box::new(HttpConnector::new(Some(options))),
                connecting: (0..endpoints).map(|_| Mutex::new(())).collect(),
            },
        }
    }

    /// A connection to `endpoint`; a kept one when there is one and `fresh` is not asked for.
    ///
    /// # Errors
    /// Pingora's, when a new one could not be made.
    pub(crate) async fn connect(
        &self,
        endpoint: EndpointIndex,
        peer: &HttpPeer,
        fresh: bool,
        now: Instant,
    ) -> pingora::Result<Connected> {
        if let Self::H1 { idle, .. } = self
            && let Some(stream) = (!fresh).then(|| idle.take(endpoint, now)).flatten()
        {
            return Ok(Connected {
                session: HttpSession::H1(H1Session::new(stream)),
                reused: true,
            });
        }
        if let Self::H2 { connecting, .. } = self
            && let Some(connecting) = connecting.get(endpoint.as_usize())
        {
            let patience = peer.options.connection_timeout.unwrap_or(Duration::MAX);
            let Ok(_turn) = timeout(patience, connecting.lock()).await else {
                return Err(Error::new_up(ErrorType::ConnectTimedout));
            };
            return Box::pin(self.open(peer)).await;
        }
        // Boxed: seldom taken, and a future is as large as its largest branch.
        Box::pin(self.open(peer)).await
    }

    /// A new connection for HTTP/1.1; for HTTP/2 a stream, on a connection that may serve others.
    ///
    /// # Errors
    /// Pingora's, when it could not be made.
    pub(crate) async fn open(&self, peer: &HttpPeer) -> pingora::Result<Connected> {
        match self {
            Self::H1 { transport, .. } => {
                let stream = transport.new_stream(peer).await?;
                Ok(Connected {
                    session: HttpSession::H1(H1Session::new(stream)),
                    reused: false,
                })
            }
            Self::H2 { connector, .. } => {
                let (session, reused) = connector.get_http_session(peer).await?;
                Ok(Connected { session, reused })
            }
        }
    }

    /// Takes a session back after a whole exchange; its connection is kept where the protocol allows.
    pub(crate) async fn release(
        &self,
        endpoint: EndpointIndex,
        peer: &HttpPeer,
        session: HttpSession<()>,
        now: Instant,
    ) {
        match (self, session) {
            (Self::H1 { idle, .. }, HttpSession::H1(mut session)) => {
                session.respect_keepalive();
                if session.will_keepalive()
                    && let Some(stream) = session.reuse().await
                {
                    idle.put(endpoint, stream, now);
                }
            }
            (Self::H2 { connector, .. }, session) => {
                connector
                    .release_http_session(session, peer, peer.options.idle_timeout)
                    .await;
            }
            (Self::H1 { .. }, _) => {}
        }
    }

    /// Closes connections that were idle for too long; called about once a second.
    pub(crate) fn sweep(&self, now: Instant) {
        if let Self::H1 { idle, .. } = self {
            idle.sweep(now);
        }
    }
}

/// Idle HTTP/1.1 connections by endpoint, the one used last on top.
pub(crate) struct Idle {
    by_endpoint: std::sync::Mutex<Kept>,
    most: usize,
    timeout: Duration,
}

struct Kept {
    count: usize,
    stacks: Vec<VecDeque<(Stream, Instant)>>,
}

impl Idle {
    fn new(endpoints: usize, most: usize, timeout: Duration) -> Self {
        Self {
            by_endpoint: std::sync::Mutex::new(Kept {
                count: 0,
                stacks: (0..endpoints).map(|_| VecDeque::new()).collect(),
            }),
            most,
            timeout,
        }
    }

    /// The lock is this worker's alone; nothing is awaited under it.
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.by_endpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, endpoint: EndpointIndex, now: Instant) -> Option<Stream> {
        let mut kept = self.kept();
        loop {
            let (mut stream, since) = kept.stacks.get_mut(endpoint.as_usize())?.pop_back()?;
            kept.count -= 1;
            if now.saturating_duration_since(since) < self.timeout && is_quiet(&mut stream) {
                return Some(stream);
            }
        }
    }

    fn put(&self, endpoint: EndpointIndex, mut stream: Stream, now: Instant) {
        if !is_quiet(&mut stream) {
            return;
        }
        let mut kept = self.kept();
        if kept.count >= self.most {
            return;
        }
        let Some(stack) = kept.stacks.get_mut(endpoint.as_usize()) else {
            return;
        };
        stack.push_back((stream, now));
        kept.count += 1;
    }

    fn sweep(&self, now: Instant) {
        let mut kept = self.kept();
        let mut closed = 0;
        for stack in &mut kept.stacks {
            stack.retain_mut(|(stream, since)| {
                let stays =
                    now.saturating_duration_since(*since) < self.timeout && is_quiet(stream);
                closed += usize::from(!stays);
                stays
            });
        }
        kept.count -= closed;
    }
}

/// Nothing to read: neither the end nor bytes that nobody asked for.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0; 1];
    let mut read = ReadBuf::new(&mut byte);
    let mut cx = Context::from_waker(Waker::noop());
    matches!(
        Pin::new(stream).poll_read(&mut cx, &mut read),
        Poll::Pending
    )
}
