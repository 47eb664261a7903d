//! Checks by the gRPC health protocol: against gRPC's own server, and against one that does
//! what that one would not.

use std::convert::Infallible;
use std::future::ready;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::health::reason;
use crate::support::tools::{Running, python_with};
use crate::support::{Edge, Setup, ports, runtime, wait};

/// SIGUSR1: the service does not serve; SIGUSR2: it does again.
const SERVER: &str = r#"
import signal, sys
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

state = health_pb2.HealthCheckResponse
servicer = health.HealthServicer()
def says(status):
    return lambda *_: servicer.set("shop.Catalog", status)
says(state.SERVING)()
signal.signal(signal.SIGUSR1, says(state.NOT_SERVING))
signal.signal(signal.SIGUSR2, says(state.SERVING))
server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
assert server.add_insecure_port(sys.argv[1])
server.start()
while True:
    signal.pause()
"#;

fn upstream(name: &str, service: &str) -> String {
    format!(
        "[upstream.{name}]\nendpoints = [\"@A@\"]\nprotocol = \"h2\"\n\
         health_check = {{ type = \"grpc\"{service}, interval = \"100ms\", timeout = \"300ms\", unhealthy_after = 2, healthy_after = 1 }}\n\
         [[route]]\nmatch = {{ path = \"/{name}\" }}\nupstream = \"{name}\"\n"
    )
}

fn healthy(edge: &Edge, upstream: &str) -> bool {
    edge.metric(&format!(
        "tidegate_upstream_endpoint_healthy{{upstream=\"{upstream}\"}}"
    )) == 1.0
}

#[test]
fn grpcs_own_server_is_understood() {
    let packages = "grpcio grpcio-health-checking";
    let Some(python) = python_with("grpc_health.v1.health", packages) else {
        return;
    };
    let address = ports::free();
    let mut command = Command::new(python);
    command.args(["-c", SERVER]).arg(address.to_string());
    let mut server = Running::start(&mut command);
    wait::eventually("the server", 2 * wait::SOON, || {
        assert!(server.is_running(), "{}", server.stderr());
        TcpStream::connect(address).is_ok()
    });
    let edge = Setup::new().with("A", address).start(&format!(
        "{}{}{}",
        upstream("whole", ""),
        upstream("catalog", ", service = \"shop.Catalog\""),
        upstream("nothing", ", service = \"shop.Nothing\""),
    ));
    let line = reason(&edge, address);
    assert!(line.contains("upstream=\"nothing\""), "{line}");
    assert!(line.contains("grpc status 5"), "{line}");
    assert!(
        healthy(&edge, "whole") && healthy(&edge, "catalog"),
        "{}",
        edge.stderr()
    );

    server.signal(Signal::SIGUSR1);
    wait::eventually("the service out", wait::SOON, || !healthy(&edge, "catalog"));
    edge.await_stderr("grpc: NOT_SERVING");
    assert!(
        healthy(&edge, "whole"),
        "the server as a whole still serves"
    );
    server.signal(Signal::SIGUSR2);
    wait::eventually("the service back", wait::SOON, || healthy(&edge, "catalog"));

    server.signal(Signal::SIGKILL);
    server.wait(wait::SOON);
    wait::eventually("all out", wait::SOON, || {
        !healthy(&edge, "whole") && !healthy(&edge, "catalog")
    });
    edge.await_stderr("connect: refused");
}

/// What the test's own server does with a check.
#[derive(Clone, Copy)]
enum Says {
    /// A message with this status, and trailers of success.
    Status(u8),
    /// No message, and this `grpc-status` in the head.
    Fails(&'static str),
    /// An HTTP status.
    Http(u16),
    /// Something that is no HealthCheckResponse.
    Nonsense,
    Nothing,
}

struct Node {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    /// Heads of checks.
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    accepting: JoinHandle<()>,
}

impl Node {
    /// Speaks h2c; whatever is no check is answered with `served`.
    fn start() -> Self {
        let address = ports::free();
        let says = Arc::new(Mutex::new(Says::Status(1)));
        let asked = Arc::default();
        let listener = runtime()
            .block_on(TcpListener::bind(address))
            .expect("a listener");
        let accepting = runtime().spawn(accept(listener, says.clone(), Arc::clone(&asked)));
        Self {
            address,
            says,
            asked,
            accepting,
        }
    }

    fn say(&self, what: Says) {
        *self.says.lock().expect("no panic") = what;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
) {
    while let Ok((socket, _)) = listener.accept().await {
        let (says, asked) = (says.clone(), asked.clone());
        let answer = service_fn(move |request: Request<Incoming>| {
            let (says, asked) = (*says.lock().expect("no panic"), asked.clone());
            async move {
                if !request.uri().path().starts_with("/grpc.") {
                    return Ok::<_, Infallible>(Response::new(body(b"served", None)));
                }
                let place = format!("{} {}", request.method(), request.uri().path());
                let heads = request.headers().clone();
                asked.lock().expect("no panic").push((place, heads));
                Ok(check(says).await)
            }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(socket), answer));
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

fn body(bytes: &[u8], trailer: Option<&'static str>) -> Body {
    let trailers = trailer.map(|status| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        Ok(trailers)
    });
    let whole = Full::new(Bytes::copy_from_slice(bytes));
    whole.with_trailers(ready(trailers)).boxed()
}

async fn check(says: Says) -> Response<Body> {
    let mut response = match says {
        Says::Status(status) => Response::new(body(&[0, 0, 0, 0, 2, 8, status], Some("0"))),
        Says::Fails(_) | Says::Http(_) => Response::new(body(b"", None)),
        Says::Nonsense => Response::new(body(b"<html>", Some("0"))),
        Says::Nothing => std::future::pending().await,
    };
    let fields = response.headers_mut();
    fields.insert("content-type", HeaderValue::from_static("application/grpc"));
    match says {
        Says::Fails(status) => {
            fields.insert("grpc-status", HeaderValue::from_static(status));
        }
        Says::Http(status) => *response.status_mut() = status.try_into().expect("a status"),
        _ => {}
    }
    response
}

#[test]
fn whatever_else_a_server_says_is_no_health() {
    let node = Node::start();
    let edge = Setup::new()
        .with("A", node.address)
        .start(&upstream("app", ", service = \"shop.Catalog\""));
    assert_eq!(edge.get("/app").expect(200).text(), "served");
    let (place, heads) = wait::until("a check", wait::SOON, || {
        node.asked.lock().expect("no panic").first().cloned()
    });
    assert_eq!(place, "POST /grpc.health.v1.Health/Check");
    assert_eq!(heads["content-type"], "application/grpc");
    assert_eq!(heads["te"], "trailers");
    for (nth, (says, reason)) in [
        (Says::Status(2), "grpc: NOT_SERVING"),
        (Says::Status(0), "grpc: UNKNOWN"),
        (Says::Fails("14"), "grpc status 14"),
        (Says::Fails("12"), "the server has no health service"),
        (Says::Http(503), "status 503"),
        (Says::Nonsense, "no HealthCheckResponse"),
        (Says::Nothing, "timeout after 300ms"),
    ]
    .into_iter()
    .enumerate()
    {
        node.say(says);
        wait::eventually(reason, wait::SOON, || !healthy(&edge, "app"));
        // The log comes through a pipe.
        let lines = wait::until("its line in the log", wait::SOON, || {
            let log = edge.stderr();
            let lines = log.lines().filter(|line| line.contains("out of service"));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            (lines.len() > nth).then_some(lines)
        });
        assert_eq!(lines.len(), nth + 1, "{lines:?}");
        assert!(lines[nth].contains(reason), "no {reason} in {}", lines[nth]);
        edge.get("/app").expect(503);
        node.say(Says::Status(1));
        wait::eventually("back", wait::SOON, || healthy(&edge, "app"));
        assert_eq!(edge.get("/app").expect(200).text(), "served");
    }
}
