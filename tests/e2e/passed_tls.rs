//! TLS that is passed on by the name that is asked for, with a header of the PROXY protocol in
//! front of it: towards the upstream, and from a load balancer.

use std::io::{Error, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::support::tls_node::{self, TlsNode};
use crate::support::{Answer, Ask, Conn, Edge, Origin, Setup, certs, ports, wait};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What came on a connection before its request.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    header: Vec<u8>,
    /// For which name the TLS client asked.
    name: String,
}

/// Reads a header, terminates the TLS behind it, and answers a request with its own name.
struct Announced {
    address: SocketAddr,
    came: Arc<Mutex<Vec<Came>>>,
}

impl Announced {
    fn start(folder: &Path, name: &'static str) -> Self {
        let address = ports::free();
        let listener = TcpListener::bind(address).expect("a free port");
        let config = tls_node::config(folder, "shop");
        let came = Arc::<Mutex<Vec<Came>>>::default();
        let ledger = Arc::clone(&came);
        // Ends with the process: nothing waits for it.
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (config, ledger) = (Arc::clone(&config), Arc::clone(&ledger));
                std::thread::spawn(move || serve(socket, config, name, &ledger));
            }
        });
        Self { address, came }
    }

    /// What came since this was asked last.
    fn take(&self) -> Vec<Came> {
        std::mem::take(&mut *self.came.lock().expect("nobody panicked"))
    }
}

fn serve(
    mut socket: TcpStream,
    config: Arc<ServerConfig>,
    name: &str,
    ledger: &Mutex<Vec<Came>>,
) -> Result<(), Error> {
    socket.set_read_timeout(Some(2 * wait::SOON))?;
    let header = header(&mut socket)?;
    let tls = ServerConnection::new(config).map_err(Error::other)?;
    let mut stream = StreamOwned::new(tls, socket);
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet)?;
        head.extend_from_slice(&octet);
    }
    let asked = stream.conn.server_name().unwrap_or_default().to_owned();
    let came = Came {
        header,
        name: asked,
    };
    ledger.lock().expect("nobody panicked").push(came);
    let length = name.len();
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
    stream.write_all(reply.as_bytes())?;
    stream.flush()
}

/// The octets of a header: up to the end of its line, or as many as version 2 says.
fn header(socket: &mut TcpStream) -> Result<Vec<u8>, Error> {
    let mut header = vec![0; 16];
    socket.read_exact(&mut header)?;
    if header.starts_with(SIGNATURE) {
        let length = u16::from_be_bytes([header[14], header[15]]);
        header.resize(16 + usize::from(length), 0);
        socket.read_exact(&mut header[16..])?;
        return Ok(header);
    }
    let mut octet = [0];
    while !header.ends_with(b"\n") {
        socket.read_exact(&mut octet)?;
        header.extend_from_slice(&octet);
    }
    Ok(header)
}

/// Version 1 of a header for a client, and where it connected to.
fn v1(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (from, to) = (client.ip(), local.ip());
    let (from_port, to_port) = (client.port(), local.port());
    format!("PROXY TCP4 {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

/// The same of version 2.
fn v2(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => panic!("{ip} is no address of IPv4"),
    };
    [
        &SIGNATURE[..],
        &[0x21, 0x11, 0, 12],
        &octets(client),
        &octets(local),
        &client.port().to_be_bytes(),
        &local.port().to_be_bytes(),
    ]
    .concat()
}

/// Who a load balancer says that its client is, and where that connected to.
fn said() -> (SocketAddr, SocketAddr) {
    let client = SocketAddr::from(([192, 0, 2, 7], 5000));
    (client, SocketAddr::from(([198, 51, 100, 1], 443)))
}

/// An edge that passes three names on and terminates the others, and those behind it.
struct Front {
    edge: Edge,
    address: SocketAddr,
    /// Told who the client is, by each version.
    one: Announced,
    two: Announced,
    /// Not told.
    _bare: TlsNode,
    /// Behind the edge that terminates: answers with the client's address.
    _app: Origin,
}

/// `keys`: what the listener has beside the names.
fn front(keys: &str) -> Front {
    let address = ports::free();
    let setup = Setup::new();
    let one = Announced::start(setup.folder(), "one");
    let two = Announced::start(setup.folder(), "two");
    let bare = TlsNode::start(setup.folder(), "shop");
    let app = Origin::start(|seen| Answer::ok(seen.field("x-forwarded-for").unwrap_or("-")));
    let edge = setup
        .with("FRONT", address)
        .with("ONE", one.address)
        .with("TWO", two.address)
        .with("BARE", bare.address)
        .with("APP", app.address)
        .start(&format!(
            r#"
            [[listener]]
            name = "front"
            address = "@FRONT@"
            tls = true
            {keys}
            forward = {{ names = {{ "one.shop.test" = "one", "two.shop.test" = "two", "bare.shop.test" = "bare" }} }}
            [upstream.one]
            endpoints = ["@ONE@"]
            proxy_protocol = "v1"
            [upstream.two]
            endpoints = ["@TWO@"]
            proxy_protocol = "v2"
            [upstream.bare]
            endpoints = ["@BARE@"]
            [upstream.app]
            endpoints = ["@APP@"]
            [[route]]
            upstream = "app"
            "#
        ));
    Front {
        edge,
        address,
        one,
        two,
        _bare: bare,
        _app: app,
    }
}

impl Front {
    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("a connection");
        socket.set_nodelay(true).expect("an option");
        socket
    }

    /// A connection that begins with this.
    fn announced(&self, header: &[u8]) -> TcpStream {
        let mut socket = self.connect();
        socket.write_all(header).expect("room");
        socket
    }
}

/// Who answers for this name.
#[track_caller]
fn ask(socket: TcpStream, host: &str) -> String {
    let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
    let mut conn = Conn::tls_over(socket, host, config).expect("a handshake");
    conn.ask(&Ask::get("/").host(host)).expect(200).text()
}

#[test]
fn an_upstream_is_told_who_the_client_is_and_then_hears_its_hello() {
    let front = front("");
    for name in ["one", "two", "one", "two"] {
        let host = format!("{name}.shop.test");
        let socket = front.connect();
        let own = socket.local_addr().expect("an address");
        assert_eq!(ask(socket, &host), name);
        let (header, came) = match name {
            "one" => (v1(own, front.address), front.one.take()),
            _ => (v2(own, front.address), front.two.take()),
        };
        assert_eq!(came, [Came { header, name: host }]);
    }
    // Where the upstream wants none, the hello comes first.
    assert_eq!(ask(front.connect(), "bare.shop.test"), "shop");
    assert_eq!(ask(front.connect(), "shop.test"), "127.0.0.1");
}

#[test]
fn a_balancers_header_is_read_before_the_name_and_passed_on_as_the_upstream_wants_it() {
    let front = front("proxy_protocol = { from = [\"127.0.0.1\"] }");
    let (client, local) = said();
    for header in [v1(client, local), v2(client, local)] {
        for name in ["one", "two"] {
            let host = format!("{name}.shop.test");
            assert_eq!(ask(front.announced(&header), &host), name);
            let (header, came) = match name {
                "one" => (v1(client, local), front.one.take()),
                _ => (v2(client, local), front.two.take()),
            };
            assert_eq!(came, [Came { header, name: host }]);
        }
        // It is for the edge alone where the upstream wants none.
        assert_eq!(ask(front.announced(&header), "bare.shop.test"), "shop");
        assert_eq!(ask(front.announced(&header), "shop.test"), "192.0.2.7");
    }
    // Nobody is passed on who does not say whose the connection is.
    let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
    assert!(Conn::tls_with(front.address, "two.shop.test", config).is_err());
    front.edge.await_metric(
        r#"tidegate_connections_refused_total{listener="front",reason="proxy_header"}"#,
        1.0,
    );
    assert!(front.two.take().is_empty());
}

#[test]
fn header_and_hello_come_in_one_piece_or_in_many() {
    let front = front("proxy_protocol = { from = [\"127.0.0.1\"] }");
    let (client, local) = said();
    let host = "two.shop.test";
    for header in [v1(client, local), v2(client, local)] {
        for size in [usize::MAX, 7] {
            let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
            let mut tls = ClientConnection::new(config, certs::name(host)).expect("a client");
            let mut bytes = header.clone();
            tls.write_tls(&mut bytes).expect("a hello");
            let mut socket = front.connect();
            socket
                .set_read_timeout(Some(wait::SOON))
                .expect("set a read timeout");
            for piece in bytes.chunks(size) {
                socket.write_all(piece).expect("room");
                wait::hold(wait::millis(1));
            }
            let mut stream = rustls::Stream::new(&mut tls, &mut socket);
            let ask = Ask::get("/").host(host);
            stream.write_all(&ask.bytes()).expect("a handshake");
            let mut reply = Vec::new();
            let _ = stream.read_to_end(&mut reply);
            let reply = String::from_utf8_lossy(&reply).into_owned();
            assert!(reply.ends_with("\r\n\r\ntwo"), "{reply:?}");
            let came = Came {
                header: v2(client, local),
                name: host.to_owned(),
            };
            assert_eq!(front.two.take(), [came]);
        }
    }
}
