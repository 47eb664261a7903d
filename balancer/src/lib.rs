//! Which endpoint gets this request.
//!
//! A [`Pool`] is made from the endpoints of one upstream when a configuration is loaded. It answers
//! three questions and nothing else:
//!
//! - [`Pool::pick`]: which endpoint, by the configured [`Balance`], among those that are in
//!   service;
//! - [`Pool::record`] and [`Pool::probed`]: what a request or a health check says about an
//!   endpoint, and whether that takes it out of service or brings it back (a [`Transition`], for
//!   the log);
//! - [`Pool::status`]: how things stand.
//!
//! A pool is an immutable snapshot whose moving parts are atomics: picking takes no lock and
//! allocates nothing. Only the decision to eject an endpoint, which looks at the whole pool, takes
//! a short mutex. A reload builds a new pool from the previous one, and endpoints that are still
//! configured keep their health, their ejection and their count of active requests, because old and
//! new pool share them.
//!
//! There is no I/O, no clock and no source of randomness in here: `now` and random bits are
//! arguments, so that the same inputs give the same answer and simulations need no sleep. Who
//! probes, who connects, who retries and how often is decided by the caller.
//!
//! # An attempt, and the next one
//!
//! ```
//! use std::num::NonZeroU32;
//! use std::time::Instant;
//! use balancer::{Balance, EndpointSettings, Outcome, PickContext, Pool, PoolSettings};
//!
//! # #[expect(clippy::disallowed_methods, reason = "an example needs some instant")]
//! # let now = Instant::now();
//! # let random = 7;
//! let endpoint = |address: &str| EndpointSettings {
//!     address: address.parse().expect("an address"),
//!     name: address.to_owned(),
//!     weight: NonZeroU32::MIN,
//!     backup: false,
//! };
//! let settings = PoolSettings {
//!     endpoints: vec![endpoint("10.0.0.11:8080"), endpoint("10.0.0.12:8080")],
//!     balance: Balance::RoundRobin,
//!     active_checks: None,
//!     outlier: None,
//! };
//! let pool = Pool::new(settings, None, now);
//!
//! let first = pool.pick(&PickContext::default(), now, random).expect("both are in service");
//! let active = pool.start(first);
//! // ... the connection is refused ...
//! drop(active);
//! pool.record(first, Outcome::ConnectFailed, now);
//!
//! let again = PickContext { tried: &[first], ..PickContext::default() };
//! let second = pool.pick(&again, now, random).expect("the other one");
//! assert_ne!(first, second);
//! ```

mod checks;
mod endpoint;
mod hash_key;
mod outlier;
mod pool;
mod random;
mod select;
mod settings;
mod stamp;
mod status;
mod transition;

pub use endpoint::{Active, Endpoint, EndpointIndex};
pub use hash_key::hash_key;
pub use pool::{PickContext, PickError, Pool};
pub use settings::{Balance, EndpointSettings, OutlierSettings, PoolSettings, Thresholds};
pub use status::{EndpointStatus, Health};
pub use transition::{Evidence, Outcome, Transition};
