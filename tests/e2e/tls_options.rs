//! TLS as each listener wants it: versions, suites, groups, two kinds of certificates, shared
//! tickets, certificates of clients.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::HandshakeKind;

use crate::support::edge::binary;
use crate::support::tools::{Finished, run, tool};
use crate::support::{Answer, Ask, Edge, H2, Origin, Setup, certs, ports, wait};

fn openssl(program: &Path, arguments: &[&str]) -> Finished {
    run(
        Command::new(program).args(arguments).stdin(Stdio::null()),
        wait::SOON,
    )
}

/// What `openssl s_client` says of a handshake.
fn s_client(program: &Path, port: u16, more: &[&str]) -> Finished {
    let address = format!("127.0.0.1:{port}");
    let basic = ["s_client", "-connect", &address, "-servername", "shop.test"];
    openssl(program, &[&basic[..], more].concat())
}

#[test]
fn each_listener_offers_what_it_is_told_to() {
    let program = tool!("openssl", "openssl");
    let (old, new) = (ports::free(), ports::free());
    let edge = Setup::new().with("OLD", old).with("NEW", new).start(
        r#"
        [[listener]]
        address = "@HTTPS@"
        tls = true
        [[listener]]
        address = "@OLD@"
        tls = { max_version = "1.2", ciphers = ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"], groups = ["secp384r1"] }
        [[listener]]
        address = "@NEW@"
        tls = { min_version = "1.3", ciphers = ["TLS_CHACHA20_POLY1305_SHA256"], groups = ["secp256r1"] }
        [tls]
        certificates = [{ cert = "shop.pem", key = "shop.key" }]
        groups = ["x25519"]
        [[route]]
        respond = { body = "ok" }
        "#,
    );
    let (any, old, new) = (edge.https().port(), old.port(), new.port());
    // Where it connects, what it offers, what comes of it; nothing: no handshake.
    let cases: [(u16, &[&str], &[&str]); 9] = [
        (any, &["-tls1_3"], &["TLSv1.3", "X25519"]),
        (any, &["-tls1_2"], &["TLSv1.2", "X25519"]),
        (any, &["-groups", "P-256"], &[]),
        (
            old,
            &["-tls1_2"],
            &["ECDHE-ECDSA-CHACHA20-POLY1305", "secp384r1"],
        ),
        (old, &["-tls1_3"], &[]),
        (
            old,
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            &[],
        ),
        (new, &[], &["TLS_CHACHA20_POLY1305_SHA256", "prime256v1"]),
        (new, &["-tls1_2"], &[]),
        (new, &["-ciphersuites", "TLS_AES_128_GCM_SHA256"], &[]),
    ];
    for (port, offered, said) in cases {
        let told = s_client(&program, port, offered);
        assert_eq!(
            told.code == Some(0),
            !said.is_empty(),
            "{offered:?}: {told:?}"
        );
        for words in said {
            assert!(told.stdout.contains(words), "{words}: {told:?}");
        }
    }
}

#[test]
fn of_two_kinds_of_certificates_each_client_gets_the_one_it_can_use() {
    let program = tool!("openssl", "openssl");
    let setup = Setup::new();
    let rsa = setup.folder().join("rsa.pem");
    let key = setup.folder().join("rsa.key");
    let made = openssl(
        &program,
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=shop.test",
            "-addext",
            "subjectAltName=DNS:shop.test,DNS:*.shop.test,IP:127.0.0.1",
            "-out",
            rsa.to_str().unwrap(),
            "-keyout",
            key.to_str().unwrap(),
        ],
    );
    assert_eq!(made.code, Some(0), "{made:?}");
    let edge = setup.start(
        r#"
        [tls]
        certificates = [{ cert = "shop.pem", key = "shop.key" }, { cert = "rsa.pem", key = "rsa.key" }]
        [[route]]
        respond = { body = "ok" }
        "#,
    );
    let port = edge.https().port();
    let cases: [(&[&str], &str); 6] = [
        (&["-tls1_3"], "ECDSA"),
        (&["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "RSA-PSS"),
        (&["-tls1_2"], "ECDHE-ECDSA"),
        (
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            "ECDHE-RSA",
        ),
        (
            &[
                "-tls1_2",
                "-cipher",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "-noservername",
            ],
            "ECDHE-RSA",
        ),
        (
            &["-tls1_2", "-sigalgs", "RSA+SHA256:RSA-PSS+SHA256"],
            "ECDHE-RSA",
        ),
    ];
    for (offered, kind) in cases {
        let told = match offered.contains(&"-noservername") {
            true => openssl(
                &program,
                &[
                    &["s_client", "-connect", &format!("127.0.0.1:{port}")],
                    offered,
                ]
                .concat(),
            ),
            false => s_client(&program, port, offered),
        };
        assert_eq!(told.code, Some(0), "{offered:?}: {told:?}");
        assert!(told.stdout.contains(kind), "{offered:?}: {told:?}");
    }
}

const SHARED: &str = r#"
    [tls]
    certificates = [{ cert = "shop.pem", key = "shop.key" }]
    ticket_keys = @KEYS@
    [[route]]
    respond = { body = "ok" }
"#;

/// A handshake and a whole exchange, so that tickets arrive.
fn kind(port: u16, config: &Arc<rustls::ClientConfig>) -> Option<HandshakeKind> {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(wait::SOON)).unwrap();
    let mut tls =
        rustls::ClientConnection::new(Arc::clone(config), certs::name("shop.test")).unwrap();
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    let ask = Ask::get("/").field("Connection", "close");
    stream.write_all(&ask.bytes()).ok()?;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    reply.starts_with(b"HTTP/1.1 200").then_some(())?;
    tls.handshake_kind()
}

#[test]
fn servers_that_share_a_secret_resume_each_others_sessions_over_restarts_and_changes() {
    let start = |keys: &str| {
        Setup::new()
            .with("KEYS", keys)
            .file("a.key", [7; 80])
            .file("b.key", [8; 32])
            .start(SHARED)
    };
    let mut one = start("\"a.key\"");
    let other = start("[\"b.key\", \"a.key\"]");
    let stranger = start("\"b.key\"");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let resumed = Some(HandshakeKind::Resumed);
        let config = certs::client(&["http/1.1"], &[version]);
        assert_ne!(kind(one.https().port(), &config), resumed);
        assert_eq!(kind(one.https().port(), &config), resumed);
        one.restart(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(
            kind(one.https().port(), &config),
            resumed,
            "after a restart"
        );
        assert_eq!(
            kind(other.https().port(), &config),
            resumed,
            "by its second secret"
        );
        // What that one gave is sealed by its first.
        assert_eq!(kind(stranger.https().port(), &config), resumed);
        assert_ne!(kind(one.https().port(), &config), resumed);
    }
}

/// An authority for clients, and what it made.
struct Clients {
    issuer: Issuer<'static, KeyPair>,
}

impl Clients {
    fn new(folder: &Path, stem: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, stem);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join(format!("{stem}.pem")), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
        }
    }

    /// Writes `NAME.pem`, with certificate and key.
    fn client(&self, folder: &Path, name: &str, serial: u64, year: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Shop, Inc.");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_after = date_time_ymd(year, 1, 1);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let text = format!("{}{}", leaf.pem(), key.serialize_pem());
        std::fs::write(folder.join(format!("{name}.pem")), text).unwrap();
    }

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
        let list = list.signed_by(&self.issuer).unwrap();
        std::fs::write(folder.join("revoked.pem"), list.pem().unwrap()).unwrap();
    }
}

/// An edge with listeners that ask for certificates, and what comes of them at the app.
fn asking(app: &Origin) -> (Edge, u16, u16) {
    let setup = Setup::new();
    let ours = Clients::new(setup.folder(), "partners");
    let theirs = Clients::new(setup.folder(), "strangers");
    ours.client(setup.folder(), "till", 11, 4000);
    ours.client(setup.folder(), "lost", 12, 4000);
    ours.client(setup.folder(), "old", 13, 2001);
    theirs.client(setup.folder(), "stranger", 11, 4000);
    ours.revoke(setup.folder(), &[12]);
    let (required, optional) = (ports::free(), ports::free());
    let edge = setup
        .with("APP", app.address)
        .with("REQUIRED", required)
        .with("OPTIONAL", optional)
        .start(
            r#"
            [[listener]]
            address = "@HTTP@"
            [[listener]]
            address = "@HTTPS@"
            tls = true
            [[listener]]
            address = "@REQUIRED@"
            tls = { client_auth = { ca = "partners.pem", crl = "revoked.pem" } }
            [[listener]]
            address = "@OPTIONAL@"
            tls = { client_auth = { ca = "partners.pem", crl = "revoked.pem", mode = "optional" } }
            [tls]
            certificates = [{ cert = "shop.pem", key = "shop.key" }]
            [log]
            access = { path = "access.log" }
            [upstream.app]
            endpoints = ["@APP@"]
            [[route]]
            match = { headers = { x-client-cert-subject = true }, path = "/partners" }
            respond = { body = "a partner" }
            [[route]]
            match = { path_prefix = "/stored" }
            upstream = "app"
            cache = {}
            [[route]]
            upstream = "app"
            "#,
        );
    (edge, required.port(), optional.port())
}

/// What curl says of a request with this client's certificate.
fn curl(program: &Path, edge: &Edge, port: u16, client: Option<&str>, more: &[&str]) -> Finished {
    let mut command = Command::new(program);
    command.args(["-sS", "--max-time", "10"]);
    command.arg("--cacert").arg(edge.folder().join("ca.pem"));
    command.args(["--resolve", &format!("shop.test:{port}:127.0.0.1")]);
    if let Some(client) = client {
        command
            .arg("--cert")
            .arg(edge.folder().join(format!("{client}.pem")));
    }
    run(
        command.args(more).arg(format!("https://shop.test:{port}/")),
        wait::SOON,
    )
}

const CERT_FIELDS: [&str; 3] = [
    "client-cert",
    "x-client-cert-subject",
    "x-client-cert-fingerprint",
];

#[test]
fn clients_show_certificates_and_apps_learn_whose_they_are() {
    let program = tool!("curl", "curl");
    let ssl = tool!("openssl", "openssl");
    let app = Origin::start(|_| Answer::ok("app"));
    let (edge, required, optional) = asking(&app);
    for (version, port) in [("--http1.1", required), ("--http2", optional)] {
        for _ in 0..2 {
            let before = app.count();
            let spoof = [
                "-H",
                "X-Client-Cert-Subject: CN=admin",
                "-H",
                "Client-Cert: :AA==:",
            ];
            let said = curl(
                &program,
                &edge,
                port,
                Some("till"),
                &[&[version][..], &spoof].concat(),
            );
            assert_eq!(said.stdout, "app", "{said:?}");
            let seen = &app.seen()[before];
            assert_eq!(
                seen.all("x-client-cert-subject"),
                ["CN=till,O=Shop\\, Inc."]
            );
            // As openssl has it.
            let path = edge.folder().join("till.pem");
            let path = path.to_str().unwrap();
            let named = [
                "x509", "-in", path, "-noout", "-subject", "-nameopt", "RFC2253",
            ];
            let subject = openssl(&ssl, &named).stdout;
            assert_eq!(subject.trim(), "subject=CN=till,O=Shop\\, Inc.");
            let digest = ["x509", "-in", path, "-noout", "-fingerprint", "-sha256"];
            let digest = openssl(&ssl, &digest).stdout;
            let digest: String = digest
                .split('=')
                .nth(1)
                .unwrap()
                .trim()
                .split(':')
                .collect();
            assert_eq!(
                seen.all("x-client-cert-fingerprint"),
                [digest.to_ascii_lowercase()]
            );
            let text = std::fs::read_to_string(path).unwrap();
            let pem = text.split("-----").nth(2).unwrap();
            let base64: String = pem.split_whitespace().collect();
            assert_eq!(seen.all("client-cert"), [format!(":{base64}:")]);
        }
    }
    let log = edge.folder().join("access.log");
    wait::eventually("the log", wait::SOON, || {
        std::fs::read_to_string(&log).is_ok_and(|text| {
            text.matches(r#""client_cert":"CN=till,O=Shop\\, Inc.""#)
                .count()
                == 4
        })
    });
}

#[test]
fn who_has_no_certificate_that_counts_is_refused_or_nobody() {
    let program = tool!("curl", "curl");
    let app = Origin::start(|_| Answer::ok("app"));
    let (edge, required, optional) = asking(&app);
    for client in [Some("lost"), Some("old"), Some("stranger"), None] {
        let said = curl(&program, &edge, required, client, &[]);
        assert_ne!(said.code, Some(0), "{client:?}: {said:?}");
        let said = curl(&program, &edge, optional, client, &[]);
        assert_eq!(
            said.code == Some(0),
            client.is_none(),
            "{client:?}: {said:?}"
        );
    }
    assert_eq!(app.count(), 1);
    assert!(
        CERT_FIELDS
            .iter()
            .all(|name| app.seen()[0].field(name).is_none())
    );
    edge.await_metric(
        &format!(
            r#"tidegate_tls_handshakes_total{{listener="127.0.0.1:{required}",result="failed"}}"#
        ),
        4.0,
    );
}

#[test]
fn nobody_else_can_say_whose_certificate_it_has() {
    let app = Origin::start(|_| {
        Answer::ok("app")
            .field("Cache-Control", "max-age=60")
            .field("Vary", "X-Client-Cert-Subject")
    });
    let (edge, _, optional) = asking(&app);
    let claim = |target: &str| {
        Ask::get(target)
            .field("X-Client-Cert-Subject", "CN=till,O=Shop\\, Inc.")
            .field("client-cert", ":AA==:")
            .field("X_Client_Cert_Subject", "CN=till")
            .field("X-Client-Cert-Fingerprint", "00")
    };
    for target in ["/", "/stored/a"] {
        for _ in 0..3 {
            edge.ask(&claim(target)).expect(200);
            edge.tls().ask(&claim(target)).expect(200);
        }
    }
    let none = |seen: &crate::support::Seen| {
        CERT_FIELDS.iter().all(|name| seen.field(name).is_none())
            && !seen.raw.to_ascii_lowercase().contains("cert")
    };
    assert!(app.seen().iter().all(none));
    edge.ask(&claim("/partners")).expect(200);
    assert_eq!(
        edge.ask(&claim("/partners")).text(),
        "app",
        "not a partner's route"
    );
    // What is stored for one who has a certificate is not for one who claims to.
    let program = tool!("curl", "curl");
    let before = app.count();
    let url = format!("https://shop.test:{optional}/stored/b");
    let path = edge.folder().join("till.pem");
    let arguments = ["--cert", path.to_str().unwrap(), "-o", "/dev/null", &url];
    for _ in 0..2 {
        let said = curl(&program, &edge, optional, None, &arguments);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    let stored = |app: &Origin| {
        let seen = app.seen().split_off(before);
        seen.iter()
            .filter(|seen| seen.target == "/stored/b")
            .count()
    };
    assert_eq!(stored(&app), 1, "once for the one, then from the cache");
    edge.ask(&claim("/stored/b")).expect(200);
    assert_eq!(stored(&app), 2, "and once for the other");
}

#[test]
fn a_session_begun_without_a_certificate_opens_no_listener_that_asks_for_one() {
    let app = Origin::start(|_| Answer::ok("app"));
    let (edge, required, _) = asking(&app);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = certs::client(&["http/1.1"], &[version]);
        let plain = edge.https().port();
        assert!(kind(plain, &config).is_some());
        assert_eq!(kind(plain, &config), Some(HandshakeKind::Resumed));
        assert_eq!(kind(required, &config), None, "{version:?}");
    }
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let setup = Setup::new()
        .file("short.key", [1; 16])
        .file("not.pem", "nothing")
        .with("KEYS", "\"short.key\"");
    let check = |toml: &str| {
        let file = setup.write(toml);
        let said = run(Command::new(binary()).arg("check").arg(file), wait::SOON);
        assert_ne!(said.code, Some(0), "{said:?}");
        said.stderr
    };
    let said = check(SHARED);
    assert!(
        said.contains("short.key: 16 bytes are too few for a secret"),
        "{said}"
    );
    for (key, why) in [
        ("ca = \"not.pem\"", "not.pem: no usable PEM certificate"),
        (
            "ca = \"ca.pem\", crl = \"not.pem\"",
            "not.pem: no usable revocation list",
        ),
    ] {
        let said = check(&format!(
            "[tls]\ncertificates = [{{ cert = \"shop.pem\", key = \"shop.key\" }}]\n\
             client_auth = {{ {key} }}\n[[route]]\nrespond = {{}}\n"
        ));
        assert!(said.contains(why), "{said}");
    }
}

/// Routes go by the field, so it is taken out where no listener asks for certificates, too; a proxy in front
/// that asks itself may say it.
#[test]
fn where_nobody_is_asked_only_a_trusted_proxy_can_say_whose_certificate_it_is() {
    let config = |trusted: &str| {
        format!(
            r#"
            [server]
            trusted_proxies = [{trusted}]
            [[listener]]
            name = "plain"
            address = "@HTTP@"
            [[route]]
            match = {{ headers = {{ x-client-cert-subject = "CN=till" }} }}
            respond = {{ status = 200, body = "till" }}
            [[route]]
            respond = {{ status = 200, body = "nobody" }}
            "#
        )
    };
    for (trusted, expected) in [("\"192.0.2.1\"", "nobody"), ("\"127.0.0.0/8\"", "till")] {
        let edge = Setup::new().start(&config(trusted));
        for name in ["x-client-cert-subject", "X-Client-Cert-Subject"] {
            let ask = Ask::get("/").field(name, "CN=till");
            assert_eq!(
                edge.plain().ask(&ask).expect(200).text(),
                expected,
                "{name}"
            );
        }
        let ask = Ask::get("/").field("x-client-cert-subject", "CN=till");
        assert_eq!(
            H2::plain(edge.http()).ask(&ask).expect(200).text(),
            expected
        );
        assert_eq!(edge.get("/").expect(200).text(), "nobody");
    }
}
