//! The app behind an edge: what it answers, and what it was asked.

use std::collections::VecDeque;
use std::net::TcpListener;

use super::message::{self, Asked, Text};
use super::script::Step;
use super::socket::Socket;

/// How the app answers.
pub(super) enum Answers {
    /// By the path.
    ByPath {
        /// They are held back for now.
        held: bool,
    },
    /// Each request gets the next of these; then there is a plain one.
    Scripted(VecDeque<Vec<Step>>),
}

/// An app with its connections.
pub(super) struct App {
    listener: TcpListener,
    pub(super) conns: Vec<AppConn>,
    answers: Answers,
    asked: Vec<Asked>,
    /// Connections since [`App::forget`].
    count: usize,
}

/// One connection from the edge.
pub(super) struct AppConn {
    number: usize,
    pub(super) socket: Socket,
    /// Requests that wait for their answers.
    waiting: VecDeque<Asked>,
    /// What is left of the answer that was begun.
    steps: VecDeque<Step>,
    is_tunnel: bool,
    behind: Vec<u8>,
    is_reset: bool,
}

impl App {
    pub(super) fn new(listener: TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a socket");
        Self {
            listener,
            conns: Vec::new(),
            answers: Answers::ByPath { held: false },
            asked: Vec::new(),
            count: 0,
        }
    }

    /// All connections end, and the next one is the first.
    pub(super) fn forget(&mut self) {
        self.conns.clear();
        self.count = 0;
    }

    pub(super) fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// From now on it answers so, and was asked nothing.
    pub(super) fn begin(&mut self, answers: Answers) {
        self.answers = answers;
        self.asked.clear();
    }

    /// Answers are no longer held back.
    pub(super) fn release(&mut self) {
        if let Answers::ByPath { held } = &mut self.answers {
            *held = false;
        }
    }

    /// Moves what can be moved; whether something was.
    pub(super) fn pump(&mut self) -> bool {
        let mut moved = false;
        while let Ok((stream, _)) = self.listener.accept() {
            moved = true;
            self.count += 1;
            self.conns.push(AppConn {
                number: self.count,
                socket: Socket::new(stream),
                waiting: VecDeque::new(),
                steps: VecDeque::new(),
                is_tunnel: false,
                behind: Vec::new(),
                is_reset: false,
            });
        }
        for conn in &mut self.conns {
            moved |= conn.socket.pump();
            conn.read(&mut self.asked);
            moved |= conn.answer(&mut self.answers);
        }
        self.conns.retain(|conn| !conn.is_reset);
        moved
    }

    /// Goes on with the answers that were begun; whether there was one.
    pub(super) fn step(&mut self) -> bool {
        let mut stepped = false;
        for conn in &mut self.conns {
            stepped |= conn.step();
        }
        self.conns.retain(|conn| !conn.is_reset);
        stepped
    }

    /// All that it was asked, what did not come whole last.
    pub(super) fn asked(&mut self) -> Vec<Asked> {
        let mut asked = std::mem::take(&mut self.asked);
        for conn in &self.conns {
            let mut begun = message::request(&conn.socket.inbox).map(|(asked, _)| asked);
            if conn.is_tunnel {
                begun = asked.last().cloned();
                if let Some(begun) = &mut begun {
                    begun.behind = Text(conn.behind.clone());
                }
            }
            asked.extend(begun);
        }
        asked
    }
}

impl AppConn {
    fn read(&mut self, asked: &mut Vec<Asked>) {
        if self.is_tunnel {
            let came = std::mem::take(&mut self.socket.inbox);
            self.socket.send(&came);
            self.behind.extend(came);
            return;
        }
        while let Some((mut request, length)) = message::request(&self.socket.inbox) {
            if !request.is_whole() {
                break;
            }
            self.socket.inbox.drain(..length);
            request.connection = self.number;
            asked.push(request.clone());
            self.waiting.push_back(request);
        }
    }

    fn answer(&mut self, answers: &mut Answers) -> bool {
        let mut answered = false;
        while self.steps.is_empty() && !self.is_tunnel {
            if matches!(answers, Answers::ByPath { held: true }) {
                break;
            }
            let Some(asked) = self.waiting.pop_front() else {
                break;
            };
            answered = true;
            match answers {
                Answers::ByPath { .. } => self.answer_by_path(&asked),
                Answers::Scripted(replies) => match replies.pop_front() {
                    Some(steps) => {
                        self.steps = steps.into();
                        self.step();
                    }
                    None => self.answer_by_path(&asked),
                },
            }
        }
        answered
    }

    fn step(&mut self) -> bool {
        match self.steps.pop_front() {
            Some(Step::Send(bytes)) => self.socket.send(&bytes),
            Some(Step::Finish) => self.socket.finish(),
            Some(Step::Reset) => self.is_reset = true,
            Some(Step::Next) => {}
            None => return false,
        }
        true
    }

    fn answer_by_path(&mut self, asked: &Asked) {
        let target = asked.target();
        let says = |word: &str| {
            target
                .windows(word.len())
                .any(|part| part == word.as_bytes())
        };
        // The body names the request, so that a client that gets another one's reply shows it.
        let mut body = [b"app: ", &asked.line.0[..]].concat();
        body.extend_from_slice(format!(" {}", asked.body_length()).as_bytes());
        if says("/large") {
            body.resize(30_000, b'.');
        }
        if says("/huge") {
            body.resize(200_000, b'.');
        }
        let mut status = "200 OK";
        for other in [
            "204 No Content",
            "304 Not Modified",
            "404 Not Found",
            "502 Bad Gateway",
        ] {
            if says(&other[..3]) {
                status = other;
            }
        }
        if says("/up") && asked.has("upgrade") {
            self.is_tunnel = true;
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n";
            return self.socket.send(head.as_bytes());
        }
        let mut head = String::new();
        if says("/hints") {
            head.push_str("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
        }
        head.push_str(&format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nX-App:  1\r\nset-cookie: b=2\r\n"));
        if says("/cached") {
            // Stored for so long that none grows stale.
            head = format!(
                "HTTP/1.1 {status}\r\nCache-Control: max-age=30000000\r\nETag: \"a\"\r\nVary: X-Vary\r\nContent-Type: text/plain\r\n"
            );
        }
        let closes = says("/close") || says("/end");
        if closes {
            head.push_str("Connection: close\r\n");
        }
        let bodyless = asked.is_head() || status.starts_with("204") || status.starts_with("304");
        if says("/chunked") {
            let (first, second) = body.split_at(body.len() / 2);
            let chunk =
                |data: &[u8]| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
            head.push_str("Transfer-Encoding: chunked\r\n\r\n");
            body = [&chunk(first), &chunk(second), &b"0\r\n\r\n"[..]].concat();
        } else if says("/end") || bodyless && !asked.is_head() {
            head.push_str("\r\n");
        } else {
            head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        }
        let mut message = head.into_bytes();
        if !bodyless {
            message.extend(body);
        }
        self.socket.send(&message);
        if closes {
            self.socket.finish();
        }
    }
}
