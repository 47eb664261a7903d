//! Upgrades: another process takes over, and nobody is refused, cut off or left waiting.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Buf;
use nix::sys::signal::Signal;

use crate::http3::{H3, app, config, setup};
use crate::support::edge::binary;
use crate::support::h2::H2;
use crate::support::h3::{Client, narrow};
use crate::support::load::{Load, Talk};
use crate::support::{Answer, Ask, Conn, Edge, Origin, Setup, ports, runtime, wait};

/// What a listener of the name `@NAME@` is, and one route that says who it is.
fn listeners(workers: usize, names: &[&str]) -> String {
    let all: Vec<String> = names
        .iter()
        .map(|name| {
            let lower = name.to_lowercase();
            format!("[[listener]]\nname = \"{lower}\"\naddress = \"@{name}@\"\n")
        })
        .collect();
    format!(
        "[server]\nworkers = {workers}\n{}\n[[route]]\nrespond = {{ body = \"hello\" }}\n",
        all.concat()
    )
}

/// Clients that ask all the time; a reply that is not whole is a failure.
struct Clients {
    stopping: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    /// So many that begin a connection for each request, and so many that keep theirs as long as the
    /// server says that they may.
    fn start(edge: &Edge, short: usize, kept: usize) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let threads = (0..short + kept).map(|nth| {
            let (stopping, done) = (stopping.clone(), done.clone());
            let address = edge.http();
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                let mut conn = None;
                while !stopping.load(Ordering::Relaxed) {
                    let open = || match std::net::TcpStream::connect(address) {
                        Ok(socket) => Ok(Conn::from(socket)),
                        Err(error) => Err(format!("connect: {error}")),
                    };
                    let mut used = match conn.take().map_or_else(open, Ok) {
                        Ok(conn) => conn,
                        Err(error) => {
                            failures.push(error);
                            continue;
                        }
                    };
                    used.send(Ask::get("/").bytes());
                    match used.read(false) {
                        Ok(reply) if reply.status == 200 => {
                            done.fetch_add(1, Ordering::Relaxed);
                            if nth >= short && reply.field("connection") != Some("close") {
                                conn = Some(used);
                            }
                        }
                        other => failures.push(format!("{other:?}")),
                    }
                    wait::hold(wait::millis(2));
                }
                failures
            })
        });
        let threads = threads.collect();
        Self {
            stopping,
            done,
            threads,
        }
    }

    /// Waits for so many more replies.
    #[track_caller]
    fn more(&self, replies: usize) {
        let until = self.done.load(Ordering::Relaxed) + replies;
        wait::eventually("replies", 2 * wait::SOON, || {
            self.done.load(Ordering::Relaxed) >= until
        });
    }

    #[track_caller]
    fn expect_flawless(self) {
        self.stopping.store(true, Ordering::Relaxed);
        let failures: Vec<String> = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a client"))
            .collect();
        assert!(
            failures.is_empty(),
            "{} failures: {:?}",
            failures.len(),
            failures.first()
        );
    }
}

#[test]
fn three_upgrades_in_a_row_under_load_cost_nobody_anything() {
    let origin = Origin::start(|_| Answer::ok("from the app"));
    let mut edge = crate::support::in_front_of(origin.address);
    let clients = Clients::start(&edge, 4, 4);
    let streams = Load::start(Talk::TlsH2, edge.https(), &Ask::get("/"), 100, 4);
    let mut pids = vec![edge.pid()];
    for n in 1..=3 {
        clients.more(200);
        edge.upgrade();
        pids.push(edge.pid());
        assert_eq!(
            edge.metric(r#"tidegate_upgrades_total{result="ok"}"#),
            f64::from(n)
        );
        assert_eq!(edge.json("/config")["last_upgrade"]["successful"], true);
    }
    clients.more(200);
    clients.expect_flawless();
    streams.end().expect_flawless(50);
    pids.dedup();
    assert_eq!(pids.len(), 4);
    wait::eventually("the first process has ended", 2 * wait::SOON, || {
        !edge.is_running()
    });
    assert_eq!(edge.get("/").expect(200).text(), "from the app");
}

#[test]
fn a_process_that_cannot_serve_changes_nothing() {
    let mut edge = Setup::new()
        .with("A", ports::free())
        .with("B", ports::free())
        .start(&listeners(2, &["HTTP"]));
    let pid = edge.pid();
    let clients = Clients::start(&edge, 2, 2);
    let config = edge.folder().join("tidegate.toml");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{good}\nnonsense = 1\n")).unwrap();
    let why = edge.upgrade_fails();
    assert!(why.contains("nonsense"), "{why}");
    edge.await_stderr("not upgraded, this process goes on");
    clients.more(50);
    // An address that somebody else has.
    let taken = TcpListener::bind(edge.address("B")).unwrap();
    edge.rewrite(&listeners(2, &["HTTP", "B"]));
    let why = edge.upgrade_fails();
    assert!(why.contains("in use") && why.contains("\"b\""), "{why}");
    clients.more(50);
    assert_eq!(edge.pid(), pid);
    assert!(edge.is_running());
    drop(taken);
    edge.upgrade();
    assert_eq!(
        edge.metric(r#"tidegate_upgrades_total{result="failed"}"#),
        2.0
    );
    Conn::open(edge.address("B"))
        .ask(&Ask::get("/"))
        .expect(200);
    clients.more(50);
    clients.expect_flawless();
}

#[test]
fn other_numbers_of_workers_and_other_listeners_leave_no_connection_waiting() {
    let mut edge = Setup::new()
        .with("A", ports::free())
        .with("B", ports::free())
        .start(&listeners(2, &["HTTP", "A"]));
    for (workers, added, removed) in [(4, "B", "A"), (1, "A", "B"), (3, "B", "A")] {
        let clients = Clients::start(&edge, 2, 2);
        edge.rewrite(&listeners(workers, &["HTTP", added]));
        edge.upgrade();
        // So many that every socket of the address gets some.
        for name in ["HTTP", added] {
            for _ in 0..60 {
                Conn::open(edge.address(name))
                    .ask(&Ask::get("/"))
                    .expect(200);
            }
        }
        clients.more(50);
        clients.expect_flawless();
        wait::eventually("the port is free", 2 * wait::SOON, || {
            TcpListener::bind(edge.address(removed)).is_ok()
        });
    }
}

#[test]
fn one_to_more_workers_that_fails_costs_nobody_anything() {
    let edge = Setup::new().start(&listeners(1, &["HTTP"]));
    // Found after everything is read and bound.
    let more = listeners(8, &["HTTP"]);
    edge.rewrite(&more.replace("[server]", "[server]\nuser = \"no-such-user-here\""));
    for _ in 0..3 {
        let clients = Clients::start(&edge, 8, 2);
        clients.more(50);
        edge.upgrade_fails();
        clients.more(50);
        clients.expect_flawless();
    }
}

#[test]
fn what_was_begun_before_goes_on_to_its_end() {
    let app = Origin::start(|seen| match seen.target.as_str() {
        "/ws" => Answer::websocket(),
        _ => Answer::ok(vec![b'x'; 24 * 1024 * 1024]),
    });
    let mut edge = Setup::new().with("APP", app.address).start(
        r#"
        [server]
        workers = 2
        shutdown_timeout = "15s"
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        "#,
    );
    let mut download = edge.plain().patience(3 * wait::SOON);
    download.send(Ask::get("/large").bytes());
    download.head().expect("a head");
    let mut tunnel = edge.plain();
    tunnel.send(
        "GET /ws HTTP/1.1\r\nHost: shop.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n",
    );
    assert_eq!(tunnel.head().expect("a head").status, 101);
    edge.upgrade();
    tunnel.send("still here");
    assert_eq!(tunnel.exactly(10), Ok(b"still here".to_vec()));
    let body = download.exactly(24 * 1024 * 1024).expect("all of it");
    assert!(body.iter().all(|octet| *octet == b'x'));
    tunnel.send("and now");
    assert_eq!(tunnel.exactly(7), Ok(b"and now".to_vec()));
    // The drain has its bound.
    wait::eventually("the first process has ended", wait::secs(20), || {
        !edge.is_running()
    });
    assert!(tunnel.read_closed());
}

#[test]
fn a_connection_of_http_2_that_has_asked_for_nothing_has_its_last_call() {
    let mut edge = Setup::new().start(
        r#"
        [server]
        workers = 1
        shutdown_timeout = "60s"
        [[route]]
        respond = { status = 200, body = "here" }
        "#,
    );
    let (_silent, mut late) = (H2::plain(edge.http()), H2::plain(edge.http()));
    // Both have come through.
    let active = "tidegate_connections_active{listener=\"plain\"}";
    wait::eventually("two connections", wait::SOON, || edge.metric(active) >= 2.0);
    edge.upgrade();
    assert_eq!(late.ask(&Ask::get("/")).expect(200).text(), "here");
    wait::eventually("the first process has ended", wait::secs(15), || {
        !edge.is_running()
    });
}

#[test]
fn connections_of_http_3_go_on_in_the_process_that_they_began_in() {
    let app = app();
    let patient = config(H3).replace(
        "[log]",
        "[server]\nworkers = 2\nshutdown_timeout = \"60s\"\n[log]",
    );
    let mut edge = setup(&app).start(&patient);
    // Those windows make the server wait for the client.
    let client = Client::with(narrow(64 * 1024));
    let mut before = client.connect(edge.https());
    let mut download = before.begin(&Ask::get("/large"));
    runtime().block_on(async {
        download.finish().await.unwrap();
        assert_eq!(download.recv_response().await.unwrap().status(), 200);
    });
    for n in 0..2 {
        edge.upgrade();
        for _ in 0..8 {
            let path = format!("/after/{n}");
            let reply = Client::new()
                .connect(edge.https())
                .ask(&Ask::get(&path))
                .expect(200);
            assert_eq!(reply.text(), format!("GET {path}"));
        }
        // From another address, whose packets may come to another socket.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let _inside = runtime().enter();
        client.endpoint.rebind(socket).unwrap();
    }
    let counted = r#"tidegate_connections_total{listener="secure"}"#;
    assert!(
        edge.metric(counted) >= 8.0,
        "the last process serves what is new"
    );
    let body = runtime().block_on(async {
        let mut body = Vec::new();
        while let Some(mut piece) = download.recv_data().await.unwrap() {
            body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
        }
        body
    });
    let wanted = edge.get("/large").expect(200).body;
    assert!(body == wanted, "{} of {} octets", body.len(), wanted.len());
}

#[test]
fn http_3_is_served_whatever_the_number_of_workers_is_and_was() {
    let app = app();
    let with = |workers: usize| {
        config(H3).replace("[log]", &format!("[server]\nworkers = {workers}\n[log]"))
    };
    let mut edge = setup(&app).start(&with(1));
    for workers in [3, 1, 2] {
        let mut kept = Client::new().connect(edge.https());
        kept.ask(&Ask::get("/kept")).expect(200);
        edge.rewrite(&with(workers));
        edge.upgrade();
        for _ in 0..12 {
            let client = Client::new();
            client
                .connect(edge.https())
                .ask(&Ask::get("/new"))
                .expect(200);
        }
        // The old process says goodbye, though it no longer reads the socket.
        let end = kept.await_close();
        assert!(
            matches!(end, quinn::ConnectionError::ApplicationClosed(_)),
            "{end}\n{}",
            edge.stderr()
        );
    }
}

/// Pages on the disk, and more in `[server]`.
fn pages(more: &str) -> String {
    format!(
        r#"
        [server]
        workers = 2
        {more}
        [upstream.app]
        endpoints = ["@APP@"]
        [cache]
        memory = "8MiB"
        disk = {{ path = "pages", size = "64MiB" }}
        [[route]]
        upstream = "app"
        cache = {{}}
        "#
    )
}

/// An edge with those, whose program is the link `edge` in its folder.
fn linked(origin: &Origin, more: &str) -> Edge {
    let setup = Setup::new().with("APP", origin.address);
    let link = setup.folder().join("edge");
    symlink(binary(), &link).unwrap();
    setup.program(link).start(&pages(more))
}

#[test]
fn the_cache_is_warm_after_it() {
    let origin = Origin::start(|seen| Answer::fresh(3600, seen.target.clone()));
    let mut edge = linked(&origin, "");
    for n in 0..20 {
        edge.get(&format!("/{n}")).expect(200);
    }
    for _ in 0..2 {
        edge.upgrade();
        for n in 0..20 {
            let reply = edge.get(&format!("/{n}")).expect(200);
            assert!(reply.cache_status().contains("detail=disk"), "{reply:?}");
        }
    }
    assert_eq!(origin.count(), 20);
}

#[test]
fn a_program_that_is_none_or_says_nothing_is_given_up_and_the_disk_taken_back() {
    let origin = Origin::start(|seen| Answer::fresh(3600, seen.target.clone()));
    let mut edge = linked(&origin, "upgrade_timeout = \"5s\"");
    let link = edge.folder().join("edge");
    let put = |text: &str, mode: u32| {
        let script = link.with_file_name("script");
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&script, &link).unwrap();
    };
    edge.get("/before").expect(200);
    for (text, mode, reason) in [
        ("#!/bin/sh\nexec sleep 60\n", 0o755, "upgrade_timeout"),
        ("#!/bin/sh\nexit 3\n", 0o755, "exit status: 3"),
        ("no program", 0o644, "cannot be started"),
    ] {
        put(text, mode);
        let why = edge.upgrade_fails();
        assert!(why.contains(reason), "{why}");
        edge.get(&format!("/after/{}", reason.len())).expect(200);
    }
    // All were written to the disk, which the next process finds.
    fs::remove_file(&link).unwrap();
    symlink(binary(), &link).unwrap();
    edge.upgrade();
    assert_eq!(edge.metric("tidegate_cache_disk_objects"), 4.0);
    assert!(edge.get("/before").expect(200).is_hit());
}

#[test]
fn a_process_that_fails_with_the_disk_at_hand_gives_it_back() {
    let origin = Origin::start(|seen| Answer::fresh(3600, seen.target.clone()));
    let mut edge = linked(&origin, "");
    edge.get("/before").expect(200);
    // Found after everything is read, bound and opened.
    edge.rewrite(&pages("user = \"no-such-user-here\""));
    let why = edge.upgrade_fails();
    assert!(why.contains("no-such-user-here"), "{why}");
    edge.get("/after").expect(200);
    let written = "tidegate_cache_disk_writes_total";
    edge.await_metric(written, 2.0);
    assert_eq!(
        edge.command("/cache/purge?url=http://shop.test/before")
            .status,
        200
    );
    edge.rewrite(&pages(""));
    edge.upgrade();
    assert!(edge.get("/after").expect(200).is_hit());
    assert!(!edge.get("/before").expect(200).is_hit(), "it was purged");
}

#[test]
fn a_service_manager_is_told_which_process_is_the_main_one() {
    let setup = Setup::new();
    let path = setup.folder().join("notify");
    let told = UnixDatagram::bind(&path).unwrap();
    told.set_read_timeout(Some(wait::SOON)).unwrap();
    let mut edge = setup
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .start(&listeners(1, &["HTTP"]));
    let hear = || {
        let mut text = [0; 200];
        let length = told.recv(&mut text).expect("a word");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    assert_eq!(hear(), format!("MAINPID={}\nREADY=1", edge.pid()));
    edge.upgrade();
    assert_eq!(hear(), format!("MAINPID={}\nREADY=1", edge.pid()));
    edge.signal(Signal::SIGTERM);
    assert_eq!(hear(), "STOPPING=1");
}
