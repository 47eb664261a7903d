//! How TLS is spoken: `[tls]`, and a listener's own `tls`.

use std::path::PathBuf;

use crate::config::{CipherSuite, ClientAuth, KeyExchangeGroup, TlsOptions, TlsVersion};
use crate::keys::Kind;
use crate::read::{Finding, Table, not_empty};

use super::rules;

const VERSIONS: [TlsVersion; 2] = [TlsVersion::V12, TlsVersion::V13];

/// In the order of the keys.
const CIPHERS: [CipherSuite; 9] = [
    CipherSuite::Aes256GcmSha384,
    CipherSuite::Aes128GcmSha256,
    CipherSuite::Chacha20Poly1305Sha256,
    CipherSuite::EcdheEcdsaAes256GcmSha384,
    CipherSuite::EcdheEcdsaAes128GcmSha256,
    CipherSuite::EcdheEcdsaChacha20Poly1305Sha256,
    CipherSuite::EcdheRsaAes256GcmSha384,
    CipherSuite::EcdheRsaAes128GcmSha256,
    CipherSuite::EcdheRsaChacha20Poly1305Sha256,
];

/// In the order of the keys.
const GROUPS: [KeyExchangeGroup; 5] = [
    KeyExchangeGroup::X25519MlKem768,
    KeyExchangeGroup::Secp256r1MlKem768,
    KeyExchangeGroup::X25519,
    KeyExchangeGroup::Secp256r1,
    KeyExchangeGroup::Secp384r1,
];

/// What `table` says, and else `general`.
pub(super) fn options(table: &Table<'_>, general: &TlsOptions) -> TlsOptions {
    let options = TlsOptions {
        min_version: table.choice("min_version", &VERSIONS, general.min_version),
        max_version: table.choice("max_version", &VERSIONS, general.max_version),
        ciphers: words(table, "ciphers", &CIPHERS).or_else(|| general.ciphers.clone()),
        groups: words(table, "groups", &GROUPS).or_else(|| general.groups.clone()),
        client_auth: match table.table("client_auth") {
            Some(inner) => client_auth(&inner),
            None => general.client_auth.clone(),
        },
    };
    agree(table, &options);
    options
}

fn words<T: Copy + PartialEq>(
    table: &Table<'_>,
    name: &'static str,
    known: &[T],
) -> Option<Vec<T>> {
    let (Some(items), Kind::List { of, .. }) = (table.list(name), table.kind(name)) else {
        return None;
    };
    let found = rules::distinct(table.cx, name, items, |item| {
        let index = table.cx.choice(item, name, of)?;
        known.get(index).copied()
    });
    // One that is not known was reported.
    (!found.is_empty()).then_some(found)
}

/// Versions, suites and groups must leave something to agree on.
fn agree(table: &Table<'_>, options: &TlsOptions) {
    if options.min_version > options.max_version {
        let name = match table.get("max_version") {
            Some(_) => "max_version",
            None => "min_version",
        };
        let place = table.get(name).map_or(table.place, |node| node.place);
        table.cx.error(
            Finding::error(
                place,
                "min_version is above max_version, so no version is left",
            )
            .label("write a min_version that is at most max_version"),
        );
        return;
    }
    for (version, name, other) in [
        (TlsVersion::V12, "1.2", "min_version = \"1.3\""),
        (TlsVersion::V13, "1.3", "max_version = \"1.2\""),
    ] {
        if !(options.min_version..=options.max_version).contains(&version) {
            continue;
        }
        let place_of = |key| table.get(key).map_or(table.place, |node| node.place);
        if let Some(ciphers) = &options.ciphers
            && !ciphers.iter().any(|suite| suite.version() == version)
        {
            table.cx.error(
                Finding::error(
                    place_of("ciphers"),
                    format!("`ciphers` has no suite of TLS {name}, which is offered"),
                )
                .label(format!("add one, or write {other}")),
            );
        }
        if let Some(groups) = &options.groups
            && version == TlsVersion::V12
            && !groups.iter().any(|group| group.is_classical())
        {
            table.cx.error(
                Finding::error(
                    place_of("groups"),
                    "`groups` has none that TLS 1.2 knows, which is offered",
                )
                .label("add \"x25519\", or write min_version = \"1.3\""),
            );
        }
    }
}

fn client_auth(table: &Table<'_>) -> Option<ClientAuth> {
    table.require("ca")?;
    Some(ClientAuth {
        ca: files(table, "ca"),
        crl: files(table, "crl"),
        required: table.choice("mode", &[true, false], true),
    })
}

/// Files that are there, each once.
pub(super) fn files(table: &Table<'_>, name: &'static str) -> Vec<PathBuf> {
    let Kind::OneOrMore(of) = table.kind(name) else {
        return Vec::new();
    };
    rules::distinct(table.cx, name, table.one_or_more(name), |node| {
        let text = table.cx.parsed(node, name, of, not_empty)?;
        let path = table.cx.sources.resolve(node.place.file, &text);
        rules::check_readable(table.cx, node, &path);
        Some(path)
    })
}
