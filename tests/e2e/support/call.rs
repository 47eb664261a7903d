//! HTTP/2 by the `h2` crate: both directions of a stream in the hands of the test, with trailers,
//! interim replies and the extended CONNECT.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest, handshake};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{certs, runtime, wait};

/// A connection.
pub(crate) struct Streams {
    sender: SendRequest<Bytes>,
    scheme: &'static str,
}

/// One request on it.
pub(crate) struct Call {
    reply: ResponseFuture,
    upload: SendStream<Bytes>,
    download: Option<RecvStream>,
}

impl Streams {
    /// By prior knowledge.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        let sender = runtime().block_on(async {
            let socket = TcpStream::connect(address).await.expect("a connection");
            let (sender, driver) = handshake(socket).await.expect("HTTP/2");
            tokio::spawn(driver);
            sender
        });
        Self {
            sender,
            scheme: "http",
        }
    }

    /// By ALPN.
    pub(crate) fn tls(address: SocketAddr, host: &str) -> Self {
        let config = certs::client(&["h2"], rustls::ALL_VERSIONS);
        let sender = runtime().block_on(async {
            let socket = TcpStream::connect(address).await.expect("a connection");
            let tls = tokio_rustls::TlsConnector::from(config);
            let tls = tls.connect(certs::name(host), socket).await;
            let (sender, driver) = handshake(tls.expect("TLS")).await.expect("HTTP/2");
            tokio::spawn(driver);
            sender
        });
        Self {
            sender,
            scheme: "https",
        }
    }

    /// Begins a request; `end`: it is a head alone.
    pub(crate) fn begin(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        end: bool,
    ) -> Call {
        let uri = format!("{}://{}{target}", self.scheme, super::client::HOST);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.send(request.body(()).expect("a request"), end)
    }

    /// The extended CONNECT, once the peer has said that it takes it.
    pub(crate) fn connect(&mut self, protocol: &'static str, target: &str) -> Call {
        let sender = &self.sender;
        wait::eventually("the extended CONNECT", wait::SOON, || {
            sender.is_extended_connect_protocol_enabled()
        });
        let uri = format!("{}://{}{target}", self.scheme, super::client::HOST);
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(uri)
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static(protocol));
        self.send(request.body(()).expect("a request"), false)
    }

    fn send(&mut self, request: Request<()>, end: bool) -> Call {
        runtime().block_on(async {
            poll_fn(|cx| self.sender.poll_ready(cx))
                .await
                .expect("an open connection");
            let (reply, upload) = self.sender.send_request(request, end).expect("sent");
            Call {
                reply,
                upload,
                download: None,
            }
        })
    }
}

impl Call {
    /// Sends a piece of the body as the peer makes room for it.
    pub(crate) fn data(&mut self, piece: impl Into<Bytes>, end: bool) {
        let mut piece = piece.into();
        let send = async {
            while !piece.is_empty() {
                self.upload.reserve_capacity(piece.len());
                let room = match self.upload.capacity() {
                    0 => poll_fn(|cx| self.upload.poll_capacity(cx)).await,
                    room => Some(Ok(room)),
                };
                let room = room.expect("an open stream").expect("room");
                let part = piece.split_to(room.min(piece.len()));
                let last = end && piece.is_empty();
                self.upload.send_data(part, last).expect("sent");
                if last {
                    return;
                }
            }
            if end {
                self.upload.send_data(Bytes::new(), true).expect("sent");
            }
        };
        let sent = runtime().block_on(async { timeout(wait::SOON, send).await });
        sent.expect("room in time");
    }

    /// Ends the request.
    pub(crate) fn trailers(&mut self, fields: &[(&'static str, &str)]) {
        let mut trailers = HeaderMap::new();
        for (name, value) in fields {
            trailers.append(*name, value.parse().expect("a value"));
        }
        let _enter = runtime().enter();
        self.upload.send_trailers(trailers).expect("sent");
    }

    pub(crate) fn reset(&mut self) {
        self.upload.send_reset(h2::Reason::CANCEL);
    }

    /// The next interim reply, before the final one is asked for.
    pub(crate) fn interim(&mut self) -> Response<()> {
        let next = poll_fn(|cx| match self.reply.poll_informational(cx) {
            Poll::Ready(Some(interim)) => Poll::Ready(interim),
            // It may be that none has come yet: the final one wakes, too.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        });
        let next = runtime().block_on(async { timeout(wait::SOON, next).await });
        next.expect("an interim reply in time").expect("one")
    }

    /// The final head.
    pub(crate) fn head(&mut self) -> Result<Response<()>, String> {
        let reply = runtime().block_on(async { timeout(wait::SOON, &mut self.reply).await });
        let (head, download) = reply
            .map_err(|_| "silence".to_owned())?
            .map_err(|error| error.to_string())?
            .into_parts();
        self.download = Some(download);
        Ok(Response::from_parts(head, ()))
    }

    /// The next piece of the reply; `None` at its end.
    pub(crate) fn piece(&mut self) -> Option<Result<Bytes, String>> {
        let download = self.download.as_mut().expect("a head");
        let next = runtime().block_on(async { timeout(wait::SOON, download.data()).await });
        match next {
            Err(_) => Some(Err("silence".to_owned())),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some(Err(error.to_string())),
            Ok(Some(Ok(piece))) => {
                let _ = download.flow_control().release_capacity(piece.len());
                Some(Ok(piece))
            }
        }
    }

    /// So many octets of the reply.
    pub(crate) fn exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        while all.len() < length {
            let piece = self.piece().unwrap_or(Err("the end".to_owned()));
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }

    /// The rest of the reply and its trailers.
    pub(crate) fn rest(&mut self) -> Result<(Vec<u8>, HeaderMap), String> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece() {
            all.extend_from_slice(&piece?);
        }
        let download = self.download.as_mut().expect("a head");
        let trailers = runtime().block_on(async { timeout(wait::SOON, download.trailers()).await });
        let trailers = trailers.map_err(|_| "silence".to_owned())?;
        let trailers = trailers.map_err(|error| error.to_string())?;
        Ok((all, trailers.unwrap_or_default()))
    }
}
