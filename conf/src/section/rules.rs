//! What several sections check in the same way.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use regex::Regex;

use crate::environment::{FileKind, reason};
use crate::keys::Kind;
use crate::raw::Node;
use crate::read::{Cx, Finding, Table};
use crate::source::Place;
use crate::text;

/// A default count; never zero.
pub(super) fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// The networks of a list, each once.
pub(super) fn networks(table: &Table<'_>, name: &'static str) -> Vec<IpNet> {
    strings(table, name, text::network)
}

/// The strings of a list, each understood by `parse` and there once.
pub(super) fn strings<T: PartialEq>(
    table: &Table<'_>,
    name: &'static str,
    parse: impl Fn(&str) -> Result<T, text::Wrong>,
) -> Vec<T> {
    let Kind::List { of, .. } = table.kind(name) else {
        return Vec::new();
    };
    let items = table.list(name).unwrap_or_default();
    distinct(table.cx, name, items, |item| {
        table.cx.parsed(item, name, of, &parse)
    })
}

/// What `read` makes of each item; a second one that is the same is reported.
pub(super) fn distinct<'n, T: PartialEq>(
    cx: &Cx<'_>,
    name: &str,
    items: impl IntoIterator<Item = &'n Node>,
    mut read: impl FnMut(&Node) -> Option<T>,
) -> Vec<T> {
    let mut found: Vec<(T, Place)> = Vec::new();
    for item in items {
        let Some(value) = read(item) else { continue };
        if let Some((_, first)) = found.iter().find(|(known, _)| *known == value) {
            cx.error(
                Finding::error(item.place, format!("this is in the list `{name}` twice"))
                    .label("delete one of them")
                    .also("it is there first at", *first),
            );
        } else {
            found.push((value, item.place));
        }
    }
    found.into_iter().map(|(value, _)| value).collect()
}

/// A file that is there and can be read.
pub(super) fn readable_file(table: &Table<'_>, name: &'static str) -> Option<PathBuf> {
    let path = table.path(name)?;
    if let Some(node) = table.get(name) {
        check_readable(table.cx, node, &path);
    }
    Some(path)
}

/// Reports that the file at `path`, which `node` names, cannot be read.
pub(super) fn check_readable(cx: &Cx<'_>, node: &Node, path: &Path) {
    if let Err(error) = cx.environment.open(path) {
        cx.error(unreadable(node.place, path, &reason(&error)));
    }
}

/// A directory that is there.
pub(super) fn directory(table: &Table<'_>, name: &'static str) -> Option<PathBuf> {
    let path = table.path(name)?;
    let node = table.get(name)?;
    let what = match table.cx.environment.kind(&path) {
        Ok(FileKind::Directory) => return Some(path),
        Ok(_) => format!("{} is not a directory", path.display()),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("there is no directory {}", path.display())
            }
            _ => format!("cannot use {}: {}", path.display(), reason(&error)),
        },
    };
    table.cx.error(
        Finding::error(node.place, format!("{name}: {what}"))
            .label("a path here is relative to this file"),
    );
    None
}

pub(super) fn unreadable(place: Place, path: &Path, why: &str) -> Finding {
    Finding::error(place, format!("cannot read {}: {why}", path.display()))
        .label("a path here is relative to this file")
}

/// A regular expression; what is wrong with it is said in one line.
pub(super) fn regex(cx: &Cx<'_>, node: &Node, name: &str, kind: &Kind) -> Option<Regex> {
    cx.parsed(node, name, kind, |text| {
        if text.is_empty() {
            return Err(text::Wrong::new(
                "an empty regular expression fits everything",
                "write one that says what is meant",
            ));
        }
        Regex::new(text).map_err(|error| {
            let full = error.to_string();
            let why = match &error {
                regex::Error::CompiledTooBig(_) => "it is too large",
                _ => full.rsplit("error: ").next().unwrap_or(&full).trim(),
            };
            let fix = if why.contains("look-around") || why.contains("backreference") {
                "say it another way: what is excluded can have a more specific route of its own"
            } else {
                "the syntax is that of the Rust crate `regex`, close to RE2"
            };
            text::Wrong::new(format!("this is not a regular expression: {why}"), fix)
        })
    })
}

/// Whether an upstream's endpoint is given by its address; then its host is no name.
pub(super) fn is_ip(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}
