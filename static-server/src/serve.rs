//! A hyper service that serves one site alone, without the edge: HTTP/1.1, and HTTP/2 without
//! TLS for clients that know (prior knowledge).
//!
//! It gives the same answers as the edge in front of the same site, because [`Site`] gives
//! them; here are only the door (malformed targets, a missing Host, slow heads, stalled
//! readers) and the writing of bytes. File content is read on the blocking pool, a chunk
//! ahead of the client, never on the event loop.
//!
//! It has no TLS, no access log and no configuration file.

mod body;
mod normalise;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::answer::Answer;
use crate::representation::Sending;
use crate::site::{self, Site};
pub use body::Content;
pub use normalise::{BadPath, normalise};

/// How long a client may take for the whole head of a request, and to begin one.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long sent bytes may wait for a client that takes none.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long requests in flight may go on after the end was asked for.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// How many connections are open at most; further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 4_096;

/// How long accepting rests after the system refused, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The longest head that is read, in bytes.
const MAX_HEAD: usize = 32 * 1_024;

/// Streams that one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 128;

/// Serves `site` on `listener` until `shutdown` is ready, then finishes what is in flight,
/// for [`SHUTDOWN_TIMEOUT`] at most.
pub async fn serve(listener: TcpListener, site: Arc<Site>, shutdown: impl Future<Output = ()>) {
    let server = server();
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let service = Service::new(Arc::clone(&site));
                    let watcher = graceful.watcher();
                    connections.spawn(connection(stream, server.clone(), service, watcher));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    if timeout(SHUTDOWN_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(open = connections.len(), "connections were cut at the end");
    }
    connections.shutdown().await;
}

type Server = auto::Builder<TokioExecutor>;

fn server() -> Server {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEADER_TIMEOUT)
        .keep_alive_timeout(HEADER_TIMEOUT)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS);
    server
}

async fn connection(stream: TcpStream, server: Server, service: Service, watcher: Watcher) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, "a connection was lost at once");
        return;
    }
    let begun = Arc::clone(&service.begun);
    let serving = watcher.watch(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        result = serving => if let Err(error) = result {
            tracing::debug!(error = %error, "a connection ended early");
        },
        () = nothing_asked(&begun) => tracing::debug!("a connection asked for nothing"),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // The kernel watches the reader: no timer of ours for each write.
    let millis = u32::try_from(STALL_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?)
}

/// Ready when no request has come in time. The protocols' own timers start only when it is
/// known which protocol is spoken, for which a client could let us wait.
async fn nothing_asked(begun: &AtomicBool) {
    sleep(HEADER_TIMEOUT).await;
    if begun.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// The service for the requests of one connection.
#[derive(Clone, Debug)]
pub struct Service {
    site: Arc<Site>,
    begun: Arc<AtomicBool>,
}

impl Service {
    /// A service that answers from `site`.
    pub fn new(site: Arc<Site>) -> Self {
        Self {
            site,
            begun: Arc::default(),
        }
    }

    /// Answers one request; its body is not read.
    pub fn respond<B>(&self, request: &Request<B>) -> Response<Content> {
        self.begun.store(true, Ordering::Relaxed);
        if !has_one_host(request) {
            return refuse();
        }
        let uri = request.uri();
        // RFC 9112, 3.2.4: the asterisk form asks about the server, and only by OPTIONS.
        let path = match uri.path() {
            "*" if request.method() == Method::OPTIONS => "/",
            path => path,
        };
        let reads = request.method() == Method::GET || request.method() == Method::HEAD;
        let path = match normalise(path) {
            Ok(path) => path,
            Err(_) if reads => return refuse(),
            // The method decides before the path does.
            Err(_) => "/".into(),
        };
        let request = site::Request {
            method: request.method(),
            path: &path,
            query: uri.query(),
            fields: request.headers(),
            sending: Sending::Copied,
        };
        response(self.site.answer(&request, Instant::now().into_std()))
    }
}

impl<B> hyper::service::Service<Request<B>> for Service {
    type Response = Response<Content>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        ready(Ok(self.respond(&request)))
    }
}

/// RFC 9112, 3.2: HTTP/1.1 wants exactly one Host; nobody may send two.
fn has_one_host<B>(request: &Request<B>) -> bool {
    match request.headers().get_all(HOST).iter().count() {
        0 => request.version() != Version::HTTP_11,
        1 => true,
        _ => false,
    }
}

fn refuse() -> Response<Content> {
    const TEXT: &str = "400 Bad Request\n";
    let mut response = Response::new(Content::from(TEXT));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CONTENT_LENGTH, HeaderValue::from(TEXT.len()));
    response
}

fn response(answer: Answer) -> Response<Content> {
    let mut response = Response::new(Content::new(answer.body));
    *response.status_mut() = answer.status;
    for (name, value) in answer.headers.iter() {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}
