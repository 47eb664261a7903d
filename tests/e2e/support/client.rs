//! An HTTP/1.1 client that sends exactly the bytes it is told to and shows
//! everything that came back: interim replies, repeated fields, how the body
//! was framed, whether the connection ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{certs, wait};

/// A request, written out by [`Ask::bytes`].
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The host every request names that names none itself.
pub(crate) const HOST: &str = "shop.test";

impl Ask {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: vec![("Host".into(), HOST.into())],
            body: Vec::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn head(target: &str) -> Self {
        Self::new("HEAD", target)
    }

    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).body(body)
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.fields[0].1 = host.to_owned();
        self
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Framed by Content-Length.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.field("Content-Length", &length)
    }

    /// In chunks of `each` octets.
    pub(crate) fn in_chunks(mut self, body: &[u8], each: usize) -> Self {
        for piece in body.chunks(each) {
            self.body
                .extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            self.body.extend_from_slice(piece);
            self.body.extend_from_slice(b"\r\n");
        }
        self.body.extend_from_slice(b"0\r\n\r\n");
        self.field("Transfer-Encoding", "chunked")
    }

    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    pub(crate) fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    pub(crate) fn host_name(&self) -> &str {
        &self.fields[0].1
    }

    pub(crate) fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.fields {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// A whole reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Statuses of the interim replies before it.
    pub(crate) interim: Vec<u16>,
}

impl Reply {
    /// The first value.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first member of `Cache-Status` that is the edge's own.
    pub(crate) fn cache_status(&self) -> String {
        self.field("cache-status").unwrap_or_default().to_owned()
    }

    /// Answered from the cache without waiting for the origin.
    pub(crate) fn is_hit(&self) -> bool {
        self.cache_status().split(';').any(|p| p.trim() == "hit")
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?} {}", self.text());
        self
    }
}

/// Why no whole reply came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The connection ended before the first byte.
    ClosedSilently,
    /// It ended or broke within a reply; what had come.
    Cut(String),
    /// Nothing (more) came in time; what had come.
    Silence(String),
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection.
pub(crate) struct Conn {
    stream: Box<dyn Stream>,
    socket: TcpStream,
    buffer: Vec<u8>,
    /// Lines behind the chunked bodies that were read.
    trailers: Vec<String>,
    limit: Duration,
}

impl From<TcpStream> for Conn {
    fn from(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("set TCP_NODELAY");
        let twin = socket.try_clone().expect("a second handle");
        Self::over(Box::new(twin), socket)
    }
}

impl Conn {
    #[track_caller]
    pub(crate) fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        Self::from(socket)
    }

    /// TLS with `http/1.1` by ALPN, any version, the test authority trusted.
    #[track_caller]
    pub(crate) fn tls(address: SocketAddr, host: &str) -> Self {
        let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
        Self::tls_with(address, host, config).expect("a TLS handshake")
    }

    pub(crate) fn tls_with(
        address: SocketAddr,
        host: &str,
        config: Arc<ClientConfig>,
    ) -> Result<Self, std::io::Error> {
        Self::tls_over(TcpStream::connect(address)?, host, config)
    }

    pub(crate) fn tls_over(
        mut socket: TcpStream,
        host: &str,
        config: Arc<ClientConfig>,
    ) -> Result<Self, std::io::Error> {
        socket.set_read_timeout(Some(wait::SOON))?;
        let mut tls = ClientConnection::new(config, certs::name(host))
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        let twin = socket.try_clone()?;
        Ok(Self::over(Box::new(StreamOwned::new(tls, twin)), socket))
    }

    fn over(stream: Box<dyn Stream>, socket: TcpStream) -> Self {
        Self {
            stream,
            socket,
            buffer: Vec::new(),
            trailers: Vec::new(),
            limit: wait::SOON,
        }
    }

    /// The lines behind the chunked bodies that were read since this was asked last.
    pub(crate) fn take_trailers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trailers)
    }

    /// How long to wait for bytes from now on.
    pub(crate) fn patience(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Errors are left for the reading to show: an edge that refuses may
    /// answer and close while the rest is still being sent.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self
            .stream
            .write_all(bytes.as_ref())
            .and_then(|()| self.stream.flush());
        self
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, ask: &Ask) -> Reply {
        self.send(ask.bytes());
        match self.read(ask.method == "HEAD") {
            Ok(reply) => reply,
            Err(broken) => panic!("no reply to {} {}: {broken:?}", ask.method, ask.target),
        }
    }

    /// The next reply (to something other than HEAD).
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        match self.read(false) {
            Ok(reply) => reply,
            Err(broken) => panic!("no reply: {broken:?}"),
        }
    }

    /// The next reply, interim ones folded into it; 101 counts as final.
    pub(crate) fn read(&mut self, to_head: bool) -> Result<Reply, Broken> {
        let mut interim = Vec::new();
        loop {
            let mut reply = self.head()?;
            if reply.status < 200 && reply.status != 101 {
                interim.push(reply.status);
                continue;
            }
            reply.interim = interim;
            if !to_head && !matches!(reply.status, 101 | 204 | 304) {
                reply.body = self.body(&reply)?;
            }
            return Ok(reply);
        }
    }

    /// Only the next head; its body stays unread.
    pub(crate) fn head(&mut self) -> Result<Reply, Broken> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        Ok(parse(&String::from_utf8_lossy(&head)))
    }

    fn body(&mut self, reply: &Reply) -> Result<Vec<u8>, Broken> {
        let chunked = reply
            .field("transfer-encoding")
            .is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        if chunked {
            return self.chunks();
        }
        if let Some(length) = reply.field("content-length") {
            return self.exactly(length.parse().expect("a Content-Length that is a number"));
        }
        loop {
            match self.more() {
                Ok(()) => {}
                Err(Broken::ClosedSilently) => return Ok(std::mem::take(&mut self.buffer)),
                Err(Broken::Cut(_)) => return Ok(std::mem::take(&mut self.buffer)),
                Err(silence) => return Err(silence),
            }
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| Broken::Cut(format!("a chunk size of {line:?}")))?;
            if size == 0 {
                loop {
                    match self.line()? {
                        end if end.is_empty() => return Ok(body),
                        line => self.trailers.push(line),
                    }
                }
            }
            body.extend(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(Broken::Cut("a chunk without its end".into()));
            }
        }
    }

    fn line(&mut self) -> Result<String, Broken> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            self.more()?;
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        Ok(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    /// So many bytes, whatever they are.
    pub(crate) fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < length {
            self.more()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// At least one byte more within the patience.
    fn more(&mut self) -> Result<(), Broken> {
        let so_far = |buffer: &[u8]| String::from_utf8_lossy(buffer).into_owned();
        let _ = self.socket.set_read_timeout(Some(self.limit));
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(n @ 1..) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Broken::Silence(so_far(&self.buffer)))
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Ok(_) | Err(_) if self.buffer.is_empty() => Err(Broken::ClosedSilently),
            Ok(_) | Err(_) => Err(Broken::Cut(so_far(&self.buffer))),
        }
    }

    /// Nothing more comes, and the peer ends the connection in time.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(
            self.more(),
            Err(Broken::ClosedSilently),
            "the connection ought to end without another byte; it said {:?}",
            String::from_utf8_lossy(&self.buffer)
        );
    }

    /// Whether the peer has ended the connection and said all it wanted.
    pub(crate) fn read_closed(&mut self) -> bool {
        let limit = std::mem::replace(&mut self.limit, Duration::from_millis(1));
        let said = self.more();
        self.limit = limit;
        matches!(said, Err(Broken::ClosedSilently | Broken::Cut(_)))
    }

    /// The connection is open and quiet for this long.
    #[track_caller]
    pub(crate) fn expect_quiet(&mut self, span: Duration) {
        let limit = std::mem::replace(&mut self.limit, span);
        let said = self.more();
        self.limit = limit;
        assert_eq!(said, Err(Broken::Silence(String::new())));
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends with a reset instead of an orderly close.
    pub(crate) fn reset(self) {
        reset(&self.socket);
    }
}

/// Makes the closing of this socket a reset.
pub(crate) fn reset(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

fn parse(head: &str) -> Reply {
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().splitn(3, ' ');
    let version = first.next().unwrap_or_default().to_owned();
    let status = first.next().and_then(|s| s.parse().ok());
    let fields = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Reply {
        version,
        status: status.unwrap_or_else(|| panic!("no status line: {head:?}")),
        fields,
        body: Vec::new(),
        interim: Vec::new(),
    }
}

pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn once(address: SocketAddr, ask: &Ask) -> Reply {
    Conn::open(address).ask(ask)
}
