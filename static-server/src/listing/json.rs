//! The listing as a JSON array.

use std::fmt::Write as _;

use super::text;
use super::view::View;
use crate::files::{Entry, EntryKind};

/// An array of objects with `name`, `type`, `size` (null for a directory) and `modified`
/// (null where the time is none that ISO 8601 writes in four digits).
pub(super) fn render(view: &View) -> String {
    let mut out = String::with_capacity(view.entries().len() * 96 + 3);
    out.push('[');
    for (index, entry) in view.entries().iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        object(&mut out, entry);
    }
    out.push_str("\n]\n");
    out
}

fn object(out: &mut String, entry: &Entry) {
    out.push_str("{\"name\":");
    string(out, &entry.name);
    match entry.kind {
        EntryKind::File(size) => {
            let _ = write!(out, ",\"type\":\"file\",\"size\":{size}");
        }
        EntryKind::Directory => out.push_str(",\"type\":\"directory\",\"size\":null"),
    }
    match text::moment(entry.modified) {
        Some(moment) => {
            let _ = write!(out, ",\"modified\":\"{moment}\"}}");
        }
        None => out.push_str(",\"modified\":null}"),
    }
}

/// A string of RFC 8259. What could end a script or turn the text around for a person who
/// reads it raw is escaped too.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '<' | '>' | '&' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            character if text::deceives(character) => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            character => out.push(character),
        }
    }
    out.push('"');
}
