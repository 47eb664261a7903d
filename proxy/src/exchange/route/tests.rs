//! Precedence by example, and the compiled router against a naive one.

use conf::{
    Action, FieldMatch, HostPattern, ListenerId, Match, PathPattern, Respond, Route, ValueMatch,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use regex::Regex;

use super::{Outcome, Query, Router};
use crate::exchange::head::Head;

fn route(matcher: Match) -> Route {
    Route {
        name: String::new(),
        matcher,
        filters: Vec::new(),
        action: Action::Respond(Respond {
            status: StatusCode::OK,
            body: String::new(),
            content_type: HeaderValue::from_static("text/plain"),
        }),
        cache: None,
        error_pages: None,
        early_hints: None,
        maintenance: true,
        max_body_size: None,
        priority: conf::Priority::Normal,
        retry_non_idempotent: false,
        grpc_web: false,
    }
}

fn exact(path: &str) -> PathPattern {
    PathPattern::Exact(path.to_owned())
}

fn prefix(path: &str) -> PathPattern {
    PathPattern::Prefix(path.to_owned())
}

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a regex")
}

fn host(name: &str) -> HostPattern {
    match name.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None => HostPattern::Exact(name.to_owned()),
    }
}

fn on(hosts: &[&str], path: PathPattern) -> Match {
    Match {
        hosts: hosts.iter().map(|h| host(h)).collect(),
        path,
        ..Match::default()
    }
}

fn is<N>(name: N, value: &str) -> FieldMatch<N> {
    FieldMatch {
        name,
        value: ValueMatch::Exact(value.to_owned()),
    }
}

struct Request {
    host: &'static str,
    path: String,
    query: Option<String>,
    method: Method,
    fields: HeaderMap,
}

fn get(host: &'static str, target: &str) -> Request {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    Request {
        host,
        path: path.to_owned(),
        query,
        method: Method::GET,
        fields: HeaderMap::new(),
    }
}

impl Request {
    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn field(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.append(name, HeaderValue::from_static(value));
        self
    }

    fn asked_of(&self, router: &Router) -> Outcome {
        router.find(&Query {
            listener: 0,
            host: self.host,
            path: &self.path,
            query: self.query.as_deref(),
            view: &Head {
                method: &self.method,
                fields: &self.fields,
            },
        })
    }
}

fn router(matchers: Vec<Match>) -> Router {
    Router::new(&matchers.into_iter().map(route).collect::<Vec<_>>())
}

#[track_caller]
fn finds(router: &Router, request: &Request, index: usize) {
    assert_eq!(request.asked_of(router), Outcome::Found(index));
}

#[test]
fn the_nearer_host_wins_whatever_the_path() {
    let router = router(vec![
        on(&[], exact("/a")),
        on(&["*.example"], exact("/a")),
        on(&["*.shop.example"], exact("/a")),
        on(&["www.shop.example"], PathPattern::Any),
    ]);
    finds(&router, &get("www.shop.example", "/a"), 3);
    finds(&router, &get("x.shop.example", "/a"), 2);
    finds(&router, &get("y.x.shop.example", "/a"), 2);
    finds(&router, &get("shop.example", "/a"), 1);
    finds(&router, &get("example", "/a"), 0);
    finds(&router, &get("[::1]", "/a"), 0);
}

#[test]
fn what_a_near_host_does_not_take_falls_to_the_next() {
    let router = router(vec![
        on(&[], PathPattern::Any),
        on(&["a.example"], exact("/only")),
        on(&["*.example"], prefix("/wide")),
    ]);
    finds(&router, &get("a.example", "/only"), 1);
    finds(&router, &get("a.example", "/wide/x"), 2);
    finds(&router, &get("a.example", "/else"), 0);
}

#[test]
fn the_nearer_path_wins() {
    let router = router(vec![
        on(&[], PathPattern::Any),
        on(&[], PathPattern::Regex(regex("^/catalog/"))),
        on(&[], prefix("/catalog")),
        on(&[], prefix("/catalog/shoes")),
        on(&[], exact("/catalog/shoes/1")),
    ]);
    finds(&router, &get("a", "/catalog/shoes/1"), 4);
    finds(&router, &get("a", "/catalog/shoes/2"), 3);
    finds(&router, &get("a", "/catalog/shoes"), 3);
    finds(&router, &get("a", "/catalog/shoestring"), 2);
    finds(&router, &get("a", "/catalogue"), 0);
    finds(&router, &get("a", "/"), 0);
    finds(&router, &get("a", "*"), 0);
}

#[test]
fn a_prefix_ends_on_a_segment_boundary() {
    let router = router(vec![
        on(&[], prefix("/a/")),
        on(&[], prefix("/b")),
        on(&["c"], prefix("/")),
    ]);
    finds(&router, &get("x", "/a/"), 0);
    finds(&router, &get("x", "/a/b"), 0);
    assert_eq!(get("x", "/a").asked_of(&router), Outcome::NotFound);
    finds(&router, &get("x", "/b/"), 1);
    assert_eq!(get("x", "/bc").asked_of(&router), Outcome::NotFound);
    assert_eq!(get("x", "/b%2Fc").asked_of(&router), Outcome::NotFound);
    finds(&router, &get("c", "/"), 2);
    finds(&router, &get("c", "/anything"), 2);
}

#[test]
fn more_conditions_win_and_ties_go_by_file_order() {
    let page = FieldMatch {
        name: "page".to_owned(),
        value: ValueMatch::Present,
    };
    let accept = is(HeaderName::from_static("x-kind"), "api");
    let router = router(vec![
        on(&[], exact("/a")),
        Match {
            query: vec![page.clone()],
            ..on(&[], exact("/a"))
        },
        Match {
            query: vec![page],
            headers: vec![accept.clone()],
            ..on(&[], exact("/a"))
        },
        Match {
            headers: vec![accept],
            ..on(&[], exact("/a"))
        },
    ]);
    finds(&router, &get("h", "/a"), 0);
    finds(&router, &get("h", "/a?page=1").field("x-kind", "api"), 2);
    finds(&router, &get("h", "/a?page=1"), 1);
    finds(&router, &get("h", "/a").field("x-kind", "api"), 3);
    finds(&router, &get("h", "/a").field("x-kind", "other"), 0);
}

#[test]
fn a_wrong_method_is_told_apart_from_no_route() {
    let methods = |list: &[Method], path| Match {
        methods: list.to_vec(),
        ..on(&[], path)
    };
    let router = router(vec![
        methods(&[Method::GET, Method::HEAD], exact("/a")),
        methods(&[Method::POST, Method::GET], prefix("/a")),
        methods(&[Method::DELETE], exact("/b")),
    ]);
    finds(&router, &get("h", "/a"), 0);
    finds(&router, &get("h", "/a").method(Method::POST), 1);
    let allow = vec![Method::GET, Method::HEAD, Method::POST];
    let put = get("h", "/a").method(Method::PUT);
    assert_eq!(put.asked_of(&router), Outcome::MethodNotAllowed(allow));
    assert_eq!(get("h", "/c").asked_of(&router), Outcome::NotFound);
}

#[test]
fn fields_and_parameters_fit_by_any_of_their_values() {
    let x = HeaderName::from_static("x");
    let q = |value| {
        vec![FieldMatch {
            name: "q".to_owned(),
            value,
        }]
    };
    let f = |value| {
        vec![FieldMatch {
            name: x.clone(),
            value,
        }]
    };
    let router = router(vec![
        Match {
            query: q(ValueMatch::Exact("a b".to_owned())),
            ..on(&[], exact("/q"))
        },
        Match {
            query: q(ValueMatch::Regex(regex("^[0-9]+$"))),
            ..on(&[], exact("/r"))
        },
        Match {
            query: q(ValueMatch::Absent),
            ..on(&[], exact("/absent"))
        },
        Match {
            headers: f(ValueMatch::Exact("2".to_owned())),
            ..on(&[], exact("/f"))
        },
        Match {
            headers: f(ValueMatch::Absent),
            ..on(&[], exact("/fa"))
        },
        Match {
            headers: f(ValueMatch::Regex(regex("^é"))),
            ..on(&[], exact("/fr"))
        },
    ]);
    let none = |request: &Request| assert_eq!(request.asked_of(&router), Outcome::NotFound);
    for query in ["q=a+b", "q=a%20b", "x&q=1&%71=a%20b"] {
        finds(&router, &get("h", &format!("/q?{query}")), 0);
    }
    none(&get("h", "/q?q=a+b+"));
    none(&get("h", "/q"));
    finds(&router, &get("h", "/r?q=x&q=12"), 1);
    none(&get("h", "/r?q=%ff"));
    finds(&router, &get("h", "/absent?qq=1"), 2);
    none(&get("h", "/absent?q"));
    finds(&router, &get("h", "/f").field("x", "1").field("x", "2"), 3);
    none(&get("h", "/f").field("x", "1, 2"));
    finds(&router, &get("h", "/fa"), 4);
    none(&get("h", "/fa").field("x", ""));
    let mut latin = get("h", "/fr");
    latin
        .fields
        .insert(&x, HeaderValue::from_bytes(b"\xe9").expect("obs-text"));
    none(&latin);
}

#[test]
fn configured_paths_meet_requests_in_their_one_spelling() {
    let router = router(vec![on(&[], exact("/café")), on(&[], prefix("/%7eann"))]);
    finds(&router, &get("h", "/caf%C3%A9"), 0);
    finds(&router, &get("h", "/~ann/x"), 1);
}

#[test]
fn a_route_that_names_the_listener_comes_before_all_that_name_none() {
    let router = router(vec![
        on(&["shop.example"], exact("/a")),
        Match {
            listeners: vec![ListenerId(1)],
            ..on(&[], prefix("/a"))
        },
    ]);
    let request = get("shop.example", "/a");
    let found = |listener, path| {
        router.find(&Query {
            listener,
            host: request.host,
            path,
            query: None,
            view: &Head {
                method: &request.method,
                fields: &request.fields,
            },
        })
    };
    assert_eq!(found(1, "/a"), Outcome::Found(1), "whatever the host says");
    assert_eq!(found(0, "/a"), Outcome::Found(0));
    assert_eq!(found(0, "/a/b"), Outcome::NotFound);
    assert_eq!(found(1, "/b"), Outcome::NotFound);
}

/// The same rules without any structure: compare all routes that fit.
fn naive(matchers: &[Match], request: &Request) -> Outcome {
    let mut fitting: Vec<_> = Vec::new();
    let mut refusing: Vec<_> = Vec::new();
    for (index, matcher) in matchers.iter().enumerate() {
        let (Some(host), Some(path)) = (naive_host(matcher, request), naive_path(matcher, request))
        else {
            continue;
        };
        let conditions = usize::from(!matcher.methods.is_empty()) + matcher.query.len();
        let key = (host, path, std::cmp::Reverse(conditions), index);
        let pairs: Vec<_> = request.query.iter().flat_map(|q| q.split('&')).collect();
        let parameters = matcher.query.iter().all(|p| match &p.value {
            ValueMatch::Exact(value) => pairs.contains(&format!("{}={value}", p.name).as_str()),
            _ => false,
        });
        if parameters && (matcher.methods.is_empty() || matcher.methods.contains(&request.method)) {
            fitting.push(key);
        } else if parameters {
            refusing.push(key);
        }
    }
    if let Some((.., index)) = fitting.iter().min() {
        return Outcome::Found(*index);
    }
    refusing.sort_unstable();
    let mut methods = Vec::new();
    for (.., index) in refusing {
        for method in &matchers[index].methods {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
    }
    if methods.is_empty() {
        Outcome::NotFound
    } else {
        Outcome::MethodNotAllowed(methods)
    }
}

fn naive_host(matcher: &Match, request: &Request) -> Option<isize> {
    if matcher.hosts.is_empty() {
        return Some(0);
    }
    let fits = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(name) => (name == request.host).then_some(-1000),
        HostPattern::Suffix(suffix) => {
            let longer = request.host.len() > suffix.len() && request.host.ends_with(suffix);
            longer.then_some(-(suffix.len() as isize))
        }
    };
    matcher.hosts.iter().filter_map(fits).min()
}

fn naive_path(matcher: &Match, request: &Request) -> Option<isize> {
    let path = request.path.as_str();
    match &matcher.path {
        PathPattern::Any => Some(0),
        PathPattern::Exact(wanted) => (path == wanted).then_some(-1000),
        PathPattern::Prefix(wanted) => {
            let base = wanted.strip_suffix('/').unwrap_or(wanted);
            let below = path.starts_with(&format!("{base}/"));
            let fits = path == wanted || below;
            fits.then_some(-(wanted.len() as isize) - 1)
        }
        PathPattern::Regex(regex) => regex.is_match(path).then_some(-1),
    }
}

fn matcher() -> impl Strategy<Value = Match> {
    let host = prop_oneof![
        Just("a.b.c"),
        Just("b.c"),
        Just("c"),
        Just("*.b.c"),
        Just("*.c"),
        Just("*.a.b.c"),
    ];
    let path = prop_oneof![
        Just(PathPattern::Any),
        path().prop_map(PathPattern::Exact),
        path().prop_map(PathPattern::Prefix),
        Just(PathPattern::Prefix("/x/".to_owned())),
        "[xy]".prop_map(|text| PathPattern::Regex(regex(&text))),
    ];
    let methods = prop_oneof![
        3 => Just(vec![]), 1 => Just(vec![Method::GET]), 1 => Just(vec![Method::POST, Method::GET]),
    ];
    let query = proptest::collection::vec(prop_oneof![Just("p"), Just("q")], 0..2);
    (proptest::collection::vec(host, 0..3), path, methods, query).prop_map(
        |(hosts, path, methods, query)| Match {
            methods,
            query: query
                .into_iter()
                .map(|name| is(name.to_owned(), "1"))
                .collect(),
            ..on(&hosts, path)
        },
    )
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![Just("x"), Just("y"), Just("xy")], 0..4)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

fn request() -> impl Strategy<Value = Request> {
    let host = prop_oneof![
        Just("z.a.b.c"),
        Just("a.b.c"),
        Just("b.c"),
        Just("c"),
        Just("d")
    ];
    let query = prop_oneof![Just(""), Just("?p=1"), Just("?q=1&p=1"), Just("?q=2")];
    let method = prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::PUT)];
    (host, path(), query, method)
        .prop_map(|(host, path, query, method)| get(host, &format!("{path}{query}")).method(method))
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} {} {:?}",
            self.method, self.host, self.path, self.query
        )
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_router_finds_what_a_naive_search_finds(
        matchers in proptest::collection::vec(matcher(), 0..12),
        requests in proptest::collection::vec(request(), 1..8),
    ) {
        let router = router(matchers.clone());
        for request in &requests {
            prop_assert_eq!(request.asked_of(&router), naive(&matchers, request), "{:?}", request);
        }
    }
}
