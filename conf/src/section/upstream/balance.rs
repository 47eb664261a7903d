//! How an endpoint is picked.

use crate::config::{Balance, HashKey, HashTable, Sticky};
use crate::defaults;
use crate::keys;
use crate::raw::Value;
use crate::read::{Finding, Table};
use crate::section::{rules, secret};
use crate::text;

/// Less could be guessed by whoever wants to know or choose an endpoint.
const LEAST_SECRET: usize = 16;

pub(super) fn balance(table: &Table<'_>) -> Balance {
    let Some(entry) = table.entry("balance") else {
        return Balance::RoundRobin;
    };
    if !matches!(entry.node.value, Value::Table(_)) {
        let words = [
            Balance::RoundRobin,
            Balance::Random,
            Balance::LeastRequest {
                choices: rules::count(defaults::LEAST_REQUEST_CHOICES),
            },
            Balance::PeakEwma,
        ];
        let index = table
            .cx
            .choice(&entry.node, "balance", table.kind("balance"));
        return index
            .and_then(|index| words.get(index).cloned())
            .unwrap_or(Balance::RoundRobin);
    }
    table
        .open_inner(&keys::BALANCE, entry)
        .and_then(|table| detailed(&table))
        .unwrap_or(Balance::RoundRobin)
}

/// `{ least_request = ... }` or `{ hash = ... }`.
fn detailed(table: &Table<'_>) -> Option<Balance> {
    const TABLES: [HashTable; 3] = [HashTable::Rendezvous, HashTable::Ketama, HashTable::Maglev];
    match (table.get("least_request"), table.get("hash")) {
        (Some(_), None) => {
            for name in ["table", "max_load"] {
                table.no_effect(name, "it belongs to `hash`", "delete it");
            }
            let inner = table.table("least_request")?;
            Some(Balance::LeastRequest {
                choices: inner.count_or("choices", defaults::LEAST_REQUEST_CHOICES),
            })
        }
        (None, Some(_)) => {
            let spread = table.choice("table", &TABLES, HashTable::Rendezvous);
            let max_load = table.percent("max_load");
            Some(Balance::Hash {
                key: hash_key(table)?,
                table: spread,
                max_load,
            })
        }
        (Some(_), Some(second)) => {
            table.cx.error(
                Finding::error(
                    second.place,
                    "an endpoint is picked by `least_request` or by `hash`, not by both",
                )
                .label("delete one of them"),
            );
            None
        }
        (None, None) => {
            if !table.has_unknown() {
                table.cx.error(
                    Finding::error(table.place, "this does not say how an endpoint is picked")
                        .label(
                            "write { hash = \"client_ip\" } or { least_request = { choices = 3 } }",
                        ),
                );
            }
            None
        }
    }
}

fn hash_key(table: &Table<'_>) -> Option<HashKey> {
    let entry = table.entry("hash")?;
    if !matches!(entry.node.value, Value::Table(_)) {
        let index = table.cx.choice(&entry.node, "hash", table.kind("hash"))?;
        return [HashKey::ClientIp, HashKey::Path].get(index).cloned();
    }
    let table = table.open_inner(&keys::HASH_KEY, entry)?;
    let header = table.text("header", text::header_name).map(HashKey::Header);
    let cookie = table.text("cookie", text::cookie_name).map(HashKey::Cookie);
    let query = table.text("query", text::query_name).map(HashKey::Query);
    let names = ["header", "cookie", "query"];
    let mut given = names.iter().filter_map(|name| table.get(name));
    match (given.next(), given.next()) {
        (Some(_), None) => header.or(cookie).or(query),
        (_, Some(second)) => {
            table.cx.error(
                Finding::error(
                    second.place,
                    "one thing decides: a header, a cookie or a parameter of the query",
                )
                .label("delete one of them"),
            );
            None
        }
        (None, None) => {
            if !table.has_unknown() {
                table.cx.error(
                    Finding::error(entry.node.place, "this does not say what decides").label(
                        "write { header = \"x-user\" }, { cookie = \"sid\" } or { query = \"id\" }",
                    ),
                );
            }
            None
        }
    }
}

pub(super) fn sticky(parent: &Table<'_>) -> Option<Sticky> {
    let table = parent.table("sticky")?;
    table.require("cookie");
    let cookie = table.text("cookie", text::cookie_name);
    let ttl = table.duration("ttl");
    let secret = secret::secret(&table, "secret", LEAST_SECRET);
    Some(Sticky {
        cookie: cookie?,
        ttl,
        secret,
    })
}
