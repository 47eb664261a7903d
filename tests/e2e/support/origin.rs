//! An HTTP/1.1 app node in the test's own process: answers as a closure says,
//! keeps every request as its bytes came, and is strict, so that whatever the
//! edge would send wrongly (a left-over chunk on a pooled connection, a field
//! that is none) stands in [`Origin::broken`] instead of passing unseen.
//!
//! One thread a connection; for load use nginx.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::{find, reset};
use super::seen::{Seen, parse};
use super::{ports, wait};

/// What is done, in order, for one request.
#[derive(Debug, Clone)]
enum Step {
    Pause(Duration),
    Wait(Gate),
    Send(Vec<u8>),
    /// Whatever comes is sent back until the peer ends.
    Echo,
    Close,
    Reset,
}

/// An answer in the making.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    before: Vec<Step>,
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<Step>,
    framing: Framing,
    after: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
    /// No head of ours at all.
    Raw,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            before: Vec::new(),
            status,
            fields: Vec::new(),
            framing: Framing::Length(body.len()),
            body: vec![Step::Send(body)],
            after: Vec::new(),
        }
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    /// Cacheable for this many seconds.
    pub(crate) fn fresh(seconds: u32, body: impl Into<Vec<u8>>) -> Self {
        Self::ok(body).field("Cache-Control", &format!("max-age={seconds}"))
    }

    /// Chunked, a chunk for each piece, with a pause before each but the first.
    pub(crate) fn chunks<B: AsRef<[u8]>>(pieces: &[B], between: Duration) -> Self {
        let mut answer = Self::new(200, "");
        answer.framing = Framing::Chunked;
        answer.body.clear();
        for (nth, piece) in pieces.iter().map(AsRef::as_ref).enumerate() {
            if nth > 0 && !between.is_zero() {
                answer.body.push(Step::Pause(between));
            }
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            answer.body.push(Step::Send(chunk));
        }
        answer.body.push(Step::Send(b"0\r\n\r\n".to_vec()));
        answer
    }

    /// These lines behind a chunked body.
    pub(crate) fn trailers(mut self, lines: &[&str]) -> Self {
        assert_eq!(self.framing, Framing::Chunked, "only chunks have trailers");
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        self.body.pop();
        let last = format!("0\r\n{lines}\r\n");
        self.body.push(Step::Send(last.into_bytes()));
        self
    }

    /// These bytes before the answer, an interim reply of them among others.
    pub(crate) fn behind(mut self, bytes: &str) -> Self {
        self.before.push(Step::Send(bytes.as_bytes().to_vec()));
        self
    }

    /// Ended by closing the connection.
    pub(crate) fn until_close(body: impl Into<Vec<u8>>) -> Self {
        let mut answer = Self::ok(body);
        answer.framing = Framing::UntilClose;
        answer.then_close()
    }

    /// These bytes and nothing else, then close.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        let mut answer = Self::ok(bytes);
        answer.framing = Framing::Raw;
        answer.then_close()
    }

    /// The connection is reset instead of an answer.
    pub(crate) fn reset() -> Self {
        let mut answer = Self::raw("");
        answer.after = vec![Step::Reset];
        answer
    }

    /// 101, then every byte is sent back.
    pub(crate) fn websocket() -> Self {
        Self::websocket_with("")
    }

    /// The same with more lines in the head.
    pub(crate) fn websocket_with(lines: &str) -> Self {
        let mut answer = Self::raw(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{lines}\r\n"
        ));
        answer.after = vec![Step::Echo];
        answer
    }

    pub(crate) fn reads_not_before(mut self, gate: &Gate) -> Self {
        self.after.insert(0, Step::Wait(gate.clone()));
        self
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn after(mut self, pause: Duration) -> Self {
        self.before.push(Step::Pause(pause));
        self
    }

    /// Not before the gate is opened.
    pub(crate) fn when(mut self, gate: &Gate) -> Self {
        self.before.push(Step::Wait(gate.clone()));
        self
    }

    /// A longer Content-Length than is sent, then the connection ends.
    pub(crate) fn short_by(mut self, missing: usize) -> Self {
        if let Framing::Length(length) = self.framing {
            self.framing = Framing::Length(length + missing);
        }
        self.then_close()
    }

    /// The connection goes on after this answer.
    pub(crate) fn then_stay(mut self) -> Self {
        self.after.clear();
        self
    }

    /// The connection ends after this answer, unannounced.
    pub(crate) fn then_close(mut self) -> Self {
        self.after = vec![Step::Close];
        self
    }

    fn steps(self, to_head: bool) -> Vec<Step> {
        let mut steps = self.before;
        let bodiless = to_head || matches!(self.status, 204 | 304);
        if self.framing != Framing::Raw {
            let mut head = format!("HTTP/1.1 {} Status\r\n", self.status);
            for (name, value) in &self.fields {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            match self.framing {
                Framing::Length(_) if matches!(self.status, 204 | 304) => {}
                Framing::Length(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
                Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
                Framing::UntilClose | Framing::Raw => {}
            }
            head.push_str("\r\n");
            steps.push(Step::Send(head.into_bytes()));
        }
        if !bodiless {
            steps.extend(self.body);
        }
        steps.extend(self.after);
        steps
    }
}

/// Holds answers back until it is opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        *lock(&self.0.0)
    }

    pub(crate) fn wait(&self) {
        let open = lock(&self.0.0);
        let _ = self
            .0
            .1
            .wait_timeout_while(open, 3 * wait::SOON, |open| !*open);
    }
}

type Handler = dyn Fn(&Seen) -> Answer + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    ended: AtomicUsize,
    stopping: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    broken: Mutex<Vec<String>>,
    open: Mutex<Vec<TcpStream>>,
}

/// The node; down when dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Origin {
    pub(crate) fn start(handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(ports::free(), handler)
    }

    /// At an address that the test chose.
    pub(crate) fn start_at(
        address: SocketAddr,
        handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let mut origin = Self {
            address,
            shared: Arc::new(Shared {
                handler: Box::new(handler),
                requests: AtomicUsize::new(0),
                connections: AtomicUsize::new(0),
                ended: AtomicUsize::new(0),
                stopping: AtomicBool::new(false),
                seen: Mutex::default(),
                broken: Mutex::default(),
                open: Mutex::default(),
            }),
            accepting: None,
        };
        origin.up();
        origin
    }

    /// Answers 200 with its own name, for whatever is asked.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::start(move |_| Answer::ok(name))
    }

    /// Listens (again).
    pub(crate) fn up(&mut self) {
        if self.accepting.is_some() {
            return;
        }
        let listener = wait::until("the origin's port to be free", wait::SOON, || {
            TcpListener::bind(self.address).ok()
        });
        self.shared.stopping.store(false, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        self.accepting = Some(std::thread::spawn(move || accept(&listener, &shared)));
    }

    /// Stops listening and ends every connection: what a killed process looks like.
    pub(crate) fn down(&mut self) {
        let Some(accepting) = self.accepting.take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = accepting.join();
        for socket in lock(&self.shared.open).drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Requests so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Those of them that have not ended; one on which an answer waits counts as open.
    pub(crate) fn open(&self) -> usize {
        self.connections() - self.shared.ended.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("the origin has seen a request")
    }

    /// Requests for this target.
    pub(crate) fn count_of(&self, target: &str) -> usize {
        let seen = lock(&self.shared.seen);
        seen.iter().filter(|s| s.target == target).count()
    }

    /// What peers sent that is not HTTP.
    pub(crate) fn broken(&self) -> Vec<String> {
        lock(&self.shared.broken).clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.down();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
        if let Ok(twin) = socket.try_clone() {
            lock(&shared.open).push(twin);
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let mut peer = Peer {
                socket,
                buffer: Vec::new(),
                trailers: Vec::new(),
            };
            if let Err(what) = serve(&mut peer, connection, &shared) {
                lock(&shared.broken).push(what);
            }
            let _ = peer.socket.shutdown(Shutdown::Both);
            shared.ended.fetch_add(1, Ordering::SeqCst);
        });
    }
}

fn serve(peer: &mut Peer, connection: usize, shared: &Shared) -> Result<(), String> {
    let _ = peer.socket.set_nodelay(true);
    while let Some(mut seen) = peer.request(connection)? {
        seen.nth = shared.requests.fetch_add(1, Ordering::SeqCst);
        lock(&shared.seen).push(seen.clone());
        let answer = (shared.handler)(&seen);
        for step in answer.steps(seen.method == "HEAD") {
            match step {
                Step::Pause(span) => wait::hold(span),
                Step::Wait(gate) => gate.wait(),
                Step::Send(bytes) => {
                    if peer.socket.write_all(&bytes).is_err() {
                        return Ok(());
                    }
                }
                Step::Echo => return peer.echo(),
                Step::Close => return Ok(()),
                Step::Reset => {
                    reset(&peer.socket);
                    // The twin kept for `down` must go too, or no RST is sent.
                    let port = peer.socket.peer_addr().ok();
                    lock(&shared.open).retain(|s| s.peer_addr().ok() != port);
                    return Ok(());
                }
            }
        }
        if seen.says("connection", "close") {
            return Ok(());
        }
    }
    Ok(())
}

struct Peer {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// Of the request that is being read.
    trailers: Vec<String>,
}

impl Peer {
    /// The next request; `None`: the peer ended between two.
    fn request(&mut self, connection: usize) -> Result<Option<Seen>, String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more() {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(format!("cut head {:?}", self.so_far())),
                };
            }
        };
        let raw: Vec<u8> = self.buffer.drain(..end).collect();
        let raw = String::from_utf8_lossy(&raw).into_owned();
        let mut seen = parse(&raw, connection)?;
        if seen.says("expect", "100-continue") {
            let _ = self.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        seen.body = self.body(&seen)?;
        seen.trailers = std::mem::take(&mut self.trailers);
        Ok(Some(seen))
    }

    fn body(&mut self, seen: &Seen) -> Result<Vec<u8>, String> {
        let lengths = seen.all("content-length");
        let chunked = seen.field("transfer-encoding").is_some();
        match (lengths.as_slice(), chunked) {
            ([], false) => Ok(Vec::new()),
            ([length], false) => {
                let length = length.parse().map_err(|_| format!("length {length:?}"))?;
                self.exactly(length)
            }
            ([], true) => self.chunks(),
            _ => Err(format!("two framings: {:?}", seen.raw)),
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| format!("chunk {line:?}"))?;
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
                return Err("a chunk without its end".into());
            }
        }
    }

    fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more() {
                return Err(format!("cut line {:?}", self.so_far()));
            }
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < length {
            if !self.more() {
                return Err(format!("cut body, {} of {length}", self.buffer.len()));
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn echo(&mut self) -> Result<(), String> {
        loop {
            let bytes = std::mem::take(&mut self.buffer);
            if self.socket.write_all(&bytes).is_err() || !self.more() {
                return Ok(());
            }
        }
    }

    fn more(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.socket.read(&mut chunk) {
            Ok(n @ 1..) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
            _ => false,
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}
