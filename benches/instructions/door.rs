//! Heads and bodies, as the proxy reads and writes them.

use std::hint::black_box;

use http::HeaderName;

use crate::exchange::backward::{Translated, translate};
use crate::exchange::chunked::ChunkScanner;
use crate::exchange::guard::{Inspect, MethodKind, inspect};
use crate::exchange::head::Checked;
use crate::exchange::normalise::normalise;
use crate::exchange::onward::{AddressText, Origin, added, is_taken_over};
use crate::exchange::route::Router;
use crate::exchange::{Asked, Course, course};
use crate::{Part, ready};

/// A browser's.
pub(crate) const REQUEST: &[u8] = b"GET /catalog/shoes?page=2&sort=price HTTP/1.1\r\n\
Host: shop.example\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9\r\n\
Cookie: sid=3f2504e04f8911d39a0c0305e82c3301; theme=dark\r\n\
Connection: keep-alive\r\n\
Referer: https://shop.example/\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\r\n";

/// An app's.
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: app\r\n\
Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Content-Type: text/html; charset=utf-8\r\n\
Content-Length: 1024\r\n\
Cache-Control: private, max-age=0\r\n\
Set-Cookie: sid=3f2504e04f8911d39a0c0305e82c3301; Path=/; HttpOnly; Secure; SameSite=Lax\r\n\
Vary: Accept-Encoding\r\n\
Connection: keep-alive\r\n\r\n";

/// Two chunks.
const CHUNKED: &[u8] = b"1a\r\nabcdefghijklmnopqrstuvwxyz\r\n\
10;a=b\r\n0123456789abcdef\r\n\
0\r\n\r\n";

/// A shop's: two hosts, prefixes, an expression, a condition, and what is left.
const ROUTES: &str = r#"
[[listener]]
address = "127.0.0.1:8080"

[upstream.app]
endpoints = ["127.0.0.1:3000"]

[[route]]
match = { host = "admin.shop.example" }
upstream = "app"

[[route]]
match = { host = "shop.example", path = "/healthz" }
respond = { status = 204 }

[[route]]
match = { host = "shop.example", path_prefix = "/api" }
upstream = "app"

[[route]]
match = { host = "shop.example", path_prefix = "/catalog", method = "POST" }
upstream = "app"

[[route]]
match = { host = "shop.example", path_prefix = "/catalog" }
upstream = "app"

[[route]]
match = { host = "*.shop.example" }
upstream = "app"

[[route]]
upstream = "app"
"#;

/// The guard.
#[must_use]
pub fn head_of_request() -> Part {
    ready(|| matches!(inspect(black_box(REQUEST), 32 * 1024), Inspect::Head(_)))
}

/// The lines of a head that the guard took.
#[must_use]
pub fn fields_of_request() -> Part {
    ready(|| Checked::new(black_box(REQUEST), MethodKind::Get).is_some())
}

/// A path that is as it should be.
#[must_use]
pub fn path_in_place() -> Part {
    path("/catalog/shoes?page=2&sort=price")
}

/// One with escapes to undo, dots and slashes.
#[must_use]
pub fn path_to_mend() -> Part {
    path("/catalog//%7Ered/./x/../caf%c3%a9?page=2")
}

fn path(target: &'static str) -> Part {
    ready(|| normalise(black_box(target), true).map_or(0, |target| target.path.len()))
}

/// Host and path in their one spelling, and the route for them.
///
/// # Panics
/// If the routes above are none.
#[must_use]
#[expect(clippy::expect_used, reason = "a constant of this file")]
pub fn route() -> Part {
    let config = conf::load_str(ROUTES, "routes.toml".as_ref()).expect("routes");
    let router = Router::new(&config.routes);
    let head = Checked::new(REQUEST, MethodKind::Get).expect("a head");
    let found = move || {
        let asked = Asked {
            head: black_box(&head),
            listener: 0,
            target: head.target(),
            tls: true,
            h2: None,
            max_fields: 128,
            merge_slashes: true,
            begun: None,
        };
        match course(&router, &asked) {
            Course::Route(way) => Some(way.route),
            _ => None,
        }
    };
    assert_eq!(found(), Some(4), "the prefix without a condition");
    ready(found)
}

/// The lines of a request for an upstream.
///
/// # Panics
/// If the request above is none.
#[must_use]
#[expect(clippy::expect_used, reason = "a constant of this file")]
pub fn head_sent_on() -> Part {
    let head = Checked::new(REQUEST, MethodKind::Get).expect("a head");
    let peer = AddressText::new([192, 0, 2, 7].into());
    let mut out = Vec::with_capacity(4096);
    ready(move || {
        let origin = Origin {
            certified: false,
            peer: &peer,
            trusted: false,
            tls: true,
            authority: "shop.example",
            id: b"3f2504e04f8911d39a0c0305e82c3301",
            trailers: None,
        };
        out.clear();
        for line in black_box(&head).lines() {
            if is_taken_over(line.name()) {
                out.extend_from_slice(line.as_written().unwrap_or_default());
            }
        }
        added(&head, &origin, None, &mut |name: &HeaderName, value| {
            for piece in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
                out.extend_from_slice(piece);
            }
        });
        out.len()
    })
}

/// A reply's head for the client.
#[must_use]
pub fn head_of_reply() -> Part {
    let mut out = Vec::with_capacity(4096);
    ready(move || {
        out.clear();
        matches!(
            translate(black_box(REPLY), false, &mut out),
            Translated::Head(_)
        )
    })
}

/// The end of a chunked body.
#[must_use]
pub fn chunked_body() -> Part {
    ready(|| {
        let progress = ChunkScanner::new().feed(black_box(CHUNKED));
        progress.is_ok_and(|progress| progress.done)
    })
}
