//! The edge itself: listeners, the way of a request, carriers, and what is
//! seen of it all from outside.
//!
//! [`run`] takes a checked configuration and serves by it until the process is
//! asked to end. Everything that is decided without I/O (which endpoint, what
//! may be stored, which file) is decided in crates of its own; this one joins
//! them to Pingora's HTTP sessions, connections and server runtime.

mod acme;
mod admin;
mod assemble;
mod carry;
mod child;
mod clock;
mod control;
mod exchange;
mod filter;
mod handover;
mod listen;
mod observe;
mod ocsp;
mod overload;
mod privileges;
mod random;
mod signals;
mod snapshot;
mod state;
mod upstreams;

pub use acme::AcmeError;
pub use assemble::AssembleError;
pub use control::{Options, RunError, certificates, check, run};
pub use handover::{Predecessor, Program};
pub use listen::{BindError, TlsError};
pub use upstreams::UpstreamError;
