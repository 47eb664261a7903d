//! Which of two replies is sent first (RFC 9218).

use quinn::VarInt;

use crate::support::h3::{Bare, Client, SETTINGS, Verdict, frame, headers};
use crate::support::{Answer, Edge, Origin, Setup, runtime, wait};

const PRIORITY_UPDATE: u64 = 0xf0700;
const SIZE: usize = 3 << 20;

fn edge() -> (Origin, Edge) {
    let app = Origin::start(|seen| {
        let answer = Answer::ok(vec![b'x'; SIZE]);
        match seen.target.as_str() {
            "/said" => answer.field("Priority", "u=0"),
            _ => answer,
        }
    });
    let edge = Setup::new().with("APP", app.address).start(
        r#"
        [[listener]]
        name = "secure"
        address = "@HTTPS@"
        tls = true
        protocols = ["h1", "h2", "h3"]
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        "#,
    );
    (app, edge)
}

/// The connection's window is small, those of its streams are not: so the server has to choose.
fn client() -> Client {
    let mut windows = quinn::TransportConfig::default();
    windows.receive_window(VarInt::from_u32(32 * 1024));
    Client::with(windows)
}

fn open(client: &Client, edge: &Edge) -> (Bare, quinn::SendStream) {
    let bare = client.bare(edge.https());
    let control = bare.open_uni(&[&[0][..], &frame(SETTINGS, &[])].concat());
    (bare, control)
}

fn get(path: &str, priority: Option<&str>) -> Vec<u8> {
    let mut fields = vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "shop.test"),
        (":path", path),
    ];
    fields.extend(priority.map(|value| ("priority", value)));
    headers(&fields)
}

fn update(id: u64, value: &str) -> Vec<u8> {
    let id = u8::try_from(id).expect("a small number");
    frame(PRIORITY_UPDATE, &[&[id], value.as_bytes()].concat())
}

/// Begins both replies, says `more` on the control stream when both wait, and reads both; octets of each
/// that had come when the first of them was whole.
fn race(edge: &Edge, first: &[u8], second: &[u8], more: &[u8]) -> [usize; 2] {
    let client = client();
    let (bare, mut control) = open(&client, edge);
    let streams = [first, second].map(|request| {
        let mut stream = bare.open(request);
        stream.finish();
        stream
    });
    // Both are asked for, and fill what they may.
    wait::hold(wait::millis(400));
    runtime().block_on(async {
        control.write_all(more).await.expect("open");
        tokio::time::sleep(wait::millis(100)).await;
        let [first, second] = streams;
        let (mut first, mut second) = (first.recv, second.recv);
        let mut got = [0, 0];
        loop {
            let (nth, piece) = tokio::select! {
                piece = first.read_chunk(4096, true) => (0, piece),
                piece = second.read_chunk(4096, true) => (1, piece),
            };
            match piece.expect("it goes on") {
                Some(chunk) => got[nth] += chunk.bytes.len(),
                None => return got,
            }
        }
    })
}

/// The second one is whole, and little has come of the first.
fn overtakes(got: [usize; 2]) -> bool {
    got[1] >= SIZE && got[0] < SIZE / 2
}

#[test]
fn the_urgent_one_is_done_first() {
    let (_app, edge) = edge();
    let got = race(
        &edge,
        &get("/image", Some("u=5, i")),
        &get("/style", Some("u=0")),
        &[],
    );
    assert!(overtakes(got), "{got:?}");
    let got = race(
        &edge,
        &get("/image", Some("u=0")),
        &get("/style", Some("u=5, i")),
        &[],
    );
    assert!(got[0] >= SIZE && got[1] < SIZE / 2, "{got:?}");
}

#[test]
fn what_is_of_use_as_a_whole_alone_comes_one_after_the_other() {
    let (_app, edge) = edge();
    let got = race(&edge, &get("/1", Some("u=3")), &get("/2", Some("u=3")), &[]);
    assert!(got[0] >= SIZE && got[1] < SIZE / 2, "{got:?}");
}

#[test]
fn who_says_nothing_shares() {
    let (_app, edge) = edge();
    let got = race(&edge, &get("/1", None), &get("/2", None), &[]);
    let less = *got.iter().min().expect("two");
    assert!(less > SIZE / 4, "{got:?}");
}

#[test]
fn the_client_may_say_it_anew() {
    let (_app, edge) = edge();
    let said = update(4, "u=0");
    let both = get("/image", Some("u=6, i"));
    let got = race(&edge, &both, &both, &said);
    assert!(overtakes(got), "{got:?}");
}

#[test]
fn the_app_knows_better() {
    let (_app, edge) = edge();
    let (first, second) = (get("/image", Some("u=2, i")), get("/said", Some("u=7")));
    let got = race(&edge, &first, &second, &[]);
    assert!(overtakes(got), "{got:?}");
}

#[test]
fn frames_that_name_no_stream_that_may_be_end_the_connection() {
    let (_app, edge) = edge();
    let client = Client::new();
    for (what, octets, code) in [
        ("no request's stream", update(2, "u=0"), 0x108),
        (
            "beyond what may be open",
            frame(PRIORITY_UPDATE, &[0xbf, 0xff, 0xff, 0xfc]),
            0x108,
        ),
        ("no number", frame(PRIORITY_UPDATE, &[]), 0x106),
        ("a push", frame(0xf0701, &[0]), 0x108),
    ] {
        let (bare, mut control) = open(&client, &edge);
        runtime().block_on(async {
            let _ = control.write_all(&octets).await;
        });
        assert_eq!(bare.await_close(), Verdict::Closed(code), "{what}");
    }
    let (bare, _control) = open(&client, &edge);
    bare.send(&[get("/", None), update(0, "u=0")].concat(), true);
    assert_eq!(
        bare.await_close(),
        Verdict::Closed(0x105),
        "on a request's stream"
    );
    // Before its request, and what cannot be read.
    let (bare, mut control) = open(&client, &edge);
    runtime().block_on(async {
        let _ = control
            .write_all(&[update(0, "u=1"), update(4, "?")].concat())
            .await;
    });
    assert_eq!(bare.send(&get("/", None), true), Verdict::Status(200));
}
