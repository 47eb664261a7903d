//! Lists behind URLs: against a small HTTP server that says what a test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conf::Discovery;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::dns::Dns;
use super::super::url::Polled;
use super::super::{Source, Trouble};
use super::{free, ids, listed, until, until_ids};

/// What the server answers from now on, and the heads that it has seen.
#[derive(Clone, Default)]
struct Said {
    answer: Arc<Mutex<String>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Said {
    fn now(&self, answer: impl Into<String>) {
        *self.answer.lock().unwrap() = answer.into();
    }

    fn list(&self, etag: &str, list: &str) {
        let length = list.len();
        self.now(format!(
            "HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: {length}\r\n\r\n{list}"
        ));
    }

    fn last_head(&self) -> String {
        self.heads
            .lock()
            .unwrap()
            .last()
            .cloned()
            .unwrap_or_default()
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let answer = self.answer.lock().unwrap().clone();
        self.heads.lock().unwrap().push(head);
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

async fn server(said: &Said) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let said = said.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            said.serve(stream).await;
        }
    });
    address
}

fn polled(url: String) -> Source {
    let from = Discovery::Http {
        url,
        every: Duration::from_secs(1),
        timeout: Duration::from_millis(1500),
    };
    listed(from, &[])
}

#[tokio::test]
async fn a_list_is_polled_with_its_etag() {
    let said = Said::default();
    let address = server(&said).await;
    said.list("\"one\"", "[\"10.0.0.1:80\"]");
    let mut source = polled(format!("http://{address}/app?token=secret"));
    let found = source.look_up().await.expect("the list");
    assert_eq!(ids(&found), ["10.0.0.1:80"]);
    let again = found.again_in;
    assert!(again > Duration::from_millis(700) && again <= Duration::from_millis(1100));
    let head = said.last_head().to_ascii_lowercase();
    assert!(
        head.starts_with("get /app?token=secret http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    assert!(head.contains("accept: application/json\r\n"), "{head}");
    assert!(!head.contains("if-none-match"), "{head}");

    said.now("HTTP/1.1 304 Not Modified\r\n\r\n");
    let first = found.as_of;
    let confirmed = until(&mut source, "confirmed", |looked| {
        looked.as_ref().is_ok_and(|found| found.as_of > first)
    });
    let found = confirmed.await.expect("unchanged");
    assert_eq!(ids(&found), ["10.0.0.1:80"]);
    assert!(found.failures.is_empty());
    assert!(
        said.last_head()
            .to_ascii_lowercase()
            .contains("if-none-match: \"one\"\r\n")
    );

    said.list(
        "\"two\"",
        "{\"endpoints\": [\"10.0.0.2:80\", \"localhost:81\"]}",
    );
    until_ids(&mut source, &["10.0.0.2:80", "127.0.0.1:81"]).await;
}

#[tokio::test]
async fn every_bad_answer_keeps_the_list_and_says_why() {
    let said = Said::default();
    let address = server(&said).await;
    said.list("\"one\"", "[\"10.0.0.1:80\"]");
    let mut source = polled(format!("http://{address}/app?token=secret"));
    source.look_up().await.expect("the list");
    let large = "x".repeat((4 << 20) + 1);
    let cases: Vec<(String, Trouble, &str)> = vec![
        (
            "HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\n\r\n".into(),
            Trouble::Status(302),
            "redirects are not followed",
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".into(),
            Trouble::Status(503),
            "503",
        ),
        (
            "HTTP/1.1 200 OK\r\nETag: \"bad\"\r\nContent-Length: 5\r\n\r\n[\n\"a\"".into(),
            Trouble::BadDocument,
            "line 2",
        ),
        (
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}",
                large.len()
            ),
            Trouble::BadDocument,
            "larger than 4 MiB",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n[]".into(),
            Trouble::BadDocument,
            "gzip",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]".into(),
            Trouble::NotFound,
            "no endpoint",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n[\"10.0".into(),
            Trouble::Io,
            "broke off",
        ),
        (
            "SSH-2.0-OpenSSH_9.2\r\n".into(),
            Trouble::BadDocument,
            "HTTP/1.1",
        ),
    ];
    for (answer, kind, says) in cases {
        said.now(answer);
        let failed = until(&mut source, says, |looked| {
            looked
                .as_ref()
                .is_ok_and(|found| found.failures.iter().any(|failure| failure.kind() == kind))
        });
        let found = failed.await.expect("the last known");
        assert_eq!(ids(&found), ["10.0.0.1:80"]);
        let text = found.failures[0].to_string();
        assert!(text.contains(says), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    // A list that was of no use does not stay in the way of the one before it.
    assert!(
        !said
            .last_head()
            .to_ascii_lowercase()
            .contains("if-none-match")
    );
    said.list("\"one\"", "[\"10.0.0.1:80\"]");
    let good = until(&mut source, "good again", |looked| {
        looked.as_ref().is_ok_and(|found| {
            found.failures.is_empty() && found.as_of + Duration::from_secs(1) > crate::clock::now()
        })
    });
    assert_eq!(ids(&good.await.expect("good")), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn a_server_that_is_silent_or_gone_is_passing_trouble() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let error = polled(format!("http://{address}/")).look_up().await;
    let error = error.expect_err("silence");
    assert_eq!(error.kind(), Trouble::Timeout, "{error}");
    assert!(!error.is_definite());
    let error = polled(format!("http://{}/", free())).look_up().await;
    let error = error.expect_err("nobody there");
    assert_eq!(error.kind(), Trouble::Refused, "{error}");
    assert!(!error.is_definite());
}

#[test]
fn urls_that_cannot_be_asked_are_refused_without_showing_secrets() {
    for url in [
        "ftp://host/list",
        "/list",
        "http://me:secret@host/list",
        "not a url",
        "https://",
    ] {
        let error = Polled::new(url, Duration::from_secs(1), false).err();
        let error = error.expect(url);
        assert_eq!(error.kind(), Trouble::Settings, "{error}");
        assert!(error.is_definite());
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn https_verifies_the_certificate_for_the_host() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate");
    let said = Said::default();
    said.list("\"one\"", "[\"10.0.0.1:80\"]");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let serving = said.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                serving.serve(stream).await;
            }
        }
    });
    let dns = Dns::new(&[]).expect("the system's settings");
    let trusting = |url: String| {
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("an anchor");
        let polled = Polled::new(&url, Duration::from_secs(5), false).expect("a URL");
        polled.trusting(roots).expect("a configuration")
    };
    let mut good = trusting(format!("https://localhost:{port}/"));
    let list = good.changed(&dns).await.expect("the list").expect("new");
    assert_eq!(list.len(), 1);
    let mut other_name = trusting(format!("https://127.0.0.1:{port}/"));
    let error = other_name.changed(&dns).await.expect_err("another name");
    assert_eq!(error.kind(), Trouble::Tls, "{error}");
    let url = format!("https://localhost:{port}/");
    let mut system = Polled::new(&url, Duration::from_secs(5), false).expect("a URL");
    let error = system
        .changed(&dns)
        .await
        .expect_err("nobody vouches for it");
    assert_eq!(error.kind(), Trouble::Tls, "{error}");
    assert!(!error.is_definite());
}
