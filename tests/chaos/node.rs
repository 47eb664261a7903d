//! One app node, in a process of its own: it can be killed and stopped like a
//! real one, and it fails in the ways it is told to.
//!
//! It answers `/work` and `/healthz`, and appends every request to its ledger
//! *before* it does anything about it: what stands there was executed, whatever
//! became of the reply. Orders come as lines on a second port; it ends when the
//! process that started it does.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use crate::wire::{ID_FIELD, Random, reply_body};

/// The variable whose presence makes this program a node.
pub(crate) const VARIABLE: &str = "TIDEGATE_CHAOS_NODE";

/// What a node is started with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) control: SocketAddr,
    pub(crate) ledger: PathBuf,
    pub(crate) seed: u64,
}

impl Settings {
    /// As the value of [`VARIABLE`].
    pub(crate) fn to_text(&self) -> String {
        let (name, address, control) = (&self.name, self.address, self.control);
        let (seed, ledger) = (self.seed, self.ledger.display());
        format!("{name} {address} {control} {seed} {ledger}")
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut words = text.splitn(5, ' ');
        Some(Self {
            name: words.next()?.to_owned(),
            address: words.next()?.parse().ok()?,
            control: words.next()?.parse().ok()?,
            seed: words.next()?.parse().ok()?,
            ledger: words.next()?.into(),
        })
    }
}

/// Each is off until ordered: `NAME VALUE` sets one, `clear` all to 0.
#[derive(Default)]
struct Faults {
    /// Milliseconds before every reply, the health page's too.
    slow: Cell<u64>,
    /// Percentage of requests answered by 503.
    errors: Cell<u64>,
    /// Percentage of replies reset in the middle of their head.
    head: Cell<u64>,
    /// Percentage of replies reset in the middle of their body.
    body: Cell<u64>,
    /// The health page is good twice, then bad twice, and so on.
    flap: Cell<u64>,
    /// Requests are read and not answered; the health page is.
    silent: Cell<u64>,
}

impl Faults {
    fn named(&self, name: &str) -> Option<&Cell<u64>> {
        Some(match name {
            "slow" => &self.slow,
            "errors" => &self.errors,
            "head" => &self.head,
            "body" => &self.body,
            "flap" => &self.flap,
            "silent" => &self.silent,
            _ => return None,
        })
    }

    fn order(&self, line: &str) -> bool {
        let (name, value) = line.split_once(' ').unwrap_or((line, "0"));
        if name == "clear" {
            for name in ["slow", "errors", "head", "body", "flap", "silent"] {
                self.order(name);
            }
            return true;
        }
        match (self.named(name), value.parse()) {
            (Some(fault), Ok(value)) => fault.set(value),
            _ => return false,
        }
        true
    }
}

struct Node {
    name: String,
    ledger: File,
    faults: Faults,
    checks: Cell<u64>,
    random: RefCell<Random>,
}

/// Serves until the process ends.
pub(crate) fn run(settings: &str) -> Result<(), std::io::Error> {
    let settings = Settings::from_text(settings)
        .ok_or_else(|| std::io::Error::other(format!("{VARIABLE}: {settings}")))?;
    let node = Rc::new(Node {
        ledger: File::options()
            .append(true)
            .create(true)
            .open(&settings.ledger)?,
        name: settings.name,
        faults: Faults::default(),
        checks: Cell::default(),
        random: RefCell::new(Random::new(settings.seed)),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let work = TcpListener::bind(settings.address).await?;
        let control = TcpListener::bind(settings.control).await?;
        let parent = std::os::unix::process::parent_id();
        let served = Rc::clone(&node);
        spawn_local(async move {
            loop {
                if let Ok((stream, _)) = work.accept().await {
                    spawn_local(serve(Rc::clone(&served), stream));
                }
            }
        });
        spawn_local(async move {
            loop {
                if let Ok((stream, _)) = control.accept().await {
                    spawn_local(obey(Rc::clone(&node), stream));
                }
            }
        });
        // A test that was killed ends nothing; its nodes notice.
        while std::os::unix::process::parent_id() == parent {
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    })
}

async fn obey(node: Rc<Node>, stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while let Ok(1..) = stream.read_line(&mut line).await {
        let known = node.faults.order(line.trim());
        let said: &[u8] = if known { b"ok\n" } else { b"unknown\n" };
        if stream.get_mut().write_all(said).await.is_err() {
            return;
        }
        line.clear();
    }
}

/// What is sent, and whether the connection is reset after it.
struct Reply {
    bytes: Vec<u8>,
    reset: bool,
}

struct Request {
    method: String,
    path: String,
    id: Option<u64>,
    body: Vec<u8>,
    /// The connection ends after it.
    last: bool,
}

async fn serve(node: Rc<Node>, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await {
        let reply = node.answer(&request).await;
        if stream.write_all(&reply.bytes).await.is_err() {
            return;
        }
        if request.last && !reply.reset {
            return;
        }
        if reply.reset {
            // So that the other side has read the part before the reset
            // discards it.
            sleep(Duration::from_millis(5)).await;
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return;
        }
    }
}

/// The next request; `None` at the end of the connection.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let head = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (mut id, mut length, mut last) = (None, 0, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case(ID_FIELD) {
            id = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        } else if name.eq_ignore_ascii_case("connection") {
            last = value.trim().eq_ignore_ascii_case("close");
        }
    }
    while buffer.len() < head + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[head..head + length].to_vec();
    buffer.drain(..head + length);
    let path = target.split('?').next()?.to_owned();
    Some(Request {
        method,
        path,
        id,
        body,
        last,
    })
}

impl Node {
    async fn answer(&self, request: &Request) -> Reply {
        let health = request.path == "/healthz";
        if let Some(id) = request.id {
            // One write a line: with O_APPEND a kill leaves whole lines only.
            let line = format!("{id} {}\n", request.method);
            if (&self.ledger).write_all(line.as_bytes()).is_err() {
                return Reply::of(500, b"no ledger\n");
            }
        }
        let slow = self.faults.slow.get();
        if slow > 0 {
            sleep(Duration::from_millis(slow)).await;
        }
        if health {
            return self.health();
        }
        while self.faults.silent.get() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
        let Some(id) = request.id else {
            return Reply::of(400, b"no id\n");
        };
        let mut random = self.random.borrow_mut();
        if random.percent(self.faults.errors.get()) {
            return Reply::of(503, b"told to fail\n");
        }
        let body = reply_body(&self.name, id, &request.method, &request.body);
        let whole = Reply::of(200, &body);
        if random.percent(self.faults.head.get()) {
            return whole.cut(24);
        }
        if random.percent(self.faults.body.get()) {
            let half = whole.bytes.len() - body.len() / 2;
            return whole.cut(half);
        }
        whole
    }

    fn health(&self) -> Reply {
        let nth = self.checks.replace(self.checks.get() + 1);
        let bad = self.faults.flap.get() > 0 && nth % 4 >= 2;
        Reply::of(if bad { 500 } else { 200 }, b"health\n")
    }
}

impl Reply {
    fn of(status: u16, body: &[u8]) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Chaos\r\nContent-Length: {length}\r\n\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        Self {
            bytes,
            reset: false,
        }
    }

    fn cut(mut self, after: usize) -> Self {
        self.bytes.truncate(after);
        self.reset = true;
        self
    }
}
