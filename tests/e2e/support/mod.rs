//! The harness: the real binary with clients and origins around it.

pub(crate) mod acme_front;
pub(crate) mod call;
pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod dns;
pub(crate) mod edge;
pub(crate) mod h2;
pub(crate) mod h2_node;
pub(crate) mod h3;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod nginx;
pub(crate) mod ocsp;
pub(crate) mod origin;
pub(crate) mod pebble;
pub(crate) mod ports;
mod seen;
mod successors;
pub(crate) mod tls_node;
pub(crate) mod tools;
pub(crate) mod wait;

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

/// One runtime for the asynchronous clients of all tests of the process.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime")
    });
    &RUNTIME
}

pub(crate) use call::Streams;
pub(crate) use client::{Ask, Broken, Conn, Reply};
pub(crate) use edge::{Edge, Setup, in_front_of};
pub(crate) use h2::H2;
pub(crate) use origin::{Answer, Gate, Origin};
pub(crate) use seen::Seen;
