//! Kills app nodes and brings them back, by a POST.
//!
//! ```text
//! GET  /demo/nodes          {"nodes":[{"node":1,"running":true},...]}
//! POST /demo/nodes/2/stop   kills node 2
//! POST /demo/nodes/2/start  brings it back
//! ```
//!
//! It listens on 127.0.0.1 and is reached through the edge, which does too. A
//! page of another site open in the same browser is kept out by its `Origin`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HOST, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::node::Node;
use super::reply::{self, JSON, Reply, TEXT, reply};

/// Rest after a failed accept, which is for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is to be done with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Start,
    Stop,
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, nodes: Arc<[Arc<Node>]>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let nodes = Arc::clone(&nodes);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let nodes = Arc::clone(&nodes);
                async move { Ok::<_, Infallible>(answer(&nodes, &request).await) }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer<B>(nodes: &[Arc<Node>], request: &Request<B>) -> Reply {
    let path = request.uri().path();
    if path == "/demo/nodes" {
        return match *request.method() {
            Method::GET | Method::HEAD => list(nodes).await,
            _ => reply::not_allowed("GET, HEAD"),
        };
    }
    let Some((node, wish)) = parse(nodes, path) else {
        return reply(
            StatusCode::NOT_FOUND,
            TEXT,
            "there are GET /demo/nodes and POST /demo/nodes/{1,2,3}/{stop,start}\n",
        );
    };
    if request.method() != Method::POST {
        return reply::not_allowed("POST");
    }
    if !is_own(request.headers()) {
        return reply(
            StatusCode::FORBIDDEN,
            TEXT,
            "only the demo's own pages may do this\n",
        );
    }
    fulfil(node, wish).await
}

fn parse<'a>(nodes: &'a [Arc<Node>], path: &str) -> Option<(&'a Arc<Node>, Wish)> {
    let (number, verb) = path.strip_prefix("/demo/nodes/")?.split_once('/')?;
    let node = nodes
        .iter()
        .find(|node| node.number().to_string() == number)?;
    match verb {
        "start" => Some((node, Wish::Start)),
        "stop" => Some((node, Wish::Stop)),
        _ => None,
    }
}

/// Browsers name the page's site in `Origin` of every POST; curl sends none.
fn is_own(fields: &HeaderMap) -> bool {
    let Some(origin) = fields.get(ORIGIN) else {
        return true;
    };
    let host = fields.get(HOST).and_then(|host| host.to_str().ok());
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("https://"));
    host.is_some() && origin == host
}

async fn fulfil(node: &Arc<Node>, wish: Wish) -> Reply {
    let number = node.number();
    match wish {
        Wish::Stop => {
            node.stop().await;
            reply(StatusCode::OK, TEXT, format!("node {number} is stopped\n"))
        }
        Wish::Start => match node.start().await {
            Ok(()) => reply(StatusCode::OK, TEXT, format!("node {number} is running\n")),
            Err(error) => reply(
                StatusCode::CONFLICT,
                TEXT,
                format!(
                    "node {number} cannot listen on {}: {error}\n",
                    node.address()
                ),
            ),
        },
    }
}

async fn list(nodes: &[Arc<Node>]) -> Reply {
    let mut each = Vec::with_capacity(nodes.len());
    for node in nodes {
        let running = node.is_running().await;
        each.push(format!(
            "{{\"node\":{},\"running\":{running}}}",
            node.number()
        ));
    }
    reply(
        StatusCode::OK,
        JSON,
        format!("{{\"nodes\":[{}]}}\n", each.join(",")),
    )
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http_body_util::BodyExt;

    use super::*;

    async fn nodes() -> Vec<Arc<Node>> {
        let mut nodes = Vec::new();
        for number in 1..=2 {
            let node = Node::new(number, || UNIX_EPOCH).expect("a free port");
            node.start().await.expect("it starts");
            nodes.push(node);
        }
        nodes
    }

    async fn ask(
        nodes: &[Arc<Node>],
        method: &str,
        path: &str,
        origin: Option<&str>,
    ) -> (u16, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "127.0.0.1:8443");
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        let reply = answer(nodes, &request.body(()).expect("a request")).await;
        let status = reply.status().as_u16();
        let body = reply
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_node_is_stopped_and_started_and_the_list_says_so() {
        let nodes = nodes().await;
        assert_eq!(ask(&nodes, "POST", "/demo/nodes/2/stop", None).await.0, 200);
        let (_, list) = ask(&nodes, "GET", "/demo/nodes", None).await;
        assert_eq!(
            list,
            "{\"nodes\":[{\"node\":1,\"running\":true},{\"node\":2,\"running\":false}]}\n"
        );
        let (status, text) = ask(&nodes, "POST", "/demo/nodes/2/start", None).await;
        assert_eq!((status, text.as_str()), (200, "node 2 is running\n"));
        assert!(nodes[1].is_running().await);
    }

    #[tokio::test]
    async fn a_page_of_another_site_cannot_stop_a_node() {
        let nodes = nodes().await;
        for origin in ["https://evil.example", "http://127.0.0.1:8443", "null"] {
            let (status, _) = ask(&nodes, "POST", "/demo/nodes/1/stop", Some(origin)).await;
            assert_eq!(status, 403, "{origin}");
        }
        assert!(nodes[0].is_running().await);
        let own = Some("https://127.0.0.1:8443");
        assert_eq!(ask(&nodes, "POST", "/demo/nodes/1/stop", own).await.0, 200);
    }

    #[tokio::test]
    async fn only_what_is_there_can_be_done_and_only_by_post() {
        let nodes = nodes().await;
        for (method, path, status) in [
            ("GET", "/demo/nodes/1/stop", 405),
            ("POST", "/demo/nodes", 405),
            ("POST", "/demo/nodes/9/stop", 404),
            ("POST", "/demo/nodes/1/paint", 404),
            ("POST", "/demo/nodes/1", 404),
        ] {
            assert_eq!(
                ask(&nodes, method, path, None).await.0,
                status,
                "{method} {path}"
            );
        }
        assert!(nodes[0].is_running().await);
    }
}
