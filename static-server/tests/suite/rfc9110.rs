//! Sections 13 (conditions) and 14 (ranges) of RFC 9110, rule by rule, where the other lists
//! do not have them yet. Each name begins with the section that it is about.

use super::list::{AFTER, BEFORE, get, letters};
use super::tree::ALPHABET;
use super::{CACHE_CONTROL, Case, Check, MODIFIED};

/// Sections 13 and 14.
pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(if_match());
    all.extend(if_none_match());
    all.extend(dates());
    all.extend(if_range());
    all.extend(precedence());
    all.extend(syntax());
    all.extend(satisfiable());
    all.extend(partial());
    all.extend(several());
    all
}

fn if_match() -> Vec<Case> {
    vec![
        letters(200, "13.1.1: the current tag in a list").with("if-match", "\"x\", {etag}"),
        letters(200, "13.1.1: a list over two lines")
            .with("if-match", "\"x\"")
            .with("if-match", "{etag}"),
        letters(412, "13.1.1: only weak tags in a list").with("if-match", "\"x\", {weak}"),
        letters(412, "13.1.1: a tag without quotes").with("if-match", "x"),
        letters(412, "13.1.1: a star among tags is malformed").with("if-match", "*, {etag}"),
        Case::new(
            "HEAD",
            "/letters.txt",
            412,
            "13.1.1: a HEAD is held to it too",
        )
        .with("if-match", "\"x\""),
        letters(
            206,
            "13.1.1: what is required is there, and a part of it comes",
        )
        .with("if-match", "{etag}")
        .with("range", "bytes=0-1")
        .body("ab"),
        get("/big.bin", 412, "13.1.1: another tag of a large file").with("if-match", "\"x\""),
        get("/docs", 301, "13.2.1: a redirect has no conditions").with("if-match", "\"x\""),
        Case::new(
            "POST",
            "/letters.txt",
            405,
            "13.2.1: nor has a refused method",
        )
        .with("if-match", "\"x\"")
        .with("content-length", "0"),
        Case::new("OPTIONS", "/letters.txt", 204, "13.2.1: nor has OPTIONS")
            .with("if-match", "\"x\""),
    ]
}

fn if_none_match() -> Vec<Case> {
    vec![
        letters(304, "13.1.2: a list over two lines")
            .with("if-none-match", "\"x\"")
            .with("if-none-match", "{etag}"),
        letters(304, "13.1.2: a weak tag in a list").with("if-none-match", "\"x\",{weak}"),
        letters(304, "13.1.2: empty members count for nothing").with("if-none-match", ", ,{etag},"),
        letters(200, "13.1.2: a list of nothing").with("if-none-match", ","),
        letters(200, "13.1.2: a star among tags is malformed").with("if-none-match", "\"x\", *"),
        letters(200, "13.1.2: the W of a weak tag is a capital").with("if-none-match", "w/\"x\""),
        letters(200, "13.1.2: a part of a tag is another tag")
            .with("if-none-match", "\"71c480df\""),
        Case::new("HEAD", "/letters.txt", 304, "13.1.2: a star and a HEAD")
            .with("if-none-match", "*"),
        Case::new(
            "HEAD",
            "/letters.txt",
            200,
            "13.1.2: another tag and a HEAD",
        )
        .with("if-none-match", "\"x\"")
        .has("content-length", "26"),
        get("/none.txt", 404, "13.1.2: nothing is there for a star").with("if-none-match", "*"),
        get("/empty.txt", 304, "13.1.2: an empty file has a tag").with("if-none-match", "{etag}"),
        get(
            "/css/app.css",
            200,
            "13.1.2: the tag of another coding is another",
        )
        .with("accept-encoding", "gzip;q=0")
        .with("if-none-match", "\"x-br\""),
    ]
}

fn dates() -> Vec<Case> {
    vec![
        letters(304, "13.1.3: a date that lies ahead")
            .with("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT"),
        letters(200, "13.1.3: two lines are no date")
            .with("if-modified-since", MODIFIED)
            .with("if-modified-since", MODIFIED),
        letters(200, "13.1.3: a number is no date").with("if-modified-since", "1704164645"),
        letters(200, "13.1.3: nor is one of another zone")
            .with("if-modified-since", "Tue, 02 Jan 2024 03:04:05 CET"),
        Case::new(
            "HEAD",
            "/letters.txt",
            304,
            "13.1.3: a HEAD and the date of the file",
        )
        .with("if-modified-since", MODIFIED),
        letters(304, "13.1.3: a 304 by date says what one by tag says")
            .with("if-modified-since", MODIFIED)
            .has("etag", "{etag}")
            .has("cache-control", CACHE_CONTROL)
            .lacks(&["content-length", "content-type"]),
        letters(200, "13.1.3: a second before")
            .with("if-modified-since", "Tue, 02 Jan 2024 03:04:04 GMT"),
        letters(200, "13.1.4: the date of the file").with("if-unmodified-since", MODIFIED),
        letters(412, "13.1.4: a second before")
            .with("if-unmodified-since", "Tue, 02 Jan 2024 03:04:04 GMT"),
        letters(200, "13.1.4: what is no date").with("if-unmodified-since", "yesterday"),
        letters(200, "13.1.4: two lines are no date")
            .with("if-unmodified-since", BEFORE)
            .with("if-unmodified-since", BEFORE),
        Case::new(
            "HEAD",
            "/letters.txt",
            412,
            "13.1.4: a HEAD and an earlier date",
        )
        .with("if-unmodified-since", BEFORE),
        get(
            "/none.txt",
            404,
            "13.1.4: nothing is there to be unmodified",
        )
        .with("if-unmodified-since", BEFORE),
    ]
}

fn if_range() -> Vec<Case> {
    let part = |value: &str, name: &str| {
        letters(206, name)
            .with("range", "bytes=1-2")
            .with("if-range", value)
            .has("content-range", "bytes 1-2/26")
            .body("bc")
    };
    let whole = |value: &str, name: &str| {
        letters(200, name)
            .with("range", "bytes=1-2")
            .with("if-range", value)
            .lacks(&["content-range"])
            .body(ALPHABET)
    };
    vec![
        part(MODIFIED, "13.1.5: the date of a file that has settled"),
        part(
            "Tuesday, 02-Jan-24 03:04:05 GMT",
            "13.1.5: the same date in the old form",
        ),
        whole(BEFORE, "13.1.5: an earlier date is not exact"),
        whole("*", "13.1.5: a star is no tag"),
        whole("\"x\", {etag}", "13.1.5: a list is no tag"),
        whole("{etag}, \"x\"", "13.1.5: nor is one that begins well"),
        whole("yesterday", "13.1.5: what is neither tag nor date"),
        letters(200, "13.1.5: two lines are no tag")
            .with("range", "bytes=1-2")
            .with("if-range", "{etag}")
            .with("if-range", "{etag}")
            .body(ALPHABET),
        letters(200, "13.1.5: without a range it means nothing")
            .with("if-range", "\"x\"")
            .body(ALPHABET),
        letters(416, "13.1.5: the current tag and a range outside")
            .with("range", "bytes=99-")
            .with("if-range", "{etag}"),
        letters(200, "13.1.5: another tag and a range outside")
            .with("range", "bytes=99-")
            .with("if-range", "\"x\"")
            .body(ALPHABET),
        letters(206, "13.1.5: several ranges of the current state")
            .with("range", "bytes=0-0,25-25")
            .with("if-range", "{etag}")
            .parts(&[("bytes 0-0/26", b"a"), ("bytes 25-25/26", b"z")]),
        Case::new(
            "HEAD",
            "/letters.txt",
            200,
            "13.1.5: a HEAD has no range to go with it",
        )
        .with("range", "bytes=1-2")
        .with("if-range", "{etag}")
        .has("content-length", "26")
        .lacks(&["content-range"]),
        get("/css/app.css", 200, "13.1.5: the tag of another coding")
            .with("range", "bytes=0-1")
            .with("if-range", "\"x-br\"")
            .body("body { margin: 0 }"),
    ]
}

fn precedence() -> Vec<Case> {
    vec![
        letters(304, "13.2.2: a requirement that is met, then not modified")
            .with("if-match", "{etag}")
            .with("if-none-match", "{etag}"),
        letters(304, "13.2.2: unmodified, then a tag that matches")
            .with("if-unmodified-since", AFTER)
            .with("if-none-match", "{etag}"),
        letters(304, "13.2.2: unmodified, then not modified by date")
            .with("if-unmodified-since", MODIFIED)
            .with("if-modified-since", MODIFIED),
        letters(
            412,
            "13.2.2: modified by date comes before a tag that matches",
        )
        .with("if-unmodified-since", BEFORE)
        .with("if-none-match", "{etag}"),
        letters(
            304,
            "13.2.2: a tag that matches decides over an earlier date",
        )
        .with("if-none-match", "{etag}")
        .with("if-modified-since", BEFORE),
        letters(200, "13.2.2: a malformed tag still decides over a date")
            .with("if-none-match", "x")
            .with("if-modified-since", AFTER),
        letters(206, "13.2.2: another tag, then a range")
            .with("if-none-match", "\"x\"")
            .with("range", "bytes=0-0")
            .body("a"),
        letters(
            206,
            "13.2.2: another tag, then a range of the current state",
        )
        .with("if-none-match", "\"x\"")
        .with("range", "bytes=0-0")
        .with("if-range", "{etag}")
        .body("a"),
        letters(200, "13.2.2: another tag, then a range of another state")
            .with("if-none-match", "\"x\"")
            .with("range", "bytes=0-0")
            .with("if-range", "\"x\"")
            .body(ALPHABET),
        letters(304, "13.2.2: not modified comes before a range outside")
            .with("if-none-match", "{etag}")
            .with("range", "bytes=99-"),
        letters(412, "13.2.2: a requirement comes before a range outside")
            .with("if-match", "\"x\"")
            .with("range", "bytes=99-"),
        letters(416, "13.2.2: all is met, and the range lies outside")
            .with("if-match", "{etag}")
            .with("if-unmodified-since", BEFORE)
            .with("if-none-match", "\"x\"")
            .with("if-modified-since", AFTER)
            .with("if-range", "{etag}")
            .with("range", "bytes=99-"),
    ]
}

fn syntax() -> Vec<Case> {
    let mut all: Vec<Case> = [
        ("bytes=-", "a dash alone"),
        ("bytes=", "nothing"),
        ("bytes=,", "empty members alone"),
        ("bytes=0", "a number alone"),
        ("bytes=+0-1", "a sign before a number"),
        ("bytes=0x0-0x1", "hexadecimal numbers"),
        ("bytes=0-1-2", "two dashes"),
        ("bytes=0 - 1", "spaces inside"),
        ("bytes=--1", "a negative suffix"),
        ("bytes=0-1;2-3", "a semicolon for a comma"),
        ("bytes=1.0-2", "a fraction"),
        ("bytes:0-1", "a colon for the sign of equality"),
        ("bytes 0-1", "a space for the sign of equality"),
        ("lines=0-1", "a unit that nobody knows"),
        ("none", "the unit none"),
        ("bytes=0-1, 4-2", "one of two is backwards"),
        ("bytes=0-1, items=2-3", "two units"),
    ]
    .into_iter()
    .map(|(range, what)| {
        letters(200, &format!("14.2: {what} is ignored"))
            .with("range", range)
            .lacks(&["content-range"])
            .body(ALPHABET)
    })
    .collect();
    all.extend([
        letters(200, "14.2: two lines are ignored")
            .with("range", "bytes=0-1")
            .with("range", "bytes=2-3")
            .body(ALPHABET),
        letters(206, "14.1.1: leading noughts")
            .with("range", "bytes=0001-0002")
            .body("bc"),
        letters(206, "14.1.1: empty members beside one")
            .with("range", "bytes=,0-1,,")
            .has("content-range", "bytes 0-1/26")
            .body("ab"),
        letters(206, "14.1.1: spaces and tabs around a comma")
            .with("range", "bytes=0-0 ,\t25-25")
            .parts(&[("bytes 0-0/26", b"a"), ("bytes 25-25/26", b"z")]),
    ]);
    all
}

fn satisfiable() -> Vec<Case> {
    let none = |range: &str, name: &str| {
        letters(416, name)
            .with("range", range)
            .has("content-range", "bytes */26")
            .lacks(&["last-modified", "content-encoding"])
    };
    vec![
        letters(206, "14.1.2: the last byte by its number")
            .with("range", "bytes=25-")
            .has("content-range", "bytes 25-25/26")
            .body("z"),
        letters(206, "14.1.2: exactly all from the end")
            .with("range", "bytes=-26")
            .has("content-range", "bytes 0-25/26")
            .body(ALPHABET),
        letters(206, "14.1.2: a suffix beyond 64 bits")
            .with("range", "bytes=-99999999999999999999999")
            .has("content-range", "bytes 0-25/26")
            .body(ALPHABET),
        letters(206, "14.1.2: all from the first byte")
            .with("range", "bytes=0-")
            .has("content-range", "bytes 0-25/26")
            .body(ALPHABET),
        letters(206, "14.1.2: no last bytes, and others")
            .with("range", "bytes=-0,3-3")
            .has("content-range", "bytes 3-3/26")
            .body("d"),
        none(
            "bytes=99999999999999999999999-",
            "14.1.2: a first byte beyond 64 bits",
        ),
        none("bytes=26-26", "14.1.2: the byte after the last"),
        none("bytes=30-40,50-", "14.1.2: several, all outside"),
        get("/empty.txt", 416, "14.1.2: from the first byte of nothing")
            .with("range", "bytes=0-")
            .has("content-range", "bytes */0"),
        get("/empty.txt", 416, "14.1.2: no last bytes of nothing")
            .with("range", "bytes=-0")
            .has("content-range", "bytes */0"),
        get(
            "/empty.txt",
            200,
            "14.1.2: the last bytes of nothing are all of it",
        )
        .with("range", "bytes=-1")
        .body(""),
        get("/empty.txt", 200, "14.2: nothing, asked for wrongly")
            .with("range", "bytes=x")
            .body(""),
        get("/none.txt", 404, "14.2: a range of what is not there").with("range", "bytes=0-1"),
        get("/docs", 301, "14.2: a range of a redirect").with("range", "bytes=0-1"),
        Case::new(
            "HEAD",
            "/letters.txt",
            200,
            "14.2: a HEAD takes no range outside either",
        )
        .with("range", "bytes=99-")
        .has("content-length", "26")
        .lacks(&["content-range"]),
        Case::new("HEAD", "/empty.txt", 200, "14.2: a HEAD of nothing")
            .with("range", "bytes=0-0")
            .has("content-length", "0"),
        Case::new("POST", "/letters.txt", 405, "14.2: a POST takes none")
            .with("range", "bytes=0-1")
            .with("content-length", "0"),
    ]
}

fn partial() -> Vec<Case> {
    vec![
        letters(206, "15.3.7: a part says what the whole would say")
            .with("range", "bytes=0-1")
            .has("etag", "{etag}")
            .has("cache-control", CACHE_CONTROL)
            .has("last-modified", MODIFIED),
        get("/css/app.css", 206, "15.3.7: and what it depends on")
            .with("accept-encoding", "gzip")
            .with("range", "bytes=0-1")
            .has("vary", "accept-encoding")
            .has("content-encoding", "gzip")
            .body("gz"),
        get("/docs/", 206, "14.2: a range of an index")
            .with("range", "bytes=0-1")
            .body("<!"),
        get(
            "/big.bin",
            206,
            "14.1.2: one byte in the midst of a large file",
        )
        .with("range", "bytes=1000000-1000000")
        .has("content-length", "1"),
        letters(206, "14.3: a part says that ranges are taken")
            .with("range", "bytes=0-1")
            .has("accept-ranges", "bytes"),
        letters(304, "15.4.5: a 304 with a tag says no date")
            .with("if-none-match", "{etag}")
            .lacks(&["last-modified"]),
        letters(200, "14.3: that ranges are taken is said").has("accept-ranges", "bytes"),
        Case::new("HEAD", "/big.bin", 200, "14.3: to a HEAD too").has("accept-ranges", "bytes"),
    ]
}

fn several() -> Vec<Case> {
    let both = |range: &str, name: &str, parts: &[(&str, &[u8])]| {
        letters(206, name)
            .with("range", range)
            .check(
                "content-type",
                Check::Begins("multipart/byteranges; boundary="),
            )
            .lacks(&["content-range"])
            .parts(parts)
    };
    let sixteen: Vec<String> = (0..16).map(|at| format!("{at}-{at}")).collect();
    let sixteen = format!("bytes={}", sixteen.join(","));
    let labels: Vec<String> = (0..16).map(|at| format!("bytes {at}-{at}/26")).collect();
    let labels = labels.iter().zip(ALPHABET.chunks(1));
    let labels: Vec<(&str, &[u8])> = labels.map(|(label, byte)| (label.as_str(), byte)).collect();
    vec![
        both(
            "bytes=0-4,3-6",
            "15.3.7.2: ranges that overlap are sent as asked for",
            &[("bytes 0-4/26", b"abcde"), ("bytes 3-6/26", b"defg")],
        ),
        both(
            "bytes=0-1,2-3",
            "15.3.7.2: and so are neighbours",
            &[("bytes 0-1/26", b"ab"), ("bytes 2-3/26", b"cd")],
        ),
        both(
            "bytes=10-11,0-1,-1",
            "15.3.7.2: their order is kept",
            &[
                ("bytes 10-11/26", b"kl"),
                ("bytes 0-1/26", b"ab"),
                ("bytes 25-25/26", b"z"),
            ],
        ),
        both(&sixteen, "14.2: sixteen ranges are few enough", &labels),
        letters(
            206,
            "15.3.7.2: one of several that lies inside is no multipart",
        )
        .with("range", "bytes=0-1,26-")
        .has("content-range", "bytes 0-1/26")
        .has("content-type", "text/plain; charset=utf-8")
        .body("ab"),
        letters(
            200,
            "14.2: ranges that overlap to more than the whole are the whole",
        )
        .with("range", "bytes=0-,0-,0-")
        .body(ALPHABET),
        letters(
            200,
            "14.2: many small ones that come to more than allowed are the whole",
        )
        .with("range", format!("bytes={}", vec!["0-0"; 200].join(",")))
        .body(ALPHABET),
        get("/css/app.css", 206, "15.3.7.2: parts of a packed form")
            .with("accept-encoding", "br")
            .with("range", "bytes=0-0,-1")
            .has("content-encoding", "br")
            .has("vary", "accept-encoding")
            .parts(&[("bytes 0-0/9", b"b"), ("bytes 8-8/9", b"s")]),
    ]
}
