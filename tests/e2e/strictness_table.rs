//! The tables of docs/strictness.md are what the binary does.
//!
//! `UPDATE_DOCS=1` writes them anew.

use std::fmt::Write as _;

use crate::strictness::{edge_before, forms, h2_forms, rows, unescape};
use crate::support::client::HOST;
use crate::support::edge::root;
use crate::support::h2::{Frames, Verdict};
use crate::support::h3::{self, Client};
use crate::support::{Answer, Ask, Broken, Conn, Edge, Origin, Seen, wait};

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

/// What reached the origin of what `gets` tells: the target, or all lines of a field, however its name
/// is spelt.
fn got(seen: &Seen, gets: &str) -> String {
    if gets.starts_with('/') {
        return seen.target.clone();
    }
    let name = gets.split(':').next().unwrap_or_default();
    let lines = seen
        .fields
        .iter()
        .map(|(own, value)| (own.to_ascii_lowercase(), value))
        .filter(|(own, _)| own.replace('_', "-") == name)
        .map(|(own, value)| format!("{own}: {value}"));
    lines.collect::<Vec<_>>().join(", ")
}

#[test]
fn requests_that_are_served() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    let host = format!("Host: {HOST}\r\n");
    let text = include_str!("forms/served.txt");
    let mut forms = rows(text);
    let mut table = String::new();
    for (title, rows) in sections(text) {
        write!(
            table,
            "\n### {title}\n\n| what | the application gets |\n| --- | --- |\n"
        )
        .expect("room");
        for what in rows {
            let row = forms.next().expect("a form for each row");
            let [name, gets, bytes] = row[..] else {
                panic!("not three columns: {row:?}");
            };
            assert_eq!(name, what);
            let bytes = unescape(bytes).replace("{host}", &host);
            // Over a connection of its own, and over one that is kept.
            for _ in 0..2 {
                edge.plain().send(&bytes).reply().expect(200);
                assert_eq!(got(&origin.last(), gets), gets, "{what}");
            }
            let gets = gets.replace(", ", "`, `");
            writeln!(table, "| {what} | `{gets}` |").expect("room");
        }
    }
    table.push('\n');
    expect_table("requests that are served", &table);
}

/// A reply that an app gives, and what may come of it.
struct Given {
    what: &'static str,
    /// In the table's words; ", or " between two.
    outcomes: &'static str,
    to_head: bool,
    bytes: String,
}

/// The forms of `forms/replies.txt`.
fn given(text: &'static str) -> Vec<Given> {
    let long = "x".repeat(300_000);
    let some = "x".repeat(300);
    let many: String = (0..300).map(|n| format!("X-{n}: 1\r\n")).collect();
    let given = rows(text).map(|row| {
        let [what, outcomes, bytes] = row[..] else {
            panic!("not three columns: {row:?}");
        };
        let to_head = bytes.starts_with("{HEAD}");
        let bytes = unescape(bytes)
            .replace("{HEAD}", "")
            .replace("{long}", &long)
            .replace("{some}", &some)
            .replace("{many}", &many);
        Given {
            what,
            outcomes,
            to_head,
            bytes,
        }
    });
    given.collect()
}

impl Given {
    /// What is wrong with what the client gets when it asks for `target`; nothing if it is right.
    fn judge(&self, conn: &mut Conn, target: &str) -> Option<String> {
        let ask = match self.to_head {
            true => Ask::head(target),
            false => Ask::get(target),
        };
        conn.send(ask.bytes());
        let wrong = match self.outcomes.ends_with("cut off") {
            true => self.judge_cut(conn),
            false => self.judge_whole(conn),
        };
        wrong.map(|how| format!("{}: {how}", self.what))
    }

    /// What the table says of a reply with this status.
    fn outcome(&self, status: u16) -> Option<&'static str> {
        let status = status.to_string();
        let mut outcomes = self.outcomes.split(", or ");
        outcomes.find(|outcome| outcome.starts_with(&status))
    }

    fn judge_cut(&self, conn: &mut Conn) -> Option<String> {
        let head = match conn.head() {
            Ok(head) => head,
            Err(broken) => return Some(format!("{broken:?}")),
        };
        match self.outcome(head.status) {
            None => Some(head.status.to_string()),
            Some(outcome) if !outcome.ends_with("cut off") => None,
            Some(_) => match conn.exactly(usize::MAX) {
                Err(Broken::ClosedSilently) => None,
                Err(Broken::Cut(rest)) if !format!("\r\n{rest}").ends_with("\r\n0\r\n\r\n") => None,
                more => Some(format!("not cut off: {more:?}")),
            },
        }
    }

    fn judge_whole(&self, conn: &mut Conn) -> Option<String> {
        let reply = match conn.read(self.to_head) {
            Ok(reply) => reply,
            Err(broken) => return Some(format!("{broken:?}")),
        };
        let what = self.what;
        let Some(outcome) = self.outcome(reply.status) else {
            return Some(reply.status.to_string());
        };
        let body = match reply.status {
            200 if self.to_head || outcome.ends_with("empty") => Some(""),
            200 | 205 => Some("ok"),
            204 | 304 => Some(""),
            _ => None,
        };
        if let Some(body) = body {
            assert_eq!(reply.text(), body, "{what}");
        }
        let is_clean = |(name, value): &(String, String)| {
            !name.ends_with(' ') && !value.contains(['\r', '\n'])
        };
        assert!(reply.fields.iter().all(is_clean), "{what}: {reply:?}");
        let has = |name| reply.field(name).is_some();
        let (length, coding) = (has("content-length"), has("transfer-encoding"));
        assert!(!(length && coding), "{what}");
        assert!(reply.status != 204 || !(length || coding), "{what}");
        if let Some(value) = reply.field("x-a") {
            assert!(matches!(value, "b" | "b c" | "b  c"), "{what}: {value:?}");
        }
        // Nothing of it is left for what is asked next.
        conn.send(Ask::get("/after").bytes());
        match conn.read(false) {
            Ok(next) if next.status == 200 && next.text() == "after" => None,
            Err(Broken::ClosedSilently) => None,
            next => Some(format!("then {next:?}")),
        }
    }
}

#[test]
fn replies() {
    let text = include_str!("forms/replies.txt");
    let forms = given(text);
    let answers: Vec<_> = forms.iter().map(|form| form.bytes.clone()).collect();
    let origin = Origin::start(move |seen| {
        let target = seen.target.trim_start_matches('/');
        if target == "after" {
            let after = Answer::ok("after").field("Connection", "close");
            return after.then_close();
        }
        let nth = target.parse::<usize>();
        nth.map_or_else(
            |_| Answer::ok("warm"),
            // Before an answer that is none: what is raw is not sent to a HEAD.
            |nth| Answer::raw("").behind(&answers[nth]),
        )
    });
    let edge = edge_before(&origin);
    let mut forms = forms.iter().enumerate();
    let (mut table, mut wrong) = (String::new(), Vec::new());
    for (title, rows) in sections(text) {
        write!(
            table,
            "\n### {title}\n\n| what | the client gets |\n| --- | --- |\n"
        )
        .expect("room");
        for what in rows {
            let (nth, form) = forms.next().expect("a form for each row");
            assert_eq!(form.what, what);
            // Over a connection of its own, and over one that is kept.
            for warm in [false, true] {
                if warm {
                    edge.get("/warm").expect(200);
                }
                wrong.extend(form.judge(&mut edge.plain(), &format!("/{nth}")));
            }
            writeln!(table, "| {what} | {} |", form.outcomes).expect("room");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    table.push('\n');
    expect_table("replies", &table);
}
