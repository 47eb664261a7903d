//! Codings and languages: what the client gets compressed, from what it is made, and how few
//! different requests the origin sees.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::cache::{cached, cached_in};
use crate::cache_purge::purge;
use crate::support::client::HOST;
use crate::support::h2::H2;
use crate::support::tools::{run, tool};
use crate::support::{Answer, Ask, Edge, Origin, Reply, Setup, wait};

const ALL: &str = "{ compress = [\"br\", \"zstd\", \"gzip\"] }";
const CODINGS: [&str; 3] = ["br", "zstd", "gzip"];

fn text() -> Vec<u8> {
    let line = |n: usize| format!("<li><a href=\"/p/{n}\">Product number {n}</a></li>\n");
    (0..500).map(line).collect::<String>().into_bytes()
}

/// A page that pays to compress, with an entity tag.
fn page() -> Origin {
    Origin::start(|seen| {
        let answer = match seen.field("if-none-match") {
            Some("\"v1\"") => Answer::new(304, ""),
            _ => Answer::ok(text()),
        };
        let control = match seen.target.as_str() {
            "/checked" => "no-cache",
            _ => "max-age=600",
        };
        answer
            .field("Cache-Control", control)
            .field("Content-Type", "text/html; charset=utf-8")
            .field("ETag", "\"v1\"")
            .field("Accept-Ranges", "bytes")
    })
}

fn accepting(target: &str, codings: &str) -> Ask {
    Ask::get(target).field("Accept-Encoding", codings)
}

/// Asks until it comes in this coding, which is soon after it was asked for a second time.
#[track_caller]
fn await_coding(edge: &Edge, target: &str, coding: &str) -> Reply {
    wait::until(&format!("{target} in {coding}"), wait::SOON, || {
        let reply = edge.ask(&accepting(target, coding)).expect(200);
        (reply.field("content-encoding") == Some(coding)).then_some(reply)
    })
}

/// Runs a program on these bytes.
#[track_caller]
fn piped(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start it");
    let mut stdin = child.stdin.take().expect("its input");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).expect("write to it"));
        child.wait_with_output().expect("its output")
    });
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn a_page_comes_compressed_soon_and_is_the_same_page() {
    let origin = page();
    let edge = cached(&origin, ALL);
    let mut tags = Vec::new();
    for coding in CODINGS {
        let reply = await_coding(&edge, "/a", coding);
        assert!(reply.is_hit(), "{reply:?}");
        assert!(reply.body.len() < text().len() / 2, "{coding}");
        let length = reply.body.len().to_string();
        assert_eq!(reply.field("content-length"), Some(length.as_str()));
        assert_eq!(reply.field("vary"), Some("accept-encoding"), "{reply:?}");
        tags.push(reply.field("etag").expect("a tag").to_owned());
    }
    let plain = edge.get("/a").expect(200);
    assert!(plain.is_hit() && plain.body == text());
    assert_eq!(plain.field("content-encoding"), None);
    assert_eq!(plain.field("etag"), Some("\"v1\""));
    tags.push("\"v1\"".to_owned());
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "each representation has a tag of its own");
    assert_eq!(
        origin.count(),
        1,
        "one fetch, however often it is compressed"
    );
    assert_eq!(origin.last().field("accept-encoding"), None);
}

#[test]
fn gzip_is_what_zlib_unpacks() {
    let python = tool!("python3", "python3");
    let origin = page();
    let edge = cached(&origin, ALL);
    let reply = await_coding(&edge, "/a", "gzip");
    let program = "import sys, zlib; \
        sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read(), 31))";
    let unpacked = piped(Command::new(python).arg("-c").arg(program), &reply.body);
    assert!(unpacked == text());
}

#[test]
fn zstd_is_what_zstd_unpacks() {
    let zstd = tool!("zstd", "zstd");
    let origin = page();
    let edge = cached(&origin, ALL);
    let reply = await_coding(&edge, "/a", "zstd");
    assert!(piped(Command::new(zstd).arg("-dc"), &reply.body) == text());
}

/// Each coding that the installed curl can read, over HTTP/1.1 and HTTP/2.
#[test]
fn curl_reads_every_coding() {
    let curl = tool!("curl", "curl");
    let about = run(Command::new(&curl).arg("--version"), wait::SOON).stdout;
    let features: Vec<&str> = about.split_whitespace().collect();
    let origin = page();
    let edge = cached(&origin, ALL);
    for (coding, feature, package) in [
        ("br", "brotli", "curl with brotli"),
        ("zstd", "zstd", "curl with zstd"),
        ("gzip", "libz", "curl with zlib"),
    ] {
        if !features.contains(&feature) {
            let required = std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_some();
            assert!(!required, "this test needs {package}");
            let _ = writeln!(std::io::stderr(), "SKIPPED {coding}: needs {package}");
            continue;
        }
        await_coding(&edge, "/a", coding);
        for version in ["--http1.1", "--http2"] {
            let body = edge.folder().join("body");
            let head = edge.folder().join("head");
            let url = match version {
                "--http2" => format!("https://shop.test:{}/a", edge.https().port()),
                _ => format!("http://shop.test:{}/a", edge.http().port()),
            };
            // Of another scheme or port it is another page, fetched and compressed on its own.
            let unpacked = wait::try_until(wait::SOON, || {
                let mut command = Command::new(&curl);
                command
                    .args(["-sS", "-k", version, "--compressed", "--noproxy", "*"])
                    .args([
                        "--resolve",
                        &format!("shop.test:{}:127.0.0.1", edge.http().port()),
                    ])
                    .args([
                        "--resolve",
                        &format!("shop.test:{}:127.0.0.1", edge.https().port()),
                    ])
                    .args(["-H", &format!("Accept-Encoding: {coding}")])
                    .arg("-D")
                    .arg(&head)
                    .arg("-o")
                    .arg(&body)
                    .arg(url.clone());
                let done = run(&mut command, wait::SOON);
                assert_eq!(done.code, Some(0), "{done:?}");
                let head = std::fs::read_to_string(&head)
                    .expect("the head")
                    .to_lowercase();
                head.contains(&format!("content-encoding: {coding}"))
                    .then(|| std::fs::read(&body).expect("the body"))
            });
            assert!(unpacked == Some(text()), "{coding} {version}");
        }
    }
}

#[test]
fn weights_and_the_operators_order_choose_the_coding() {
    let origin = page();
    let edge = cached(&origin, ALL);
    for coding in CODINGS {
        await_coding(&edge, "/a", coding);
    }
    for (accepted, expected) in [
        ("gzip, deflate, br, zstd", Some("br")),
        ("gzip, zstd", Some("zstd")),
        ("br;q=0.5, gzip;q=0.9", Some("gzip")),
        ("br;q=0, zstd;q=0, *", Some("gzip")),
        ("*", Some("br")),
        ("*;q=0", None),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", Some("gzip")),
        ("x-gzip", Some("gzip")),
        ("GZIP;Q=1.0", Some("gzip")),
        ("deflate", None),
        ("", None),
        ("br;q=0", None),
    ] {
        let reply = edge.ask(&accepting("/a", accepted)).expect(200);
        assert_eq!(reply.field("content-encoding"), expected, "{accepted:?}");
        assert_eq!(reply.field("vary"), Some("accept-encoding"), "{accepted:?}");
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn each_representation_answers_its_own_condition_head_and_no_range() {
    let origin = page();
    let edge = cached(&origin, ALL);
    let mut h2 = H2::tls(edge.https(), HOST);
    for coding in CODINGS {
        let whole = await_coding(&edge, "/a", coding);
        let tag = whole.field("etag").expect("a tag").to_owned();
        let same = accepting("/a", coding).field("If-None-Match", &tag);
        let reply = edge.ask(&same).expect(304);
        assert_eq!(reply.field("etag"), Some(tag.as_str()));
        assert_eq!(reply.field("vary"), Some("accept-encoding"), "{reply:?}");
        let other = accepting("/a", coding).field("If-None-Match", "\"v1\"");
        edge.ask(&other).expect(200);
        let bare = Ask::get("/a").field("If-None-Match", &tag);
        edge.ask(&bare).expect(200);

        let head = Ask::head("/a").field("Accept-Encoding", coding);
        let reply = edge.ask(&head).expect(200);
        assert_eq!(reply.field("content-encoding"), Some(coding));
        let length = whole.body.len().to_string();
        assert_eq!(
            reply.field("content-length"),
            Some(length.as_str()),
            "{coding}"
        );

        let part = accepting("/a", coding).field("Range", "bytes=10-19");
        for reply in [
            edge.ask(&part),
            edge.ask(&part.clone().field("If-Range", "\"v1\"")),
        ] {
            assert_eq!(reply.status, 206, "{reply:?}");
            assert_eq!(reply.field("content-encoding"), None, "{coding}");
            assert!(reply.body == text()[10..20], "{coding}");
            let whole = format!("bytes 10-19/{}", text().len());
            assert_eq!(reply.field("content-range"), Some(whole.as_str()));
        }
        let changed = edge.ask(&part.field("If-Range", &tag)).expect(200);
        assert!(changed.body == text(), "{coding}");

        wait::eventually("the same over HTTP/2", wait::SOON, || {
            let reply = h2.ask(&accepting("/a", coding)).expect(200);
            reply.field("content-encoding") == Some(coding)
        });
    }
    edge.ask(&Ask::get("/a").field("If-None-Match", "\"v1\""))
        .expect(304);
}

#[test]
fn what_does_not_pay_or_must_not_change_stays_as_it_is() {
    let origin = Origin::start(|seen| {
        let (kind, body) = match seen.target.as_str() {
            "/small" => ("text/plain", vec![b'x'; 255]),
            "/photo" => ("image/jpeg", vec![b'x'; 5000]),
            "/noise" => ("text/plain", noise(5000)),
            _ => ("text/html", text()),
        };
        let answer = Answer::ok(body).field("Content-Type", kind);
        let control = match seen.target.as_str() {
            "/transform" => "max-age=600, no-transform",
            _ => "max-age=600",
        };
        let answer = answer.field("Cache-Control", control);
        match seen.target.as_str() {
            "/packed" => answer.field("Content-Encoding", "gzip"),
            "/signed" => answer.field("Signature", "sig1=:YQ==:"),
            _ => answer,
        }
    });
    let edge = cached(&origin, ALL);
    for target in [
        "/small",
        "/photo",
        "/noise",
        "/transform",
        "/packed",
        "/signed",
    ] {
        let first = edge.ask(&accepting(target, "br, gzip")).expect(200);
        for _ in 0..5 {
            let reply = edge.ask(&accepting(target, "br, gzip")).expect(200);
            assert!(reply.is_hit() && reply.body == first.body, "{target}");
            assert_eq!(
                reply.field("content-encoding"),
                first.field("content-encoding"),
                "{target}"
            );
        }
        wait::always("no coding", wait::millis(100), || {
            let coding = edge.ask(&accepting(target, "br")).expect(200);
            coding.field("content-encoding") != Some("br")
        });
    }
    // What compresses on the way shows that the edge would have.
    await_coding(&edge, "/page", "br");
}

/// Bytes without a pattern, the same each time.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn a_renewal_keeps_what_was_compressed_and_a_new_page_does_not() {
    let origin = page();
    let edge = cached(&origin, "{ compress = [\"gzip\"] }");
    edge.get("/a").expect(200);
    let packed = await_coding(&edge, "/a", "gzip");
    purge(&edge, "soft=true&all=true");
    let renewed = edge.ask(&accepting("/a", "gzip")).expect(200);
    assert!(
        renewed.cache_status().contains("fwd-status=304"),
        "{renewed:?}"
    );
    let after = edge.ask(&accepting("/a", "gzip")).expect(200);
    assert!(after.is_hit(), "{after:?}");
    assert_eq!(after.field("content-encoding"), Some("gzip"), "made anew");
    assert!(after.body == packed.body);
    assert_eq!(after.field("vary"), Some("accept-encoding"));

    let origin = Origin::start(|seen| {
        let body = format!("version {} ", seen.nth).repeat(200);
        Answer::fresh(600, body).field("Content-Type", "text/plain")
    });
    let edge = cached(&origin, "{ compress = [\"gzip\"] }");
    let old = await_coding(&edge, "/a", "gzip");
    purge(&edge, "soft=true&all=true");
    let fresh = edge.ask(&accepting("/a", "gzip")).expect(200);
    assert!(fresh.text().starts_with("version 1"), "{fresh:?}");
    let new = await_coding(&edge, "/a", "gzip");
    assert!(new.body != old.body, "the old page came back compressed");
}

/// The memory that the compressed ones take is counted.
#[test]
fn compressed_representations_count_against_the_memory() {
    let origin = Origin::start(|_| Answer::fresh(600, text()).field("Content-Type", "text/html"));
    let edge = cached(&origin, ALL);
    edge.get("/a").expect(200);
    let bytes = || {
        edge.json("/cache")["memory"]["bytes"]
            .as_u64()
            .expect("bytes")
    };
    wait::eventually("the page to be counted", wait::SOON, || bytes() > 20_000);
    let before = bytes();
    let packed = await_coding(&edge, "/a", "gzip").body.len() as u64;
    wait::eventually("the coding to be counted", wait::SOON, || {
        bytes() >= before + packed
    });
}

#[test]
fn vary_says_accept_encoding_from_the_first_reply_on() {
    let origin = Origin::start(|seen| {
        let answer = Answer::fresh(600, text()).field("Content-Type", "text/html");
        match seen.target.as_str() {
            "/language" => answer.field("Vary", "Accept-Language"),
            "/both" => answer.field("Vary", "Accept-Encoding, Accept-Language"),
            _ => answer,
        }
    });
    let edge = cached(&origin, ALL);
    for target in ["/a", "/language", "/both"] {
        for round in 0..3 {
            let reply = edge.ask(&accepting(target, "gzip")).expect(200);
            let vary = reply.all("vary").join(", ").to_ascii_lowercase();
            let named = vary
                .split(',')
                .filter(|one| one.trim() == "accept-encoding");
            assert_eq!(named.count(), 1, "{target} {round}: {vary}");
            assert_eq!(
                vary.contains("accept-language"),
                target != "/a",
                "{target}: {vary}"
            );
        }
    }
    for seen in origin.seen() {
        assert_eq!(seen.field("accept-encoding"), None, "{}", seen.raw);
    }
    assert_eq!(origin.count(), 3);
}

/// Which values the origin saw, and how many of the requests were hits.
fn normalised(cache: &str, name: &str, values: &[&str]) -> (Vec<Option<String>>, usize) {
    let field = name.to_owned();
    let origin = Origin::start(move |seen| {
        Answer::fresh(600, seen.field(&field).unwrap_or("none")).field("Vary", &field)
    });
    let edge = cached(&origin, cache);
    let mut hits = 0;
    for value in values {
        let reply = edge.ask(&Ask::get("/a").field(name, value)).expect(200);
        hits += usize::from(reply.is_hit());
    }
    let seen = origin.seen().into_iter();
    (
        seen.map(|seen| seen.field(name).map(str::to_owned))
            .collect(),
        hits,
    )
}

#[test]
fn the_origin_sees_one_wish_for_a_coding_and_one_variant_of_each() {
    let values = [
        "gzip, deflate, br",
        "br;q=1.0, gzip;q=0.8, *;q=0.1",
        "br",
        "gzip, deflate",
        "x-gzip",
        "deflate",
        "identity",
        "br;q=0, gzip;q=0",
    ];
    let cache = "{ accept_encoding = [\"br\", \"gzip\"] }";
    let (seen, hits) = normalised(cache, "accept-encoding", &values);
    let own = |value: &str| Some(value.to_owned());
    assert_eq!(seen, [own("br"), own("gzip"), None]);
    assert_eq!(hits, 5);
    let (seen, hits) = normalised("{}", "accept-encoding", &values[..3]);
    assert_eq!((seen.len(), hits), (3, 0), "as the client says it, without");
}

#[test]
fn the_origin_sees_one_wish_for_a_language_and_one_variant_of_each() {
    let values = [
        "de-CH,de;q=0.9,en;q=0.8",
        "de",
        "de-AT, fr;q=0.5",
        "en-US,en;q=0.5",
        "fr, en;q=0.3",
        "fr",
        "ja",
        "de;q=0, *",
    ];
    let cache = "{ accept_language = [\"de\", \"en\"] }";
    let (seen, hits) = normalised(cache, "accept-language", &values);
    let own = |value: &str| Some(value.to_owned());
    assert_eq!(seen, [own("de"), own("en"), None]);
    assert_eq!(hits, 5);
}

#[test]
fn what_passes_the_cache_is_not_normalised_away() {
    let origin = page();
    let edge = cached(&origin, ALL);
    edge.ask(&Ask::post("/a", "x").field("Accept-Encoding", "gzip"))
        .expect(200);
    assert_eq!(origin.last().field("accept-encoding"), Some("gzip"));
    edge.ask(&Ask::get("/uncached").field("Accept-Encoding", "gzip"))
        .expect(200);
    assert_eq!(origin.last().field("accept-encoding"), Some("gzip"));
}

/// A page that is validated each time, or stands in for the application, is compressed all the same.
#[test]
fn what_is_validated_or_served_for_a_failing_origin_comes_compressed_too() {
    let mut origin = page();
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        outlier_detection = false
        [[route]]
        upstream = "app"
        cache = { compress = ["gzip"], stale_if_error = "1h" }
        "#,
    );
    await_coding(&edge, "/checked", "gzip");
    let packed = edge.ask(&accepting("/checked", "gzip")).expect(200);
    let said = packed.cache_status();
    assert!(said.contains("fwd-status=304"), "{said}");
    assert_eq!(packed.field("content-encoding"), Some("gzip"));
    let same = accepting("/checked", "gzip").field("If-None-Match", packed.field("etag").unwrap());
    edge.ask(&same).expect(304);
    edge.ask(&accepting("/checked", "identity")).expect(200);
    await_coding(&edge, "/a", "gzip");
    purge(&edge, "soft=true&url=http://shop.test/a");
    origin.down();
    let stale = edge.ask(&accepting("/a", "gzip")).expect(200);
    let said = stale.cache_status();
    assert!(said.contains("stale-if-error"), "{said}");
    assert_eq!(stale.field("content-encoding"), Some("gzip"), "{said}");
}

/// What is not stored is not compressed here, so the application is not kept from doing it.
#[test]
fn a_personal_request_goes_to_the_origin_with_its_own_wishes() {
    let origin = page();
    let edge = cached_in(
        &origin,
        "session_cookies = [\"sid\"]",
        "{ compress = [\"gzip\"], accept_language = [\"de\"] }",
    );
    for ask in [
        accepting("/a", "br").field("Cookie", "sid=1"),
        accepting("/a", "br").field("Authorization", "x"),
    ] {
        edge.ask(&ask.field("Accept-Language", "fr")).expect(200);
        let seen = origin.last();
        assert_eq!(seen.field("accept-encoding"), Some("br"), "{}", seen.raw);
        assert_eq!(seen.field("accept-language"), Some("fr"), "{}", seen.raw);
    }
    edge.ask(&accepting("/a", "br").field("Accept-Language", "fr"))
        .expect(200);
    let seen = origin.last();
    assert_eq!(seen.field("accept-encoding"), None);
    assert_eq!(seen.field("accept-language"), None);
}
