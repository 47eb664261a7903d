//! The real binary, end to end: its own ports, real clients, real origins.
//!
//! One test program, so that it links once. Each module is a subject; the
//! harness is `support`. Tests that need a Debian package say which on the
//! terminal and are skipped without it; `TIDEGATE_REQUIRE_TOOLS=1` makes that
//! a failure. `TIDEGATE_BIN` puts another build under test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first thing that is not as it should be"
)]

#[path = "../../static-server/tests/suite/mod.rs"]
pub mod static_suite;
mod support;

mod acme;
mod announced;
mod balancing;
mod browser_shop;
mod by_hand;
mod cache;
mod cache_calm;
mod cache_cli;
mod cache_coding;
mod cache_disk;
mod cache_fetch;
mod cache_guard;
mod cache_hits;
mod cache_key;
mod cache_look;
mod cache_memory;
mod cache_purge;
mod cache_rfc;
mod cache_tags;
mod choosing;
mod chunked_uploads;
mod cli;
mod client_limits;
mod compress;
mod defaults;
mod demo;
mod dictionaries;
mod discovery_dns;
mod discovery_lists;
mod early_hints;
mod error_pages;
mod failover;
mod filters;
mod forwarded;
mod forwarded_fields;
mod grpc;
mod h2_attacks;
mod handover;
mod harness;
mod health;
mod health_grpc;
mod hostile_app;
mod http3;
mod http3_certificates;
mod http3_clients;
mod http3_life;
mod http3_limits;
mod http3_passing;
mod http3_priority;
mod http3_websockets;
mod http3_wire;
mod images;
mod lane;
mod large_uploads;
mod limits;
mod long_fields;
mod maintenance;
mod manual;
mod observe;
mod ocsp;
mod outliers;
mod overload;
mod passed_tls;
mod protocols;
mod queue;
mod reload;
mod repeats;
mod routing;
mod scanners;
mod shop;
mod slow_clients;
mod slow_readers;
mod static_files;
mod static_fronts;
mod static_hostile;
mod static_listing;
mod static_moving;
mod static_nginx;
mod sticky;
mod streams;
mod strictness;
mod strictness_table;
mod tiers;
mod tls;
mod tls_options;
mod trailers;
mod trust;
mod upgrades;
mod upstream_h2;
mod upstream_tls;
mod upstream_wire;
mod websockets;
