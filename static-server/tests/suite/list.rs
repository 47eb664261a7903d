//! The cases themselves, by theme.

use std::path::Path;

use super::tree::{ALPHABET, BIG, big};
use super::{CACHE_CONTROL, Case, Check, MODIFIED};

pub(super) const BEFORE: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
pub(super) const AFTER: &str = "Wed, 03 Jan 2024 00:00:00 GMT";

/// The cases for a site without a fallback.
pub fn cases(root: &Path) -> Vec<Case> {
    assert!(root.join("letters.txt").exists(), "the tree was not made");
    let mut all = Vec::new();
    all.extend(plain_files());
    all.extend(types());
    all.extend(methods());
    all.extend(directories());
    all.extend(confinement());
    all.extend(paths());
    all.extend(conditions());
    all.extend(ranges());
    all.extend(many_ranges());
    all.extend(codings());
    all.extend(large_files());
    all.extend(super::rfc9110::cases());
    all
}

/// The cases for a site whose fallback is `index.html`.
pub fn spa_cases(root: &Path) -> Vec<Case> {
    assert!(root.join("index.html").exists(), "the tree was not made");
    let home = "<!doctype html><title>Home</title>";
    let html = "text/html; charset=utf-8";
    vec![
        get("/cart", 200, "a page of the application is the fallback")
            .body(home)
            .has("content-type", html),
        get("/cart/", 200, "a page with a slash is the fallback").body(home),
        get(
            "/user/john.doe",
            200,
            "an ending that is no file type is a page",
        )
        .body(home),
        get("/v1.2", 200, "a version in a path is a page").body(home),
        get("/bare/", 200, "a directory without an index is a page").body(home),
        get("/bare", 200, "the same without its slash").body(home),
        get("/missing.js", 404, "a script that is missing is not a page"),
        get("/img/missing.png", 404, "nor is a picture"),
        get("/letters.txt", 200, "a file that is there comes first").body(ALPHABET),
        get("/docs/", 200, "an index comes first").body("<!doctype html><title>Docs</title>"),
        get("/.env", 404, "what is refused does not fall back"),
        get("/.git", 404, "nor does a hidden directory"),
        get("/pipe", 404, "nor does a pipe"),
        get("/out.txt", 404, "nor does a link out"),
        Case::new("HEAD", "/cart", 200, "a HEAD falls back as a GET does")
            .has("content-length", "34"),
        Case::new("POST", "/cart", 405, "a POST does not fall back").has("allow", "GET, HEAD"),
        get("/cart", 304, "the fallback can be revalidated").with("if-none-match", "{etag}"),
    ]
}

pub(super) fn get(target: &str, status: u16, name: &str) -> Case {
    Case::new("GET", target, status, name)
}

pub(super) fn letters(status: u16, name: &str) -> Case {
    get("/letters.txt", status, name)
}

fn plain_files() -> Vec<Case> {
    vec![
        letters(200, "a file comes whole with everything a cache needs")
            .body(ALPHABET)
            .has("content-type", "text/plain; charset=utf-8")
            .has("content-length", "26")
            .has("last-modified", MODIFIED)
            .has("accept-ranges", "bytes")
            .has("cache-control", CACHE_CONTROL)
            .check("etag", Check::Begins("\""))
            .lacks(&["vary", "content-encoding", "content-range", "location"]),
        letters(200, "the tag is that of the content on every node")
            .has("etag", "\"71c480df93d6ae2f1efad1447c66c952\""),
        get("/empty.txt", 200, "an empty file has a length of nought")
            .body("")
            .has("content-length", "0"),
        get("/LICENSE", 200, "a name without an ending is bytes")
            .has("content-type", "application/octet-stream"),
        get("/letters.txt?v=3", 200, "a query does not matter").body(ALPHABET),
        get("/none.txt", 404, "what is not there is not found").lacks(&[
            "etag",
            "last-modified",
            "cache-control",
        ]),
        get("/letters.txt/x", 404, "a file is no directory"),
        get("/letters.txt/", 404, "a file has no slash after it"),
        get("/upper.txt", 404, "names are case-sensitive"),
        get("/UPPER.TXT", 200, "a name in capitals is itself")
            .has("content-type", "text/plain; charset=utf-8"),
    ]
}

fn types() -> Vec<Case> {
    let utf8 = |kind: &str| format!("{kind}; charset=utf-8");
    [
        ("a.html", utf8("text/html")),
        ("a.css", utf8("text/css")),
        ("a.js", utf8("text/javascript")),
        ("a.mjs", utf8("text/javascript")),
        ("a.txt", utf8("text/plain")),
        ("a.md", utf8("text/markdown")),
        ("a.csv", utf8("text/csv")),
        ("a.json", "application/json".into()),
        ("a.map", "application/json".into()),
        ("a.webmanifest", "application/manifest+json".into()),
        ("a.xml", "application/xml".into()),
        ("a.wasm", "application/wasm".into()),
        ("a.svg", "image/svg+xml".into()),
        ("a.png", "image/png".into()),
        ("a.jpg", "image/jpeg".into()),
        ("A.JPG", "image/jpeg".into()),
        ("a.gif", "image/gif".into()),
        ("a.webp", "image/webp".into()),
        ("a.avif", "image/avif".into()),
        ("a.ico", "image/x-icon".into()),
        ("a.woff2", "font/woff2".into()),
        ("a.mp4", "video/mp4".into()),
        ("a.webm", "video/webm".into()),
        ("a.mp3", "audio/mpeg".into()),
        ("a.pdf", "application/pdf".into()),
        ("a.zip", "application/zip".into()),
        ("a.unknown", "application/octet-stream".into()),
    ]
    .into_iter()
    .map(|(name, kind)| {
        get(
            &format!("/types/{name}"),
            200,
            &format!("{name} has its type"),
        )
        .has("content-type", kind)
    })
    .collect()
}

fn methods() -> Vec<Case> {
    let mut all: Vec<Case> = ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"]
        .into_iter()
        .map(|method| {
            let case = Case::new(
                method,
                "/letters.txt",
                405,
                &format!("{method} is not for files"),
            );
            case.has("allow", "GET, HEAD").with("content-length", "0")
        })
        .collect();
    all.extend([
        Case::new(
            "HEAD",
            "/letters.txt",
            200,
            "a HEAD has the headers of the GET",
        )
        .has("content-length", "26")
        .has("last-modified", MODIFIED)
        .has("etag", "{etag}"),
        Case::new("HEAD", "/none.txt", 404, "a HEAD of nothing is not found"),
        Case::new("HEAD", "/docs", 301, "a HEAD is redirected").has("location", "docs/"),
        Case::new("HEAD", "/letters.txt", 304, "a HEAD can be conditional")
            .with("if-none-match", "{etag}"),
        Case::new("HEAD", "/letters.txt", 200, "a HEAD takes no range")
            .with("range", "bytes=0-1")
            .has("content-length", "26")
            .lacks(&["content-range"]),
        Case::new(
            "POST",
            "/none.txt",
            405,
            "the method is judged before the path",
        )
        .with("content-length", "0"),
        Case::new(
            "OPTIONS",
            "/letters.txt",
            204,
            "OPTIONS says what is allowed",
        )
        .has("allow", "GET, HEAD"),
    ]);
    all
}

fn directories() -> Vec<Case> {
    vec![
        get("/", 200, "the root has its index").body("<!doctype html><title>Home</title>"),
        get("/docs/", 200, "a directory has its index")
            .has("content-type", "text/html; charset=utf-8"),
        get("/docs/index.html", 200, "an index has its own name too"),
        get("/docs", 301, "a directory without a slash is redirected")
            .has("location", "docs/")
            .lacks(&["etag"]),
        get("/docs?a=b&c", 301, "a redirect keeps the query").has("location", "docs/?a=b&c"),
        get("/bare/", 404, "a directory without an index is not found"),
        get("/bare", 404, "and not redirected to nothing").lacks(&["location"]),
        get("//docs", 301, "a redirect leads to no other host").has("location", "docs/"),
    ]
}

fn confinement() -> Vec<Case> {
    let long = format!("/{}", "a".repeat(300));
    let longer = format!("/{}", "b/".repeat(2_500));
    vec![
        get("/../secret.txt", 400, "dot segments do not climb").or(404),
        get("/docs/../../secret.txt", 400, "nor from further down").or(404),
        get("/%2e%2e/secret.txt", 400, "nor escaped").or(404),
        get("/..%2fsecret.txt", 404, "nor with an escaped slash").or(400),
        get("/%2e%2e%2fsecret.txt", 404, "nor all escaped").or(400),
        get("/..%5csecret.txt", 404, "nor with a backslash").or(400),
        get(
            "/%252e%252e/secret.txt",
            404,
            "an escape of an escape is a name",
        ),
        get(
            "/up/secret.txt",
            404,
            "a link to a directory outside leads nowhere",
        ),
        get("/out.txt", 404, "a link to a file outside leads nowhere"),
        get("/passwd", 404, "nor does an absolute one"),
        get("/loop", 404, "a link to itself is not found"),
        get("/dangling", 404, "a link to nothing is not found"),
        get("/inside.txt", 200, "a link inside is followed").body(ALPHABET),
        get("/absolute.txt", 200, "an absolute link inside is followed").body(ALPHABET),
        get(
            "/styles/app.css",
            200,
            "a link to a directory inside is followed",
        )
        .body("body { margin: 0 }"),
        get("/.env", 404, "a hidden file is not served"),
        get("/%2eenv", 404, "nor by an escape"),
        get("/.git/config", 404, "nor from a hidden directory"),
        get("/docs/.draft.html", 404, "nor further down"),
        get(
            "/.well-known/security.txt",
            200,
            "what is well known is served",
        )
        .has("content-type", "text/plain; charset=utf-8"),
        get("/.well-known/.hidden", 404, "but nothing hidden in it"),
        get("/letters.txt%00.css", 404, "a NUL ends no name").or(400),
        get("/letters%0a.txt", 404, "a control character is no name").or(400),
        get("/%c0%ae%c0%ae/secret.txt", 404, "overlong UTF-8 is no dot").or(400),
        get("/caf%e9.txt", 404, "Latin-1 is no name").or(400),
        get("/%zz", 400, "a broken escape is no name").or(404),
        get("/%", 400, "a lone percent sign is no name").or(404),
        get("/pipe", 404, "a pipe holds nobody up"),
        get(&long, 404, "a name too long for the file system").or(414),
        get(&longer, 404, "a path too long for the system")
            .or(414)
            .or(431),
    ]
}

fn paths() -> Vec<Case> {
    vec![
        get("/with%20space.txt", 200, "a space in a name").body("space"),
        get("/caf%C3%A9.txt", 200, "UTF-8 in a name").body("umlaut or so"),
        get("/caf%c3%a9.txt", 200, "escapes in small letters").body("umlaut or so"),
        get("/100%25.txt", 200, "a percent sign in a name").body("percent"),
        get("/%252e%252e.txt", 200, "a name that looks like an escape")
            .body("a name that looks like an escape"),
        get("/a+b;c=d,e@f.txt", 200, "marks that need no escape").body("marks"),
        get("/%6Cetters.txt", 200, "a letter that was escaped").body(ALPHABET),
        get("/docs/./guide.md", 200, "a dot segment is resolved").body("# Guide"),
        get("/docs/../letters.txt", 200, "two dots are resolved").body(ALPHABET),
        get("/docs//guide.md", 200, "slashes are merged").body("# Guide"),
    ]
}

fn conditions() -> Vec<Case> {
    let fresh = |name: &str| {
        letters(304, name)
            .has("etag", "{etag}")
            .has("cache-control", CACHE_CONTROL)
            .lacks(&[
                "content-type",
                "content-length",
                "content-encoding",
                "accept-ranges",
                "content-range",
            ])
    };
    vec![
        fresh("the current tag is not modified").with("if-none-match", "{etag}"),
        fresh("the same made weak").with("if-none-match", "{weak}"),
        fresh("one of a list").with("if-none-match", "\"x\", {etag}, \"y\""),
        fresh("a star").with("if-none-match", "*"),
        letters(200, "another tag")
            .with("if-none-match", "\"x\"")
            .body(ALPHABET),
        letters(200, "a tag without quotes is malformed").with("if-none-match", "x"),
        letters(304, "the date of the file").with("if-modified-since", MODIFIED),
        letters(304, "a later date").with("if-modified-since", AFTER),
        letters(200, "an earlier date").with("if-modified-since", BEFORE),
        letters(200, "what is no date").with("if-modified-since", "yesterday"),
        letters(304, "a date in the old form")
            .with("if-modified-since", "Tuesday, 02-Jan-24 03:04:05 GMT"),
        letters(304, "a date of asctime").with("if-modified-since", "Tue Jan  2 03:04:05 2024"),
        letters(200, "a tag takes precedence over a date")
            .with("if-none-match", "\"x\"")
            .with("if-modified-since", AFTER),
        letters(200, "the current tag is required and met").with("if-match", "{etag}"),
        letters(200, "any state is required and met").with("if-match", "*"),
        letters(412, "another tag is required").with("if-match", "\"x\""),
        letters(412, "a weak tag never meets a requirement").with("if-match", "{weak}"),
        letters(200, "unmodified since a later date").with("if-unmodified-since", AFTER),
        letters(412, "modified since an earlier date").with("if-unmodified-since", BEFORE),
        letters(200, "a required tag takes precedence over a date")
            .with("if-match", "{etag}")
            .with("if-unmodified-since", BEFORE),
        letters(412, "a requirement comes before not modified")
            .with("if-match", "\"x\"")
            .with("if-none-match", "{etag}"),
        get("/none.txt", 404, "nothing has no conditions").with("if-match", "*"),
        letters(304, "not modified comes before a range")
            .with("if-none-match", "{etag}")
            .with("range", "bytes=0-1"),
    ]
}

fn ranges() -> Vec<Case> {
    let part = |range: &str, first: usize, last: usize, name: &str| {
        letters(206, name)
            .with("range", range)
            .has("content-range", format!("bytes {first}-{last}/26"))
            .has("content-length", (last + 1 - first).to_string())
            .has("content-type", "text/plain; charset=utf-8")
            .has("etag", "{etag}")
            .body(&ALPHABET[first..=last])
    };
    let whole = |range: &str, name: &str| {
        letters(200, name)
            .with("range", range)
            .body(ALPHABET)
            .lacks(&["content-range"])
    };
    let none = |range: &str, name: &str| {
        letters(416, name)
            .with("range", range)
            .has("content-range", "bytes */26")
            .lacks(&["etag"])
    };
    vec![
        part("bytes=0-0", 0, 0, "the first byte"),
        part("bytes=2-4", 2, 4, "some bytes"),
        part("bytes=20-", 20, 25, "from a byte to the end"),
        part("bytes=-3", 23, 25, "the last bytes"),
        part("bytes=-99", 0, 25, "more last bytes than there are"),
        part("bytes=20-99", 20, 25, "beyond the end"),
        part("bytes=0-25", 0, 25, "all of them by range"),
        part(
            "bytes=5-99999999999999999999999",
            5,
            25,
            "a number beyond 64 bits",
        ),
        part("Bytes=1-2", 1, 2, "the unit in capitals"),
        part("bytes=99-,1-2", 1, 2, "one of two lies inside"),
        none("bytes=26-", "just after the end"),
        none("bytes=100-200", "far after the end"),
        none("bytes=-0", "no last bytes"),
        get("/empty.txt", 416, "a range of nothing")
            .with("range", "bytes=0-0")
            .has("content-range", "bytes */0"),
        whole("bytes=4-2", "a range backwards is malformed"),
        whole("bytes=x-y", "letters for numbers"),
        whole("bytes", "no range at all"),
        whole("items=0-1", "another unit"),
        part("bytes=0-1", 0, 1, "a strong tag that is current").with("if-range", "{etag}"),
        part("bytes=0-1", 0, 1, "a date that is exact").with("if-range", MODIFIED),
        whole("bytes=0-1", "a tag that is not current").with("if-range", "\"x\""),
        whole("bytes=0-1", "a weak tag").with("if-range", "{weak}"),
        whole("bytes=0-1", "a later date is not exact").with("if-range", AFTER),
        letters(412, "a condition comes before a range")
            .with("if-match", "\"x\"")
            .with("range", "bytes=0-1"),
    ]
}

fn many_ranges() -> Vec<Case> {
    let seventeen = format!("bytes={}", vec!["0-0"; 17].join(","));
    vec![
        letters(206, "two ranges come as parts")
            .with("range", "bytes=0-1,24-25")
            .check(
                "content-type",
                Check::Begins("multipart/byteranges; boundary="),
            )
            .lacks(&["content-range"])
            .parts(&[("bytes 0-1/26", b"ab"), ("bytes 24-25/26", b"yz")]),
        letters(206, "in the order asked for")
            .with("range", "bytes=-1, 0-0")
            .parts(&[("bytes 25-25/26", b"z"), ("bytes 0-0/26", b"a")]),
        letters(206, "those outside are left out")
            .with("range", "bytes=0-0,50-60,2-2")
            .parts(&[("bytes 0-0/26", b"a"), ("bytes 2-2/26", b"c")]),
        letters(200, "more than the whole is the whole")
            .with("range", "bytes=0-25,0-25")
            .body(ALPHABET),
        letters(200, "too many are the whole")
            .with("range", seventeen)
            .body(ALPHABET),
        letters(200, "one malformed range spoils the set")
            .with("range", "bytes=0-1,x")
            .body(ALPHABET),
    ]
}

fn codings() -> Vec<Case> {
    let css =
        |accept: &str, name: &str| get("/css/app.css", 200, name).with("accept-encoding", accept);
    let packed = |accept: &str, coding: &str, body: &str, name: &str| {
        css(accept, name)
            .has("content-encoding", coding)
            .has("content-type", "text/css; charset=utf-8")
            .has("vary", "accept-encoding")
            .has("last-modified", MODIFIED)
            .body(body)
    };
    let plain = |accept: &str, name: &str| {
        css(accept, name)
            .has("vary", "accept-encoding")
            .lacks(&["content-encoding"])
            .body("body { margin: 0 }")
    };
    vec![
        packed(
            "gzip, deflate, br, zstd",
            "br",
            "br of css",
            "a browser gets brotli",
        ),
        packed("zstd, gzip", "zstd", "zst of css", "zstd before gzip"),
        packed("gzip", "gzip", "gz of css!", "gzip alone"),
        packed("x-gzip", "gzip", "gz of css!", "gzip by its old name"),
        packed(
            "br;q=0.5, gzip;q=0.9",
            "gzip",
            "gz of css!",
            "weights decide",
        ),
        packed("*", "br", "br of css", "anything is the favourite"),
        packed("br;q=0, *", "zstd", "zst of css", "anything but one"),
        packed(
            "identity;q=0.5, gzip",
            "gzip",
            "gz of css!",
            "identity weighed lower",
        ),
        plain("", "nothing is accepted"),
        plain("deflate", "nothing that we have"),
        plain(
            "gzip;q=0, br;q=0.0, zstd;q=0.000",
            "a weight of nought refuses",
        ),
        plain("*;q=0", "everything refused is better than no answer"),
        plain("identity, br;q=0.5", "identity weighed higher"),
        plain("br;q=7", "a weight that is none is not heard"),
        get("/css/app.css", 200, "no field, no coding")
            .has("vary", "accept-encoding")
            .lacks(&["content-encoding"]),
        get("/js/app.js", 200, "only gzip is there")
            .with("accept-encoding", "br, gzip;q=0.1")
            .body("gz of js"),
        get("/letters.txt", 200, "no packed form, no Vary")
            .with("accept-encoding", "br")
            .lacks(&["vary"]),
        get("/stale.js", 200, "a packed form that is older is not used")
            .with("accept-encoding", "gzip")
            .body("new text")
            .lacks(&["content-encoding", "vary"]),
        css("br", "each coding has its tag").check("etag", Check::Ends("-br\"")),
        css("gzip", "and another one").check("etag", Check::Ends("-gzip\"")),
        get("/css/app.css", 304, "a 304 says Vary")
            .with("accept-encoding", "br")
            .with("if-none-match", "{etag}")
            .has("vary", "accept-encoding")
            .lacks(&["content-encoding"]),
        get("/css/app.css", 206, "a range is of the packed form")
            .with("accept-encoding", "br")
            .with("range", "bytes=0-1")
            .has("content-range", "bytes 0-1/9")
            .has("content-encoding", "br")
            .body("br"),
        Case::new("HEAD", "/css/app.css", 200, "a HEAD negotiates too")
            .with("accept-encoding", "zstd")
            .has("content-length", "10")
            .has("content-encoding", "zstd"),
        get(
            "/css/app.css.gz",
            200,
            "a packed file by its own name is a file",
        )
        .has("content-type", "application/gzip")
        .lacks(&["content-encoding"])
        .body("gz of css!"),
    ]
}

fn large_files() -> Vec<Case> {
    let bytes = big();
    let middle = 1_500_000_usize;
    let end = format!("bytes {}-{}/{BIG}", BIG - 2, BIG - 1);
    vec![
        get("/big.bin", 200, "a large file comes whole")
            .has("content-length", BIG.to_string())
            .has("last-modified", MODIFIED)
            .check("etag", Check::Begins("\""))
            .body(bytes.clone()),
        get("/big.bin", 206, "a stretch of a large file")
            .with("range", format!("bytes={middle}-{}", middle + 300_000))
            .body(&bytes[middle..=middle + 300_000]),
        get("/big.bin", 206, "the end of a large file")
            .with("range", "bytes=-2")
            .has("content-range", end.clone()),
        get("/big.bin", 206, "parts of a large file")
            .with("range", "bytes=0-1,-2")
            .parts(&[
                (&format!("bytes 0-1/{BIG}"), &bytes[..2]),
                (&end, &bytes[BIG - 2..]),
            ]),
        get("/big.bin", 206, "a download goes on")
            .with("range", "bytes=3000000-")
            .with("if-range", "{etag}"),
        get("/big.bin", 304, "a large file is not modified").with("if-none-match", "{etag}"),
        get("/big.bin", 416, "a range after a large file").with("range", format!("bytes={BIG}-")),
        Case::new("HEAD", "/big.bin", 200, "a HEAD of a large file")
            .has("content-length", BIG.to_string()),
    ]
}
