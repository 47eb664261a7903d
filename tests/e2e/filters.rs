//! Each step of a filter through the real front: access, rewrites, redirects,
//! fixed replies, header operations; and their order.

use crate::support::{Answer, Ask, Edge, Origin, Setup};

fn filtered(origin: &Origin, filters: &str, names: &str) -> Edge {
    Setup::new().with("APP", origin.address).start(&format!(
        "[upstream.app]\nendpoints = [\"@APP@\"]\n\
         [[route]]\nupstream = \"app\"\nfilters = [{names}]\n{filters}"
    ))
}

fn mirror() -> Origin {
    Origin::start(|seen| {
        Answer::ok(seen.target.clone())
            .field("Server", "app/1")
            .field("X-Powered-By", "magic")
            .field("Set-Cookie", "a=1")
            .field("Set-Cookie", "b=2")
    })
}

#[test]
fn header_operations_remove_set_and_add_in_both_directions() {
    let origin = mirror();
    let edge = filtered(
        &origin,
        r#"
        [filter.site]
        request_headers = { remove = ["x-gone"], set = { x-env = "prod" }, add = { x-more = "2" } }
        response_headers = { remove = ["server", "x-powered-by"], set = { strict-transport-security = "max-age=31536000" }, add = { set-cookie = "c=3" } }
        "#,
        "\"site\"",
    );
    let ask = Ask::get("/")
        .field("X-Gone", "1")
        .field("X-Gone", "2")
        .field("X-Env", "spoofed")
        .field("X-Env", "twice")
        .field("X-More", "1");
    let reply = edge.ask(&ask).expect(200);
    let seen = origin.last();
    assert_eq!(seen.field("x-gone"), None);
    assert_eq!(seen.all("x-env"), ["prod"]);
    assert_eq!(seen.all("x-more"), ["1", "2"]);
    assert_eq!(reply.field("server"), None);
    assert_eq!(reply.field("x-powered-by"), None);
    assert_eq!(
        reply.field("strict-transport-security"),
        Some("max-age=31536000")
    );
    assert_eq!(reply.all("set-cookie"), ["a=1", "b=2", "c=3"]);
}

#[test]
fn response_operations_reach_the_edges_own_replies_too() {
    let edge = Setup::new().start(
        r#"
        [filter.site]
        response_headers = { set = { x-frame-options = "DENY" } }
        [[route]]
        match = { path = "/fixed" }
        respond = { status = 418, body = "tea", content_type = "text/html" }
        filters = ["site"]
        [[route]]
        match = { path = "/moved" }
        redirect = "/fixed"
        filters = ["site"]
        "#,
    );
    let fixed = edge.get("/fixed").expect(418);
    assert_eq!(fixed.field("x-frame-options"), Some("DENY"));
    assert_eq!(fixed.field("content-type"), Some("text/html"));
    assert_eq!(fixed.text(), "tea");
    assert_eq!(
        edge.get("/moved").expect(308).field("x-frame-options"),
        Some("DENY")
    );
}

#[test]
fn addresses_are_let_in_and_kept_out_by_the_longest_network() {
    let origin = mirror();
    let rules = |rules: &str| filtered(&origin, &format!("[filter.door]\n{rules}\n"), "\"door\"");
    for (filter, status) in [
        ("deny = [\"127.0.0.0/8\"]", 403),
        ("deny = [\"127.0.0.0/8\"]\nallow = [\"127.0.0.1\"]", 200),
        ("allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.1/32\"]", 403),
        ("allow = [\"10.0.0.0/8\"]", 403),
        ("deny = [\"10.0.0.0/8\"]", 200),
    ] {
        let before = origin.count();
        assert_eq!(rules(filter).get("/").status, status, "{filter}");
        assert_eq!(
            origin.count() - before,
            usize::from(status == 200),
            "{filter}"
        );
    }
}

#[test]
fn access_looks_at_the_real_client_behind_a_trusted_proxy_and_nobody_elses_word() {
    let origin = mirror();
    let file = |server: &str| {
        Setup::new().with("APP", origin.address).start(&format!(
            "{server}[upstream.app]\nendpoints = [\"@APP@\"]\n\
             [filter.door]\ndeny = [\"192.0.2.0/24\"]\n\
             [[route]]\nupstream = \"app\"\nfilters = [\"door\"]\n"
        ))
    };
    let ask = Ask::get("/").field("X-Forwarded-For", "192.0.2.7");
    assert_eq!(
        file("").ask(&ask).status,
        200,
        "nobody is trusted by default"
    );
    let trusting = file("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    assert_eq!(trusting.ask(&ask).status, 403);
}

#[test]
fn paths_are_rewritten_by_prefix_and_by_regex_with_captures() {
    let origin = mirror();
    let rewrite = |rule: &str| {
        let filter = format!("[filter.move]\nrewrite = {rule}\n");
        filtered(&origin, &filter, "\"move\"")
    };
    let prefix = rewrite(r#"{ prefix = "/old", to = "/new" }"#);
    assert_eq!(prefix.get("/old/x?q=1").text(), "/new/x?q=1");
    assert_eq!(prefix.get("/old").text(), "/new");
    assert_eq!(prefix.get("/older").text(), "/older");
    let regex = rewrite(r#"{ regex = "^/p/(?P<id>\\d+)$", to = "/product?id=${id}" }"#);
    assert_eq!(regex.get("/p/12").text(), "/product?id=12");
    assert_eq!(regex.get("/p/x").text(), "/p/x");
}

#[test]
fn a_rewrite_cannot_be_made_to_climb_out() {
    let origin = mirror();
    let edge = filtered(
        &origin,
        "[filter.move]\nrewrite = { regex = \"^/f/(.*)$\", to = \"/files/$1\" }\n",
        "\"move\"",
    );
    for target in [
        "/f/%2e%2e/%2e%2e/secret",
        "/f/..%2f..%2fsecret",
        "/f/a%0d%0aX:y",
    ] {
        let reply = edge.get(target);
        assert!(
            reply.status >= 400 || !reply.text().contains("/../"),
            "{target}: {}",
            reply.text()
        );
    }
    assert_eq!(origin.broken(), Vec::<String>::new());
}

#[test]
fn redirects_fill_their_template_and_never_leave_the_site() {
    let edge = Setup::new().start(
        r#"
        [[route]]
        match = { path_prefix = "/found" }
        redirect = { to = "/elsewhere{query}", status = 302 }
        [[route]]
        redirect = "https://{host}{path}{query}"
        "#,
    );
    let reply = edge.get("/a/b?c=d").expect(308);
    assert_eq!(reply.field("location"), Some("https://shop.test/a/b?c=d"));
    let reply = edge.ask(&Ask::get("/x").host("shop.test:8080")).expect(308);
    assert_eq!(reply.field("location"), Some("https://shop.test/x"));
    assert_eq!(
        edge.get("/found?x").expect(302).field("location"),
        Some("/elsewhere?x")
    );
}

#[test]
fn a_redirect_to_the_path_alone_is_no_open_redirect() {
    let edge = Setup::new().start(
        "[server]\nmerge_slashes = false\n[[route]]\nredirect = { to = \"{path}\", status = 302 }\n",
    );
    for target in [
        "//evil.test/x",
        "/%5Cevil.test",
        "/\\evil.test",
        "///evil.test",
    ] {
        let reply = edge.get(target);
        let location = reply.field("location").unwrap_or_default();
        assert!(
            !location.starts_with("//") && !location.starts_with("/\\"),
            "{target} leads to {location}"
        );
    }
}

#[test]
fn filters_run_in_the_order_of_the_route_and_steps_in_the_documented_one() {
    let origin = mirror();
    let filters = r#"
        [filter.one]
        rewrite = { prefix = "/a", to = "/b" }
        response_headers = { set = { x-order = "one" } }
        [filter.two]
        rewrite = { prefix = "/b", to = "/c" }
        response_headers = { set = { x-order = "two" } }
        [filter.stop]
        deny = ["127.0.0.1"]
        respond = { status = 200, body = "too late" }
    "#;
    let edge = filtered(&origin, filters, "\"one\", \"two\"");
    assert_eq!(edge.get("/a/x").text(), "/c/x");
    let reversed = filtered(&origin, filters, "\"two\", \"one\"");
    assert_eq!(reversed.get("/a/x").text(), "/b/x");
    let before = origin.count();
    filtered(&origin, filters, "\"stop\"")
        .get("/a/x")
        .expect(403);
    assert_eq!(origin.count(), before);
}

#[test]
fn a_filter_can_answer_by_itself() {
    let origin = mirror();
    let edge = filtered(
        &origin,
        "[filter.closed]\nrespond = { status = 503, body = \"back soon\" }\n",
        "\"closed\"",
    );
    assert_eq!(edge.get("/").expect(503).text(), "back soon");
    assert_eq!(origin.count(), 0);
}
