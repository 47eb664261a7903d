//! Who a client is behind proxies, and who cannot become one.

use serde_json::Value;

use crate::support::client::HOST;
use crate::support::{Ask, Edge, H2, Origin, Setup, wait};

const CONFIG: &str = r#"
    [log]
    access = { path = "access.log", format = "json" }
    [server]
    workers = 1
    trusted_proxies = [@TRUSTED@]
    [upstream.app]
    endpoints = ["@APP@"]
    [[route]]
    upstream = "app"
"#;

fn edge(app: &Origin, trusted: &str) -> Edge {
    Setup::new()
        .with("APP", app.address)
        .with("TRUSTED", trusted)
        .start(CONFIG)
}

/// Who the log says that the client of this target was.
fn logged(edge: &Edge, target: &str) -> String {
    let path = edge.folder().join("access.log");
    let line = wait::until("a line in the log", wait::SOON, || {
        let log = std::fs::read_to_string(&path).ok()?;
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["target"] == target)
    });
    line["client"].as_str().expect("a client").to_owned()
}

/// Fields of a request, and the client that a trusted proxy vouches for with them.
fn cases() -> Vec<(Vec<(&'static str, String)>, &'static str)> {
    let case = |fields: &[(&'static str, &str)], client| {
        let fields = fields
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        (fields.collect(), client)
    };
    let xff = "X-Forwarded-For";
    let long = vec!["6.6.6.6"; 600].join(",") + ", 192.0.2.7, 10.0.0.3";
    let spread: Vec<_> = (0..90).map(|_| (xff, "6.6.6.6".to_owned())).collect();
    let spread = [spread, vec![(xff, "192.0.2.7".to_owned())]].concat();
    vec![
        case(&[(xff, "6.6.6.6, 192.0.2.7, 10.0.0.3")], "192.0.2.7"),
        case(
            &[(xff, "6.6.6.6"), (xff, "192.0.2.7"), (xff, "10.0.0.3")],
            "192.0.2.7",
        ),
        case(&[(xff, "6.6.6.6, unknown, 10.0.0.3")], "10.0.0.3"),
        case(&[(xff, "6.6.6.6, _hidden")], "127.0.0.1"),
        case(&[(xff, "6.6.6.6,")], "127.0.0.1"),
        case(&[(xff, "6.6.6.6, 192.0.2.7 10.0.0.3")], "127.0.0.1"),
        case(&[(xff, "[2001:db8::7]:4711, 10.0.0.3:80")], "2001:db8::7"),
        case(&[(xff, "::ffff:192.0.2.7")], "192.0.2.7"),
        case(
            &[("Forwarded", "for=6.6.6.6, for=192.0.2.7;proto=https")],
            "192.0.2.7",
        ),
        case(
            &[("Forwarded", "for=\"[2001:db8::7]:4711\"")],
            "2001:db8::7",
        ),
        case(
            &[("Forwarded", "for=6.6.6.6"), ("Forwarded", "for=192.0.2.7")],
            "192.0.2.7",
        ),
        case(
            &[("Forwarded", "for=6.6.6.6, for=_hidden, for=10.0.0.3")],
            "10.0.0.3",
        ),
        case(
            &[("Forwarded", "for=\"6.6.6.6, for=192.0.2.7")],
            "192.0.2.7",
        ),
        case(
            &[("Forwarded", "for=6.6.6.6"), (xff, "192.0.2.7")],
            "192.0.2.7",
        ),
        case(
            &[("Forwarded", "for=6.6.6.6"), (xff, "garbage")],
            "127.0.0.1",
        ),
        case(&[(xff, &long)], "192.0.2.7"),
        (spread, "192.0.2.7"),
    ]
}

#[test]
fn a_trusted_proxy_is_believed_as_far_as_it_can_be_read() {
    let app = Origin::named("fine");
    let edge = edge(&app, "\"127.0.0.0/8\", \"10.0.0.0/8\"");
    for (nth, (fields, client)) in cases().into_iter().enumerate() {
        for version in ["h1", "h2"] {
            let target = format!("/{nth}/{version}");
            let mut ask = Ask::get(&target);
            for (name, value) in &fields {
                ask = ask.field(name, value);
            }
            match version {
                "h1" => edge.ask(&ask).expect(200),
                _ => H2::tls(edge.https(), HOST).ask(&ask).expect(200),
            };
            assert_eq!(logged(&edge, &target), client, "{version} {fields:?}");
        }
    }
}

#[test]
fn a_stranger_is_never_believed() {
    let app = Origin::named("fine");
    let edge = edge(&app, "\"10.0.0.0/8\"");
    for (nth, (fields, _)) in cases().into_iter().enumerate() {
        let target = format!("/{nth}");
        let mut ask = Ask::get(&target).field("X-Forwarded-Proto", "https");
        for (name, value) in &fields {
            ask = ask.field(name, value);
        }
        edge.ask(&ask).expect(200);
        assert_eq!(logged(&edge, &target), "127.0.0.1", "{fields:?}");
        let seen = app.last();
        assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"], "{}", seen.raw);
        assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
        assert_eq!(seen.field("forwarded"), None);
    }
}

#[test]
fn an_app_gets_the_lists_of_a_trusted_proxy_with_the_proxy_in_them() {
    let app = Origin::named("fine");
    let edge = edge(&app, "\"127.0.0.0/8\"");
    for _ in 0..2 {
        let ask = Ask::get("/")
            .field("Forwarded", "for=192.0.2.1")
            .field("Forwarded", "for=192.0.2.7;proto=https")
            .field("X-Forwarded-For", "192.0.2.1")
            .field("X-Forwarded-For", "192.0.2.7");
        edge.ask(&ask).expect(200);
        let seen = app.last();
        assert_eq!(
            seen.all("forwarded"),
            ["for=192.0.2.1, for=192.0.2.7;proto=https, for=127.0.0.1"]
        );
        assert_eq!(
            seen.all("x-forwarded-for"),
            ["192.0.2.1, 192.0.2.7, 127.0.0.1"]
        );
    }
}

#[test]
fn of_scheme_and_host_an_app_is_told_what_the_proxy_itself_wrote() {
    let app = Origin::named("fine");
    let edge = edge(&app, "\"127.0.0.0/8\"");
    let (proto, host) = ("X-Forwarded-Proto", "X-Forwarded-Host");
    for (fields, scheme, name) in [
        (&[(proto, "https")][..], "https", "shop.example"),
        (&[(proto, "https"), (proto, "http")], "http", "shop.example"),
        (&[(proto, "http, https")], "https", "shop.example"),
        (&[(proto, "gopher")], "http", "shop.example"),
        (
            &[("Forwarded", "for=192.0.2.7;proto=https")],
            "https",
            "shop.example",
        ),
        (
            &[
                ("Forwarded", "for=192.0.2.7;proto=https"),
                ("X-Forwarded-For", "192.0.2.7"),
            ],
            "http",
            "shop.example",
        ),
        (
            &[(host, "evil.example"), (host, "www.example")],
            "http",
            "www.example",
        ),
        (
            &[(host, "evil.example, www.example")],
            "http",
            "www.example",
        ),
    ] {
        // Once over a new connection to the app, once over one that is kept.
        for _ in 0..2 {
            let mut ask = Ask::get("/").host("shop.example");
            for (name, value) in fields {
                ask = ask.field(name, value);
            }
            edge.ask(&ask).expect(200);
            let seen = app.last();
            assert_eq!(seen.all("x-forwarded-proto"), [scheme], "{fields:?}");
            assert_eq!(seen.all("x-forwarded-host"), [name], "{fields:?}");
        }
    }
}
