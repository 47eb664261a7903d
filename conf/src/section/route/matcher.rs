//! `match = { ... }` of a route.

use std::hash::Hash;

use http::HeaderName;

use crate::config::{FieldMatch, ListenerId, Match, PathPattern, ValueMatch};
use crate::keys::{self, Kind};
use crate::raw::{Entry, Value};
use crate::read::{Finding, Table};
use crate::source::Place;
use crate::text::{self, Wrong, quoted};

use super::super::names::Group;
use super::super::rules;

const PATHS: [&str; 3] = ["path", "path_prefix", "path_regex"];

pub(super) fn matcher(table: &Table<'_>, names: &Group) -> Option<Match> {
    let mut unknown = false;
    let nodes = table.one_or_more("listener");
    let listeners = rules::distinct(table.cx, "listener", nodes, |node| {
        let found = names.find(table.cx, node);
        unknown |= found.is_none();
        found.map(ListenerId)
    });
    let words = |name: &'static str| {
        let kind = match table.kind(name) {
            Kind::OneOrMore(of) => of,
            other => other,
        };
        (table.one_or_more(name), kind)
    };
    let (nodes, kind) = words("host");
    let hosts = rules::distinct(table.cx, "host", nodes, |node| {
        table.cx.parsed(node, "host", kind, text::host_pattern)
    });
    let (nodes, kind) = words("method");
    let methods = rules::distinct(table.cx, "method", nodes, |node| {
        table.cx.parsed(node, "method", kind, text::method)
    });
    let path = path(table);
    let headers = fields(table, "headers", text::header_name);
    let query = fields(table, "query", |name| match name {
        "" => Err(Wrong::new("a parameter without a name", "write its name")),
        name => Ok(name.to_owned()),
    });
    let path = path?;
    (!unknown).then_some(Match {
        listeners,
        hosts,
        path,
        methods,
        headers,
        query,
    })
}

/// One of the three kinds, at the most.
fn path(table: &Table<'_>) -> Option<PathPattern> {
    let mut given = PATHS.iter().filter_map(|name| table.entry(name));
    let Some(first) = given.next() else {
        return Some(PathPattern::Any);
    };
    for second in given {
        table.cx.error(
            Finding::error(
                second.place,
                format!(
                    "a route matches by `{}` or by `{}`, not by both",
                    first.key, second.key
                ),
            )
            .label("delete one of them, or make it another route")
            .also("the other one is at", first.place),
        );
    }
    let exact = table.text("path", text::path);
    let prefix = table.text("path_prefix", text::path_prefix);
    let regex = table
        .get("path_regex")
        .and_then(|node| rules::regex(table.cx, node, "path_regex", table.kind("path_regex")));
    exact
        .map(PathPattern::Exact)
        .or(prefix.map(PathPattern::Prefix))
        .or(regex.map(PathPattern::Regex))
}

fn fields<N: Eq + Hash + Clone>(
    table: &Table<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<N, Wrong>,
) -> Vec<FieldMatch<N>> {
    let mut seen: Vec<(N, Place)> = Vec::new();
    let mut found = Vec::new();
    for entry in table.map(key) {
        let name = match parse(&entry.key) {
            Ok(name) => name,
            Err(wrong) => {
                table
                    .cx
                    .error(Finding::error(entry.place, wrong.what).label(wrong.fix));
                continue;
            }
        };
        if let Some((_, first)) = seen.iter().find(|(known, _)| *known == name) {
            table.cx.error(
                Finding::error(
                    entry.place,
                    format!(
                        "{} is there twice: case makes no difference",
                        quoted(&entry.key)
                    ),
                )
                .label("delete one of them")
                .also("it is there first at", *first),
            );
        }
        seen.push((name.clone(), entry.place));
        if is_host(&entry.key) && key == "headers" {
            table.cx.error(
                Finding::error(entry.place, "the host has a key of its own")
                    .label("write match = { host = \"shop.example\" }"),
            );
        }
        found.extend(value(table, key, entry).map(|value| FieldMatch { name, value }));
    }
    found
}

fn is_host(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| name == http::header::HOST)
}

fn value(table: &Table<'_>, key: &'static str, entry: &Entry) -> Option<ValueMatch> {
    match &entry.node.value {
        Value::Bool(true) => Some(ValueMatch::Present),
        Value::Bool(false) => Some(ValueMatch::Absent),
        Value::Text(text) => Some(ValueMatch::Exact(text.clone())),
        Value::Table(_) => {
            let inner = Table::open(table.cx, &keys::VALUE_REGEX, entry.place, &entry.node)?;
            let node = inner.require("regex")?;
            rules::regex(inner.cx, node, "regex", inner.kind("regex")).map(ValueMatch::Regex)
        }
        _ => {
            let kind = match table.kind(key) {
                Kind::Map { of, .. } => of,
                other => other,
            };
            table.wrong_kind(&entry.node, &entry.key, kind);
            None
        }
    }
}
