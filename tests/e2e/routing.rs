//! Which route gets a request, through the real front: precedence, encodings,
//! 404 and 405.

use crate::support::client::HOST;
use crate::support::h2::H2;
use crate::support::{Answer, Ask, Edge, Origin, Setup, in_front_of};

/// Routes that answer with their own names.
fn routes(routes: &[(&str, &str)]) -> Edge {
    let text: String = routes
        .iter()
        .map(|(name, matcher)| {
            format!(
                "[[route]]\nname = \"{name}\"\nmatch = {matcher}\nrespond = {{ body = \"{name}\" }}\n"
            )
        })
        .collect();
    Setup::new().start(&text)
}

#[track_caller]
fn expect_route(edge: &Edge, ask: &Ask, name: &str) {
    let reply = edge.ask(ask);
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (200, name),
        "{ask:?}"
    );
    let over_h2 = H2::tls(edge.https(), "shop.test").ask(ask);
    assert_eq!(over_h2.text(), name, "h2 {ask:?}");
}

#[test]
fn hosts_match_exactly_before_by_wildcard_before_any() {
    let edge = routes(&[
        ("any", "{}"),
        ("wide", r#"{ host = "*.test" }"#),
        ("wild", r#"{ host = "*.shop.test" }"#),
        ("exact", r#"{ host = ["shop.test", "other.test"] }"#),
    ]);
    for (host, name) in [
        ("shop.test", "exact"),
        ("other.test", "exact"),
        ("www.shop.test", "wild"),
        ("a.b.shop.test", "wild"),
        ("elsewhere.test", "wide"),
        ("elsewhere.example", "any"),
    ] {
        expect_route(&edge, &Ask::get("/").host(host), name);
    }
    for host in ["SHOP.Test", "shop.test:8080"] {
        assert_eq!(
            edge.ask(&Ask::get("/").host(host)).text(),
            "exact",
            "{host}"
        );
    }
}

#[test]
fn paths_match_exactly_before_by_longest_prefix_before_by_regex() {
    let edge = routes(&[
        ("regex", r#"{ path_regex = "^/p/\\d+$" }"#),
        ("root", r#"{ path_prefix = "/" }"#),
        ("catalog", r#"{ path_prefix = "/catalog" }"#),
        ("shoes", r#"{ path_prefix = "/catalog/shoes" }"#),
        ("red", r#"{ path = "/catalog/shoes/red" }"#),
    ]);
    for (path, name) in [
        ("/", "root"),
        ("/catalog", "catalog"),
        ("/catalog/", "catalog"),
        ("/catalogue", "root"),
        ("/catalog/shoes/blue", "shoes"),
        ("/catalog/shoes/red", "red"),
        ("/catalog/shoes/red?x=1", "red"),
        ("/catalog/shoes/red/", "shoes"),
        ("/p/12", "root"),
    ] {
        expect_route(&edge, &Ask::get(path), name);
    }
}

#[test]
fn a_regex_matches_where_nothing_more_specific_does() {
    let edge = routes(&[
        ("number", r#"{ path_regex = "^/p/\\d+$" }"#),
        ("else", "{}"),
    ]);
    expect_route(&edge, &Ask::get("/p/12"), "number");
    expect_route(&edge, &Ask::get("/p/x"), "else");
}

#[test]
fn more_conditions_win_over_fewer_and_the_first_in_the_file_over_its_equal() {
    let edge = routes(&[
        (
            "first",
            r#"{ path_prefix = "/a", headers = { x-tier = "gold" } }"#,
        ),
        (
            "equal",
            r#"{ path_prefix = "/a", headers = { x-beta = true } }"#,
        ),
        (
            "both",
            r#"{ path_prefix = "/a", headers = { x-tier = "gold", x-beta = true } }"#,
        ),
        ("plain", r#"{ path_prefix = "/a" }"#),
    ]);
    expect_route(&edge, &Ask::get("/a"), "plain");
    expect_route(&edge, &Ask::get("/a").field("x-beta", "yes"), "equal");
    let both = Ask::get("/a").field("x-beta", "1").field("x-tier", "gold");
    expect_route(&edge, &both, "both");
}

#[test]
fn methods_headers_and_query_parameters_are_conditions() {
    let edge = routes(&[
        ("post", r#"{ path = "/m", method = ["POST", "PUT"] }"#),
        ("get", r#"{ path = "/m", method = "GET" }"#),
        (
            "regex",
            r#"{ path = "/h", headers = { x-v = { regex = "^v[12]$" } } }"#,
        ),
        ("absent", r#"{ path = "/h", headers = { x-v = false } }"#),
        ("query", r#"{ path = "/q", query = { page = "a b" } }"#),
        ("present", r#"{ path = "/q", query = { debug = true } }"#),
    ]);
    expect_route(&edge, &Ask::get("/m"), "get");
    expect_route(&edge, &Ask::post("/m", "x"), "post");
    expect_route(&edge, &Ask::get("/h"), "absent");
    expect_route(&edge, &Ask::get("/h").field("x-v", "v2"), "regex");
    assert_eq!(edge.ask(&Ask::get("/h").field("x-v", "v3")).status, 404);
    expect_route(&edge, &Ask::get("/q?x=1&page=a%20b"), "query");
    expect_route(&edge, &Ask::get("/q?debug"), "present");
    assert_eq!(edge.get("/q?page=c").status, 404);
}

#[test]
fn no_route_is_404_and_only_the_wrong_method_405_with_allow() {
    let edge = routes(&[
        (
            "read",
            r#"{ path_prefix = "/x", method = ["GET", "HEAD"] }"#,
        ),
        ("write", r#"{ path_prefix = "/x", method = "PUT" }"#),
    ]);
    assert_eq!(edge.get("/y").status, 404);
    let refused = edge.ask(&Ask::post("/x", "")).expect(405);
    let allow = refused.field("allow").expect("an Allow field").to_owned();
    let mut methods: Vec<&str> = allow.split(',').map(str::trim).collect();
    methods.sort_unstable();
    assert_eq!(methods, ["GET", "HEAD", "PUT"]);
    let reply = edge.get("/y");
    assert!(
        reply
            .field("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    assert!(reply.text().contains("404"), "{}", reply.text());
}

#[test]
fn nothing_slips_by_a_rule_through_an_encoding() {
    let origin = Origin::start(|seen| Answer::ok(seen.target.clone()));
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        name = "private"
        match = { path_prefix = "/admin" }
        respond = { status = 403, body = "private" }
        [[route]]
        name = "app"
        upstream = "app"
        "#,
    );
    for target in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/%61dmin",
        "/%61%64%6d%69%6e/x",
        "/./admin",
        "/a/../admin",
        "//admin",
        "/a//..//admin",
        "/a/%2e%2e/admin",
        "/a/%2E./admin",
        "/admin?x",
        "/admin/../admin",
    ] {
        let status = edge.get(target).status;
        assert_eq!(status, 403, "{target}");
        let absolute = Ask::get(&format!("http://{HOST}{target}"));
        assert_eq!(edge.ask(&absolute).status, 403, "absolute {target}");
        let h2 = H2::plain(edge.http()).ask(&Ask::get(target)).status;
        assert_eq!(h2, 403, "h2 {target}");
    }
    // An encoded slash is not a slash: another path, told as such to the origin.
    for (target, upstream) in [
        ("/%2fadmin", "/%2Fadmin"),
        ("/x%2f..%2fadmin", "/x%2F..%2Fadmin"),
    ] {
        let reply = edge.get(target);
        assert!(
            reply.status == 400 || reply.text() == upstream,
            "{target}: {} {}",
            reply.status,
            reply.text()
        );
    }
}

#[test]
fn the_origin_sees_the_path_that_was_matched() {
    let origin = Origin::start(|seen| Answer::ok(seen.target.clone()));
    let edge = in_front_of(origin.address);
    for (target, seen) in [
        ("/a/./b//c/../d", "/a/b/d"),
        ("/%7Euser/%c3%a4", "/~user/%C3%A4"),
        ("/x?a=%2e%2e/b//c", "/x?a=%2e%2e/b//c"),
        ("/?", "/?"),
    ] {
        assert_eq!(edge.get(target).text(), seen, "{target}");
    }
}

#[test]
fn double_slashes_stay_when_the_file_says_so() {
    let origin = Origin::start(|seen| Answer::ok(seen.target.clone()));
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [server]
        merge_slashes = false
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        "#,
    );
    assert_eq!(edge.get("/a//b").text(), "/a//b");
}

#[test]
fn hosts_of_h2_come_from_the_authority() {
    let edge = routes(&[("shop", r#"{ host = "shop.test" }"#), ("any", "{}")]);
    let mut h2 = H2::plain(edge.http());
    assert_eq!(h2.ask(&Ask::get("/")).text(), "shop");
    assert_eq!(h2.ask(&Ask::get("/").host("else.test")).text(), "any");
}
