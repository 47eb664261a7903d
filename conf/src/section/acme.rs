//! `[tls] acme = { ... }`.

use std::path::PathBuf;

use crate::config::{
    Acme, AcmeChallenge, AcmeDirectory, AcmeKey, DnsRecords, DnsUpdate, ExternalAccount,
    HostPattern, Listener, Tls, TsigAlgorithm,
};
use crate::defaults;
use crate::environment::{FileKind, reason};
use crate::keys;
use crate::raw::{Node, Value};
use crate::read::{Finding, Table, not_empty};
use crate::source::Place;
use crate::text::{self, Wrong, quoted};

use super::{rules, secret};

/// Bytes of an EAB key in base64url: 96 bits.
const LEAST_HMAC_KEY: usize = 16;

/// What `challenge` says, before what goes with it is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    TlsAlpn,
    Dns,
}

/// Every certificate that is obtained by itself, in file order; a name is in one of them.
pub(super) fn acme(tls: &Table<'_>) -> Vec<Acme> {
    let mut all = Vec::new();
    let mut names: Vec<(String, Place)> = Vec::new();
    for entry in tls.entries_of("acme") {
        for node in items(tls, &entry.node) {
            let Some(table) = opened(tls, node) else {
                continue;
            };
            for (name, place) in hosts(&table) {
                match names.iter().find(|(known, _)| *known == name) {
                    Some((_, first)) => tls.cx.error(
                        Finding::error(place, format!("{} is in two certificates", quoted(&name)))
                            .label("delete one of them")
                            .also("it is there first at", *first),
                    ),
                    None => names.push((name, place)),
                }
            }
            all.extend(one(&table));
        }
    }
    all
}

fn items<'a>(tls: &Table<'a>, node: &'a Node) -> &'a [Node] {
    match &node.value {
        Value::List(items) if items.is_empty() => {
            tls.cx.error(
                Finding::error(node.place, "the list `acme` is empty").label("leave `acme` out"),
            );
            &[]
        }
        Value::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

fn opened<'a>(tls: &Table<'a>, node: &'a Node) -> Option<Table<'a>> {
    if !matches!(node.value, Value::Table(_)) {
        tls.wrong_kind(node, "acme", tls.kind("acme"));
        return None;
    }
    Table::open(tls.cx, &keys::ACME, node.place, node)
}

fn one(table: &Table<'_>) -> Option<Acme> {
    table.require("hosts");
    table.require("storage");
    let kind = table.choice(
        "challenge",
        &[Kind::Http, Kind::TlsAlpn, Kind::Dns],
        Kind::Http,
    );
    let hosts = rules::strings(table, "hosts", host);
    let challenge = challenge(table, kind);
    Some(Acme {
        hosts,
        email: table.text("email", email),
        challenge: challenge?,
        storage: table.path("storage")?,
        directories: directories(table),
        ca: rules::readable_file(table, "ca"),
        profile: table.text("profile", word),
        key_type: table.choice(
            "key_type",
            &[AcmeKey::P256, AcmeKey::P384, AcmeKey::Rsa2048],
            AcmeKey::P256,
        ),
    })
}

/// Names with their places; what is wrong with one is reported by who reads it.
fn hosts(table: &Table<'_>) -> Vec<(String, Place)> {
    let found = hosts_of(table);
    let is_dns = matches!(
        table.get("challenge").map(|node| &node.value),
        Some(Value::Text(text)) if text == "dns-01"
    );
    for (name, place) in found.iter().filter(|_| !is_dns) {
        if name.starts_with("*.") {
            table.cx.error(
                Finding::error(
                    *place,
                    format!("{} can only be shown to be yours in the DNS", quoted(name)),
                )
                .label("add challenge = \"dns-01\", and hook = [\"/path/program\"] or rfc2136 = { ... }"),
            );
        }
    }
    found
}

fn hosts_of(table: &Table<'_>) -> Vec<(String, Place)> {
    let Some(Value::List(items)) = table.get("hosts").map(|node| &node.value) else {
        return Vec::new();
    };
    let mut found: Vec<(String, Place)> = Vec::new();
    for item in items {
        let Value::Text(text) = &item.value else {
            continue;
        };
        let Ok(name) = host(text) else { continue };
        if !found.iter().any(|(known, _)| *known == name) {
            found.push((name, item.place));
        }
    }
    found
}

/// `shop.example` or `*.shop.example`.
fn host(text: &str) -> Result<String, Wrong> {
    let name = match text::host_pattern(text)? {
        HostPattern::Exact(name) => name,
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    };
    if name.starts_with('[') || rules::is_ip(&name) {
        return Err(Wrong::new(
            format!("{} is an IP address", quoted(text)),
            "certificates are obtained for names only; write a name that leads to it",
        ));
    }
    Ok(name)
}

fn email(text: &str) -> Result<String, Wrong> {
    let wrong = |what: &str, fix: String| Err(Wrong::new(format!("{} {what}", quoted(text)), fix));
    if let Some(rest) = text.strip_prefix("mailto:") {
        return wrong("has a scheme in front", format!("write \"{rest}\""));
    }
    match text.split_once('@') {
        Some((user, host))
            if !user.is_empty()
                && !host.is_empty()
                && !host.contains('@')
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b',') =>
        {
            Ok(text.to_owned())
        }
        _ => wrong(
            "is not an e-mail address",
            "such as \"ops@shop.example\"".into(),
        ),
    }
}

fn word(text: &str) -> Result<String, Wrong> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("{} is not one word", quoted(text)),
            "write it as the authority shows it",
        )),
    }
}

/// The URL as it is written: an account belongs to it.
fn directory(text: &str) -> Result<String, Wrong> {
    if !text.contains("://") {
        return Err(Wrong::new(
            format!("{} is not a URL", quoted(text)),
            format!("write \"https://{text}\""),
        ));
    }
    text::http_url(text)?;
    match text.split_once("://") {
        Some((scheme, rest)) if !scheme.eq_ignore_ascii_case("https") => Err(Wrong::new(
            "an ACME directory is asked over TLS only (RFC 8555 section 6.1)",
            format!("write \"https://{rest}\""),
        )),
        _ => Ok(text.to_owned()),
    }
}

fn directories(table: &Table<'_>) -> Vec<AcmeDirectory> {
    let first = table.text("directory", directory);
    let first = first.unwrap_or_else(|| defaults::ACME_DIRECTORY.to_owned());
    let second = table.text("fallback_directory", directory);
    if second.as_ref() == Some(&first)
        && let Some(entry) = table.entry("fallback_directory")
    {
        table.cx.error(
            Finding::error(
                entry.node.place,
                "fallback_directory: this is the first authority again",
            )
            .label("write another one, or delete it"),
        );
    }
    if second.is_none() && table.get("fallback_directory").is_none() {
        table.no_effect(
            "fallback_eab",
            "there is no fallback_directory",
            "add fallback_directory = \"https://...\", or delete it",
        );
    }
    let mut all = vec![AcmeDirectory {
        url: first,
        eab: eab(table, "eab"),
    }];
    let eab = eab(table, "fallback_eab");
    all.extend(second.map(|url| AcmeDirectory { url, eab }));
    all
}

fn eab(table: &Table<'_>, name: &'static str) -> Option<ExternalAccount> {
    let inner = table.table(name)?;
    inner.require("key_id");
    let key_id = inner.text("key_id", word);
    let node = inner.require("hmac_key")?;
    let hmac_key = secret::secret(&inner, "hmac_key", LEAST_HMAC_KEY)?;
    let is_base64url = hmac_key.expose().trim_end_matches('=').bytes();
    if !is_base64url
        .clone()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    {
        inner.cx.error(
            Finding::error(node.place, "hmac_key: this is not base64url")
                .label("letters, digits, `-` and `_`, as the authority shows it"),
        );
        return None;
    }
    Some(ExternalAccount {
        key_id: key_id?,
        hmac_key,
    })
}

fn challenge(table: &Table<'_>, kind: Kind) -> Option<AcmeChallenge> {
    match kind {
        Kind::Dns => {
            let wait = table.duration_or("dns_wait", defaults::ACME_DNS_WAIT);
            let records = records(table)?;
            Some(AcmeChallenge::Dns01 { records, wait })
        }
        other => {
            for name in ["hook", "rfc2136", "dns_wait"] {
                table.no_effect(
                    name,
                    "no record is made for this challenge",
                    "add challenge = \"dns-01\", or delete it",
                );
            }
            Some(match other {
                Kind::TlsAlpn => AcmeChallenge::TlsAlpn01,
                _ => AcmeChallenge::Http01,
            })
        }
    }
}

/// Exactly one who makes records.
fn records(table: &Table<'_>) -> Option<DnsRecords> {
    match (table.entry("hook"), table.entry("rfc2136")) {
        (Some(_), None) => hook(table).map(DnsRecords::Hook),
        (None, Some(_)) => update(table).map(DnsRecords::Update),
        (Some(_), Some(second)) => {
            table.cx.error(
                Finding::error(
                    second.place,
                    "records are made by `hook` or by `rfc2136`, not by both",
                )
                .label("delete one of them"),
            );
            None
        }
        (None, None) if table.explains("hook") || table.explains("rfc2136") => None,
        (None, None) => {
            table.cx.error(
                Finding::error(table.place, "nobody makes the records for \"dns-01\"")
                    .label("add hook = [\"/path/program\"], or rfc2136 = { ... }"),
            );
            None
        }
    }
}

fn update(table: &Table<'_>) -> Option<DnsUpdate> {
    let inner = table.table("rfc2136")?;
    for name in ["server", "zone", "key_name", "secret"] {
        inner.require(name);
    }
    let server = inner.text("server", text::dns_server);
    let zone = inner.text("zone", text::host_name);
    let key_name = inner.text("key_name", text::host_name);
    let algorithm = inner.choice(
        "algorithm",
        &[
            TsigAlgorithm::Sha256,
            TsigAlgorithm::Sha384,
            TsigAlgorithm::Sha512,
        ],
        TsigAlgorithm::Sha256,
    );
    let secret = secret::secret(&inner, "secret", LEAST_HMAC_KEY);
    // In either alphabet; whoever uses it decodes it.
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
    if let (Some(secret), Some(node)) = (&secret, inner.get("secret"))
        && !secret.expose().bytes().all(is_base64)
    {
        inner.cx.error(
            Finding::error(node.place, "secret: this is not base64")
                .label("letters, digits, `+`, `/` and `=`, as in the server's configuration"),
        );
    }
    if let (Some(zone), Some(node)) = (&zone, inner.get("zone")) {
        let below = format!(".{zone}");
        for (host, place) in plain_hosts(table) {
            if host != *zone && !host.ends_with(&below) {
                inner.cx.error(
                    Finding::error(place, format!("{} is not in the zone", quoted(&host)))
                        .label("write it in an `acme` of its own")
                        .also("the zone is at", node.place),
                );
            }
        }
    }
    Some(DnsUpdate {
        server: server?,
        zone: zone?,
        key_name: key_name?,
        algorithm,
        secret: secret?,
    })
}

/// Names without `*.`, with their places.
fn plain_hosts(table: &Table<'_>) -> Vec<(String, Place)> {
    let named = hosts_of(table).into_iter();
    let plain = named.map(|(name, place)| match name.strip_prefix("*.") {
        Some(parent) => (parent.to_owned(), place),
        None => (name, place),
    });
    plain.collect()
}

/// A program with its arguments; a path is relative to the file, a bare name is left to `PATH`.
fn hook(table: &Table<'_>) -> Option<Vec<String>> {
    table.require("hook")?;
    let keys::Kind::List { of, .. } = table.kind("hook") else {
        return None;
    };
    let mut words: Vec<String> = table
        .list("hook")?
        .iter()
        .filter_map(|item| table.cx.parsed(item, "hook", of, not_empty))
        .collect();
    let first = words.first_mut()?;
    if first.contains('/') {
        let node = table.get("hook")?;
        let path: PathBuf = table.cx.sources.resolve(node.place.file, &*first);
        let why = match table.cx.environment.kind(&path) {
            Ok(FileKind::File) => None,
            Ok(_) => Some("it is not a program".to_owned()),
            Err(error) => Some(reason(&error)),
        };
        if let Some(why) = why {
            table.cx.error(
                Finding::error(node.place, format!("hook: {}: {why}", path.display()))
                    .label("a path here is relative to this file"),
            );
        }
        *first = path.to_string_lossy().into_owned();
    }
    Some(words)
}

/// HTTP-01 needs somebody who answers plain requests.
pub(super) fn answered(
    root: &Table<'_>,
    tls: Option<&Tls>,
    listeners: &[(Place, Option<Listener>)],
) {
    let is_asked_plainly = tls.is_some_and(|tls| {
        let mut all = tls.acme.iter();
        all.any(|acme| acme.challenge == AcmeChallenge::Http01)
    });
    let plain = |listener: &Option<Listener>| listener.as_ref().is_none_or(|it| !it.tls);
    if !is_asked_plainly || listeners.iter().any(|(_, listener)| plain(listener)) {
        return;
    }
    if let Some(entry) = root.entry("tls") {
        root.cx.error(
            Finding::error(
                entry.place,
                "the challenge \"http-01\" is asked without TLS, and every listener has tls = true",
            )
            .label(
                "add [[listener]] address = \"0.0.0.0:80\", or write challenge = \"tls-alpn-01\"",
            ),
        );
    }
}
