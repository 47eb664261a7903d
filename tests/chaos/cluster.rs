//! The six nodes: started, killed, stopped, given orders, and their ledgers read.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::node::{self, Settings};
use crate::support::tools::Running;
use crate::support::{ports, wait};

/// How many there are.
pub(crate) const NODES: usize = 6;

/// Nodes on 127.0.0.2 to 127.0.0.7, all with one port, so that a name in the DNS
/// can stand for them.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
}

struct Node {
    settings: Settings,
    running: Option<Running>,
}

/// One line of a ledger: this node began to execute this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) node: usize,
    pub(crate) id: u64,
    pub(crate) post: bool,
}

/// The name of a node, and its number from it.
pub(crate) fn name(nth: usize) -> String {
    format!("n{nth}")
}

pub(crate) fn number(name: &str) -> Option<usize> {
    let nth = name.strip_prefix('n')?.parse().ok()?;
    (nth < NODES).then_some(nth)
}

impl Cluster {
    pub(crate) fn start(folder: &Path, seed: u64) -> Self {
        let port = common_port();
        let nodes = (0..NODES).map(|nth| {
            let settings = Settings {
                name: name(nth),
                address: SocketAddr::new(ip(nth), port),
                control: ports::free(),
                ledger: folder.join(format!("{}.ledger", name(nth))),
                seed: seed.wrapping_add(u64::try_from(nth).unwrap_or_default()),
            };
            Node {
                settings,
                running: None,
            }
        });
        let mut cluster = Self {
            nodes: nodes.collect(),
        };
        for nth in 0..NODES {
            cluster.up(nth);
        }
        cluster
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes
            .iter()
            .map(|node| node.settings.address)
            .collect()
    }

    /// Starts one (again) and waits until it accepts.
    pub(crate) fn up(&mut self, nth: usize) {
        let node = &mut self.nodes[nth];
        let myself = std::env::current_exe().expect("this program's path");
        let mut command = Command::new(myself);
        command.env(node::VARIABLE, node.settings.to_text());
        node.running = Some(Running::start(&mut command));
        for address in [node.settings.address, node.settings.control] {
            wait::eventually("a node to accept", wait::SOON, || {
                TcpStream::connect(address).is_ok()
            });
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, nth: usize) {
        if let Some(mut running) = self.nodes[nth].running.take() {
            running.signal(Signal::SIGKILL);
            running.wait(wait::SOON);
        }
    }

    /// SIGSTOP: connections are still accepted (by the kernel), nothing is answered.
    pub(crate) fn stop(&self, nth: usize) {
        self.signal(nth, Signal::SIGSTOP);
    }

    pub(crate) fn go_on(&self, nth: usize) {
        self.signal(nth, Signal::SIGCONT);
    }

    fn signal(&self, nth: usize, signal: Signal) {
        if let Some(running) = &self.nodes[nth].running {
            running.signal(signal);
        }
    }

    /// Switches a fault of a node: see `node.rs` for the words.
    pub(crate) fn order(&self, nth: usize, line: &str) {
        let control = self.nodes[nth].settings.control;
        let mut stream = TcpStream::connect(control).expect("a node that listens to orders");
        stream
            .set_read_timeout(Some(wait::SOON))
            .expect("a limit of patience");
        writeln!(stream, "{line}").expect("an order sent");
        let mut said = String::new();
        let _ = BufReader::new(stream).read_line(&mut said);
        assert_eq!(said, "ok\n", "{} was told {line:?}", name(nth));
    }

    /// What all have executed. The nodes are ended first, so that none is still writing.
    pub(crate) fn ledgers(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for nth in 0..NODES {
            self.go_on(nth);
            self.settle(nth);
            self.kill(nth);
            let path = &self.nodes[nth].settings.ledger;
            let text = std::fs::read_to_string(path).expect("a ledger");
            entries.extend(text.lines().map(|line| {
                let (id, method) = line.split_once(' ').expect("id and method");
                Entry {
                    node: nth,
                    id: id.parse().expect("an id"),
                    post: method == "POST",
                }
            }));
        }
        entries
    }

    /// Waits until the ledger has stopped growing: a node that was just let go on
    /// still has requests to read.
    fn settle(&self, nth: usize) {
        let path = &self.nodes[nth].settings.ledger;
        let size = || std::fs::metadata(path).map_or(0, |file| file.len());
        let mut last = (size(), wait::now());
        wait::eventually("a ledger to rest", wait::SOON, || {
            if size() != last.0 {
                last = (size(), wait::now());
            }
            last.1.elapsed() >= wait::millis(200)
        });
    }
}

pub(crate) fn ip(nth: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(
        127,
        0,
        0,
        u8::try_from(nth + 2).expect("a few nodes"),
    ))
}

/// A port that is free on every node's address.
fn common_port() -> u16 {
    wait::until("a port free on six addresses", wait::SOON, || {
        let port = ports::free().port();
        (0..NODES)
            .all(|nth| TcpListener::bind((ip(nth), port)).is_ok())
            .then_some(port)
    })
}
