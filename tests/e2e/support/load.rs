//! Open-loop load: requests at a steady rate over kept connections, each
//! judged by itself. What counts as failed is what a visitor would notice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, Version, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::client::Ask;
use super::{certs, h2, runtime, wait};

/// How the load talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    Plain,
    TlsH1,
    TlsH2,
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Report {
    pub(crate) ok: usize,
    pub(crate) failed: Vec<String>,
    /// Replies by their `x-node`.
    pub(crate) nodes: BTreeMap<String, usize>,
    /// A kept connection had been closed when the request was sent; sent once
    /// more on a new one, as browsers do.
    pub(crate) resent: usize,
}

impl Report {
    #[track_caller]
    pub(crate) fn expect_flawless(&self, least: usize) {
        assert!(
            self.failed.is_empty(),
            "{} of {} requests failed: {:?}",
            self.failed.len(),
            self.failed.len() + self.ok,
            &self.failed[..self.failed.len().min(5)]
        );
        assert!(self.ok >= least, "only {} of {least} requests", self.ok);
    }
}

/// Load under way; ended by [`Load::end`] or when dropped.
pub(crate) struct Load {
    stopping: Arc<AtomicBool>,
    report: Arc<Mutex<Report>>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    /// `rate` requests a second spread over `connections`.
    pub(crate) fn start(
        talk: Talk,
        address: SocketAddr,
        ask: &Ask,
        rate: u32,
        connections: u32,
    ) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let report = Arc::new(Mutex::new(Report::default()));
        let protocol = if talk == Talk::TlsH2 {
            "h2"
        } else {
            "http/1.1"
        };
        let config = certs::client(&[protocol], rustls::ALL_VERSIONS);
        let pace = Duration::from_secs(1) * connections / rate;
        let workers = (0..connections).map(|nth| {
            let worker = Worker {
                talk,
                address,
                ask: ask.clone(),
                config: Arc::clone(&config),
                report: Arc::clone(&report),
            };
            let first = pace * nth / connections;
            runtime().spawn(worker.run(first, pace, Arc::clone(&stopping)))
        });
        Self {
            workers: workers.collect(),
            stopping,
            report,
        }
    }

    /// What has come so far.
    pub(crate) fn so_far(&self) -> Report {
        self.report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// No new requests; those in flight are waited for.
    pub(crate) fn end(mut self) -> Report {
        self.stopping.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            runtime()
                .block_on(worker)
                .expect("a worker that does not panic");
        }
        self.so_far()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        for worker in &self.workers {
            worker.abort();
        }
    }
}

enum Sender {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

struct Worker {
    talk: Talk,
    address: SocketAddr,
    ask: Ask,
    config: Arc<ClientConfig>,
    report: Arc<Mutex<Report>>,
}

impl Worker {
    async fn run(self, first: Duration, pace: Duration, stopping: Arc<AtomicBool>) {
        tokio::time::sleep(first).await;
        let mut tick = tokio::time::interval(pace);
        let mut sender = None;
        while !stopping.load(Ordering::SeqCst) {
            tick.tick().await;
            let limit = 2 * wait::SOON;
            let outcome = match tokio::time::timeout(limit, self.once(&mut sender)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    sender = None;
                    Err("no reply in time".into())
                }
            };
            let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(node) => {
                    report.ok += 1;
                    *report.nodes.entry(node).or_default() += 1;
                }
                Err(why) => report.failed.push(why),
            }
        }
    }

    /// One request; the node that answered.
    async fn once(&self, kept: &mut Option<Sender>) -> Result<String, String> {
        let reused = kept.is_some();
        match self.exchange(kept).await {
            Err(_) if reused => {
                self.report
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .resent += 1;
                *kept = None;
                self.exchange(kept).await
            }
            outcome => outcome,
        }
    }

    async fn exchange(&self, kept: &mut Option<Sender>) -> Result<String, String> {
        let mut sender = match kept.take() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let reply = sender.send(self.request()).await?;
        let (parts, body) = reply.into_parts();
        let body = body.collect().await.map_err(|e| format!("body: {e:?}"))?;
        *kept = Some(sender);
        let node = parts.headers.get("x-node").and_then(|v| v.to_str().ok());
        match parts.status.as_u16() {
            200 => Ok(node.unwrap_or("?").to_owned()),
            status => Err(format!("{status} {:?}", body.to_bytes())),
        }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        match self.talk {
            Talk::TlsH2 => h2::request(&self.ask, "https", Version::HTTP_2),
            Talk::Plain | Talk::TlsH1 => h2::request(&self.ask, "", Version::HTTP_11),
        }
    }

    async fn connect(&self) -> Result<Sender, String> {
        let socket = TcpStream::connect(self.address)
            .await
            .map_err(|e| format!("connect: {e}"))?;
        let _ = socket.set_nodelay(true);
        if self.talk == Talk::Plain {
            return h1(TokioIo::new(socket)).await;
        }
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(&self.config))
            .connect(certs::name(self.ask.host_name()), socket)
            .await
            .map_err(|e| format!("handshake: {e}"))?;
        if self.talk == Talk::TlsH1 {
            return h1(TokioIo::new(tls)).await;
        }
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .map_err(|e| format!("h2: {e:?}"))?;
        tokio::spawn(connection);
        Ok(Sender::H2(sender))
    }
}

async fn h1<S>(stream: TokioIo<S>) -> Result<Sender, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream)
        .await
        .map_err(|e| format!("h1: {e:?}"))?;
    tokio::spawn(connection);
    Ok(Sender::H1(sender))
}

impl Sender {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        match self {
            Self::H1(sender) => {
                sender
                    .ready()
                    .await
                    .map_err(|e| format!("not ready: {e:?}"))?;
                sender.send_request(request).await
            }
            Self::H2(sender) => {
                sender
                    .ready()
                    .await
                    .map_err(|e| format!("not ready: {e:?}"))?;
                sender.send_request(request).await
            }
        }
        .map_err(|e| format!("request: {e:?}"))
    }
}
