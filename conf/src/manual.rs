//! The reference manual, `docs/configuration.md`, written from the table of keys.

use std::fmt::Write;

use crate::keys::{Key, Kind, Need, ROOT, Shape};

/// What stands above the tables.
const HEAD: &str = include_str!("manual/head.md");

/// The reference manual in Markdown, with a final newline.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(HEAD);
    table(&mut text, &ROOT);
    for key in ROOT.keys {
        for shape in key.kind.shapes() {
            section(&mut text, shape);
        }
    }
    text
}

fn section(text: &mut String, shape: &'static Shape) {
    line(text, &format!("\n## {}\n", heading(shape)));
    line(text, shape.doc);
    if !shape.example.is_empty() {
        line(text, &format!("\n```toml\n{}```", shape.example));
    }
    table(text, shape);
    for inner in shape.family().into_iter().skip(1) {
        if first_home(inner) == Some(shape.id) {
            line(
                text,
                &format!("\n### {}: {}\n", heading(shape), heading(inner)),
            );
            line(text, inner.doc);
            table(text, inner);
        }
    }
}

/// The section under which a shape that several share is described.
fn first_home(wanted: &Shape) -> Option<&'static str> {
    let sections = ROOT.keys.iter().flat_map(|key| key.kind.shapes());
    let top: Vec<&Shape> = sections.collect();
    if top.iter().any(|shape| shape.id == wanted.id) {
        return None;
    }
    top.into_iter()
        .find(|shape| shape.family().iter().any(|inner| inner.id == wanted.id))
        .map(|shape| shape.id)
}

fn heading(shape: &Shape) -> String {
    match shape.title.split_once(' ') {
        Some(_) => shape.title.to_owned(),
        None => format!("`{}`", shape.title),
    }
}

fn table(text: &mut String, shape: &Shape) {
    line(
        text,
        "\n| key | takes | without it | meaning |\n| --- | --- | --- | --- |",
    );
    for key in shape.keys {
        let without = match key.need {
            Need::Required => "must be there".to_owned(),
            Need::Default(value) => format!("`{value}`"),
            Need::Optional(words) => words.to_owned(),
        };
        let row = [
            format!("`{}`", key.name),
            takes(key),
            without,
            key.doc.to_owned(),
        ];
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        line(text, &format!("| {} |", cells.join(" | ")));
    }
}

fn takes(key: &Key) -> String {
    kind(&key.kind)
}

fn kind(of: &Kind) -> String {
    match of {
        Kind::Bool => "`true` or `false`".into(),
        Kind::Only(flag) => format!("`{flag}`"),
        Kind::Integer { min, max } => format!("{min} to {max}"),
        Kind::Duration { zero: false } => "time".into(),
        Kind::Duration { zero: true } => "time, or `\"0s\"`".into(),
        Kind::Size { .. } => "size".into(),
        Kind::Percent { min: 0, max: 100 } => "percentage".into(),
        Kind::Percent { min, max } => format!("`\"{min}%\"` to `\"{max}%\"`"),
        Kind::Text(form) => format!("{}: `\"{}\"`", form.noun, form.example),
        Kind::Choice(words) => words
            .iter()
            .map(|(word, doc)| format!("`\"{word}\"` ({doc})"))
            .collect::<Vec<_>>()
            .join(", "),
        Kind::List { of, .. } => format!("list of: {}", kind(of)),
        Kind::OneOrMore(of) => format!("{}; or a list of such", kind(of)),
        Kind::Table(shape) => format!("table, see {}", heading(shape)),
        Kind::Tables(shape) => format!("tables, see {}", heading(shape)),
        Kind::Named(shape) => format!("a table for each name, see {}", heading(shape)),
        Kind::Map { what, of } => format!("table with {what} as keys, each: {}", kind(of)),
        Kind::Either(kinds) => kinds.iter().map(kind).collect::<Vec<_>>().join("; or "),
    }
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}
