//! The table of keys: the one place that says which keys there are, what they
//! take, what holds without them, and what they mean.
//!
//! The reader ([`crate::read`]) asks it for every key it looks up and takes its
//! bounds from it; the schema and the manual are written from it. A key that is
//! listed here and never read, or read and not listed, fails a test.

mod acme;
mod balance;
mod cache;
mod connection;
mod endpoint;
mod filter;
mod forward;
mod health;
mod images;
mod kind;
mod listener;
mod matcher;
mod overload;
mod pages;
mod process;
mod route;
mod shop;
mod tls;
mod upstream;

pub(crate) use kind::{Form, Kind, alternatives};

/// A table of the file: a section, or a table inside one.
#[derive(Debug)]
pub(crate) struct Shape {
    /// How messages and the manual call it: `[[listener]]`, `match`.
    pub(crate) title: &'static str,
    /// Unique name, used for the definition in the schema.
    pub(crate) id: &'static str,
    /// What it is for.
    pub(crate) doc: &'static str,
    /// Its keys, in the order of the manual.
    pub(crate) keys: &'static [Key],
    /// Words of other programs and places, and what to write here instead.
    pub(crate) foreign: &'static [(&'static str, &'static str)],
    /// A piece of a file that shows it; empty for tables inside sections.
    pub(crate) example: &'static str,
}

/// One key of a [`Shape`].
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) need: Need,
    /// One or two sentences for the manual and for editors.
    pub(crate) doc: &'static str,
}

/// What holds where a key is left out.
#[derive(Debug)]
pub(crate) enum Need {
    /// It must not be left out.
    Required,
    /// This value, as TOML.
    Default(&'static str),
    /// This, in words.
    Optional(&'static str),
}

/// The whole file.
pub(crate) static ROOT: Shape = Shape {
    title: "the file",
    id: "file",
    doc: "",
    keys: &[
        optional(
            "include",
            Kind::List {
                of: &Kind::Text(&GLOB),
                empty: false,
            },
            "nothing",
            "More files, by name or shell pattern, relative to this one. Their sections are added to those of this file; nothing may be said twice, except that listeners, routes and certificates are lists and are put together in the order read. A plain name must exist; a pattern may match nothing.",
        ),
        section("server", &SERVER, "The process."),
        optional(
            "admin",
            Kind::Table(&ADMIN),
            "no admin listener",
            "Metrics, health and runtime state.",
        ),
        section(
            "log",
            &LOG,
            "What is written about the run and about each request.",
        ),
        section("limits", &LIMITS, "Limits of every listener."),
        section(
            "overload",
            &OVERLOAD,
            "What is given up first when there is more to do than can be done.",
        ),
        required(
            "listener",
            Kind::Tables(&LISTENER),
            "Where clients connect.",
        ),
        optional(
            "tls",
            Kind::Table(&TLS),
            "no listener can speak TLS",
            "Certificates.",
        ),
        optional(
            "upstream",
            Kind::Named(&UPSTREAM),
            "none",
            "Pools of app servers.",
        ),
        optional(
            "static",
            Kind::Named(&STATIC),
            "none",
            "Directories served.",
        ),
        optional(
            "error_pages",
            Kind::Named(&ERROR_PAGES),
            "none",
            "Pages for error replies.",
        ),
        section("cache", &CACHE, "The store of responses."),
        optional(
            "filter",
            Kind::Named(&FILTER),
            "none",
            "Named sets of steps.",
        ),
        required("route", Kind::Tables(&ROUTE), "Which request goes where."),
    ],
    foreign: &[
        (
            "http",
            "there is no outer block: sections stand at the top, as [[listener]] and [[route]]",
        ),
        (
            "location",
            "write a [[route]] with match = { path_prefix = \"/...\" }",
        ),
        (
            "frontend",
            "write a [[listener]] for the address and [[route]] for the rest",
        ),
        ("backend", "write [upstream.NAME]"),
        ("service", "write [upstream.NAME]"),
        ("services", "write [upstream.NAME]"),
        ("router", "write [[route]]"),
        ("middleware", "write [filter.NAME]"),
        (
            "events",
            "connections are bounded by [limits] max_connections",
        ),
        (
            "error_page",
            "write [error_pages.NAME], and error_pages = \"NAME\" in [server] or a [[route]]",
        ),
        (
            "errorfile",
            "write [error_pages.NAME], and error_pages = \"NAME\" in [server] or a [[route]]",
        ),
        ("site", "write a [[route]] with match = { host = \"...\" }"),
        ("metrics", "metrics are served by [admin] at /metrics"),
        ("workers", "it belongs in [server]"),
        ("user", "it belongs in [server]"),
        ("address", "it belongs in a [[listener]]"),
    ],
    example: "",
};

pub(crate) use acme::ACME;
pub(crate) use balance::{BALANCE, HASH_KEY};
pub(crate) use cache::CACHE;
pub(crate) use endpoint::{DISCOVERED, ENDPOINT};
pub(crate) use filter::FILTER;
pub(crate) use health::OUTLIER_DETECTION;
pub(crate) use images::IMAGES;
pub(crate) use listener::{CERTIFICATE, LISTENER, TLS};
pub(crate) use matcher::VALUE_REGEX;
pub(crate) use overload::OVERLOAD;
pub(crate) use pages::ERROR_PAGES;
pub(crate) use process::{ADMIN, LIMITS, LOG, SERVER};
pub(crate) use route::{REDIRECT, RESPOND, ROUTE};
pub(crate) use shop::STATIC;
pub(crate) use upstream::UPSTREAM;

const fn key(name: &'static str, kind: Kind, need: Need, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        need,
        doc,
    }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    key(name, kind, Need::Required, doc)
}

/// A key and its default as TOML.
const fn default(name: &'static str, kind: Kind, value: &'static str, doc: &'static str) -> Key {
    key(name, kind, Need::Default(value), doc)
}

/// A key and what holds without it, in words.
const fn optional(name: &'static str, kind: Kind, without: &'static str, doc: &'static str) -> Key {
    key(name, kind, Need::Optional(without), doc)
}

const fn section(name: &'static str, shape: &'static Shape, doc: &'static str) -> Key {
    key(
        name,
        Kind::Table(shape),
        Need::Optional("its defaults"),
        doc,
    )
}

/// An entry of `include`.
pub(crate) const FILE_PATTERN: Kind = Kind::Text(&GLOB);
/// A status before it is asked of which kind it is.
pub(crate) const ANY_STATUS: Kind = Kind::Integer { min: 100, max: 599 };

const GLOB: Form = Form {
    noun: "a path or a pattern",
    example: "sites/*.toml",
    pattern: ".",
};
const NAME: Form = Form {
    noun: "a name",
    example: "app",
    pattern: "^[A-Za-z0-9_.-]{1,64}$",
};
const PATH: Form = Form {
    noun: "a path",
    example: "shop.pem",
    pattern: ".",
};
const FOLDER: Form = Form {
    noun: "a path",
    example: "/var/cache/tidegate",
    pattern: ".",
};
const NETWORK: Form = Form {
    noun: "a network or an address",
    example: "10.0.0.0/8",
    pattern: "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$",
};
const URL_PATH: Form = Form {
    noun: "a path that starts with a slash",
    example: "/catalog",
    pattern: "^/",
};
const REGEX: Form = Form {
    noun: "a regular expression",
    example: "^/p/([0-9]+)$",
    pattern: "",
};
const METHOD: Form = Form {
    noun: "a method",
    example: "GET",
    pattern: "^\\S+$",
};
const HEADER_NAME: Form = Form {
    noun: "a header name",
    example: "accept-language",
    pattern: "^[^\\s:]+$",
};
const HEADER_VALUE: Form = Form {
    noun: "a header value",
    example: "max-age=3600",
    pattern: "",
};

/// Kinds used in several places.
const NETWORKS: Kind = Kind::List {
    of: &Kind::Text(&NETWORK),
    empty: false,
};
const TIME: Kind = Kind::Duration { zero: false };
const TIME_OR_ZERO: Kind = Kind::Duration { zero: true };
const COUNT: Kind = Kind::Integer {
    min: 1,
    max: 1_000_000,
};
const PERCENT: Kind = Kind::Percent { min: 0, max: 100 };
const STATUS: Kind = Kind::Integer { min: 200, max: 599 };
const SIZE: Kind = Kind::Size {
    min: 1,
    max: 1 << 60,
};

impl Shape {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Every shape that can be reached from this one, itself first.
    pub(crate) fn family(&'static self) -> Vec<&'static Shape> {
        let mut found = vec![self];
        let mut next = 0;
        while let Some(shape) = found.get(next).copied() {
            for inner in shape.keys.iter().flat_map(|key| key.kind.shapes()) {
                if !found.iter().any(|known| std::ptr::eq(*known, inner)) {
                    found.push(inner);
                }
            }
            next += 1;
        }
        found
    }
}

impl Shape {
    /// What it must have, as an inline table.
    pub(crate) fn sample(&self) -> String {
        let needed: Vec<String> = self
            .keys
            .iter()
            .filter(|key| matches!(key.need, Need::Required))
            .map(|key| format!("{} = {}", key.name, key.kind.sample()))
            .collect();
        match needed.as_slice() {
            [] => "{ ... }".into(),
            needed => format!("{{ {} }}", needed.join(", ")),
        }
    }

    /// What a word of another program, or of another place, is here.
    pub(crate) fn advice(&self, word: &str) -> Option<&'static str> {
        let folded = word.to_ascii_lowercase().replace('-', "_");
        self.foreign
            .iter()
            .find(|(known, _)| *known == folded)
            .map(|(_, advice)| *advice)
    }

    /// Its keys, for a sentence.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.keys.iter().map(|key| key.name).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_shape_and_every_key_of_it_has_one_name_and_a_text() {
        let shapes = ROOT.family();
        assert!(shapes.len() > 20, "the walk found them");
        let mut ids = BTreeSet::new();
        for shape in shapes {
            assert!(ids.insert(shape.id), "{} is there twice", shape.id);
            let mut names = BTreeSet::new();
            for key in shape.keys {
                assert!(
                    names.insert(key.name),
                    "{}.{} is there twice",
                    shape.id,
                    key.name
                );
                assert!(
                    key.doc.ends_with('.'),
                    "{}.{} has no sentence",
                    shape.id,
                    key.name
                );
            }
            for (word, _) in shape.foreign {
                assert!(
                    !names.contains(word),
                    "{}.{word} is a key of ours",
                    shape.id
                );
            }
        }
    }
}
