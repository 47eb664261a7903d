//! What makes two requests the same page, where the route says more than the URL: query rules, key
//! headers and key cookies, and that whatever takes a page away takes all of its keys.

use crate::cache::{cached, counting};
use crate::cache_purge::purge;
use crate::support::{Answer, Ask, Edge, Gate, Origin, Setup, wait};

fn fresh() -> Origin {
    counting(|_, a| a.field("Cache-Control", "max-age=600"))
}

/// Which of these requests are one page: the place of the first that gave the same body.
#[track_caller]
fn groups(edge: &Edge, asks: &[Ask]) -> Vec<usize> {
    let texts: Vec<String> = asks
        .iter()
        .map(|ask| edge.ask(ask).expect(200).text())
        .collect();
    let first = |text: &String| texts.iter().position(|one| one == text);
    texts
        .iter()
        .map(|text| first(text).expect("itself"))
        .collect()
}

#[track_caller]
fn same_pages(cache: &str, targets: &[&str], expected: &[usize]) {
    let origin = fresh();
    let edge = cached(&origin, cache);
    let asks: Vec<Ask> = targets.iter().map(|target| Ask::get(target)).collect();
    assert_eq!(groups(&edge, &asks), expected, "{cache}: {targets:?}");
    // The origin gets the query as the client wrote it.
    let seen: Vec<String> = origin.seen().into_iter().map(|seen| seen.target).collect();
    let firsts = expected
        .iter()
        .enumerate()
        .filter(|(at, first)| at == *first);
    let sent: Vec<&str> = firsts.map(|(at, _)| targets[at]).collect();
    assert_eq!(seen, sent);
}

#[test]
fn the_order_of_parameters_counts_unless_the_route_sorts_them() {
    let targets = ["/a?b=2&a=1", "/a?a=1&b=2", "/a?a=1&a=2", "/a?a=2&a=1", "/a"];
    same_pages("{}", &targets, &[0, 1, 2, 3, 4]);
    same_pages("{ sort_query = true }", &targets, &[0, 0, 2, 3, 4]);
}

#[test]
fn dropped_parameters_make_no_difference() {
    let targets = [
        "/a?q=1&utm_source=x",
        "/a?utm_medium=y&q=1",
        "/a?q=1",
        "/a?q=1&gclid=7",
        "/a?q=1&gclidx=7",
        "/a?utm_source=x",
        "/a",
        "/a?q=1&%75tm_source=z",
        "/a?q=1&utm_x=1;user=2",
    ];
    let cache = "{ drop_query = [\"utm_*\", \"gclid\"] }";
    same_pages(cache, &targets, &[0, 0, 0, 0, 4, 5, 5, 0, 8]);
}

#[test]
fn only_kept_parameters_make_a_difference() {
    let targets = [
        "/a?page=1",
        "/a?page=1&x=2",
        "/a?y&page=1",
        "/a?page=2",
        "/a?x=1",
        "/a",
        "/a?Page=1",
    ];
    let cache = "{ keep_query = [\"page\"] }";
    same_pages(cache, &targets, &[0, 0, 0, 3, 4, 4, 4]);
    let targets = ["/a?page=1&sort=up", "/a?sort=up&page=1&x=1", "/a?x=3"];
    let cache = "{ keep_query = [\"page\", \"sort\"], sort_query = true }";
    same_pages(cache, &targets, &[0, 0, 2]);
}

/// The values of key headers and cookies have no bound of 64, unlike variants.
#[test]
fn key_headers_and_cookies_tell_pages_apart() {
    let origin = fresh();
    let edge = cached(
        &origin,
        "{ key_headers = [\"x-market\"], key_cookies = [\"currency\"] }",
    );
    let market = |value: &str| Ask::get("/a").field("X-Market", value);
    let cookie = |value: &str| Ask::get("/a").field("Cookie", value);
    let asks = [
        Ask::get("/a"),
        market("eu"),
        market(""),
        market("us"),
        cookie("currency=eur"),
        cookie("theme=dark; currency=eur"),
        cookie("theme=dark"),
        cookie("currency=chf"),
        market("eu").field("Cookie", "currency=eur"),
        market("eu").field("X-Market", "us"),
        Ask::get("/a").field("X-Other", "eu"),
    ];
    assert_eq!(groups(&edge, &asks), [0, 1, 2, 3, 4, 4, 0, 7, 8, 9, 0]);
    let many: Vec<Ask> = (0..100).map(|n| market(&format!("m{n}"))).collect();
    for ask in &many {
        edge.ask(ask).expect(200);
    }
    assert!(
        many.iter().all(|ask| edge.ask(ask).is_hit()),
        "one pushed out another"
    );
}

#[test]
fn whatever_takes_the_page_away_takes_all_of_its_keys() {
    let origin = counting(|seen, a| match seen.method.as_str() {
        "GET" => a.field("Cache-Control", "max-age=600"),
        _ => Answer::new(200, "done").field("Location", "/list"),
    });
    let edge = cached(
        &origin,
        "{ key_headers = [\"x-market\"], key_cookies = [\"currency\"], drop_query = [\"utm_*\"] }",
    );
    let asks: Vec<Ask> = ["/a?q=1", "/list", "/else"]
        .into_iter()
        .flat_map(|target| {
            [
                Ask::get(target),
                Ask::get(target).field("X-Market", "eu"),
                Ask::get(target).field("Cookie", "currency=chf"),
            ]
        })
        .collect();
    let fill = || {
        for ask in &asks {
            edge.ask(ask).expect(200);
            assert!(edge.ask(ask).is_hit(), "{ask:?}");
        }
    };
    let hits = || -> Vec<bool> { asks.iter().map(|ask| edge.ask(ask).is_hit()).collect() };
    let (t, f) = (true, false);

    fill();
    let url = "url=http://shop.test/a?q=1&utm_source=x";
    assert_eq!(
        purge(&edge, &format!("dry_run=true&{url}"))["would_purge"],
        3
    );
    assert_eq!(purge(&edge, url)["purged"], 3);
    assert_eq!(hits(), [f, f, f, t, t, t, t, t, t]);

    fill();
    assert_eq!(
        purge(&edge, "soft=true&url=http://shop.test/list")["purged"],
        3
    );
    assert_eq!(hits(), [t, t, t, f, f, f, t, t, t]);

    fill();
    let post = Ask::post("/a?utm_medium=y&q=1", "x").field("X-Market", "us");
    edge.ask(&post).expect(200);
    assert_eq!(
        hits(),
        [f, f, f, f, f, f, t, t, t],
        "the page and its Location"
    );

    fill();
    edge.ask(&Ask::new("DELETE", "/else")).expect(200);
    assert_eq!(hits(), [t, t, t, f, f, f, f, f, f]);
}

/// An unsafe request cannot wait for the memory to be given back, so that comes a little later.
#[test]
fn what_a_filter_makes_of_the_path_is_part_of_the_key() {
    let origin = fresh();
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        [filter.small]
        rewrite = { prefix = "/", to = "/m" }
        [[route]]
        match = { headers = { x-device = "phone" } }
        upstream = "app"
        filters = ["small"]
        cache = {}
        [[route]]
        upstream = "app"
        cache = {}
        "#,
    );
    let asks = [
        Ask::get("/p").field("X-Device", "phone"),
        Ask::get("/p"),
        Ask::get("/m/p"),
    ];
    for _ in 0..2 {
        let texts: Vec<_> = asks
            .iter()
            .map(|ask| edge.ask(ask).expect(200).text())
            .collect();
        assert_eq!(texts, ["/m/p #0", "/p #1", "/m/p #2"]);
    }
    // Both go by what clients ask for.
    purge(&edge, "url=http://shop.test/p");
    assert_eq!(edge.ask(&asks[0]).text(), "/m/p #3");
    assert_eq!(edge.ask(&asks[1]).text(), "/p #4");
    assert_eq!(edge.ask(&asks[2]).text(), "/m/p #2");
}

#[test]
fn a_host_that_a_filter_says_is_part_of_the_key() {
    let origin = Origin::start(|seen| {
        let host = seen.field("host").unwrap_or_default().to_owned();
        Answer::fresh(600, format!("{host} #{}", seen.nth))
    });
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        [filter.mobile]
        request_headers = { set = { host = "m.shop.test" } }
        [[route]]
        match = { headers = { x-device = "phone" } }
        upstream = "app"
        filters = ["mobile"]
        cache = {}
        [[route]]
        upstream = "app"
        cache = {}
        "#,
    );
    let asks = [Ask::get("/p").field("X-Device", "phone"), Ask::get("/p")];
    for _ in 0..2 {
        let texts: Vec<_> = asks
            .iter()
            .map(|ask| edge.ask(ask).expect(200).text())
            .collect();
        assert_eq!(texts, ["m.shop.test #0", "shop.test #1"]);
    }
    purge(&edge, "url=http://shop.test/p");
    assert_eq!(edge.ask(&asks[0]).text(), "m.shop.test #2");
    assert_eq!(edge.ask(&asks[1]).text(), "shop.test #3");
}

#[test]
fn what_a_trusted_proxy_asks_of_another_host_is_not_stored() {
    let origin = Origin::start(|seen| {
        let host = seen
            .field("x-forwarded-host")
            .unwrap_or_default()
            .to_owned();
        Answer::fresh(600, format!("{host} #{}", seen.nth))
    });
    for trusted in [true, false] {
        let before = origin.count();
        let network = if trusted { "127.0.0.1" } else { "10.0.0.1" };
        let edge = Setup::new().with("APP", origin.address).start(&format!(
            "[server]\ntrusted_proxies = [\"{network}\"]\n[upstream.app]\nendpoints = [\"@APP@\"]\n\
             [[route]]\nupstream = \"app\"\ncache = {{}}\n"
        ));
        let ask = |host: &str| Ask::get("/p").field("X-Forwarded-Host", host);
        for host in ["a.test", "b.test", "shop.test", "SHOP.test", "a.test"] {
            let text = edge.ask(&ask(host)).expect(200).text();
            let wanted = if trusted { host } else { "shop.test" };
            assert!(
                text.to_lowercase().starts_with(&wanted.to_lowercase()),
                "{text}"
            );
        }
        // Two of the five are of the host itself.
        let asked = origin.count() - before;
        assert_eq!(asked, if trusted { 4 } else { 1 });
    }
}

#[test]
fn the_memory_of_what_an_unsafe_request_took_away_is_given_back() {
    let origin = fresh();
    let edge = cached(&origin, "{ key_headers = [\"x-market\"] }");
    for market in ["eu", "us", "ch"] {
        edge.ask(&Ask::get("/a").field("X-Market", market))
            .expect(200);
    }
    wait::eventually("three entries", wait::SOON, || {
        edge.metric("tidegate_cache_entries") == 3.0
    });
    edge.ask(&Ask::post("/a", "x")).expect(200);
    wait::eventually("no entry", 2 * wait::SOON, || {
        edge.metric("tidegate_cache_entries") == 0.0
    });
}

#[test]
fn what_is_on_its_way_under_another_key_of_a_purged_page_is_not_stored() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |seen, a| {
        let a = a.field("Cache-Control", "max-age=600");
        if seen.nth == 0 { a.when(&held) } else { a }
    });
    let edge = cached(&origin, "{ key_headers = [\"x-market\"] }");
    let ask = Ask::get("/a").field("X-Market", "eu");
    let mut first = edge.plain();
    first.send(ask.bytes());
    wait::eventually("the fetch", wait::SOON, || origin.count() == 1);
    purge(&edge, "url=http://shop.test/a");
    gate.open();
    first.reply().expect(200);
    assert_eq!(edge.ask(&ask).expect(200).text(), "/a #1");
    assert!(edge.ask(&ask).is_hit());
}
