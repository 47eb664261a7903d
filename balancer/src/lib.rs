//! Which endpoint gets this request.
//!
//! A [`Pool`] is made from the endpoints of one upstream when a configuration is loaded. It answers
//! three questions and nothing else:
//!
//! - [`Pool::acquire`]: which endpoint, by the configured [`Balance`], among those that are in
//!   service and have room, and is there a retry left for it ([`Pool::may_retry`]);
//! - [`Pool::record`], [`Pool::probed`] and [`Pool::sweep`]: what a request or a health check says
//!   about an endpoint, and whether that takes it out of service or brings it back (a
//!   [`Transition`], for the log);
//! - [`Pool::status`] and [`Pool::summary`]: how things stand.
//!
//! A pool is an immutable snapshot whose moving parts are atomics: picking takes no lock and
//! allocates nothing. Only the decision to eject an endpoint, which looks at the whole pool, takes
//! a short mutex. A reload builds a new pool from the previous one, and endpoints that are still
//! configured keep what is known of them, because old and new pool share it.
//!
//! There is no I/O, no clock and no source of randomness in here: `now` and random bits are
//! arguments, so that the same inputs give the same answer and simulations need no sleep. Who
//! probes, who connects, who retries and how often is decided by the caller.
//!
//! # An attempt, and the next one
//!
//! ```
//! use std::num::NonZeroU32;
//! use std::time::{Duration, Instant};
//! use balancer::{
//!     Balance, Carry, EndpointSettings, Limits, Mode, Outcome, PickContext, Pool, PoolSettings,
//! };
//!
//! # #[expect(clippy::disallowed_methods, reason = "an example needs some instant")]
//! # let now = Instant::now();
//! # let random = 7;
//! let endpoint = |id: &str| EndpointSettings {
//!     id: id.to_owned(),
//!     name: id.to_owned(),
//!     weight: NonZeroU32::MIN,
//!     priority: 0,
//!     backup: false,
//!     zone: None,
//!     mode: Mode::Enabled,
//! };
//! let settings = PoolSettings {
//!     endpoints: vec![endpoint("10.0.0.11:8080"), endpoint("10.0.0.12:8080")],
//!     balance: Balance::RoundRobin,
//!     own_zone: None,
//!     overflow_below: 70,
//!     zone_overflow_below: 70,
//!     panic_threshold: 0,
//!     active_checks: None,
//!     outlier: None,
//!     limits: Limits::default(),
//!     adaptive: None,
//!     slow_start: Duration::ZERO,
//!     retry_budget: Some(20),
//! };
//! let pool = Pool::new(settings, None, Carry::Reload, now);
//!
//! let context = PickContext::default();
//! let (first, active) = pool.acquire(&context, now, random).expect("both are in service");
//! // ... the connection is refused ...
//! drop(active);
//! pool.record(first, Outcome::ConnectFailed, None, now);
//!
//! assert!(pool.may_retry(now));
//! let again = PickContext { tried: &[first], ..context };
//! let (second, mut active) = pool.acquire(&again, now, random).expect("the other one");
//! assert_ne!(first, second);
//! active.connected();
//! // ... the response begins after 3 ms, and ends ...
//! pool.record(second, Outcome::Success, Some(Duration::from_millis(3)), now);
//! drop(active);
//! ```

mod adaptive;
mod checks;
mod convert;
mod endpoint;
mod hash_key;
mod histogram;
mod latency;
mod load;
mod outlier;
mod pool;
mod ramp;
mod random;
mod retry;
mod select;
mod settings;
mod shared;
mod stamp;
mod status;
mod transition;
mod window;

pub use endpoint::{Endpoint, EndpointIndex};
pub use hash_key::hash_key;
pub use load::Active;
pub use pool::{Carry, PickContext, PickError, Pool};
pub use settings::{
    AdaptiveSettings, Balance, Checks, EndpointSettings, HashTable, Limits, Mode, OutlierSettings,
    PoolSettings,
};
pub use status::{EndpointStatus, Health, Summary};
pub use transition::{Cause, Evidence, Outcome, Transition};
