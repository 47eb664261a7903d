//! What belongs to one visitor: not stored unless the route says so, never given to another, and
//! found out where the application forgot to say it.

use crate::cache::{cached_in, counting};
use crate::cache_purge::purge;
use crate::support::{Answer, Ask, Edge, Gate, Origin, wait};

const SESSIONS: &str = "session_cookies = [\"sid\", \"remember\"]";

/// Whose the request is, by all that says so.
fn whose(seen: &crate::support::Seen) -> String {
    let cookie = seen.all("cookie").join("; ");
    let token = seen.field("authorization").unwrap_or_default();
    format!("{token}|{cookie}")
}

/// Tells every visitor who he is, and forgets to say that it is for him alone.
fn careless() -> Origin {
    Origin::start(|seen| Answer::ok(whose(seen)).field("Cache-Control", "public, max-age=600"))
}

fn session(target: &str, value: &str) -> Ask {
    Ask::get(target).field("Cookie", &format!("theme=dark; sid={value}"))
}

#[test]
fn replies_to_sessions_are_not_stored_and_the_reason_is_said_and_counted() {
    let origin = careless();
    let edge = cached_in(&origin, SESSIONS, "{}");
    for (ask, detail) in [
        (session("/a", "alice"), "session"),
        (
            Ask::get("/a")
                .field("Cookie", "a=b")
                .field("Cookie", "remember=1"),
            "session",
        ),
        (Ask::get("/a").field("Cookie", "sid="), "session"),
        (
            Ask::get("/a").field("Authorization", "Bearer alice"),
            "authorization",
        ),
    ] {
        let reason = format!("tidegate_cache_not_stored_total{{reason=\"{detail}\"}}");
        let before = edge.metric(&reason);
        for _ in 0..2 {
            let reply = edge.ask(&ask).expect(200);
            let said = reply.cache_status();
            assert!(
                said.contains(&format!("detail={detail}")),
                "{ask:?}: {said}"
            );
        }
        edge.await_metric(&reason, before + 2.0);
    }
    let plain = Ask::get("/a").field("Cookie", "theme=dark; mysid=1; sid2=2");
    assert!(!edge.ask(&plain).expect(200).is_hit());
    assert!(edge.ask(&plain).expect(200).is_hit(), "no session of ours");
    // What is there for all is there for them too.
    let hit = edge.ask(&session("/a", "alice")).expect(200);
    assert!(hit.is_hit() && !hit.text().contains("alice"), "{hit:?}");
    let hit = edge.ask(&Ask::get("/a").field("Authorization", "Bearer alice"));
    assert!(hit.is_hit() && !hit.text().contains("alice"), "{hit:?}");
}

#[test]
fn replies_to_sessions_are_stored_where_the_route_shares_them() {
    let origin = Origin::start(|_| Answer::fresh(600, "the same for all"));
    let edge = cached_in(&origin, SESSIONS, "{ share_sessions = true }");
    edge.ask(&session("/a", "alice")).expect(200);
    assert!(edge.ask(&session("/a", "bob")).expect(200).is_hit());
    assert!(edge.get("/a").expect(200).is_hit());
    edge.ask(&Ask::get("/b").field("Authorization", "x"))
        .expect(200);
    assert!(
        !edge.get("/b").expect(200).is_hit(),
        "sessions are not credentials"
    );
}

#[test]
fn a_personal_request_reads_along_with_what_is_for_all() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |_, a| a.field("Cache-Control", "max-age=600").when(&held));
    let edge = cached_in(&origin, SESSIONS, "{}");
    let mut leader = edge.plain();
    leader.send(Ask::get("/a").bytes());
    wait::eventually("the fetch", wait::SOON, || origin.count() == 1);
    let mut followers = [
        session("/a", "alice"),
        Ask::get("/a").field("Authorization", "Bearer bob"),
        Ask::get("/a"),
    ]
    .map(|ask| {
        let mut conn = edge.plain();
        conn.send(ask.bytes());
        conn
    });
    let active = r#"tidegate_requests_active{listener="plain"}"#;
    wait::eventually("all to wait", wait::SOON, || edge.metric(active) >= 4.0);
    gate.open();
    assert_eq!(leader.reply().expect(200).text(), "/a #0");
    for conn in &mut followers {
        let reply = conn.reply().expect(200);
        assert_eq!(reply.text(), "/a #0");
        assert!(reply.cache_status().contains("collapsed"), "{reply:?}");
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn nobody_waits_for_a_personal_request_or_gets_its_reply() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |seen| {
        let personal = whose(seen) != "|";
        let answer = Answer::ok(whose(seen)).field("Cache-Control", "public, max-age=600");
        if personal { answer.when(&held) } else { answer }
    });
    let edge = cached_in(&origin, SESSIONS, "{}");
    let asks = [
        session("/a", "alice"),
        session("/a", "bob"),
        Ask::get("/a").field("Authorization", "Bearer carol"),
    ];
    let mut conns = asks.each_ref().map(|ask| {
        let mut conn = edge.plain();
        conn.send(ask.bytes());
        conn
    });
    wait::eventually("one fetch each", wait::SOON, || origin.count() == 3);
    let plain = edge.get("/a").expect(200);
    assert_eq!(plain.text(), "|", "a stranger saw what is another's");
    gate.open();
    for (conn, name) in conns.iter_mut().zip(["alice", "bob", "carol"]) {
        let text = conn.reply().expect(200).text();
        assert!(text.contains(name), "{name} got {text}");
    }
    let after = edge.get("/a").expect(200);
    assert!(after.is_hit(), "{after:?}");
    assert_eq!(
        after.text(),
        "|",
        "a personal reply took the place of the page"
    );
}

/// Under many at once, with pages that grow stale all the time.
#[test]
fn no_visitor_sees_another_whatever_the_order_of_requests() {
    let origin = Origin::start(|seen| {
        Answer::ok(whose(seen))
            .field(
                "Cache-Control",
                "public, max-age=1, stale-while-revalidate=1",
            )
            .after(wait::millis(2))
    });
    let edge = cached_in(&origin, SESSIONS, "{ early_refresh = \"500ms\" }");
    let until = wait::now() + wait::secs(4);
    std::thread::scope(|scope| {
        for visitor in 0..8 {
            let edge = &edge;
            scope.spawn(move || {
                let name = format!("visitor-{visitor}");
                let mut conn = edge.plain();
                let mut round = 0;
                while wait::now() < until {
                    round += 1;
                    let target = format!("/{}", round % 3);
                    let ask = match visitor % 4 {
                        0 => Ask::get(&target),
                        1 => Ask::get(&target).field("Authorization", &name),
                        _ => session(&target, &name),
                    };
                    let reply = conn.ask(&ask).expect(200);
                    if reply.field("connection") == Some("close") {
                        // max_requests_per_connection.
                        conn = edge.plain();
                    }
                    let text = reply.text();
                    let own = visitor % 4 != 0 && text.contains(&name);
                    assert!(own || text == "|", "{name} got {text}");
                }
            });
        }
    });
}

/// What comes back for a session is not stored, so fetching it behind the scenes would be for
/// nothing.
#[test]
fn a_stale_page_is_not_refreshed_by_a_request_whose_reply_is_not_stored() {
    let origin = counting(|_, a| a.field("Cache-Control", "max-age=0, stale-while-revalidate=600"));
    let edge = cached_in(&origin, SESSIONS, "{}");
    let old = edge.get("/a").text();
    for ask in [
        session("/a", "x"),
        Ask::get("/a").field("Authorization", "x"),
    ] {
        let reply = edge.ask(&ask).expect(200);
        assert!(reply.is_hit(), "{reply:?}");
        assert_eq!(reply.text(), old);
    }
    wait::always("no fetch", wait::millis(300), || origin.count() == 1);
    assert!(edge.get("/a").is_hit());
    wait::eventually("the renewal", wait::SOON, || edge.get("/a").text() != old);
}

fn compared(edge: &Edge, result: &str) -> f64 {
    edge.metric(&format!(
        "tidegate_cache_compared_sessions_total{{route=\"pages\",result=\"{result}\"}}"
    ))
}

#[test]
fn pages_that_are_others_for_a_session_are_found_out() {
    let origin = counting(|seen, a| {
        let who = whose(seen);
        let a = match seen.target.as_str() {
            "/same" => Answer::ok("the same for all"),
            "/different" => Answer::ok(format!("hello {who}")),
            "/unstable" => a,
            "/varies" => Answer::ok(format!("hello {who}")).field("Vary", "Cookie"),
            _ if who.contains("alice") => Answer::new(500, "no"),
            _ => Answer::ok("x"),
        };
        a.field("Cache-Control", "max-age=600")
    });
    let edge = cached_in(&origin, SESSIONS, "{ compare_sessions = \"100%\" }");
    for (target, result, fetches) in [
        ("/same", "same", 2),
        ("/different", "different", 3),
        ("/unstable", "unstable", 3),
        ("/fails", "failed", 2),
    ] {
        edge.get(target).expect(200);
        assert!(edge.get(target).is_hit(), "{target}");
        let before = origin.count_of(target);
        let reply = edge.ask(&session(target, "alice")).expect(200);
        assert!(
            reply.is_hit() && !reply.text().contains("alice"),
            "{target}"
        );
        wait::eventually(result, wait::SOON, || compared(&edge, result) == 1.0);
        assert_eq!(origin.count_of(target) - before, fetches, "{target}");
    }
    let warned = edge.stderr();
    assert!(
        warned.contains("route=\"pages\"") && warned.contains("/different"),
        "{warned}"
    );
    assert!(
        !warned.contains("/same") && !warned.contains("/unstable"),
        "{warned}"
    );
    assert!(
        !warned.contains("alice"),
        "a log is no place for a session: {warned}"
    );

    // With a cookie that says nothing, and where Vary tells visitors apart, there is nothing to find.
    edge.ask(&session("/varies", "alice")).expect(200);
    let plain = Ask::get("/same").field("Cookie", "theme=dark");
    assert!(edge.ask(&plain).is_hit());
    assert_eq!(origin.count_of("/same"), 3);
    let ask = Ask::get("/same").field("Authorization", "Bearer alice");
    assert!(edge.ask(&ask).is_hit());
    wait::eventually("credentials count too", wait::SOON, || {
        compared(&edge, "same") == 2.0
    });
    let bare = origin
        .seen()
        .into_iter()
        .filter(|seen| seen.target == "/same");
    let bare = bare.filter(|seen| whose(seen) == "|" || whose(seen) == "|theme=dark");
    assert_eq!(bare.count(), 3, "one to store it, one of each comparison");
}

#[test]
fn nothing_is_compared_unless_the_route_says_so() {
    let origin = careless();
    let edge = cached_in(&origin, SESSIONS, "{}");
    edge.get("/a").expect(200);
    assert!(edge.ask(&session("/a", "alice")).is_hit());
    wait::always("no fetch", wait::millis(200), || origin.count() == 1);
}

/// An application that says `private` to those who are signed in says it of them, not of the page.
#[test]
fn a_personal_reply_says_nothing_of_the_page_that_is_for_all() {
    let origin = Origin::start(|seen| {
        let answer = match (whose(seen).as_str(), seen.field("if-none-match")) {
            ("|", Some("\"v1\"")) => Answer::new(304, ""),
            ("|", _) => Answer::ok("for all"),
            (who, _) => return Answer::ok(who).field("Cache-Control", "private"),
        };
        answer
            .field("Cache-Control", "max-age=600")
            .field("ETag", "\"v1\"")
    });
    let edge = cached_in(&origin, SESSIONS, "{}");
    edge.get("/a").expect(200);
    for ask in [
        session("/a", "alice"),
        Ask::get("/a").field("Authorization", "Bearer alice"),
        session("/a", "alice").field("Range", "bytes=0-1"),
        Ask::head("/a")
            .field("Cookie", "sid=alice")
            .field("If-Match", "\"v1\""),
    ] {
        purge(&edge, "soft=true&url=http://shop.test/a");
        let reply = edge.ask(&ask);
        assert!(matches!(reply.status, 200 | 206), "{ask:?}: {reply:?}");
        assert!(!reply.is_hit(), "{ask:?}: {reply:?}");
        let known = edge.json("/cache/inspect?url=http://shop.test/a");
        assert_eq!(known["not_shared"], false, "nobody waits any more: {ask:?}");
        assert_eq!(known["decision"], "validate", "it was taken away: {ask:?}");
        let plain = edge.get("/a").expect(200);
        assert_eq!(plain.text(), "for all");
        let said = plain.cache_status();
        assert!(said.contains("fwd-status=304"), "{ask:?}: {said}");
    }
}
