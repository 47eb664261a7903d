//! Requests past the cache of their route, and requests that filters change.

use super::*;

fn cached_edge(origin: &Origin, lane: &str) -> Edge {
    Setup::new()
        .with("APP", origin.address)
        .with("LANE", lane)
        .file("pages/gone.html", "<p>gone {status}")
        .start(
            r#"
            [server]
            workers = 1
            lane = "@LANE@"
            [log]
            access = { path = "access.log" }
            [cache]
            session_cookies = ["sid"]
            purge_from = ["192.0.2.0/24"]
            [error_pages.own]
            root = "pages"
            pages = { "410" = "gone.html" }
            upstream = true
            [upstream.app]
            endpoints = ["@APP@"]
            first_byte_timeout = "1s"
            retry = { attempts = 2, on = ["connect_failure", "reset", "502"], budget = "100%" }
            outlier_detection = { consecutive_errors = 100000 }
            [filter.dressed]
            request_headers = { remove = ["accept"], set = { host = "inner.example", x-set = "1", cookie = "sid=9" }, add = { x-add = "2", x-a = "3" } }
            response_headers = { remove = ["set-cookie"], set = { x-reply = "4" } }
            [filter.moved]
            request_headers = { set = { x-set = "1" } }
            rewrite = { prefix = "/moved", to = "/" }
            [filter.barred]
            respond = { status = 418, body = "barred" }
            [[route]]
            match = { path_prefix = "/fixed" }
            respond = { status = 200, body = "fixed" }
            [[route]]
            match = { path_prefix = "/warm" }
            upstream = "app"
            [[route]]
            match = { path_prefix = "/dressed" }
            filters = ["dressed"]
            upstream = "app"
            error_pages = "own"
            [[route]]
            match = { path_prefix = "/moved" }
            filters = ["moved"]
            upstream = "app"
            [[route]]
            match = { path_prefix = "/barred" }
            filters = ["dressed", "barred"]
            upstream = "app"
            [[route]]
            match = { path_prefix = "/both" }
            filters = ["dressed"]
            upstream = "app"
            cache = {}
            [[route]]
            upstream = "app"
            cache = { ttl = "0s" }
            error_pages = "own"
            "#,
        )
}

/// Two edges that differ in `[server] lane`, and their origins.
struct Pair {
    origins: [Origin; 2],
    edges: [Edge; 2],
}

impl Pair {
    fn new(origin: impl Fn() -> Origin) -> Self {
        let origins = [origin(), origin()];
        let edges = [
            cached_edge(&origins[0], "on"),
            cached_edge(&origins[1], "off"),
        ];
        Self { origins, edges }
    }

    /// What both tell of `ask`, where it is the same.
    fn told(&self, ask: &Ask, by: By) -> Result<Told, String> {
        let [short, long] = &self.edges;
        let [one, other] = &self.origins;
        let (here, there) = std::thread::scope(|scope| {
            let here = scope.spawn(|| told(short, one, ask, by));
            let there = told(long, other, ask, by);
            (here.join().expect("told"), there)
        });
        let cut = |told: &Told| format!("{told:?}").chars().take(2000).collect::<String>();
        match here == there {
            true => Ok(here),
            false => Err(format!("{ask:?}:\n{}\n{}", cut(&here), cut(&there))),
        }
    }

    /// How often the app was asked on the short way, without what warmed the connections up.
    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|at| {
            let seen = self.origins[at].seen();
            let short = seen
                .iter()
                .filter(|seen| is_of_the_short_way(seen) && seen.target != "/warm");
            short.count()
        })
    }

    fn expect_same_counts(&self, requests: usize) {
        let [short, long] = &self.edges;
        assert_eq!(logged(short, requests), logged(long, requests));
        for series in [
            "tidegate_upstream_errors_total",
            "tidegate_upstream_attempts_total",
            "tidegate_cache_requests_total",
            "tidegate_cache_not_stored_total",
        ] {
            assert_eq!(short.metric(series), long.metric(series), "{series}");
        }
    }
}

/// Asks each of what `asks` gives for each kind of reply; most of them are to be taken by the short
/// way.
#[track_caller]
fn compare(by: By, asks: impl Fn(usize) -> Vec<Ask>) {
    let pair = Pair::new(origin);
    let mut differ = Vec::new();
    let mut count = 0;
    for (nth, (name, _)) in replies().iter().enumerate() {
        for ask in asks(nth) {
            count += 1;
            if let Err(how) = pair.told(&ask, by) {
                differ.push(format!("{name}: {how}"));
            }
        }
    }
    assert!(
        differ.is_empty(),
        "short and long way differ: {}",
        differ.join("\n")
    );
    let [short, long] = pair.counts();
    assert!(short > count / 2, "{short} of {count} took the short way");
    assert_eq!(long, 0);
    pair.expect_same_counts(count);
}

fn of_a_visitor(nth: usize) -> Vec<Ask> {
    let get = |way: &str| {
        Ask::get(&format!("/{way}?case={nth}"))
            .field("Accept-Encoding", "br, x-unknown")
            .field("If-None-Match", "\"x\"")
    };
    vec![
        get("session").field("Cookie", "a=1; sid=7"),
        get("authorized").field("Authorization", "Basic eA=="),
        get("unstored").field("Cache-Control", "no-store"),
    ]
}

#[test]
fn a_visitors_own_requests_are_answered_alike_on_both_ways() {
    compare(By::H1, of_a_visitor);
}

#[test]
fn so_they_are_over_http2() {
    compare(By::H2, of_a_visitor);
}

#[test]
fn uploads_on_cached_routes_are_answered_alike() {
    for by in [By::H1, By::H2] {
        let again = Pair::new(origin);
        let (mut once, mut short) = (0, 0);
        for (nth, (name, _)) in replies().iter().enumerate() {
            let target = format!("/order?case={nth}");
            let ask = match nth % 4 {
                0 => Ask::post(&target, "one of these"),
                1 => Ask::new("DELETE", &target),
                _ => Ask::new("PUT", &target).body("two of those"),
            };
            // What an endpoint did before counts for one that may not be sent again: it is new then.
            let fresh = (ask.method() == "POST").then(|| Pair::new(origin));
            let pair = fresh.as_ref().unwrap_or(&again);
            if let Err(how) = pair.told(&ask, by) {
                panic!("{name}: {how}");
            }
            if let Some(pair) = fresh {
                once += 1;
                short += pair.counts()[0];
                pair.expect_same_counts(1);
            }
        }
        again.expect_same_counts(replies().len() - once);
        short += again.counts()[0];
        assert!(short > 30, "{short} took the short way");
    }
}

#[test]
fn pages_that_are_for_one_only_are_answered_alike_the_second_time() {
    for by in [By::H1, By::H2] {
        let pair = Pair::new(origin);
        let mut count = 0;
        for (nth, (name, _)) in replies().iter().enumerate() {
            let ask = Ask::get(&format!("/page?case={nth}"));
            for _ in 0..2 {
                count += 1;
                if let Err(how) = pair.told(&ask, by) {
                    panic!("{name}: {how}");
                }
            }
        }
        let [short, _] = pair.counts();
        assert!(short * 3 > count, "{short} of {count} took the short way");
    }
}

#[test]
fn a_page_that_becomes_one_for_all_is_stored() {
    let origin = || {
        Origin::start(|seen| match seen.target.as_str() {
            "/warm" => Answer::ok("warm"),
            // Who asks for it with his cookie counts, too.
            _ => match seen.field("x-turn") {
                Some("stored") => Answer::fresh(60, "for all"),
                _ => Answer::ok("for one").field("Cache-Control", "private"),
            },
        })
    };
    for by in [By::H1, By::H2] {
        let pair = Pair::new(origin);
        let ask = Ask::get("/page?case=1");
        let own = ask.clone().field("Cookie", "sid=1");
        let later = ask.clone().field("X-Turn", "stored");
        for (step, ask) in [&ask, &ask, &own, &later, &ask, &own]
            .into_iter()
            .enumerate()
        {
            let told = pair
                .told(ask, by)
                .unwrap_or_else(|how| panic!("{step}: {how}"));
            let (status, fields, body, _) = told.reply.expect("a reply");
            let said = fields.iter().find(|(name, _)| name == "cache-status");
            let said =
                said.map(|(_, value)| value.split(';').nth(1).unwrap_or_default().to_owned());
            let (text, what) = match step {
                0..=2 => ("for one", "fwd=uri-miss"),
                3 => ("for all", "fwd=uri-miss"),
                _ => ("for all", "hit"),
            };
            assert_eq!((status, body.as_str()), (200, text), "{step}");
            assert_eq!(said.as_deref(), Some(what), "{step}");
        }
        assert_eq!(pair.counts(), [3, 0]);
    }
}

#[test]
fn an_upload_takes_out_what_it_makes_untrue() {
    let origin = || {
        Origin::start(|seen| match (seen.method.as_str(), seen.target.as_str()) {
            (_, "/warm") => Answer::ok("warm"),
            ("GET", _) => Answer::fresh(60, format!("#{}", seen.nth)),
            (_, "/refused") => Answer::new(409, "no"),
            _ => Answer::new(201, "done")
                .field("Location", "/made")
                .field("Content-Location", "https://elsewhere.example/kept")
                .field("Surrogate-Key", "a b"),
        })
    };
    for by in [By::H1, By::H2] {
        let pair = Pair::new(origin);
        let is_hit = |target: &str| {
            let told = pair.told(&Ask::get(target), by);
            let (_, fields, ..) = told
                .unwrap_or_else(|how| panic!("{how}"))
                .reply
                .expect("200");
            let said = fields.iter().find(|(name, _)| name == "cache-status");
            said.is_some_and(|(_, value)| value.contains(";hit"))
        };
        let all = ["/a?x=1", "/made", "/kept", "/refused"];
        for target in all {
            assert!(!is_hit(target));
            wait::eventually("it is stored", wait::SOON, || is_hit(target));
        }
        for target in ["/a?x=1", "/refused"] {
            let ask = Ask::post(target, "body");
            pair.told(&ask, by).unwrap_or_else(|how| panic!("{how}"));
        }
        assert_eq!(pair.counts(), [2, 0], "both by the short way");
        assert_eq!(all.map(is_hit), [false, false, true, true]);
        // Not the app's, nor this client's.
        let told = pair.told(&Ask::new("PURGE", "/kept"), by);
        let told = told.unwrap_or_else(|how| panic!("{how}"));
        assert_eq!(told.reply.expect("a reply").0, 403);
        assert_eq!(told.asked, []);
    }
}

#[test]
fn requests_that_filters_change_go_up_alike() {
    let pair = Pair::new(origin);
    let ask = |method: &str, target: &str| {
        Ask::new(method, target)
            .field("Accept", "text/html")
            .field("X-A", "b")
            .field("x-a", "c")
            .field("Cookie", "a=1")
            .field("X-Set", "theirs")
    };
    let mut count = 0;
    for by in [By::H1, By::H2] {
        for (target, asked) in [
            ("/dressed/a//b", "/dressed/a/b"),
            ("/moved/a?x=1", "/a?x=1"),
            ("/both", "/both"),
        ] {
            for method in ["GET", "HEAD", "POST", "DELETE", "M-SEARCH"] {
                let mut ask = ask(method, target);
                if method == "POST" {
                    ask = ask.body("a body");
                }
                let told = pair.told(&ask, by).unwrap_or_else(|how| panic!("{how}"));
                count += 1;
                assert_eq!(told.reply.expect("a reply").0, 200, "{ask:?}");
                let (line, fields, _) = told
                    .asked
                    .iter()
                    .find(|(line, ..)| !line.contains("/warm"))
                    .expect("the app was asked");
                assert!(line.contains(&format!(" {asked} HTTP/1.1")), "{line}");
                let of = |name: &str| -> Vec<&str> {
                    let named = fields.iter().filter(|(n, _)| n == name);
                    named.map(|(_, value)| value.as_str()).collect()
                };
                assert_eq!(of("x-set"), ["1"]);
                if !target.starts_with("/moved") {
                    assert_eq!(of("x-a"), ["b", "c", "3"]);
                    assert_eq!(of("host"), ["inner.example"]);
                    assert_eq!(of("cookie"), ["sid=9"]);
                    assert_eq!(of("accept"), <[&str; 0]>::default());
                }
            }
        }
    }
    let [short, long] = pair.counts();
    // All but HEAD on a cached route.
    assert_eq!((short, long), (count - 2, 0));
    let respelt = Ask::get("/dressed/x").host("SHOP.example:80");
    let told = pair.told(&respelt, By::H1).expect("alike");
    let mut asked = told.asked.iter();
    let of_it = asked.find(|(line, ..)| line.contains("/dressed/x"));
    let (_, fields, _) = of_it.expect("the app was asked");
    let of = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    };
    // The filter's counts for Host, and the client's, in its one spelling, beside it.
    assert_eq!(of("host"), Some("inner.example"));
    assert_eq!(of("x-forwarded-host"), Some("shop.example"));
    let told = pair.told(&Ask::get("/barred"), By::H1);
    assert_eq!(told.expect("alike").reply.expect("a reply").0, 418);
}
