//! Sections by their form: one, a list of them, or one for each name.

use crate::courtesy::give_way;
use crate::keys::Shape;
use crate::raw::{Entry, Value};
use crate::read::{Cx, Finding, Table};
use crate::source::Place;
use crate::text;

/// Where each named thing stands, by its name; and whether these are all, or some
/// could not be read.
pub(super) struct Named(pub(super) Vec<(String, Place)>, pub(super) bool);

/// A section that is there once, put together from all files that have it.
pub(super) fn single<'a>(root: &Table<'a>, name: &'static str, shape: &'static Shape) -> Table<'a> {
    give_way();
    let mut found = root.entries_of(name).peekable();
    let place = found.peek().map_or(root.place, |entry| entry.place);
    let mut table = Table::absent(root.cx, shape, place);
    for entry in found {
        table.join(entry.place, &entry.node);
    }
    table
}

/// The tables of `[[name]]`, in order.
pub(super) fn list<'a>(
    root: &Table<'a>,
    name: &'static str,
    shape: &'static Shape,
) -> Vec<Table<'a>> {
    let mut tables = Vec::new();
    for entry in root.entries_of(name) {
        match &entry.node.value {
            Value::List(items) => {
                for item in items {
                    tables.extend(Table::open(root.cx, shape, item.place, item));
                }
            }
            Value::Table(inner) => tables.extend(not_a_list(root.cx, name, shape, entry, inner)),
            other => root.cx.error(
                Finding::error(
                    entry.node.place,
                    format!("{name} must be a list of tables, this is {}", other.noun()),
                )
                .label(format!("write a section [[{name}]]")),
            ),
        }
    }
    tables
}

/// `[route]` or `[route.shop]` where `[[route]]` is wanted.
fn not_a_list<'a>(
    cx: &'a Cx<'a>,
    name: &str,
    shape: &'static Shape,
    entry: &'a Entry,
    inner: &'a [Entry],
) -> Option<Table<'a>> {
    let called = inner.iter().find(|inner| {
        matches!(inner.node.value, Value::Table(_)) && shape.key(&inner.key).is_none()
    });
    let header = shape.title.starts_with('[');
    let why = match header {
        true => "its header has double brackets",
        false => "it is a list",
    };
    let finding = Finding::error(
        entry.place,
        format!("there can be several of `{name}`, so {why}"),
    );
    match called {
        Some(called) => {
            cx.error(finding.label(format!(
                "write [[{name}]], and below it name = \"{}\"",
                called.key
            )));
            None
        }
        None => {
            let fix = match header {
                true => format!("write [[{name}]]"),
                false => format!("put it in brackets: {name} = [{}]", shape.sample()),
            };
            cx.error(finding.label(fix));
            Table::open(cx, shape, entry.place, &entry.node)
        }
    }
}

/// The tables of `[name.NAME]`, in order, each read by `read`.
pub(super) fn named<'a, T>(
    root: &Table<'a>,
    name: &'static str,
    shape: &'static Shape,
    read: impl Fn(&Table<'a>, &str) -> Option<T>,
) -> (Named, Vec<Option<T>>) {
    let cx = root.cx;
    let mut names = Named(Vec::new(), !root.explains(name));
    let mut parts = Vec::new();
    for section in root.entries_of(name) {
        let Some(entries) = inner(cx, name, shape, section) else {
            names.1 = false;
            continue;
        };
        for entry in entries {
            give_way();
            if let Err(wrong) = text::name(&entry.key) {
                cx.error(
                    Finding::error(entry.place, format!("{name}: {}", wrong.what)).label(wrong.fix),
                );
            }
            if let Some((_, first)) = names.0.iter().find(|(known, _)| *known == entry.key) {
                cx.error(
                    Finding::error(
                        entry.place,
                        format!("[{name}.{}] is there twice", entry.key),
                    )
                    .label("give it another name")
                    .also("it is there first at", *first),
                );
            }
            names.0.push((entry.key.clone(), entry.place));
            let table = Table::absent(cx, shape, entry.place)
                .titled(format!("[{name}.{}]", entry.key))
                .joined(entry);
            parts.push(table.and_then(|table| read(&table, &entry.key)));
        }
    }
    (names, parts)
}

/// What stands under `[name]`; `None`, reported: it is no table for each name.
fn inner<'a>(
    cx: &Cx<'_>,
    name: &str,
    shape: &'static Shape,
    section: &'a Entry,
) -> Option<&'a [Entry]> {
    let entries = match &section.node.value {
        Value::Table(entries) => entries,
        Value::List(_) => {
            cx.error(
                Finding::error(
                    section.place,
                    format!("each `{name}` has its name in the header"),
                )
                .label(format!("write [{name}.NAME]")),
            );
            return None;
        }
        other => {
            cx.error(
                Finding::error(
                    section.node.place,
                    format!(
                        "{name} must be a table for each name, this is {}",
                        other.noun()
                    ),
                )
                .label(format!("write a section [{name}.NAME]")),
            );
            return None;
        }
    };
    let nameless = entries.iter().any(|entry| {
        shape.key(&entry.key).is_some() && !matches!(entry.node.value, Value::Table(_))
    });
    if nameless {
        cx.error(
            Finding::error(section.place, format!("this `{name}` has no name"))
                .label(format!("write [{name}.NAME], such as [{name}.app]")),
        );
        return None;
    }
    Some(entries)
}
