//! The listing as a page: one table, links that sort it, a style that follows the visitor's.

use std::fmt::Write as _;

use super::MAX_ENTRIES;
use super::text;
use super::view::{Order, SortBy, View};
use crate::files::{Entry, EntryKind};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--soft:#666;--link:#0550b3}\
@media(prefers-color-scheme:dark){:root{--soft:#aaa;--link:#8ab8ff}}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem}\
h1{font-size:1.25rem;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%}\
th,td{padding:.4rem .5rem;text-align:start;border-bottom:1px solid var(--line)}\
th{font-weight:600;white-space:nowrap}\
td:first-child{overflow-wrap:anywhere}\
td:nth-child(2),th:nth-child(2){text-align:end;white-space:nowrap}\
td:nth-child(n+2){color:var(--soft);font-variant-numeric:tabular-nums;white-space:nowrap}\
a{color:var(--link);text-decoration:none}a:hover,a:focus{text-decoration:underline}\
p{color:var(--soft)}\
@media(max-width:34rem){body{padding:.5rem}td:nth-child(3) span{display:none}}";

/// The page of `directory`, which is empty for the root or ends with a slash. Every link is
/// relative, so that it is right behind whatever prefix a router has cut off.
pub(super) fn render(directory: &str, view: &View) -> String {
    let mut out = String::with_capacity(view.entries().len() * 320 + 4_096);
    let mut title = String::from("/");
    text::escape(&mut title, directory);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<h1><bdi>{title}</bdi></h1>\n<table>\n<thead><tr>"
    );
    for (by, label) in SortBy::ALL
        .into_iter()
        .zip(["Name", "Size", "Modified (UTC)"])
    {
        column(&mut out, by, label, view.order());
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    if !directory.is_empty() {
        out.push_str("<tr><td><a href=\"../\">..</a></td><td></td><td></td></tr>\n");
    }
    for entry in view.entries() {
        row(&mut out, entry);
    }
    out.push_str("</tbody>\n</table>\n");
    if view.more() {
        let count = text::exact(MAX_ENTRIES as u64);
        let _ = writeln!(
            out,
            "<p>And more: only {count} names of this directory were read.</p>"
        );
    } else if view.entries().is_empty() {
        out.push_str("<p>Nothing here.</p>\n");
    }
    out.push_str("</html>\n");
    out
}

/// A heading whose link sorts by it; that of the present order turns the order around.
fn column(out: &mut String, by: SortBy, label: &str, order: Order) {
    let current = by == order.by;
    let next = if current && !order.descending {
        "desc"
    } else {
        "asc"
    };
    let (aria, arrow) = match (current, order.descending) {
        (false, _) => ("", ""),
        (true, false) => (" aria-sort=\"ascending\"", " \u{2191}"),
        (true, true) => (" aria-sort=\"descending\"", " \u{2193}"),
    };
    let by = by.as_str();
    let _ = write!(
        out,
        "<th scope=\"col\"{aria}><a href=\"?sort={by}&amp;order={next}\">{label}{arrow}</a></th>"
    );
}

fn row(out: &mut String, entry: &Entry) {
    let slash = match entry.kind {
        EntryKind::File(_) => "",
        EntryKind::Directory => "/",
    };
    out.push_str("<tr><td><a href=\"");
    text::reference(out, &entry.name);
    let _ = write!(out, "{slash}\"><bdi>");
    text::escape(out, &entry.name);
    let _ = write!(out, "{slash}</bdi></a></td>");
    match entry.kind {
        EntryKind::File(bytes) => {
            let (short, exact) = (text::size(bytes), text::exact(bytes));
            let unit = if bytes == 1 { "byte" } else { "bytes" };
            let _ = write!(out, "<td title=\"{exact} {unit}\">{short}</td>");
        }
        EntryKind::Directory => out.push_str("<td></td>"),
    }
    match text::moment(entry.modified) {
        Some(moment) => {
            let (day, time) = moment.split_once('T').unwrap_or((&moment, ""));
            let time = time.trim_end_matches('Z');
            let _ = writeln!(
                out,
                "<td><time datetime=\"{moment}\">{day}<span> {time}</span></time></td></tr>"
            );
        }
        None => out.push_str("<td></td></tr>\n"),
    }
}
