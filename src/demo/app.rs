//! What an app node answers: the shop's pages, its cart, a clock, its health.
//!
//! Catalogue pages may be cached, everything else is `no-store`. They speak to
//! two kinds of cache: `Cache-Control` tells browsers to ask again each time
//! (which costs a 304), `CDN-Cache-Control` (RFC 9213) lets the edge keep them
//! for ten seconds.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::header::{CACHE_CONTROL, ETAG, HeaderName, IF_NONE_MATCH, LOCATION, SET_COOKIE};
use hyper::{HeaderMap, Method, Request, StatusCode};

use super::catalogue::{self, Product};
use super::pages::{self, Stamp};
use super::random;
use super::reply::{self, HTML, JSON, Reply, TEXT, reply};
use super::session::{self, Cart};

/// Says who answered.
const X_NODE: HeaderName = HeaderName::from_static("x-node");
/// For shared caches only (RFC 9213).
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Browsers ask again each time.
const FOR_BROWSERS: &str = "public, max-age=0";
/// The edge keeps a page this long.
const FOR_THE_EDGE: &str = "max-age=10";
/// Bytes of a form; ours has a dozen.
const MAX_FORM: usize = 1024;

/// Answers one request as node `number` at the time `now`.
pub(crate) async fn answer<B>(number: u8, now: SystemTime, request: Request<B>) -> Reply
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stamp = Stamp::new(number, now);
    let mut reply = route(&stamp, now, request).await;
    reply::set(&mut reply, X_NODE, &number.to_string());
    reply
}

async fn route<B>(stamp: &Stamp, now: SystemTime, request: Request<B>) -> Reply
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if path == "/cart" && request.method() == Method::POST {
        return change_cart(request).await;
    }
    if !reads {
        return reply::not_allowed(if path == "/cart" {
            "GET, HEAD, POST"
        } else {
            "GET, HEAD"
        });
    }
    match path {
        "/" => page(stamp, now, "home", pages::home(stamp), request.headers()),
        "/cart" => cart(stamp, request.headers()),
        "/api/time" => time(stamp),
        "/healthz" => reply(StatusCode::OK, TEXT, "ok\n"),
        _ => match product(path) {
            Some(product) => {
                let name = format!("product-{}", product.number);
                page(
                    stamp,
                    now,
                    &name,
                    pages::product(stamp, product),
                    request.headers(),
                )
            }
            None => reply(StatusCode::NOT_FOUND, HTML, pages::not_found(stamp)),
        },
    }
}

fn product(path: &str) -> Option<&'static Product> {
    let number = path.strip_prefix("/product/")?;
    // One address for each page: no `+1`, no `01`.
    let number = number
        .parse::<u8>()
        .ok()
        .filter(|n| n.to_string() == number)?;
    catalogue::find(number)
}

/// A page that may be cached; 304 where the client has it already.
fn page(stamp: &Stamp, now: SystemTime, name: &str, html: String, fields: &HeaderMap) -> Reply {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let etag = format!("\"{name}-{}-{seconds}\"", stamp.node);
    // RFC 9110 section 13.1.2; this list form is all that the edge sends.
    let known = fields
        .get(IF_NONE_MATCH)
        .is_some_and(|given| given.as_bytes() == etag.as_bytes());
    let mut reply = match known {
        true => reply(StatusCode::NOT_MODIFIED, HTML, ""),
        false => reply(StatusCode::OK, HTML, html),
    };
    reply::set(&mut reply, CACHE_CONTROL, FOR_BROWSERS);
    reply::set(&mut reply, CDN_CACHE_CONTROL, FOR_THE_EDGE);
    reply::set(&mut reply, ETAG, &etag);
    reply
}

fn cart(stamp: &Stamp, fields: &HeaderMap) -> Reply {
    let session = session::session(fields);
    let mut reply = reply(StatusCode::OK, HTML, pages::cart(stamp, &Cart::of(fields)));
    if session.is_none()
        && let Ok(name) = random::hex()
    {
        reply::set(
            &mut reply,
            SET_COOKIE,
            &session::set_cookie(session::SESSION, &name),
        );
    }
    reply
}

/// `add=3` or `remove=3` as a form; back to the cart with 303.
async fn change_cart<B>(request: Request<B>) -> Reply
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let Ok(form) = Limited::new(body, MAX_FORM).collect().await else {
        return reply(
            StatusCode::PAYLOAD_TOO_LARGE,
            TEXT,
            "the form is too large or was cut\n",
        );
    };
    let form = form.to_bytes();
    let wish = std::str::from_utf8(&form)
        .ok()
        .and_then(|form| form.split_once('='));
    let product = wish.and_then(|(_, number)| catalogue::find(number.parse().ok()?));
    let (Some((verb, _)), Some(product)) = (wish, product) else {
        return reply(
            StatusCode::BAD_REQUEST,
            TEXT,
            "send add=NUMBER or remove=NUMBER\n",
        );
    };
    let mut cart = Cart::of(&head.headers);
    match verb {
        "add" => cart.add(product),
        "remove" => cart.remove(product),
        _ => {
            return reply(
                StatusCode::BAD_REQUEST,
                TEXT,
                "send add=NUMBER or remove=NUMBER\n",
            );
        }
    }
    let mut reply = reply(StatusCode::SEE_OTHER, TEXT, "the cart was changed\n");
    reply::set(&mut reply, LOCATION, "/cart");
    reply::set(
        &mut reply,
        SET_COOKIE,
        &session::set_cookie(session::CART, &cart.to_value()),
    );
    reply
}

fn time(stamp: &Stamp) -> Reply {
    let mut body = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        body,
        "{{\"node\":{},\"time\":\"{}\"}}",
        stamp.node, stamp.date
    );
    reply(StatusCode::OK, JSON, body)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::body::Bytes;
    use hyper::header::{ALLOW, COOKIE};

    use super::*;

    async fn ask(method: &str, path: &str, cookies: &str, body: &'static str) -> Reply {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(COOKIE, cookies)
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .expect("a request");
        answer(2, UNIX_EPOCH, request).await
    }

    fn field(reply: &Reply, name: impl hyper::header::AsHeaderName) -> &str {
        reply
            .headers()
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }

    #[tokio::test]
    async fn catalogue_pages_may_be_kept_by_the_edge_and_the_rest_by_nobody() {
        for path in ["/", "/product/1", "/product/8"] {
            let reply = ask("GET", path, "", "").await;
            assert_eq!(reply.status(), StatusCode::OK, "{path}");
            assert_eq!(field(&reply, CDN_CACHE_CONTROL), "max-age=10", "{path}");
            assert!(!field(&reply, ETAG).is_empty(), "{path}");
            assert!(field(&reply, SET_COOKIE).is_empty(), "{path}");
        }
        for path in [
            "/cart",
            "/api/time",
            "/healthz",
            "/product/9",
            "/product/01",
            "/nowhere",
        ] {
            let reply = ask("GET", path, "", "").await;
            assert_eq!(field(&reply, CACHE_CONTROL), "no-store", "{path}");
            assert_eq!(field(&reply, X_NODE), "2", "{path}");
        }
    }

    #[tokio::test]
    async fn a_known_etag_gives_304() {
        let etag = field(&ask("GET", "/", "", "").await, ETAG).to_owned();
        let request = Request::builder()
            .uri("/")
            .header(IF_NONE_MATCH, &etag)
            .body(Full::new(Bytes::new()))
            .expect("a request");
        let reply = answer(2, UNIX_EPOCH, request).await;
        assert_eq!(reply.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(field(&reply, ETAG), etag);
    }

    #[tokio::test]
    async fn the_cart_is_changed_by_a_form_and_shown_again() {
        let reply = ask("POST", "/cart", "cart=1", "add=3").await;
        assert_eq!(reply.status(), StatusCode::SEE_OTHER);
        assert_eq!(field(&reply, LOCATION), "/cart");
        assert!(
            field(&reply, SET_COOKIE).starts_with("cart=1.3; "),
            "{reply:?}"
        );
        let reply = ask("POST", "/cart", "cart=1.3", "remove=1").await;
        assert!(
            field(&reply, SET_COOKIE).starts_with("cart=3; "),
            "{reply:?}"
        );
    }

    #[tokio::test]
    async fn a_visitor_gets_a_session_once() {
        let reply = ask("GET", "/cart", "", "").await;
        let set = field(&reply, SET_COOKIE);
        assert!(set.starts_with("session="), "{set}");
        let given = set.split(';').next().expect("a pair");
        let reply = ask("GET", "/cart", given, "").await;
        assert!(field(&reply, SET_COOKIE).is_empty());
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        for body in ["", "add", "add=0", "add=x", "drop=1"] {
            let reply = ask("POST", "/cart", "", body).await;
            assert_eq!(reply.status(), StatusCode::BAD_REQUEST, "{body}");
        }
        let reply = ask("DELETE", "/", "", "").await;
        assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(field(&reply, ALLOW), "GET, HEAD");
    }
}
