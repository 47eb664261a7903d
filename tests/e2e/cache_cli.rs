//! `tidegate purge` and `tidegate cache` against a running edge.

use std::path::Path;
use std::process::Command;

use crate::cache::counting;
use crate::support::edge::binary;
use crate::support::tools::{Finished, run};
use crate::support::{Ask, Edge, Origin, Setup, wait};

fn edge(origin: &Origin) -> Edge {
    Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        name = "pages"
        upstream = "app"
        cache = { vary = ["accept-language"] }
        "#,
    )
}

fn tagged() -> Origin {
    counting(|seen, a| {
        a.field("Cache-Control", "max-age=60, stale-while-revalidate=600")
            .field("Surrogate-Key", &format!("all {}", &seen.target[1..]))
    })
}

fn tidegate(folder: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder);
    run(&mut command, wait::SOON)
}

#[track_caller]
fn said(edge: &Edge, arguments: &[&str]) -> String {
    let (command, rest) = arguments.split_at(if arguments[0] == "cache" { 2 } else { 1 });
    let all = [command, &["-c", "tidegate.toml"], rest].concat();
    let finished = tidegate(edge.folder(), &all);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout
}

#[test]
fn pages_are_purged_by_all_their_names() {
    let origin = tagged();
    let edge = edge(&origin);
    let fill = || {
        for target in ["/a", "/b", "/c/1", "/c/2"] {
            edge.get(target).expect(200);
        }
        let german = Ask::get("/a").field("Accept-Language", "de");
        edge.ask(&german).expect(200);
    };
    for (arguments, objects) in [
        (
            &["purge", "http://shop.test/a", "http://shop.test/b"][..],
            3,
        ),
        (&["purge", "--tag", "b"], 1),
        (&["purge", "--prefix", "http://shop.test/c/"], 2),
        (&["purge", "--host", "shop.test"], 5),
        (&["purge", "--all"], 5),
    ] {
        fill();
        let dry = said(&edge, &[arguments, &["--dry-run"]].concat());
        let counted = match objects {
            1 => "1 object\n".to_owned(),
            objects => format!("{objects} objects\n"),
        };
        assert_eq!(dry, format!("would purge {counted}"), "{arguments:?}");
        assert_eq!(said(&edge, arguments), format!("purged {counted}"));
        assert_eq!(
            said(&edge, arguments),
            "purged 0 objects\n",
            "{arguments:?}"
        );
    }
    fill();
    let stale = said(&edge, &["purge", "--tag", "all", "--soft"]);
    assert_eq!(stale, "made 5 objects stale\n");
    let reply = edge.get("/a").expect(200);
    assert!(
        reply.is_hit(),
        "stale, and served while it is fetched: {reply:?}"
    );
    let status = reply.cache_status();
    assert!(
        status.contains("ttl=0") || status.contains("ttl=-"),
        "{reply:?}"
    );
}

#[test]
fn an_inspection_says_what_is_stored_and_what_would_be_done() {
    let origin = tagged();
    let edge = edge(&origin);
    let german = Ask::get("/a").field("Accept-Language", "de");
    edge.ask(&german).expect(200);
    edge.ask(&german).expect(200);
    let url = "http://shop.test/a";
    let plain = said(&edge, &["cache", "inspect", url]);
    assert!(plain.contains("decision  fetch:"), "{plain}");
    assert!(plain.contains("stored    1 variant"), "{plain}");
    let header = "accept-language: de";
    let found = said(&edge, &["cache", "inspect", url, "-H", header]);
    for part in [
        "route     pages",
        "decision  serve: fresh for",
        "1 hits",
        "for accept-language: de",
        "tags: a all",
    ] {
        assert!(found.contains(part), "no {part:?} in {found}");
    }
    let json = said(&edge, &["cache", "inspect", url, "-H", header, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["decision"], "serve");
    let status = said(&edge, &["cache", "status"]);
    assert!(status.contains("http://shop.test/a"), "{status}");
    assert!(status.contains("1  all"), "{status}");
}

#[test]
fn what_cannot_be_done_is_said_in_a_line() {
    let origin = tagged();
    let mut edge = edge(&origin);
    let folder = edge.folder().to_owned();
    for (arguments, part) in [
        (&["purge", "-c", "tidegate.toml"][..], "nothing to purge"),
        (&["purge", "-c", "tidegate.toml", "/a"], "whole URL"),
        (
            &["purge", "-c", "tidegate.toml", "--host", "a/b"],
            "host is a name",
        ),
        (
            &["cache", "inspect", "-c", "tidegate.toml", "shop.test"],
            "whole URL",
        ),
        (
            &[
                "cache",
                "inspect",
                "-c",
                "tidegate.toml",
                "http://a/",
                "-H",
                "x",
            ],
            "NAME: VALUE",
        ),
    ] {
        let finished = tidegate(&folder, arguments);
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains(part), "{finished:?}");
        assert_eq!(
            finished.stderr.trim_end().lines().count(),
            1,
            "{finished:?}"
        );
    }
    edge.signal(nix::sys::signal::Signal::SIGTERM);
    edge.wait(wait::SOON);
    let finished = tidegate(&folder, &["purge", "-c", "tidegate.toml", "--all"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains("is the edge running?"),
        "{finished:?}"
    );
    std::fs::write(
        folder.join("plain.toml"),
        "[[listener]]\naddress = \"127.0.0.1:1\"\n[[route]]\nrespond = { body = \"ok\" }\n",
    )
    .unwrap();
    let finished = tidegate(&folder, &["purge", "-c", "plain.toml", "--all"]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("[admin]"), "{finished:?}");
}
