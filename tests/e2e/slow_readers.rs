//! Clients that ask for much and read nothing, and apps that are sent much and read nothing: what is
//! held for them.
//!
//! Memory is measured from outside, as the process' resident size. What waits in the kernel's socket
//! buffers and pipes is not in it, and is bounded by the sockets' own settings.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use socket2::SockRef;

use crate::support::client::HOST;
use crate::support::h2::Frames;
use crate::support::{
    Answer, Ask, Conn, Edge, Gate, Origin, Reply, Setup, Streams, certs, runtime, tools, wait,
};

const SIZE: usize = 4 << 20;
const STREAMS: u32 = 100;

/// Identifier of SETTINGS_INITIAL_WINDOW_SIZE, and the widest that there is (RFC 9113 section 6.5.2).
const WINDOW: (u16, u32) = (4, (1 << 31) - 1);
const WINDOW_UPDATE: u8 = 8;

/// At once: so many that what the process takes once is little of a client's part.
const CLIENTS: u32 = 64;

/// Octets that may be held for one that does not read.
const HELD: f64 = 256.0 * 1024.0;

/// And what its connection takes by itself, as anybody's does: the tasks of connection and request
/// (large ones in a debug build), the heads, the keys of TLS, the connection to the app, and a
/// sixty-fourth of what the process takes once. (In a release build an idle connection takes 6 KiB.)
///
/// In all 64 clients x (256 + 32) KiB = 18 MiB, where they have asked for 512 MiB at the least.
const OWN: f64 = 32.0 * 1024.0;

/// A body on its way is made of these; every size here is so many of them.
const PIECE: usize = 64 << 10;
/// Far more than all buffers on the way take, the kernel's included.
const LARGE: usize = 64 << 20;
/// The largest that is stored by default. A socket of Linux takes 4 MiB of it, where nobody set more.
const PAGE: usize = 8 << 20;
const FILE: usize = 32 << 20;

/// What the kernel may take to be sent of the test's own sockets, whose part is not measured.
const SOCKET: usize = 256 << 10;

/// Growth between two looks that is none.
const CALM: f64 = 256.0 * 1024.0;

/// Resident octets but for those of the program's own file, which come in as its code first runs.
fn memory(edge: &Edge) -> f64 {
    edge.metric("process_resident_memory_bytes") - edge.program_memory() as f64
}

/// The memory, once it grows no more and nothing more has `moved`.
fn settled(edge: &Edge, moved: &AtomicU64) -> f64 {
    let look = || (memory(edge), moved.load(Ordering::SeqCst));
    let (mut last, mut calm) = (look(), 0);
    wait::until("memory that grows no more", wait::secs(60), || {
        wait::hold(wait::millis(200));
        let now = look();
        let is_calm = now.1 == last.1 && now.0 <= last.0 + CALM;
        calm = if is_calm { calm + 1 } else { 0 };
        last = now;
        (calm == 3).then_some(now.0)
    })
}

/// A connection of HTTP/2 whose windows are never full.
fn wide(edge: &Edge) -> Frames {
    let mut frames = Frames::open_with(edge.http(), &[WINDOW]);
    let more = WINDOW.1 - 65_535;
    frames.frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
    frames
}

fn fields(target: &str) -> [(&str, &str); 4] {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", target),
        (":authority", HOST),
    ]
}

#[test]
fn a_hundred_wide_streams_that_are_not_read_hold_little() {
    let app = Origin::start(|_| Answer::ok(vec![b'x'; SIZE]));
    let edge = Setup::new()
        .with("APP", app.address)
        .file("public/large.bin", vec![b'y'; SIZE])
        .start(
            r#"
            [server]
            workers = 1
            [limits]
            min_rate = false
            [upstream.app]
            endpoints = ["@APP@"]
            [static.files]
            root = "public"
            [[route]]
            match = { path_prefix = "/files" }
            static = "files"
            strip_prefix = "/files"
            [[route]]
            upstream = "app"
            "#,
        );
    let unknown = AtomicU64::new(0);
    for target in ["/proxied", "/files/large.bin"] {
        edge.get(target).expect(200);
        let before = settled(&edge, &unknown);
        let mut frames = wide(&edge);
        for nth in 0..STREAMS {
            frames.headers(2 * nth + 1, &fields(target), true);
        }
        wait::eventually("the streams' requests", wait::secs(60), || {
            Way::WideH2.active(&edge) >= f64::from(STREAMS)
        });
        let held = settled(&edge, &unknown) - before;
        let most = f64::from(STREAMS) * 160.0 * 1024.0;
        assert!(held < most, "{target}: {held} octets are held");
        drop(frames);
        wait::eventually("the end of the requests", wait::secs(60), || {
            Way::WideH2.active(&edge) < 1.0
        });
    }
}

/// How a client comes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Plain,
    Tls,
    /// Over TLS, by a library that takes the 64 KiB of its windows.
    H2,
    /// Without TLS and with the widest windows: what is full is the socket.
    WideH2,
}

impl Way {
    const ALL: [Self; 4] = [Self::Plain, Self::Tls, Self::H2, Self::WideH2];

    fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::H2)
    }

    /// A connection of HTTP/1.1 to the same listener.
    fn conn(self, edge: &Edge) -> Conn {
        match self.is_secure() {
            true => edge.tls(),
            false => edge.plain(),
        }
    }

    /// Asks and reads nothing of the reply; the client, for as long as it is kept.
    fn ask(self, edge: &Edge, target: &str) -> Box<dyn Any> {
        match self {
            Self::Plain | Self::Tls => {
                let mut conn = self.conn(edge);
                conn.send(Ask::get(target).bytes());
                Box::new(conn)
            }
            Self::H2 => {
                let mut streams = Streams::tls(edge.https(), HOST);
                let call = streams.begin("GET", target, &[], true);
                Box::new((streams, call))
            }
            Self::WideH2 => {
                let mut frames = wide(edge);
                frames.headers(1, &fields(target), true);
                Box::new(frames)
            }
        }
    }

    /// Requests under way at its listener.
    fn active(self, edge: &Edge) -> f64 {
        let listener = if self.is_secure() { "secure" } else { "plain" };
        edge.metric(&format!(
            "tidegate_requests_active{{listener=\"{listener}\"}}"
        ))
    }
}

/// An app that says as much as it is asked for, as fast as it can, and of an upload reads the head
/// alone. Bodies are made piece by piece, so that 64 large ones cost the test nothing.
struct App {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Octets of bodies that went into the sockets, the app's own and those of uploading clients.
    moved: AtomicU64,
    /// Requests that came to wait for the gate.
    held: AtomicU32,
    gate: Gate,
    ends: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl App {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let its = Arc::clone(&shared);
        Self {
            address,
            shared,
            accepting: Some(std::thread::spawn(move || accept(&listener, &its))),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        if let Ok(open) = self.shared.open.lock() {
            for socket in open.iter() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept() {
        if shared.ends.load(Ordering::SeqCst) {
            return;
        }
        narrow(&socket);
        let twin = socket.try_clone().expect("a second handle");
        shared.open.lock().expect("no panic").push(twin);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || serve(socket, &shared));
    }
}

/// Bounds what the kernel takes to be sent.
fn narrow(socket: &TcpStream) {
    let set = SockRef::from(socket).set_send_buffer_size(SOCKET);
    set.expect("a size");
}

fn serve(mut socket: TcpStream, shared: &Shared) {
    loop {
        let head = read_head(&mut socket);
        // Anything else is the end, or an upload: its socket stays in `open`, and nobody reads it.
        let Some(rest) = head.strip_prefix("GET ") else {
            return;
        };
        let target = rest.split(' ').next().unwrap_or_default();
        if answer(&mut socket, target, shared).is_err() {
            return;
        }
    }
}

/// Reads a head and not an octet more, or as much of one as there is.
fn read_head(socket: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") && matches!(socket.read(&mut byte), Ok(1)) {
        read.push(byte[0]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// Answers `/KIND/SIZE` with so many octets. Those of `/chunked/` are in chunks, those of `/stored/` may
/// be stored, and those of `/held/` wait for the gate.
fn answer(socket: &mut TcpStream, target: &str, shared: &Shared) -> io::Result<()> {
    let parts = target.trim_start_matches('/').split_once('/');
    let (kind, size) = parts.expect("a kind and a size");
    let size: usize = size.parse().expect("a size");
    if kind == "held" {
        shared.held.fetch_add(1, Ordering::SeqCst);
        shared.gate.wait();
    }
    let framing = match kind {
        "chunked" => "Transfer-Encoding: chunked".to_owned(),
        "stored" => format!("Content-Length: {size}\r\nCache-Control: max-age=3600"),
        _ => format!("Content-Length: {size}"),
    };
    let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
    socket.write_all(head.as_bytes())?;
    let is_chunked = kind == "chunked";
    let piece = piece(is_chunked);
    for _ in 0..size / PIECE {
        socket.write_all(&piece)?;
        shared.moved.fetch_add(PIECE as u64, Ordering::SeqCst);
    }
    match is_chunked {
        true => socket.write_all(b"0\r\n\r\n"),
        false => Ok(()),
    }
}

/// [`PIECE`] octets of a body, as a chunk where wanted.
fn piece(is_chunk: bool) -> Vec<u8> {
    let mut piece = Vec::new();
    if is_chunk {
        piece.extend_from_slice(format!("{PIECE:x}\r\n").as_bytes());
    }
    piece.resize(piece.len() + PIECE, b'x');
    if is_chunk {
        piece.extend_from_slice(b"\r\n");
    }
    piece
}

/// An edge that waits for slow clients and slow apps longer than any test takes. Each is measured once,
/// since memory that it has freed and kept would be taken again without growth.
fn edge(app: &App, lane: &str) -> Edge {
    // A client takes up to four here and four in the edge, and several tests run at a time.
    tools::raise_open_files(4096);
    Setup::new()
        // For the same reason what was freed before is given back at once.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .with("APP", app.address)
        .with("LANE", lane)
        .file("public/large.bin", vec![b'y'; FILE])
        .start(
            r#"
            [server]
            workers = 1
            lane = "@LANE@"
            [limits]
            min_rate = false
            body_timeout = "10m"
            max_body_size = "1GiB"
            [upstream.app]
            endpoints = ["@APP@"]
            read_timeout = "10m"
            first_byte_timeout = "10m"
            [static.files]
            root = "public"
            [[route]]
            match = { path_prefix = "/files" }
            static = "files"
            strip_prefix = "/files"
            [[route]]
            match = { path_prefix = "/stored" }
            upstream = "app"
            cache = {}
            [[route]]
            upstream = "app"
            "#,
        )
}

/// What is held for each of [`CLIENTS`] that `open` makes, more than `before`.
fn held(edge: &Edge, app: &App, way: Way, before: f64, open: impl Fn() -> Box<dyn Any>) -> f64 {
    let clients: Vec<_> = (0..CLIENTS).map(|_| open()).collect();
    let are_under_way = || way.active(edge) >= f64::from(CLIENTS);
    wait::eventually("everybody's request", wait::secs(60), are_under_way);
    let after = settled(edge, &app.shared.moved);
    assert!(
        are_under_way(),
        "{way:?}: {} of {CLIENTS} are left; the others are served or cut off",
        way.active(edge)
    );
    drop(clients);
    (after - before) / f64::from(CLIENTS)
}

/// What was measured, and how much it is for a client.
type Row = (String, f64);

fn table(rows: &[Row]) -> String {
    rows.iter()
        .map(|(what, held)| format!("{:>5.0} KiB: {what}\n", held / 1024.0))
        .collect()
}

#[track_caller]
fn expect_little(rows: &[Row]) {
    let most = rows.iter().map(|(_, held)| *held).fold(0.0, f64::max);
    assert!(most <= HELD + OWN, "held for a client:\n{}", table(rows));
}

/// So many connections are kept to the app afterwards that the lane can take every client.
fn keep_connections(edge: &Edge, app: &App) {
    let asked = (0..CLIENTS).map(|_| {
        let mut conn = edge.plain();
        conn.send(Ask::get(&format!("/held/{PIECE}")).bytes());
        conn
    });
    let asked: Vec<Conn> = asked.collect();
    wait::eventually("all at the app", wait::secs(60), || {
        app.shared.held.load(Ordering::SeqCst) == CLIENTS
    });
    app.shared.gate.open();
    for mut conn in asked {
        conn.reply().expect(200);
    }
}

/// A reply of an app that is faster than its reader.
fn of_an_app(lane: &str) -> Vec<Row> {
    let rows = [
        (Way::Plain, "length"),
        (Way::Plain, "chunked"),
        (Way::Tls, "length"),
        (Way::Tls, "chunked"),
        (Way::H2, "length"),
        (Way::WideH2, "length"),
    ];
    let rows = rows.map(|(way, kind)| {
        let app = App::start();
        let edge = edge(&app, lane);
        let small = Ask::get(&format!("/{kind}/{PIECE}"));
        way.conn(&edge).ask(&small).expect(200);
        let before = settled(&edge, &app.shared.moved);
        if lane == "on" {
            keep_connections(&edge, &app);
        }
        let target = format!("/{kind}/{LARGE}");
        let open = || way.ask(&edge, &target);
        let held = held(&edge, &app, way, before, open);
        (
            format!("an app's reply, {kind}, {way:?}, lane {lane}"),
            held,
        )
    });
    Vec::from(rows)
}

#[test]
fn clients_that_do_not_read_an_apps_reply_hold_little_each() {
    let rows = of_an_app("on");
    println!("{}", table(&rows));
    expect_little(&rows);
}

#[test]
fn clients_that_do_not_read_an_apps_reply_hold_little_each_without_the_lane() {
    let rows = of_an_app("off");
    println!("{}", table(&rows));
    expect_little(&rows);
}

/// A reply that the edge has itself, once `is_there`.
fn of_its_own(what: &str, target: &str, is_there: impl Fn(&Reply) -> bool) -> Vec<Row> {
    let lanes = ["on", "off"].into_iter();
    let rows = lanes.flat_map(|lane| Way::ALL.map(|way| (lane, way)));
    let rows = rows.map(|(lane, way)| {
        let app = App::start();
        let edge = edge(&app, lane);
        // By the same listener: the pages of https are others than those of http.
        wait::eventually(what, wait::secs(60), || {
            is_there(&way.conn(&edge).ask(&Ask::get(target)).expect(200))
        });
        let before = settled(&edge, &app.shared.moved);
        let open = || way.ask(&edge, target);
        let held = held(&edge, &app, way, before, open);
        (format!("{what}, {way:?}, lane {lane}"), held)
    });
    rows.collect()
}

#[test]
fn clients_that_do_not_read_a_stored_page_share_it_and_hold_little_each() {
    let rows = of_its_own("a stored page", &format!("/stored/{PAGE}"), Reply::is_hit);
    println!("{}", table(&rows));
    expect_little(&rows);
}

#[test]
fn clients_that_do_not_read_a_file_hold_little_each() {
    let rows = of_its_own("a file", "/files/large.bin", |it| it.body.len() == FILE);
    println!("{}", table(&rows));
    expect_little(&rows);
}

/// A client that sends [`LARGE`] octets as fast as it can, until it is dropped.
struct Upload {
    socket: TcpStream,
    sending: Option<JoinHandle<()>>,
}

impl Upload {
    fn begin(edge: &Edge, app: &App, way: Way, is_chunked: bool) -> Self {
        let address = match way.is_secure() {
            true => edge.https(),
            false => edge.http(),
        };
        let socket = TcpStream::connect(address).expect("a connection");
        narrow(&socket);
        let twin = socket.try_clone().expect("a second handle");
        let mut conn = match way.is_secure() {
            true => {
                let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
                Conn::tls_over(twin, HOST, config).expect("a TLS handshake")
            }
            false => Conn::from(twin),
        };
        let framing = match is_chunked {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {LARGE}"),
        };
        let shared = Arc::clone(&app.shared);
        let sending = std::thread::spawn(move || {
            let piece = piece(is_chunked);
            conn.send(format!(
                "POST /upload HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n"
            ));
            // Once the socket is shut down, none of them waits any more.
            for _ in 0..LARGE / PIECE {
                conn.send(&piece);
                shared.moved.fetch_add(PIECE as u64, Ordering::SeqCst);
            }
        });
        Self {
            socket,
            sending: Some(sending),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(sending) = self.sending.take() {
            let _ = sending.join();
        }
    }
}

/// More than the windows of a connection and the kernel's buffers towards the app take; one for all.
static MUCH: [u8; 16 << 20] = [0; 16 << 20];

/// The same over HTTP/2: the library has the body, and sends of it what the edge makes room for.
fn upload_by_h2(edge: &Edge) -> Box<dyn Any> {
    let config = certs::client(&["h2"], rustls::ALL_VERSIONS);
    let tls = tokio_rustls::TlsConnector::from(config);
    let request = http::Request::post(format!("https://{HOST}/upload"));
    let request = request.body(()).expect("a request");
    Box::new(runtime().block_on(async {
        let socket = tokio::net::TcpStream::connect(edge.https()).await;
        let socket = socket.expect("a connection");
        let tls = tls.connect(certs::name(HOST), socket).await;
        let handshake = h2::client::handshake(tls.expect("a TLS handshake")).await;
        let (sender, driver) = handshake.expect("HTTP/2");
        tokio::spawn(driver);
        let mut sender = sender.ready().await.expect("an open connection");
        let (reply, mut body) = sender.send_request(request, false).expect("sent");
        body.send_data(Bytes::from_static(&MUCH), false)
            .expect("taken");
        (sender, reply, body)
    }))
}

#[test]
fn clients_of_an_app_that_does_not_read_are_held_up_and_hold_little_each() {
    let rows = [
        ("on", Way::Plain, false),
        ("on", Way::Plain, true),
        ("on", Way::Tls, false),
        ("on", Way::H2, false),
        ("off", Way::Plain, false),
        ("off", Way::Plain, true),
        ("off", Way::Tls, false),
        ("off", Way::H2, false),
    ];
    let rows = rows.map(|(lane, way, is_chunked)| {
        let app = App::start();
        let edge = edge(&app, lane);
        let small = Ask::get(&format!("/length/{PIECE}"));
        way.conn(&edge).ask(&small).expect(200);
        let before = settled(&edge, &app.shared.moved);
        let open = || -> Box<dyn Any> {
            match way {
                Way::H2 | Way::WideH2 => upload_by_h2(&edge),
                Way::Plain | Way::Tls => Box::new(Upload::begin(&edge, &app, way, is_chunked)),
            }
        };
        let held = held(&edge, &app, way, before, open);
        let framing = if is_chunked { "chunked" } else { "length" };
        (format!("an upload, {framing}, {way:?}, lane {lane}"), held)
    });
    println!("{}", table(&rows));
    expect_little(&rows);
}
