//! Connections to endpoints that accept, refuse, are silent, and present
//! certificates of every kind.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::upstreams::testing::{Authority, dialer, endpoint, listen, tls, tls_endpoint};

/// Nothing answers there: reserved for future use (RFC 1112 section 4).
const NOWHERE: &str = "240.0.0.1:80";

/// An address that refuses: its port was free a moment ago.
async fn refusing() -> std::net::SocketAddr {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gone.local_addr().unwrap()
}

/// The kernel completes no connection to it: its queue is full.
async fn silent() -> (
    socket2::Socket,
    Vec<std::net::TcpStream>,
    std::net::SocketAddr,
) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))
    {
        held.push(stream);
        assert!(held.len() < 100, "the queue never fills");
    }
    (socket, held, address)
}

fn first_of(first: std::net::SocketAddr, second: std::net::SocketAddr) -> Target {
    Target::Inet {
        first,
        second: Some(second),
    }
}

fn address(target: &Target) -> std::net::SocketAddr {
    match target {
        Target::Inet { first, .. } => *first,
        Target::Unix(path) => panic!("{} is no address", path.display()),
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_refuses() {
    let target = Target::from(refusing().await);
    let error = dialer(|_| {}).dial(&target, None).await.unwrap_err();
    assert_eq!(error, DialError::Refused);
    assert_eq!(error.reason(), "connect: refused");
    assert!(error.to_string().contains("start the app"), "{error}");
}

#[tokio::test]
async fn a_host_that_says_nothing_is_given_up_in_time() {
    let (_socket, _held, silent) = silent().await;
    let dialer = dialer(|it| it.connect_timeout = Duration::from_millis(150));
    let began = clock::now();
    let error = dialer.dial(&silent.into(), None).await.unwrap_err();
    assert_eq!(error, DialError::Timeout);
    let took = clock::now() - began;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn the_second_address_answers_for_a_silent_first() {
    let (_socket, _held, silent) = silent().await;
    let (listener, target) = listen().await;
    let dialer = dialer(|it| it.connect_timeout = Duration::from_secs(2));
    let began = clock::now();
    let target = first_of(silent, address(&target));
    let _connection = dialer.dial(&target, None).await.expect("a connection");
    let took = clock::now() - began;
    assert!(took >= Duration::from_millis(250), "too soon: {took:?}");
    assert!(took < Duration::from_millis(900), "too late: {took:?}");
    listener.accept().await.expect("it is the second one's");
}

#[tokio::test]
async fn the_second_address_answers_at_once_for_one_that_fails() {
    let (_listener, target) = listen().await;
    let dialer = dialer(|it| it.connect_timeout = Duration::from_secs(2));
    for failing in [refusing().await, NOWHERE.parse().unwrap()] {
        let both = first_of(failing, address(&target));
        dialer.dial(&both, None).await.expect("a connection");
    }
}

#[tokio::test]
async fn a_unix_socket_is_dialed_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let target = Target::Unix(path.clone());
    let dialer = dialer(|_| {});
    let error = dialer.dial(&target, None).await.unwrap_err();
    assert_eq!(error, DialError::Unreachable(std::io::ErrorKind::NotFound));
    assert!(error.to_string().contains("the endpoint's path"), "{error}");

    let listener = UnixListener::bind(&path).unwrap();
    let mut connection = dialer.dial(&target, None).await.expect("a connection");
    connection.write_all(b"hello").await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    let mut said = [0; 5];
    accepted.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
}

/// Reads exactly this.
async fn hears(socket: &mut (impl AsyncReadExt + Unpin), wanted: &[u8]) {
    let mut heard = vec![0; wanted.len()];
    socket.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, wanted);
}

#[tokio::test]
async fn what_is_owed_is_written_before_all_else_but_the_head_that_was_sent() {
    let (listener, target) = listen().await;
    for reads in [false, true] {
        let mut connection = dialer(|_| {}).dial(&target, None).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        connection.write_all(b"head, and part of a ").await.unwrap();
        hears(&mut accepted, b"head, and part of a ").await;
        connection.owe(b"chunk".to_vec());
        connection.begin_anew(b"reply".to_vec());
        connection.write_all(b"head").await.unwrap();
        connection.flush().await.unwrap();
        assert!(connection.owes());
        hears(&mut connection, b"reply").await;
        if reads {
            // Whoever waits for more of a reply writes it, too.
            accepted.write_all(b"more").await.unwrap();
            hears(&mut connection, b"more").await;
        } else {
            connection.write_all(b" and another").await.unwrap();
        }
        assert!(!connection.owes());
        hears(&mut accepted, b"chunk").await;
        connection.write_all(b" and one").await.unwrap();
        let rest: &[u8] = if reads {
            b" and one"
        } else {
            b" and another and one"
        };
        hears(&mut accepted, rest).await;
    }
}

#[tokio::test]
async fn the_proxy_header_comes_before_everything_else() {
    let from = Addresses {
        client: "192.0.2.7:5000".parse().unwrap(),
        local: "198.51.100.1:443".parse().unwrap(),
    };
    let authority = Authority::new();
    let (listener, target) = listen().await;
    let plain = dialer(|it| it.proxy_protocol = Some(conf::ProxyVersion::V1));
    let mut connection = plain.dial(&target, Some(from)).await.unwrap();
    connection.write_all(b"GET").await.unwrap();
    let expected = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\nGET";
    let (mut accepted, _) = listener.accept().await.unwrap();
    let mut said = vec![0; expected.len()];
    accepted.read_exact(&mut said).await.unwrap();
    assert_eq!(said, expected);

    let encrypted = dialer(|it| {
        it.proxy_protocol = Some(conf::ProxyVersion::V2);
        it.tls = Some(tls(&authority));
    });
    let dial = tokio::spawn(async move { encrypted.dial(&target, None).await.map(drop) });
    let (mut accepted, _) = listener.accept().await.unwrap();
    let mut said = [0; 17];
    accepted.read_exact(&mut said).await.unwrap();
    assert_eq!(&said[..16], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    assert_eq!(said[16], 0x16, "then a handshake record");
    drop(accepted);
    assert!(matches!(dial.await.unwrap(), Err(DialError::Tls { .. })));
}

/// An endpoint that says what it got.
async fn echo(config: rustls::ServerConfig) -> Target {
    tls_endpoint(config, |mut stream| async move {
        let mut said = [0; 5];
        while stream.read_exact(&mut said).await.is_ok() {
            if stream.write_all(&said).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn say_hello(connection: &mut Connection) -> std::io::Result<()> {
    connection.write_all(b"hello").await?;
    connection.flush().await?;
    let mut said = [0; 5];
    connection.read_exact(&mut said).await?;
    assert_eq!(&said, b"hello");
    Ok(())
}

#[tokio::test]
async fn a_known_certificate_with_the_right_name_is_trusted_and_the_session_resumed() {
    let authority = Authority::new();
    let target = echo(authority.server("app.test", &[], false, |_| {})).await;
    let dialer = dialer(|it| it.tls = Some(tls(&authority)));
    let mut first = dialer.dial(&target, None).await.expect("trusted");
    say_hello(&mut first).await.unwrap();
    assert!(first.is_quiet(), "tickets that came are no news");
    assert!(!first.resumed());
    let mut second = dialer.dial(&target, None).await.expect("trusted");
    say_hello(&mut second).await.unwrap();
    assert!(
        second.resumed(),
        "the configuration and its sessions are kept"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let reason = async |config, verify| {
        let target = echo(config).await;
        let dialer = dialer(|it| {
            it.tls = Some(conf::UpstreamTls {
                verify,
                ..tls(&authority)
            });
        });
        match dialer.dial(&target, None).await {
            Ok(mut connection) => {
                say_hello(&mut connection).await.expect("usable");
                String::new()
            }
            Err(error) => error.reason().into_owned(),
        }
    };
    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    };
    assert_eq!(
        reason(authority.server("app.test", &[], false, expired), true).await,
        "tls: certificate expired"
    );
    assert_eq!(
        reason(authority.server("else.test", &[], false, |_| {}), true).await,
        "tls: certificate is not for app.test (it has else.test)"
    );
    assert_eq!(
        reason(stranger.server("app.test", &[], false, |_| {}), true).await,
        "tls: certificate of an unknown issuer"
    );
    assert_eq!(
        reason(stranger.server("else.test", &[], false, expired), false).await,
        "",
        "verify = false takes anything"
    );
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_tls_is_told_as_that() {
    let authority = Authority::new();
    let target = endpoint(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let dialer = dialer(|it| it.tls = Some(tls(&authority)));
    let error = dialer.dial(&target, None).await.unwrap_err();
    assert_eq!(error.reason(), "tls: what answers does not speak TLS");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_asked_for() {
    let authority = Authority::new();
    let target = echo(authority.server("app.test", &[], true, |_| {})).await;
    let without = dialer(|it| it.tls = Some(tls(&authority)));
    let with = dialer(|it| {
        it.tls = Some(conf::UpstreamTls {
            certificate: Some(authority.client("edge.test")),
            ..tls(&authority)
        });
    });
    assert_ne!(with.wire(), without.wire());
    let mut connection = with.dial(&target, None).await.expect("a handshake");
    say_hello(&mut connection).await.expect("let in");
    // In TLS 1.3 the client is done before the server has looked at what it showed.
    let refused = match without.dial(&target, None).await {
        Ok(mut connection) => say_hello(&mut connection).await.is_err(),
        Err(error) => matches!(error, DialError::Tls { .. }),
    };
    assert!(refused, "without a certificate nobody gets in");
}

#[tokio::test]
async fn http_2_over_tls_must_be_agreed_on() {
    let authority = Authority::new();
    let h2 = dialer(|it| {
        it.protocol = conf::UpstreamProtocol::H2;
        it.tls = Some(tls(&authority));
    });
    let speaks = echo(authority.server("app.test", &["h2"], false, |_| {})).await;
    let connection = h2.dial(&speaks, None).await.expect("agreed");
    assert!(connection.chose_h2());
    for offered in [&["http/1.1"][..], &[]] {
        let target = echo(authority.server("app.test", offered, false, |_| {})).await;
        let error = h2.dial(&target, None).await.unwrap_err();
        assert_eq!(error, DialError::Alpn, "{offered:?}");
        let h1 = h2.dial_for(conf::UpstreamProtocol::H1, &target, None).await;
        h1.expect("HTTP/1.1 needs no agreement");
    }
}

#[test]
fn files_that_cannot_be_used_are_named_at_load() {
    let authority = Authority::new();
    let said = |change: &dyn Fn(&mut conf::UpstreamTls)| {
        let settings = crate::upstreams::testing::settings(|it| {
            let mut tls = tls(&authority);
            change(&mut tls);
            it.tls = Some(tls);
        });
        match Dialer::new(&settings) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(said(&|_| {}), "");
    let missing = said(&|tls| tls.ca = Some("/nowhere/ca.pem".into()));
    assert!(
        missing.contains("upstream \"app\": tls.ca /nowhere/ca.pem"),
        "{missing}"
    );
    let empty = authority.folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let none = said(&|tls| tls.ca = Some(empty.clone()));
    assert!(none.contains("no CERTIFICATE section"), "{none}");
    let still_read = said(&|tls| {
        tls.ca = Some(empty.clone());
        tls.verify = false;
    });
    assert!(!still_read.is_empty(), "a named file is read in any case");
    let (one, other) = (authority.client("one"), authority.client("other"));
    let crossed = said(&|tls| {
        tls.certificate = Some(conf::Certificate {
            cert: one.cert.clone(),
            key: other.key.clone(),
        });
    });
    assert!(crossed.contains("do not fit"), "{crossed}");
    let name = said(&|tls| tls.server_name = "app test".into());
    assert!(name.contains("tls.server_name \"app test\""), "{name}");
}

#[tokio::test]
async fn large_answers_over_tls_arrive_whole() {
    let authority = Authority::new();
    let config = authority.server("app.test", &[], false, |_| {});
    let body: Vec<u8> = (0..1_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    let sent = body.clone();
    let target = tls_endpoint(config, move |mut stream| {
        let sent = sent.clone();
        async move {
            let _ = stream.write_all(&sent).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let dialer = dialer(|it| it.tls = Some(tls(&authority)));
    let mut connection = dialer.dial(&target, None).await.unwrap();
    let mut got = Vec::new();
    connection.read_to_end(&mut got).await.unwrap();
    assert!(got == body, "{} of {} bytes", got.len(), body.len());
}
