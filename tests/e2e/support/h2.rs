//! HTTP/2 clients: hyper's for what is right, and bare frames for what is not.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest, handshake};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::client::{Ask, Reply};
use super::{certs, runtime, wait};

/// An HTTP/2 connection by hyper.
pub(crate) struct H2 {
    sender: SendRequest<Full<Bytes>>,
    scheme: &'static str,
}

impl H2 {
    /// By ALPN over TLS.
    pub(crate) fn tls(address: SocketAddr, host: &str) -> Self {
        let config = certs::client(&["h2"], rustls::ALL_VERSIONS);
        let sender = runtime().block_on(async {
            let socket = TcpStream::connect(address).await.expect("a connection");
            let tls = tokio_rustls::TlsConnector::from(Arc::clone(&config))
                .connect(certs::name(host), socket)
                .await
                .expect("a TLS handshake");
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            start(tls).await
        });
        Self {
            sender,
            scheme: "https",
        }
    }

    /// By prior knowledge, without TLS.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        let sender = runtime().block_on(async {
            start(TcpStream::connect(address).await.expect("a connection")).await
        });
        Self {
            sender,
            scheme: "http",
        }
    }

    /// Takes no more than 64 KiB that the test has not read; over TLS where `host` is given.
    pub(crate) fn narrow(address: SocketAddr, host: Option<&str>) -> Self {
        const WINDOW: u32 = 64 * 1024;
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let sender = runtime().block_on(async {
            let socket = TcpStream::connect(address).await.expect("a connection");
            let Some(host) = host else {
                return start_with(&builder, socket).await;
            };
            let config = certs::client(&["h2"], rustls::ALL_VERSIONS);
            let tls = tokio_rustls::TlsConnector::from(config)
                .connect(certs::name(host), socket)
                .await
                .expect("a TLS handshake");
            start_with(&builder, tls).await
        });
        let scheme = if host.is_some() { "https" } else { "http" };
        Self { sender, scheme }
    }

    /// The reply's head; its body is read by and by.
    #[track_caller]
    pub(crate) fn begin(&mut self, ask: &Ask) -> (u16, Unread) {
        let request = request(ask, self.scheme, Version::HTTP_2);
        let reply = runtime().block_on(async {
            self.sender.ready().await.expect("an open connection");
            let reply = self.sender.send_request(request);
            tokio::time::timeout(wait::SOON, reply).await
        });
        let reply = reply.expect("a reply in time").expect("a reply");
        let status = reply.status().as_u16();
        (status, Unread(reply.into_body()))
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, ask: &Ask) -> Reply {
        self.try_ask(ask)
            .unwrap_or_else(|error| panic!("no reply to {ask:?}: {error}"))
    }

    pub(crate) fn try_ask(&mut self, ask: &Ask) -> Result<Reply, String> {
        let request = request(ask, self.scheme, Version::HTTP_2);
        let exchange = exchange(&mut self.sender, request);
        runtime().block_on(async {
            tokio::time::timeout(wait::SOON, exchange)
                .await
                .map_err(|_| "no reply in time".to_owned())?
        })
    }

    /// All at once on this connection, each on its own stream.
    pub(crate) fn ask_all(&self, asks: &[Ask]) -> Vec<Result<Reply, String>> {
        runtime().block_on(async {
            let mut tasks = Vec::new();
            for ask in asks {
                let mut sender = self.sender.clone();
                let request = request(ask, self.scheme, Version::HTTP_2);
                tasks.push(tokio::spawn(
                    async move { exchange(&mut sender, request).await },
                ));
            }
            let mut replies = Vec::new();
            for task in tasks {
                replies.push(task.await.expect("a task that does not panic"));
            }
            replies
        })
    }
}

/// A body that is read piece by piece.
pub(crate) struct Unread(Incoming);

impl Unread {
    /// The next piece; `None` at the end.
    pub(crate) fn piece(&mut self) -> Option<Result<Bytes, String>> {
        let next = async { tokio::time::timeout(wait::SOON, self.0.frame()).await };
        match runtime().block_on(next) {
            Err(_) => Some(Err("silence".to_owned())),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some(Err(format!("{error:?}"))),
            Ok(Some(Ok(frame))) => Some(Ok(frame.into_data().unwrap_or_default())),
        }
    }
}

async fn start_with<S>(builder: &Builder<TokioExecutor>, stream: S) -> SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .expect("an HTTP/2 connection");
    tokio::spawn(connection);
    sender
}

async fn start<S>(stream: S) -> SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("an HTTP/2 connection");
    tokio::spawn(connection);
    sender
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Reply, String> {
    sender.ready().await.map_err(|e| format!("{e:?}"))?;
    let reply = sender
        .send_request(request)
        .await
        .map_err(|e| format!("{e:?}"))?;
    let (parts, body) = reply.into_parts();
    let body = body.collect().await.map_err(|e| format!("{e:?}"))?;
    let fields = parts.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.to_string(), value)
    });
    Ok(Reply {
        version: format!("{:?}", parts.version),
        status: parts.status.as_u16(),
        fields: fields.collect(),
        body: body.to_bytes().to_vec(),
        interim: Vec::new(),
    })
}

/// An `Ask` as hyper wants it: the host goes into the target.
pub(crate) fn request(ask: &Ask, scheme: &str, version: Version) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(ask.method()).version(version);
    for (name, value) in ask.fields() {
        let own = ["host", "content-length"].contains(&name.to_lowercase().as_str());
        if !own || version != Version::HTTP_2 {
            request = request.header(name, value);
        }
    }
    let target = match version {
        Version::HTTP_2 => format!("{scheme}://{}{}", ask.host_name(), ask.target()),
        _ => ask.target().to_owned(),
    };
    request
        .uri(target)
        .body(Full::new(Bytes::copy_from_slice(ask.body_bytes())))
        .expect("a request")
}

/// What a peer said about a stream made of bare frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Status(u16),
    StreamReset(u32),
    GoAway(u32),
    Closed,
}

impl Verdict {
    /// A client error, 501 (a method that is not served, as CONNECT), a stream error or the end
    /// of the connection: all are refusals.
    pub(crate) fn is_refusal(self) -> bool {
        !matches!(self, Self::Status(status) if !matches!(status, 400..=499 | 501))
    }
}

/// Frames written by hand over cleartext HTTP/2.
pub(crate) struct Frames {
    socket: std::net::TcpStream,
}

/// Frame types of RFC 9113 section 6.
pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const ACK: u8 = 0x1;

impl Frames {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let socket = std::net::TcpStream::connect(address).expect("a connection");
        socket
            .set_read_timeout(Some(wait::SOON))
            .expect("set a read timeout");
        let mut frames = Self { socket };
        frames.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frames.frame(SETTINGS, 0, 0, &[]);
        frames
    }

    /// HEADERS with these fields, literally and in this order (RFC 7541 section 6.2.2).
    pub(crate) fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &block(fields));
    }

    pub(crate) fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, bytes);
    }

    /// Reads until the peer has decided about the stream.
    pub(crate) fn verdict(&mut self, stream: u32) -> Verdict {
        loop {
            let Some((kind, flags, id, payload)) = self.read_frame() else {
                return Verdict::Closed;
            };
            match kind {
                SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
                GOAWAY => match code(&payload[4..]) {
                    0 => {}
                    error => return Verdict::GoAway(error),
                },
                RST_STREAM if id == stream => return Verdict::StreamReset(code(&payload)),
                HEADERS if id == stream => return Verdict::Status(status(&payload)),
                _ => {}
            }
        }
    }

    /// With these settings in place of none, each an identifier and a value.
    pub(crate) fn open_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self::open(address);
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.frame(SETTINGS, 0, 0, &payload);
        frames
    }

    /// How long to wait for what the peer says.
    pub(crate) fn patience(&self, limit: std::time::Duration) {
        let set = self.socket.set_read_timeout(Some(limit));
        set.expect("set a read timeout");
    }

    /// Type, flags, stream and payload; `None` at the end, or where nothing comes.
    pub(crate) fn read_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload).ok()?;
        let id = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some((head[3], head[4], id, payload))
    }

    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload));
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }
}

/// Fields, literally and in this order (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            assert!(text.len() < 127, "one length byte is enough here");
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A frame's octets.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) fn code(payload: &[u8]) -> u32 {
    let four = payload.get(..4).and_then(|bytes| bytes.try_into().ok());
    four.map_or(u32::MAX, u32::from_be_bytes)
}

/// `:status` stands first: indexed (RFC 7541 appendix A, 8 to 14) or a literal
/// of three digits, plain or Huffman-coded (digits 0-2 take five bits, 3-9 six).
fn status(block: &[u8]) -> u16 {
    // A dynamic table size update may come before.
    let block = match block {
        [first, rest @ ..] if first & 0xe0 == 0x20 => rest,
        all => all,
    };
    match block {
        [indexed @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
        }
        [_, length, rest @ ..] if length & 0x80 == 0 => {
            let digits = rest.get(..usize::from(*length)).unwrap_or_default();
            String::from_utf8_lossy(digits).parse().unwrap_or(0)
        }
        [_, length, rest @ ..] => huffman_digits(&rest[..usize::from(length & 0x7f)]),
        _ => 0,
    }
}

fn huffman_digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let mut take = |n: u32| (0..n).fold(0, |all, _| all << 1 | bits.next().unwrap_or(1));
        let five = take(5);
        // 00000 00001 00010 are 0 1 2; 011001 .. 011111 are 3 .. 9.
        let digit = if five <= 2 {
            five
        } else {
            ((five << 1) | take(1))
                .wrapping_sub(0b01_1001)
                .wrapping_add(3)
        };
        number = number * 10 + digit;
    }
    number
}

#[test]
fn statuses_are_read_from_header_blocks() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x20, 0x8c]), 400);
    assert_eq!(status(b"\x08\x03431"), 431);
    // 302 as RFC 7541 appendix C.6.1 codes it.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
}
