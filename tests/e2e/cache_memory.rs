//! `[cache] memory` is what the process keeps to, whatever is asked for.
//!
//! By default with an eighth of the sizes, since the harness, not the edge, takes the time. The whole
//! (512 MiB, a million objects of 4 KiB and 10,000 of 1 MiB) with `TIDEGATE_TEST_MEMORY=1`.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Answer, Ask, Conn, Edge, Origin, Setup};

const MIB: u64 = 1 << 20;

/// What of the program's own file a release build has in memory, measured, and rounded up: that is
/// what runs in production, where the bound has to hold. A debug build has 34 MiB.
const RELEASED: u64 = 14 * MIB;

fn share() -> usize {
    match std::env::var_os("TIDEGATE_TEST_MEMORY") {
        Some(_) => 1,
        None => 8,
    }
}

fn edge(origin: &Origin, mebibytes: u64) -> Edge {
    Setup::new().with("APP", origin.address).start(&format!(
        r#"
        [limits]
        max_requests_per_connection = 1000000
        [upstream.app]
        endpoints = ["@APP@"]
        [cache]
        memory = "{mebibytes}MiB"
        [[route]]
        upstream = "app"
        cache = {{}}
        "#
    ))
}

/// Asks for `/0` to `/count - 1`, each once, over eight connections.
fn ask_for_all(edge: &Edge, count: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (next, address) = (Arc::clone(&next), edge.http());
            scope.spawn(move || {
                let mut conn = Conn::open(address);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    conn.ask(&Ask::get(&format!("/{number}"))).expect(200);
                }
            });
        }
    });
}

#[track_caller]
fn stays_within(objects: usize, size: usize) {
    let share = share();
    let memory = 512 / share as u64;
    let body = vec![b'x'; size];
    let origin = Origin::start(move |_| {
        Answer::fresh(3600, body.clone()).field("Surrogate-Key", "all products")
    });
    let edge = edge(&origin, memory);
    ask_for_all(&edge, objects / share);
    let peak = edge.peak_memory() - edge.program_memory() + RELEASED;
    let limit = memory * MIB + memory * MIB / 4 + 64 * MIB;
    assert!(
        peak < limit,
        "{} MiB at the most, {} allowed",
        peak / MIB,
        limit / MIB
    );
    let held = edge.metric("tidegate_cache_memory_bytes");
    let configured = (memory * MIB) as f64;
    assert!(held <= configured, "{held} bytes held");
    assert!(held > configured / 2.0, "{held} bytes held: it is in use");
    // For the table of figures; shown with --nocapture.
    let _ = writeln!(
        std::io::stderr(),
        "{objects} objects of {size} bytes: {} MiB at the most, {} allowed",
        peak / MIB,
        limit / MIB
    );
}

#[test]
fn many_small_objects_stay_within_what_is_configured() {
    stays_within(1_000_000, 4096);
}

#[test]
fn many_large_objects_stay_within_what_is_configured() {
    stays_within(10_000, 1 << 20);
}
