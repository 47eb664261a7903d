//! The admin listener: metrics, health, state and purge, for operators and their machines.
//!
//! A small hyper server of its own, on an address that clients do not reach. It
//! knows the rest of the program by one trait ([`State`]) and keeps nothing. What
//! only reads is open to whoever can connect; what changes state wants the
//! bearer token, and is refused while none is configured.
//!
//! It does no TLS: bind it to a loopback address, a private network or a Unix socket.

mod access;
mod answer;
mod change;
mod listener;
mod order;
mod ready;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::exchange::purging::{Purge, Url};

pub(crate) use self::change::Asked;
use self::listener::{Accepted, Acceptor};
pub(crate) use self::listener::{AdminListener, HeldAdmin};
pub(crate) use self::order::OrderAsked;

/// The whole head of a request, and the wait for the next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection's whole life: one that reads its answer slowly cannot stay for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Connections at once; more wait in the kernel.
const MAX_CONNECTIONS: usize = 64;
/// How long answers under way may take when the server ends.
const DRAIN: Duration = Duration::from_secs(1);
/// After a failed accept (out of descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin server shows and does. Called on its thread, where none may block for long, unless
/// it says otherwise.
pub(crate) trait State: Send + Sync {
    /// All metrics in Prometheus' text format.
    fn metrics_text(&self) -> String;
    /// Whether the process does its work at all: `false` asks for a restart.
    fn live(&self) -> bool;
    /// Whether new clients should be sent here, as the process itself sees it.
    fn ready(&self) -> Readiness;
    /// The configuration in force: hash, when loaded, the last reload's failure.
    fn config(&self) -> Value;
    /// Whether the site is closed for maintenance; looks first. Called on a thread that may block.
    fn maintenance(&self) -> Value;
    /// How overloaded the process is, by what signs, and what was given up.
    fn overload(&self) -> Value;
    /// Upstreams with their endpoints and the state of each.
    fn upstreams(&self) -> Value;
    /// Changes an endpoint by hand.
    ///
    /// # Errors
    /// There is no such upstream or endpoint; the message says which there are.
    fn change(&self, asked: &Asked) -> Result<Value, String>;
    /// Routes in order of precedence, with what each does.
    fn routes(&self) -> Value;
    /// Certificates in use, how long each lasts, and how the next one comes.
    fn certificates(&self) -> Value;
    /// Orders certificates now; what is told is how they are before.
    ///
    /// # Errors
    /// There are none with such a name; the message says which there are.
    fn order(&self, asked: &OrderAsked) -> Result<Value, String>;
    /// The token that is wanted for whatever changes state.
    fn token(&self) -> Option<conf::Secret>;
    /// What the cache holds: sizes, the most used objects, the largest tags.
    fn cache(&self) -> Value;
    /// What the cache holds for a URL, and what it would do for a request with these fields.
    fn inspect(&self, url: &Url, fields: &HeaderMap) -> Value;
    /// Purges, or counts what it would find. Returns the number of objects. Called on a thread that may
    /// block.
    fn purge(&self, purge: &Purge) -> u64;
}

/// The process's own view of its readiness; the server probes the listeners itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// Whether it takes new clients.
    pub(crate) ok: bool,
    /// `serving`, `draining`, ...
    pub(crate) detail: &'static str,
    /// Listeners that must take a connection for the process to be ready.
    pub(crate) listeners: Vec<ListenerAddress>,
}

/// A listener to be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerAddress {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// Where it is bound. An unspecified address is probed on loopback.
    pub(crate) address: SocketAddr,
}

/// Serves until `shutdown` is ready; then finishes what is under way, for a second at most.
///
/// # Errors
/// The listener cannot be used in this runtime.
pub(crate) async fn serve(
    listener: AdminListener,
    state: Arc<dyn State>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let acceptor = Acceptor::new(listener)?;
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = next_connection(&acceptor, &permits);
        let (accepted, permit) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            next = next => next,
        };
        let (state, watcher) = (Arc::clone(&state), graceful.watcher());
        match accepted {
            Accepted::Tcp(stream) => {
                tokio::spawn(connection(stream, state, watcher, permit));
            }
            Accepted::Unix(stream) => {
                tokio::spawn(connection(stream, state, watcher, permit));
            }
        }
    }
    drop(acceptor);
    // Whoever has not finished by then is cut off.
    drop(tokio::time::timeout(DRAIN, graceful.shutdown()).await);
    Ok(())
}

async fn next_connection(
    acceptor: &Acceptor,
    permits: &Arc<Semaphore>,
) -> (Accepted, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed: there always is a permit.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    loop {
        match acceptor.accept().await {
            Ok(accepted) => return (accepted, permit),
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    state: Arc<dyn State>,
    watcher: Watcher,
    permit: Option<OwnedSemaphorePermit>,
) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer::answer(&request, &state).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // How a connection ends is the peer's business.
    drop(tokio::time::timeout(CONNECTION_LIFE, watcher.watch(served)).await);
    drop(permit);
}

#[cfg(test)]
mod tests;
