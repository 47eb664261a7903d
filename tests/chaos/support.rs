//! What the end-to-end tests have already: ports of one's own, child processes
//! that end with the test, a DNS server, waiting with a deadline.

#![expect(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "shared with the end-to-end tests, which use all of it"
)]

#[path = "../e2e/support/dns.rs"]
pub(crate) mod dns;
#[path = "../e2e/support/ports.rs"]
pub(crate) mod ports;
#[path = "../e2e/support/tools.rs"]
pub(crate) mod tools;
#[path = "../e2e/support/wait.rs"]
pub(crate) mod wait;
