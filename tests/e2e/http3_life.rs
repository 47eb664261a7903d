//! QUIC connections: addresses that are proven and change, limits, restarts, drains and reloads.

use std::net::UdpSocket;
use std::time::Duration;

use bytes::Buf;
use nix::sys::signal::Signal;

use crate::http3::{H3, app, config, setup, shop};
use crate::support::h3::Client;
use crate::support::{Answer, Ask, Conn, Gate, Origin, runtime, wait};

#[test]
fn a_client_proves_its_address_where_that_is_wanted() {
    let app = app();
    let edge = shop(&app, &format!("{H3}\nretry_above = 0"));
    let client = Client::new();
    client.connect(edge.https()).ask(&Ask::get("/")).expect(200);
    let asked = r#"tidegate_connections_refused_total{listener="secure",reason="retry"}"#;
    edge.await_metric(asked, 1.0);
    // It was given what proves it the next time.
    client.connect(edge.https()).ask(&Ask::get("/")).expect(200);
    assert_eq!(edge.metric(asked), 1.0);
    let other = Client::new();
    other.connect(edge.https()).ask(&Ask::get("/")).expect(200);
    assert_eq!(edge.metric(asked), 2.0);
}

#[test]
fn where_many_come_from_one_address_they_prove_it() {
    let app = app();
    let edge = shop(&app, H3);
    let asked = r#"tidegate_connections_refused_total{listener="secure",reason="retry"}"#;
    // Who was here before has proven it.
    let clients: Vec<Client> = (0..40).map(|_| Client::new()).collect();
    let open = |client: &Client| client.connect(edge.https());
    let mut all: Vec<_> = clients[..15].iter().map(open).collect();
    assert!(!edge.has_metric(asked), "few are believed");
    all.extend(clients[15..].iter().map(open));
    for connection in &mut all {
        connection.ask(&Ask::get("/")).expect(200);
    }
    edge.await_metric(asked, 1.0);
}

#[test]
fn while_many_handshakes_are_under_way_new_clients_prove_their_address() {
    let app = app();
    let edge = shop(&app, &format!("{H3}\nretry_above = 1"));
    let asked = r#"tidegate_connections_refused_total{listener="secure",reason="retry"}"#;
    let client = Client::new();
    client.connect(edge.https()).ask(&Ask::get("/")).expect(200);
    assert!(!edge.has_metric(asked), "nobody else is there");
    // What is said to this client never reaches it.
    let between = UdpSocket::bind("127.0.0.1:0").unwrap();
    between
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let deaf = Client::new();
    let _never = deaf.connecting(between.local_addr().unwrap());
    let mut packet = [0; 2000];
    while let Ok((length, from)) = between.recv_from(&mut packet) {
        if from == edge.https() {
            break;
        }
        between.send_to(&packet[..length], edge.https()).unwrap();
    }
    let another = Client::new();
    another
        .connect(edge.https())
        .ask(&Ask::get("/"))
        .expect(200);
    edge.await_metric(asked, 1.0);
}

#[test]
fn a_client_that_comes_from_another_port_goes_on() {
    let app = app();
    let edge = setup(&app).start(&config(H3).replace("[log]", "[server]\nworkers = 4\n[log]"));
    let client = Client::new();
    let mut connection = client.connect(edge.https());
    let counted = r#"tidegate_connections_total{listener="secure"}"#;
    connection.ask(&Ask::get("/first")).expect(200);
    let before = edge.metric(counted);
    // The kernel spreads addresses over the workers' sockets: some of these are another worker's.
    for n in 0..12 {
        let path = format!("/{n}");
        assert_eq!(
            connection.ask(&Ask::get(&path)).expect(200).text(),
            format!("GET {path}")
        );
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _inside = runtime().enter();
        client.endpoint.rebind(socket).unwrap();
    }
    // From another address, too, which is not believed to be its own.
    let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
    {
        let _inside = runtime().enter();
        client.endpoint.rebind(socket).unwrap();
    }
    for path in ["/moved", "/stays"] {
        connection.ask(&Ask::get(path)).expect(200);
        assert_eq!(app.last().field("x-forwarded-for"), Some("127.0.0.1"));
    }
    assert!(edge.metric(counted) <= before, "it is the same connection");
}

#[test]
fn a_restart_is_told_to_those_who_were_connected() {
    let app = app();
    let mut edge = shop(&app, H3);
    let client = Client::new();
    let mut connection = client.connect(edge.https());
    connection.ask(&Ask::get("/")).expect(200);
    edge.restart(Signal::SIGKILL);
    let error = connection.try_ask(&Ask::get("/"));
    assert!(error.is_err(), "{error:?}");
    assert_eq!(
        connection.await_close(),
        quinn::ConnectionError::Reset,
        "by a stateless reset"
    );
    client.connect(edge.https()).ask(&Ask::get("/")).expect(200);
}

#[test]
fn a_drain_finishes_what_was_begun_and_takes_nothing_new() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Origin::start(move |seen| match seen.target.as_str() {
        "/slow" => Answer::ok("late").when(&held),
        _ => Answer::ok("new"),
    });
    let mut edge = shop(&app, H3);
    let client = Client::new();
    let mut connection = client.connect(edge.https());
    let mut stream = connection.begin(&Ask::get("/slow"));
    runtime().block_on(async { stream.finish().await.unwrap() });
    wait::eventually("the app is asked", wait::SOON, || {
        app.count_of("/slow") == 1
    });
    edge.signal(Signal::SIGTERM);
    wait::eventually("nothing new is taken", wait::SOON, || {
        connection.try_ask(&Ask::get("/new")).is_err()
    });
    gate.open();
    let body = runtime().block_on(async {
        assert_eq!(stream.recv_response().await.unwrap().status(), 200);
        let mut body = Vec::new();
        while let Some(mut piece) = stream.recv_data().await.unwrap() {
            body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
        }
        body
    });
    assert_eq!(body, b"late");
    let quinn::ConnectionError::ApplicationClosed(close) = connection.await_close() else {
        panic!("closed by the server");
    };
    assert_eq!(close.error_code.into_inner(), 0x100);
    assert_eq!(edge.wait(wait::SOON), Some(0));
}

#[test]
fn an_idle_connection_does_not_hold_a_drain_up() {
    let app = app();
    let mut edge = shop(&app, H3);
    let mut connection = Client::new().connect(edge.https());
    connection.ask(&Ask::get("/")).expect(200);
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait(wait::secs(5)), Some(0));
    assert!(matches!(
        connection.await_close(),
        quinn::ConnectionError::ApplicationClosed(_)
    ));
}

#[test]
fn a_reload_keeps_connections_and_switches_http3_on_and_off() {
    let app = app();
    let edge = shop(&app, H3);
    let client = Client::new();
    let mut connection = client.connect(edge.https());
    connection.ask(&Ask::get("/fixed")).expect(200);
    edge.rewrite(&config(H3).replace("body = \"fixed\"", "body = \"other\""));
    edge.reload(true);
    assert_eq!(
        connection.ask(&Ask::get("/fixed")).expect(200).text(),
        "other"
    );
    edge.rewrite(&config(""));
    edge.reload(true);
    assert!(matches!(
        connection.await_close(),
        quinn::ConnectionError::ApplicationClosed(_)
    ));
    let reply = Conn::tls(edge.https(), "shop.test").ask(&Ask::get("/fixed"));
    assert_eq!(reply.all("alt-svc"), Vec::<&str>::new());
    wait::eventually("the port is free", wait::SOON, || {
        UdpSocket::bind(edge.https()).is_ok()
    });
    edge.rewrite(&config(H3));
    edge.reload(true);
    client
        .connect(edge.https())
        .ask(&Ask::get("/fixed"))
        .expect(200);
}

#[test]
fn connections_of_both_kinds_are_counted_together() {
    let app = app();
    let edge = shop(
        &app,
        &format!("{H3}\nlimits = {{ max_connections_per_ip = 2 }}"),
    );
    let mut tcp = Conn::tls(edge.https(), "shop.test");
    tcp.ask(&Ask::get("/fixed")).expect(200);
    let client = Client::new();
    let first = client.connect(edge.https());
    assert!(client.try_connect(edge.https()).is_err(), "one too many");
    edge.await_metric(
        r#"tidegate_connections_refused_total{listener="secure",reason="max_connections_per_ip"}"#,
        1.0,
    );
    first.connection.close(0_u32.into(), b"");
    wait::eventually("its place is free", wait::SOON, || {
        client.try_connect(edge.https()).is_ok()
    });
}

#[test]
fn a_connection_ends_after_so_many_requests_or_so_much_silence() {
    let app = app();
    let edge = shop(
        &app,
        &format!("{H3}\nlimits = {{ max_requests_per_connection = 3, idle_timeout = \"1s\" }}"),
    );
    let client = Client::new();
    let mut busy = client.connect(edge.https());
    for _ in 0..3 {
        busy.ask(&Ask::get("/fixed")).expect(200);
    }
    assert!(busy.try_ask(&Ask::get("/fixed")).is_err());
    let quinn::ConnectionError::ApplicationClosed(close) = busy.await_close() else {
        panic!("closed by the server");
    };
    assert_eq!(close.error_code.into_inner(), 0x100);
    let mut idle = client.connect(edge.https());
    idle.ask(&Ask::get("/fixed")).expect(200);
    idle.await_close();
}

#[test]
fn a_reply_that_is_long_in_coming_is_waited_for() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Origin::start(move |_| Answer::ok("late").when(&held));
    let edge = shop(&app, &format!("{H3}\nlimits = {{ idle_timeout = \"1s\" }}"));
    let mut connection = Client::new().connect(edge.https());
    let mut stream = connection.begin(&Ask::get("/slow"));
    runtime().block_on(async { stream.finish().await.unwrap() });
    wait::always(
        "the connection is kept",
        Duration::from_millis(2500),
        || connection.connection.close_reason().is_none(),
    );
    gate.open();
    let status = runtime().block_on(async { stream.recv_response().await.unwrap().status() });
    assert_eq!(status, 200);
}

#[test]
fn beside_the_proxy_header_of_tcp_clients_come_themselves() {
    let app = app();
    let listener = |from: &str| format!("{H3}\nproxy_protocol = {{ from = [\"{from}\"] }}");
    let edge = shop(&app, &listener("127.0.0.2"));
    let reply = Client::new().connect(edge.https()).ask(&Ask::get("/"));
    assert_eq!(reply.expect(200).text(), "GET /");
    edge.tls().ask(&Ask::get("/")).expect(200);
    // From where the load balancer is nobody knows whose a packet is.
    let edge = shop(&app, &listener("127.0.0.0/8"));
    assert!(Client::new().try_connect(edge.https()).is_err());
    edge.await_metric(
        r#"tidegate_connections_refused_total{listener="secure",reason="proxy_header"}"#,
        1.0,
    );
}

#[test]
fn where_there_is_too_much_to_do_connections_that_have_served_end() {
    let app = app();
    let calm = "[overload]\nmemory = false\nlag = false\n";
    let edge = setup(&app).start(&format!("{calm}{}", config(H3)));
    let mut served = Client::new().connect(edge.https());
    served.ask(&Ask::get("/")).expect(200);
    // Far above its mark; what is critical is served all the same.
    let tight = "[overload]\nmemory = \"1MiB\"\nlag = false\n";
    let critical = config(H3).replace("[[route]]", "[[route]]\npriority = \"critical\"");
    edge.rewrite(&format!("{tight}{critical}"));
    edge.reload(true);
    let quinn::ConnectionError::ApplicationClosed(close) = served.await_close() else {
        panic!("not closed by the edge");
    };
    assert_eq!(close.error_code.into_inner(), 0x100);
    // Who comes now is still served.
    let mut fresh = Client::new().connect(edge.https());
    fresh.ask(&Ask::get("/")).expect(200);
}
