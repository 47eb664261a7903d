//! The proxy's own source, as far as it reads what a peer sent and needs
//! nothing of Pingora; the module paths are those of the proxy crate.

#[path = "../../../proxy/src/exchange/chunked.rs"]
pub(crate) mod chunked;
#[path = "../../../proxy/src/exchange/forwarded.rs"]
pub(crate) mod forwarded;
#[path = "../../../proxy/src/exchange/guard/mod.rs"]
pub(crate) mod guard;
#[path = "../../../proxy/src/exchange/normalise.rs"]
pub(crate) mod normalise;
#[path = "../../../proxy/src/exchange/proxy_header.rs"]
pub(crate) mod proxy_header;
