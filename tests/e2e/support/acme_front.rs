//! Somebody in front of an ACME authority: passes on what is sent to it, keeps the orders, and may
//! answer them in its place.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::client::{Ask, Conn};
use super::origin::{Answer, Origin};
use super::pebble::Pebble;
use super::seen::Seen;
use super::{certs, ports, runtime, tls_node};

/// Where Pebble takes orders.
const ORDER: &str = "/order-plz";

/// Down when dropped.
pub(crate) struct Front {
    address: SocketAddr,
    orders: Arc<Mutex<Vec<Value>>>,
    _node: Origin,
    accepting: JoinHandle<()>,
}

impl Front {
    /// In front of this one. What `instead` says to an order is its answer, and the authority does
    /// not see it; `None`: it does.
    pub(crate) fn of(
        pebble: &Pebble,
        folder: &Path,
        instead: impl Fn(&Value) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        certs::write(folder, "front", &["127.0.0.1"]);
        let config = tls_node::config(folder, "front");
        let orders = Arc::new(Mutex::new(Vec::new()));
        let (authority, kept) = (pebble.address, orders.clone());
        let node = Origin::start(move |asked| {
            if asked.target != ORDER {
                return passed_on(asked, authority).0;
            }
            let order = payload(&asked.body);
            let (answer, is_final) = match instead(&order) {
                Some(answer) => (answer, true),
                None => passed_on(asked, authority),
            };
            if is_final {
                kept.lock().expect("no panic").push(order);
            }
            answer
        });
        let (address, behind) = (ports::free(), node.address);
        let listener = runtime()
            .block_on(TcpListener::bind(address))
            .expect("a listener");
        let accepting = runtime().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let config = config.clone();
                tokio::spawn(async move {
                    let Ok(mut tls) = TlsAcceptor::from(config).accept(socket).await else {
                        return;
                    };
                    let Ok(mut node) = TcpStream::connect(behind).await else {
                        return;
                    };
                    let _ = copy_bidirectional(&mut tls, &mut node).await;
                });
            }
        });
        Self {
            address,
            orders,
            _node: node,
            accepting,
        }
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// What was ordered so far, each order once.
    pub(crate) fn orders(&self) -> Vec<Value> {
        self.orders.lock().expect("no panic").clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// How an authority refuses (RFC 8555 section 6.7).
pub(crate) fn refusal(status: u16, kind: &str) -> Answer {
    let problem = json!({
        "type": format!("urn:ietf:params:acme:error:{kind}"),
        "detail": "not today",
        "status": status,
    });
    Answer::new(status, problem.to_string()).field("Content-Type", "application/problem+json")
}

/// The authority's answer, and whether it is one to the request: it refuses a nonce now and then, and
/// the same request comes again with another.
fn passed_on(asked: &Seen, authority: SocketAddr) -> (Answer, bool) {
    // It makes its URLs of the name that it is asked by.
    let host = asked.field("host").unwrap_or_default();
    let mut ask = Ask::new(&asked.method, &asked.target).host(host);
    if let Some(kind) = asked.field("content-type") {
        ask = ask.field("Content-Type", kind).body(asked.body.clone());
    }
    let reply = Conn::tls(authority, "127.0.0.1").ask(&ask);
    let is_final = !reply.text().contains(":badNonce");
    let mut answer = Answer::new(reply.status, reply.body);
    for (name, value) in &reply.fields {
        let own = ["connection", "content-length", "transfer-encoding"];
        if !own.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            answer = answer.field(name, value);
        }
    }
    (answer, is_final)
}

/// What a signed request says (RFC 8555 section 6.2).
fn payload(body: &[u8]) -> Value {
    let signed: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = signed["payload"].as_str().unwrap_or_default();
    let said = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    serde_json::from_slice(&said).unwrap_or_default()
}
