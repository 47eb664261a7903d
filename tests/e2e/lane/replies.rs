//! What an app may answer.

use std::time::Duration;

use crate::support::Answer;

/// Replies of an app by their number, each with what it is there for.
pub(super) fn replies() -> Vec<(&'static str, Answer)> {
    let raw = |head: &str, body: &str| Answer::raw(format!("HTTP/1.1 {head}\r\n\r\n{body}"));
    let stays = |head: &str, body: &str| raw(head, body).then_stay();
    vec![
        ("plain", Answer::ok("hello")),
        ("empty", Answer::ok("")),
        ("not found", Answer::new(404, "none")),
        ("server error", Answer::new(500, "broken")),
        ("no content", Answer::new(204, "")),
        ("not modified", Answer::new(304, "").field("ETag", "\"a\"")),
        ("larger than is read early", Answer::ok(vec![b'x'; 200_000])),
        ("as large as is read early", Answer::ok(vec![b'y'; 65_536])),
        (
            "fields of the connection",
            stays(
                "200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\
                 Upgrade: h2c\r\nTrailer: a\r\nX-Request-Id: theirs\r\nContent-Length: 2",
                "ok",
            ),
        ),
        (
            "fields that connection names",
            stays(
                "200 OK\r\nConnection: x-inner\r\nX-Inner: 1\r\nX-Outer: 2\r\nContent-Length: 2",
                "ok",
            ),
        ),
        (
            "several lines of a field",
            stays(
                "200 OK\r\nSet-Cookie: a=1\r\nX-A:b\r\nSet-Cookie: b=2\r\nContent-Length:\t2 ",
                "ok",
            ),
        ),
        (
            "the end is told",
            stays("200 OK\r\nConnection: close\r\nContent-Length: 2", "ok"),
        ),
        (
            "another reason",
            stays("200 Fine\r\nContent-Length: 2", "ok"),
        ),
        ("no reason", stays("200 \r\nContent-Length: 2", "ok")),
        (
            "a status of its own",
            stays("299 Own\r\nContent-Length: 2", "ok"),
        ),
        (
            "more than was said",
            stays("200 OK\r\nContent-Length: 2", "okmore"),
        ),
        ("less than was said", Answer::ok("short").short_by(5)),
        (
            "much less than was said",
            Answer::ok(vec![b'z'; 100_000]).short_by(5),
        ),
        ("until the end", Answer::until_close("all of it")),
        (
            "an older version",
            Answer::raw("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ),
        (
            "continue before",
            stays(
                "100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2",
                "ok",
            ),
        ),
        (
            "early hints before",
            stays(
                "103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2",
                "ok",
            ),
        ),
        (
            "another protocol",
            raw(
                "101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade",
                "",
            ),
        ),
        (
            "chunks",
            Answer::chunks(&["first", "second"], Duration::ZERO),
        ),
        (
            "chunks with pauses",
            Answer::chunks(&["first", "second"], Duration::from_millis(70)),
        ),
        (
            "large chunks",
            Answer::chunks(&[vec![b'c'; 100_000], vec![b'd'; 10]], Duration::ZERO),
        ),
        (
            "no chunk but the last",
            stays("200 OK\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ),
        (
            "extensions and a trailer",
            stays(
                "200 OK\r\nTransfer-Encoding: chunked",
                "3;a=b\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
            ),
        ),
        (
            "a chunk that is none",
            raw(
                "200 OK\r\nTransfer-Encoding: chunked",
                "zz\r\nabc\r\n0\r\n\r\n",
            ),
        ),
        (
            "two codings",
            raw("200 OK\r\nTransfer-Encoding: gzip, chunked", "0\r\n\r\n"),
        ),
        (
            "two lengths",
            raw("200 OK\r\nContent-Length: 2\r\nContent-Length: 3", "ok!"),
        ),
        (
            "a length twice",
            stays("200 OK\r\nContent-Length: 2\r\nContent-Length: 2", "ok"),
        ),
        (
            "a length that is none",
            raw("200 OK\r\nContent-Length: two", "ok"),
        ),
        ("no HTTP", Answer::raw("SSH-2.0-OpenSSH_9.2\r\n")),
        (
            "a folded line",
            raw("200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2", "ok"),
        ),
        (
            "a name that is none",
            raw("200 OK\r\nX A: b\r\nContent-Length: 2", "ok"),
        ),
        ("the end instead of a reply", Answer::raw("")),
        (
            "the end within a line that is none",
            Answer::raw("HTTP/1.1 2k"),
        ),
        (
            "the end told in a second line",
            stays(
                "200 OK\r\nConnection: keep-alive\r\nConnection: close\r\nContent-Length: 2",
                "ok",
            ),
        ),
        (
            "early hints of an older version",
            Answer::raw(
                "HTTP/1.0 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            )
            .then_stay(),
        ),
        (
            "the end within the head",
            Answer::raw("HTTP/1.1 200 OK\r\nContent-Le"),
        ),
        ("a reset", Answer::reset()),
        (
            "late",
            Answer::ok("late").after(Duration::from_millis(1500)),
        ),
        ("many fields", stays(&with_fields(200), "ok")),
        ("too many fields", raw(&with_fields(300), "ok")),
        ("a large head", stays(&with_field_of(15_000), "ok")),
        (
            "a status that is asked for again",
            Answer::new(502, "again"),
        ),
        ("a status that has a page", Answer::new(410, "gone")),
    ]
}

fn with_fields(count: usize) -> String {
    let fields: String = (0..count).map(|nth| format!("\r\nX-{nth}: a")).collect();
    format!("200 OK\r\nContent-Length: 2{fields}")
}

fn with_field_of(size: usize) -> String {
    format!(
        "200 OK\r\nContent-Length: 2\r\nX-Long: {}",
        "a".repeat(size)
    )
}
