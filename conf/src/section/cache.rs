//! `[cache]`, and the `cache` of a route.

use crate::config::{CacheDisk, CacheStore, ContentCoding, Offline, QueryPattern, RouteCache};
use crate::defaults;
use crate::environment::FileKind;
use crate::keys::Kind;
use crate::read::{Finding, Table};
use crate::text::{self, Wrong, quoted};

use super::rules;
use super::shop::part_of;

/// In the order of the key's choices.
const CODINGS: [ContentCoding; 3] = [
    ContentCoding::Brotli,
    ContentCoding::Zstd,
    ContentCoding::Gzip,
];

pub(super) fn store(table: &Table<'_>) -> CacheStore {
    let memory = table.size_or("memory", defaults::CACHE_MEMORY);
    let tags = match table.get("tags") {
        None => defaults::CACHE_TAGS.to_vec(),
        Some(_) => rules::strings(table, "tags", text::header_name),
    };
    CacheStore {
        memory,
        max_object_size: part_of(table, "max_object_size", defaults::MAX_OBJECT_SIZE, memory),
        disk: table.table("disk").and_then(|inner| disk(&inner)),
        tags,
        purge_from: rules::networks(table, "purge_from"),
        session_cookies: rules::strings(table, "session_cookies", text::cookie_name),
    }
}

fn disk(table: &Table<'_>) -> Option<CacheDisk> {
    table.require("path");
    table.require("size");
    let path = table.path("path")?;
    if let (Ok(kind), Some(node)) = (table.cx.environment.kind(&path), table.get("path"))
        && kind != FileKind::Directory
    {
        table.cx.error(
            Finding::error(
                node.place,
                format!("path: {} is not a directory", path.display()),
            )
            .label("name a directory of its own; it is made where there is none"),
        );
    }
    Some(CacheDisk {
        path,
        size: table.size("size")?,
    })
}

pub(super) fn route(table: &Table<'_>, store: &CacheStore) -> RouteCache {
    let share_sessions = table.flag("share_sessions", false);
    if share_sessions && store.session_cookies.is_empty() {
        table.no_effect(
            "share_sessions",
            "no session_cookies are named",
            "name them in [cache]: session_cookies = [\"sid\"]",
        );
    }
    let vary = rules::strings(table, "vary", |text| {
        if text == "*" {
            return Err(Wrong::new(
                "`*` would make every request different",
                "name the headers, or leave `cache` out",
            ));
        }
        text::telling_header(text)
    });
    let compress = codings(table, "compress");
    let accept_encoding = codings(table, "accept_encoding");
    if !compress.is_empty() && !accept_encoding.is_empty() {
        table.no_effect(
            "accept_encoding",
            "with `compress` the origin is asked for uncompressed responses",
            "delete it",
        );
    }
    let keep_query = rules::strings(table, "keep_query", |text| match parameter(text)? {
        QueryPattern::Exact(name) => Ok(name),
        QueryPattern::Prefix(_) => Err(Wrong::new(
            "what is kept is named in full",
            "name each parameter, or use drop_query",
        )),
    });
    let drop_query = rules::strings(table, "drop_query", parameter);
    if !keep_query.is_empty() && !drop_query.is_empty() {
        table.no_effect(
            "drop_query",
            "what is not in `keep_query` is dropped anyway",
            "delete one of the two",
        );
    }
    RouteCache {
        ttl: table.duration("ttl"),
        stale_while_revalidate: table.duration("stale_while_revalidate").unwrap_or_default(),
        stale_if_error: table.duration("stale_if_error").unwrap_or_default(),
        offline: table.choice(
            "offline",
            &[Offline::Fail, Offline::ServeStale],
            Offline::Fail,
        ),
        early_refresh: table.duration("early_refresh").unwrap_or_default(),
        collapse_timeout: table.duration("collapse_timeout"),
        background_timeout: table.duration_or("background_timeout", defaults::BACKGROUND_TIMEOUT),
        hit_for_miss: table.duration_or("hit_for_miss", defaults::HIT_FOR_MISS),
        min_uses: table.count_or("min_uses", 1),
        vary,
        accept_encoding,
        accept_language: rules::strings(table, "accept_language", language),
        compress,
        sort_query: table.flag("sort_query", false),
        keep_query,
        drop_query,
        key_headers: rules::strings(table, "key_headers", text::telling_header),
        key_cookies: rules::strings(table, "key_cookies", text::cookie_name),
        share_authorized: table.flag("share_authorized", false),
        share_sessions,
        compare_sessions: table.share("compare_sessions").unwrap_or_default(),
        show_key: table.flag("show_key", false),
    }
}

fn codings(table: &Table<'_>, name: &'static str) -> Vec<ContentCoding> {
    let (Some(items), Kind::List { of, .. }) = (table.list(name), table.kind(name)) else {
        return Vec::new();
    };
    rules::distinct(table.cx, name, items, |item| {
        let index = table.cx.choice(item, name, of)?;
        CODINGS.get(index).copied()
    })
}

/// `page`, or `utm_*`.
fn parameter(text: &str) -> Result<QueryPattern, Wrong> {
    let (name, prefix) = match text.strip_suffix('*') {
        Some(name) => (name, true),
        None => (text, false),
    };
    if name.contains(['*', '&', '=', '?']) || name.is_empty() {
        return Err(Wrong::new(
            format!("{} is no name of a query parameter", quoted(text)),
            "write it without `?`, `&` and `=`; a star may stand at its end: \"utm_*\"",
        ));
    }
    Ok(match prefix {
        true => QueryPattern::Prefix(name.to_owned()),
        false => QueryPattern::Exact(name.to_owned()),
    })
}

/// A language tag (RFC 5646), as far as its form goes; in lower case.
fn language(text: &str) -> Result<String, Wrong> {
    let part = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if !text.split('-').all(part) {
        return Err(Wrong::new(
            format!("{} is no language tag", quoted(text)),
            "write one such as \"de\" or \"pt-br\"",
        ));
    }
    Ok(text.to_ascii_lowercase())
}
