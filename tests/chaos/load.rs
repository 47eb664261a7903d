//! Open-loop load on one thread: each request begins when the clock says so,
//! whatever became of those before it, and its latency counts from that moment.
//! A server that stalls is thus charged for everybody who would have waited
//! (Tene's "coordinated omission"). How late the driver itself was stands beside
//! each request.
//!
//! HTTP/1.1 over kept connections, written by hand so that it costs little
//! beside the server under test.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{sleep, sleep_until, timeout};

use crate::cluster;
use crate::wire::{ID_FIELD, Random, reply_body, request_body};

/// After which a client gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Percentage of requests that are POST.
const POSTS: u64 = 20;

/// Why a request failed, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// No connection to the edge.
    Connect,
    /// The connection ended before the first byte of the reply.
    Closed,
    /// It ended within the head.
    CutHead,
    /// It ended within the body.
    CutBody,
    /// Another status than 200.
    Status(u16),
    /// Something else than the body that belongs to this request, or bytes after it.
    WrongBody,
    /// Nothing whole in time.
    Timeout,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("no connection"),
            Self::Closed => f.write_str("closed without a reply"),
            Self::CutHead => f.write_str("cut head"),
            Self::CutBody => f.write_str("cut body"),
            Self::Status(status) => write!(f, "{status}"),
            Self::WrongBody => f.write_str("wrong body"),
            Self::Timeout => f.write_str("no reply in time"),
        }
    }
}

/// One request of the load; its id is its place in the list.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) post: bool,
    /// When it was to begin, since the load began.
    pub(crate) start: Duration,
    /// How much later the driver came to it.
    pub(crate) lag: Duration,
    /// From `start` to the end of the reply, or to the failure.
    pub(crate) latency: Duration,
    /// The node that answered.
    pub(crate) outcome: Result<usize, Failure>,
    /// A kept connection turned out to be closed; sent once more on another, as
    /// browsers do (GET only).
    pub(crate) resent: bool,
}

/// What is asked of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) edge: SocketAddr,
    /// Requests a second.
    pub(crate) rate: u32,
    pub(crate) seed: u64,
    pub(crate) begin: Instant,
}

/// Load under way.
pub(crate) struct Load {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Record>>>,
}

impl Load {
    pub(crate) fn start(order: Order) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopping);
        let thread = std::thread::Builder::new().name("load".into());
        let thread = thread
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                LocalSet::new().block_on(&runtime, drive(order, &seen))
            })
            .expect("a thread");
        Self {
            stopping,
            thread: Some(thread),
        }
    }

    /// No new requests; those under way are waited for.
    pub(crate) fn end(mut self) -> Vec<Record> {
        self.stopping.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("ended once");
        thread.join().expect("a load that does not panic")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
    }
}

struct Shared {
    order: Order,
    /// The one used last on top.
    idle: RefCell<Vec<Conn>>,
    records: RefCell<Vec<Record>>,
    under_way: Cell<usize>,
}

struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
}

async fn drive(order: Order, stopping: &AtomicBool) -> Vec<Record> {
    let shared = Rc::new(Shared {
        order,
        idle: RefCell::default(),
        records: RefCell::default(),
        under_way: Cell::default(),
    });
    let mut random = Random::new(order.seed);
    let mut id = 0_u32;
    while !stopping.load(Ordering::SeqCst) {
        let start = Duration::from_secs(1) * id / order.rate;
        let due = order.begin + start;
        sleep_until(due.into()).await;
        let post = random.percent(POSTS);
        shared.records.borrow_mut().push(Record {
            post,
            start,
            lag: due.elapsed(),
            latency: Duration::ZERO,
            outcome: Err(Failure::Timeout),
            resent: false,
        });
        shared.under_way.set(shared.under_way.get() + 1);
        spawn_local(request(Rc::clone(&shared), id, due, post));
        id += 1;
        // One that is behind must still let the replies in.
        yield_now().await;
    }
    while shared.under_way.get() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    shared.records.take()
}

async fn request(shared: Rc<Shared>, id: u32, due: Instant, post: bool) {
    let mut resent = false;
    let whole = timeout(PATIENCE, shared.one(u64::from(id), post, &mut resent)).await;
    let outcome = whole.unwrap_or(Err(Failure::Timeout));
    let mut records = shared.records.borrow_mut();
    let place = usize::try_from(id).unwrap_or(usize::MAX);
    if let Some(record) = records.get_mut(place) {
        record.latency = due.elapsed();
        record.outcome = outcome;
        record.resent = resent;
    }
    shared.under_way.set(shared.under_way.get() - 1);
}

impl Shared {
    /// One request; the node that answered it.
    async fn one(&self, id: u64, post: bool, resent: &mut bool) -> Result<usize, Failure> {
        let (bytes, body) = written(id, post);
        if let Some(mut kept) = self.kept()? {
            match kept.exchange(&bytes, id, post, &body).await {
                // The edge closed it in this very instant.
                Err(Failure::Closed) if !post => *resent = true,
                outcome => return self.keep(kept, outcome),
            }
        }
        let stream = TcpStream::connect(self.order.edge)
            .await
            .map_err(|_| Failure::Connect)?;
        let _ = stream.set_nodelay(true);
        let buffer = Vec::with_capacity(2_048);
        let mut fresh = Conn { stream, buffer };
        let outcome = fresh.exchange(&bytes, id, post, &body).await;
        self.keep(fresh, outcome)
    }

    /// A kept connection that is still open. One on which something came
    /// although nothing was asked is a reply to nobody.
    fn kept(&self) -> Result<Option<Conn>, Failure> {
        while let Some(conn) = self.idle.borrow_mut().pop() {
            match conn.stream.try_read(&mut [0; 1]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Ok(Some(conn));
                }
                Ok(1..) => return Err(Failure::WrongBody),
                Ok(0) | Err(_) => {}
            }
        }
        Ok(None)
    }

    fn keep(&self, conn: Conn, outcome: Result<Good, Failure>) -> Result<usize, Failure> {
        let good = outcome?;
        if good.persistent {
            self.idle.borrow_mut().push(conn);
        }
        Ok(good.node)
    }
}

/// The request's bytes, and its body alone.
fn written(id: u64, post: bool) -> (Vec<u8>, Vec<u8>) {
    let fields = format!("Host: app.test\r\n{ID_FIELD}: {id}\r\n");
    if !post {
        let head = format!("GET /work?id={id} HTTP/1.1\r\n{fields}\r\n");
        return (head.into_bytes(), Vec::new());
    }
    let body = request_body(id);
    let length = body.len();
    let head = format!("POST /work?id={id} HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&body);
    (bytes, body)
}

struct Good {
    node: usize,
    /// The connection may be used again.
    persistent: bool,
}

/// What matters of a reply's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: Option<usize>,
    persistent: bool,
}

impl Conn {
    async fn exchange(
        &mut self,
        bytes: &[u8],
        id: u64,
        post: bool,
        body: &[u8],
    ) -> Result<Good, Failure> {
        self.buffer.clear();
        // An edge that closes may have answered before: the reading tells.
        let _ = self.stream.write_all(bytes).await;
        let (end, head) = self.head().await?;
        if head.status != 200 {
            return Err(Failure::Status(head.status));
        }
        // Nodes frame by length; an edge that changes that changes the reply.
        let whole = end + head.length.ok_or(Failure::WrongBody)?;
        while self.buffer.len() < whole {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(Failure::CutBody),
            }
        }
        let node = judge(&self.buffer[end..], id, post, body).ok_or(Failure::WrongBody)?;
        Ok(Good {
            node,
            persistent: head.persistent,
        })
    }

    /// The head and where it ends.
    async fn head(&mut self) -> Result<(usize, Head), Failure> {
        loop {
            let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = parse(&self.buffer[..end]).ok_or(Failure::WrongBody)?;
                return Ok((end + 4, head));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) if self.buffer.is_empty() => return Err(Failure::Closed),
                Ok(0) | Err(_) => return Err(Failure::CutHead),
            }
        }
    }
}

fn parse(head: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?;
    let mut parsed = Head {
        status: status.get(..3)?.parse().ok()?,
        length: None,
        persistent: true,
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            parsed.length = Some(value.trim().parse().ok()?);
        } else if name.eq_ignore_ascii_case("connection") {
            parsed.persistent = !value.trim().eq_ignore_ascii_case("close");
        }
    }
    Some(parsed)
}

/// The node that answered, if this is exactly what it answers to this request.
fn judge(reply: &[u8], id: u64, post: bool, body: &[u8]) -> Option<usize> {
    let name = reply.split(|byte| *byte == b' ').next()?;
    let name = std::str::from_utf8(name).ok()?;
    let node = cluster::number(name)?;
    let method = if post { "POST" } else { "GET" };
    (reply == reply_body(name, id, method, body)).then_some(node)
}

/// A reply is taken for good only if every byte of it is.
pub(crate) fn a_reply_of_another_request_is_noticed() {
    let body = request_body(7);
    let right = reply_body("n3", 7, "POST", &body);
    assert_eq!(judge(&right, 7, true, &body), Some(3));
    assert_eq!(judge(&right, 8, true, &body), None, "another id");
    assert_eq!(judge(&right, 7, false, &[]), None, "another method");
    assert_eq!(
        judge(&right, 7, true, &request_body(8)),
        None,
        "another body"
    );
    assert_eq!(
        judge(&right[1..], 7, true, &body),
        None,
        "a byte is missing"
    );
    let longer = [right.as_slice(), b"H"].concat();
    assert_eq!(judge(&longer, 7, true, &body), None, "a byte too many");
    let head = parse(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: close").unwrap();
    let expected = Head {
        status: 200,
        length: Some(5),
        persistent: false,
    };
    assert_eq!(head, expected);
}
