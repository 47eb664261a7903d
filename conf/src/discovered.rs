//! What a discovery file or URL gives: a list of endpoints in TOML or JSON.
//!
//! It is read by the same reader as `endpoints` of the configuration, so it takes the same strings
//! and tables and refuses the same mistakes. A list with a mistake is refused as a whole: half a
//! list would take nodes out of service that are well. Nothing of the machine is asked.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::config::{Endpoint, EndpointAddress};
use crate::environment::Machine;
use crate::keys::DISCOVERED;
use crate::raw::{self, Entry, Node, Value};
use crate::read::{Cx, Finding, Findings, Table};
use crate::section;
use crate::source::{FileId, Place, Sources};

/// Most endpoints of one list.
pub const MOST: usize = 10_000;
/// Longest text that is read, in bytes: far more than [`MOST`] endpoints need.
pub const MAX_BYTES: usize = 8 << 20;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `endpoints = ["10.0.0.11:8080", { address = "10.0.0.12:8080", weight = 2 }]`
    Toml,
    /// `["10.0.0.11:8080", { "address": "10.0.0.12:8080", "weight": 2 }]`, or an object with such
    /// a list as its `endpoints`.
    Json,
}

impl Format {
    /// By the ending of a file's name; `None`: neither `.toml` nor `.json`.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The endpoints of a list, in its order. An empty list is none; it is the caller's to decide
/// whether to believe it.
///
/// # Errors
/// The first mistake in one line (where, what, how to mend it), and how many more there are: text
/// that is not TOML or JSON, unknown keys, endpoints that are wrong or there twice, sockets by a
/// relative path, more than [`MOST`] endpoints or [`MAX_BYTES`] bytes.
pub fn parse(text: &str, format: Format) -> Result<Vec<Endpoint>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!(
            "this has {} bytes, more than {MAX_BYTES}: it is no list of endpoints; look whether the right file or URL is named",
            text.len()
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sources = Sources::default();
    let file = sources.add(PathBuf::new(), text.to_owned());
    let findings = Findings::default();
    let root = match format {
        Format::Toml => {
            let parsed = raw::parse(&mut sources, file);
            for mistake in parsed.mistakes {
                let finding = Finding::syntax(mistake.place, mistake.message);
                let fix = mistake.label.or(mistake.help);
                findings.add(match fix {
                    Some(fix) => finding.label(fix),
                    None => finding,
                });
            }
            parsed.root
        }
        Format::Json => json(text)?,
    };
    let endpoints = match findings.is_empty() {
        true => read(&root, &sources, &findings),
        false => Vec::new(),
    };
    let name = |place: Place| match (format, place.start) {
        (Format::Json, 0) => "the list".to_owned(),
        (Format::Json, number) => format!("endpoint {number}"),
        (Format::Toml, _) if place.whole => "the list".to_owned(),
        (Format::Toml, _) => {
            let (line, column) = sources.position(place);
            format!("line {line}, column {column}")
        }
    };
    let mut mistakes = findings.lines(name).into_iter();
    match (mistakes.next(), mistakes.len()) {
        (None, _) => Ok(endpoints),
        (Some(only), 0) => Err(only),
        (Some(first), more) => Err(format!("{first} (and {more} more)")),
    }
}

fn read(root: &Node, sources: &Sources, findings: &Findings) -> Vec<Endpoint> {
    let cx = Cx {
        sources,
        environment: &Machine,
        findings,
        used: RefCell::default(),
    };
    let Some(table) = Table::open(&cx, &DISCOVERED, root.place, root) else {
        return Vec::new();
    };
    table.require("endpoints");
    let (found, _) = section::placed(&table);
    for (endpoint, place) in &found {
        if let EndpointAddress::Unix(path) = &endpoint.address
            && !path.is_absolute()
        {
            let what = format!("the path of the socket {} is relative", endpoint.address);
            let fix = format!("write it from the root: \"unix:/run/{}\"", path.display());
            findings.add(Finding::error(*place, what).label(fix));
        }
    }
    found.into_iter().map(|(endpoint, _)| endpoint).collect()
}

/// A JSON text as a tree whose places are the numbers of endpoints, 0 being the whole.
fn json(text: &str) -> Result<Node, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut root = Tree
        .deserialize(&mut reader)
        .and_then(|root| reader.end().map(|()| root))
        .map_err(|error| not_json(&error))?;
    if let Value::List(_) = root.value {
        root.value = Value::Table(vec![Entry {
            key: "endpoints".into(),
            place: at(0),
            node: root.clone(),
        }]);
    }
    let Value::Table(entries) = &mut root.value else {
        return Err(format!(
            "the list: this is {}; write [\"10.0.0.11:8080\"] or {{\"endpoints\": [\"10.0.0.11:8080\"]}}",
            root.value.noun()
        ));
    };
    for entry in entries.iter_mut().filter(|entry| entry.key == "endpoints") {
        if let Value::List(items) = &mut entry.node.value {
            for (index, item) in items.iter_mut().enumerate() {
                number(item, index + 1);
            }
        }
    }
    Ok(root)
}

fn not_json(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let what = said.split(" at line ").next().unwrap_or(&said);
    let fix = match error.is_eof() {
        true => {
            "it ends too early; put a new file in its place by a rename, so that nobody reads half of it"
        }
        false => "write [\"10.0.0.11:8080\"]",
    };
    format!(
        "line {}, column {}: this is not JSON: {what}; {fix}",
        error.line(),
        error.column()
    )
}

fn at(number: usize) -> Place {
    Place::new(FileId(0), number..number)
}

fn number(node: &mut Node, number_of: usize) {
    node.place = at(number_of);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| number(item, number_of)),
        Value::Table(entries) => {
            for entry in entries {
                entry.place = at(number_of);
                number(&mut entry.node, number_of);
            }
        }
        _ => {}
    }
}

/// Reads any JSON value. Keys that are there twice stay so, to be reported.
struct Tree;

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let value = deserializer.deserialize_any(self)?;
        Ok(Node {
            place: at(0),
            value,
        })
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            found.push(item);
        }
        Ok(Value::List(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut found = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            found.push(Entry {
                key,
                place: at(0),
                node: entries.next_value_seed(Self)?,
            });
        }
        Ok(Value::Table(found))
    }
}

#[cfg(test)]
mod tests;
