//! An app node that speaks HTTP/2 without TLS by bare frames, so that it can refuse
//! a stream, go away, or hold many open, and knows which requests it has executed.
//!
//! Heads are not decoded: a request is known by its body.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::h2::{ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS};
use super::origin::Gate;
use super::ports;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PING: u8 = 0x6;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const REFUSED_STREAM: u32 = 0x7;

/// A request whose body has come.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Counted from 0 over the node's life.
    pub(crate) nth: usize,
    /// Its connection, counted from 0.
    pub(crate) connection: usize,
    pub(crate) body: String,
}

/// What is done with a request.
pub(crate) enum Act {
    /// It is executed, and answered with 200 and its body.
    Answer,
    /// The same once the gate is open.
    Hold(Gate),
    /// `REFUSED_STREAM`: it is not executed (RFC 9113 section 8.7).
    Refuse,
    /// GOAWAY that does not cover it: it is not executed either (section 6.8).
    GoAway,
    /// It is executed and answered, and GOAWAY says that it was the last one.
    AnswerAndGoAway,
    /// It is executed, and these frames of its stream come: type, flags and payload of each.
    Frames(Vec<(u8, u8, Vec<u8>)>),
}

type Handler = dyn Fn(&Stream) -> Act + Send + Sync;

#[derive(Default)]
struct Ledger {
    requests: usize,
    executed: Vec<String>,
    /// The most streams open at once, by connection.
    most: Vec<usize>,
    open: Vec<TcpStream>,
}

struct Shared {
    handler: Box<Handler>,
    /// Told to the peer.
    max_streams: Option<u32>,
    ledger: Mutex<Ledger>,
    stopping: AtomicBool,
}

/// The node; down when dropped.
pub(crate) struct H2Node {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl H2Node {
    pub(crate) fn start(
        max_streams: Option<u32>,
        handler: impl Fn(&Stream) -> Act + Send + Sync + 'static,
    ) -> Self {
        let address = ports::free();
        let listener = TcpListener::bind(address).expect("a free port");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            max_streams,
            ledger: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.shared.ledger)
    }

    /// Requests that came, whatever was done with them.
    pub(crate) fn count(&self) -> usize {
        self.ledger().requests
    }

    pub(crate) fn connections(&self) -> usize {
        self.ledger().most.len()
    }

    /// Bodies of the requests that were executed.
    pub(crate) fn executed(&self) -> Vec<String> {
        self.ledger().executed.clone()
    }

    /// The most streams that were open at once, on each connection.
    pub(crate) fn most_streams(&self) -> Vec<usize> {
        self.ledger().most.clone()
    }
}

impl Drop for H2Node {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        for socket in self.ledger().open.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
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
        let _ = socket.set_nodelay(true);
        let Ok(twin) = socket.try_clone() else {
            return;
        };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let Ok(out) = twin.try_clone() else { return };
            let mut connection = Connection {
                nth: {
                    let mut ledger = lock(&shared.ledger);
                    ledger.most.push(0);
                    ledger.open.push(twin);
                    ledger.most.len() - 1
                },
                out: Out(Arc::new(Mutex::new(out))),
                open: Arc::default(),
                bodies: Vec::new(),
                last: 0,
                shared,
            };
            connection.serve(socket);
        });
    }
}

/// The writing half, for whoever answers.
#[derive(Clone)]
struct Out(Arc<Mutex<TcpStream>>);

impl Out {
    fn frame(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short payload");
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        let _ = lock(&self.0).write_all(&bytes);
    }

    fn go_away(&self, last: u32) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend_from_slice(&0_u32.to_be_bytes());
        self.frame(GOAWAY, 0, 0, &payload);
    }
}

struct Connection {
    nth: usize,
    out: Out,
    /// Streams that are open.
    open: Arc<Mutex<usize>>,
    /// Of requests that are not whole yet.
    bodies: Vec<(u32, Vec<u8>)>,
    /// The last stream that was taken on.
    last: u32,
    shared: Arc<Shared>,
}

impl Connection {
    fn serve(&mut self, mut socket: TcpStream) -> Option<()> {
        let mut preface = [0; PREFACE.len()];
        socket.read_exact(&mut preface).ok()?;
        assert_eq!(preface, PREFACE, "not HTTP/2");
        let mut settings = Vec::new();
        if let Some(most) = self.shared.max_streams {
            settings.extend_from_slice(&MAX_CONCURRENT_STREAMS.to_be_bytes());
            settings.extend_from_slice(&most.to_be_bytes());
        }
        self.out.frame(SETTINGS, 0, 0, &settings);
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).ok()?];
            socket.read_exact(&mut payload).ok()?;
            let id = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            let (kind, flags) = (head[3], head[4]);
            match kind {
                SETTINGS if flags & ACK == 0 => self.out.frame(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => self.out.frame(PING, ACK, 0, &payload),
                HEADERS => self.bodies.push((id, Vec::new())),
                DATA => {
                    let body = self.bodies.iter_mut().find(|(stream, _)| *stream == id);
                    body?.1.extend_from_slice(&payload);
                }
                _ => {}
            }
            if kind == HEADERS {
                let mut open = lock(&self.open);
                *open += 1;
                let most = &mut lock(&self.shared.ledger).most[self.nth];
                *most = (*most).max(*open);
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                let at = self.bodies.iter().position(|(stream, _)| *stream == id)?;
                let (_, body) = self.bodies.remove(at);
                self.act(id, &body);
            }
        }
    }

    fn act(&mut self, id: u32, body: &[u8]) {
        let mut ledger = lock(&self.shared.ledger);
        let stream = Stream {
            nth: ledger.requests,
            connection: self.nth,
            body: String::from_utf8_lossy(body).into_owned(),
        };
        ledger.requests += 1;
        drop(ledger);
        match (self.shared.handler)(&stream) {
            Act::Refuse => {
                *lock(&self.open) -= 1;
                self.out
                    .frame(RST_STREAM, 0, id, &REFUSED_STREAM.to_be_bytes());
            }
            Act::GoAway => self.out.go_away(self.last),
            Act::Frames(frames) => {
                self.last = id;
                lock(&self.shared.ledger).executed.push(stream.body);
                *lock(&self.open) -= 1;
                for (kind, flags, payload) in frames {
                    self.out.frame(kind, flags, id, &payload);
                }
            }
            Act::Answer => self.answer(id, stream.body, None),
            Act::Hold(gate) => self.answer(id, stream.body, Some(gate)),
            Act::AnswerAndGoAway => {
                self.out.go_away(id);
                self.answer(id, stream.body, None);
            }
        }
    }

    fn answer(&mut self, id: u32, body: String, gate: Option<Gate>) {
        self.last = id;
        let (out, open) = (self.out.clone(), Arc::clone(&self.open));
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            if let Some(gate) = gate {
                gate.wait();
            }
            lock(&shared.ledger).executed.push(body.clone());
            *lock(&open) -= 1;
            // `:status: 200` is entry 8 of the static table (RFC 7541 appendix A).
            out.frame(HEADERS, END_HEADERS, id, &[0x88]);
            out.frame(DATA, END_STREAM, id, body.as_bytes());
        });
    }
}
