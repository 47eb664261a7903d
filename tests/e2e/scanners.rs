//! What scanners find that operators point at their servers, testssl.sh and sslyze: nothing that they
//! do not find of nginx with Mozilla's "intermediate" profile beside it.
//!
//! The certificate is of a test authority that the scanners are told to trust, and its responder
//! answers, so that nothing has to be excused for its sake.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::nginx::Nginx;
use crate::support::ocsp::Authority;
use crate::support::tools::{Finished, Running, python_with, run, tool};
use crate::support::{Edge, Setup, ports, wait};

/// What is above "low" and stays: the id, its severity, and why.
const EXCUSED: &[(&str, &str, &str)] = &[(
    "cipher_order",
    "HIGH",
    "of the suites, all of them good, the client's preference counts: Mozilla's profile wants it so, and nginx with it has the same finding",
)];

/// A scan takes a minute of an idle core.
const PATIENCE: Duration = Duration::from_secs(280);

/// The edge and nginx with the same certificate.
struct Servers {
    edge: Edge,
    _nginx: Nginx,
    beside: SocketAddr,
    _responder: Running,
}

fn servers(openssl: &Path, nginx: &Path) -> Servers {
    let setup = Setup::new();
    let responder = ports::free();
    let authority = Authority::new(openssl, setup.folder(), responder);
    let running = authority.responder(responder, "issuer", false);
    let folder = setup.folder().display().to_string();
    let edge = setup.start(
        "[tls]\n\
         certificates = [{ cert = \"ocsp.pem\", key = \"ocsp.key\" }]\n\
         [[route]]\n\
         respond = { body = \"ok\" }\n",
    );
    edge.await_metric("tidegate_ocsp_next_update_timestamp_seconds", 1.0);
    let beside = ports::free();
    // Mozilla's "intermediate" for nginx.
    let nginx = Nginx::serving(
        nginx,
        &format!(
            "listen {beside} ssl;\n\
             server_name shop.test;\n\
             ssl_certificate {folder}/ocsp.pem;\n\
             ssl_certificate_key {folder}/ocsp.key;\n\
             ssl_session_timeout 1d;\n\
             ssl_session_cache shared:scanned:1m;\n\
             ssl_protocols TLSv1.2 TLSv1.3;\n\
             ssl_ecdh_curve X25519:prime256v1:secp384r1;\n\
             ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305;\n\
             ssl_prefer_server_ciphers off;\n\
             location / {{ return 200 ok; }}\n"
        ),
    );
    Servers {
        edge,
        _nginx: nginx,
        beside,
        _responder: running,
    }
}

/// What testssl.sh finds that is worse than "info": id and severity.
fn testssl(program: &Path, folder: &Path, address: SocketAddr) -> BTreeMap<String, String> {
    let file = format!("{}.json", address.port());
    let mut command = Command::new(program);
    command
        .args(["--quiet", "--color", "0", "--warnings", "off", "--fast"])
        // Nothing outside is asked.
        .args(["--nodns", "none", "--ip", &address.ip().to_string()])
        .args(["--add-ca", "issuer.pem", "--jsonfile", &file])
        // Protocols, suites, preferences, the certificate, and all vulnerabilities. What it thinks of
        // the site's own header fields is the site's matter.
        .args(["-p", "-s", "-P", "-S", "-U"])
        .arg(format!("shop.test:{}", address.port()))
        .current_dir(folder);
    let done = run(&mut command, PATIENCE);
    let text = std::fs::read(folder.join(file)).unwrap_or_default();
    let all: Vec<Value> = serde_json::from_slice(&text)
        .unwrap_or_else(|error| panic!("testssl's findings: {error}\n{done:?}"));
    let said = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let ids: Vec<String> = all.iter().map(|one| said(one, "id")).collect();
    for id in [
        "TLS1_3",
        "cert_chain_of_trust",
        "OCSP_stapling",
        "cipher_order",
        "LUCKY13",
    ] {
        assert!(
            ids.iter().any(|found| found.starts_with(id)),
            "{id} was not looked at: {ids:?}"
        );
    }
    let whole = all.iter().find(|one| one["id"] == "scanTime");
    let whole = whole.map(|one| said(one, "severity"));
    assert_eq!(whole.as_deref(), Some("INFO"), "a whole scan: {done:?}");
    all.iter()
        // "WARN" is what the scanner could not look at: ciphers that its own openssl lacks, and a ticket
        // of TLS 1.3 for which s_client does not wait when the server is busy.
        .filter(|one| !["OK", "INFO", "WARN"].contains(&said(one, "severity").as_str()))
        .map(|one| (said(one, "id"), said(one, "severity")))
        .collect()
}

#[test]
fn testssl_finds_no_more_than_of_nginx_with_mozillas_profile() {
    let program = tool!("testssl", "testssl.sh");
    let openssl = tool!("openssl", "openssl");
    let nginx = tool!("nginx", "nginx-light");
    let servers = servers(&openssl, &nginx);
    let folder = servers.edge.folder();
    let (ours, theirs) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| testssl(&program, folder, servers.beside));
        let ours = testssl(&program, folder, servers.edge.https());
        (ours, theirs.join().expect("the other scan"))
    });
    let excused: BTreeMap<String, String> = EXCUSED
        .iter()
        .map(|(id, severity, _)| ((*id).to_owned(), (*severity).to_owned()))
        .collect();
    let above_low: BTreeMap<String, String> = ours
        .iter()
        .filter(|(_, severity)| *severity != "LOW")
        .map(|(id, severity)| (id.clone(), severity.clone()))
        .collect();
    assert_eq!(
        above_low, excused,
        "all of ours: {ours:?}; of nginx: {theirs:?}"
    );
    for (id, severity) in &ours {
        assert_eq!(
            theirs.get(id),
            Some(severity),
            "{id}: nginx does better: {theirs:?}"
        );
    }
    // It has no stapling unless it is told to.
    assert!(!ours.contains_key("OCSP_stapling") && theirs.contains_key("OCSP_stapling"));
}

fn sslyze(python: &Path, folder: &Path, address: SocketAddr) -> (Finished, Value) {
    let file = folder.join(format!("sslyze-{}.json", address.port()));
    let mut command = Command::new(python);
    command
        .args(["-m", "sslyze", "--mozilla_config", "intermediate"])
        .args(["--sni", "shop.test", "--certinfo_ca_file"])
        .arg(folder.join("issuer.pem"))
        .arg("--json_out")
        .arg(&file)
        .arg(address.to_string());
    let done = run(&mut command, PATIENCE);
    let text = std::fs::read(file).unwrap_or_default();
    let found: Value = serde_json::from_slice(&text)
        .unwrap_or_else(|error| panic!("sslyze's findings: {error}\n{done:?}"));
    let one = found["server_scan_results"][0].clone();
    assert_eq!(one["scan_status"], "COMPLETED", "{done:?}");
    (done, one["scan_result"].clone())
}

/// Names of the suites of a version that are accepted.
fn suites(found: &Value, version: &str) -> Vec<String> {
    let accepted = &found[format!("{version}_cipher_suites")]["result"]["accepted_cipher_suites"];
    let accepted = accepted.as_array().expect("suites").iter();
    let names = accepted.map(|one| one["cipher_suite"]["name"].as_str().expect("a name"));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn sslyze_finds_mozillas_intermediate_profile_as_with_nginx() {
    let Some(python) = python_with("sslyze", "sslyze") else {
        return;
    };
    let openssl = tool!("openssl", "openssl");
    let nginx = tool!("nginx", "nginx-light");
    let servers = servers(&openssl, &nginx);
    let folder = servers.edge.folder();
    let (said, ours) = sslyze(&python, folder, servers.edge.https());
    let (_, theirs) = sslyze(&python, folder, servers.beside);
    assert!(said.stdout.contains("OK - Compliant"), "{said:?}");
    for version in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert!(suites(&ours, version).is_empty(), "{version}");
    }
    for version in ["tls_1_2", "tls_1_3"] {
        // The certificate is of an elliptic curve, so there is nothing of RSA in either.
        assert_eq!(suites(&ours, version), suites(&theirs, version));
    }
    let expected = [
        ("heartbleed", "is_vulnerable_to_heartbleed", false),
        (
            "openssl_ccs_injection",
            "is_vulnerable_to_ccs_injection",
            false,
        ),
        (
            "session_renegotiation",
            "is_vulnerable_to_client_renegotiation_dos",
            false,
        ),
        (
            "session_renegotiation",
            "supports_secure_renegotiation",
            true,
        ),
        ("tls_compression", "supports_compression", false),
        ("tls_fallback_scsv", "supports_fallback_scsv", true),
        ("tls_extended_master_secret", "supports_ems_extension", true),
    ];
    for (command, key, wanted) in expected {
        assert_eq!(ours[command]["result"][key], wanted, "{command} {key}");
    }
    let robot = &ours["robot"]["result"]["robot_result"];
    assert_eq!(robot, "NOT_VULNERABLE_RSA_NOT_SUPPORTED");
    let chain = &ours["certificate_info"]["result"]["certificate_deployments"][0];
    assert_eq!(
        chain["ocsp_response_is_trusted"], true,
        "{}",
        chain["ocsp_response"]
    );
    assert_eq!(chain["received_chain_has_valid_order"], true);
    wait::eventually("nothing to stay", wait::SOON, || {
        servers.edge.metric("tidegate_connections_active") == 0.0
    });
}
