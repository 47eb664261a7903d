//! What passes between a client of HTTP/3 and an app: interim replies, expectations, trailers, calls of
//! gRPC, over both versions that apps speak.

use crate::http3::{H3, config};
use crate::support::h3::{Client, DATA, Verdict, frame, headers};
use crate::support::{Answer, Ask, Edge, Origin, Setup};

/// An edge that asks `app`, and one that asks that one over HTTP/2.
fn edges(app: &Origin) -> (Edge, Edge) {
    let setup = |address| {
        Setup::new()
            .with("APP", address)
            .file("public/page.html", "")
    };
    let inner = setup(app.address).start(&config(H3));
    let over_h2 = config(H3).replace("[static.files]", "protocol = \"h2\"\n[static.files]");
    let outer = setup(inner.http()).start(&over_h2);
    (inner, outer)
}

#[test]
fn interim_replies_of_an_app_come_before_its_reply() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
                   HTTP/1.1 102 Processing\r\n\r\n\
                   HTTP/1.1 100 Continue\r\n\r\n";
    let app = Origin::start(move |_| Answer::ok("final").behind(interim));
    let (inner, outer) = edges(&app);
    for edge in [&inner, &outer] {
        let mut client = Client::new().connect(edge.https());
        for _ in 0..2 {
            let reply = client.ask(&Ask::get("/")).expect(200);
            assert_eq!(reply.text(), "final");
            assert_eq!(
                reply.interim,
                [103, 102],
                "and no 100, which nobody asked for"
            );
        }
    }
}

#[test]
fn an_expectation_is_answered_here() {
    let app = Origin::start(|seen| Answer::ok(format!("{} bytes", seen.body.len())));
    let (inner, outer) = edges(&app);
    for edge in [&inner, &outer] {
        let mut client = Client::new().connect(edge.https());
        for _ in 0..2 {
            let ask = Ask::post("/", "hello").field("expect", "100-continue");
            let reply = client.ask(&ask).expect(200);
            assert_eq!(reply.text(), "5 bytes");
            assert_eq!(reply.interim, [100]);
            assert_eq!(app.last().field("expect"), None);
        }
    }
}

#[test]
fn what_a_client_says_behind_its_body_reaches_the_app() {
    let app = Origin::named("fine");
    let (inner, outer) = edges(&app);
    for edge in [&inner, &outer] {
        let client = Client::new();
        let bare = client.bare(edge.https());
        let request = [
            headers(&[
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "shop.test"),
                (":path", "/"),
            ]),
            frame(DATA, b"abc"),
            headers(&[("x-sum", "9"), ("content-type", "text/html")]),
        ]
        .concat();
        for _ in 0..2 {
            assert_eq!(bare.send(&request, true), Verdict::Status(200));
            let seen = app.last();
            assert_eq!(seen.body, b"abc");
            assert_eq!(
                seen.trailers,
                ["x-sum: 9"],
                "no field that decides something"
            );
        }
    }
}

#[test]
fn calls_of_grpc_pass_with_their_status_and_as_grpc_web() {
    // A message of two octets behind its flag and length, and the end of the call.
    const MESSAGE: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
    let app = Origin::start(|seen| {
        assert_eq!(seen.field("te"), Some("trailers"), "{}", seen.raw);
        Answer::chunks(&[MESSAGE.to_vec()], std::time::Duration::ZERO)
            .field("Content-Type", "application/grpc")
            .trailers(&["grpc-status: 0", "grpc-message: fine"])
    });
    let inner = Setup::new()
        .with("APP", app.address)
        .file("public/page.html", "")
        .start(&config(H3));
    let bridged = config(H3)
        .replace("[static.files]", "protocol = \"h2\"\n[static.files]")
        .replace("name = \"app\"\n", "name = \"app\"\ngrpc_web = true\n");
    let outer = Setup::new()
        .with("APP", inner.http())
        .file("public/page.html", "")
        .start(&bridged);
    let mut client = Client::new().connect(outer.https());
    for _ in 0..2 {
        let call = Ask::new("POST", "/shop.Cart/Get")
            .field("content-type", "application/grpc")
            .field("te", "trailers")
            .body(MESSAGE.to_vec());
        let reply = client.ask(&call).expect(200);
        assert_eq!(reply.body, MESSAGE);
        assert_eq!(reply.field("grpc-status"), Some("0"));
        assert_eq!(reply.field("grpc-message"), Some("fine"));
        let call = Ask::new("POST", "/shop.Cart/Get")
            .field("content-type", "application/grpc-web+proto")
            .body(MESSAGE.to_vec());
        let reply = client.ask(&call).expect(200);
        let (message, end) = reply.body.split_at(MESSAGE.len());
        assert_eq!(message, MESSAGE);
        assert_eq!(end[0], 0x80, "the frame of trailers");
        let text = String::from_utf8_lossy(&end[5..]).into_owned();
        assert!(
            text.contains("grpc-status:0") || text.contains("grpc-status: 0"),
            "{text}"
        );
    }
}
