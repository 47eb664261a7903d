//! The shared HTTP cache: what may be kept, what may be served, and where it is kept.
//!
//! Two halves. The decisions are pure functions of heads, clock readings and a [`Policy`]; each
//! stands beside the section of RFC 9111 that it implements, and `docs/cache-conformance.md` lists
//! them all. The [`Store`] and the [`Flights`] hold the objects: finished ones, and those that are
//! arriving and already read by several clients.
//!
//! The crate reads no clock, opens no socket and knows no proxy: whoever carries the bytes asks it
//! and turns its answers into HTTP. Files are opened in [`disk`] only, the log for a second tier.
//!
//! A request on a cached route goes this way:
//!
//! 1. [`Normal`] and [`QueryRules`] say what of the request counts, [`KeyBuf`] makes the key of it.
//! 2. [`Store::lookup`] finds the variant that fits the request's fields ([`vary`]).
//! 3. [`reuse::usable`] says whether it may be served as it is; [`condition`] whether a 304 is enough.
//!    Where the object is kept compressed as well, [`coding::choose`] says which the client gets.
//! 4. If not, [`Flights::join`] makes the first client the leader, who fetches, and the rest its
//!    followers. [`validate`] says what the leader asks, [`storable::storable`] whether the reply
//!    may be kept, [`flight::Writer`] takes it in.
//! 5. An unsafe request that went well ends in [`invalidate`], a purge in [`tags`].

pub mod coding;
pub mod companion;
pub mod condition;
pub mod control;
pub mod date;
pub mod disk;
pub mod fields;
pub mod flight;
pub mod freshness;
pub mod head;
pub mod invalidate;
pub mod key;
pub mod normal;
pub mod part;
pub mod query;
pub mod range;
pub mod reuse;
pub mod status;
pub mod storable;
pub mod store;
pub mod stored;
pub mod surrogate;
pub mod tags;
pub mod uses;
pub mod validate;
pub mod vary;
mod weight;

pub use coding::Coding;
pub use control::{RequestControl, ResponseControl};
pub use fields::Fields;
pub use flight::{Flights, Join, Reader, Writer};
pub use freshness::{Freshness, Times};
pub use head::Head;
pub use key::{Key, KeyBuf, KeyRef};
pub use normal::{Normal, Normalised};
pub use query::{Pattern, QueryRules};
pub use storable::{Policy, Request, Response, Storable};
pub use store::Store;
pub use stored::Stored;
pub use tags::{Life, Tags};
pub use uses::Uses;

#[cfg(test)]
mod testing;
