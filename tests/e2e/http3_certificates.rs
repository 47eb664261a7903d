//! Certificates of clients over HTTP/3: apps learn whose they are, who has none that counts is refused, and
//! neither what a client says nor a session nor early data goes around that.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quinn::{Connection, ConnectionError, TransportConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use serde_json::Value;
use tokio::time::timeout;

use crate::support::edge::root;
use crate::support::h3::{Bare, Client, DATA, Verdict, frame, headers};
use crate::support::{Answer, Ask, Edge, Origin, Seen, Setup, certs, ports, runtime, tools, wait};

/// An authority for clients.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Its certificate is written as `STEM.pem`.
    fn new(folder: &Path, stem: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, stem);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join(format!("{stem}.pem")), certificate.pem()).unwrap();
        Self(Issuer::new(params, key))
    }

    /// Writes `NAME.pem` and `NAME.key`, good until this year.
    fn issue(&self, folder: &Path, name: &str, serial: u64, year: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, "Shop, Inc.");
        subject.push(DnType::CommonName, name);
        params.distinguished_name = subject;
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_after = date_time_ymd(year, 1, 1);
        let leaf = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), leaf.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// Writes its list, `revoked.pem`, with these.
    fn revoke(&self, folder: &Path, serials: &[u64]) {
        let revoked = serials.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.0).unwrap();
        std::fs::write(folder.join("revoked.pem"), list.pem().unwrap()).unwrap();
    }
}

const REQUIRED: &str = r#"{ client_auth = { ca = "partners.pem", crl = "revoked.pem" } }"#;

/// A listener that asks nobody unless `open` says so, one that requires a certificate, and one that
/// takes who has none as nobody.
fn config(open: &str) -> String {
    format!(
        r#"
        [log]
        access = {{ path = "access.log" }}
        [[listener]]
        name = "open"
        address = "@HTTPS@"
        tls = {open}
        protocols = ["h1", "h2", "h3"]
        [[listener]]
        name = "required"
        address = "@REQUIRED@"
        tls = {REQUIRED}
        protocols = ["h1", "h2", "h3"]
        [[listener]]
        name = "optional"
        address = "@OPTIONAL@"
        tls = {{ client_auth = {{ ca = "partners.pem", crl = "revoked.pem", mode = "optional" }} }}
        protocols = ["h1", "h2", "h3"]
        [tls]
        certificates = [{{ cert = "shop.pem", key = "shop.key" }}]
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        match = {{ headers = {{ x-client-cert-subject = true }}, path = "/partners" }}
        respond = {{ body = "a partner" }}
        [[route]]
        match = {{ path_prefix = "/stored" }}
        upstream = "app"
        cache = {{}}
        [[route]]
        upstream = "app"
        "#
    )
}

/// An app that says who it is told that the client is.
fn app() -> Origin {
    Origin::start(|seen| Answer::ok(seen.field("x-client-cert-subject").unwrap_or("nobody")))
}

/// An edge with these listeners, certificates of all kinds beside it, and who may revoke them.
fn asking(app: &Origin) -> (Edge, Authority) {
    let setup = Setup::new();
    let folder = setup.folder();
    let ours = Authority::new(folder, "partners");
    ours.issue(folder, "till", 11, 4000);
    ours.issue(folder, "lost", 12, 4000);
    ours.issue(folder, "old", 13, 2001);
    ours.revoke(folder, &[12]);
    Authority::new(folder, "strangers").issue(folder, "stranger", 11, 4000);
    let edge = setup
        .with("APP", app.address)
        .with("REQUIRED", ports::free())
        .with("OPTIONAL", ports::free())
        .start(&config("true"));
    (edge, ours)
}

/// What a client shows, and how often it was asked for it: in each handshake with a listener that asks, but
/// not where a session is resumed.
#[derive(Debug)]
struct Wallet {
    shown: Option<Arc<CertifiedKey>>,
    asked: AtomicUsize,
}

impl Wallet {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl ResolvesClientCert for Wallet {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.shown.clone()
    }

    fn has_certs(&self) -> bool {
        self.shown.is_some()
    }
}

/// A client with the certificate of this name, or with none.
fn visitor(edge: &Edge, name: Option<&str>) -> (Client, Arc<Wallet>) {
    let wallet = Arc::new(Wallet {
        shown: name.map(|name| Arc::new(certified(edge.folder(), name))),
        asked: AtomicUsize::new(0),
    });
    let plain = certs::client(&["h3"], &[&rustls::version::TLS13]);
    let mut tls = ClientConfig::clone(&plain);
    tls.client_auth_cert_resolver = wallet.clone();
    (Client::speaking(tls, TransportConfig::default()), wallet)
}

fn certified(folder: &Path, name: &str) -> CertifiedKey {
    let read = |end: &str| std::fs::read(folder.join(format!("{name}.{end}"))).unwrap();
    let certificate = CertificateDer::from_pem_slice(&read("pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read("key")).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(vec![certificate], key, &provider).unwrap()
}

/// A request's head in bare frames.
fn head(method: &str) -> Vec<u8> {
    headers(&[
        (":method", method),
        (":scheme", "https"),
        (":authority", "shop.test"),
        (":path", "/"),
    ])
}

/// One that says itself whose certificate it has.
fn claim(target: &str) -> Ask {
    Ask::get(target)
        .field("X-Client-Cert-Subject", "CN=admin")
        .field("Client-Cert", ":AA==:")
        .field("X_Client_Cert_Subject", "CN=admin")
        .field("X-Client-Cert-Fingerprint", "00")
}

const CERT_FIELDS: [&str; 3] = [
    "client-cert",
    "x-client-cert-subject",
    "x-client-cert-fingerprint",
];

/// Whether the app was told of no certificate, in whatever spelling.
fn is_of_nobody(seen: &Seen) -> bool {
    CERT_FIELDS.iter().all(|name| seen.field(name).is_none())
        && !seen.raw.to_ascii_lowercase().contains("cert")
}

/// The app was told of this certificate and of nothing else.
#[track_caller]
fn expect_of(seen: &Seen, folder: &Path, name: &str) {
    let shown = certified(folder, name);
    let der: &[u8] = &shown.cert[0];
    let subject = format!("CN={name},O=Shop\\, Inc.");
    assert_eq!(seen.all("x-client-cert-subject"), [subject]);
    let fingerprint = digest(&SHA256, der);
    let octets: &[u8] = fingerprint.as_ref();
    let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(seen.all("x-client-cert-fingerprint"), [digits]);
    let encoded = format!(":{}:", STANDARD.encode(der));
    assert_eq!(seen.all("client-cert"), [encoded]);
    assert_eq!(seen.field("x_client_cert_subject"), None);
}

#[test]
fn apps_and_routes_learn_over_http3_whose_certificate_a_client_has() {
    let app = app();
    let (edge, _) = asking(&app);
    for listener in ["REQUIRED", "OPTIONAL"] {
        let (client, _) = visitor(&edge, Some("till"));
        let mut connection = client.connect(edge.address(listener));
        connection.ask(&claim("/")).expect(200);
        expect_of(&app.last(), edge.folder(), "till");
        let reply = connection.ask(&Ask::get("/partners")).expect(200);
        assert_eq!(reply.text(), "a partner");
        // Its address is another one then, and it is still the same client.
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        {
            let _inside = runtime().enter();
            client.endpoint.rebind(socket).unwrap();
        }
        connection.ask(&claim("/moved")).expect(200);
        expect_of(&app.last(), edge.folder(), "till");
    }
    let log = edge.folder().join("access.log");
    wait::eventually("the log", wait::SOON, || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let said = r#""client_cert":"CN=till,O=Shop\\, Inc.""#;
        text.matches(said).count() == 6
    });
}

/// The TLS alert that a client hears which is not let in. Its own half of the handshake is done before
/// the server has seen what it shows, so it may have sent a request by then.
#[track_caller]
fn refusal(client: &Client, address: SocketAddr) -> u64 {
    let connecting = client.connecting(address);
    let handshake =
        runtime().block_on(async { timeout(wait::SOON, connecting).await.expect("in time") });
    match handshake {
        Ok(connection) => refusal_of(connection),
        Err(error) => alert(error),
    }
}

/// The same on a connection whose handshake may be under way, and after a request.
#[track_caller]
fn refusal_of(connection: Connection) -> u64 {
    let bare = Bare(connection);
    assert_eq!(bare.send(&head("GET"), true), Verdict::Closed(u64::MAX));
    alert(bare.0.close_reason().expect("a reason"))
}

/// RFC 9001 section 4.8.
#[track_caller]
fn alert(error: ConnectionError) -> u64 {
    let ConnectionError::ConnectionClosed(close) = error else {
        panic!("the handshake did not fail: {error:?}");
    };
    let code = u64::from(close.error_code);
    code.checked_sub(0x100).expect("an alert of TLS")
}

/// Alerts of RFC 8446 section 6.
const REVOKED: u64 = 44;
const EXPIRED: u64 = 45;
const UNKNOWN_CA: u64 = 48;
const CERTIFICATE_REQUIRED: u64 = 116;

#[test]
fn over_http3_who_has_no_certificate_that_counts_is_refused_or_nobody() {
    let app = app();
    let (edge, _) = asking(&app);
    for (name, why) in [
        ("lost", REVOKED),
        ("old", EXPIRED),
        ("stranger", UNKNOWN_CA),
    ] {
        for listener in ["REQUIRED", "OPTIONAL"] {
            let (client, _) = visitor(&edge, Some(name));
            let said = refusal(&client, edge.address(listener));
            assert_eq!(said, why, "{name} at {listener}");
        }
    }
    let (nobody, _) = visitor(&edge, None);
    let said = refusal(&nobody, edge.address("REQUIRED"));
    assert_eq!(said, CERTIFICATE_REQUIRED);
    let mut connection = nobody.connect(edge.address("OPTIONAL"));
    let reply = connection.ask(&Ask::get("/")).expect(200);
    assert_eq!(reply.text(), "nobody");
    assert_eq!(app.count(), 1);
    assert!(is_of_nobody(&app.last()), "{}", app.last().raw);
    for (listener, least) in [("required", 4.0), ("optional", 3.0)] {
        edge.await_metric(
            &format!("tidegate_tls_handshakes_total{{listener=\"{listener}\",result=\"failed\"}}"),
            least,
        );
    }
}

#[test]
fn over_http3_nobody_else_can_say_whose_certificate_it_has() {
    let app = Origin::start(|_| {
        Answer::ok("app")
            .field("Cache-Control", "max-age=60")
            .field("Vary", "X-Client-Cert-Subject")
    });
    let (edge, _) = asking(&app);
    let (client, _) = visitor(&edge, None);
    for address in [edge.https(), edge.address("OPTIONAL")] {
        let mut nobody = client.connect(address);
        for target in ["/", "/stored/a", "/", "/stored/a"] {
            nobody.ask(&claim(target)).expect(200);
        }
        let reply = nobody.ask(&claim("/partners")).expect(200);
        assert_eq!(reply.text(), "app", "not a partner's route");
    }
    // Nor behind a body.
    let upload = [
        head("POST"),
        frame(DATA, b"abc"),
        headers(&[("x-client-cert-subject", "CN=admin"), ("x-sum", "9")]),
    ];
    let bare = client.bare(edge.address("OPTIONAL"));
    assert_eq!(bare.send(&upload.concat(), true), Verdict::Status(200));
    assert_eq!(app.last().trailers, ["x-sum: 9"]);
    for seen in app.seen() {
        assert!(is_of_nobody(&seen), "{}", seen.raw);
    }
    // What is stored for one who has a certificate is not for one who claims to.
    let (till, _) = visitor(&edge, Some("till"));
    let mut till = till.connect(edge.address("OPTIONAL"));
    for _ in 0..2 {
        till.ask(&Ask::get("/stored/b")).expect(200);
    }
    let stored = || app.count_of("/stored/b");
    assert_eq!(stored(), 1, "once for the one, then from the cache");
    let as_till = Ask::get("/stored/b").field("X-Client-Cert-Subject", "CN=till,O=Shop\\, Inc.");
    let mut nobody = client.connect(edge.address("OPTIONAL"));
    nobody.ask(&as_till).expect(200);
    assert_eq!(stored(), 2, "and once for the other");
}

/// A client that has a session, but no certificate, does not get in: neither with a request in its first
/// packet nor with one behind the handshake.
#[track_caller]
fn expect_shut(client: &Client, wallet: &Wallet, address: SocketAddr) {
    let asked = wallet.asked();
    let early = client.connecting(address).into_0rtt();
    let (connection, accepted) = early.expect("a session that is good for early data");
    assert_eq!(refusal_of(connection), CERTIFICATE_REQUIRED);
    assert!(!runtime().block_on(accepted), "early data was taken");
    assert_eq!(refusal(client, address), CERTIFICATE_REQUIRED);
    assert_eq!(wallet.asked(), asked + 2, "asked each time");
}

#[test]
fn over_http3_a_session_begun_without_a_certificate_opens_no_listener_that_asks_for_one() {
    let app = app();
    let (edge, _) = asking(&app);
    let (client, wallet) = visitor(&edge, None);
    let mut first = client.connect(edge.https());
    first.ask(&Ask::get("/first")).expect(200);
    let (mut early, accepted) = client.connect_early(edge.https()).expect("a session");
    early.ask(&Ask::get("/early")).expect(200);
    assert!(runtime().block_on(accepted), "good where it was begun");
    assert_eq!((wallet.asked(), app.count()), (0, 2));
    expect_shut(&client, &wallet, edge.address("REQUIRED"));
    assert_eq!(app.count(), 2);
}

#[test]
fn over_http3_sessions_of_before_open_no_listener_that_asks_since_a_reload() {
    let app = app();
    let (edge, _) = asking(&app);
    let (client, wallet) = visitor(&edge, None);
    let mut first = client.connect(edge.https());
    first.ask(&Ask::get("/first")).expect(200);
    edge.rewrite(&config(REQUIRED));
    edge.reload(true);
    expect_shut(&client, &wallet, edge.https());
    assert_eq!(app.count(), 1);
}

#[test]
fn over_http3_a_session_is_of_its_certificate_and_ends_when_that_is_revoked() {
    let app = app();
    let (edge, authority) = asking(&app);
    let (client, wallet) = visitor(&edge, Some("till"));
    let address = edge.address("REQUIRED");
    for _ in 0..2 {
        let mut connection = client.connect(address);
        connection.ask(&claim("/")).expect(200);
        expect_of(&app.last(), edge.folder(), "till");
    }
    assert_eq!(wallet.asked(), 1, "the second time the session is resumed");
    assert!(
        client.connect_early(address).is_none(),
        "whose a request is must be known when it comes"
    );
    authority.revoke(edge.folder(), &[11, 12]);
    edge.reload(true);
    let asked = wallet.asked();
    assert_eq!(refusal(&client, address), REVOKED);
    assert_eq!(wallet.asked(), asked + 1);
    assert_eq!(app.count(), 2);
}

#[test]
fn aioquic_is_let_in_by_its_certificate() {
    let Some(python) = tools::python_with("aioquic.h3.connection", "aioquic") else {
        return;
    };
    let app = app();
    let (edge, _) = asking(&app);
    let mut command = Command::new(python);
    command
        .arg(root().join("tests/e2e/http3_client.py"))
        .arg("127.0.0.1")
        .arg(edge.address("REQUIRED").port().to_string())
        .args(["ca.pem", "till"])
        .current_dir(edge.folder());
    let said = tools::run(&mut command, 3 * wait::SOON);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said: Value = serde_json::from_str(said.stdout.trim()).expect("one line of JSON");
    assert_eq!(said["status"], 200, "{said}");
    assert_eq!(said["text"], "CN=till,O=Shop\\, Inc.", "{said}");
    expect_of(&app.last(), edge.folder(), "till");
}

/// Passes packets between clients and `server`. While it is `forging`, those to the server have another
/// address on them, and what is sent there is lost: as if somebody wrote an address that is not its own.
/// Ends when nobody else has `forging` any more.
fn forger(server: SocketAddr, forging: Arc<AtomicBool>) -> SocketAddr {
    let own = UdpSocket::bind("127.0.0.1:0").unwrap();
    let forged = UdpSocket::bind("127.0.0.2:0").unwrap();
    let address = own.local_addr().unwrap();
    own.set_read_timeout(Some(wait::millis(20))).unwrap();
    std::thread::spawn(move || {
        let mut client = None;
        let mut packet = [0; 2000];
        while Arc::strong_count(&forging) > 1 {
            let Ok((length, from)) = own.recv_from(&mut packet) else {
                continue;
            };
            let packet = &packet[..length];
            // What does not arrive is sent again.
            if from != server {
                client = Some(from);
                let way = match forging.load(Ordering::SeqCst) {
                    true => &forged,
                    false => &own,
                };
                let _ = way.send_to(packet, server);
            } else if let Some(client) = client {
                let _ = own.send_to(packet, client);
            }
        }
    });
    address
}

/// An edge that trusts a proxy which is not there.
fn trusting(app: &Origin) -> Edge {
    Setup::new().with("APP", app.address).start(
        r#"
        [server]
        workers = 1
        trusted_proxies = ["127.0.0.2/32"]
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
    )
}

/// An address that was not shown to be the client's gives it no right to say whose certificate it has:
/// over UDP everybody can write any address on a packet.
#[test]
fn who_writes_the_address_of_a_trusted_proxy_on_its_packets_is_not_believed() {
    let app = app();
    let edge = trusting(&app);
    let forging = Arc::new(AtomicBool::new(false));
    let way = forger(edge.https(), forging.clone());
    let client = Client::new();
    let mut connection = client.connect(way);
    connection.ask(&claim("/own")).expect(200);
    forging.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| connection.ask(&claim("/forged")));
        // Where such packets are not served at all, the request arrives later.
        let came = || (app.count_of("/forged") > 0).then_some(());
        let _ = wait::try_until(wait::secs(1), came);
        forging.store(false, Ordering::SeqCst);
        asked.join().expect("a reply").expect(200);
    });
    assert_eq!(app.count(), 2);
    for seen in app.seen() {
        assert!(is_of_nobody(&seen), "{}", seen.raw);
    }
}

/// The same before the handshake is done, when nothing shows yet that the client gets what is sent there.
#[test]
fn early_data_from_the_address_of_a_trusted_proxy_waits_until_it_is_shown() {
    let app = app();
    let edge = trusting(&app);
    let forging = Arc::new(AtomicBool::new(false));
    let way = forger(edge.https(), forging.clone());
    let client = Client::new();
    let mut first = client.connect(way);
    first.ask(&claim("/own")).expect(200);
    first.connection.close(0_u32.into(), b"");
    forging.store(true, Ordering::SeqCst);
    let (mut early, _accepted) = client.connect_early(way).expect("a session of before");
    let mut asked = early.begin(&claim("/forged"));
    runtime().block_on(asked.finish()).expect("sent");
    let counted = r#"tidegate_connections_total{listener="secure"}"#;
    edge.await_metric(counted, 2.0);
    let came = || (app.count_of("/forged") > 0).then_some(());
    let came = wait::try_until(wait::secs(1), came);
    assert!(came.is_none(), "{}", app.last().raw);
}
