//! TLS at the listener: names, versions, tickets, key exchange.

use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::{HandshakeKind, ProtocolVersion};

use crate::support::tools::{run, tool};
use crate::support::{Ask, Conn, Edge, Setup, certs, wait};

const SITES: &str = r#"
    [tls]
    certificates = [
        { cert = "shop.pem", key = "shop.key" },
        { cert = "blog.pem", key = "blog.key" },
    ]
    [[route]]
    respond = { body = "ok" }
"#;

fn two_sites() -> Edge {
    let setup = Setup::new();
    certs::write(setup.folder(), "blog", &["blog.test", "*.blog.test"]);
    setup.start(SITES)
}

/// The certificate's names as `openssl s_client` shows them.
fn certificate_for(edge: &Edge, openssl: &std::path::Path, sni: Option<&str>) -> String {
    let address = edge.https().to_string();
    let mut script = format!("{} s_client -connect {address}", openssl.display());
    match sni {
        Some(name) => script.push_str(&format!(" -servername {name}")),
        None => script.push_str(" -noservername"),
    }
    script.push_str(&format!(
        " </dev/null 2>/dev/null | {} x509 -noout -ext subjectAltName",
        openssl.display()
    ));
    let mut shell = Command::new("sh");
    run(shell.args(["-c", &script]).stdin(Stdio::null()), wait::SOON).stdout
}

#[test]
fn each_name_gets_its_certificate_wildcards_too_and_others_the_first() {
    let openssl = tool!("openssl", "openssl");
    let edge = two_sites();
    for (sni, expected) in [
        (Some("shop.test"), "DNS:shop.test"),
        (Some("SHOP.test"), "DNS:shop.test"),
        (Some("blog.test"), "DNS:blog.test"),
        (Some("www.blog.test"), "DNS:*.blog.test"),
        (Some("unknown.test"), "DNS:shop.test"),
        (Some("a.b.blog.test"), "DNS:shop.test"),
        (None, "DNS:shop.test"),
    ] {
        let names = certificate_for(&edge, &openssl, sni);
        assert!(names.contains(expected), "{sni:?}: {names}");
    }
}

#[test]
fn a_client_that_trusts_the_authority_is_satisfied_by_either_site() {
    let edge = two_sites();
    for host in ["shop.test", "www.shop.test", "blog.test", "a.blog.test"] {
        let reply = Conn::tls(edge.https(), host).ask(&Ask::get("/").host(host));
        assert_eq!(reply.text(), "ok", "{host}");
    }
}

#[test]
fn curl_over_tls_gets_its_answer_by_h2() {
    let curl = tool!("curl", "curl");
    let edge = two_sites();
    let port = edge.https().port();
    let mut command = Command::new(curl);
    command.args(["-sS", "--http2", "-w", "%{http_version} %{http_code}"]);
    command.args(["--resolve", &format!("shop.test:{port}:127.0.0.1")]);
    command.arg("--cacert").arg(edge.folder().join("ca.pem"));
    let said = run(
        command.arg(format!("https://shop.test:{port}/")),
        wait::SOON,
    );
    assert_eq!(said.stdout, "ok2 200", "{said:?}");
}

#[test]
fn versions_below_the_least_are_refused() {
    let edge = Setup::new().start(
        r#"
        [tls]
        min_version = "1.3"
        certificates = [{ cert = "shop.pem", key = "shop.key" }]
        [[route]]
        respond = { body = "ok" }
        "#,
    );
    let v12 = certs::client(&["http/1.1"], &[&rustls::version::TLS12]);
    assert!(Conn::tls_with(edge.https(), "shop.test", v12).is_err());
    let v13 = certs::client(&["http/1.1"], &[&rustls::version::TLS13]);
    assert!(Conn::tls_with(edge.https(), "shop.test", v13).is_ok());
}

#[test]
fn tls_1_2_is_spoken_by_default_and_1_1_never() {
    let openssl = tool!("openssl", "openssl");
    let edge = two_sites();
    let handshake = |version: &str| {
        let mut command = Command::new(&openssl);
        command.args(["s_client", "-connect", &edge.https().to_string(), version]);
        run(command.args(["-cipher", "ALL:@SECLEVEL=0"]), wait::SOON).code
    };
    assert_eq!(handshake("-tls1_2"), Some(0));
    assert_ne!(handshake("-tls1_1"), Some(0));
}

#[test]
fn the_hybrid_post_quantum_exchange_is_preferred() {
    let edge = two_sites();
    let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
    let (group, version, _) = handshake(&edge, &config);
    assert_eq!(group.as_deref(), Some("X25519MLKEM768"));
    assert_eq!(version, Some(ProtocolVersion::TLSv1_3));
}

#[test]
fn sessions_resume_by_ticket_in_both_versions() {
    let edge = two_sites();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = certs::client(&["http/1.1"], &[version]);
        let (_, _, first) = handshake(&edge, &config);
        assert!(matches!(
            first,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
        ));
        let (_, _, second) = handshake(&edge, &config);
        assert_eq!(second, Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[test]
fn tickets_outlive_a_reload_and_work_on_every_worker() {
    let edge = two_sites();
    let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
    handshake(&edge, &config);
    edge.reload(true);
    for _ in 0..8 {
        assert_eq!(handshake(&edge, &config).2, Some(HandshakeKind::Resumed));
    }
}

#[test]
fn a_plain_request_on_a_tls_port_does_no_harm_and_is_counted() {
    let edge = two_sites();
    let mut conn = Conn::open(edge.https());
    conn.send(Ask::get("/").bytes());
    assert!(conn.read(false).is_err() || conn.read(false).is_err());
    edge.await_metric(
        r#"tidegate_tls_handshakes_total{listener="secure",result="failed"}"#,
        1.0,
    );
    assert_eq!(edge.tls().ask(&Ask::get("/")).text(), "ok");
    edge.await_metric(
        r#"tidegate_tls_handshakes_total{listener="secure",result="ok"}"#,
        1.0,
    );
}

#[test]
fn a_handshake_that_never_comes_ends_at_the_header_timeout() {
    let edge = Setup::new().start(
        r#"
        [limits]
        header_timeout = "500ms"
        [[route]]
        respond = { body = "ok" }
        "#,
    );
    let started = wait::now();
    Conn::open(edge.https()).expect_end();
    assert!(started.elapsed() < wait::secs(5), "{:?}", started.elapsed());
    edge.await_metric(
        r#"tidegate_tls_handshakes_total{listener="secure",result="timeout"}"#,
        1.0,
    );
}

/// Group, version and kind of one handshake, after a whole exchange (so that
/// tickets have arrived).
fn handshake(
    edge: &Edge,
    config: &Arc<rustls::ClientConfig>,
) -> (
    Option<String>,
    Option<ProtocolVersion>,
    Option<HandshakeKind>,
) {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(edge.https()).unwrap();
    socket.set_read_timeout(Some(wait::SOON)).unwrap();
    let name = certs::name("shop.test");
    let mut tls = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    let ask = Ask::get("/").field("Connection", "close");
    stream.write_all(&ask.bytes()).unwrap();
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    assert!(reply.starts_with(b"HTTP/1.1 200"), "{reply:?}");
    let group = tls.negotiated_key_exchange_group();
    (
        group.map(|g| format!("{:?}", g.name())),
        tls.protocol_version(),
        tls.handshake_kind(),
    )
}
