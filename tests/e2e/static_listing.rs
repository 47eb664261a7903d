//! Directories that are shown, by the edge and by `tidegate static`.

use std::os::unix::fs::symlink;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::client::once;
use crate::support::edge::binary;
use crate::support::tools::{Running, run};
use crate::support::{Ask, Edge, H2, Reply, Setup, ports, wait};

fn setup() -> Setup {
    let setup = Setup::new()
        .file("site/index.html", "home")
        .file("site/files/b.txt", "bb")
        .file("site/files/a.txt", "a")
        .file("site/files/a.txt.gz", "packed")
        .file("site/files/.hidden", "hidden")
        .file("site/files/<i>&\".txt", "odd")
        .file("site/files/deep/page.html", "page")
        .file("secret.txt", "secret");
    symlink("../../secret.txt", setup.folder().join("site/files/out")).unwrap();
    setup
}

fn edge(more: &str) -> Edge {
    setup().start(&format!(
        "[static.site]\nroot = \"site\"\n{more}\n[[route]]\nstatic = \"site\"\n"
    ))
}

fn json(target: &str) -> Ask {
    Ask::get(target).field("Accept", "application/json")
}

fn names(reply: &Reply) -> Vec<String> {
    let value: Value = serde_json::from_slice(&reply.body).expect("JSON");
    let entries = value.as_array().expect("an array").iter();
    let names = entries.map(|entry| entry["name"].as_str().expect("a name").to_owned());
    names.collect()
}

#[test]
fn a_directory_without_an_index_is_shown_where_that_is_wished() {
    let edge = edge("listing = true");
    let page = edge.get("/files/").expect(200);
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.field("cache-control"), Some("no-cache"));
    assert_eq!(page.field("vary"), Some("accept"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    assert_eq!(page.field("content-security-policy"), Some(policy));
    assert!(page.text().contains("href=\"a.txt\"") && page.text().contains("href=\"deep/\""));
    assert!(!page.text().contains("<i>") && !page.text().contains("hidden"));

    let reply = edge.ask(&json("/files/")).expect(200);
    assert_eq!(reply.field("content-type"), Some("application/json"));
    assert_eq!(names(&reply), ["deep", "<i>&\".txt", "a.txt", "b.txt"]);
    let sorted = edge.ask(&json("/files/?sort=size&order=desc")).expect(200);
    assert_eq!(names(&sorted), ["deep", "<i>&\".txt", "b.txt", "a.txt"]);

    let moved = edge.get("/files?sort=size").expect(301);
    assert_eq!(moved.field("location"), Some("files/?sort=size"));
    assert_eq!(
        edge.get("/").expect(200).text(),
        "home",
        "an index comes first"
    );
    edge.get("/none/").expect(404);
    edge.get("/files/out/").expect(404);
    edge.get("/.git/").expect(404);
}

#[test]
fn a_listing_is_revalidated_and_has_a_head() {
    let edge = edge("listing = true\nfallback = \"index.html\"");
    let page = edge.get("/files/").expect(200);
    let etag = page.field("etag").expect("a tag");
    let again = Ask::get("/files/").field("If-None-Match", etag);
    edge.ask(&again).expect(304);
    let over_h2 = H2::plain(edge.http()).ask(&Ask::get("/files/"));
    assert_eq!((over_h2.status, &over_h2.body), (200, &page.body));
    assert_eq!(over_h2.field("etag"), Some(etag));
    let head = edge.plain().ask(&Ask::head("/files/")).expect(200);
    assert_eq!(head.field("content-length"), page.field("content-length"));
    std::fs::write(edge.folder().join("site/files/new.txt"), "new").unwrap();
    // Told of by the kernel a moment after: long before the page would be made anew by itself.
    let changed = wait::until("the new name", wait::SOON / 2, || {
        Some(edge.ask(&again)).filter(|reply| reply.status == 200)
    });
    assert!(changed.text().contains("new.txt"));
    assert_eq!(
        edge.get("/cart/").expect(200).text(),
        "home",
        "no directory: the fallback"
    );
}

#[test]
fn no_directory_is_shown_otherwise() {
    let edge = edge("");
    for target in ["/files/", "/files", "/files/deep/"] {
        edge.get(target).expect(404);
        edge.ask(&json(target)).expect(404);
    }
}

/// `tidegate static` on the site, with these flags; the line that it says at the start.
fn served(setup: &Setup, flags: &[&str]) -> (Running, std::net::SocketAddr, String) {
    let address = ports::free();
    let mut command = Command::new(binary());
    command.arg("static").arg(setup.folder().join("site"));
    command.arg("--listen").arg(address.to_string()).args(flags);
    let server = Running::start(&mut command);
    let line = wait::until("the start line", wait::SOON, || {
        let said = server.stdout();
        said.lines()
            .next()
            .filter(|_| said.ends_with('\n'))
            .map(str::to_owned)
    });
    (server, address, line)
}

#[test]
fn the_static_command_shows_folders_and_says_what_is_on() {
    let setup = setup();
    let (mut server, address, line) = served(&setup, &[]);
    for part in [
        &format!("http://{address}/")[..],
        "site",
        "index.html",
        "listing",
        ".zst",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    assert!(
        once(address, &Ask::get("/files/"))
            .expect(200)
            .text()
            .contains("href=\"b.txt\"")
    );
    once(address, &Ask::get("/cart")).expect(404);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(wait::SOON), Some(0));
}

#[test]
fn the_static_command_does_what_its_flags_say() {
    let setup = setup().file("site/app.3f9a1c2b.js", "let a;");
    let flags = [
        "--no-listing",
        "--fallback",
        "index.html",
        "--cache-control",
        "no-store",
        "--immutable",
        "files/*",
    ];
    let (_server, address, line) = served(&setup, &flags);
    assert!(
        !line.contains("listing") && line.contains("fallback index.html"),
        "{line}"
    );
    assert_eq!(once(address, &Ask::get("/cart")).expect(200).text(), "home");
    assert_eq!(
        once(address, &Ask::get("/files/")).expect(200).text(),
        "home"
    );
    let life = |target: &str| {
        let reply = once(address, &Ask::get(target)).expect(200);
        reply.field("cache-control").unwrap_or_default().to_owned()
    };
    assert_eq!(life("/index.html"), "no-store");
    assert!(life("/files/a.txt").contains("immutable"));
    assert!(life("/app.3f9a1c2b.js").contains("immutable"));
    let (_server, address, _) = served(&setup, &["--no-immutable"]);
    let reply = once(address, &Ask::get("/app.3f9a1c2b.js")).expect(200);
    assert!(
        !reply
            .field("cache-control")
            .unwrap_or_default()
            .contains("immutable")
    );
}

#[test]
fn the_static_command_keeps_older_releases() {
    let setup = Setup::new()
        .file("releases/1/old.3f9a1c2b.js", "old")
        .file("releases/2/index.html", "new");
    symlink("releases/2", setup.folder().join("site")).unwrap();
    let (_server, address, line) = served(&setup, &["--keep-releases", "2"]);
    assert!(line.contains("2 older releases"), "{line}");
    assert_eq!(
        once(address, &Ask::get("/old.3f9a1c2b.js"))
            .expect(200)
            .text(),
        "old"
    );
    let (_server, address, _) = served(&setup, &[]);
    once(address, &Ask::get("/old.3f9a1c2b.js")).expect(404);
}

#[test]
fn the_static_command_offers_smaller_pictures() {
    let setup = setup().file("site/dot.png", "no picture at all");
    let cache = setup.folder().join("made");
    let (_server, address, line) = served(&setup, &["--images", &cache.display().to_string()]);
    assert!(line.contains("smaller pictures"), "{line}");
    let picture = once(address, &Ask::get("/dot.png?w=320")).expect(200);
    assert_eq!(
        picture.field("vary"),
        Some("accept"),
        "its form is negotiated"
    );
    assert!(cache.is_dir());
}

#[test]
fn the_static_command_says_what_is_wrong_in_one_line() {
    let setup = setup();
    let folder = setup.folder().to_owned();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let free = ports::free().to_string();
    for (dir, flags, code, wanted) in [
        ("none", &["--listen", &free][..], 2, "none"),
        ("secret.txt", &["--listen", &free], 2, "not a directory"),
        ("site", &["--listen", &taken], 1, "in use"),
        (
            "site",
            &["--listen", &free, "--fallback", "none.html"],
            2,
            "none.html",
        ),
        (
            "site",
            &["--listen", &free, "--fallback", "../secret.txt"],
            2,
            "below the root",
        ),
        (
            "site",
            &["--listen", &free, "--keep-releases", "2"],
            2,
            "no symbolic link",
        ),
    ] {
        let mut command = Command::new(binary());
        command.arg("static").arg(folder.join(dir)).args(flags);
        let said = run(&mut command, wait::SOON);
        assert_eq!(said.code, Some(code), "{dir} {flags:?}: {said:?}");
        assert!(said.stderr.contains(wanted), "{dir} {flags:?}: {said:?}");
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    }
    for flags in [
        &["--keep-releases", "0"][..],
        &["--immutable", "a["],
        &["--cache-control", "a\nb"],
    ] {
        let mut command = Command::new(binary());
        command.arg("static").arg(folder.join("site")).args(flags);
        assert_eq!(run(&mut command, wait::SOON).code, Some(2), "{flags:?}");
    }
}
