//! The order of steps and of filters.

use std::borrow::Cow;
use std::net::IpAddr;

use conf::{Filter, HeaderOps, Redirect, Respond, Rewrite, TemplatePart};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use regex::Regex;

use super::{Chain, Context, Scheme, Step, Verdict};

fn filter() -> Filter {
    Filter {
        name: "test".to_owned(),
        allow: Vec::new(),
        deny: Vec::new(),
        rewrite: None,
        redirect: None,
        respond: None,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
    }
}

fn denying() -> Filter {
    Filter {
        deny: vec!["192.0.2.0/24".parse().expect("a network")],
        ..filter()
    }
}

fn rewriting() -> Filter {
    let rewrite = Rewrite::Prefix {
        prefix: "/old".to_owned(),
        to: "/new".to_owned(),
    };
    Filter {
        rewrite: Some(rewrite),
        ..filter()
    }
}

fn redirecting() -> Filter {
    let to = vec![TemplatePart::Path, TemplatePart::Query];
    Filter {
        redirect: Some(Redirect {
            to,
            status: StatusCode::FOUND,
        }),
        ..filter()
    }
}

fn responding() -> Filter {
    let respond = Respond {
        status: StatusCode::OK,
        body: "ok".to_owned(),
        content_type: HeaderValue::from_static("text/plain"),
    };
    Filter {
        respond: Some(respond),
        ..filter()
    }
}

fn marking(mark: &'static str) -> Filter {
    let name = HeaderName::from_static("x-mark");
    let add = vec![(name, HeaderValue::from_static(mark))];
    let ops = HeaderOps {
        add,
        ..HeaderOps::default()
    };
    Filter {
        request_headers: ops.clone(),
        response_headers: ops,
        ..filter()
    }
}

struct Seen {
    verdict: Verdict,
    path: String,
    query: Option<String>,
    fields: HeaderMap,
}

fn run(filters: &[Filter], client: &str, path: &str) -> Seen {
    let mut fields = HeaderMap::new();
    let chain = Chain::new(&filters.iter().collect::<Vec<_>>(), true);
    let mut context = Context {
        client: client.parse::<IpAddr>().expect("an address"),
        scheme: Scheme::Https,
        host: "shop.example",
        path: Cow::Borrowed(path),
        query: Some(Cow::Borrowed("q=1")),
        fields: &mut fields,
    };
    let verdict = chain.request(&mut context);
    let (path, query) = (
        context.path.into_owned(),
        context.query.map(Cow::into_owned),
    );
    Seen {
        verdict,
        path,
        query,
        fields,
    }
}

fn step(seen: &Seen) -> Option<Step> {
    match &seen.verdict {
        Verdict::Continue => None,
        Verdict::Reply(reply) => Some(reply.by),
    }
}

#[test]
fn steps_of_one_filter_run_in_their_order() {
    let all = Filter {
        deny: denying().deny,
        rewrite: rewriting().rewrite,
        redirect: redirecting().redirect,
        respond: responding().respond,
        ..marking("a")
    };
    let denied = run(std::slice::from_ref(&all), "192.0.2.1", "/old/x");
    assert_eq!(
        (step(&denied), denied.path.as_str()),
        (Some(Step::Access), "/old/x")
    );
    let redirected = run(std::slice::from_ref(&all), "198.51.100.1", "/old/x");
    let Verdict::Reply(reply) = &redirected.verdict else {
        panic!("a redirect")
    };
    assert_eq!(reply.by, Step::Redirect);
    let location = HeaderValue::from_static("/new/x?q=1");
    assert_eq!(
        reply.headers,
        [(header::LOCATION, location)],
        "it sees the rewritten path"
    );
    assert!(
        redirected.fields.is_empty(),
        "no field is changed for nobody"
    );
}

#[test]
fn filters_run_in_the_order_in_which_a_route_names_them() {
    let seen = run(
        &[marking("a"), rewriting(), marking("b")],
        "192.0.2.1",
        "/old/x",
    );
    assert_eq!(seen.verdict, Verdict::Continue);
    assert_eq!(
        (seen.path.as_str(), seen.query.as_deref()),
        ("/new/x", Some("q=1"))
    );
    let marks: Vec<_> = seen.fields.get_all("x-mark").iter().collect();
    assert_eq!(marks, ["a", "b"]);
    let early = run(&[responding(), denying()], "192.0.2.1", "/");
    assert_eq!(step(&early), Some(Step::Respond));
    let late = run(&[denying(), responding()], "192.0.2.1", "/");
    let Verdict::Reply(reply) = late.verdict else {
        panic!("a refusal")
    };
    assert_eq!(
        (reply.by, reply.status),
        (Step::Access, StatusCode::FORBIDDEN)
    );
}

#[test]
fn a_rewrite_that_makes_no_path_is_answered_and_goes_nowhere() {
    let regex = Regex::new("^/(.*)$").expect("a regex");
    let rewrite = Some(Rewrite::Regex {
        regex,
        to: "/../$1".to_owned(),
    });
    let seen = run(
        &[Filter {
            rewrite,
            ..filter()
        }],
        "192.0.2.1",
        "/x",
    );
    let Verdict::Reply(reply) = seen.verdict else {
        panic!("a refusal")
    };
    assert_eq!(
        (reply.by, reply.status),
        (Step::Rewrite, StatusCode::BAD_REQUEST)
    );
}

#[test]
fn a_chain_without_filters_changes_nothing() {
    assert!(Chain::new(&[], true).is_empty());
    assert_eq!(run(&[], "192.0.2.1", "/x").verdict, Verdict::Continue);
}

#[test]
fn response_fields_are_changed_by_every_filter_in_order() {
    let (a, b) = (marking("a"), marking("b"));
    let mut fields = HeaderMap::new();
    Chain::new(&[&a, &b], true).response(&mut fields);
    let marks: Vec<_> = fields.get_all("x-mark").iter().collect();
    assert_eq!(marks, ["a", "b"]);
}
