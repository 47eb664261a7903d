//! `[filter.NAME]`.

use http::{HeaderName, HeaderValue, header};
use regex::Regex;

use crate::config::{Filter, HeaderOps, Rewrite};
use crate::keys::Kind;
use crate::raw::{Entry, Value};
use crate::read::{Finding, Table};
use crate::source::Place;
use crate::text::{self, Wrong};

use super::{rules, template};

mod captures;

/// Fields that belong to one connection or to the framing of a message (RFC 9110
/// section 7.6.1, RFC 9112 section 6): whoever changes them changes where a message ends.
const UNTOUCHABLE: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "http2-settings",
];

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Response,
}

pub(super) fn filter(table: &Table<'_>, name: &str) -> Option<Filter> {
    let allow = rules::networks(table, "allow");
    let deny = rules::networks(table, "deny");
    if let Some(both) = allow.iter().find(|network| deny.contains(network))
        && let Some(node) = table.get("deny")
    {
        table.cx.error(
            Finding::error(
                node.place,
                format!("{both} is both in `allow` and in `deny`"),
            )
            .label("delete it from one of them"),
        );
    }
    let rewrite = table.table("rewrite").map(|inner| rewrite(&inner));
    let redirect = template::redirect(table);
    let respond = template::respond(table);
    let request_headers = header_ops(table, "request_headers", Way::Request);
    let response_headers = header_ops(table, "response_headers", Way::Response);
    idle_steps(table);
    Some(Filter {
        name: name.to_owned(),
        allow,
        deny,
        rewrite: match rewrite {
            Some(rewrite) => Some(rewrite?),
            None => None,
        },
        redirect,
        respond,
        request_headers,
        response_headers,
    })
}

/// Steps that never run because an earlier one ends every request.
fn idle_steps(table: &Table<'_>) {
    let steps = table.shape.keys.iter().map(|key| key.name);
    if steps.clone().all(|name| table.get(name).is_none()) && !table.has_unknown() {
        table.cx.error(
            Finding::error(table.place, "this filter does nothing")
                .label("give it a step, or delete it")
                .help(format!("help: steps are {}", table.shape.names())),
        );
    }
    if table.get("redirect").is_some() {
        let why = "`redirect` ends the request before";
        table.no_effect("respond", why, "delete one of the two");
        table.no_effect("request_headers", why, "no upstream sees this request");
    } else if table.get("respond").is_some() {
        let why = "`respond` ends the request before";
        table.no_effect("request_headers", why, "no upstream sees this request");
        table.no_effect(
            "rewrite",
            "`respond` answers whatever the path is",
            "delete one of the two",
        );
    }
}

fn rewrite(table: &Table<'_>) -> Option<Rewrite> {
    let prefix = table.text("prefix", text::path_prefix);
    let regex = table
        .get("regex")
        .map(|node| rules::regex(table.cx, node, "regex", table.kind("regex")));
    let to = table.require("to");
    match (table.get("prefix"), regex) {
        (Some(_), Some(_)) => {
            let place = table.get("regex").map_or(table.place, |node| node.place);
            table.cx.error(
                Finding::error(place, "a rewrite has `prefix` or `regex`, not both")
                    .label("delete one of them"),
            );
            None
        }
        (None, None) => {
            table.cx.error(
                Finding::error(table.place, "this rewrite does not say which paths it changes")
                    .label("write { prefix = \"/old\", to = \"/new\" } or { regex = '...', to = \"/new\" }"),
            );
            None
        }
        (Some(_), None) => {
            to?;
            let to = table.text("to", text::path);
            Some(Rewrite::Prefix {
                prefix: prefix?,
                to: to?,
            })
        }
        (None, Some(regex)) => {
            to?;
            let regex = regex?;
            let to = table.text("to", |text| replacement(text, &regex));
            Some(Rewrite::Regex { to: to?, regex })
        }
    }
}

/// The new path of a rewrite by regular expression.
fn replacement(text: &str, regex: &Regex) -> Result<String, Wrong> {
    if !text.starts_with(['/', '$']) {
        return Err(Wrong::new(
            "the new path does not start with a slash",
            format!("write \"/{text}\""),
        ));
    }
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(Wrong::new(
            format!("{odd:?} never stands in a path as it is"),
            "write it percent-encoded",
        ));
    }
    captures::check(text, regex)?;
    Ok(text.to_owned())
}

fn header_ops(table: &Table<'_>, name: &'static str, way: Way) -> HeaderOps {
    let Some(inner) = table.table(name) else {
        return HeaderOps::default();
    };
    let remove = rules::strings(&inner, "remove", |text| {
        let name = text::header_name(text)?;
        touchable(&name, way)?;
        if name == header::HOST {
            return Err(Wrong::new(
                "a request without Host is not valid",
                "set it instead: set = { host = \"app.internal\" }",
            ));
        }
        Ok(name)
    });
    let set = fields(&inner, "set", way);
    let add = fields(&inner, "add", way);
    for (header, _, place) in &set {
        if remove.contains(header) {
            inner.cx.error(
                Finding::error(*place, format!("{header} is both in `remove` and in `set`"))
                    .label("`set` alone puts it in place of what is there"),
            );
        }
    }
    for (header, _, place) in &add {
        if *header == header::HOST {
            inner
                .cx
                .error(Finding::error(*place, "a request has one Host").label("use `set`"));
        }
    }
    let silent = |key: &&'static str| inner.get(key).is_none();
    if ["remove", "set", "add"].iter().all(silent) && !inner.has_unknown() {
        inner.cx.error(
            Finding::error(inner.place, format!("`{name}` changes nothing"))
                .label("write { remove = [...], set = { ... }, add = { ... } }"),
        );
    }
    let plain = |fields: Vec<(HeaderName, HeaderValue, Place)>| {
        fields
            .into_iter()
            .map(|(name, value, _)| (name, value))
            .collect()
    };
    HeaderOps {
        remove,
        set: plain(set),
        add: plain(add),
    }
}

/// The fields of a request that Tidegate makes itself.
pub(super) fn own_fields(table: &Table<'_>, key: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    let fields = fields(table, key, Way::Request);
    fields
        .into_iter()
        .filter_map(|(name, value, place)| {
            if name == header::HOST {
                table.cx.error(
                    Finding::error(place, "Host is said by a key of its own")
                        .label("write host = \"shop.example\""),
                );
                return None;
            }
            Some((name, value))
        })
        .collect()
}

/// The fields of `set` or `add`, each name once in whatever case.
fn fields(table: &Table<'_>, key: &'static str, way: Way) -> Vec<(HeaderName, HeaderValue, Place)> {
    let Kind::Map { of, .. } = table.kind(key) else {
        return Vec::new();
    };
    let mut found: Vec<(HeaderName, HeaderValue, Place)> = Vec::new();
    let mut names: Vec<(HeaderName, Place)> = Vec::new();
    for entry in table.map(key) {
        let Some(name) = field_name(table, entry, way) else {
            continue;
        };
        if let Some((_, first)) = names.iter().find(|(known, _)| *known == name) {
            table.cx.error(
                Finding::error(
                    entry.place,
                    format!("{name} is there twice: case makes no difference"),
                )
                .label("delete one of them")
                .also("it is there first at", *first),
            );
        }
        names.push((name.clone(), entry.place));
        let values = match (&entry.node.value, of) {
            (Value::List(items), Kind::OneOrMore(_)) if !items.is_empty() => items.as_slice(),
            _ => std::slice::from_ref(&entry.node),
        };
        for node in values {
            let value = table.cx.parsed(node, &entry.key, of, text::header_value);
            found.extend(value.map(|value| (name.clone(), value, entry.place)));
        }
    }
    found
}

fn field_name(table: &Table<'_>, entry: &Entry, way: Way) -> Option<HeaderName> {
    let checked = text::header_name(&entry.key).and_then(|name| {
        touchable(&name, way)?;
        Ok(name)
    });
    match checked {
        Ok(name) => Some(name),
        Err(wrong) => {
            table
                .cx
                .error(Finding::error(entry.place, wrong.what).label(wrong.fix));
            None
        }
    }
}

fn touchable(name: &HeaderName, way: Way) -> Result<(), Wrong> {
    if UNTOUCHABLE.contains(&name.as_str()) {
        return Err(Wrong::new(
            format!("{name} cannot be changed: it says how the message itself is carried"),
            "delete it; Tidegate writes it as needed",
        ));
    }
    if way == Way::Response && *name == header::HOST {
        return Err(Wrong::new(
            "host is a request header",
            "it belongs in request_headers",
        ));
    }
    Ok(())
}
