//! The admin server over real sockets, with a made-up state behind it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Mutex;

use conf::AdminAddress;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::exchange::purging::Target;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Fake {
    dead: bool,
    draining: bool,
    listeners: Vec<ListenerAddress>,
    token: Option<&'static str>,
    purged: Mutex<Vec<Purge>>,
}

impl State for Fake {
    fn metrics_text(&self) -> String {
        "tidegate_test 1\n".to_owned()
    }
    fn live(&self) -> bool {
        !self.dead
    }
    fn ready(&self) -> Readiness {
        Readiness {
            ok: !self.draining,
            detail: if self.draining { "draining" } else { "serving" },
            listeners: self.listeners.clone(),
        }
    }
    fn config(&self) -> Value {
        json!({ "hash": "0123" })
    }
    fn maintenance(&self) -> Value {
        json!({ "on": false })
    }
    fn overload(&self) -> Value {
        json!({ "level": "calm" })
    }
    fn upstreams(&self) -> Value {
        json!([{ "name": "app" }])
    }
    fn change(&self, asked: &Asked) -> Result<Value, String> {
        match asked.endpoint.as_str() {
            "10.0.0.1:80" => Ok(json!({ "name": asked.endpoint })),
            other => Err(format!("there is no {other}")),
        }
    }
    fn routes(&self) -> Value {
        json!([{ "name": "catalog" }])
    }
    fn certificates(&self) -> Value {
        json!([{ "source": "file" }])
    }
    fn order(&self, asked: &OrderAsked) -> Result<Value, String> {
        match asked.name.as_deref() {
            Some("shop.example") => Ok(json!([{ "missing": asked.missing }])),
            _ => Err("there is shop.example".to_owned()),
        }
    }
    fn token(&self) -> Option<conf::Secret> {
        self.token.map(|token| conf::Secret::new(token.to_owned()))
    }
    fn cache(&self) -> Value {
        json!({ "memory": {} })
    }
    fn inspect(&self, url: &Url, fields: &HeaderMap) -> Value {
        json!({ "path": url.path, "fields": fields.len() })
    }
    fn purge(&self, purge: &Purge) -> u64 {
        self.purged.lock().expect("no panic").push(purge.clone());
        match &purge.targets[..] {
            [Target::Url(url)] => u64::from(url.path == "/stored"),
            _ => 7,
        }
    }
}

/// A running server.
struct Server {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    fn start(state: Fake) -> Self {
        Self::start_on(&AdminAddress::Tcp(([127, 0, 0, 1], 0).into()), state)
    }

    fn start_on(address: &AdminAddress, state: Fake) -> Self {
        let listener = AdminListener::bind(address).expect("binds");
        let address = listener.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, Arc::new(state), async {
            drop(stopped.await);
        }));
        Self {
            address,
            stop: Some(stop),
            task,
        }
    }

    async fn ask(&self, head: &str) -> Reply {
        let mut stream = TcpStream::connect(&self.address).await.expect("connects");
        exchange(&mut stream, head).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    async fn purge(&self, query: &str, authorization: Option<&str>) -> Reply {
        let field =
            authorization.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
        self.ask(&format!(
            "POST /cache/purge{query} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{field}\r\n"
        ))
        .await
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        let ended = timeout(PATIENCE, &mut self.task).await;
        ended
            .expect("in time")
            .expect("no panic")
            .expect("no error");
    }
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn has(&self, field: &str) -> bool {
        self.head
            .lines()
            .any(|line| line.eq_ignore_ascii_case(field))
    }
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), head: &str) -> Reply {
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("an answer in time").expect("an answer");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Reply {
        status: head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("no status in {text:?}")),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn every_page_that_reads_answers_get_and_head() {
    let server = Server::start(Fake::default());
    for (path, body) in [
        ("/metrics", "tidegate_test 1\n"),
        ("/live", "live\n"),
        ("/config", "{\n  \"hash\": \"0123\"\n}\n"),
        ("/upstreams", "[\n  {\n    \"name\": \"app\"\n  }\n]\n"),
        ("/routes", "[\n  {\n    \"name\": \"catalog\"\n  }\n]\n"),
    ] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, body), "{path}");
        assert!(reply.has("cache-control: no-store"), "{}", reply.head);
        let head = server
            .ask(&format!(
                "HEAD {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert!(
            head.has(&format!("content-length: {}", body.len())),
            "{}",
            head.head
        );
    }
    let reply = server.get("/metrics").await;
    assert!(
        reply.has("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{}",
        reply.head
    );
    server.stop().await;
}

#[tokio::test]
async fn the_index_lists_all_pages_as_text_or_html() {
    let server = Server::start(Fake::default());
    let text = server.get("/").await;
    assert!(text.has("content-type: text/plain; charset=utf-8"));
    assert!(
        text.body.contains("/metrics") && text.body.contains("POST"),
        "{}",
        text.body
    );
    let html = server
        .ask("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html,*/*\r\nConnection: close\r\n\r\n")
        .await;
    assert!(html.has("content-type: text/html; charset=utf-8"));
    assert!(html.body.contains("<a href=\"/ready\">"), "{}", html.body);
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_page_is_404_and_a_wrong_method_405_with_what_there_is() {
    let server = Server::start(Fake::default());
    let reply = server.get("/metricz").await;
    assert_eq!(reply.status, 404);
    assert!(reply.json()["pages"].as_array().is_some_and(|pages| {
        pages.contains(&json!("/metrics")) && pages.contains(&json!("/cache/purge"))
    }));
    let reply = server
        .ask("DELETE /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(reply.status, 405);
    assert!(reply.has("allow: GET, HEAD"), "{}", reply.head);
    let reply = server.get("/cache/purge?url=https://a/").await;
    assert_eq!(reply.status, 405);
    assert!(reply.has("allow: POST"), "{}", reply.head);
    server.stop().await;
}

#[tokio::test]
async fn a_process_that_does_not_work_is_not_live() {
    let server = Server::start(Fake {
        dead: true,
        ..Fake::default()
    });
    assert_eq!(server.get("/live").await.status, 503);
    server.stop().await;
}

#[tokio::test]
async fn ready_means_that_every_listener_takes_a_connection() {
    let open = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = open.local_addr().expect("bound").port();
    // Bound, so that nobody else is given the port, but not listening.
    let closed = TcpSocket::new_v4().expect("a socket");
    closed.bind(([127, 0, 0, 1], 0).into()).expect("binds");
    let closed_address = closed.local_addr().expect("bound");
    let listener = |name: &str, address| ListenerAddress {
        name: name.to_owned(),
        address,
    };
    let good = listener("http", ([0, 0, 0, 0], port).into());

    let server = Server::start(Fake {
        listeners: vec![good.clone()],
        ..Fake::default()
    });
    let reply = server.get("/ready").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(
        reply.json(),
        json!({
            "ready": true, "detail": "serving",
            "listeners": [{
                "name": "http", "address": format!("0.0.0.0:{port}"),
                "ok": true, "detail": "accepts connections",
            }],
        })
    );
    server.stop().await;

    let server = Server::start(Fake {
        listeners: vec![good.clone(), listener("gone", closed_address)],
        ..Fake::default()
    });
    let reply = server.get("/ready").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["listeners"][0]["ok"], true);
    assert_eq!(reply.json()["listeners"][1]["name"], "gone");
    assert_eq!(reply.json()["listeners"][1]["ok"], false);
    server.stop().await;

    let server = Server::start(Fake {
        draining: true,
        listeners: vec![good],
        ..Fake::default()
    });
    let reply = server.get("/ready").await;
    assert_eq!(
        (reply.status, &reply.json()["detail"]),
        (503, &json!("draining"))
    );
    server.stop().await;
}

#[tokio::test]
async fn purging_wants_the_token_and_says_what_is_wrong() {
    let server = Server::start(Fake {
        token: Some("s3cret"),
        ..Fake::default()
    });
    let url = "?url=https://shop.example/stored";
    let reply = server.purge(url, None).await;
    assert_eq!(reply.status, 401);
    assert!(
        reply.has("www-authenticate: Bearer realm=\"tidegate\""),
        "{}",
        reply.head
    );
    assert!(reply.json()["error"].is_string());
    assert_eq!(server.purge(url, Some("Bearer wrong!")).await.status, 401);

    let reply = server.purge(url, Some("Bearer s3cret")).await;
    let purged = json!({ "purged": 1, "mode": "hard" });
    assert_eq!((reply.status, reply.json()), (200, purged));
    let counted = json!({ "would_purge": 7, "mode": "soft" });
    let reply = server
        .purge("?tag=a&soft=1&dry_run=1", Some("Bearer s3cret"))
        .await;
    assert_eq!((reply.status, reply.json()), (200, counted));
    let reply = server
        .purge("?url=https://shop.example/other", Some("Bearer s3cret"))
        .await;
    assert_eq!((reply.status, &reply.json()["purged"]), (404, &json!(0)));
    for query in [
        "",
        "?url=",
        "?url=/stored",
        "?page=https://shop.example/stored",
        "?tag=",
        "?all=maybe",
    ] {
        let reply = server.purge(query, Some("Bearer s3cret")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.json()["error"].is_string(), "{}", reply.body);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_order_wants_the_token_and_a_name_that_is_there() {
    let server = Server::start(Fake {
        token: Some("s3cret"),
        ..Fake::default()
    });
    let order = async |query: &str, token: &str| {
        let head = format!(
            "POST /certificates/order{query} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{token}\r\n"
        );
        server.ask(&head).await
    };
    let token = "Authorization: Bearer s3cret\r\n";
    assert_eq!(order("?name=shop.example", "").await.status, 401);
    let reply = order("?name=shop.example&missing=true", token).await;
    let begun = json!([{ "missing": true }]);
    assert_eq!((reply.status, reply.json()), (200, begun));
    assert_eq!(order("?name=other.example", token).await.status, 404);
    assert_eq!(order("?host=shop.example", token).await.status, 400);
    assert_eq!(server.get("/certificates/order").await.status, 405);
    assert_eq!(
        server.get("/certificates").await.json()[0]["source"],
        "file"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_look_into_the_cache_names_a_url_and_a_requests_fields() {
    let server = Server::start(Fake::default());
    assert_eq!(server.get("/cache").await.json(), json!({ "memory": {} }));
    let query = "?header=accept-language%3A%20de&header=x:1&url=https://shop.example/a?b";
    let reply = server.get(&format!("/cache/inspect{query}")).await;
    let found = json!({ "path": "/a", "fields": 2 });
    assert_eq!((reply.status, reply.json()), (200, found));
    for query in [
        "",
        "?url=/a",
        "?url=https://a/&x",
        "?header=x&url=https://a/",
        "?x=1",
    ] {
        let reply = server.get(&format!("/cache/inspect{query}")).await;
        let wrong = query != "?url=https://a/&x";
        assert_eq!(reply.status == 400, wrong, "{query}: {}", reply.body);
    }
    server.stop().await;
}

#[tokio::test]
async fn without_a_configured_token_nobody_purges() {
    let server = Server::start(Fake::default());
    for authorization in [None, Some("Bearer "), Some("Bearer s3cret")] {
        let reply = server
            .purge("?url=https://shop.example/stored", authorization)
            .await;
        assert_eq!(reply.status, 403);
        assert!(reply.body.contains("[admin]"), "{}", reply.body);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let server = Server::start(Fake::default());
    let long = "a".repeat(2 * MAX_HEAD);
    let mut stream = TcpStream::connect(&server.address).await.expect("connects");
    let head = format!("GET /live HTTP/1.1\r\nHost: a\r\nX: {long}");
    // The server may close before it was sent whole.
    drop(stream.write_all(head.as_bytes()).await);
    let mut answer = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    drop(ended.expect("the server ends it"));
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "it was answered");
    assert_eq!(server.get("/live").await.status, 200, "others are served");
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_answers_and_is_gone_at_the_end() {
    let path: PathBuf =
        std::env::temp_dir().join(format!("tidegate-admin-{}.sock", std::process::id()));
    let server = Server::start_on(&AdminAddress::Unix(path.clone()), Fake::default());
    let mut stream = UnixStream::connect(&path).await.expect("connects");
    let head = "GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(&mut stream, head).await.status, 200);
    server.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_end_up() {
    let server = Server::start(Fake::default());
    let mut idle = TcpStream::connect(&server.address).await.expect("connects");
    assert_eq!(server.get("/live").await.status, 200, "both are accepted");
    server.stop().await;
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, idle.read_to_end(&mut rest)).await;
    drop(ended.expect("closed"));
}
