//! HTTP/3 clients: the `h3` crate's for what is right, and bare frames on quinn for what is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3_quinn::{BidiStream, OpenStreams};
use http::Request;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, TransportConfig, VarInt};
use tokio::time::timeout;

use super::client::{Ask, Reply};
use super::{certs, runtime, wait};

/// A UDP socket and the sessions that its connections may resume.
pub(crate) struct Client {
    pub(crate) endpoint: Endpoint,
    config: quinn::ClientConfig,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self::with(TransportConfig::default())
    }

    pub(crate) fn with(transport: TransportConfig) -> Self {
        let tls = certs::client(&["h3"], &[&rustls::version::TLS13]);
        Self::speaking(rustls::ClientConfig::clone(&tls), transport)
    }

    /// One that judges certificates in its own way.
    pub(crate) fn speaking(mut tls: rustls::ClientConfig, transport: TransportConfig) -> Self {
        tls.enable_early_data = true;
        let crypto = QuicClientConfig::try_from(tls).expect("TLS for QUIC");
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let _inside = runtime().enter();
        Self {
            endpoint: Endpoint::client(any).expect("a UDP socket"),
            config,
        }
    }

    /// Sends the first packets; the handshake goes on by itself.
    pub(crate) fn connecting(&self, address: SocketAddr) -> quinn::Connecting {
        let _inside = runtime().enter();
        let config = self.config.clone();
        let connecting = self.endpoint.connect_with(config, address, "shop.test");
        connecting.expect("a connection under way")
    }

    pub(crate) fn try_connect(&self, address: SocketAddr) -> Result<H3, String> {
        let connecting = self.connecting(address);
        runtime().block_on(async {
            let connection = timeout(wait::SOON, connecting).await;
            let connection = connection.map_err(|_| "no handshake in time".to_owned())?;
            Ok(H3::on(connection.map_err(|error| error.to_string())?).await)
        })
    }

    #[track_caller]
    pub(crate) fn connect(&self, address: SocketAddr) -> H3 {
        self.try_connect(address).expect("a QUIC handshake")
    }

    /// One whose requests go out with its first packets; `None`: nothing is known of the server.
    pub(crate) fn connect_early(
        &self,
        address: SocketAddr,
    ) -> Option<(H3, quinn::ZeroRttAccepted)> {
        let (connection, accepted) = self.connecting(address).into_0rtt().ok()?;
        Some((runtime().block_on(H3::on(connection)), accepted))
    }

    /// A bare connection, on which our control stream is open.
    #[track_caller]
    pub(crate) fn bare(&self, address: SocketAddr) -> Bare {
        let connecting = self.connecting(address);
        runtime().block_on(async {
            let connection = timeout(wait::SOON, connecting).await.expect("in time");
            Bare(connection.expect("a QUIC handshake"))
        })
    }
}

/// A connection by the `h3` crate.
pub(crate) struct H3 {
    pub(crate) connection: Connection,
    sender: SendRequest<OpenStreams, Bytes>,
}

pub(crate) type Stream = RequestStream<BidiStream<Bytes>, Bytes>;

impl H3 {
    async fn on(connection: Connection) -> Self {
        let quic = h3_quinn::Connection::new(connection.clone());
        let (mut driver, sender) = h3::client::new(quic).await.expect("an HTTP/3 connection");
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Self { connection, sender }
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, ask: &Ask) -> Reply {
        self.try_ask(ask)
            .unwrap_or_else(|error| panic!("no reply to {ask:?}: {error}"))
    }

    pub(crate) fn try_ask(&mut self, ask: &Ask) -> Result<Reply, String> {
        let exchange = exchange(self.sender.clone(), ask.clone());
        runtime().block_on(async {
            timeout(wait::SOON, exchange)
                .await
                .map_err(|_| "no reply in time".to_owned())?
        })
    }

    /// All at once on this connection, each on its own stream.
    pub(crate) fn ask_all(&self, asks: &[Ask]) -> Vec<Result<Reply, String>> {
        runtime().block_on(async {
            let begin = |ask: &Ask| tokio::spawn(exchange(self.sender.clone(), ask.clone()));
            let tasks: Vec<_> = asks.iter().map(begin).collect();
            let mut replies = Vec::new();
            for task in tasks {
                replies.push(task.await.expect("a task that does not panic"));
            }
            replies
        })
    }

    /// A request whose body and reply the test handles itself.
    #[track_caller]
    pub(crate) fn begin(&mut self, ask: &Ask) -> Stream {
        let request = request(ask);
        runtime().block_on(async {
            let stream = timeout(wait::SOON, self.sender.send_request(request)).await;
            stream.expect("in time").expect("a stream")
        })
    }

    /// Why the connection was closed.
    #[track_caller]
    pub(crate) fn await_close(&self) -> quinn::ConnectionError {
        let closed =
            runtime().block_on(async { timeout(wait::SOON, self.connection.closed()).await });
        closed.expect("the connection is closed in time")
    }
}

async fn exchange(mut sender: SendRequest<OpenStreams, Bytes>, ask: Ask) -> Result<Reply, String> {
    let said = |error: h3::error::StreamError| error.to_string();
    let mut stream = sender.send_request(request(&ask)).await.map_err(said)?;
    // The server may say what it thinks of a body before it is whole.
    let mut sent = Ok(());
    if !ask.body_bytes().is_empty() {
        sent = stream
            .send_data(Bytes::copy_from_slice(ask.body_bytes()))
            .await;
    }
    if sent.is_ok() {
        let _ = stream.finish().await;
    }
    let mut interim = Vec::new();
    let head = loop {
        let head = stream.recv_response().await.map_err(said)?;
        if !head.status().is_informational() {
            break head;
        }
        interim.push(head.status().as_u16());
    };
    let mut body = Vec::new();
    while let Some(mut piece) = stream.recv_data().await.map_err(said)? {
        body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
    }
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut add = |map: &http::HeaderMap| {
        for (name, value) in map {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            fields.push((name.to_string(), value));
        }
    };
    add(head.headers());
    if let Some(trailers) = stream.recv_trailers().await.map_err(said)? {
        add(&trailers);
    }
    Ok(Reply {
        version: format!("{:?}", http::Version::HTTP_3),
        status: head.status().as_u16(),
        fields,
        body,
        interim,
    })
}

fn request(ask: &Ask) -> Request<()> {
    let mut request = Request::builder().method(ask.method());
    for (name, value) in ask.fields() {
        if !name.eq_ignore_ascii_case("host") {
            request = request.header(name, value);
        }
    }
    let target = format!("https://{}{}", ask.host_name(), ask.target());
    request.uri(target).body(()).expect("a request")
}

/// What became of a request made of bare frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Status(u16),
    Reset(u64),
    /// The connection was closed with this code.
    Closed(u64),
    Silence,
}

impl Verdict {
    /// A client error, 501, a stream error or the end of the connection: all are refusals.
    pub(crate) fn is_refusal(self) -> bool {
        match self {
            Self::Status(status) => matches!(status, 400..=499 | 501),
            Self::Reset(_) | Self::Closed(_) => true,
            Self::Silence => false,
        }
    }
}

/// Frame types of RFC 9114 section 7.2.
pub(crate) const DATA: u64 = 0x0;
pub(crate) const HEADERS: u64 = 0x1;
pub(crate) const SETTINGS: u64 = 0x4;
pub(crate) const GOAWAY: u64 = 0x7;

/// A connection whose frames are written by hand.
pub(crate) struct Bare(pub(crate) Connection);

impl Bare {
    /// A stream in one direction that begins with these octets and stays open.
    pub(crate) fn open_uni(&self, octets: &[u8]) -> quinn::SendStream {
        runtime().block_on(async {
            let mut stream = self.0.open_uni().await.expect("a stream");
            stream.write_all(octets).await.expect("a write");
            stream
        })
    }

    /// A stream of its own that begins with `octets`.
    #[track_caller]
    pub(crate) fn open(&self, octets: &[u8]) -> Own {
        runtime().block_on(async {
            let (mut send, recv) = self.0.open_bi().await.expect("a stream");
            send.write_all(octets).await.expect("a write");
            Own {
                send,
                recv,
                read: Vec::new(),
            }
        })
    }

    /// Sends `octets` on a stream of its own, with its end if `end`; what comes of it.
    pub(crate) fn send(&self, octets: &[u8], end: bool) -> Verdict {
        let decided = async {
            let Ok((mut send, mut recv)) = self.0.open_bi().await else {
                return self.closed().await;
            };
            let _ = send.write_all(octets).await;
            if end {
                let _ = send.finish();
            }
            let mut read = Vec::new();
            loop {
                match recv.read_chunk(4096, true).await {
                    Ok(Some(chunk)) => read.extend_from_slice(&chunk.bytes),
                    Err(quinn::ReadError::Reset(code)) => return Verdict::Reset(code.into_inner()),
                    Err(_) => return self.closed().await,
                    Ok(None) if read.is_empty() => return Verdict::Silence,
                    Ok(None) => {}
                }
                if let Some(status) = status(&read) {
                    return Verdict::Status(status);
                }
            }
        };
        let verdict = runtime().block_on(async { timeout(wait::SOON, decided).await });
        verdict.unwrap_or(Verdict::Silence)
    }

    /// The code that the connection is closed with.
    pub(crate) fn await_close(&self) -> Verdict {
        let closed = runtime().block_on(async { timeout(wait::SOON, self.closed()).await });
        closed.unwrap_or(Verdict::Silence)
    }

    async fn closed(&self) -> Verdict {
        match self.0.closed().await {
            quinn::ConnectionError::ApplicationClosed(close) => {
                Verdict::Closed(close.error_code.into_inner())
            }
            _ => Verdict::Closed(u64::MAX),
        }
    }
}

/// A stream that is written and read by hand.
pub(crate) struct Own {
    pub(crate) send: quinn::SendStream,
    pub(crate) recv: quinn::RecvStream,
    /// What came and nobody took.
    read: Vec<u8>,
}

impl Own {
    /// Whether the peer takes it.
    pub(crate) fn write(&mut self, octets: &[u8]) -> bool {
        let written = async { timeout(wait::SOON, self.send.write_all(octets)).await };
        matches!(runtime().block_on(written), Ok(Ok(())))
    }

    pub(crate) fn finish(&mut self) {
        // It fails where the peer wants no more of it.
        let _ = self.send.finish();
    }

    /// Reads at most `most` octets; how many, `None` at the end, or how it was cut.
    pub(crate) fn sip(
        &mut self,
        most: usize,
        patience: Duration,
    ) -> Result<Option<usize>, Verdict> {
        let read = async { timeout(patience, self.recv.read_chunk(most, true)).await };
        match runtime().block_on(read) {
            Err(_) => Err(Verdict::Silence),
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(chunk))) => {
                self.read.extend_from_slice(&chunk.bytes);
                Ok(Some(chunk.bytes.len()))
            }
            Ok(Err(quinn::ReadError::Reset(code))) => Err(Verdict::Reset(code.into_inner())),
            Ok(Err(_)) => Err(Verdict::Closed(u64::MAX)),
        }
    }

    /// What the peer says, in this time.
    pub(crate) fn verdict(&mut self, patience: Duration) -> Verdict {
        loop {
            if let Some(status) = status(&self.read) {
                return Verdict::Status(status);
            }
            match self.sip(4096, patience) {
                Ok(Some(_)) => {}
                Ok(None) => return Verdict::Silence,
                Err(verdict) => return verdict,
            }
        }
    }

    /// The payloads of DATA frames, until there are `count` octets, or to the end of the stream.
    pub(crate) fn data(&mut self, count: usize) -> Result<Vec<u8>, Verdict> {
        loop {
            let data = data(&self.read);
            if data.len() >= count {
                return Ok(data);
            }
            if self.sip(65536, wait::SOON)?.is_none() {
                return Ok(data);
            }
        }
    }
}

/// What the DATA frames among these octets hold.
fn data(mut octets: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some((kind, rest)) = varint(octets)
        && let Some((length, rest)) = varint(rest)
    {
        let length = usize::try_from(length).expect("a small number");
        let payload = &rest[..length.min(rest.len())];
        if kind == DATA {
            all.extend_from_slice(payload);
        }
        octets = &rest[payload.len()..];
    }
    all
}

/// RFC 9000 section 16.
fn varint(octets: &[u8]) -> Option<(u64, &[u8])> {
    let first = *octets.first()?;
    let (number, rest) = octets.split_at_checked(1 << (first >> 6))?;
    let start = u64::from(first & 0x3f);
    let value = number[1..].iter();
    let value = value.fold(start, |value, &octet| value << 8 | u64::from(octet));
    Some((value, rest))
}

/// A frame, with its type and length.
pub(crate) fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [kind, payload.len() as u64] {
        // Four octets hold every number here (RFC 9000 section 16).
        let number = u32::try_from(number).expect("a small number");
        out.extend_from_slice(&(number | 0x8000_0000).to_be_bytes());
    }
    out.extend_from_slice(payload);
    out
}

/// HEADERS with these fields, literally and in this order (RFC 9204 section 4.5.6).
pub(crate) fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0, 0];
    for (name, value) in fields {
        number(&mut block, 0b0010_0000, 7, name.len());
        block.extend_from_slice(name.as_bytes());
        number(&mut block, 0, 127, value.len());
        block.extend_from_slice(value.as_bytes());
    }
    frame(HEADERS, &block)
}

fn number(out: &mut Vec<u8>, flags: u8, most: u8, number: usize) {
    if number < usize::from(most) {
        return out.push(flags | u8::try_from(number).expect("a small number"));
    }
    out.push(flags | most);
    let mut rest = number - usize::from(most);
    while rest >= 0x80 {
        out.push(0x80 | u8::try_from(rest & 0x7f).expect("seven bits"));
        rest >>= 7;
    }
    out.push(u8::try_from(rest).expect("seven bits"));
}

/// `:status` stands first in the first frame: one of the static table's (RFC 9204 appendix A), or
/// three digits behind a reference to its name.
fn status(read: &[u8]) -> Option<u16> {
    let kind = *read.first()?;
    assert_eq!(u64::from(kind), HEADERS, "a reply begins with its head");
    let length = 1 << (read.get(1)? >> 6);
    match read.get(1 + length + 2..)? {
        [0xff, index, ..] => [100, 204, 206, 302, 400, 403, 421, 425, 500]
            .get(usize::from(*index))
            .copied(),
        [index @ 0xd8..=0xdc, ..] => Some([103, 200, 304, 404, 503][usize::from(index - 0xd8)]),
        [0x5f, 9, 3, digits @ ..] => std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok(),
        _ => None,
    }
}

/// A window for each stream so small that the server soon has to wait.
pub(crate) fn narrow(window: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(window));
    transport.receive_window(VarInt::from_u32(16 * window));
    transport
}
