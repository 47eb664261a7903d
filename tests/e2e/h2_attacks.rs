//! Attacks by frames of HTTP/2, and honest clients that look a little like them.
//!
//! Each attack is written out as frames on a socket. It must end with GOAWAY and ENHANCE_YOUR_CALM
//! (or the error that the frame itself deserves), the process must not grow, and other clients must
//! not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::HOST;
use crate::support::h2::{
    ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, H2, HEADERS, PING, RST_STREAM, SETTINGS,
    Verdict, block, code, frame,
};
use crate::support::{Answer, Ask, Edge, Origin, Setup, wait};

const PRIORITY: u8 = 0x2;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

/// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 0x1;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// What an attack may make the process grow by.
const GROWTH: u64 = 48 << 20;

fn fields(path: &str) -> [(&str, &str); 4] {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path),
        (":authority", HOST),
    ]
}

fn edge(limits: &str) -> Edge {
    Setup::new().start(&format!(
        "[limits]\n{limits}\n[[route]]\nrespond = {{ body = \"ok\" }}\n"
    ))
}

fn refused(edge: &Edge) -> f64 {
    edge.metric("tidegate_connections_refused_total{listener=\"plain\"}")
}

/// Reads up to the error with which the peer ends the connection.
fn ended_with(frames: &mut Frames) -> Option<u32> {
    while let Some((kind, _, _, payload)) = frames.read_frame() {
        if kind == GOAWAY && code(&payload[4..]) != 0 {
            return Some(code(&payload[4..]));
        }
    }
    None
}

#[track_caller]
fn expect_calm(edge: &Edge, frames: &mut Frames, what: &str) {
    assert_eq!(ended_with(frames), Some(ENHANCE_YOUR_CALM), "{what}");
    wait::eventually("it is counted", wait::SOON, || refused(edge) >= 1.0);
    edge.get("/").expect(200);
}

/// A connection on which a request was answered.
fn talking(edge: &Edge) -> Frames {
    let mut frames = Frames::open(edge.http());
    frames.headers(1, &fields("/"), true);
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    frames
}

#[test]
fn frames_without_work_are_cut() {
    let mut setting = vec![0, 4];
    setting.extend_from_slice(&70_000_u32.to_be_bytes());
    for (what, flood) in [
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("pings that nobody asked", frame(PING, ACK, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        (
            "settings that change windows",
            frame(SETTINGS, 0, 0, &setting),
        ),
        ("priorities", frame(PRIORITY, 0, 5, &[0, 0, 0, 3, 9])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown frames", frame(0x55, 0, 0, &[1])),
    ] {
        let edge = edge("");
        let before = edge.peak_memory();
        let mut frames = talking(&edge);
        for _ in 0..200 {
            frames.write(&flood.repeat(100));
        }
        expect_calm(&edge, &mut frames, what);
        let grown = edge.peak_memory() - before;
        assert!(grown < GROWTH, "{what}: {grown} bytes more");
    }
}

#[test]
fn empty_pieces_of_a_body_are_cut() {
    let origin = Origin::named("x");
    let edge = Setup::new()
        .with("APP", origin.address)
        .start("[upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nmatch = { method = \"POST\" }\nupstream = \"app\"\n[[route]]\nrespond = { body = \"ok\" }\n");
    let mut frames = Frames::open(edge.http());
    let mut post = fields("/");
    post[0].1 = "POST";
    frames.headers(1, &post, false);
    for _ in 0..200 {
        frames.write(&frame(DATA, 0, 1, &[]).repeat(100));
    }
    expect_calm(&edge, &mut frames, "empty DATA");
}

/// CVE-2023-44487.
#[test]
fn requests_that_are_reset_at_once_are_cut() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Answer::ok("late").after(wait::millis(300))
    });
    let edge = Setup::new().with("APP", origin.address).start(
        "[upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nmatch = { path = \"/app\" }\nupstream = \"app\"\n[[route]]\nrespond = { body = \"ok\" }\n",
    );
    let head = block(&fields("/app"));
    for (what, batch) in [("as fast as can be", 500), ("a few at a time", 20)] {
        let mut frames = talking(&edge);
        let mut stream = 3;
        let mut end = None;
        for _ in 0..2000 / batch {
            let mut bytes = Vec::new();
            for _ in 0..batch {
                let flags = END_HEADERS | END_STREAM;
                bytes.extend(frame(HEADERS, flags, stream, &head));
                bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
                stream += 2;
            }
            bytes.extend(frame(PING, 0, 0, &[1; 8]));
            frames.write(&bytes);
            // Until it has taken all of these: none is left in a queue that has a bound of its own.
            end = loop {
                match frames.read_frame() {
                    Some((GOAWAY, _, _, payload)) => break Some(code(&payload[4..])),
                    Some((PING, ACK, _, _)) => break None,
                    Some(_) => {}
                    None => panic!("{what}: it ended without a word"),
                }
            };
            if end.is_some() {
                break;
            }
        }
        assert_eq!(end, Some(ENHANCE_YOUR_CALM), "{what}");
    }
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 1500, "the app was asked {asked} times");
    edge.get("/").expect(200);
}

/// CVE-2025-8671: the client makes the server reset.
#[test]
fn resets_that_a_client_provokes_are_cut() {
    let origin = Origin::start(|_| Answer::ok("late").after(wait::millis(500)));
    let edge = Setup::new().with("APP", origin.address).start(
        "[upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nmatch = { path = \"/app\" }\nupstream = \"app\"\n[[route]]\nrespond = { body = \"ok\" }\n",
    );
    let asked = |stream, more: &[(&str, &str)], flags| {
        let head = block(&[&fields("/app")[..], more].concat());
        frame(HEADERS, END_HEADERS | flags, stream, &head)
    };
    type Wrong<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let wrongs: [(&str, Wrong<'_>); 3] = [
        ("a window that overflows", &|stream| {
            let most = 0x7fff_ffff_u32.to_be_bytes();
            let window = frame(WINDOW_UPDATE, 0, stream, &most);
            [asked(stream, &[], END_STREAM), window].concat()
        }),
        ("a stream that depends on itself", &|stream| {
            let mut payload = stream.to_be_bytes().to_vec();
            payload.push(16);
            let priority = frame(PRIORITY, 0, stream, &payload);
            [asked(stream, &[], END_STREAM), priority].concat()
        }),
        ("a body longer than was said", &|stream| {
            let body = frame(DATA, END_STREAM, stream, &[b'x'; 300]);
            [asked(stream, &[("content-length", "1")], 0), body].concat()
        }),
    ];
    for (what, wrong) in wrongs {
        let mut frames = talking(&edge);
        let mut stream = 3;
        let mut end = None;
        for _ in 0..40 {
            let mut bytes = Vec::new();
            for _ in 0..50 {
                bytes.extend(wrong(stream));
                stream += 2;
            }
            bytes.extend(frame(PING, 0, 0, &[1; 8]));
            frames.write(&bytes);
            end = loop {
                match frames.read_frame() {
                    Some((GOAWAY, _, _, payload)) => break Some(code(&payload[4..])),
                    Some((PING, ACK, _, _)) => break None,
                    Some(_) => {}
                    None => panic!("{what}: it ended without a word"),
                }
            };
            if end.is_some() {
                break;
            }
        }
        assert_eq!(end, Some(ENHANCE_YOUR_CALM), "{what}");
        edge.get("/").expect(200);
    }
    // What makes no sense for any stream ends the connection at once.
    let mut frames = talking(&edge);
    frames.headers(3, &fields("/app"), true);
    frames.frame(WINDOW_UPDATE, 0, 3, &[0; 4]);
    assert_eq!(ended_with(&mut frames), Some(PROTOCOL_ERROR));
}

/// CVE-2024-27316.
#[test]
fn a_head_without_end_is_cut() {
    for (what, piece) in [
        ("empty pieces", Vec::new()),
        ("fields", block(&[("x-field", "value")])),
    ] {
        let edge = edge("");
        let before = edge.peak_memory();
        let mut frames = Frames::open(edge.http());
        frames.frame(HEADERS, END_STREAM, 1, &block(&fields("/")));
        for _ in 0..200 {
            frames.write(&frame(CONTINUATION, 0, 1, &piece).repeat(100));
        }
        expect_calm(&edge, &mut frames, what);
        let grown = edge.peak_memory() - before;
        assert!(grown < GROWTH, "{what}: {grown} bytes more");
    }
}

/// A field of 4,000 octets that one octet names again and again.
#[test]
fn a_head_that_unpacks_to_very_much_is_refused() {
    let edge = edge("");
    let before = edge.peak_memory();
    for round in 0..20 {
        let mut frames = Frames::open(edge.http());
        let mut head = block(&fields("/"));
        // With incremental indexing (RFC 7541 section 6.2.1), a length in three octets.
        head.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        head.extend_from_slice(&[b'y'; 4000]);
        head.resize(16_000, 0xbe);
        frames.frame(HEADERS, END_HEADERS | END_STREAM, 1, &head);
        let verdict = frames.verdict(1);
        assert!(verdict.is_refusal(), "round {round}: {verdict:?}");
    }
    let grown = edge.peak_memory() - before;
    assert!(grown < GROWTH, "{grown} bytes more");
    edge.get("/").expect(200);
}

#[test]
fn a_client_that_opens_no_window_is_ended_and_frees_what_it_held() {
    let body = "x".repeat(200_000);
    let edge = Setup::new().file("big/big.txt", &body).start(
        "[limits]\nbody_timeout = \"1s\"\n[static.big]\nroot = \"big\"\n[[route]]\nstatic = \"big\"\n",
    );
    let before = edge.peak_memory();
    let mut all = Vec::new();
    for _ in 0..5 {
        // SETTINGS_INITIAL_WINDOW_SIZE of nothing.
        let mut frames = Frames::open_with(edge.http(), &[(4, 0)]);
        for stream in 0..100 {
            frames.headers(1 + 2 * stream, &fields("/big.txt"), true);
        }
        all.push(frames);
    }
    let active = || edge.metric("tidegate_requests_active{listener=\"plain\"}");
    wait::eventually("they wait", wait::SOON, || active() >= 500.0);
    wait::eventually("they are ended", wait::SOON, || active() == 0.0);
    let grown = edge.peak_memory() - before;
    assert!(grown < GROWTH, "{grown} bytes more");
    let held = edge.metric("tidegate_connections_refused_total{reason=\"write_timeout\"}");
    assert!(held >= 500.0, "{held} counted");
    edge.get("/big.txt").expect(200);
}

#[test]
fn a_client_that_opens_its_window_byte_by_byte_is_ended() {
    let body = "x".repeat(200_000);
    let edge = Setup::new().file("big/big.txt", &body).start(
        "[limits]\nmin_rate = \"10KiB/s\"\nmin_rate_grace = \"1s\"\n[static.big]\nroot = \"big\"\n[[route]]\nstatic = \"big\"\n",
    );
    let mut frames = Frames::open_with(edge.http(), &[(4, 0)]);
    frames.patience(wait::millis(20));
    frames.headers(1, &fields("/big.txt"), true);
    let mut got = 0;
    wait::eventually("it is ended", wait::SOON, || {
        frames.frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
        while let Some((kind, _, _, payload)) = frames.read_frame() {
            match kind {
                DATA => got += payload.len(),
                RST_STREAM => return true,
                _ => {}
            }
        }
        false
    });
    assert!(got < 10_000, "{got} bytes of it were sent");
    let held = edge.metric("tidegate_connections_refused_total{reason=\"min_rate\"}");
    assert_eq!(held, 1.0);
}

#[test]
fn fields_are_counted_and_cookies_in_crumbs_are_one() {
    let edge = edge("max_headers = 20");
    let with = |name: &'static str, count: usize| {
        let mut all = fields("/").to_vec();
        all.extend((0..count).map(|_| (name, "a=b")));
        let mut frames = Frames::open(edge.http());
        frames.headers(1, &all, true);
        frames.verdict(1)
    };
    assert_eq!(with("x-field", 20), Verdict::Status(200));
    assert_eq!(with("x-field", 21), Verdict::Status(431));
    assert_eq!(with("cookie", 200), Verdict::Status(200));
    let h1 = |count: usize| {
        // Host is one of them.
        let ask = (1..count).fold(Ask::get("/"), |ask, _| ask.field("X-Field", "1"));
        edge.ask(&ask).status
    };
    assert_eq!((h1(20), h1(21)), (200, 431));
}

#[test]
fn an_honest_client_is_not_cut() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/slow" => Answer::ok("slow").after(wait::millis(100)),
        _ => Answer::ok("x".repeat(30_000)),
    });
    let edge = Setup::new()
        .with("APP", origin.address)
        .start("[upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\n");
    // A browser's library, with many streams at once and what it does about windows.
    let mut browser = H2::plain(edge.http());
    for round in 0..10 {
        let asks: Vec<Ask> = (0..60).map(|_| Ask::get("/page")).collect();
        for reply in browser.ask_all(&asks) {
            assert_eq!(reply.expect("a reply").status, 200, "round {round}");
        }
    }
    browser.ask(&Ask::get("/page")).expect(200);
    // Pages that are left before they are there, and a ping and settings now and then.
    let mut frames = Frames::open(edge.http());
    let mut stream = 1;
    for round in 0..10 {
        let mut bytes = Vec::new();
        for nth in 0..30 {
            let head = block(&fields("/slow"));
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
            if nth % 3 > 0 {
                bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            }
            stream += 2;
        }
        bytes.extend(frame(PING, 0, 0, &[1; 8]));
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        frames.write(&bytes);
        frames.headers(stream, &fields("/slow"), true);
        assert_eq!(
            frames.verdict(stream),
            Verdict::Status(200),
            "round {round}"
        );
        stream += 2;
    }
    // Pings alone, as something that measures the line sends them.
    let began = wait::now();
    while began.elapsed() < wait::secs(2) {
        frames.write(&frame(PING, 0, 0, &[2; 8]));
        while !matches!(frames.read_frame(), Some((PING, ACK, ..))) {}
        wait::hold(wait::millis(20));
    }
    frames.headers(stream, &fields("/page"), true);
    assert_eq!(frames.verdict(stream), Verdict::Status(200));
    assert_eq!(refused(&edge), 0.0);
}

#[test]
fn the_limit_of_control_frames_is_the_listeners_own() {
    let flood = frame(PING, 0, 0, &[7; 8]).repeat(100);
    let strict = edge("max_control_frame_rate = \"5/s\"");
    let mut frames = talking(&strict);
    frames.write(&flood);
    frames.write(&flood);
    expect_calm(&strict, &mut frames, "more than 5/s");
    let open = edge("max_control_frame_rate = false");
    let mut frames = talking(&open);
    for _ in 0..50 {
        frames.write(&flood);
        for _ in 0..100 {
            while !matches!(frames.read_frame(), Some((PING, ACK, ..))) {}
        }
    }
    frames.headers(3, &fields("/"), true);
    assert_eq!(frames.verdict(3), Verdict::Status(200));
}
