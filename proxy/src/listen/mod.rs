//! Where clients arrive: sockets, TLS, limits, the connection type, HTTP/2 streams, and QUIC.

mod announced;
mod bind;
pub(crate) mod buffers;
mod conn;
mod h2;
mod limits;
pub(crate) mod pipe;
pub(crate) mod quic;
mod serve;
mod service;
mod tls;

pub(crate) use self::h2::is_h2;
pub use bind::BindError;
pub(crate) use bind::bind;
pub(crate) use conn::{Conn, ConnInfo, conn_info};
pub(crate) use limits::{ListenerSettings, ListenerState, NO_PLACE, Slot};
pub(crate) use service::{Command, Worker};
pub use tls::TlsError;
pub(crate) use tls::{Certificates, load_pair, private_octets, provider, server_config, ticketer};
