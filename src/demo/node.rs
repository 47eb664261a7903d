//! One app node: an HTTP server that can be killed and brought back on its own port.
//!
//! Killing closes the listener and every connection at once, as the end of a
//! process would. Meanwhile the port stays bound without listening: connections
//! to it are refused, and nobody else can take it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use super::{Clock, app};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;
/// Rest after a failed accept, which is for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One app node.
#[derive(Debug)]
pub(crate) struct Node {
    number: u8,
    address: SocketAddr,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Running(JoinHandle<()>),
    /// The socket keeps the port; `None` after it could not be bound again.
    Stopped(Option<TcpSocket>),
}

impl Node {
    /// A node on a free port of 127.0.0.1, not yet running.
    ///
    /// # Errors
    /// When no port can be had.
    pub(crate) fn new(number: u8, clock: Clock) -> io::Result<Arc<Self>> {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = socket.local_addr()?;
        let state = Mutex::new(State::Stopped(Some(socket)));
        Ok(Arc::new(Self {
            number,
            address,
            clock,
            state,
        }))
    }

    /// 1 for the first.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// Where it listens while it runs.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it listens.
    pub(crate) async fn is_running(&self) -> bool {
        matches!(*self.state.lock().await, State::Running(_))
    }

    /// Starts it; a running one goes on.
    ///
    /// # Errors
    /// When its port cannot be had any more.
    pub(crate) async fn start(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.state.lock().await;
        let State::Stopped(held) = &mut *state else {
            return Ok(());
        };
        let socket = match held.take() {
            Some(socket) => socket,
            None => bind(self.address)?,
        };
        let listener = socket.listen(BACKLOG)?;
        *state = State::Running(tokio::spawn(accept(listener, Arc::clone(self))));
        Ok(())
    }

    /// Kills it: requests in flight are cut. A stopped one stays so.
    pub(crate) async fn stop(&self) {
        let mut state = self.state.lock().await;
        let State::Running(serving) = &mut *state else {
            return;
        };
        serving.abort();
        // An aborted task gives an error by its nature.
        let _ = serving.await;
        *state = State::Stopped(bind(self.address).ok());
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of the life before linger in the kernel for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts until it is aborted; its connections end with it.
async fn accept(listener: TcpListener, node: Arc<Node>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&node)));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, node: Arc<Node>) {
    let service = service_fn(|request| {
        let (number, now) = (node.number, (node.clock)());
        async move { Ok::<_, std::convert::Infallible>(app::answer(number, now, request).await) }
    });
    // A peer that leaves in the middle is the edge's to report.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn epoch() -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    async fn ask(address: SocketAddr) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        Ok(reply)
    }

    #[tokio::test]
    async fn a_stopped_node_refuses_connections_and_a_started_one_answers_again() {
        let node = Node::new(2, epoch).expect("a free port");
        for round in 0..3 {
            node.start().await.expect("it starts");
            assert!(node.is_running().await);
            let reply = ask(node.address()).await.expect("it answers");
            assert!(reply.starts_with("HTTP/1.1 200"), "round {round}: {reply}");
            assert!(reply.contains("x-node: 2"), "{reply}");
            node.stop().await;
            assert!(!node.is_running().await);
            let refused = ask(node.address()).await.expect_err("nobody listens");
            assert_eq!(
                refused.kind(),
                io::ErrorKind::ConnectionRefused,
                "round {round}"
            );
        }
    }

    #[tokio::test]
    async fn stopping_cuts_open_connections() {
        let node = Node::new(1, epoch).expect("a free port");
        node.start().await.expect("it starts");
        let mut idle = TcpStream::connect(node.address())
            .await
            .expect("it listens");
        // The first reply proves that the connection was accepted.
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("written");
        let mut buffer = [0; 1024];
        assert!(idle.read(&mut buffer).await.expect("a reply") > 0);
        node.stop().await;
        let end = tokio::time::timeout(Duration::from_secs(5), idle.read(&mut buffer)).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    }

    #[tokio::test]
    async fn starting_twice_and_stopping_twice_changes_nothing() {
        let node = Node::new(1, epoch).expect("a free port");
        node.start().await.expect("it starts");
        node.start().await.expect("it goes on");
        assert!(ask(node.address()).await.is_ok());
        node.stop().await;
        node.stop().await;
        assert!(ask(node.address()).await.is_err());
    }
}
