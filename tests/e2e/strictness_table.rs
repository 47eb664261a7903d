//! The tables of docs/strictness.md are what the binary does.
//!
//! `UPDATE_DOCS=1` writes them anew.

use std::fmt::Write as _;

use crate::strictness::{edge_before, forms, h2_forms, rows, unescape};
use crate::support::edge::root;
use crate::support::h2::{Frames, Verdict};
use crate::support::h3::{self, Client};
use crate::support::{Answer, Ask, Edge, Origin, wait};

/// The headings of a table of forms, each above its rows: title and sources.
fn sections(text: &'static str) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut sections = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(title) => sections.push((title, Vec::new())),
            None if line.is_empty() => {}
            None => {
                let what = line.split(" | ").next().unwrap_or(line);
                if let Some((_, rows)) = sections.last_mut() {
                    rows.push(what);
                }
            }
        }
    }
    // The first lines say what the file is.
    sections.retain(|(_, rows)| !rows.is_empty());
    sections
}

/// Why a request was refused, by the counters before and after it.
fn reasons(edge: &Edge) -> Vec<(String, f64)> {
    let text = edge.admin("/metrics").expect(200).text();
    text.lines()
        .filter(|line| line.starts_with("tidegate_requests_rejected_total{"))
        .filter_map(|line| {
            let reason = line.split("reason=\"").nth(1)?.split('"').next()?;
            let count = line.rsplit(' ').next()?.parse().ok()?;
            Some((reason.to_owned(), count))
        })
        .collect()
}

fn new_reason(edge: &Edge, before: &[(String, f64)]) -> String {
    wait::until("it is counted", wait::SOON, || {
        let after = reasons(edge);
        let grown = |(reason, count): &&(String, f64)| {
            let known = before.iter().find(|(name, _)| name == reason);
            *count > known.map_or(0.0, |(_, count)| *count)
        };
        after.iter().find(grown).map(|(reason, _)| reason.clone())
    })
}

/// Puts `table` between the marks called `name`, and says whether it stood there.
fn replaced(text: &str, name: &str, table: &str) -> String {
    let (open, close) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let start = text.find(&open).expect("the mark") + open.len();
    let end = text.find(&close).expect("the other mark");
    format!("{}{table}{}", &text[..start], &text[end..])
}

#[track_caller]
fn expect_table(name: &str, table: &str) {
    let path = root().join("docs/strictness.md");
    let text = std::fs::read_to_string(&path).expect("the manual");
    let fresh = replaced(&text, name, table);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, fresh).expect("room");
        return;
    }
    assert!(
        text == fresh,
        "docs/strictness.md is out of date; UPDATE_DOCS=1 writes it. {name} is\n{table}"
    );
}

#[test]
fn requests_of_http1() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    let forms = forms();
    let mut forms = forms.iter();
    let mut table = String::new();
    for (title, rows) in sections(include_str!("forms/http1.txt")) {
        write!(
            table,
            "\n### {title}\n\n| what | answer | reason |\n| --- | --- | --- |\n"
        )
        .expect("room");
        for what in rows {
            let form = forms.next().expect("a form for each row");
            assert_eq!(form.what, what);
            let before = reasons(&edge);
            let mut conn = edge.plain();
            conn.send(&form.bytes);
            let status = conn.reply().status;
            let reason = new_reason(&edge, &before);
            writeln!(table, "| {what} | {status} | `{reason}` |").expect("room");
        }
    }
    table.push('\n');
    expect_table("requests of HTTP/1", &table);
}

#[test]
fn requests_of_http2() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    let mut table = "\n| what | answer |\n| --- | --- |\n".to_owned();
    for (what, fields) in h2_forms() {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut frames = Frames::open(edge.http());
        frames.headers(1, &fields, true);
        let answer = match frames.verdict(1) {
            Verdict::Status(status) => status.to_string(),
            Verdict::StreamReset(1) => "the stream is reset, PROTOCOL_ERROR".to_owned(),
            Verdict::GoAway(1) => "the connection ends, PROTOCOL_ERROR".to_owned(),
            other => format!("{other:?}"),
        };
        writeln!(table, "| {what} | {answer} |").expect("room");
    }
    table.push('\n');
    expect_table("requests of HTTP/2", &table);
}

#[test]
fn requests_of_http3() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    let client = Client::new();
    let mut table = "\n| what | answer | reason |\n| --- | --- | --- |\n".to_owned();
    for (what, fields) in h2_forms() {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let before = reasons(&edge);
        let answer = match client.bare(edge.https()).send(&h3::headers(&fields), true) {
            h3::Verdict::Status(status) => status.to_string(),
            other => format!("{other:?}"),
        };
        let reason = new_reason(&edge, &before);
        writeln!(table, "| {what} | {answer} | `{reason}` |").expect("room");
    }
    table.push('\n');
    expect_table("requests of HTTP/3", &table);
}

#[test]
fn replies() {
    let long = "x".repeat(300_000);
    let many: String = (0..300).map(|n| format!("X-{n}: 1\r\n")).collect();
    let text = include_str!("forms/replies.txt");
    let forms: Vec<_> = rows(text)
        .map(|row| {
            let [what, status, bytes] = row[..] else {
                panic!("not three columns: {row:?}");
            };
            let bytes = unescape(bytes)
                .replace("{long}", &long)
                .replace("{many}", &many);
            (what, status, bytes.into_bytes())
        })
        .collect();
    let answers: Vec<_> = forms.iter().map(|(.., bytes)| bytes.clone()).collect();
    let origin = Origin::start(move |seen| {
        let nth = seen.target.trim_start_matches('/').parse::<usize>();
        nth.map_or_else(
            |_| Answer::ok("warm"),
            |nth| Answer::raw(answers[nth].clone()),
        )
    });
    let edge = edge_before(&origin);
    let (mut table, mut nth, mut wrong) = (String::new(), 0, Vec::new());
    for (title, rows) in sections(text) {
        write!(
            table,
            "\n### {title}\n\n| what | the client gets |\n| --- | --- |\n"
        )
        .expect("room");
        for what in rows {
            let (name, status, _) = forms[nth];
            assert_eq!(name, what);
            // Over a connection of its own, and over one that is kept.
            for warm in [false, true] {
                if warm {
                    edge.get("/warm").expect(200);
                }
                let reply = edge.ask(&Ask::get(&format!("/{nth}")));
                if !status.starts_with(&reply.status.to_string()) {
                    wrong.push(format!("{what}: {}", reply.status));
                }
                let body = match reply.status {
                    200 => "ok",
                    204 => "",
                    _ => continue,
                };
                assert_eq!(reply.text(), body, "{what}");
                let is_clean = |(name, value): &(String, String)| {
                    !name.ends_with(' ') && !value.contains(['\r', '\n'])
                };
                assert!(reply.fields.iter().all(is_clean), "{what}: {reply:?}");
                let has = |name| reply.field(name).is_some();
                assert!(
                    !(has("content-length") && has("transfer-encoding")),
                    "{what}"
                );
                if let Some(value) = reply.field("x-a") {
                    assert!(matches!(value, "b" | "b c" | "b  c"), "{what}: {value:?}");
                }
            }
            writeln!(table, "| {what} | {status} |").expect("room");
            nth += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    table.push('\n');
    expect_table("replies", &table);
}
