//! The thread on which the app nodes and their control service live.
//!
//! One thread is enough for them, and leaves the machine to the edge.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

use super::node::Node;
use super::{Clock, NODES, control};

/// Everything behind the edge.
#[derive(Debug)]
pub(crate) struct Backstage {
    nodes: [SocketAddr; NODES],
    control: SocketAddr,
    /// Dropping it ends the thread.
    keep: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Backstage {
    /// Starts the nodes and the control service on free ports of 127.0.0.1.
    ///
    /// # Errors
    /// When a port or a thread cannot be had.
    pub(crate) fn start(clock: Clock) -> Result<Self, anyhow::Error> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the app nodes")?;
        let (nodes, listener) = runtime
            .block_on(open(clock))
            .context("cannot start the app nodes")?;
        let control = listener
            .local_addr()
            .context("the control service has no address")?;
        let mut addresses = [control; NODES];
        for (place, node) in addresses.iter_mut().zip(nodes.iter()) {
            *place = node.address();
        }
        let (keep, kept) = oneshot::channel();
        let thread = Builder::new()
            .name("demo-nodes".to_owned())
            .spawn(move || live(&runtime, listener, nodes, kept))
            .context("cannot start the app nodes")?;
        Ok(Self {
            nodes: addresses,
            control,
            keep,
            thread,
        })
    }

    /// Where the nodes listen, the first first.
    pub(crate) fn nodes(&self) -> [SocketAddr; NODES] {
        self.nodes
    }

    /// Where the control service listens.
    pub(crate) fn control(&self) -> SocketAddr {
        self.control
    }

    /// Ends everything and waits for it.
    pub(crate) fn end(self) {
        drop(self.keep);
        // A panic over there was shown when it happened.
        let _ = self.thread.join();
    }
}

async fn open(clock: Clock) -> io::Result<(Arc<[Arc<Node>]>, TcpListener)> {
    let mut nodes = Vec::with_capacity(NODES);
    for number in (1..).take(NODES) {
        let node = Node::new(number, clock)?;
        node.start().await?;
        nodes.push(node);
    }
    Ok((
        nodes.into(),
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    ))
}

fn live(
    runtime: &Runtime,
    listener: TcpListener,
    nodes: Arc<[Arc<Node>]>,
    kept: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        tokio::select! {
            () = control::serve(listener, nodes) => {}
            _ = kept => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn everything_listens_until_the_end() {
        let backstage = Backstage::start(|| SystemTime::UNIX_EPOCH).expect("free ports");
        let mut places = backstage.nodes().to_vec();
        places.push(backstage.control());
        for place in &places {
            assert!(TcpStream::connect(place).is_ok(), "{place} listens");
        }
        backstage.end();
        for place in &places {
            assert!(TcpStream::connect(place).is_err(), "{place} is gone");
        }
    }
}
