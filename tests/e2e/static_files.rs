//! Files through the proxy's front: the very suite that the stand-alone server
//! passes, and what only the proxy adds (prefixes, routes, filters).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::static_suite as suite;
use crate::support::client::HOST;
use crate::support::h2::H2;
use crate::support::{Ask, Edge, Setup, wait};

#[test]
fn the_suite_of_the_stand_alone_server_passes_through_the_proxy() {
    let wrong = run_suite("", suite::cases);
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_suite_of_single_page_applications_passes_through_the_proxy() {
    let wrong = run_suite("fallback = \"index.html\"", suite::spa_cases);
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Every case twice: once read anew, once from memory.
fn run_suite(more: &str, cases: fn(&Path) -> Vec<suite::Case>) -> Vec<String> {
    let setup = Setup::new();
    let site = suite::tree(setup.folder());
    let edge = setup
        .with("ROOT", site.display())
        .with("CONTROL", suite::CACHE_CONTROL)
        .with("MEMORY", format!("{}KiB", suite::MAX_MEMORY_FILE / 1_024))
        .start(&format!(
            "[static.site]\nroot = \"@ROOT@\"\ncache_control = \"@CONTROL@\"\n\
             max_memory_file = \"@MEMORY@\"\n{more}\n[[route]]\nstatic = \"site\"\n"
        ));
    let cases = cases(&site);
    assert!(!cases.is_empty(), "no case at all");
    suite::warm(edge.http()).expect("the large file gets its tag");
    let twice = cases.iter().chain(&cases);
    twice
        .filter_map(|case| suite::run(edge.http(), case).err())
        .collect()
}

fn site(toml: &str) -> Edge {
    let setup = Setup::new()
        .file("site/index.html", "<h1>home</h1>")
        .file("site/app.css", "body {}")
        .file("site/docs/index.html", "<h1>docs</h1>")
        .file("site/.secret", "secret")
        .file("secret.txt", "secret")
        .file("site/big.bin", vec![7; 3_000_000]);
    symlink("../secret.txt", setup.folder().join("site/way-out")).unwrap();
    setup.start(toml)
}

#[test]
fn a_prefix_is_taken_off_before_the_look_up_when_the_file_says_so() {
    let edge = site(
        r#"
        [static.site]
        root = "site"
        [[route]]
        match = { path_prefix = "/assets" }
        static = "site"
        strip_prefix = "/assets"
        [[route]]
        match = { path_prefix = "/docs" }
        static = "site"
        "#,
    );
    assert_eq!(edge.get("/assets/app.css").expect(200).text(), "body {}");
    assert_eq!(edge.get("/assets/").expect(200).text(), "<h1>home</h1>");
    assert_eq!(edge.get("/docs/").expect(200).text(), "<h1>docs</h1>");
    let moved = edge.get("/assets/docs?x=1");
    assert!(matches!(moved.status, 301 | 307 | 308), "{moved:?}");
    assert_eq!(
        moved.field("location"),
        Some("docs/?x=1"),
        "relative to the browser's URL, so that the prefix stays"
    );
    edge.get("/app.css").expect(404);
}

#[test]
fn nothing_outside_the_root_is_ever_served() {
    let edge = site("[static.site]\nroot = \"site\"\n[[route]]\nstatic = \"site\"\n");
    for target in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/docs/../../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/way-out",
        "/.secret",
        "/%2esecret",
        "/docs/..%2f.secret",
        "/app.css%00.html",
        "//secret.txt",
        "/./../secret.txt",
        "/site/../../secret.txt",
    ] {
        for reply in [
            edge.get(target),
            H2::plain(edge.http()).ask(&Ask::get(target)),
        ] {
            assert!((400..500).contains(&reply.status), "{target}: {reply:?}");
            assert!(!reply.text().contains("secret"), "{target}");
        }
    }
}

#[test]
fn large_files_stream_whole_and_in_parts_over_every_protocol() {
    let edge = site(
        "[static.site]\nroot = \"site\"\nmax_memory_file = \"64KiB\"\n[[route]]\nstatic = \"site\"\n",
    );
    let whole = vec![7; 3_000_000];
    assert!(edge.get("/big.bin").expect(200).body == whole);
    assert!(edge.tls().ask(&Ask::get("/big.bin")).body == whole);
    assert!(H2::tls(edge.https(), HOST).ask(&Ask::get("/big.bin")).body == whole);
    let part = Ask::get("/big.bin").field("Range", "bytes=1000000-1999999");
    assert_eq!(edge.ask(&part).expect(206).body.len(), 1_000_000);
    let mut conn = edge.plain();
    assert_eq!(
        conn.ask(&Ask::head("/big.bin")).field("content-length"),
        Some("3000000")
    );
    assert_eq!(conn.ask(&Ask::get("/app.css")).text(), "body {}");
}

#[test]
fn a_changed_file_is_seen_within_a_moment() {
    let edge = site("[static.site]\nroot = \"site\"\n[[route]]\nstatic = \"site\"\n");
    let old = edge.get("/app.css").expect(200);
    fs::write(edge.folder().join("site/app.css"), "body { color: red }").unwrap();
    let new = wait::until("the new content", wait::secs(3), || {
        let reply = edge.get("/app.css");
        (reply.text() == "body { color: red }").then_some(reply)
    });
    assert_ne!(new.field("etag"), old.field("etag"));
}

#[test]
fn keys_of_a_site_change_what_is_served() {
    let edge = site(
        r#"
        [static.site]
        root = "site"
        index = ["none.html", "app.css"]
        fallback = "index.html"
        cache_control = "public, max-age=300"
        precompressed = []
        [filter.site]
        response_headers = { set = { x-site = "1" } }
        [[route]]
        static = "site"
        filters = ["site"]
        "#,
    );
    let index = edge.get("/").expect(200);
    assert_eq!(index.text(), "body {}");
    assert_eq!(index.field("cache-control"), Some("public, max-age=300"));
    assert_eq!(index.field("x-site"), Some("1"));
    let page = Ask::get("/some/page").field("Accept", "text/html");
    assert_eq!(edge.ask(&page).expect(200).text(), "<h1>home</h1>");
    let wrong = edge.ask(&Ask::post("/app.css", "x")).expect(405);
    assert_eq!(wrong.field("allow").map(|a| a.contains("GET")), Some(true));
}
