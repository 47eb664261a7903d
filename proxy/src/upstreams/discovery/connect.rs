//! A connection to a server of lists, or to another one that Tidegate asks for itself.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Authority;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// "Connection Attempt Delay", RFC 8305, section 5.
const NEXT_ATTEMPT: Duration = Duration::from_millis(250);

/// Plain or not.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to the host of a URL, by a name or an address; `port` where it says none.
///
/// # Errors
/// In words: it has no address, or nobody answers there.
pub(crate) async fn to(authority: &Authority, port: u16) -> Result<TcpStream, String> {
    let host = bare_host(authority);
    let port = authority.port_u16().unwrap_or(port);
    let addresses = tokio::net::lookup_host((host, port)).await;
    let addresses = addresses.map_err(|error| format!("{host} has no address: {error}"))?;
    let stream = tcp(addresses.collect()).await;
    stream.map_err(|error| format!("no connection: {error}"))
}

/// The host of a URL, an IPv6 address without its brackets.
pub(crate) fn bare_host(authority: &Authority) -> &str {
    let host = authority.host();
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The first connection that comes about: the addresses are tried in turn, the next one when the
/// last failed or takes long. Who calls sets the deadline.
pub(crate) async fn tcp(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut rest = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = rest.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        let ended = match rest.len() {
            0 => attempts.join_next().await,
            _ => match tokio::time::timeout(NEXT_ATTEMPT, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(failed))) => error = failed,
            Some(Err(failed)) => error = io::Error::other(failed),
            None => return Err(error),
        }
    }
}

/// TLS on it, the certificate verified for `host`.
pub(crate) async fn tls(
    stream: TcpStream,
    host: &str,
    config: Arc<ClientConfig>,
) -> io::Result<Stream> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Stream::Tls(Box::new(stream)))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
