//! `examples/shop.toml` as it is, but for its ports.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::client::once;
use crate::support::edge::{binary, root};
use crate::support::nginx::Nginx;
use crate::support::tools::{Running, run, tool};
use crate::support::{Ask, Conn, certs, ports, wait};

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("examples/").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copy an example");
        }
    }
}

#[test]
fn the_shop_example_runs_as_it_is() {
    let program = tool!("nginx", "nginx-light");
    let folder = TempDir::with_prefix("tidegate-shop-").expect("a folder");
    copy(&root().join("examples"), folder.path());
    let file = folder.path().join("shop.toml");

    let as_it_is = run(Command::new(binary()).arg("check").arg(&file), wait::SOON);
    assert_eq!(as_it_is.code, Some(0), "{as_it_is:?}");

    let mut text = fs::read_to_string(&file).expect("examples/shop.toml");
    let mut own = Vec::new();
    for port in ["8443", "8080", "9901", "3101", "3102", "3103"] {
        let address = ports::free();
        let old = format!(":{port}\"");
        assert!(text.contains(&old), "shop.toml has no port {port}");
        text = text.replace(&old, &format!(":{}\"", address.port()));
        own.push(address);
    }
    fs::write(&file, text).expect("write the copy");
    let [https, http, admin] = [own[0], own[1], own[2]];
    let pages = "location /catalog { add_header cache-control max-age=60; add_header x-node $server_port; return 200 catalog; }";
    let mut nodes = [("a", own[3]), ("b", own[4]), ("c", own[5])]
        .map(|(name, address)| Nginx::node_at(&program, name, pages, address));

    let mut command = Command::new(binary());
    command.arg("run").arg("--config").arg(&file);
    let edge = Running::start(&mut command);
    wait::eventually("the shop to be ready", wait::SOON, || {
        std::net::TcpStream::connect(admin).is_ok()
            && Conn::open(admin)
                .send(Ask::get("/ready").bytes())
                .read(false)
                .is_ok_and(|r| r.status == 200)
    });
    let visit = |ask: &Ask| {
        let config = certs::client_of_anyone(&["http/1.1"]);
        Conn::tls_with(https, ask.host_name(), config)
            .unwrap_or_else(|e| panic!("{e}\n{}", edge.stderr()))
            .ask(ask)
    };
    let shop = |target: &str| Ask::get(target).host("shop.example");

    // Plain HTTP leads to HTTPS.
    let moved = once(http, &shop("/cart?x=1")).expect(308);
    let location = moved.field("location").expect("a location");
    assert!(location.starts_with("https://shop.example"), "{location}");

    // All three nodes take part.
    let mut seen: Vec<String> = (0..30)
        .map(|_| visit(&shop("/cart")).expect(200).text())
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "{seen:?}");

    // Catalogue pages come from the cache, with the site's header operations.
    visit(&shop("/catalog/shoes")).expect(200);
    let hit = visit(&shop("/catalog/shoes")).expect(200);
    assert!(hit.is_hit(), "{hit:?}");
    assert!(hit.field("strict-transport-security").is_some(), "{hit:?}");
    assert_eq!(hit.field("server"), None);

    // The other host serves files.
    let css = Ask::get("/site.css").host("static.shop.example");
    let file = visit(&css).expect(200);
    assert_eq!(file.field("content-type"), Some("text/css; charset=utf-8"));
    let etag = file.field("etag").expect("an ETag").to_owned();
    visit(&css.field("If-None-Match", &etag)).expect(304);

    visit(&Ask::get("/").host("elsewhere.example")).expect(404);

    // A dead node is nobody's trouble.
    nodes[2].down();
    for _ in 0..60 {
        visit(&shop("/cart")).expect(200);
    }
}
