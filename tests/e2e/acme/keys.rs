//! The keys that certificates are for.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{await_issued, wishes, with};
use crate::support::pebble::{Pebble, shown_to};
use crate::support::tools::{Finished, run, tool};
use crate::support::{Setup, wait};

/// What `openssl s_client` says of a handshake for `host`.
fn s_client(program: &Path, address: SocketAddr, host: &str, more: &[&str]) -> Finished {
    let address = address.to_string();
    let mut command = Command::new(program);
    command
        .args(["s_client", "-connect", &address, "-servername", host])
        .args(more);
    run(&mut command, wait::SOON)
}

#[test]
fn each_certificate_has_a_key_of_the_kind_that_is_wanted() {
    let openssl = tool!("openssl", "openssl");
    let setup = Setup::new();
    let Some(pebble) = Pebble::start(&wishes(&setup)) else {
        return;
    };
    // Those that share a storage would wait for each other.
    let edge = with(setup, &pebble).start(
        r#"
        [tls]
        acme = [
            { hosts = ["shop.test"], storage = "@DIR@/rsa", directory = "@DIRECTORY@", ca = "ca.pem", key_type = "rsa-2048" },
            { hosts = ["blog.test"], storage = "@DIR@/p384", directory = "@DIRECTORY@", ca = "ca.pem", key_type = "ecdsa-p384" },
            { hosts = ["api.test"], storage = "@DIR@/p256", directory = "@DIRECTORY@", ca = "ca.pem" },
        ]
        [[route]]
        respond = { body = "ok" }
        "#,
    );
    await_issued(&edge, &pebble, 3.0);
    // A client of before elliptic certificates has nothing to do with the others.
    let old = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"];
    for (host, bits) in [("shop.test", 2048), ("blog.test", 384), ("api.test", 256)] {
        let config = pebble.client(&["http/1.1"]);
        shown_to(config, edge.https(), host).expect("a trusted handshake");
        let said = s_client(&openssl, edge.https(), host, &[]);
        assert_eq!(said.code, Some(0), "{host}: {said:?}");
        let words = format!("Server public key is {bits} bit");
        assert!(said.stdout.contains(&words), "{host}: {said:?}");
        let said = s_client(&openssl, edge.https(), host, &old);
        assert_eq!(said.code == Some(0), bits == 2048, "{host}: {said:?}");
    }
}
