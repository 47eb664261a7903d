//! One record as one line.
//!
//! Written byte by byte into a buffer that is there already: no serde, no
//! `format!`, no allocation. The fields and their order are the manual's
//! (`docs/observability.md`); adding one at the end breaks no reader, renaming
//! one does.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::date::Dates;
use super::escape;
use crate::exchange::proxy_header::{Said, Via};
use crate::observe::Names;
use crate::observe::attempts::Attempt;
use crate::observe::record::{CacheResult, Record};
use crate::observe::text::{MAX_FIELD, Text};

/// Appends one JSON object and a line feed. What does not apply is left out.
pub(super) fn json(
    out: &mut Vec<u8>,
    dates: &mut Dates,
    record: &Record,
    text: Text<'_>,
    names: &Names,
) {
    out.extend_from_slice(b"{\"ts\":\"");
    dates.rfc3339(out, record.wall);
    out.extend_from_slice(b"\",\"request_id\":\"");
    escape::hex_id(out, record.id);
    out.extend_from_slice(b"\",\"listener\":\"");
    escape::json(out, names.listener(record.listener).as_bytes());
    if record.route.is_some() {
        json_text(
            out,
            b"\",\"route\":\"",
            names.route(record.route).as_bytes(),
        );
    }
    out.extend_from_slice(b"\",\"client\":\"");
    address(out, record.client);
    out.push(b'"');
    json_request(out, record, text);
    json_answer(out, record);
    json_upstream(out, record, names);
    json_reasons(out, record, text);
    if let Some(via) = &record.via {
        json_via(out, via);
    }
    if let Some(cert) = &record.client_cert {
        json_field(out, b",\"client_cert\":\"", cert.subject.as_bytes());
        json_field(
            out,
            b",\"client_cert_sha256\":\"",
            cert.fingerprint.as_bytes(),
        );
    }
    out.extend_from_slice(b"}\n");
}

fn json_request(out: &mut Vec<u8>, record: &Record, text: Text<'_>) {
    json_field(out, b",\"method\":\"", text.method);
    json_field(out, b",\"host\":\"", text.host);
    json_field(out, b",\"target\":\"", text.target);
    json_field(
        out,
        b",\"protocol\":\"",
        record.protocol.as_str().as_bytes(),
    );
    if let Some(version) = record.tls {
        json_field(out, b",\"tls\":\"", version.as_bytes());
    }
}

fn json_answer(out: &mut Vec<u8>, record: &Record) {
    out.extend_from_slice(b",\"status\":");
    number(out, u64::from(record.status));
    out.extend_from_slice(b",\"bytes_in\":");
    number(out, record.bytes_in);
    out.extend_from_slice(b",\"bytes_out\":");
    number(out, record.bytes_out);
    out.extend_from_slice(b",\"duration_ms\":");
    millis(out, record.duration);
}

fn json_upstream(out: &mut Vec<u8>, record: &Record, names: &Names) {
    let Some(upstream) = record.upstream.and_then(|index| names.upstream(index)) else {
        return;
    };
    json_field(out, b",\"upstream\":\"", upstream.as_bytes());
    let name = |endpoint| match &record.endpoints {
        Some(endpoints) => endpoints.name(endpoint),
        None => "",
    };
    if let Some(last) = record.attempts.last() {
        let endpoint = name(last.endpoint);
        json_field(out, b",\"endpoint\":\"", endpoint.as_bytes());
        out.extend_from_slice(b",\"attempts\":[");
        for (place, attempt) in record.attempts.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            json_attempt(out, attempt, name(attempt.endpoint));
        }
        out.push(b']');
    }
    if let Some(queued) = record.queued {
        out.extend_from_slice(b",\"upstream_queue_ms\":");
        millis(out, queued);
    }
    if let Some(hedge) = record.hedge {
        json_field(out, b",\"hedge\":\"", hedge.as_str().as_bytes());
    }
    if let Some(connect) = record.connect {
        out.extend_from_slice(b",\"upstream_connect_ms\":");
        millis(out, connect);
    }
    if let Some(first_byte) = record.first_byte {
        out.extend_from_slice(b",\"upstream_first_byte_ms\":");
        millis(out, first_byte);
    }
}

fn json_attempt(out: &mut Vec<u8>, attempt: Attempt, endpoint: &str) {
    out.extend_from_slice(b"{\"endpoint\":\"");
    escape::json(out, endpoint.as_bytes());
    out.push(b'"');
    if attempt.status != 0 {
        out.extend_from_slice(b",\"status\":");
        number(out, u64::from(attempt.status));
    }
    if let Some(failure) = attempt.failure {
        json_field(out, b",\"failure\":\"", failure.as_str().as_bytes());
    }
    out.push(b'}');
}

fn json_reasons(out: &mut Vec<u8>, record: &Record, text: Text<'_>) {
    if record.cache != CacheResult::None {
        json_field(out, b",\"cache\":\"", record.cache.as_str().as_bytes());
    }
    if let Some(why) = record.why {
        json_field(out, b",\"why\":\"", why.as_bytes());
    }
    json_field(out, b",\"user_agent\":\"", text.user_agent);
    json_field(out, b",\"referer\":\"", text.referer);
    if text.is_cut() {
        out.extend_from_slice(b",\"cut\":true");
    }
}

/// A whole member, closing quote included; nothing for an empty value.
fn json_field(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    if !value.is_empty() {
        json_text(out, key, shown(value));
        out.push(b'"');
    }
}

fn json_text(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    escape::json(out, value);
}

/// Appends one line of the combined format, as nginx and Apache write it:
/// `client - - [time] "METHOD target PROTOCOL" status bytes "referer" "user agent"`.
pub(super) fn combined(out: &mut Vec<u8>, dates: &mut Dates, record: &Record, text: Text<'_>) {
    address(out, record.client);
    out.extend_from_slice(b" - - [");
    dates.common(out, record.wall);
    out.extend_from_slice(b"] \"");
    if !text.method.is_empty() {
        escape::combined(out, shown(text.method));
        out.push(b' ');
        escape::combined(out, shown(text.target));
        out.push(b' ');
        out.extend_from_slice(record.protocol.as_str().as_bytes());
    } else {
        out.push(b'-');
    }
    out.extend_from_slice(b"\" ");
    number(out, u64::from(record.status));
    out.push(b' ');
    number(out, record.bytes_out);
    out.extend_from_slice(b" \"");
    escape::combined(out, shown(text.referer));
    out.extend_from_slice(b"\" \"");
    escape::combined(out, shown(text.user_agent));
    out.extend_from_slice(b"\"\n");
}

/// What a load balancer said of the connection.
fn json_via(out: &mut Vec<u8>, via: &Via) {
    let Said {
        authority,
        unique_id,
        tls,
        common_name,
    } = &via.said;
    out.extend_from_slice(b",\"proxy_protocol\":{\"balancer\":\"");
    // Into a vector: it cannot fail.
    let _ = write!(out, "{}", via.balancer);
    out.push(b'"');
    let texts = [
        (&b",\"authority\":\""[..], authority),
        (b",\"tls\":\"", tls),
        (b",\"client_cn\":\"", common_name),
    ];
    for (name, said) in texts {
        if let Some(said) = said {
            json_field(out, name, shown(said.as_bytes()));
        }
    }
    if let Some(id) = unique_id {
        out.extend_from_slice(b",\"unique_id\":\"");
        if id.iter().all(u8::is_ascii_graphic) {
            escape::json(out, id);
        } else {
            for octet in id {
                let _ = write!(out, "{octet:02x}");
            }
        }
        out.push(b'"');
    }
    out.push(b'}');
}

/// The part of a field that a line has room for.
fn shown(field: &[u8]) -> &[u8] {
    field.get(..MAX_FIELD).unwrap_or(field)
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three decimals: `1.250`.
fn millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    number(out, micros / 1000);
    let decimals = [b'.', digit(micros / 100), digit(micros / 10), digit(micros)];
    out.extend_from_slice(&decimals);
}

fn digit(value: u64) -> u8 {
    b"0123456789"[(value % 10) as usize]
}

/// An IPv4 address that came as IPv6 is written as IPv4.
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(octet));
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json as value};

    use super::*;
    use crate::observe::UpstreamFailure;
    use std::sync::Arc;

    use crate::observe::metrics::{Shown, UpstreamMetrics};
    use crate::observe::record::Protocol;

    fn names() -> Names {
        Names {
            listeners: vec!["https".to_owned(), "[::1]:80".to_owned()],
            routes: vec!["catalog".to_owned()],
            upstreams: vec!["app".to_owned()],
        }
    }

    fn endpoints() -> Vec<String> {
        ["10.0.0.11:8080", "10.0.0.12:8080"]
            .map(str::to_owned)
            .into()
    }

    fn record() -> Record {
        let mut record = Record::new(
            crate::clock::now(),
            UNIX_EPOCH + Duration::from_millis(1_782_907_200_042),
            7,
            0,
            IpAddr::from([192, 0, 2, 1]),
        );
        record.endpoints = Some(Arc::new(Shown::of(
            &UpstreamMetrics::new(0).endpoints(endpoints()),
        )));
        record.status = 200;
        record.bytes_out = 1024;
        record.duration = Duration::from_micros(1_250);
        record
    }

    fn text() -> Text<'static> {
        Text {
            method: b"GET",
            host: b"shop.example",
            target: b"/catalog?page=2",
            user_agent: b"curl/8.0",
            referer: b"https://shop.example/",
        }
    }

    fn line(record: &Record, text: Text<'_>) -> String {
        let mut out = Vec::new();
        json(&mut out, &mut Dates::default(), record, text, &names());
        String::from_utf8(out).expect("a line is UTF-8")
    }

    fn parsed(record: &Record, text: Text<'_>) -> Value {
        let line = line(record, text);
        assert_eq!(line.matches('\n').count(), 1, "one line: {line}");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))
    }

    fn combined_line(record: &Record, text: Text<'_>) -> String {
        let mut out = Vec::new();
        combined(&mut out, &mut Dates::default(), record, text);
        String::from_utf8(out).expect("a line is ASCII")
    }

    #[test]
    fn a_proxied_request_tells_its_whole_way_in_json() {
        let mut record = record();
        record.route = Some(0);
        record.protocol = Protocol::Http2;
        record.tls = Some("TLSv1.3");
        record.bytes_in = 5;
        record.upstream = Some(0);
        record.attempts.begin(0);
        record.attempts.failed(UpstreamFailure::ConnectTimeout);
        record.attempts.begin(1);
        record.attempts.answered(200);
        record.connect = Some(Duration::from_micros(310));
        record.first_byte = Some(Duration::from_millis(12));
        record.cache = CacheResult::Miss;
        record.why = Some("retried");
        assert_eq!(
            parsed(&record, text()),
            value!({
                "ts": "2026-07-01T12:00:00.042Z",
                "request_id": "00000000000000000000000000000007",
                "listener": "https", "route": "catalog", "client": "192.0.2.1",
                "method": "GET", "host": "shop.example", "target": "/catalog?page=2",
                "protocol": "HTTP/2.0", "tls": "TLSv1.3",
                "status": 200, "bytes_in": 5, "bytes_out": 1024, "duration_ms": 1.25,
                "upstream": "app", "endpoint": "10.0.0.12:8080",
                "attempts": [
                    { "endpoint": "10.0.0.11:8080", "failure": "connect_timeout" },
                    { "endpoint": "10.0.0.12:8080", "status": 200 },
                ],
                "upstream_connect_ms": 0.31, "upstream_first_byte_ms": 12.0,
                "cache": "miss", "why": "retried",
                "user_agent": "curl/8.0", "referer": "https://shop.example/",
            })
        );
    }

    #[test]
    fn what_does_not_apply_is_left_out_of_json() {
        assert_eq!(
            line(&record(), Text::default()),
            "{\"ts\":\"2026-07-01T12:00:00.042Z\",\
             \"request_id\":\"00000000000000000000000000000007\",\
             \"listener\":\"https\",\"client\":\"192.0.2.1\",\"protocol\":\"HTTP/1.1\",\
             \"status\":200,\"bytes_in\":0,\"bytes_out\":1024,\"duration_ms\":1.250}\n"
        );
    }

    #[test]
    fn an_upstream_without_a_usable_endpoint_is_named_without_one() {
        let mut record = record();
        record.status = 503;
        record.upstream = Some(0);
        record.why = Some("no_endpoint");
        let line = parsed(&record, text());
        assert_eq!(line["upstream"], "app");
        assert_eq!(line.get("endpoint"), None);
        assert_eq!(line.get("attempts"), None);
    }

    #[test]
    fn indexes_that_are_not_of_this_configuration_do_no_harm() {
        let mut record = record();
        record.listener = 900;
        record.route = Some(900);
        record.upstream = Some(900);
        record.attempts.begin(900);
        let line = parsed(&record, text());
        assert_eq!(line["listener"], "");
        assert_eq!(line.get("upstream"), None);
    }

    #[test]
    fn a_combined_line_is_what_log_analysers_know() {
        assert_eq!(
            combined_line(&record(), text()),
            "192.0.2.1 - - [01/Jul/2026:12:00:00 +0000] \"GET /catalog?page=2 HTTP/1.1\" 200 1024 \
             \"https://shop.example/\" \"curl/8.0\"\n"
        );
        assert_eq!(
            combined_line(&record(), Text::default()),
            "192.0.2.1 - - [01/Jul/2026:12:00:00 +0000] \"-\" 200 1024 \"-\" \"-\"\n"
        );
    }

    #[test]
    fn a_client_cannot_forge_a_line_or_a_field() {
        let forged = Text {
            method: b"GET",
            target: b"/\" 200 1 \"-\" \"x\"\r\n192.0.2.9 - - [01/Jul/2026:12:00:00 +0000] \"GET /",
            host: b"a\",\"client\":\"192.0.2.9",
            user_agent: b"x\\\",\"status\":500}\n{\"ts\":\"",
            referer: b"\x1b]0;owned\x07\xff",
        };
        let line = combined_line(&record(), forged);
        assert_eq!(
            line.matches('"').count(),
            6,
            "three quoted fields only: {line}"
        );
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let line = parsed(&record(), forged);
        assert_eq!(line["client"], "192.0.2.1");
        assert_eq!(line["status"], 200);
        assert_eq!(line["host"], "a\",\"client\":\"192.0.2.9");
        assert_eq!(line["referer"], "\u{1b}]0;owned\u{7}\u{fffd}");
    }

    #[test]
    fn an_endless_field_is_cut_and_the_line_says_so() {
        let long = vec![b'a'; MAX_FIELD + 1];
        let cut = Text {
            target: &long,
            ..text()
        };
        let line = parsed(&record(), cut);
        assert_eq!(line["target"].as_str().map(str::len), Some(MAX_FIELD));
        assert_eq!(line["cut"], true);
        let whole = Text {
            target: &long[1..],
            ..text()
        };
        assert_eq!(parsed(&record(), whole).get("cut"), None);
    }

    #[test]
    fn addresses_are_written_in_their_canonical_form() {
        let mut record = record();
        for (address, written) in [
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            record.client = address.parse().expect("an address");
            assert_eq!(parsed(&record, text())["client"], written);
        }
    }
}
