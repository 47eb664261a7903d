//! What can be seen of the running edge: one [`Record`] a request, and the
//! access log and metrics that are read from it.
//!
//! The carriers fill a record while they move bytes and hand it over once, at
//! the end. That is the only way by which a request reaches a log line or a
//! counter, so the two can never disagree. Nothing here decides anything about
//! a request, knows Pingora, or keeps what a client sent for longer than a line.
//!
//! Nothing shared is written on a request's way: counters and log buffers have
//! one shard for each worker ([`shard`]), summed or swept by whoever reads them.

pub(crate) mod access_log;
pub(crate) mod attempts;
pub(crate) mod cache_counts;
pub(crate) mod labels;
mod lines;
pub(crate) mod logging;
pub(crate) mod metrics;
pub(crate) mod names;
pub(crate) mod notices;
pub(crate) mod record;
pub(crate) mod shard;
pub(crate) mod text;

pub(crate) use access_log::AccessLog;
pub(crate) use attempts::UpstreamFailure;
pub(crate) use cache_counts::{CacheCounts, Compared};
pub(crate) use labels::{EjectionCause, Hedge, Refused};
pub(crate) use metrics::{Metrics, Table};
pub(crate) use names::Names;
pub(crate) use notices::Notices;
pub(crate) use record::{CacheResult, Protocol, Record};
pub(crate) use text::{Captured, Text};
