//! SIGHUP and SIGTERM: all or nothing, and nobody notices.

use std::net::TcpStream;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::client::HOST;
use crate::support::edge::binary;
use crate::support::h2::H2;
use crate::support::load::{Load, Talk};
use crate::support::nginx::Nginx;
use crate::support::tools::{Running, tool};
use crate::support::{Answer, Ask, Conn, Edge, Gate, Origin, Setup, certs, ports, wait};

const APP: &str = "[upstream.app]\nendpoints = [\"@APP@\"]\n";
const ALL: &str = "[[route]]\nname = \"all\"\nupstream = \"app\"\ncache = {}\n";

fn edge(origin: &Origin) -> Edge {
    let setup = Setup::new().with("APP", origin.address);
    setup.start(&format!("{APP}{ALL}"))
}

const SUCCESS: &str = "tidegate_config_last_reload_successful";

#[test]
fn a_new_file_is_in_force_after_sighup() {
    let origin = Origin::named("app");
    let edge = edge(&origin);
    let mut kept = edge.plain();
    assert_eq!(kept.ask(&Ask::get("/new")).text(), "app");
    let hash = |edge: &Edge| {
        let text = edge.admin("/metrics").text();
        let line = text
            .lines()
            .find(|l| l.starts_with("tidegate_config_info{"));
        line.expect("the configuration's hash").to_owned()
    };
    let before = hash(&edge);
    edge.rewrite(&format!(
        "{APP}{ALL}[[route]]\nname = \"new\"\nmatch = {{ path = \"/new\" }}\nrespond = {{ body = \"new\" }}\n"
    ));
    edge.reload(true);
    assert_eq!(edge.get("/new").text(), "new");
    assert_eq!(
        kept.ask(&Ask::get("/new")).text(),
        "new",
        "a kept connection too"
    );
    assert_eq!(kept.ask(&Ask::get("/old")).text(), "app");
    assert_ne!(hash(&edge), before);
    assert_eq!(edge.metric(SUCCESS), 1.0);
    assert!(edge.metric("tidegate_config_last_reload_timestamp_seconds") > 1.5e9);
}

#[test]
fn a_broken_file_leaves_everything_as_it_is_and_says_why() {
    let origin = Origin::named("app");
    let edge = edge(&origin);
    for broken in [
        "[upstream.app\n",
        "[upstream.app]\nendpoint = [\"@APP@\"]\n",
        "[[route]]\nupstream = \"nowhere\"\n",
        "[tls]\ncertificates = [{ cert = \"missing.pem\", key = \"shop.key\" }]\n[[route]]\nrespond = { body = \"new\" }\n",
    ] {
        edge.rewrite(broken);
        edge.reload(false);
        assert_eq!(edge.metric(SUCCESS), 0.0, "{broken}");
        assert_eq!(edge.get("/").text(), "app", "{broken}");
        assert_eq!(edge.tls().ask(&Ask::get("/")).text(), "app", "{broken}");
    }
    let said = edge.stderr();
    for why in [
        "did you mean `endpoints`",
        "nowhere",
        "missing.pem",
        "tidegate.toml:",
    ] {
        assert!(said.contains(why), "no {why:?} in {said}");
    }
    edge.rewrite(&format!("{APP}{ALL}"));
    edge.reload(true);
    assert_eq!(edge.metric(SUCCESS), 1.0);
}

#[test]
fn a_listener_that_cannot_be_bound_fails_the_reload_as_a_whole() {
    let origin = Origin::named("app");
    let taken = Origin::named("taken");
    let edge = Setup::new()
        .with("APP", origin.address)
        .with("TAKEN", taken.address)
        .start(&format!("{APP}{ALL}"));
    edge.rewrite(
        "[[listener]]\nname = \"plain\"\naddress = \"@HTTP@\"\n\
         [[listener]]\nname = \"more\"\naddress = \"@TAKEN@\"\n\
         [[route]]\nrespond = { body = \"new\" }\n",
    );
    edge.reload(false);
    assert_eq!(edge.get("/").text(), "app");
    edge.await_stderr(&taken.address.to_string());
}

#[test]
fn listeners_come_and_go() {
    let origin = Origin::named("app");
    let more = ports::free();
    let edge = Setup::new()
        .with("APP", origin.address)
        .with("MORE", more)
        .start(&format!("{APP}{ALL}"));
    let listener = |name: &str, place: &str| {
        format!("[[listener]]\nname = \"{name}\"\naddress = \"@{place}@\"\n")
    };
    let plain = listener("plain", "HTTP");
    edge.rewrite(&format!("{plain}{}{APP}{ALL}", listener("more", "MORE")));
    edge.reload(true);
    wait::eventually("the new one", wait::SOON, || {
        TcpStream::connect(more).is_ok()
    });
    assert_eq!(Conn::open(more).ask(&Ask::get("/")).text(), "app");
    wait::eventually("the old one to go", wait::SOON, || {
        TcpStream::connect(edge.https()).is_err()
    });
    edge.rewrite(&format!("{plain}{APP}{ALL}"));
    edge.reload(true);
    wait::eventually("the new one to go", wait::SOON, || {
        TcpStream::connect(more).is_err()
    });
    assert_eq!(edge.get("/").text(), "app");
}

#[test]
fn requests_in_flight_and_websockets_go_on() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/ws" => Answer::websocket(),
        "/slow" => Answer::ok("old").when(&held),
        _ => Answer::ok("app"),
    });
    let edge = edge(&origin);
    let upgrade = Ask::get("/ws")
        .field("Connection", "Upgrade")
        .field("Upgrade", "websocket");
    let mut sockets = [edge.plain(), edge.tls()];
    for socket in &mut sockets {
        assert_eq!(socket.ask(&upgrade).status, 101);
    }
    let mut slow = edge.plain();
    slow.send(Ask::get("/slow").bytes());
    wait::eventually("the request upstream", wait::SOON, || {
        origin.count_of("/slow") == 1
    });
    // The very pool that they use is gone in the new file.
    edge.rewrite("[[route]]\nrespond = { body = \"new\" }\n");
    edge.reload(true);
    assert_eq!(edge.get("/").text(), "new");
    for socket in &mut sockets {
        assert_eq!(socket.send("ping").exactly(4), Ok(b"ping".to_vec()));
    }
    gate.open();
    assert_eq!(slow.reply().expect(200).text(), "old");
}

#[test]
fn no_connection_is_kept_to_endpoints_that_are_gone() {
    for (what, after) in [
        (
            "the endpoint",
            "[upstream.app]\nendpoints = [\"@OTHER@\"]\n",
        ),
        (
            "the upstream",
            "[upstream.other]\nendpoints = [\"@OTHER@\"]\n",
        ),
    ] {
        let gates = [Gate::default(), Gate::default()];
        let held = gates.clone();
        let origin = Origin::start(move |seen| match seen.target.as_str() {
            "/first" => Answer::ok("first").when(&held[0]),
            "/second" => Answer::ok("second").when(&held[1]),
            _ => Answer::ok("app"),
        });
        let other = Origin::named("other");
        let edge = Setup::new()
            .with("APP", origin.address)
            .with("OTHER", other.address)
            .start(&format!("[server]\nworkers = 1\n{APP}{ALL}"));
        let mut conns = [edge.plain(), edge.plain(), edge.plain()];
        let targets = ["/first", "/second", "/"];
        for (conn, target) in conns.iter_mut().zip(targets) {
            conn.send(Ask::get(target).bytes());
        }
        conns[2].reply().expect(200);
        wait::eventually("two requests upstream", wait::SOON, || origin.count() == 3);
        let name = after.split(['.', ']']).nth(1).expect("a name");
        let route = ALL.replace("\"app\"", &format!("{name:?}"));
        edge.rewrite(&format!("[server]\nworkers = 1\n{after}{route}"));
        edge.reload(true);
        // The idle one ends at once, the others behind their requests, though one of those still goes on.
        for (nth, left) in [(0, 2), (1, 1)] {
            wait::eventually(what, wait::SOON, || origin.open() == left);
            gates[nth].open();
            conns[nth].reply().expect(200);
        }
        wait::eventually(what, wait::SOON, || origin.open() == 0);
        assert_eq!(edge.get("/").text(), "other");
    }
}

#[test]
fn pools_cache_and_counters_survive_where_unchanged() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/page" => Answer::fresh(60, "page"),
        _ => Answer::ok("app"),
    });
    let edge = edge(&origin);
    let mut conn = edge.plain();
    for _ in 0..5 {
        conn.ask(&Ask::get("/page")).expect(200);
        conn.ask(&Ask::get("/other")).expect(200);
    }
    let counted = r#"tidegate_requests_total{route="all"}"#;
    edge.await_metric(counted, 10.0);
    let connections = origin.connections();
    edge.rewrite(&format!(
        "{APP}{ALL}[[route]]\nname = \"second\"\nmatch = {{ path = \"/second\" }}\nrespond = {{ body = \"2\" }}\n"
    ));
    edge.reload(true);
    assert!(
        edge.get("/page").is_hit(),
        "the cache is empty after a reload"
    );
    assert!(edge.metric(counted) >= 10.0, "counters began anew");
    for _ in 0..5 {
        conn.ask(&Ask::get("/other")).expect(200);
    }
    assert!(
        origin.connections() <= connections + 1,
        "upstream connections began anew: {} after {connections}",
        origin.connections()
    );
}

#[test]
fn series_of_what_is_gone_vanish() {
    let origin = Origin::named("app");
    let edge = edge(&origin);
    edge.get("/").expect(200);
    edge.await_metric(r#"tidegate_requests_total{route="all"}"#, 1.0);
    edge.rewrite("[[route]]\nname = \"other\"\nrespond = { body = \"new\" }\n");
    edge.reload(true);
    edge.get("/").expect(200);
    edge.await_metric(r#"tidegate_requests_total{route="other"}"#, 1.0);
    assert!(!edge.has_metric(r#"tidegate_requests_total{route="all"}"#));
    assert!(!edge.has_metric(r#"tidegate_upstream_endpoint_healthy{upstream="app"}"#));
}

#[test]
fn health_survives_a_reload() {
    let mut nodes = [Origin::named("a"), Origin::named("b")];
    let file = |route: &str| {
        format!(
            "[upstream.app]\nendpoints = [\"@A@\", \"@B@\"]\n\
             health_check = {{ type = \"tcp\", interval = \"200ms\", timeout = \"1s\", unhealthy_after = 10 }}\n\
             [[route]]\nname = \"{route}\"\nupstream = \"app\"\n"
        )
    };
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .start(&file("one"));
    nodes[0].down();
    let gone = nodes[0].address;
    wait::eventually("the node to be out", 2 * wait::SOON, || {
        !edge.is_healthy(gone)
    });
    edge.rewrite(&file("two"));
    edge.reload(true);
    // Ten failed checks would take two seconds.
    wait::always("the node stays out", wait::millis(500), || {
        !edge.is_healthy(gone)
    });
}

#[test]
fn certificates_are_read_anew() {
    let edge = edge(&Origin::named("app"));
    let serial = || {
        let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
        let socket = TcpStream::connect(edge.https()).unwrap();
        let mut tls = rustls::ClientConnection::new(config, certs::name(HOST)).unwrap();
        let mut socket = socket;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        tls.peer_certificates().unwrap()[0].to_vec()
    };
    let old = serial();
    assert!(serial() == old);
    let mut kept = edge.tls();
    let _ = kept.ask(&Ask::get("/"));
    certs::write(edge.folder(), "shop", &["shop.test"]);
    assert!(serial() == old, "not before the reload");
    edge.reload(true);
    assert!(serial() != old, "the renewed certificate is not in use");
    let _ = kept.ask(&Ask::get("/"));

    let renewed = serial();
    std::fs::write(edge.folder().join("shop.key"), "not a key").unwrap();
    edge.reload(false);
    assert!(
        serial() == renewed,
        "a broken key took the certificate away"
    );
}

#[test]
fn twenty_reloads_under_load_fail_no_request() {
    let program = tool!("nginx", "nginx-light");
    let nodes = ["a", "b"].map(|name| Nginx::node(&program, name, ""));
    let file = |turn: usize| {
        format!(
            "[upstream.app]\nendpoints = [\"@A@\", \"@B@\"]\n\
             [[route]]\nname = \"shop\"\nupstream = \"app\"\n\
             [[route]]\nname = \"turn-{turn}\"\nmatch = {{ path = \"/turn\" }}\nrespond = {{ body = \"{turn}\" }}\n"
        )
    };
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .start(&file(0));
    let ask = Ask::get("/");
    let loads = [
        Load::start(Talk::TlsH1, edge.https(), &ask, 150, 8),
        Load::start(Talk::TlsH2, edge.https(), &ask, 150, 4),
        Load::start(Talk::Plain, edge.http(), &ask, 50, 2),
    ];
    for turn in 1..=20 {
        let before = loads[0].so_far().ok;
        edge.rewrite(&file(turn));
        edge.reload(true);
        assert_eq!(edge.get("/turn").text(), turn.to_string());
        wait::eventually("load between reloads", wait::SOON, || {
            loads[0].so_far().ok >= before + 30
        });
    }
    for load in loads {
        let report = load.end();
        report.expect_flawless(100);
        assert_eq!(report.resent, 0, "a reload closed a kept connection");
    }
    assert_eq!(
        edge.metric(r#"tidegate_config_reloads_total{result="ok"}"#),
        20.0
    );
}

#[test]
fn sigterm_finishes_what_is_in_flight_and_exits_0() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_| Answer::ok("finished").when(&held));
    let mut edge = edge(&origin);
    let (http, https) = (edge.http(), edge.https());
    let mut idle = edge.plain();
    let mut flights = [edge.plain(), edge.tls()];
    for (nth, conn) in flights.iter_mut().enumerate() {
        conn.send(Ask::post(&format!("/{nth}"), "").bytes());
    }
    wait::eventually("both upstream", wait::SOON, || origin.count() == 2);
    edge.signal(Signal::SIGTERM);
    wait::eventually("no new connection", wait::SOON, || {
        TcpStream::connect(http).is_err() && TcpStream::connect(https).is_err()
    });
    idle.expect_end();
    assert!(edge.is_running(), "it ended before its requests");
    gate.open();
    for conn in &mut flights {
        assert_eq!(conn.reply().expect(200).text(), "finished");
        conn.expect_end();
    }
    assert_eq!(edge.wait(wait::SOON), Some(0));
}

#[test]
fn sigterm_reaches_connections_that_came_with_more_than_one_turn_of_work() {
    // What a task may do in one turn of the event loop ends at some number of these; what is then to
    // be waited for has to be waited for all the same.
    let mut edge = Setup::new().start("[[route]]\nrespond = { body = \"ok\" }\n");
    let ask = Ask::get("/").bytes();
    let mut conns: Vec<Conn> = Vec::new();
    for count in 50..140 {
        let mut conn = edge.plain();
        conn.send(ask.repeat(count));
        for _ in 0..count {
            conn.reply().expect(200);
        }
        conns.push(conn);
    }
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait(wait::SOON), Some(0), "{}", edge.stderr());
}

#[test]
fn sigterm_finishes_h2_streams_too() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_| Answer::ok("finished").when(&held));
    let mut edge = edge(&origin);
    let https = edge.https();
    let visitor = std::thread::spawn(move || {
        let mut h2 = H2::tls(https, HOST);
        h2.ask(&Ask::post("/", "x"))
    });
    wait::eventually("it upstream", wait::SOON, || origin.count() == 1);
    edge.signal(Signal::SIGTERM);
    wait::eventually("no new connection", wait::SOON, || {
        TcpStream::connect(https).is_err()
    });
    gate.open();
    assert_eq!(visitor.join().unwrap().expect(200).text(), "finished");
    assert_eq!(edge.wait(wait::SOON), Some(0));
}

#[test]
fn a_drain_waits_no_longer_than_the_file_says() {
    let origin = Origin::start(|_| Answer::ok("late").after(wait::secs(15)));
    let mut edge = Setup::new()
        .with("APP", origin.address)
        .start(&format!("[server]\nshutdown_timeout = \"1s\"\n{APP}{ALL}"));
    let mut conn = edge.plain();
    conn.send(Ask::post("/", "").bytes());
    wait::eventually("it upstream", wait::SOON, || origin.count() == 1);
    let started = wait::now();
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait(wait::SOON), Some(0));
    let took = started.elapsed();
    assert!(
        (wait::millis(800)..wait::secs(4)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn whoever_is_answered_is_answered_by_a_process_that_ends_in_order() {
    for _ in 0..10 {
        let setup = Setup::new();
        let address = ports::free();
        let file = setup.folder().join("edge.toml");
        let text = format!(
            "[[listener]]\naddress = \"{address}\"\n[[route]]\nrespond = {{ body = \"ok\" }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(binary());
        let mut edge = Running::start(command.arg("run").arg("--config").arg(&file));
        let socket = wait::until("the listener", wait::SOON, || {
            TcpStream::connect(address).ok()
        });
        Conn::from(socket).ask(&Ask::get("/")).expect(200);
        edge.signal(Signal::SIGTERM);
        assert_eq!(edge.wait(wait::SOON), Some(0), "{}", edge.stderr());
    }
}

#[test]
fn an_interrupt_at_the_keyboard_ends_it_in_order_and_an_idle_process_ends_at_once() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut edge = edge(&Origin::named("app"));
        let started = wait::now();
        edge.signal(signal);
        assert_eq!(edge.wait(wait::SOON), Some(0));
        assert!(started.elapsed() < wait::secs(3), "{:?}", started.elapsed());
    }
}
