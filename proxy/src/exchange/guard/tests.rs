//! Heads that must pass, heads that must not, and what holds for all of them.

use http::HeaderName;
use proptest::prelude::*;

use super::{Framing, HeadFacts, Inspect, MethodKind, Reject, Upgrade, Version, inspect};
use crate::exchange::onward::CLIENT_CERT;

const MAX: usize = 32 * 1024;

#[track_caller]
fn accepted(head: &str) -> HeadFacts {
    match inspect(head.as_bytes(), MAX) {
        Inspect::Head(facts) => facts,
        other => panic!("{head:?} must pass, but: {other:?}"),
    }
}

#[track_caller]
fn refused(head: impl AsRef<[u8]>, reject: Reject) {
    let head = head.as_ref();
    let shown = String::from_utf8_lossy(head);
    assert_eq!(inspect(head, MAX), Inspect::Reject(reject), "{shown:?}");
}

/// A request whose fields, Host apart, are `fields`.
fn with(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn an_ordinary_request_passes() {
    let head = "GET /catalog?page=2 HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\n\r\nrest";
    assert_eq!(
        accepted(head),
        HeadFacts {
            head_len: head.len() - 4,
            fields: 2,
            version: Version::Http11,
            method: MethodKind::Get,
            body: Framing::None,
            upgrade: Upgrade::None,
            expect_continue: false,
            keep_alive: true,
            claims_certificate: false,
        }
    );
}

#[test]
fn target_forms_that_a_server_may_meet_pass() {
    for line in [
        "GET / HTTP/1.1",
        "GET /a/%7e/b;c=d?e=f|g HTTP/1.1",
        "GET /a?b=c\\d?`^{}[] HTTP/1.1",
        "GET /[a]{b}|^ HTTP/1.1",
        "GET //a HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://a HTTP/1.1",
        "GET http://A:80/b HTTP/1.1",
        "GET HTTP://a?b HTTP/1.1",
        "M-SEARCH /x HTTP/1.0",
    ] {
        accepted(&format!("{line}\r\nHost: a\r\n\r\n"));
    }
    accepted("GET https://a:443/ HTTP/1.1\r\nHost: A\r\n\r\n");
}

#[test]
fn one_empty_line_before_the_request_is_skipped_and_two_are_not() {
    assert_eq!(
        accepted("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").head_len,
        29
    );
    refused(
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Reject::EmptyLine,
    );
    refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Reject::BareLf);
    refused("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Reject::BareCr);
}

#[test]
fn malformed_request_lines_are_refused() {
    let line = |line: &str, reject| refused(format!("{line}\r\nHost: a\r\n\r\n"), reject);
    line("", Reject::BadMethod); // skipped, and "Host: a" is then the request line
    line("GET", Reject::BadMethod);
    line(" GET / HTTP/1.1", Reject::BadMethod);
    line("G(T / HTTP/1.1", Reject::BadMethod);
    line("G\0T / HTTP/1.1", Reject::BadMethod);
    line(&format!("{} / HTTP/1.1", "A".repeat(33)), Reject::BadMethod);
    accepted(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(32)));
    line("CONNECT a:443 HTTP/1.1", Reject::ConnectMethod);
    line("GET  / HTTP/1.1", Reject::BadTarget);
    line("GET\t/ HTTP/1.1", Reject::BadMethod);
    line("GET /", Reject::BadTarget);
    line("GET /  HTTP/1.1", Reject::BadVersion);
    line("GET /a b HTTP/1.1", Reject::BadVersion);
    line("GET / HTTP/1.1 ", Reject::BadVersion);
    line("GET / http/1.1", Reject::BadVersion);
    line("GET / HTTP/11", Reject::BadVersion);
    line("GET / HTTP/1.10", Reject::BadVersion);
    line("GET / HTTP/0.9", Reject::UnsupportedVersion);
    line("GET / HTTP/1.2", Reject::UnsupportedVersion);
    line("GET / HTTP/2.0", Reject::UnsupportedVersion);
    line("GET / HTTP/3.0", Reject::UnsupportedVersion);
}

#[test]
fn malformed_targets_are_refused() {
    let target = |target: &str, reject| {
        refused(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), reject);
    };
    for bad in [
        "a",
        "*",
        "a:443",
        "?a",
        "/a#b",
        "/a\"",
        "/<a>",
        "/a\\b",
        "/`",
        "/a\u{7f}",
        "/\0",
        "/ä",
        "/?a#b",
        "/?\"",
        "/?<",
        "/?ä",
        "/?\t",
        "ftp://a/",
        "http:/a",
        "//\u{1}",
        "file:///a",
    ] {
        target(bad, Reject::BadTarget);
    }
    for bad in [
        "http://",
        "http:///a",
        "http://u@a/",
        "http://a:x/",
        "http://a..b/",
    ] {
        target(bad, Reject::BadHost);
    }
    for other in ["http://b/", "http://a:81/", "https://a:80/", "http://a.b/"] {
        target(other, Reject::HostMismatch);
    }
    refused("POST * HTTP/1.1\r\nHost: a\r\n\r\n", Reject::BadTarget);
}

#[test]
fn line_ends_are_cr_lf_and_nothing_else() {
    for head in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET /\nHost: a\r\n\r\n",
        "GET\n/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n",
    ] {
        refused(head, Reject::BareLf);
    }
    for head in [
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET /\ra HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\rET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHo\rst: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    ] {
        refused(head, Reject::BareCr);
    }
}

#[test]
fn malformed_field_lines_are_refused() {
    refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Reject::ObsFold);
    refused(with("X: a\r\n b\r\n"), Reject::ObsFold);
    refused(with("X: a\r\n\tb\r\n"), Reject::ObsFold);
    refused(with("X : a\r\n"), Reject::SpaceBeforeColon);
    refused(with("X\t: a\r\n"), Reject::SpaceBeforeColon);
    refused(with("X Y: a\r\n"), Reject::SpaceBeforeColon);
    refused(with(": a\r\n"), Reject::BadFieldName);
    refused(with("X\r\n"), Reject::BadFieldName);
    refused(with("X(: a\r\n"), Reject::BadFieldName);
    refused(with("X\0: a\r\n"), Reject::BadFieldName);
    refused(with("Ä: a\r\n"), Reject::BadFieldName);
    for control in ["\0", "\u{1}", "\u{8}", "\u{b}", "\u{c}", "\u{1b}", "\u{7f}"] {
        refused(
            with(&format!("X: a{control}b\r\n")),
            Reject::ControlCharacter,
        );
    }
    accepted(&with("X: a\tb\r\nY:\r\nZ: \t \r\nW:ä\u{80}\r\n"));
}

#[test]
fn a_head_is_bounded_in_size_and_number_of_fields() {
    let head = with("X: y\r\n");
    let exact = inspect(head.as_bytes(), head.len());
    assert!(
        matches!(exact, Inspect::Head(_)),
        "a head of just the limit passes"
    );
    let less = inspect(head.as_bytes(), head.len() - 1);
    assert_eq!(less, Inspect::Reject(Reject::HeadTooLarge));
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100));
    assert_eq!(
        inspect(long.as_bytes(), 64),
        Inspect::Reject(Reject::TargetTooLong)
    );
    assert_eq!(inspect(b"", 0), Inspect::Reject(Reject::HeadTooLarge));
    accepted(&with(&"X: y\r\n".repeat(127)));
    refused(with(&"X: y\r\n".repeat(128)), Reject::TooManyFields);
}

#[test]
fn every_request_names_exactly_one_host() {
    refused("GET / HTTP/1.1\r\n\r\n", Reject::MissingHost);
    refused("GET / HTTP/1.0\r\n\r\n", Reject::MissingHost);
    refused("GET http://a/ HTTP/1.1\r\n\r\n", Reject::MissingHost);
    refused(with("Host: a\r\n"), Reject::RepeatedHost);
    refused(with("hOsT: b\r\n"), Reject::RepeatedHost);
    for value in ["", "a, b", "a b", "a:b", "u@a", "[::1", "a/b", "a:80:80"] {
        refused(
            format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n"),
            Reject::BadHost,
        );
    }
}

#[test]
fn a_content_length_is_one_decimal_number() {
    let body = |fields: &str| accepted(&with(fields)).body;
    assert_eq!(body("Content-Length: 5\r\n"), Framing::Length(5));
    assert_eq!(body("content-length:0\r\n"), Framing::Length(0));
    assert_eq!(
        body("Content-Length: 9223372036854775807\r\n"),
        Framing::Length(i64::MAX as u64)
    );
    for value in [
        "",
        "+5",
        "-0",
        "-1",
        "5,5",
        "5, 5",
        "0x5",
        "5 5",
        "5.0",
        "1e3",
        "٥",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999999",
    ] {
        refused(
            with(&format!("Content-Length: {value}\r\n")),
            Reject::BadContentLength,
        );
    }
    let same = "Content-Length: 5\r\nContent-Length: 5\r\n";
    refused(with(same), Reject::RepeatedContentLength);
    let differing = "Content-Length: 5\r\nX: y\r\nContent-Length: 6\r\n";
    refused(with(differing), Reject::RepeatedContentLength);
}

#[test]
fn what_speaks_of_a_certificate_is_known_in_any_case() {
    for name in CLIENT_CERT.iter().map(HeaderName::as_str) {
        for name in [name.to_owned(), name.to_ascii_uppercase()] {
            let said = accepted(&with(&format!("{name}: x\r\n")));
            assert!(said.claims_certificate, "{name}");
        }
        let other = accepted(&with(&format!("{}-: x\r\n", &name[1..])));
        assert!(!other.claims_certificate, "{name}");
    }
}

#[test]
fn nobody_shows_two_sets_of_credentials() {
    accepted(&with("Authorization: Bearer a\r\nX-Authorized: b\r\n"));
    refused(
        with("Authorization: Bearer a\r\nX: y\r\naUTHORIZATION: Bearer a\r\n"),
        Reject::RepeatedAuthorization,
    );
}

#[test]
fn a_transfer_encoding_is_chunked_or_refused() {
    let coding = |value: &str| with(&format!("Transfer-Encoding: {value}\r\n"));
    assert_eq!(accepted(&coding("chunked")).body, Framing::Chunked);
    assert_eq!(accepted(&coding("Chunked")).body, Framing::Chunked);
    for value in [
        "gzip",
        "identity",
        "xchunked",
        "gzip, chunked",
        "x;q=1, chunked",
    ] {
        refused(coding(value), Reject::UnknownTransferEncoding);
    }
    for value in [
        "",
        ",",
        "chunked,",
        ",chunked",
        "chunked, chunked",
        "chunked, gzip",
        "chunked;a=b",
        "\"chunked\"",
        "chunked gzip",
        "gzip, , chunked",
    ] {
        refused(coding(value), Reject::BadTransferEncoding);
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    refused(with(twice), Reject::BadTransferEncoding);
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(old, Reject::TransferEncodingInHttp10);
}

#[test]
fn both_framings_are_refused_in_either_order() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let length = "Content-Length: 5\r\n";
    refused(
        with(&format!("{chunked}{length}")),
        Reject::ConflictingFraming,
    );
    refused(
        with(&format!("{length}{chunked}")),
        Reject::ConflictingFraming,
    );
}

#[test]
fn connection_options_are_told() {
    let facts = |version: &str, fields: &str| {
        accepted(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"))
    };
    assert!(!facts("1.1", "Connection: close\r\n").keep_alive);
    assert!(
        !facts("1.1", "Connection: keep-alive, Close\r\n").keep_alive,
        "close wins"
    );
    assert!(!facts("1.0", "").keep_alive);
    assert!(facts("1.0", "Connection: x, keep-alive\r\n").keep_alive);
    let websocket = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(facts("1.1", websocket).upgrade, Upgrade::WebSocket);
    assert_eq!(
        facts("1.0", websocket).upgrade,
        Upgrade::None,
        "RFC 9110 section 7.8"
    );
    assert_eq!(
        facts("1.1", "Upgrade: websocket\r\n").upgrade,
        Upgrade::None
    );
    assert_eq!(
        facts("1.1", "Connection: upgrade\r\n").upgrade,
        Upgrade::None
    );
    let h2c = "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n";
    assert_eq!(facts("1.1", h2c).upgrade, Upgrade::Other);
}

#[test]
fn only_one_expectation_is_known() {
    assert!(accepted(&with("Expect: 100-Continue\r\n")).expect_continue);
    refused(with("Expect: 200-ok\r\n"), Reject::UnknownExpectation);
    let old = "POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n";
    assert!(!accepted(old).expect_continue, "RFC 9110 section 10.1.1");
}

#[test]
fn what_is_no_http_is_refused_at_its_first_octet() {
    refused([0x16, 3, 1], Reject::BadMethod);
    refused([0x80, 0x2e], Reject::BadMethod);
    refused("{\"jsonrpc\":", Reject::BadMethod);
}

/// A head made of fragments, right ones and wrong ones.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        6 => Just(&b"\r\n"[..]),
        2 => Just(&b"GET / HTTP/1.1\r\nHost: a\r\n"[..]),
        1 => Just(&b"POST /a?b HTTP/1.0\r\n"[..]),
        1 => Just(&b"OPTIONS * HTTP/1.1\r\n"[..]),
        1 => Just(&b"GET http://a:80/ HTTP/1.1\r\n"[..]),
        2 => Just(&b"Host: a\r\n"[..]),
        1 => Just(&b"Content-Length: 5\r\n"[..]),
        1 => Just(&b"Transfer-Encoding: chunked\r\n"[..]),
        1 => Just(&b"Connection: keep-alive, upgrade\r\n"[..]),
        1 => Just(&b"Connection: close\r\n"[..]),
        1 => Just(&b"Upgrade: websocket\r\n"[..]),
        1 => Just(&b"Expect: 100-continue\r\n"[..]),
        2 => Just(&b"X-Y:\tz \xe4 \r\n"[..]),
        1 => Just(&b"\r"[..]),
        1 => Just(&b"\n"[..]),
        1 => Just(&b" "[..]),
        1 => Just(&b"\0"[..]),
        1 => Just(&b":"[..]),
        1 => Just(&b"HTTP/1.1"[..]),
    ];
    proptest::collection::vec(fragment, 0..10).prop_map(|parts| parts.concat())
}

/// A head that is near to right: only few fields are odd.
fn near() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("GET / HTTP/1.1"),
        Just("HEAD /a?b HTTP/1.0"),
        Just("POST http://a/ HTTP/1.1"),
    ];
    let field = prop_oneof![
        Just("Content-Length: 5"),
        Just("Transfer-Encoding: chunked"),
        Just("Connection: close"),
        Just("connection: x, keep-alive"),
        Just("X:y"),
        Just("Expect: 100-continue"),
        Just("Upgrade: websocket"),
    ];
    (line, proptest::collection::vec(field, 0..5), "[ -~]{0,8}").prop_map(|(line, fields, rest)| {
        format!("{line}\r\nHost: a\r\n{}\r\n\r\n{rest}", fields.join("\r\n"))
            .replace("\r\n\r\n\r\n", "\r\n\r\n")
            .into_bytes()
    })
}

/// What httparse, by which Pingora reads, makes of the same octets.
fn agrees_with_httparse(bytes: &[u8], facts: &HeadFacts) -> Result<(), TestCaseError> {
    let mut fields = [httparse::EMPTY_HEADER; super::MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request
        .parse(bytes)
        .map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(parsed, httparse::Status::Complete(facts.head_len));
    prop_assert_eq!(request.version == Some(1), facts.version == Version::Http11);
    prop_assert_eq!(
        request.method == Some("HEAD"),
        facts.method == MethodKind::Head
    );
    prop_assert_eq!(
        request.method == Some("GET"),
        facts.method == MethodKind::Get
    );
    let values = |name: &str| -> Vec<&[u8]> {
        let named = request
            .headers
            .iter()
            .filter(|h| h.name.eq_ignore_ascii_case(name));
        named.map(|h| h.value).collect()
    };
    prop_assert_eq!(values("host").len(), 1);
    let framing = match (
        &values("content-length")[..],
        &values("transfer-encoding")[..],
    ) {
        ([], []) => Framing::None,
        ([length], []) => Framing::Length(std::str::from_utf8(length).unwrap().parse().unwrap()),
        ([], [_]) => Framing::Chunked,
        both => return Err(TestCaseError::fail(format!("{both:?} passed"))),
    };
    prop_assert_eq!(framing, facts.body);
    let options = values("connection").join(&b',').to_ascii_lowercase();
    let has = |option: &[u8]| {
        options
            .split(|b| *b == b',')
            .any(|o| o.trim_ascii() == option)
    };
    let keep = !has(b"close") && (facts.version == Version::Http11 || has(b"keep-alive"));
    prop_assert_eq!(keep, facts.keep_alive);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_octets_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), max in 0_usize..300) {
        let _ = inspect(&bytes, max);
    }

    #[test]
    fn every_prefix_is_partial_or_has_the_answer_of_the_whole(
        bytes in prop_oneof![soup(), near()],
        max in prop_oneof![Just(MAX), 0_usize..120],
    ) {
        let whole = inspect(&bytes, max);
        for cut in 0..bytes.len() {
            let part = inspect(&bytes[..cut], max);
            prop_assert!(
                part == Inspect::Partial || part == whole,
                "{:?} cut at {cut}: {part:?}, whole: {whole:?}", String::from_utf8_lossy(&bytes),
            );
        }
    }

    #[test]
    fn an_accepted_head_reads_the_same_in_httparse(bytes in prop_oneof![soup(), near()]) {
        if let Inspect::Head(facts) = inspect(&bytes, MAX) {
            agrees_with_httparse(&bytes, &facts)?;
        }
    }

    #[test]
    fn an_accepted_target_is_a_uri(target in "[!-~]{0,12}") {
        let head = format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n");
        if let Inspect::Head(_) = inspect(head.as_bytes(), MAX) {
            prop_assert!(format!("/{target}").parse::<http::Uri>().is_ok(), "{target}");
        }
    }
}
