//! Where clients arrive: sockets, TLS, limits, the connection type, HTTP/2 streams, and QUIC.

mod announced;
mod bind;
pub(crate) mod buffers;
mod certificates;
mod conn;
mod drain;
mod h2;
mod leaf;
mod limits;
mod live;
pub(crate) mod pipe;
pub(crate) mod quic;
mod rates;
pub(crate) mod room;
mod serve;
mod service;
mod session;
pub(crate) mod sni;
mod tls;

pub use bind::BindError;
pub(crate) use bind::bind;
pub(crate) use certificates::{Certificates, Obtained};
pub(crate) use conn::{Conn, ConnInfo, conn_info};
pub(crate) use leaf::Leaf;
pub(crate) use limits::{ListenerSettings, ListenerState, NO_PLACE, Slot};
pub(crate) use live::Live;
pub(crate) use service::{Command, Worker};
pub(crate) use session::{is_h2, keep_trailers, request_trailers};
pub use tls::TlsError;
pub(crate) use tls::{
    ClientCert, Tickets, load_pair, private_octets, provider, server_config, verify as verify_tls,
};
